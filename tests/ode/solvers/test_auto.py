"""solver="auto": explicit until a subject is stiff, then implicit; against SciPy and finite differences, and its promises."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.integrate import solve_ivp as scipy_solve_ivp

from pymc_saem import nn
from pymc_saem.ode import SolverStatus, solve_ivp
from pymc_saem.ode.solvers import auto

FAST = pytensor.compile.mode.get_mode("FAST_COMPILE")


def van_der_pol(t, y, p):
    return {"a": y.b, "b": p.mu * (1.0 - y.a**2) * y.b - y.a}


def robertson(t, y, p):
    first, second, third = p.k1 * y.a, p.k2 * y.b * y.c, p.k3 * y.b**2
    return {"a": -first + second, "b": first - second - third, "c": third}


NET = nn.MLP(in_size=1, out_size=1, width_size=2, depth=1, activation="tanh")


def neural(factor):
    """The demo's model; with a factor, elimination is proportional to the concentration and that much faster."""

    def rates(t, y, p):
        sp = pt.softplus
        into, over = sp(NET(p.w[:7], t / 24)), sp(NET(p.w[7:14], sp(y.depot)))
        out, rest = sp(NET(p.w[14:21], sp(y.center))), sp(NET(p.w[21:], t / 24))
        lost = out if factor is None else factor * out * y.center
        return {"depot": -320.0 * into - over, "center": 320.0 * into + over - lost + 320.0 * rest}

    return rates


# right-hand side, y0, parameters, times, absolute tolerance in units of the relative one, stiff,
# error in units of rtol
CASES = {
    "van der Pol 1": (van_der_pol, [2.0, 0.0], {"mu": 1.0}, [0.5, 2.0, 5.0, 9.0], 1.0, False, 30),
    # What is left of an error in the time of the jump is a thousand times as large.
    "van der Pol 1000": (van_der_pol, [2.0, 0.0], {"mu": 1e3}, [100.0, 300.0, 500.0, 750.0], 1.0, True, 3000),
    "Robertson": (robertson, [1.0, 0.0, 0.0], {"k1": 0.04, "k2": 1e4, "k3": 3e7}, [0.4, 4.0, 400.0, 4e4], 1e-5, True, 30),
    "neural": (neural(1e4), [320.0, 0.0], {"w": np.random.default_rng(5).normal(0, 0.5, 28)}, [0.5, 5.0, 24.0], 1e-4, True, 30),
}  # fmt: skip
STIFF = [name for name, case in CASES.items() if case[5]]


def build(name, solver="auto", rtol=1e-6, n=1, **options):
    """Symbolic parameters, stacked solution (rows, states), status; ``n`` subjects with the same times."""
    rhs, y0, p, times, atol, *_ = CASES[name]
    x = [pt.tensor(k, dtype="float64", shape=(n, *np.shape(v))) for k, v in p.items()]
    states = ["depot", "center"] if name == "neural" else ["a", "b", "c"][: len(y0)]
    solution = solve_ivp(
        rhs, dict(zip(states, y0, strict=True)), dict(zip(p, x, strict=True)), np.tile(times, n),
        np.repeat(np.arange(n), len(times)), rtol=rtol, atol=atol * rtol, solver=solver, **options,
    )  # fmt: skip
    return x, pt.stack([solution[s] for s in states], axis=1), solution.status


def values_of(name, spread=None, n=1):
    p = CASES[name][2]
    factors = np.ones(n) if spread is None else np.exp(spread)
    return [np.multiply.outer(factors, v) for v in p.values()]


def compiled(name, *arguments, **options):
    x, values, status = build(name, *arguments, **options)
    return pytensor.function(x, [values, status], mode=FAST)


def weigh(values):
    """A function of the solution to take the gradient of; states differ by orders of magnitude."""
    return (values * np.random.default_rng(1).normal(size=values.type.shape)).sum()


_references = {}


def reference(name):
    if name not in _references:
        rhs, y0, p, times, *_ = CASES[name]
        t, y = pt.dscalar(), pt.dvector()
        names = ["depot", "center"] if name == "neural" else ["a", "b", "c"]
        state = SimpleNamespace(**{n: y[i] for i, n in enumerate(names[: len(y0)])})
        dy = rhs(t, state, SimpleNamespace(**{k: pt.constant(v) for k, v in p.items()})).values()
        f = pytensor.function([t, y], pt.stack(list(dy)), mode=FAST, on_unused_input="ignore")
        method = "LSODA" if CASES[name][5] else "DOP853"
        options = {"method": method, "rtol": 1e-11, "atol": 1e-15, "t_eval": times}
        _references[name] = scipy_solve_ivp(f, (0.0, times[-1]), y0, **options).y.T
    return _references[name]


