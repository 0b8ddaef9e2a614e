"""Times, subjects, starts and parameters of ``solve_ivp`` in every form in which people hold them, against exp(-k t)."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt

from pymc_saem.ode import interpolate, solve_ivp
from robustness.judge import Input

N = 4
LABELS = ["anna", "ben", "cleo", "dora"]


def decay(t, y, p):
    return {"c": -p.k * y.c}


class Rows:
    """Plain values of a solve, and what they give."""

    def __init__(self, rng):
        self.subject = rng.integers(0, N, 13)
        self.subject[:N] = np.arange(N)
        self.t = np.round(rng.uniform(0, 5, 13), 2)
        self.t[5] = self.t[4]
        self.k, self.y0, self.t0 = rng.uniform(0.1, 1, N), rng.uniform(1, 9, N), np.zeros(N)

    def solve(self, t=None, subject=None, k=None, y0=None, **others):
        given = {
            "t": self.t if t is None else t,
            "subject": self.subject if subject is None else subject,
        }
        start = {"c": self.y0 if y0 is None else y0}
        solution = solve_ivp(decay, start, {"k": self.k if k is None else k}, **given, **others)
        return pytensor.function([], [solution.c, solution.status], mode="FAST_COMPILE")()

    def wrong(self, found, t=None, subject=None, k=None, y0=None, t0=0.0):
        t, subject = self.t if t is None else t, self.subject if subject is None else subject
        k, y0 = self.k if k is None else k, self.y0 if y0 is None else y0
        k, y0, t0 = (np.broadcast_to(v, N) for v in (k, y0, t0))
        right = y0[subject] * np.exp(-k[subject] * (t - t0[subject]))
        values, status = found
        if status.any():
            return f"status {status.tolist()}"
        bad = ~np.isclose(values, right, rtol=1e-4, atol=1e-5)
        return (
            f"row {bad.argmax()} is {values[bad.argmax()]}, right {right[bad.argmax()]}"
            if bad.any()
            else None
        )


def _read_only(x):
    x = np.array(x)
    x.setflags(write=False)
    return x


# Forms of a vector of numbers that mean the same numbers.
FORMS = {
    "list": list,
    "tuple": tuple,
    "objects": lambda x: np.array(x, dtype=object),
    "series with another index": lambda x: pd.Series(x, index=np.arange(len(x))[::-1]),
    "series whose index repeats": lambda x: pd.Series(x, index=[7] * len(x)),
    "nullable series": lambda x: pd.Series(x).convert_dtypes(),
    "index": pd.Index,
    "categories": lambda x: pd.Series(x, dtype="category"),
    "read-only": _read_only,
    "not contiguous": lambda x: np.repeat(np.asarray(x), 2)[::2],
    "backwards in memory": lambda x: np.asarray(x)[::-1].copy()[::-1],
    "big endian": lambda x: np.asarray(x).astype(np.asarray(x).dtype.newbyteorder(">")),
    "text of numbers": lambda x: np.asarray(x).astype(str),
    "masked without a mask": lambda x: np.ma.masked_array(x),
    "tensor": pt.as_tensor_variable,
    "shared": pytensor.shared,
    "one column": lambda x: np.asarray(x)[:, None],
    "frame of one column": lambda x: pd.DataFrame({"x": x}),
}
WORDS = {
    "t": ("t must", "time", "t is masked"),
    "subject": ("subject",),
    "k": ("params", "'k'", "'c'"),
    "y0": ("y0",),
    "t0": ("t0",),
}


def _form(rng, kind, number):
    name = list(FORMS)[number]
    rows = Rows(rng)
    plain = getattr(rows, kind)
    given = FORMS[name](plain)
    return Input(f"{kind} as {name}", lambda: rows.solve(**{kind: given}), rows.wrong, WORDS[kind])


def _with(value, at=2):
    """A vector with one other value."""

    def change(x):
        changed = np.array(x, dtype=object)
        changed[at] = value
        return changed

    return change


# Vectors that mean nothing: argument, what is wrong, how it gets there.
BROKEN = [
    ("t", "missing", _with(np.nan)), ("t", "None", _with(None)), ("t", "infinite", _with(np.inf)), ("t", "before t0", _with(-1.0)),
    ("t", "NA", lambda x: pd.Series(_with(pd.NA)(x))), ("t", "one row less", lambda x: x[1:]), ("t", "text", _with("noon")),
    ("t", "timestamps", lambda x: pd.to_datetime(x, unit="D")), ("t", "time spans", lambda x: pd.to_timedelta(x, unit="D")),
    ("t", "masked", lambda x: np.ma.masked_array(x, mask=np.arange(len(x)) == 3)), ("t", "complex", lambda x: x + 1j), ("t", "a number", lambda x: 1.0),
    ("subject", "-1", _with(-1)), ("subject", "one too many", _with(N)), ("subject", "half", _with(0.5)), ("subject", "missing", _with(np.nan)),
    ("subject", "a code of a billion", _with(10**9)), ("subject", "bools", lambda x: x > 1), ("subject", "masked", lambda x: np.ma.masked_array(x, mask=np.arange(len(x)) == 3)),
    ("k", "one too few", lambda x: x[1:]), ("k", "text", _with("fast")), ("k", "a single NaN", lambda x: np.nan), ("k", "one per row", lambda x: np.ones(13)),
    ("k", "timestamps", lambda x: pd.to_datetime(x, unit="D")), ("k", "complex", lambda x: x + 1j), ("y0", "two axes", lambda x: np.ones((N, 1))), ("y0", "masked", lambda x: np.ma.masked_array(x, mask=[0, 1, 0, 0])),
    ("y0", "missing", _with(np.nan)), ("k", "missing", _with(np.nan)), ("k", "infinite", _with(np.inf)),
    ("t0", "after the first rows", lambda x: 3.0), ("t0", "missing", lambda x: np.nan), ("t0", "one per row", lambda x: np.zeros(13)), ("t0", "text", lambda x: "now"),
]  # fmt: skip


def _broken(rng, number):
    kind, text, change = BROKEN[number]
    rows = Rows(rng)
    given = change(getattr(rows, kind))

    def call():
        values, status = rows.solve(**{kind: given})
        bad = np.unique(rows.subject[~np.isfinite(values)])
        if not status.any() or set(bad) != set(np.flatnonzero(status)):
            return "taken"
        return "told by the status"

    return Input(
        f"{kind}: {text}",
        call,
        lambda found: None if found == "told by the status" else found,
        WORDS[kind],
    )


def _others(rng):
    """Inputs of kinds of their own."""
    rows = Rows(rng)
    once = {"subject": np.zeros(13, int)}
    later = np.round(rng.uniform(-2, 0, N), 2)
    gaps = np.where(rows.subject == 2, 1, rows.subject)  # subject 2 has no row
    labels = np.array(LABELS)[rows.subject]
    shared = pytensor.shared(rows.k)

    def changed():
        """A pm.Data that gets other values after the solve was written."""
        with pm.Model() as model:
            data = pm.Data("k", np.ones(N))
            solution = solve_ivp(decay, {"c": rows.y0}, {"k": data}, rows.t, rows.subject)
            compiled = pytensor.function([], [solution.c, solution.status], mode="FAST_COMPILE")
            pm.set_data({"k": rows.k}, model=model)
        return compiled()

    def moved():
        """Times in a pm.Data that are set to others."""
        with pm.Model() as model:
            data = pm.Data("t", np.zeros(13))
            solution = solve_ivp(decay, {"c": rows.y0}, {"k": rows.k}, data, rows.subject)
            compiled = pytensor.function([], [solution.c, solution.status], mode="FAST_COMPILE")
            pm.set_data({"t": rows.t}, model=model)
        return compiled()

    def called(y, t):
        solution = solve_ivp(decay, y, {"k": rows.k}, t, rows.subject)
        return pytensor.function([], [solution.c, solution.status], mode="FAST_COMPILE")()

    tiny = 1e-12
    yield Input("subjects by label", lambda: rows.solve(subject=labels), rows.wrong, ("subject",))
    yield Input(
        "subjects as categories of labels",
        lambda: rows.solve(subject=pd.Categorical(labels)),
        rows.wrong,
        ("subject",),
    )
    yield Input(
        "a subject without rows",
        lambda: rows.solve(subject=gaps),
        lambda f: rows.wrong(f, subject=gaps),
        valid=True,
    )
    yield Input(
        "one value for all",
        lambda: rows.solve(k=0.5, y0=2),
        lambda f: rows.wrong(f, k=0.5, y0=2),
        valid=True,
    )
    yield Input(
        "negative times",
        lambda: rows.solve(t=rows.t - 2.0, t0=later - 2),
        lambda f: rows.wrong(f, t=rows.t - 2, t0=later - 2),
        valid=True,
    )
    yield Input(
        "whole numbers",
        lambda: rows.solve(t=rows.t.astype(int), y0=np.arange(N)),
        lambda f: rows.wrong(f, t=rows.t.astype(int), y0=np.arange(N)),
        valid=True,
    )
    yield Input(
        "small floats",
        lambda: rows.solve(k=rows.k.astype("f4")),
        lambda f: rows.wrong(f, k=rows.k.astype("f4")),
        valid=True,
    )
    yield Input(
        "all rows at the start",
        lambda: rows.solve(t=np.zeros(13)),
        lambda f: rows.wrong(f, t=np.zeros(13)),
        valid=True,
    )
    yield Input(
        "no rows",
        lambda: rows.solve(t=[], subject=np.zeros(0, int)),
        lambda f: None if f[0].size == 0 else "rows",
        ("row", "t ", "subject"),
    )
    yield Input(
        "times of seconds since 1970",
        lambda: rows.solve(t=rows.t + 1.7e9, t0=1.7e9),
        lambda f: rows.wrong(f, t=rows.t + 1.7e9, t0=1.7e9),
        valid=True,
    )
    yield Input(
        "a state of 1e-12",
        lambda: rows.solve(y0=tiny),
        lambda f: (
            None
            if np.allclose(f[0], tiny * np.exp(-rows.k[rows.subject] * rows.t), rtol=1e-2, atol=0)
            else f"{f[0][0]}"
        ),
        ("atol",),
    )
    yield Input(
        "a state of 1e15",
        lambda: rows.solve(y0=1e15),
        lambda f: rows.wrong((f[0] / 1e15, f[1]), y0=1.0),
        valid=True,
    )
    yield Input("parameters set after", changed, rows.wrong, valid=True)
    yield Input("times set after", moved, rows.wrong, valid=True)
    yield Input("a shared variable", lambda: rows.solve(k=shared), rows.wrong, valid=True)
    yield Input("rtol of 0", lambda: rows.solve(rtol=0.0), None, ("rtol",))
    yield Input("atol as text", lambda: rows.solve(atol="1e-3"), None, ("atol",))
    yield Input("steps of 0", lambda: rows.solve(max_steps=0), None, ("max_steps",))
    yield Input(
        "steps that are few",
        lambda: rows.solve(max_steps=1, solver="tsit5", rtol=1e-9, atol=1e-12),
        lambda f: None if f[1].any() and np.isnan(f[0]).any() else "taken",
    )
    yield Input("threads of -1", lambda: rows.solve(n_threads=-1), None, ("n_threads",))
    yield Input(
        "a thousand threads", lambda: rows.solve(n_threads=1000), rows.wrong, ("n_threads",)
    )
    yield Input(
        "solver of another package", lambda: rows.solve(solver="RK45"), None, ("solver", "RK45")
    )
    yield Input("solver that is None", lambda: rows.solve(solver=None), None, ("solver",))
    yield Input(
        "a state called status",
        lambda: solve_ivp(lambda t, y, p: {"status": -y.status}, {"status": 1.0}, {}, [1.0]),
        None,
        ("status",),
    )
    yield Input(
        "a state that is no name",
        lambda: solve_ivp(lambda t, y, p: {}, {"a b": 1.0}, {}, [1.0]),
        None,
        ("a b",),
    )
    yield Input("no states", lambda: called({}, rows.t), None, ("y0",))
    yield Input("states as a list", lambda: called([1.0], rows.t), None, ("y0",))
    yield Input(
        "one subject with codes",
        lambda: rows.solve(**once, k=0.3, y0=1.0),
        lambda f: None if np.allclose(f[0], np.exp(-0.3 * rows.t), atol=1e-5) else f"{f[0]}",
        valid=True,
    )


def _covariates(rng):
    """Covariates that change with time, against integrals of the curve."""
    times, values = np.array([0.0, 1.0, 2.5, 4.0]), np.round(rng.uniform(0, 3, 4), 2)
    rows = np.sort(np.round(rng.uniform(0, 6, 9), 2))
    table = pd.DataFrame({"time": times, "flow": values})

    def solved(table, kind="linear", **options):
        solution = solve_ivp(
            lambda t, y, p: {"v": p.flow(t)},
            {"v": 0.0},
            {"flow": interpolate(table, kind, **options)},
            rows,
        )
        return solution.v.eval()

    def integral(t):
        fine = np.union1d(np.linspace(0, t, 2001), times[times < t])
        return np.trapezoid(np.interp(fine, times, values), fine)

    def steps(t):
        ends = np.minimum(np.append(times[1:], np.inf), t)
        return (np.maximum(ends - times, 0) * values).sum()

    def against(right):
        expected = np.array([right(t) for t in rows])
        return lambda found: (
            None
            if np.allclose(found, expected, rtol=1e-4, atol=1e-5)
            else f"{found}, right {expected}"
        )

    shuffled = table.sample(frac=1, random_state=1)
    yield Input("linear, rows shuffled", lambda: solved(shuffled), against(integral), valid=True)
    yield Input("constant", lambda: solved(table, "constant"), against(steps), valid=True)
    yield Input(
        "objects", lambda: solved(table.astype(object)), against(integral), ("time", "numeric")
    )
    yield Input(
        "nullable", lambda: solved(table.convert_dtypes()), against(integral), ("time", "numeric")
    )
    yield Input(
        "text", lambda: solved(table.astype(str)), against(integral), ("time", "numeric", "flow")
    )
    yield Input(
        "a gap", lambda: solved(table.assign(flow=[1.0, np.nan, 2.0, 3.0])), None, ("flow", "row 1")
    )
    yield Input(
        "NA",
        lambda: solved(
            table.convert_dtypes().assign(flow=pd.array([1.0, pd.NA, 2.0, 3.0], dtype="Float64"))
        ),
        None,
        ("flow",),
    )
    yield Input(
        "a time twice", lambda: solved(table.assign(time=[0.0, 1.0, 1.0, 2.0])), None, ("time",)
    )
    yield Input("no rows", lambda: solved(table.iloc[:0]), None, ("row", "subject"))
    yield Input("a kind of its own", lambda: solved(table, "quadratic"), None, ("kind",))
    yield Input(
        "timestamps",
        lambda: solved(table.assign(time=pd.to_datetime(times, unit="h"))),
        None,
        ("time",),
    )
    yield Input(
        "time spans",
        lambda: solved(table.assign(time=pd.to_timedelta(times, unit="h"))),
        None,
        ("time",),
    )
    yield Input("a second column", lambda: solved(table.assign(other=1.0)), None, ("other",))
    yield Input(
        "a column named twice",
        lambda: solved(pd.concat([table, table[["flow"]]], axis=1)),
        None,
        ("flow",),
    )
    yield Input(
        "a value column chosen",
        lambda: solved(table.assign(other=1.0), value="flow"),
        against(integral),
        valid=True,
    )
    yield Input(
        "one row", lambda: solved(table.iloc[:1]), against(lambda t: values[0] * t), valid=True
    )
    yield Input(
        "ints",
        lambda: solved(pd.DataFrame({"time": [0, 1], "flow": [1, 1]})),
        against(lambda t: t),
        valid=True,
    )


_N_OTHERS, _N_COVARIATES = 28, 17
_CASES = [(_form, kind, k) for kind in ("t", "subject", "k", "y0") for k in range(len(FORMS))]
_CASES += [(_broken, None, k) for k in range(len(BROKEN))]
_CASES += [(_others, None, k) for k in range(_N_OTHERS)] + [
    (_covariates, None, k) for k in range(_N_COVARIATES)
]
COUNT = len(_CASES)
BUNCH = 40


def make(seed):
    rng = np.random.default_rng([2, seed])
    what, kind, k = _CASES[seed % COUNT]
    if what is _form:
        return _form(rng, kind, k)
    return _broken(rng, k) if what is _broken else list(what(rng))[k]
