"""The cvodes engine against SciPy, finite differences, and its own promises (silence, no leak, threads)."""

import gc
import math
import sys
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from pymc_saem.ode.runtime.status import SolverStatus
from pymc_saem.ode.solvers import sundials
from tests.support import one_solve

NO_Y0 = np.empty(0, np.int64)


def _system(n_states, n_p, rhs, jac, n_dp=None):
    return SimpleNamespace(
        n_states=n_states,
        n_p=n_p,
        n_dp=n_p if n_dp is None else n_dp,
        rhs=numba.njit(error_model="numpy")(rhs),
        jac=numba.njit(error_model="numpy")(jac),
    )


def decay():
    def rhs(t, y, p, dy):
        dy[0] = -p[0] * y[0]

    def jac(t, y, p, dy, jy, jp):
        dy[0] = -p[0] * y[0]
        jy[0, 0] = -p[0]
        jp[0, 0] = -y[0]

    return _system(1, 1, rhs, jac)


def lotka_volterra():
    """The last parameter has no derivative: n_dp < n_p."""

    def rhs(t, y, p, dy):
        dy[0] = p[0] * y[0] - p[1] * y[0] * y[1]
        dy[1] = p[3] * y[0] * y[1] - p[2] * y[1]

    def jac(t, y, p, dy, jy, jp):
        dy[0] = p[0] * y[0] - p[1] * y[0] * y[1]
        dy[1] = p[3] * y[0] * y[1] - p[2] * y[1]
        jy[0, 0] = p[0] - p[1] * y[1]
        jy[0, 1] = -p[1] * y[0]
        jy[1, 0] = p[3] * y[1]
        jy[1, 1] = p[3] * y[0] - p[2]
        jp[:] = 0.0
        jp[0, 0] = y[0]
        jp[0, 1] = -y[0] * y[1]
        jp[1, 2] = -y[1]

    return _system(2, 4, rhs, jac, n_dp=3)


def robertson():
    def rhs(t, y, p, dy):
        dy[0] = -p[0] * y[0] + p[1] * y[1] * y[2]
        dy[2] = p[2] * y[1] * y[1]
        dy[1] = -dy[0] - dy[2]

    def jac(t, y, p, dy, jy, jp):
        dy[0] = -p[0] * y[0] + p[1] * y[1] * y[2]
        dy[2] = p[2] * y[1] * y[1]
        dy[1] = -dy[0] - dy[2]
        jy[0, 0], jy[0, 1], jy[0, 2] = -p[0], p[1] * y[2], p[1] * y[1]
        jy[2, 0], jy[2, 1], jy[2, 2] = 0.0, 2 * p[2] * y[1], 0.0
        jp[0, 0], jp[0, 1], jp[0, 2] = -y[0], y[1] * y[2], 0.0
        jp[2, 0], jp[2, 1], jp[2, 2] = 0.0, 0.0, y[1] * y[1]
        for k in range(3):
            jy[1, k] = -jy[0, k] - jy[2, k]
            jp[1, k] = -jp[0, k] - jp[2, k]

    return _system(3, 3, rhs, jac)


def van_der_pol():
    def rhs(t, y, p, dy):
        dy[0] = y[1]
        dy[1] = p[0] * (1 - y[0] * y[0]) * y[1] - y[0]

    def jac(t, y, p, dy, jy, jp):
        dy[0] = y[1]
        dy[1] = p[0] * (1 - y[0] * y[0]) * y[1] - y[0]
        jy[0, 0], jy[0, 1] = 0.0, 1.0
        jy[1, 0], jy[1, 1] = -2 * p[0] * y[0] * y[1] - 1.0, p[0] * (1 - y[0] * y[0])
        jp[0, 0], jp[1, 0] = 0.0, (1 - y[0] * y[0]) * y[1]

    return _system(2, 1, rhs, jac)


def square_root():
    """NaN as soon as y < 0, which happens at t = 2 sqrt(y0)."""

    def rhs(t, y, p, dy):
        dy[0] = -p[0] * math.sqrt(y[0]) if y[0] >= 0 else math.nan

    def jac(t, y, p, dy, jy, jp):
        root = math.sqrt(y[0]) if y[0] >= 0 else math.nan
        dy[0] = -p[0] * root
        jy[0, 0] = -0.5 * p[0] / root
        jp[0, 0] = -root

    return _system(1, 1, rhs, jac)


