"""Doses, infusions, resets and steady states against superposition of exponentials."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_saem.ode import Doses, SolverStatus, solve_ivp

KA, CL, V, Q, V2 = 1.1, 0.35, 2.0, 0.5, 3.0
TIMES = np.array([0.0, 0.5, 1.0, 2.5, 4.0, 6.0, 8.0, 12.0, 13.0, 20.0, 24.0, 30.5])
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
STATES = ("gut", "blood", "tissue")


def rhs(t, y, p):
    exchange = p.q * (y.blood / p.v - y.tissue / V2)
    return {
        "gut": -p.ka * y.gut,
        "blood": p.ka * y.gut - p.cl / p.v * y.blood - exchange,
        "tissue": exchange,
    }


def matrix(ka=KA, cl=CL, v=V, q=Q):
    return np.array([[-ka, 0.0, 0.0], [ka, -(cl + q) / v, q / V2], [0.0, q / v, -q / V2]])


def superposed(doses, times, **parameters):
    """States at the times from doses (start, state, amount, duration); a row at the start of a dose is before it."""
    # newer NumPy gives complex ones always
    rates, vectors = (a.real for a in np.linalg.eig(matrix(**parameters)))
    inverse, out = np.linalg.inv(vectors), np.zeros((len(times), 3))
    for start, state, amount, duration in doses:
        along = inverse[:, STATES.index(state)] * amount
        for k, t in enumerate(times):
            if t > start:
                running = min(t - start, duration)
                mean = np.expm1(rates * running) / (rates * duration) if duration else 1.0
                out[k] += vectors @ (np.exp(rates * (t - start - running)) * mean * along)
    return out


def kinked(t, y, p):
    """The same where the gut is not negative, but not recognized as linear."""
    return rhs(t, SimpleNamespace(gut=pt.maximum(y.gut, -1.0), blood=y.blood, tissue=y.tissue), p)


def solved(table, times=TIMES, doses=None, solver="tsit5", rhs=rhs, **values):
    parameters = {"ka": KA, "cl": CL, "v": V, "q": Q} | values
    events = Doses(pd.DataFrame(table), **(doses or {}))
    solution = solve_ivp(
        rhs, dict.fromkeys(STATES, 0.0), parameters, times, events=events, solver=solver, **TIGHT
    )  # fmt: skip
    states = pt.stack([solution[s] for s in STATES], axis=1)
    return pytensor.function([], [states, solution.status], mode="FAST_COMPILE")()


def every(interval, n, start=0.0):
    return [start + interval * k for k in range(n)]


# table, options of Doses with values, and the doses that they mean
CASES = {
    "bolus": ({"time": [0.0], "amt": [100.0]}, {}, {}, [(0.0, "gut", 100.0, 0.0)]),
    "later bolus by number": ({"time": [2.5], "amt": [50.0], "cmt": [2]}, {}, {}, [(2.5, "blood", 50.0, 0.0)]),
    "infusion by rate": (
        {"time": [1.0], "amt": [60.0], "cmt": ["blood"], "rate": [20.0]}, {}, {}, [(1.0, "blood", 60.0, 3.0)],
    ),
    "infusion by duration": (
        {"time": [1.0], "amt": [60.0], "cmt": ["blood"], "dur": [4.5]}, {}, {}, [(1.0, "blood", 60.0, 4.5)],
    ),
    "two infusions that overlap": (
        {"TIME": [0.0, 2.0], "AMT": [60.0, 30.0], "CMT": ["blood", "blood"], "RATE": [10.0, 15.0]}, {}, {},
        [(0.0, "blood", 60.0, 6.0), (2.0, "blood", 30.0, 2.0)],
    ),
    "additional doses": (
        {"time": [0.0], "amt": [100.0], "addl": [3], "ii": [8.0]}, {}, {},
        [(t, "gut", 100.0, 0.0) for t in every(8.0, 4)],
    ),
    "lag and bioavailability": (
        {"time": [0.0, 12.0], "amt": [100.0, 80.0], "cmt": ["gut", "gut"]},
        {"lag_time": {"gut": "lag"}, "bioavailability": {"gut": "f"}}, {"lag": 0.75, "f": 0.6},
        [(0.75, "gut", 60.0, 0.0), (12.75, "gut", 48.0, 0.0)],
    ),
    "bioavailability makes an infusion of given rate longer or shorter": (
        {"time": [1.0], "amt": [60.0], "cmt": ["blood"], "rate": [20.0]}, {"bioavailability": {"blood": "f"}}, {"f": 0.5},
        [(1.0, "blood", 30.0, 1.5)],
    ),
    "and scales the rate where the duration is given": (
        {"time": [1.0], "amt": [60.0], "cmt": ["blood"], "dur": [3.0]}, {"bioavailability": {"blood": "f"}}, {"f": 0.5},
        [(1.0, "blood", 30.0, 3.0)],
    ),
    "rate is a parameter": (
        {"time": [1.0], "amt": [60.0], "cmt": ["blood"], "rate": [-1]}, {"rate": {"blood": "r"}}, {"r": 12.0},
        [(1.0, "blood", 60.0, 5.0)],
    ),
    "duration is a parameter": (
        {"time": [1.0], "amt": [60.0], "cmt": ["blood"], "rate": [-2]},
        {"duration": {"blood": "d"}, "bioavailability": {"blood": "f"}}, {"d": 2.2, "f": 0.9},
        [(1.0, "blood", 54.0, 2.2)],
    ),
    "reset and dose": (
        {"time": [0.0, 4.0], "amt": [100.0, 70.0], "evid": [1, 4], "addl": [5, 0], "ii": [3.0, 0.0]}, {}, {}, None,
    ),
    "steady state of a bolus": (
        {"time": [1.0], "amt": [100.0], "ss": [1], "ii": [8.0]}, {}, {},
        [(t, "gut", 100.0, 0.0) for t in every(8.0, 60, start=1.0 - 59 * 8.0)],
    ),
    "steady state of a lagged infusion that runs into the next interval": (
        {"time": [1.0], "amt": [100.0], "ss": [1], "ii": [6.0], "cmt": ["blood"], "rate": [25.0]},
        {"lag_time": {"blood": "lag"}}, {"lag": 3.5},
        [(t, "blood", 100.0, 4.0) for t in every(6.0, 80, start=4.5 - 79 * 6.0)],
    ),
    "steady state, then more doses": (
        {"time": [0.0], "amt": [100.0], "ss": [1], "ii": [12.0], "addl": [2], "cmt": ["blood"], "dur": [2.0]}, {}, {},
        [(t, "blood", 100.0, 2.0) for t in every(12.0, 43, start=-40 * 12.0)],
    ),
}  # fmt: skip


# CVODE compiles something for each system, so it takes one case of a kind.
WITH_CVODE = ["lag and bioavailability", "reset and dose", "steady state, then more doses"]


@pytest.mark.parametrize(
    ("case", "solver"),
    [(c, s) for c in CASES for s in ("tsit5", "linear")] + [(c, "cvodes") for c in WITH_CVODE],
)
def test_closed_forms(case, solver):
    table, options, values, doses = CASES[case]
    states, status = solved(table, doses=options, solver=solver, **values)
    assert status.tolist() == [0]
    if case == "reset and dose":
        before = superposed([(t, "gut", 100.0, 0.0) for t in (0.0, 3.0)], TIMES)
        after = superposed([(4.0, "gut", 70.0, 0.0)], TIMES)
        expected = np.where((TIMES < 4.0)[:, None], before, after)  # at 4: emptied, not yet dosed
    else:
        expected = superposed(doses, TIMES)
        if "ss" in table:
            expected[TIMES < table["time"][0]] = 0.0  # the steady state begins with its row
    # BDF takes tolerances less literally.
    limit = {"tsit5": 1e-8, "cvodes": 1e-6, "linear": 1e-10 if "steady" not in case else 1e-8}[
        solver
    ]
    np.testing.assert_allclose(states, expected, rtol=limit, atol=10 * limit)


def test_a_stiff_system_changes_the_solver_between_events():
    table = {"time": [0.5, 6.0], "amt": [10.0, 20.0], "rate": [0.0, 8.0], "cmt": ["gut", "blood"]}
    fast = {"ka": 1e6}
    states, status = solved(table, solver="auto", rhs=kinked, **fast)
    assert status.tolist() == [0]
    doses = [(0.5, "gut", 10.0, 0.0), (6.0, "blood", 20.0, 2.5)]
    np.testing.assert_allclose(states, superposed(doses, TIMES, **fast), rtol=1e-6, atol=1e-5)
    assert solved(table, solver="tsit5", **fast)[1].tolist() == [int(SolverStatus.MAX_STEPS)]
    states, status = solved(table, solver="linear", **fast)
    assert status.tolist() == [0]
    np.testing.assert_allclose(states, superposed(doses, TIMES, **fast), rtol=1e-8, atol=1e-10)


def test_what_a_row_at_the_time_of_an_event_sees():
    states, _ = solved(
        {"time": [1.0], "amt": [100.0], "ss": [1], "ii": [8.0]}, times=np.array([1.0])
    )
    trough = superposed([(1.0 - 8.0 * k, "gut", 100.0, 0.0) for k in range(1, 60)], [1.0])
    np.testing.assert_allclose(states, trough, rtol=1e-8, atol=1e-7)
    states, _ = solved({"time": [0.0, 1.0], "amt": [5.0, 100.0]}, times=np.array([0.0, 1.0]))
    np.testing.assert_allclose(
        states, superposed([(0.0, "gut", 5.0, 0.0)], [0.0, 1.0]), rtol=1e-8, atol=1e-9
    )


# No event falls on a row: there the solution has a kink in the parameter, and differences average
# its two slopes.
GRADIENT_CASES = {
    "lag_f": (
        {"time": [0.0, 12.0], "amt": [100.0, 80.0], "cmt": ["gut", "gut"]},
        {"lag_time": {"gut": "lag"}, "bioavailability": {"gut": "f"}}, {"lag": 0.75, "f": 0.6},
    ),
    "lag_at_infusion": (
        {"time": [1.0], "amt": [60.0], "cmt": ["blood"], "rate": [20.0]},
        {"lag_time": {"blood": "lag"}, "bioavailability": {"blood": "f"}}, {"lag": 0.3, "f": 0.8},
    ),
    "rate": ({"time": [1.0], "amt": [60.0], "cmt": ["blood"], "rate": [-1]}, {"rate": {"blood": "r"}}, {"r": 11.3}),
    "duration": (
        {"time": [1.0], "amt": [60.0], "cmt": ["blood"], "rate": [-2]},
        {"duration": {"blood": "d"}, "bioavailability": {"blood": "f"}}, {"d": 2.2, "f": 0.9},
    ),
    "steady": (
        {"time": [1.0, 16.0], "amt": [100.0, 50.0], "ss": [1, 0], "ii": [6.0, 0.0], "cmt": ["blood", "gut"], "rate": [25.0, 0.0]},
        {"lag_time": {"blood": "lag"}}, {"lag": 3.3},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "solver"),
    [*((c, s) for c in GRADIENT_CASES for s in ("tsit5", "linear")), ("steady", "cvodes")],
)
def test_gradients_against_finite_differences(case, solver):
    table, options, values = GRADIENT_CASES[case]
    names = ["ka", "cl", "v", *values]
    x0 = np.array([KA, CL, V, *values.values()])
    x = pt.vector("x", shape=(len(names),))
    solution = solve_ivp(
        rhs, dict.fromkeys(STATES, 0.0), {"q": Q} | {n: x[k] for k, n in enumerate(names)}, TIMES,
        events=Doses(pd.DataFrame(table), **options), solver=solver, **TIGHT,
    )  # fmt: skip
    weights = np.random.default_rng(3).normal(size=(len(TIMES), 3))
    total = sum((solution[s] * weights[:, j]).sum() for j, s in enumerate(STATES))
    f = pytensor.function([x], [total, pt.grad(total, x)], mode="FAST_COMPILE")
    gradient, h = f(x0)[1], 1e-4
    steps = h * np.maximum(1.0, np.abs(x0))
    differences = [
        (f(x0 + s * e)[0] - f(x0 - s * e)[0]) / (2 * s)
        for s, e in zip(steps, np.eye(len(x0)), strict=True)
    ]
    np.testing.assert_allclose(gradient, differences, rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("solver", ["tsit5", "cvodes", "linear"])
def test_values_of_several_subjects_with_a_variable(solver):
    ka, vector = np.array([0.8, 1.0, 1.4]), pt.vector("ka", shape=(3,))
    table = pd.DataFrame(
        {"subject": [0, 1, 1, 2], "time": [0.0, 1.0, 6.0, 2.0], "amt": [10.0, 20.0, 30.0, 40.0]}
    )
    solution = solve_ivp(
        rhs, dict.fromkeys(STATES, 0.0), {"ka": vector, "cl": CL, "v": V, "q": Q}, np.tile(TIMES, 3),
        np.repeat(np.arange(3), len(TIMES)), events=table, solver=solver, **TIGHT,
    )  # fmt: skip
    found = pytensor.function([vector], solution.blood, mode="FAST_COMPILE")(ka).reshape(3, -1)
    for i, rows in enumerate(found):
        doses = [
            (t, "gut", a, 0.0)
            for s, t, a in zip(table.subject, table.time, table.amt, strict=True)
            if s == i
        ]
        np.testing.assert_allclose(
            rows, superposed(doses, TIMES, ka=ka[i])[:, 1], rtol=1e-6, atol=1e-6
        )


def test_subjects_have_their_own_events_and_parameters():
    subject = np.repeat(np.arange(3), len(TIMES))
    table = pd.DataFrame({
        "subject": [0, 2, 2, 0], "time": [0.0, 3.0, 1.0, 6.0], "amt": [10.0, 30.0, 20.0, 5.0], "rate": [0, 0, 10, 0],
    })  # fmt: skip
    ka, lag = np.array([0.8, 1.0, 1.4]), np.array([0.0, 0.5, 0.25])
    results = []
    for n_threads in (1, 2):
        solution = solve_ivp(
            rhs, dict.fromkeys(STATES, 0.0), {"ka": ka, "cl": CL, "v": V, "q": Q, "lag": lag}, np.tile(TIMES, 3), subject,
            events=Doses(table, lag_time={"gut": "lag"}), n_threads=n_threads, **TIGHT,
        )  # fmt: skip
        results.append(solution.blood.eval())
    np.testing.assert_array_equal(*results)
    doses = [
        [(0.0, "gut", 10.0, 0.0), (6.0, "gut", 5.0, 0.0)], [], [(1.25, "gut", 20.0, 2.0), (3.25, "gut", 30.0, 0.0)],
    ]  # fmt: skip
    for i in range(3):
        expected = superposed(doses[i], TIMES, ka=ka[i])[:, 1]
        np.testing.assert_allclose(results[0][subject == i], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_replicates_and_dense_curves():
    table = pd.DataFrame({"subject": [0, 1], "time": [0.0, 1.0], "amt": [10.0, 20.0]})
    subject = np.repeat([0, 1], len(TIMES))
    ka = pt.vector("ka", shape=(2,))
    solution = solve_ivp(
        rhs, dict.fromkeys(STATES, 0.0), {"ka": ka, "cl": CL, "v": V, "q": Q}, np.tile(TIMES, 2), subject,
        events=table, **TIGHT,
    )  # fmt: skip
    from pytensor.graph.replace import vectorize_graph

    many = pt.matrix("many", shape=(None, 2))
    blood = pytensor.function([many], vectorize_graph(solution.blood, {ka: many}))(
        np.array([[0.5, 1.0], [2.0, 3.0]])
    )
    for r, values in enumerate([[0.5, 1.0], [2.0, 3.0]]):
        for i, dose in enumerate([(0.0, "gut", 10.0, 0.0), (1.0, "gut", 20.0, 0.0)]):
            expected = superposed([dose], TIMES, ka=values[i])[:, 1]
            np.testing.assert_allclose(blood[r, subject == i], expected, rtol=1e-8, atol=1e-8)
    grid = np.linspace(0.0, 5.0, 7)
    curve = solution.at(grid, np.ones(7, dtype=int)).blood.eval({ka: [0.5, 1.0]})
    np.testing.assert_allclose(
        curve, superposed([(1.0, "gut", 20.0, 0.0)], grid, ka=1.0)[:, 1], rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("solver", ["tsit5", "linear"])
@pytest.mark.parametrize(
    ("values", "ss", "expected"),
    [
        ({"lag": -0.1}, 0, SolverStatus.BAD_EVENT),
        ({"lag": np.nan}, 0, SolverStatus.BAD_EVENT),
        ({"lag": np.inf}, 1, SolverStatus.BAD_EVENT),
        ({"lag": 0.1, "cl": 0.0}, 1, SolverStatus.NO_STEADY_STATE),
        ({"lag": 0.1, "ka": np.nan}, 0, SolverStatus.NON_FINITE),
    ],
)
def test_failures_have_a_status(values, ss, expected, solver):
    states, status = solved(
        {"time": [1.0], "amt": [10.0], "ss": [ss], "ii": [8.0]},
        doses={"lag_time": {"gut": "lag"}},
        solver=solver,
        **values,
    )
    assert status.tolist() == [int(expected)]
    assert np.isnan(states).all()
    assert expected.advice


def test_an_infusion_that_takes_no_time_is_no_dose_lost():
    table = {"time": [1.0], "amt": [10.0], "rate": [-2]}
    assert solved(table, doses={"duration": {"gut": "d"}}, d=0.0)[1].tolist() == [
        SolverStatus.BAD_EVENT
    ]


BAD = [
    ({"amt": [1.0]}, ValueError, "needs the column 'time'"),
    ({"time": [-1.0], "amt": [1.0]}, ValueError, "row 0: time -1.0 is before t0 = 0.0"),
    (
        {"time": [0.0], "amt": [1.0], "cmt": ["liver"]},
        ValueError,
        "cmt is 'liver'; it must be one of 1 'gut', 2 'blood'",
    ),
    ({"time": [0.0], "amt": [-1.0]}, ValueError, "amt is -1; it must be positive"),
    ({"time": [0.0], "amt": [1.0], "rate": [-3.0]}, ValueError, "rate is -3"),
    ({"time": [0.0], "amt": [1.0], "rate": [1.0], "dur": [1.0]}, ValueError, "give one of them"),
    ({"time": [0.0], "amt": [1.0], "rate": [-1.0]}, ValueError, r"Doses\(table, rate="),
    ({"time": [0.0], "amt": [1.0], "addl": [2]}, ValueError, "need the interval between doses, ii"),
    ({"time": [0.0], "amt": [1.0], "ii": [2.0], "ss": [3]}, ValueError, "ss is 3; it must be 0, 1"),
    ({"time": [0.0], "amt": [1.0], "evid": [5]}, ValueError, "evid is 5"),
    (
        {"time": [0.0], "amt": [1.0], "evid": [2]},
        ValueError,
        "amt is 1 and evid is 2, which is not a dose",
    ),
    (
        {"time": [0.0], "amt": [1.0], "evid": [0]},
        ValueError,
        "amt is 1 and evid is 0, which is not a dose",
    ),
    (
        {"time": [0.0], "amt": [0.0], "evid": [2], "cmt": [-1]},
        ValueError,
        "switches a compartment off",
    ),
    (
        {"time": [0.0], "amt": [0.0], "rate": [2.0], "ss": [1], "ii": [4.0]},
        ValueError,
        "ii and addl must be 0",
    ),
    ({"time": [0.0], "amt": [0.0], "rate": [-2.0], "ss": [1]}, ValueError, "rate positive or -1"),
    (
        {"time": [0.0], "amt": [2.0], "rate": [2.0], "ss": [1]},
        ValueError,
        "need the interval between doses, ii",
    ),
    ({"time": ["noon"], "amt": [1.0]}, TypeError, "time must be a number, got 'noon'"),
    ({"time": [np.nan], "amt": [1.0]}, ValueError, "time must be finite"),
    (
        {"time": [0.0], "dose": [1.0]},
        ValueError,
        "needs the column 'amt' with the doses; its columns are time, dose",
    ),
    (
        {"time": [0.0], "amt": [1.0], "duration": [2.0]},
        ValueError,
        "no column 'dur', which is the one that is read",
    ),
    (
        {"time": [0.0], "amt": [1.0], "AMT": [2.0]},
        ValueError,
        "the columns 'amt' and 'AMT'; keep only one",
    ),
    (
        {"time": [0.0], "amt": [1.0], "subject": ["ann"]},
        ValueError,
        "subject is 'ann'; it must be one of the codes",
    ),
    (
        {"time": [0.0], "amt": [1.0], "subject": ["0"]},
        ValueError,
        "subject is '0'; it must be one of the codes",
    ),
]


@pytest.mark.parametrize(("table", "error", "message"), BAD)
def test_bad_tables(table, error, message):
    with pytest.raises(error, match=message):
        solved(table)


def test_bad_doses():
    table = {"time": [0.0], "amt": [1.0]}
    with pytest.raises(ValueError, match="lag_time names 'liver'"):
        solved(table, doses={"lag_time": {"liver": "lag"}})
    with pytest.raises(ValueError, match="'lag', which is not in params"):
        solved(table, doses={"lag_time": {"gut": "lag"}})
    with pytest.raises(ValueError, match=r"of shape \(2,\) per subject"):
        solved(table, doses={"lag_time": {"gut": "lag"}}, lag=np.ones(2))
    with pytest.raises(TypeError, match="must be a pandas.DataFrame"):
        solve_ivp(
            rhs,
            dict.fromkeys(STATES, 0.0),
            {"ka": 1.0, "cl": 1.0, "v": 1.0, "q": 1.0},
            TIMES,
            events=[1.0],
        )
    with pytest.raises(ValueError, match="subject is 7; it must be one of the codes 0..0"):
        solved({"subject": [7]} | table)


def test_codes_in_subject_come_before_labels_in_id():
    table = pd.DataFrame(
        {"subject": [0, 1, 2], "ID": [2, 1, 0], "time": 0.0, "amt": [1.0, 2.0, 3.0]}
    )
    rate = np.full(3, 0.1)
    solution = solve_ivp(
        lambda t, y, p: {"c": -p.k * y.c},
        {"c": 0.0},
        {"k": rate},
        np.ones(3),
        [0, 1, 2],
        events=table,
    )
    np.testing.assert_allclose(
        solution.c.eval(), np.array([1.0, 2.0, 3.0]) * np.exp(-0.1), rtol=1e-6
    )
