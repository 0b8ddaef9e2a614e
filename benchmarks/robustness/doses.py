"""Tables of doses in any combination that NONMEM defines, against SciPy from event to event, for several subjects and solvers."""

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt

from pymc_saem.ode import Doses, solve_ivp
from robustness.compartments import Modifiers, System, predicted
from robustness.dose_faults import broken
from robustness.judge import Input

COUNT = 200
STATES = ("gut", "blood")
OPTIONS = ("lag_time", "bioavailability", "rate", "duration")


def linear(t, y, p):
    return {"gut": -p.ka * y.gut, "blood": p.ka * y.gut - p.k * y.blood}


def saturable(t, y, p):
    return {"gut": -p.ka * y.gut, "blood": p.ka * y.gut - p.vm * y.blood / (p.km + y.blood)}


class Study:
    """Subjects, rows, doses and parameters, drawn from a number."""

    def __init__(self, rng):
        self.rng, self.n = rng, int(rng.choice([1, 2, 3, 7]))
        self.is_linear = rng.uniform() < 0.6
        self.grid = rng.choice([0.25, 0.01])
        solvers = ["auto", "tsit5", "cvodes"] + ["linear"] * self.is_linear
        self.solver = str(
            rng.choice(
                solvers, p=[0.3, 0.3, 0.4] if not self.is_linear else [0.25, 0.25, 0.25, 0.25]
            )
        )
        self.variables = [v for v in ("ka", "k" if self.is_linear else "vm") if rng.uniform() < 0.5]
        self.values = {"ka": rng.uniform(0.5, 2, self.n)}
        self.values |= (
            {"k": rng.uniform(0.1, 0.4, self.n)}
            if self.is_linear
            else {"vm": rng.uniform(27, 45, self.n), "km": 5.0}
        )
        self.used = {o: {} for o in OPTIONS}
        self.with_modifiers = rng.uniform() < 0.5
        # A row of subject 0 that does nothing, without which codes from 1 on might be labels.
        nothing = {
            "subject": 0,
            "time": 0.0,
            "evid": 0,
            "amt": 0.0,
            "rate": 0.0,
            "dur": 0.0,
            "addl": 0,
            "ii": 0.0,
            "ss": 0,
            "state": 0,
        }
        self.rows = [nothing, *(row for i in range(self.n) for row in self.doses_of(i))]
        self.subject = np.repeat(np.arange(self.n), rng.integers(1, 9, self.n))
        self.times = self.instant(0, 80, self.subject.size)
        for k in np.flatnonzero(rng.uniform(size=self.times.size) < 0.3):  # at the time of a dose
            own = [r["time"] for r in self.rows if r["subject"] == self.subject[k]]
            self.times[k] = rng.choice(own) if own else self.times[k]

    def instant(self, low, high, size=None):
        return np.round(np.round(self.rng.uniform(low, high, size) / self.grid) * self.grid, 2)

    def modifier(self, option, state, low, high):
        """Values of a parameter that acts on doses, the same for all doses into a state."""
        name = f"{option}_{state}"
        if state not in self.used[option]:
            self.used[option][state] = name
            self.values[name] = np.round(self.rng.uniform(low, high, self.n), 2)
        return self.values[name]

    def doses_of(self, i):
        rows = []
        for time in np.sort(self.instant(0, 50, self.rng.integers(0, 4))):
            row = {
                "subject": i,
                "time": float(time),
                "evid": int(self.rng.choice([0, 1, 1, 1, 1, 1, 2, 3, 4])),
            }
            row |= {"amt": 0.0, "rate": 0.0, "dur": 0.0, "addl": 0, "ii": 0.0, "ss": 0}
            row["state"] = int(self.rng.integers(2))
            if row["evid"] in (1, 4):
                self.dose(row)
            rows.append(row)
        return rows

    def dose(self, row):
        rng, name = self.rng, STATES[row["state"]]
        row["amt"], form = (
            float(np.round(rng.uniform(10, 100), 1)),
            rng.choice(["bolus", "rate", "dur", "R", "D"]),
        )
        if form == "rate":
            row["rate"] = float(np.round(rng.uniform(5, 20), 2))
        if form == "dur":
            row["dur"] = float(np.round(rng.uniform(1, 6), 2))
        if form in "RD":
            self.modifier(
                "rate" if form == "R" else "duration", name, *((5, 20) if form == "R" else (1, 6))
            )
            row["rate"] = {"R": -1.0, "D": -2.0}[str(form)]
        if self.with_modifiers:
            self.modifier("lag_time", name, 0.1, 3)
            self.modifier("bioavailability", name, 0.3, 1.2)
        if rng.uniform() < 0.4:
            row["addl"] = int(rng.integers(1, 4))
        row["ss"] = (
            int(rng.choice([0, 0, 0, 1, 1, 2])) if self.is_linear else int(rng.choice([0, 0, 0, 1]))
        )
        if row["addl"] or row["ss"]:
            row["ii"] = float(rng.choice([6.0, 8.0, 12.0, 7.3, 24.0]))
        if row["ss"] == 1 and form == "rate" and rng.uniform() < 0.3:
            row |= {"amt": 0.0, "addl": 0, "ii": 0.0}

    def table(self):
        columns = ["subject", "time", "amt", "cmt", "evid", "rate", "dur", "addl", "ii", "ss"]
        return pd.DataFrame(
            [row | {"cmt": STATES[row["state"]]} for row in self.rows], columns=columns
        )

    def inputs(self):
        return {v: pt.tensor(v, dtype="float64", shape=(self.n,)) for v in self.variables}

    def solution(self, events, inputs):
        tight = {"rtol": 1e-8, "atol": 1e-8}
        return solve_ivp(
            linear if self.is_linear else saturable, dict.fromkeys(STATES, 0.0), self.values | inputs, t=self.times,
            subject=self.subject, events=events, solver=self.solver, **tight,
        )  # fmt: skip

    def solve(self, table):
        """What the package predicts, and the status."""
        inputs = self.inputs()
        solution = self.solution(Doses(table, **self.used), inputs)
        states = [solution[s] for s in STATES]
        compiled = pytensor.function(
            [*inputs.values()], [*states, solution.status], mode="FAST_COMPILE"
        )
        *found, status = compiled(*(self.values[v] for v in self.variables))
        return np.column_stack(found), status

    def gradient(self, table):
        """Of the sum of blood, with respect to the variables."""
        inputs = self.inputs()
        total = self.solution(Doses(table, **self.used), inputs).blood.sum()
        compiled = pytensor.function(
            [*inputs.values()], pt.grad(total, [*inputs.values()]), mode="FAST_COMPILE"
        )
        return np.array(compiled(*(self.values[v] for v in self.variables)))

    def expected(self, values=None):
        """States by SciPy, and the rows that lie so near an instant that either side of it may be meant."""
        values, out = values or self.values, np.zeros((self.times.size, 2))
        near = np.zeros(self.times.size, dtype=bool)
        for i in range(self.n):
            own = np.flatnonzero(self.subject == i)
            of = {k: np.broadcast_to(v, self.n)[i] for k, v in values.items()}
            system = System(of["ka"], of.get("k", 0.0), of.get("vm"), of.get("km", 5.0))
            acting = [
                tuple(of.get(f"{o}_{s}", default) for s in STATES)
                for o, default in zip(OPTIONS, (0.0, 1.0, None, None), strict=True)
            ]
            rows = [r for r in self.rows if r["subject"] == i]
            out[own], instants = predicted(system, rows, self.times[own], Modifiers(*acting))
            gaps = np.abs(self.times[own][:, None] - np.array(sorted(instants) or [-1.0]))
            near[own] = ((gaps > 0) & (gaps < 1e-6)).any(axis=1)
        return out, near

    def wrong(self, found):
        """What is wrong with predictions, or None."""
        (values, status), (expected, near) = found, self.expected()
        if status.any():
            return f"status {status.tolist()}"
        error = np.abs(values - expected) / (1e-3 + 1e-4 * np.abs(expected)) * ~near[:, None]
        if np.isfinite(error).all() and error.max(initial=0.0) < 1:
            return None
        row = np.unravel_index(np.nan_to_num(error, nan=np.inf).argmax(), error.shape)
        return f"{STATES[row[1]]} of subject {self.subject[row[0]]} at {self.times[row[0]]}: {values[row]:.6g}, right {expected[row]:.6g}"

    def wrong_gradient(self, found):
        for v, gradient in zip(self.variables, found, strict=True):
            for i in range(self.n):
                step = 1e-4 * np.eye(self.n)[i]
                ends = [
                    self.expected(self.values | {v: self.values[v] + s})[0][:, 1].sum()
                    for s in (step, -step)
                ]
                right = (ends[0] - ends[1]) / 2e-4
                if not abs(gradient[i] - right) < 0.02 + 2e-3 * abs(right):
                    return f"derivative by {v} of subject {i}: {gradient[i]:.6g}, right {right:.6g}"
        return None


def make(seed):
    rng = np.random.default_rng([1, seed])
    study = Study(rng)
    if seed % 2:
        return broken(study, seed // 2)
    table = study.table()
    text = (
        f"{study.n} subjects, {study.solver}, {'linear' if study.is_linear else 'saturable'}, variables {study.variables}, "
        + (" ".join(f"{k}={v}" for k, v in table.iloc[-1].items()) if len(table) else "no doses")
    )
    if study.variables and study.n < 4 and rng.uniform() < 0.3:
        return Input(
            f"gradient: {text}", lambda: study.gradient(table), study.wrong_gradient, valid=True
        )
    return Input(text, lambda: study.solve(table), study.wrong, valid=True)
