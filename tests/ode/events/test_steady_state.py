"""Steady states as NONMEM defines them, against the doses of the past one by one: values, and gradients in all that dosing knows."""

import warnings

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from scipy.linalg import expm

from pymc_saem.ode import Doses, SolverStatus, interpolate, solve_ivp
from tests.support import by_hand as hand

PLAIN = Mode("py", None)  # most of the time would go to rewriting graphs

KA, K = 1.1, 0.3
TIMES = np.array([0.0, 0.7, 1.0, 2.0, 3.3, 4.6, 7.0, 9.0, 9.4, 12.1, 17.0])
OPTIONS = {"lag": "lag_time", "f": "bioavailability", "r": "rate", "d": "duration"}


def rhs(t, y, p):
    return {"gut": -p.ka * y.gut, "blood": p.ka * y.gut - p.k * y.blood}


def matrix(p):
    return lambda w: np.array([[-p["ka"], 0.0], [p["ka"], -p["k"]]])


def solved(table, t=TIMES, solver="tsit5", rhs=rhs, rows=None, **parameters):
    """States (rows, 2), their derivatives (rows, 2, parameters), and the status; all parameters are variables."""
    values = {"ka": KA, "k": K} | parameters
    x = pt.vector("x", shape=(len(values),))
    table = pd.DataFrame(table)
    where = "blood" if "cmt" in table and (table["cmt"] == "blood").any() else "gut"
    events = Doses(
        table, **{option: {where: name} for name, option in OPTIONS.items() if name in parameters}
    )
    solution = solve_ivp(
        rhs, {"gut": 0.0, "blood": 0.0}, {name: x[j] for j, name in enumerate(values)}, t, events=events, solver=solver,
        rtol=1e-10, atol=1e-10, max_steps=100_000,
    )  # fmt: skip
    weights = np.random.default_rng(3).normal(size=(len(t), 2))
    total = (weights[:, 0] * solution.gut + weights[:, 1] * solution.blood).sum()
    outputs = [pt.stack([solution.gut, solution.blood], axis=1), pt.grad(total, x), solution.status]
    return *pytensor.function([x], outputs, mode=PLAIN)(list(values.values())), weights


def expected(events, t=TIMES, **parameters):
    """The same by hand; ``events(p)`` lists them for parameters that may be complex."""
    values = {"ka": KA, "k": K} | parameters
    weights, gradient = np.random.default_rng(3).normal(size=(len(t), 2)), []
    for name in [None, *values]:
        p = {n: v + (1e-30j if n == name else 0.0) for n, v in values.items()}
        y = hand.advance(matrix(p), 0.0, 0.0, [0.0, 0.0], events(p), max(t), t)
        if name is None:
            states = y.real
        else:
            gradient.append((weights * y.imag).sum() / 1e-30)
    return states, np.array(gradient)


def steady(dose, time=2.0, ii=4.0, addl=0, only=True):
    """Events of a row with ss: a reset if nothing else counts, the steady state, and the doses from its time on."""

    def events(p):
        own = [event for k in range(addl + 1) for event in dose(time + k * ii, p)]
        before = hand.reset(time) if only else []
        return before + hand.steady(matrix(p), 0.0, time, ii, lambda t: dose(t, p)) + own

    return events


def bolus(t, p):
    return hand.bolus(t + p.get("lag", 0.0), 0, 100.0 * p.get("f", 1.0))


def given_rate(t, p):
    """60 units at rate 12, or at the rate r."""
    rate = p.get("r", 12.0)
    return hand.infusion(t + p.get("lag", 0.0), 1, rate, 60.0 * p.get("f", 1.0) / rate)


def given_duration(t, p):
    return hand.infusion(t + p.get("lag", 0.0), 1, 60.0 * p.get("f", 1.0) / p["d"], p["d"])


def on_top(events, *more):
    return lambda p: [event for part in (events, *more) for event in part(p)]


