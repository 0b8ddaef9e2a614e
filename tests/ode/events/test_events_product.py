"""Every solver with every kind of event, for several subjects, kinds of inputs and of results; against matrix exponentials by hand.

The product: solver (tsit5, cvodes, auto, linear) x number of subjects (1, 3, 12) x inputs
(constants, variables, a variable in y0, replicates: all of them with a leading axis, as the E-step
makes it) x event (bolus, infusion, additional doses, steady state, lag, reset, covariate table) x
result (value, gradient). Within a test each subject has an event of its own kind and parameters of
its own, so that what belongs to another subject shows. Some subjects of "auto" are stiff, and it
hands these over. sunode refuses events.

What else can meet events: rows at other times, a system that saturates (against SciPy), graphs that
Numba compiles, wide systems.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from pytensor.graph.replace import vectorize_graph
from scipy.integrate import solve_ivp as scipy_solve_ivp

from pymc_saem.ode import Doses, interpolate, solve_ivp
from tests.support import by_hand as hand

PLAIN = Mode("py", None)  # most of the time would go to rewriting graphs

# At 1.3, 2.0 and 5.0 something happens: rows there see what comes before a dose and after a reset.
TIMES = np.array([0.0, 0.4, 1.3, 2.0, 2.7, 4.1, 5.0, 6.6, 9.5])
WEIGHTS = (
    np.random.default_rng(11).normal(size=(len(TIMES), 2))
    * ~np.isin(TIMES, [1.3, 2.0, 5.0])[:, None]
)
KINDS = ["bolus", "infusion", "additional", "steady", "lag", "reset", "covariate"]
SOLVERS = ["tsit5", "cvodes", "auto", "linear"]
INPUTS = {
    "constants": [],
    "variables": ["ka", "k", "lag"],
    "y0": ["gut"],
    "replicates": ["ka", "k", "lag", "gut"],
}
NAMES = ["ka", "k", "lag", "gut"]

ROWS = {
    "bolus": [{"time": 1.3, "amt": 50.0}],
    "infusion": [{"time": 1.3, "amt": 60.0, "rate": 20.0, "cmt": "blood"}],
    "additional": [{"time": 1.3, "amt": 30.0, "ii": 2.5, "addl": 2}],
    "steady": [{"time": 2.0, "amt": 40.0, "ii": 4.0, "ss": 1}],
    "lag": [{"time": 1.3, "amt": 50.0}, {"time": 2.0, "amt": 20.0}],
    "reset": [{"time": 1.3, "amt": 50.0}, {"time": 5.0, "amt": 20.0, "evid": 4}],
    "covariate": [{"time": 1.3, "amt": 50.0}],
}
CHANGES = {"covariate": [(2.0, 3.0), (5.9, 0.5)]}


def by_hand(kind, p):
    """Events of a kind, at parameters that may be complex."""
    lag = p["lag"]
    if kind == "infusion":
        return hand.infusion(1.3, 1, 20.0, 3.0)
    if kind == "additional":
        return [e for k in range(3) for e in hand.bolus(1.3 + 2.5 * k + lag, 0, 30.0)]
    if kind == "steady":
        past = hand.steady(matrix(p), 1.0, 2.0, 4.0, lambda t: hand.bolus(t + lag, 0, 40.0))
        return hand.reset(2.0) + past + hand.bolus(2.0 + lag, 0, 40.0)
    more = {
        "lag": hand.bolus(2.0 + lag, 0, 20.0),
        "reset": hand.reset(5.0) + hand.bolus(5.0 + lag, 0, 20.0),
    }
    changes = [e for time, value in CHANGES.get(kind, []) for e in hand.covariate(time, value)]
    return hand.bolus(1.3 + lag, 0, 50.0) + more.get(kind, []) + changes


def matrix(p):
    return lambda w: np.array([[-p["ka"], 0.0], [p["ka"], -p["k"] * w]])


@cache
def expected(kind, *values):
    """States (rows, 2), and the derivatives of their weighted sum by ``NAMES``."""
    states, slopes = None, []
    for name in [None, *NAMES]:
        p = {n: v + (1e-30j if n == name else 0.0) for n, v in zip(NAMES, values, strict=True)}
        y = hand.advance(matrix(p), 1.0, 0.0, [p["gut"], 3.0], by_hand(kind, p), TIMES[-1], TIMES)
        slopes.append((WEIGHTS * y.imag).sum() / 1e-30)
        states = y.real if name is None else states
    return states, np.array(slopes[1:])


def parameters(kinds, solver, seed):
    """Values of ``NAMES``, each (n_subjects,)."""
    n, rng = len(kinds), np.random.default_rng(seed)
    ka, k, gut = rng.uniform(0.8, 1.5, n), rng.uniform(0.25, 0.4, n), rng.uniform(2.0, 9.0, n)
    if solver == "auto":
        ka[::5] = 2e4
    return [ka, k, np.where(np.array(kinds) == "lag", rng.uniform(0.45, 0.9, n), 0.0), gut]


def linear(t, y, p):
    return {"gut": -p.ka * y.gut, "blood": p.ka * y.gut - p.k * p.w(t) * y.blood}


def kinked(t, y, p):
    """The same where blood is not negative, which "auto" does not take for linear."""
    return {"gut": -p.ka * y.gut, "blood": p.ka * y.gut - p.k * p.w(t) * pt.maximum(y.blood, -1e3)}


def tables(kinds):
    """Doses and covariates; all have an infusion, so that all systems are one."""
    rows = [{"subject": i, **row} for i, kind in enumerate(kinds) for row in ROWS[kind]]
    rows.append({"subject": 0, "time": 99.0, "amt": 1.0, "rate": 1.0, "cmt": "blood"})
    doses = pd.DataFrame(rows).fillna(
        {"rate": 0.0, "cmt": "gut", "evid": 1, "ii": 0.0, "addl": 0, "ss": 0}
    )
    curve = [(i, 0.0, 1.0) for i in range(len(kinds))]
    curve += [(i, *change) for i, kind in enumerate(kinds) for change in CHANGES.get(kind, [])]
    return Doses(doses, lag_time={"gut": "lag"}), interpolate(
        pd.DataFrame(curve, columns=["subject", "time", "w"]), "constant"
    )


def solution_of(kinds, solver, variables, values):
    n = len(kinds)
    doses, curve = tables(kinds)
    known = dict(zip(NAMES, values, strict=True))
    symbols = {name: pt.tensor(name, dtype="float64", shape=(n,)) for name in variables}
    inputs = known | symbols
    solution = solve_ivp(
        linear if solver == "linear" else kinked, {"gut": inputs.pop("gut"), "blood": 3.0}, inputs | {"w": curve},
        np.tile(TIMES, n), np.repeat(np.arange(n), len(TIMES)), events=doses, solver=solver, rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    return solution, symbols


def check(kinds, solver, inputs):
    n, variables = len(kinds), INPUTS[inputs]
    sets = [
        parameters(kinds, solver, seed) for seed in ((1, 2) if inputs == "replicates" else (1,))
    ]
    solution, symbols = solution_of(kinds, solver, variables, sets[0])
    states = pt.stack([solution.gut, solution.blood], axis=1)
    outputs = [states, solution.status]
    if variables:
        outputs += pt.grad((states * np.tile(WEIGHTS, (n, 1))).sum(), list(symbols.values()))
    given = [[values[NAMES.index(name)] for name in variables] for values in sets]
    arguments = list(symbols.values())
    if inputs == "replicates":
        arguments = [pt.tensor(dtype="float64", shape=(None, n)) for _ in variables]
        outputs = vectorize_graph(outputs, dict(zip(symbols.values(), arguments, strict=True)))
        given = [[np.stack(columns) for columns in zip(*given, strict=True)]]
    found = pytensor.function(arguments, outputs, mode=PLAIN)(*given[0])
    limit = 2e-8 if solver in ("tsit5", "linear") else 2e-6
    for r, values in enumerate(sets):
        states, status, *slopes = [v[r] for v in found] if inputs == "replicates" else found
        assert not status.any()
        for i, kind in enumerate(kinds):
            by_hand, derivatives = expected(kind, *(v[i] for v in values))
            rows = slice(i * len(TIMES), (i + 1) * len(TIMES))
            np.testing.assert_allclose(
                states[rows], by_hand, rtol=limit, atol=10 * limit, err_msg=f"{kind}, subject {i}"
            )
            wanted = [derivatives[NAMES.index(name)] for name in variables]
            np.testing.assert_allclose(
                [s[i] for s in slopes],
                wanted,
                rtol=10 * limit,
                atol=100 * limit,
                err_msg=f"{kind}, subject {i}",
            )


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("n", [1, 3, 12])
@pytest.mark.parametrize("solver", SOLVERS)
def test_product(solver, n, inputs):
    for first in range(0, len(KINDS), n):
        check([KINDS[(first + i) % len(KINDS)] for i in range(n)], solver, inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_sunode_refuses_events(kind, monkeypatch):
    monkeypatch.setattr("pymc_saem.ode.solvers.sunode.require", lambda: None)
    with pytest.raises(NotImplementedError, match="'sunode' does not support events"):
        solution_of([kind], "sunode", [], parameters([kind], "sunode", 1))


@pytest.mark.parametrize("solver", SOLVERS)
def test_other_rows_of_the_same_solution(solver):
    """Other times, in another order, some subjects only; and derivatives with the solution, which there are none of with events."""
    kinds = KINDS[:3]
    values = parameters(kinds, solver, 1)
    solution, symbols = solution_of(kinds, solver, ["ka", "gut"], values)
    assert solution._op.with_derivatives() is solution._op
    order = np.array([8, 2, 5, 0, 6])
    curve = solution.at(
        TIMES[np.r_[order, order]], np.repeat([2, 0], len(order)), rtol=1e-10, atol=1e-10
    )
    found = pytensor.function(list(symbols.values()), curve.blood, mode=PLAIN)(values[0], values[3])
    by_hand = [expected(kinds[i], *(v[i] for v in values))[0][order, 1] for i in (2, 0)]
    np.testing.assert_allclose(found, np.concatenate(by_hand), rtol=1e-6, atol=1e-6)


def saturated_by_scipy(kind, vm, rows):
    """One piece after another at tight tolerances; a steady state by its doses one by one."""
    events = {
        "bolus": [(1.3, 2, "y", 50.0)],
        "infusion": [(1.3, 2, "r", 20.0), (4.3, 2, "r", -20.0)],
        "steady": [(-78.0, 1, "0", 0.0)] + [(2.0 + 4.0 * k, 2, "y", 10.0) for k in range(-20, 1)],
        "reset": [(1.3, 2, "y", 50.0), (5.0, 1, "0", 0.0), (5.0, 2, "y", 20.0)],
    }[kind]
    y, rate, now, out = np.array([0.0, 2.0]), 0.0, min(0.0, events[0][0]), []

    def slope(t, y, rate):
        return [rate - vm * y[0] / (4.0 + y[0]), 1.0 - 0.5 * y[1] * (1.0 + y[0])]

    for time, _, what, value in sorted(events + [(t, 1.5, "row", 0.0) for t in rows]):
        if time > now:
            y = scipy_solve_ivp(
                slope, (now, time), y, method="DOP853", rtol=1e-11, atol=1e-11, args=(rate,)
            ).y[:, -1]
            now = time
        if what == "y":
            y = y + [value, 0.0]
        elif what == "r":
            rate += value
        elif what == "0":
            y, rate = np.zeros(2), 0.0
        else:
            out.append(y)
    return np.array(out)


@pytest.mark.parametrize("solver", ["tsit5", "cvodes", "auto"])
def test_a_system_that_saturates(solver):
    kinds, rows = ["bolus", "infusion", "steady", "reset"], TIMES[TIMES > 2.0]
    values, vm = np.array([3.1, 4.2, 5.0, 2.6]), pt.tensor("vm", dtype="float64", shape=(4,))
    steady = {
        "steady": [{"time": 2.0, "amt": 10.0, "ii": 4.0, "ss": 1}],
        "infusion": [{"time": 1.3, "amt": 60.0, "rate": 20.0}],
    }
    table = pd.DataFrame(
        [{"subject": i, **row} for i, kind in enumerate(kinds) for row in (ROWS | steady)[kind]]
    ).fillna(0.0)
    table["evid"] = table["evid"].replace(0.0, 1.0)
    solution = solve_ivp(
        lambda t, y, p: {"c": -p.vm * y.c / (4.0 + y.c), "r": 1.0 - 0.5 * y.r * (1.0 + y.c)}, {"c": 0.0, "r": 2.0}, {"vm": vm},
        np.tile(rows, 4), np.repeat(np.arange(4), len(rows)), events=table, solver=solver, rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    total = (solution.c + 10.0 * solution.r).sum()
    c, r, slopes = pytensor.function(
        [vm], [solution.c, solution.r, pt.grad(total, vm)], mode=PLAIN
    )(values)
    found = np.stack([c, r], axis=1).reshape(4, len(rows), 2)
    for i, kind in enumerate(kinds):
        by_scipy = saturated_by_scipy(kind, values[i], rows)
        np.testing.assert_allclose(found[i], by_scipy, rtol=1e-6, atol=2e-6, err_msg=kind)
        up, down = (
            saturated_by_scipy(kind, values[i] + h, rows) @ [1.0, 10.0] for h in (1e-4, -1e-4)
        )
        np.testing.assert_allclose(
            slopes[i], (up - down).sum() / 2e-4, rtol=1e-5, atol=1e-5, err_msg=kind
        )


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["tsit5", "cvodes"])
def test_graphs_that_numba_compiles(solver):
    """Values and gradients of replicates as the E-step solves them: from machine code, without Python."""
    kinds = [*KINDS, *KINDS[:5]]
    sets = [parameters(kinds, solver, seed) for seed in (1, 2, 3)]
    solution, symbols = solution_of(kinds, solver, ["ka", "gut"], sets[0])
    total = (solution.blood * np.tile(WEIGHTS[:, 1], len(kinds))).sum()
    many = [pt.tensor(dtype="float64", shape=(None, len(kinds))) for _ in symbols]
    outputs = [solution.blood, *pt.grad(total, list(symbols.values()))]
    outputs = vectorize_graph(outputs, dict(zip(symbols.values(), many, strict=True)))
    given = [np.stack([s[j] for s in sets]) for j in (0, 3)]
    given[1][:] = given[1][0]
    function = pytensor.function(many, outputs, mode="NUMBA")
    plain = [v.copy() for v in function(*given)]
    with solution._op.compiled_calls(3 * len(kinds), 2):
        fast = function(*given)
    for a, b in zip(plain, fast, strict=True):
        np.testing.assert_array_equal(a, b)
    known = [[s[0], sets[0][1], sets[0][2], given[1][0]] for s in sets]
    for r, values in enumerate(known):
        for i, kind in enumerate(kinds):
            states, _ = expected(kind, *(v[i] for v in values))
            rows = slice(i * len(TIMES), (i + 1) * len(TIMES))
            np.testing.assert_allclose(
                fast[0][r, rows], states[:, 1], rtol=2e-6, atol=2e-5, err_msg=kind
            )


@pytest.mark.slow
def test_wide_systems_and_their_start():
    """So many products that the system is written in loops, whose gradients would be the adjoint without events."""
    n, rng = 12, np.random.default_rng(4)
    a = -np.diag(rng.uniform(0.4, 0.9, n)) + 0.02 * rng.uniform(size=(n, n))
    size, scale = pt.scalar("size"), pt.scalar("scale")
    names = [f"s{j}" for j in range(n)]

    def wide(t, y, p):
        slopes = pt.dot(p.a, pt.stack([getattr(y, name) for name in names])) * p.scale
        return {name: slopes[j] for j, name in enumerate(names)}

    table = pd.DataFrame({"time": [0.5, 2.0], "amt": [4.0, 6.0], "rate": [0.0, 3.0], "cmt": [2, 5]})
    solution = solve_ivp(
        wide, dict.fromkeys(names, 1.0) | {"s0": size}, {"a": a, "scale": scale}, [1.0, 3.0, 5.0], events=table, rtol=1e-10, atol=1e-10,
        solver="auto",
    )  # fmt: skip
    assert solution._op.system.is_wide and solution.solver == "auto"
    total = sum(solution[name].sum() for name in names)
    value, *slopes = pytensor.function(
        [size, scale], [total, *pt.grad(total, [size, scale])], mode=PLAIN
    )(2.0, 1.3)
    events = hand.bolus(0.5, 1, 4.0) + hand.infusion(2.0, 4, 3.0, 2.0)

    def total_by_hand(size, scale):
        start = [size, *[1.0] * (n - 1)]
        return hand.advance(
            lambda w: a * scale, 0.0, 0.0, start, events, 5.0, [1.0, 3.0, 5.0]
        ).sum()

    by_hand = total_by_hand(2.0 + 1e-30j, 1.3), total_by_hand(2.0, 1.3 + 1e-30j)
    np.testing.assert_allclose(value, by_hand[0].real, rtol=1e-8)
    np.testing.assert_allclose(slopes, [v.imag / 1e-30 for v in by_hand], rtol=1e-7)