@pytest.mark.parametrize("rtol", [1e-6, 1e-9])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_agrees_with_scipy(name, rtol):
    values, status = compiled(name, rtol=rtol)(*values_of(name))
    expected = reference(name)
    assert status == SolverStatus.SUCCESS
    np.testing.assert_array_less(
        np.abs(values - expected) / np.abs(expected).max(axis=0), CASES[name][6] * rtol
    )


@pytest.mark.parametrize("rtol", [1e-6, 1e-9])
@pytest.mark.parametrize("name", CASES)
def test_gradient_agrees_with_differences(name, rtol):
    x, values, _ = build(name, rtol=rtol)
    gradient = pytensor.function(x, pytensor.grad(weigh(values), x), mode=FAST)(*values_of(name))
    # The differences come from the implicit solver, so that both are tested.
    x, values, _ = build(name, "cvodes", rtol=1e-12)
    f, at = pytensor.function(x, weigh(values), mode=FAST), values_of(name)
    for k, a in enumerate(at):
        for j in range(min(a.size, 4)):
            h = 1e-4 * max(abs(a.ravel()[j]), 1e-2)
            sides = []
            for sign in (1, -1):
                moved = [b.copy() for b in at]
                moved[k].ravel()[j] += sign * h
                sides.append(f(*moved))
            expected, scale = (sides[0] - sides[1]) / (2 * h), np.abs(gradient[k]).max()
            np.testing.assert_allclose(
                gradient[k].ravel()[j], expected, rtol=2e-3, atol=1e-4 * scale
            )


@pytest.mark.parametrize("name", CASES)
def test_is_one_or_the_other(name):
    """Bit by bit the solution and gradient of cvodes where the problem is stiff, of tsit5 elsewhere."""
    found = {}
    for solver in ("auto", "cvodes" if CASES[name][5] else "tsit5"):
        x, values, _ = build(name, solver)
        outputs = [values, *pytensor.grad(weigh(values), x)]
        found[solver] = pytensor.function(x, outputs, mode=FAST)(*values_of(name))
    for ours, other in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(ours, other)


def test_tsit5_never_turns():
    for name in STIFF:
        _, status = compiled(name, "tsit5")(*values_of(name))
        assert status == SolverStatus.MAX_STEPS


def pulled(t, y, p):
    return {"a": -p.rate * (y.a - pt.cos(t))}


def pulled_solver(solver, n_threads, n=100):
    """Solution, status and gradient of subjects that are stiff where the rate is high."""
    rate = pt.tensor("rate", dtype="float64", shape=(n,))
    options = {"solver": solver, "n_threads": n_threads}
    solution = solve_ivp(
        pulled, {"a": 0.0}, {"rate": rate}, np.full(n, 10.0), np.arange(n), **options
    )
    outputs = [solution.a, solution.status, pytensor.grad(solution.a.sum(), rate)]
    return pytensor.function([rate], outputs, mode=FAST)


def test_threads_and_neighbours_change_nothing():
    rate = np.random.default_rng(2).permutation(np.geomspace(0.1, 1e6, 100))
    expected = pulled_solver("auto", 1)(rate)
    assert (expected[1] == 0).all()
    same = [expected[0] == pulled_solver(solver, 1)(rate)[0] for solver in ("tsit5", "cvodes")]
    assert same[0].sum() > 30 and same[1].sum() > 30 and (same[0] | same[1]).all()
    for n_threads in (2, 5):
        for ours, other in zip(pulled_solver("auto", n_threads)(rate), expected, strict=True):
            np.testing.assert_array_equal(ours, other)
    for ours, other in zip(pulled_solver("auto", 1)(rate[::-1]), expected, strict=True):
        np.testing.assert_array_equal(ours[::-1], other)


def op_of(status):
    return status.owner.op