def constant_infusion(time=2.0, rate=20.0):
    """Its states are those at which blood loses what comes in; it ends at its row, or a lag later."""

    def events(p):
        r = p.get("r", rate)
        parts = [(time, hand.RESET, "y", 1, r / p["k"]), (time, hand.RESET, "r", 1, r)]
        return parts + [(time + p.get("lag", 0.0), hand.DOSE, "r", 1, -r)]

    return events


ROW = {"time": [2.0], "amt": [100.0], "ss": [1], "ii": [4.0]}
DRIP = {"time": [2.0], "amt": [60.0], "cmt": ["blood"], "ss": [1], "ii": [4.0]}
EARLIER = {"time": [0.5, 2.0], "amt": [80.0, 100.0], "ii": [3.0, 4.0], "addl": [3, 1]}


def earlier(p):
    return [
        event
        for k in range(4)
        for event in hand.bolus(0.5 + 3.0 * k + p.get("lag", 0.0), 0, 80.0 * p.get("f", 1.0))
    ]


# table, parameters, events by hand
CASES = {
    "lag longer than the interval": (ROW, {"lag": 9.3, "f": 0.7}, steady(bolus)),
    "lag of whole intervals": (ROW, {"lag": 8.0}, steady(bolus)),
    "lag longer, then more doses": (ROW | {"addl": [2]}, {"lag": 5.3}, steady(bolus, addl=2)),
    "infusion as long as the interval": (DRIP | {"rate": [15.0]}, {}, steady(lambda t, p: hand.infusion(t, 1, 15.0, 4.0))),
    "infusion longer than the interval": (DRIP | {"rate": [12.0]}, {"lag": 0.4, "f": 1.9}, steady(given_rate)),
    "infusion of several intervals at a rate": (DRIP | {"rate": [-1]}, {"r": 4.7, "f": 0.9}, steady(given_rate)),
    "infusion of several intervals": (DRIP | {"rate": [-2], "addl": [1]}, {"d": 9.7, "lag": 6.1}, steady(given_duration, addl=1)),
    "infusion of three intervals": (DRIP | {"rate": [-2]}, {"d": 12.0}, steady(given_duration)),
    "on top of other doses": (
        EARLIER | {"ss": [0, 2]}, {"lag": 0.3, "f": 0.8}, on_top(earlier, steady(bolus, addl=1, only=False)),
    ),
    "on top, with a lag longer than the interval": (
        EARLIER | {"ss": [0, 2]}, {"lag": 5.3}, on_top(earlier, steady(bolus, addl=1, only=False)),
    ),
    "infusion that overlaps, on top of an infusion": (
        {"time": [0.0, 2.0], "amt": [90.0, 60.0], "rate": [10.0, 12.0], "cmt": "blood", "ss": [0, 2], "ii": [0.0, 4.0]}, {},
        on_top(lambda p: hand.infusion(0.0, 1, 10.0, 9.0), steady(given_rate, only=False)),
    ),
    "one regimen on top of the steady state of another": (
        {"time": [2.0, 2.0], "amt": [100.0, 60.0], "rate": [0.0, 12.0], "cmt": ["gut", "blood"], "ss": [1, 2], "ii": [4.0, 4.0]}, {},
        on_top(steady(bolus), steady(given_rate, only=False)),
    ),
    "constant infusion": (
        {"time": [2.0], "amt": [0.0], "rate": [20.0], "cmt": ["blood"], "ss": [1]}, {},
        on_top(lambda p: hand.reset(2.0), constant_infusion()),
    ),
    "constant infusion at a rate, which ends after a lag": (
        {"time": [2.0], "amt": [0.0], "rate": [-1], "cmt": ["blood"], "ss": [1]}, {"r": 17.0, "lag": 1.5, "f": 0.6},
        on_top(lambda p: hand.reset(2.0), constant_infusion()),
    ),
    "constant infusion on top of a dose, and goes on": (
        {"time": [0.5, 2.0, 2.0], "amt": [80.0, 0.0, 100.0], "rate": [0.0, 20.0, 20.0], "cmt": ["gut", "blood", "blood"], "ss": [0, 2, 0]}, {},
        on_top(lambda p: hand.bolus(0.5, 0, 80.0) + hand.infusion(2.0, 1, 20.0, 5.0), constant_infusion()),
    ),
}  # fmt: skip