# system, y0, p, times, absolute tolerance
CASES = {
    "decay": (decay, [2.0], [0.7], [0.0, 0.0, 0.5, 1.0, 1.0, 3.0], 1e-11),
    "lotka_volterra": (
        lotka_volterra,
        [1.0, 0.5],
        [1.1, 0.9, 0.8, 1.2],
        [0.5, 1.0, 4.0, 9.0],
        1e-11,
    ),
    "robertson": (robertson, [1.0, 0.0, 0.0], [0.04, 1e4, 3e7], [0.4, 4.0, 40.0, 4e3, 4e5], 1e-13),
    "van_der_pol": (van_der_pol, [2.0, 0.0], [1000.0], [100.0, 700.0, 900.0], 1e-11),
}

_made = {}


def _make(kind, name):
    """Engines are compiled once per session."""
    if (kind, name) not in _made:
        system = CASES[name][0]() if name in CASES else square_root()
        _made[kind, name] = getattr(one_solve, f"make_{kind}_one")(system)
    return _made[kind, name]


def _solve(name, y0, p, times, rtol=1e-9, atol=1e-9, max_steps=100_000, t0=0.0):
    times, y0 = np.array(times, float), np.array(y0, float)
    out = np.empty((times.size, y0.size))
    status, n_steps = _make("solve", name)(
        times, t0, y0, np.array(p, float), rtol, atol, max_steps, out
    )
    return out, SolverStatus(status), n_steps


def _sens(
    name, y0, p, times, g, y0_index=NO_Y0, rtol=1e-9, atol=1e-9, max_steps=100_000, n_dp=None
):
    gy0, gp = np.empty(len(y0_index)), np.empty(len(p) if n_dp is None else n_dp)
    status, n_steps = _make("sens", name)(
        np.array(times, float), 0.0, np.array(y0, float), np.array(p, float), np.asarray(y0_index, np.int64),
        rtol, atol, max_steps, g, gy0, gp,
    )  # fmt: skip
    return gy0, gp, SolverStatus(status), n_steps


@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_forward_agrees_with_scipy(name):
    system, y0, p, times, atol = CASES[name]
    f, dy = system().rhs.py_func, np.empty(len(y0))

    def derivative(t, y):
        f(t, y, p, dy)
        return dy.copy()

    method = "LSODA" if name in ("decay", "lotka_volterra") else "Radau"
    reference = solve_ivp(
        derivative,
        (0.0, times[-1]),
        y0,
        method=method,
        t_eval=np.unique(times),
        rtol=1e-10,
        atol=atol,
    )
    expected = reference.y.T[np.searchsorted(reference.t, times)]
    out, status, n_steps = _solve(name, y0, p, times, rtol=1e-9, atol=min(1e-9, 10 * atol))
    assert status is SolverStatus.SUCCESS and n_steps > 10
    scale = np.abs(expected).max(axis=0)
    # the timing of van der Pol's jump amplifies errors
    np.testing.assert_allclose(
        out / scale, expected / scale, atol=3e-6 if name == "van_der_pol" else 3e-7
    )


def test_decay_is_exact():
    _, y0, p, times, _ = CASES["decay"]
    out, _, _ = _solve("decay", y0, p, times)
    np.testing.assert_allclose(out[:, 0], 2.0 * np.exp(-0.7 * np.array(times)), rtol=2e-8)
    assert out[0, 0] == out[1, 0] == 2.0


@pytest.mark.parametrize("name", CASES)
def test_sensitivities_agree_with_finite_differences(name):
    _, y0, p, times, atol = CASES[name]
    if name == "van_der_pol":  # dy/dmu in the jump is 1e6 times that after it: digits are lost
        times = times[:2]
    n, n_dp = len(y0), 3 if name == "lotka_volterra" else len(p)
    g = np.random.default_rng(1).normal(size=(len(times), n))
    index = list(range(n))[::-1]
    gy0, gp, status, _ = _sens(name, y0, p, times, g, index, 1e-10, atol, n_dp=n_dp)
    assert status is SolverStatus.SUCCESS

    def value(y0, p):
        return (g * _solve(name, y0, p, times, 1e-12, atol / 100)[0]).sum()

    def slope(x, i, f, scale):
        up, down = list(x), list(x)
        h = 1e-4 * scale
        up[i] += h
        down[i] -= h
        return (f(up) - f(down)) / (2 * h)

    for j in range(n_dp):
        expected = slope(p, j, lambda x: value(y0, x), p[j])
        np.testing.assert_allclose(gp[j], expected, rtol=1e-4, err_msg=f"parameter {j}")
    if name != "robertson":  # there y0 = 0 has a boundary layer that differences do not resolve
        for j, i in enumerate(index):
            expected = slope(y0, i, lambda x: value(x, p), 1.0)
            np.testing.assert_allclose(gy0[j], expected, rtol=1e-4, atol=1e-6, err_msg=f"y0 {i}")


