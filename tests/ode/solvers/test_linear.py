"""solver="linear" against ``scipy.linalg.expm``, closed forms, differences and the other solvers; what counts as linear."""

import pickle

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import vectorize_graph
from scipy.linalg import expm

from pymc_saem.ode import SolverStatus, interpolate, solve_ivp
from pymc_saem.ode.rhs.system import trace

FAST = pytensor.compile.mode.get_mode("FAST_COMPILE")
TIMES = np.array([3.0, 0.5, 1.0, 1.0, 8.0, 2.5, 24.0, 0.0])


def general(t, y, p):
    """A (n, n) and b (n,) as parameters."""
    dy = pt.dot(p.a, pt.stack([getattr(y, f"s{i}") for i in range(p.b.type.shape[0])])) + p.b
    return {f"s{i}": dy[i] for i in range(p.b.type.shape[0])}


def oral(t, y, p):
    return {"gut": -p.ka * y.gut, "blood": p.ka * y.gut - p.ke * y.blood}


def by_expm(a, b, y0, times, t0=0.0):
    """States (rows, n)."""
    n = len(b)
    m = np.zeros((n + 1, n + 1))
    m[:n, :n], m[:n, n] = a, b
    return np.array([(expm(m * (t - t0)) @ [*y0, 1.0])[:n] for t in times])


def solved(a, b, y0, times=TIMES, solver="linear", **options):
    states = {f"s{i}": v for i, v in enumerate(y0)}
    solution = solve_ivp(general, states, {"a": a, "b": b}, times, solver=solver, **options)
    stacked = pt.stack([solution[s] for s in states], axis=1)
    return pytensor.function([], [stacked, solution.status], mode=FAST)()


RNG = np.random.default_rng(11)
MATRICES = {
    "zero": np.zeros((2, 2)),
    "one state": np.array([[-0.7]]),
    "equal rates in a chain": np.array([[-0.9, 0.0, 0.0], [0.9, -0.9, 0.0], [0.0, 0.9, -0.9]]),
    "nilpotent": np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
    "oscillation": np.array([[0.0, 2.0], [-2.0, 0.0]]),
    "growth": np.array([[0.3, 0.1], [0.2, 0.1]]),
    "random": RNG.normal(size=(4, 4)) - 2.5 * np.eye(4),
    "seven compartments": np.diag([-0.4] * 7) + 0.4 * np.diag(np.ones(6), -1),
    "fast and slow": np.diag([-1e4, -0.1]) + np.array([[0.0, 0.0], [1e4, 0.0]]),
}


@pytest.mark.parametrize("name", MATRICES)
def test_agrees_with_expm(name):
    a = MATRICES[name]
    b, y0 = RNG.uniform(0.5, 1.5, len(a)), RNG.uniform(1.0, 2.0, len(a))
    states, status = solved(a, b, y0)
    expected = by_expm(a, b, y0, TIMES)
    assert status.tolist() == [0]
    # SciPy squares away digits of slow states beside fast ones.
    limit = 1e-12 if name != "fast and slow" else 1e-9
    np.testing.assert_allclose(states, expected, rtol=limit, atol=limit * np.abs(expected).max())


@pytest.mark.parametrize("ka", [1.3, 0.2, 0.2 * (1 + 1e-9), 1e6, 1e9])
def test_one_compartment_with_absorption(ka):
    """Also with equal rates, where the matrix has one eigenvector only, and with stiff ones, to the last digits."""
    ke, t = 0.2, np.array([0.25, 1.0, 4.0, 12.0, 24.0])
    solution = solve_ivp(
        oral, {"gut": 10.0, "blood": 0.0}, {"ka": ka, "ke": ke}, t, solver="linear"
    )
    gut, blood = pytensor.function([], [solution.gut, solution.blood], mode=FAST)()
    # exp(-ke t) (1 - exp(-d t)) / d, which has no cancellation
    d = ka - ke
    expected = 10.0 * ka * np.exp(-ke * t) * (-np.expm1(-d * t) / d if d != 0.0 else t)
    np.testing.assert_allclose(blood, expected, rtol=1e-13)
    np.testing.assert_allclose(gut, 10.0 * np.exp(-ka * t), rtol=1e-12, atol=0)