def test_the_first_stiff_subject_compiles():
    """Through helpers of the pool too; what comes after does not depend on it."""
    x, values, status = build("Robertson", n=64, n_threads=2)
    solve = pytensor.function(x, [values, status], mode=FAST)
    argument = values_of("Robertson", np.linspace(-0.1, 0.1, 64), 64)
    later = solve(*argument)
    cell = auto.cell(op_of(status).system, False)
    cell.forget()
    assert cell.task is None
    first = solve(*argument)
    assert cell.task is not None and cell.memory[0] == cell.task.address
    for a, b in zip(first, later, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not later[1].any()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_first_stiff_subject_in_a_compiled_loop(n_threads):
    """As in the E-step: compiled code without Python's lock, from which helpers must still reach Python once."""
    n = 20
    rate = pt.tensor("rate", dtype="float64", shape=(n,))
    options = {"n_threads": n_threads}
    solution = solve_ivp(
        pulled, {"a": 0.0}, {"rate": rate}, np.full(n, 10.0), np.arange(n), **options
    )
    node = solution.status.owner
    x = pt.tensor("x", dtype="float64", shape=(None, n, 1))
    outputs = node.op(node.inputs[0], x, node.inputs[2])
    graph = pytensor.function([x], outputs, mode="NUMBA").vm.jit_fn
    argument = np.geomspace(1e3, 1e6, 5 * n).reshape(5, n, 1)
    expected = node.op.compute(node.inputs[0].data, argument, np.zeros((n, 1)))

    @numba.njit(nogil=True)
    def loop(x):
        first = graph(x)
        return first, graph(x)

    cell = auto.cell(node.op.system, False)
    with node.op.compiled_calls(5 * n, 2):
        loop(argument)
        cell.forget()
        found = loop(argument)
    assert cell.task is not None
    for values, status in found:
        assert (status == 0).all()
        np.testing.assert_array_equal(values, expected[0])


@pytest.mark.slow
def test_not_compiled_for_a_harmless_model():
    code = (
        "import sys, numpy as np\nfrom pymc_saem.ode import solve_ivp\n"
        "s = solve_ivp(lambda t, y, p: {'y': -p.k * y.y}, {'y': 1.0}, {'k': np.array(0.5)}, [1.0, 2.0])\n"
        "assert abs(s.y.eval()[0] - np.exp(-0.5)) < 1e-5\n"
        "assert 'pymc_saem.ode.solvers.cvodes' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_without_sundials(monkeypatch):
    from pymc_saem.ode.solvers import cvodes

    def missing(gradient):
        raise ImportError("no SUNDIALS here")

    x, values, status = build("Robertson")
    cell = auto.cell(op_of(status).system, False)
    monkeypatch.setattr(cvodes, "task", missing)
    cell.forget()
    try:
        out, code = pytensor.function(x, [values, status], mode=FAST)(*values_of("Robertson"))
        assert code == SolverStatus.STIFF and np.isnan(out[-1]).all()
        assert "pip install scikit-sundae" in SolverStatus.STIFF.advice
    finally:
        cell.forget()


@pytest.mark.parametrize("name", CASES)
def test_step_limit_holds(name):
    for max_steps in (1, 5, 40):
        out, status = compiled(name, rtol=1e-9, max_steps=max_steps)(*values_of(name))
        assert status == SolverStatus.MAX_STEPS and np.isnan(out).all()


@pytest.mark.parametrize("factor", [None, 1e4])
@pytest.mark.parametrize("rtol", [1e-2, 1e-6])
@pytest.mark.slow
def test_wide_proposals_are_bounded_and_silent(factor, rtol, capfd):
    """Weights far out: no hang, nothing printed, every end has a name; the benchmark does 10,000."""
    n, times = 600, np.array([0.25, 1.0, 5.0, 24.0])
    w = pt.tensor("w", dtype="float64", shape=(n, 28))
    solution = solve_ivp(
        neural(factor), {"depot": 320.0, "center": 0.0}, {"w": w}, np.tile(times, n), np.repeat(np.arange(n), 4),
        rtol=rtol, atol=rtol, n_threads=1,
    )  # fmt: skip
    solve = pytensor.function([w], [solution.center, solution.status], mode=FAST)
    weights = 3.0 * np.random.default_rng(3).normal(size=(n, 28))
    weights[0], weights[1] = np.nan, 1e300
    solve(weights)
    start = time.perf_counter()
    center, status = solve(weights)
    assert time.perf_counter() - start < n * 0.05
    failed = {SolverStatus(int(s)) for s in np.unique(status)} - {SolverStatus.SUCCESS}
    assert status[0] == SolverStatus.NON_FINITE and (status[2:] == 0).mean() > 0.99
    assert SolverStatus.STIFF not in failed
    np.testing.assert_array_equal(np.isnan(center.reshape(n, 4)).all(axis=1), status != 0)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_hopeless_solves_end_in_time():
    """A pendulum's oscillation that no solver gets through: the explicit one sees early that its steps will not do."""

    def fast(t, y, p):
        return {"a": p.rate * y.b, "b": -p.rate * pt.sin(y.a)}

    n = 32
    rate = pt.tensor("rate", dtype="float64", shape=(n,))
    solution = solve_ivp(
        fast, {"a": 1.0, "b": 0.0}, {"rate": rate}, np.ones(n), np.arange(n), n_threads=1
    )
    solve = pytensor.function([rate], solution.status, mode=FAST)
    solve(np.full(n, 1e7))
    start = time.perf_counter()
    status = solve(np.full(n, 1e7))
    assert (status == SolverStatus.MAX_STEPS).all()
    assert time.perf_counter() - start < n * 0.2  # 4000 steps of a microsecond or two each