def test_robertson_start_sensitivities_conserve_mass():
    """y0 + y1 + y2 is constant, so its derivative by each y0 entry is 1 and by each parameter 0."""
    _, y0, p, times, atol = CASES["robertson"]
    g = np.zeros((len(times), 3))
    g[-1] = 1.0
    gy0, gp, status, _ = _sens("robertson", y0, p, times, g, [0, 1, 2], 1e-8, atol)
    assert status is SolverStatus.SUCCESS
    np.testing.assert_allclose(gy0, 1.0, rtol=1e-5)
    np.testing.assert_allclose(gp * p, 0.0, atol=1e-5)


def test_stiff_gradient_takes_few_steps():
    """A fixed-point iteration or an explicit method would need millions of steps here."""
    _, y0, p, times, atol = CASES["robertson"]
    _, _, status, n_steps = _sens(
        "robertson", y0, p, times, np.ones((len(times), 3)), rtol=1e-6, atol=1e-10
    )
    assert status is SolverStatus.SUCCESS and n_steps < 2000


def test_step_limit_counts_the_whole_solve():
    _, y0, p, _, _ = CASES["lotka_volterra"]
    times = np.linspace(0.1, 10.0, 50)
    _, status, n_steps = _solve("lotka_volterra", y0, p, times)
    assert status is SolverStatus.SUCCESS
    _, status, _ = _solve("lotka_volterra", y0, p, times, max_steps=n_steps)
    assert status is SolverStatus.SUCCESS
    out, status, reached = _solve("lotka_volterra", y0, p, times, max_steps=n_steps - 1)
    assert status is SolverStatus.MAX_STEPS and reached == n_steps - 1 and np.isnan(out).all()
    _, gp, status, _ = _sens("lotka_volterra", y0, p, times, np.ones((50, 2)), max_steps=20, n_dp=3)
    assert status is SolverStatus.MAX_STEPS and np.isnan(gp).all()


def test_failures_have_a_status_and_print_nothing(capfd):
    out, status, _ = _solve("square_root", [-1.0], [1.0], [1.0])
    assert status is SolverStatus.NON_FINITE and np.isnan(out).all()
    assert _solve("square_root", [1.0], [np.nan], [1.0])[1] is SolverStatus.NON_FINITE
    assert _solve("decay", [np.nan], [1.0], [1.0])[1] is SolverStatus.NON_FINITE
    g = np.ones((1, 1))
    gy0, gp, status, _ = _sens("square_root", [-1.0], [1.0], [1.0], g, [0])
    assert status is SolverStatus.NON_FINITE and np.isnan(gy0).all() and np.isnan(gp).all()
    assert _sens("square_root", [1.0], [np.nan], [1.0], g)[2] is SolverStatus.NON_FINITE
    assert _solve("square_root", [1.0], [1.0], [5.0])[1] is not SolverStatus.SUCCESS
    assert _sens("square_root", [1.0], [1.0], [5.0], g)[2] is not SolverStatus.SUCCESS
    assert _solve("decay", [1.0], [1.0], [1.0], rtol=0.0, atol=0.0)[1] is not SolverStatus.SUCCESS
    for bad in ([2.0, 1.0], [-1.0], [np.nan], [np.inf]):
        assert _solve("decay", [1.0], [1.0], bad)[1] is SolverStatus.BAD_TIMES
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_times_at_the_start():
    nearly = np.nextafter(1.0, 2.0)
    out, status, n_steps = _solve("decay", [3.0], [1.0], [1.0, nearly, 2.0], t0=1.0)
    assert status is SolverStatus.SUCCESS and out[0, 0] == out[1, 0] == 3.0
    np.testing.assert_allclose(out[2, 0], 3.0 * np.exp(-1.0), rtol=1e-7)
    assert _solve("decay", [3.0], [1.0], [1.0, 1.0], t0=1.0)[1:] == (SolverStatus.SUCCESS, 0)
    gy0, gp, status, _ = _sens("decay", [3.0], [1.0], [0.0, 0.0], np.ones((2, 1)), [0])
    assert status is SolverStatus.SUCCESS and gy0[0] == 2.0 and gp[0] == 0.0
    assert _solve("decay", [3.0], [1.0], [])[1] is SolverStatus.SUCCESS