LINEAR = [case for case in CASES if "on top" in case or "constant" in case or "several" in case]


@pytest.mark.parametrize(
    ("case", "solver"), [(c, "tsit5") for c in CASES] + [(c, "linear") for c in LINEAR]
)
def test_against_the_doses_of_the_past(case, solver):
    table, parameters, events = CASES[case]
    states, gradient, status, _ = solved(table, solver=solver, **parameters)
    assert status.tolist() == [0]
    by_hand, slopes = expected(events, **parameters)
    np.testing.assert_allclose(states, by_hand, rtol=2e-8, atol=2e-7)
    # A dose at the time of a row has two slopes in what moves it.
    if case not in ("lag of whole intervals", "infusion of three intervals"):
        np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["cvodes", "auto"])
def test_by_the_implicit_solver_too(solver):
    for case in (
        "infusion of several intervals",
        "on top, with a lag longer than the interval",
        "constant infusion",
    ):
        table, parameters, events = CASES[case]
        states, gradient, status, _ = solved(table, solver=solver, **parameters)
        assert status.tolist() == [0]
        by_hand, slopes = expected(events, **parameters)
        np.testing.assert_allclose(states, by_hand, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-4)


def saturated(t, y, p):
    return {"gut": -p.ka * y.gut, "blood": p.ka * y.gut - p.k * 50.0 * y.blood / (10.0 + y.blood)}


@pytest.mark.parametrize("solver", ["tsit5", "auto"])
def test_constant_infusion_into_a_system_that_saturates(solver):
    table = {"time": [2.0], "amt": [0.0], "rate": [-1], "cmt": ["blood"], "ss": [1]}
    states, gradient, status, weights = solved(
        table, np.array([2.0]), solver, saturated, r=9.0, lag=1.0
    )
    most = 50.0 * K
    np.testing.assert_allclose(states, [[0.0, 10.0 * 9.0 / (most - 9.0)]], rtol=1e-7, atol=1e-8)
    slopes = [0.0, -10.0 * 9.0 * 50.0 / (most - 9.0) ** 2, 10.0 * most / (most - 9.0) ** 2, 0.0]
    np.testing.assert_allclose(gradient, weights[0, 1] * np.array(slopes), rtol=1e-6, atol=1e-7)
    assert status.tolist() == [0]
    assert solved(table, np.array([2.0]), solver, saturated, r=16.0)[2].tolist() == [
        SolverStatus.NO_STEADY_STATE
    ]


@pytest.mark.parametrize("solver", ["tsit5", "linear"])
def test_constant_infusion_with_slow_and_small_states(solver):
    """A state far below the tolerance that grows for a million hours is not taken for steady."""

    def seeping(t, y, p):
        return {"blood": -p.k * y.blood, "deep": 1e-8 * y.blood - 1e-4 * y.deep}

    table = pd.DataFrame({"time": [0.0], "amt": [0.0], "rate": [3.0], "ss": [1]})
    solution = solve_ivp(
        seeping,
        {"blood": 0.0, "deep": 0.0},
        {"k": 0.3},
        [0.0],
        events=table,
        solver=solver,
        max_steps=100_000,
    )
    np.testing.assert_allclose(
        [solution.blood.eval()[0], solution.deep.eval()[0]], [10.0, 1e-3], rtol=3e-3
    )