def test_agrees_with_tsit5():
    a = MATRICES["random"]
    b, y0, start = np.ones(4), np.arange(4.0), -1.5
    exact = solved(a, b, y0, t0=start)[0]
    steps = solved(a, b, y0, t0=start, solver="tsit5", rtol=1e-12, atol=1e-12)[0]
    np.testing.assert_allclose(exact, steps, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(exact, by_expm(a, b, y0, TIMES, start), rtol=1e-12, atol=1e-12)


def test_a_grid_of_equal_gaps():
    times = np.linspace(0.0, 50.0, 501)  # gaps that differ in the last digit
    states, _ = solved(MATRICES["oscillation"], [0.0, 0.0], [1.0, 0.0], times)
    np.testing.assert_allclose(states[:, 0], np.cos(2.0 * times), atol=1e-12)


@pytest.mark.parametrize("name", ["random", "equal rates in a chain", "one state", "fast and slow"])
def test_gradients_against_differences(name):
    """With respect to all entries of A, b and y0; differences of ``expm`` by steps of 1e-3 and 2e-3, error of order four."""
    a, n = MATRICES[name], len(MATRICES[name])
    x0 = np.concatenate([a.ravel(), RNG.uniform(0.5, 1.5, n), RNG.uniform(1.0, 2.0, n)])
    x, weights = pt.vector("x", shape=x0.shape), RNG.normal(size=(TIMES.size, n))
    y0 = {f"s{i}": x[n * n + n + i] for i in range(n)}
    solution = solve_ivp(
        general,
        y0,
        {"a": x[: n * n].reshape((n, n)), "b": x[n * n : n * n + n]},
        TIMES,
        solver="linear",
    )
    total = sum((solution[s] * weights[:, i]).sum() for i, s in enumerate(y0))
    gradient = pytensor.function([x], pt.grad(total, x), mode=FAST)(x0)

    def f(x):
        return (
            by_expm(x[: n * n].reshape(n, n), x[n * n : n * n + n], x[n * n + n :], TIMES) * weights
        ).sum()

    for j, e in enumerate(np.eye(x0.size)):
        h = 1e-3 * max(1.0, abs(x0[j]))
        low, high = ((f(x0 + k * h * e) - f(x0 - k * h * e)) / (2 * k * h) for k in (1, 2))
        np.testing.assert_allclose(
            gradient[j], (4 * low - high) / 3, rtol=1e-6, atol=1e-6 * np.abs(gradient).max()
        )


def population(n_threads, solver="linear", n=37):
    """Ragged rows of subjects with constant and differentiable values, own starts; one subject has no rows."""
    rng = np.random.default_rng(5)
    subject = rng.integers(0, n - 1, 200)
    start = rng.uniform(-1.0, 0.0, n)
    ka = pt.vector("ka", shape=(n,))
    solution = solve_ivp(
        oral, {"gut": np.linspace(1.0, 2.0, n), "blood": ka}, {"ka": ka, "ke": rng.uniform(0.1, 0.3, n)},
        rng.choice([0.5, 1.0, 2.0, 7.0, 9.5], 200), subject, t0=start, solver=solver, n_threads=n_threads, rtol=1e-11, atol=1e-11,
    )  # fmt: skip
    outputs = [
        solution.gut,
        solution.blood,
        solution.status,
        pt.grad((solution.gut * solution.blood).sum(), ka),
    ]
    return ka, solution, outputs


def test_threads_and_neighbours_change_nothing():
    values, results = np.geomspace(0.1, 1e4, 37), {}
    for key in [(1, "linear"), (2, "linear"), (1, "cvodes")]:
        ka, _, outputs = population(*key)
        results[key] = pytensor.function([ka], outputs, mode=FAST)(values)
    for one, two, other in zip(*results.values(), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_replicates_and_other_rows():
    ka, solution, _ = population(1)
    many = pt.matrix("many", shape=(None, 37))
    rates = np.random.default_rng(8).uniform(0.1, 3.0, (3, 37))
    blood = pytensor.function([many], vectorize_graph(solution.blood, {ka: many}), mode=FAST)(rates)
    single = pytensor.function([ka], solution.blood, mode=FAST)
    for r in range(3):
        np.testing.assert_array_equal(blood[r], single(rates[r]))
    at_start = solution.at(solution._op.rows.t0[:4], np.arange(4))
    assert at_start.solver == "linear"
    np.testing.assert_array_equal(at_start.blood.eval({ka: rates[0]}), rates[0, :4])
    again = pickle.loads(pickle.dumps(solution._op))
    assert again == solution._op and again.system.not_linear == ""


@pytest.mark.parametrize(
    ("rates", "times", "expected"),
    [
        ((np.nan, 0.1), [1.0], SolverStatus.NON_FINITE),
        ((np.inf, 0.1), [1.0], SolverStatus.NON_FINITE),
        ((1.0, -800.0), [1.0], SolverStatus.NON_FINITE),
        ((1e14, 0.1), [1.0], SolverStatus.MAX_STEPS),
        ((1.0, 0.1), [1.0, -1.0], SolverStatus.BAD_TIMES),
        ((1.0, 0.1), [1.0, np.nan], SolverStatus.BAD_TIMES),
        ((1.0, 0.1), [1.0], SolverStatus.SUCCESS),
    ],
)
def test_statuses(rates, times, expected):
    """Of the middle one of three subjects; its neighbours in other lanes do not notice."""
    p = pt.matrix("p", shape=(3, 2))
    t = pt.vector("t", shape=(2 + len(times),))
    subject = np.array([0, *[1] * len(times), 2])
    y0 = {"gut": 10.0, "blood": 0.0}
    solution = solve_ivp(oral, y0, {"ka": p[:, 0], "ke": p[:, 1]}, t, subject, solver="linear")
    f = pytensor.function(
        [t, p], [solution.blood, solution.status, pt.grad(solution.blood.sum(), p)], mode=FAST
    )
    blood, status, gradient = f(
        np.array([1.0, *times, 1.0]), np.array([[1.0, 0.1], rates, [1.0, 0.1]])
    )
    assert status.tolist() == [0, int(expected), 0]
    assert (
        np.isfinite(blood[subject == 1]).all() == np.isfinite(gradient[1]).all() == (expected == 0)
    )
    assert (np.isnan(blood[subject == 1]).all() and np.isnan(gradient[1]).all()) or expected == 0
    assert blood[0] == blood[-1] and np.isfinite(gradient[[0, 2]]).all()


def test_max_steps_bounds_the_squarings():
    a, b = np.array([[-1e6]]), np.array([0.0])
    assert solved(a, b, [1.0], [24.0], max_steps=10)[1].tolist() == [int(SolverStatus.MAX_STEPS)]
    assert solved(a, b, [1.0], [24.0])[1].tolist() == [0]


LINEAR = {
    "no state": lambda t, y, p: {"a": p.k, "b": 0.0},
    "functions of parameters": lambda t, y, p: {"a": -pt.softplus(p.k) * y.a / p.v**2, "b": pt.exp(p.k) * (y.a - y.b) + 3.0},
    "choice by a parameter": lambda t, y, p: {"a": pt.switch(p.k > 0.0, y.a, -y.b), "b": pt.maximum(p.k, 0.0) * y.a},
    "time that drops out": lambda t, y, p: {"a": -p.k * y.a + 0.0 * t, "b": y.a},
    "matrix": lambda t, y, p: dict(zip("ab", pt.dot([[1.0, 2.0], [3.0, 4.0]], pt.stack([y.a, y.b])), strict=True)),
}  # fmt: skip
OTHERS = {
    "time": (lambda t, y, p: {"a": -y.a, "b": pt.sin(t)}, "the derivative of 'b' depends on t"),
    "factor": (lambda t, y, p: {"a": -y.a * t, "b": y.a}, "in the derivative of 'a', the factor of 'a' depends on t"),
    "Michaelis-Menten": (lambda t, y, p: {"a": y.b, "b": -p.v * y.b / (p.k + y.b)}, "of 'b' is not linear in 'b': .* with 'b'"),
    "product": (lambda t, y, p: {"a": -y.a * y.b, "b": y.a}, "of 'a' is not linear in 'a': its slope changes with 'b'"),
    "jump": (lambda t, y, p: {"a": -pt.floor(y.a), "b": y.a}, "of 'a' takes floor of something that changes with 'a'"),
    "jump in time": (lambda t, y, p: {"a": -y.a + pt.gt(t, 3.0), "b": y.a}, "takes gt of something that changes with t"),
    "kink": (lambda t, y, p: {"a": -pt.maximum(y.a, 0.0), "b": y.a}, "takes maximum of something"),
    "choice": (lambda t, y, p: {"a": pt.switch(y.b > 1.0, y.a, y.a + 1.0), "b": y.a}, "takes gt of .* with 'b'"),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
def test_recognized(name):
    assert trace(LINEAR[name], ["a", "b"], {"k": (), "v": ()}).not_linear == ""
    solution = solve_ivp(LINEAR[name], {"a": 1.0, "b": 2.0}, {"k": 0.5, "v": 2.0}, [1.0])
    assert solution.solver == "linear"
    steps = solve_ivp(
        LINEAR[name],
        {"a": 1.0, "b": 2.0},
        {"k": 0.5, "v": 2.0},
        [1.0],
        solver="tsit5",
        rtol=1e-10,
        atol=1e-10,
    )
    assert steps.solver == "tsit5"
    np.testing.assert_allclose(
        [solution.a.eval(), solution.b.eval()], [steps.a.eval(), steps.b.eval()], rtol=1e-8
    )


@pytest.mark.parametrize("name", OTHERS)
def test_not_recognized(name):
    rhs, message = OTHERS[name]
    with pytest.raises(
        ValueError, match=f"needs derivatives that are linear in the states.*{message}"
    ):
        solve_ivp(rhs, {"a": 1.0, "b": 2.0}, {"k": 0.5, "v": 2.0}, [1.0], solver="linear")
    assert solve_ivp(rhs, {"a": 1.0, "b": 2.0}, {"k": 0.5, "v": 2.0}, [1.0]).solver == "auto"


def test_large_systems_are_solved_step_by_step():
    for n, solver in ((8, "linear"), (9, "auto")):
        y0 = {f"s{i}": 1.0 for i in range(n)}
        assert solve_ivp(general, y0, {"a": -np.eye(n), "b": np.ones(n)}, [1.0]).solver == solver


def test_covariates():
    """Steps of a covariate are events; a curve is not constant."""
    table = pd.DataFrame({"time": [0.0, 2.0, 5.0], "rate": [0.1, 0.7, 0.3]})

    def rhs(t, y, p):
        return {"a": -p.rate(t) * y.a}

    steps = solve_ivp(rhs, {"a": 1.0}, {"rate": interpolate(table, "constant")}, [1.0, 4.0, 8.0])
    assert steps.solver == "linear"
    np.testing.assert_allclose(steps.a.eval(), np.exp([-0.1, -1.6, -3.2]), rtol=1e-13)
    with pytest.raises(ValueError, match="the factor of 'a' depends on t"):
        solve_ivp(rhs, {"a": 1.0}, {"rate": interpolate(table, "linear")}, [1.0], solver="linear")