def _resident_kb():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_many_solves_do_not_leak():
    solve, sens = _make("solve", "lotka_volterra"), _make("sens", "lotka_volterra")

    @numba.njit
    def many(n, times, y0, p, bad, g, index):
        out, gy0, gp = np.empty((times.size, 2)), np.empty(1), np.empty(3)
        for _ in range(n):
            solve(times, 0.0, y0, p, 1e-3, 1e-3, 1000, out)
            solve(times, 0.0, y0, p, 1e-3, 1e-3, 3, out)
            solve(times, 0.0, y0, bad, 1e-3, 1e-3, 1000, out)
            sens(times, 0.0, y0, p, index, 1e-3, 1e-3, 1000, g, gy0, gp)
            sens(times, 0.0, y0, p, index, 1e-3, 1e-3, 3, g, gy0, gp)
            sens(times, 0.0, y0, bad, index, 1e-3, 1e-3, 1000, g, gy0, gp)

    _, y0, p, times, _ = CASES["lotka_volterra"]
    arguments = (
        np.array(times),
        np.array(y0),
        np.array(p),
        np.full(4, np.nan),
        np.ones((4, 2)),
        np.array([1]),
    )
    many(500, *arguments)
    gc.collect()
    before = _resident_kb()
    many(5000, *arguments)
    assert _resident_kb() - before < 2000  # 30,000 solves; one lost vector each would be 15,000


@pytest.mark.slow
def test_threads_give_the_serial_result():
    solve, sens = _make("solve", "lotka_volterra"), _make("sens", "lotka_volterra")

    def loop(parameters, times, y0, g, index, out, gradient):
        for i in numba.prange(parameters.shape[0]):
            solve(times, 0.0, y0, parameters[i], 1e-6, 1e-6, 1000, out[i])
            sens(
                times,
                0.0,
                y0,
                parameters[i],
                index,
                1e-6,
                1e-6,
                1000,
                g,
                gradient[i, :1],
                gradient[i, 1:],
            )

    rng = np.random.default_rng(2)
    parameters = np.exp(0.3 * rng.normal(size=(200, 4)))
    times, y0, g = np.linspace(0.0, 8.0, 9), np.array([1.0, 0.5]), rng.normal(size=(9, 2))
    results = []
    for parallel in (False, True, True):
        out, gradient = np.zeros((200, 9, 2)), np.zeros((200, 4))
        numba.njit(parallel=parallel, nogil=True)(loop)(
            parameters, times, y0, g, np.array([1]), out, gradient
        )
        results.append((out, gradient))
    assert np.isfinite(results[0][0]).all() and np.isfinite(results[0][1]).all()
    for out, gradient in results[1:]:
        np.testing.assert_array_equal(out, results[0][0])
        np.testing.assert_array_equal(gradient, results[0][1])


@pytest.mark.slow
def test_through_solve_ivp():
    """The public function: both solvers agree, in value and gradient."""
    pt = pytest.importorskip("pytensor.tensor")
    import pytensor

    from pymc_saem import ode

    def rates(t, y, p):
        eaten = y.prey * y.predator
        return {"prey": p.a * y.prey - eaten, "predator": eaten - p.b * y.predator}

    a, b = pt.vector("a", shape=(2,), dtype="float64"), pt.vector("b", shape=(2,), dtype="float64")
    times = np.array([1.0, 0.5, 3.0, 0.0, 2.0])
    values = []
    for solver in ("tsit5", "cvodes"):
        solution = ode.solve_ivp(
            rates, y0={"prey": 1.0, "predator": a}, params={"a": a, "b": b}, t=times,
            subject=np.array([0, 0, 0, 1, 1]), rtol=1e-9, atol=1e-9, solver=solver,
        )  # fmt: skip
        total = (solution.prey * np.arange(1.0, 6.0)).sum() + solution.predator.sum()
        function = pytensor.function([a, b], [solution.prey, *pytensor.grad(total, [a, b])])
        values.append(function(np.array([0.9, 1.2]), np.array([0.7, 1.1])))
    for ours, reference in zip(*values, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-6)


def test_adams_is_accurate_too():
    solve = one_solve.make_solve_one(decay(), method="adams")
    out = np.empty((2, 1))
    status, _ = solve(np.array([1.0, 2.0]), 0.0, np.ones(1), np.array([0.5]), 1e-9, 1e-9, 1000, out)
    assert status == SolverStatus.SUCCESS
    np.testing.assert_allclose(out[:, 0], np.exp([-0.5, -1.0]), rtol=1e-7)


def test_a_missing_library_names_the_cure(monkeypatch):
    monkeypatch.setattr(sundials, "_candidates", lambda: iter([[], []]))
    with pytest.raises(ImportError, match="pip install scikit-sundae"):
        sundials.load.__wrapped__()