@pytest.mark.parametrize("solver", ["tsit5", "linear"])
def test_repeated_doses_with_slow_and_small_states(solver):
    """The fast state is steady after two doses, when the slow one has hardly begun."""
    k, slow, ii = 0.3, 1e-3, 24.0
    after = expm(np.array([[-k, 0.0], [1e-7, -slow]]) * ii)
    trough = np.linalg.solve(np.eye(2) - after, after @ [10.0, 0.0])
    table = pd.DataFrame({"time": [0.0], "amt": [10.0], "ii": [ii], "ss": [1]})
    solution = solve_ivp(
        lambda t, y, p: {"blood": -p.k * y.blood, "deep": 1e-7 * y.blood - slow * y.deep}, {"blood": 0.0, "deep": 0.0}, {"k": k},
        [0.0], events=table, solver=solver,
    )  # fmt: skip
    np.testing.assert_allclose(
        [solution.blood.eval()[0], solution.deep.eval()[0]], trough, rtol=1e-6, atol=1e-6
    )


def test_an_instant_is_one_however_it_is_computed():
    """Times with two decimals: an infusion of exactly one interval is a constant one, and a row at a dose sees the state before it."""
    n = 150
    times = np.round(np.random.default_rng(0).uniform(0, 500, n), 2)
    for ii in (24.0, 12.0, 8.0, 7.3):
        table = pd.DataFrame(
            {
                "subject": np.arange(n),
                "time": times,
                "amt": ii,
                "rate": -2,
                "ii": ii,
                "addl": 3,
                "ss": 1,
            }
        )
        params = {
            "k": np.full(n, 0.055),
            "r0": 0.0,
            "d": np.full(n, ii - 0.25),
            "lag": np.full(n, 0.25),
        }
        events = Doses(table, duration={"c": "d"}, lag_time={"c": "lag"})
        solution = solve_ivp(
            lambda t, y, p: {"c": p.r0 - p.k * y.c},
            {"c": 0.0},
            params,
            times + ii * 2.5,
            np.arange(n),
            events=events,
        )
        mean = ii / (ii - 0.25) * (1 - np.exp(-0.055 * (ii - 0.25))) / (1 - np.exp(-0.055 * ii))
        # Half an interval on, the infusion has lasted for half of it less a quarter of an hour.
        late = ii / (ii - 0.25) + (mean * np.exp(-0.055 * 0.25) - ii / (ii - 0.25)) * np.exp(
            -0.055 * (ii / 2 - 0.25)
        )
        np.testing.assert_allclose(0.055 * solution.c.eval(), late, rtol=1e-5)
    rows = np.arange(1, 200) * 0.7  # 11 * 0.7 is not 7.7
    table = pd.DataFrame({"time": [0.0], "amt": [1.0], "addl": [300], "ii": [0.7]})
    solution = solve_ivp(
        lambda t, y, p: {"c": 0.0 * y.c}, {"c": 0.0}, {"k": 1.0}, np.round(rows, 1), events=table
    )
    np.testing.assert_allclose(solution.c.eval(), np.arange(1, 200), rtol=1e-9)


def test_covariates_are_held_in_a_steady_state():
    covariate = pd.DataFrame({"time": [0.0, 10.0, 30.0], "w": [1.0, 3.0, 1.0]})
    for kind in ("linear", "cubic"):
        curve = interpolate(covariate, kind)
        table = pd.DataFrame({"time": [10.0], "amt": [0.0], "rate": [6.0], "ss": [1]})
        solution = solve_ivp(
            lambda t, y, p: {"c": -0.1 * p.w(t) * y.c}, {"c": 0.0}, {"w": curve}, [10.0, 20.0], events=table,
            rtol=1e-9, atol=1e-9,
        )  # fmt: skip
        times = np.linspace(10.0, 20.0, 20_001)
        exposure = np.trapezoid([curve.value(curve.at_time(0, t), t) for t in times], times)
        np.testing.assert_allclose(
            solution.c.eval(), 20.0 * np.exp([0.0, -0.1 * exposure]), rtol=1e-6
        )


def test_a_curve_is_not_followed_into_the_past():
    """Doses of 50 every 5 h while the covariate is what it is at the dose; it moves only from then on."""
    curve = interpolate(pd.DataFrame({"time": [0.0, 10.0, 30.0], "w": [1.0, 3.0, 1.0]}), "linear")
    table = pd.DataFrame({"time": [10.0], "amt": [50.0], "ii": [5.0], "ss": [1]})
    solution = solve_ivp(
        lambda t, y, p: {"c": -0.1 * p.w(t) * y.c}, {"c": 0.0}, {"w": curve}, [10.0, 20.0], events=table,
        rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    steady = 50.0 / (1.0 - np.exp(-0.3 * 5.0))
    # the row at the time of the dose is the trough
    np.testing.assert_allclose(
        solution.c.eval(), [steady - 50.0, steady * np.exp(-0.1 * 25.0)], rtol=1e-6
    )


def test_what_has_no_steady_state_or_does_not_add_up():
    infusion = {"time": [2.0], "amt": [0.0], "rate": [20.0], "ss": [1]}
    with pytest.raises(ValueError, match="events row 0: .*the derivative of 'gut' depends on t"):
        solved(
            infusion,
            rhs=lambda t, y, p: {"gut": -p.ka * y.gut * pt.exp(-t), "blood": -p.k * y.blood},
        )
    with pytest.warns(UserWarning, match="events row 1: ss is 2, .* linear in the states"):
        solved(EARLIER | {"ss": [0, 2]}, rhs=saturated)
    with pytest.warns(UserWarning, match="zero without doses"):
        solved(
            EARLIER | {"ss": [0, 2]},
            rhs=lambda t, y, p: {"gut": -p.ka * y.gut, "blood": p.ka - p.k * y.blood},
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved(EARLIER | {"ss": [0, 2]})


def test_rows_that_are_no_doses_are_skipped():
    """A table as NONMEM has it: observations, other events, and columns that say what doses are not."""
    table = {
        "time": [0.0, 1.0, 2.0, 3.0, 3.0], "evid": [1, 0, 2, 0, 1], "amt": [100.0, np.nan, 0.0, np.nan, 50.0], "mdv": [1, 0, 1, 0, 1],
        "dv": [np.nan, 5.0, np.nan, 4.0, np.nan], "cmt": [1, 2, 1, 2, 1],
    }  # fmt: skip
    by_hand, slopes = expected(lambda p: hand.bolus(0.0, 0, 100.0) + hand.bolus(3.0, 0, 50.0))
    for columns in (list(table), [c for c in table if c not in ("evid",)]):
        states, gradient, status, _ = solved({c: table[c] for c in columns})
        np.testing.assert_allclose(states, by_hand, rtol=1e-8, atol=1e-7)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-6)


def test_a_hundred_thousand_doses():
    """Searching all of them at each would take minutes. A geometric sum, and the same with every dose in a row of its own."""
    ii, k = 0.5, pt.scalar("k")
    row = {"time": [0.0], "amt": [1.0], "addl": [99_999], "ii": [ii]}
    rows = {"time": ii * np.arange(20_000), "amt": 1.0}
    for table, n, lag in ((row, 100_000, 0.0), (rows, 20_000, 0.25)):
        solution = solve_ivp(
            lambda t, y, p: {"c": -p.k * y.c}, {"c": 0.0}, {"k": k, "lag": lag}, [n * ii], max_steps=100,
            events=Doses(pd.DataFrame(table), lag_time={"c": "lag"}),
        )  # fmt: skip
        last = np.exp(-0.3 * (ii - lag))
        np.testing.assert_allclose(
            solution.c.eval({k: 0.3}), [last / (1 - np.exp(-0.3 * ii))], rtol=1e-9
        )
