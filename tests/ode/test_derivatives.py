"""Solution and derivatives from one solve: the same solution as without them, derivatives against differences of SciPy's."""

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode

from pymc_saem.ode import SolverStatus, solve_ivp
from pymc_saem.ode.ops.solution_op import OdeDerivatives, OdeGradient
from tests.support.systems import DOSE, RATES, START, SUBJECT, TIMES, N, oral, oral_scipy

PLAIN = Mode("py", "fast_compile")


def chain(t, y, p):
    """Linear, with constant coefficients."""
    absorbed = p.rates[0] * y.depot
    return {"depot": -absorbed, "center": absorbed - p.rates[1] * y.center}


def operation(rhs=oral, solver="tsit5", tolerance=1e-9, **options):
    """The operation of a solution whose dose and rates are differentiable, and its constant values."""
    rates, dose = pt.matrix("rates", shape=(N, 2)), pt.vector("dose", shape=(N,))
    solution = solve_ivp(
        rhs, {"depot": dose, "center": 0.2}, {"rates": rates, "scale": 1.3}, TIMES, SUBJECT, t0=START,
        rtol=tolerance, atol=tolerance, solver=solver, **options,
    )  # fmt: skip
    node = solution.status.owner
    constants = pytensor.function([], node.inputs[2], mode=PLAIN)()
    return node.op, constants


def some_values(n_replicates, seed=0):
    """x (replicate, subject, 3): dose and rates."""
    x = np.concatenate([DOSE[:, None], RATES], axis=1)
    return x * np.random.default_rng(seed).uniform(0.8, 1.2, (n_replicates, *x.shape))


@pytest.mark.parametrize(
    ("rhs", "solver"), [(oral, "tsit5"), (oral, "auto"), (chain, "linear"), (chain, "auto")]
)
@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_the_solution_is_the_same(rhs, solver, tolerance):
    """Not only within the tolerance: kernels with and without derivatives must have the same target."""
    op, c = operation(rhs, solver, tolerance)
    x = some_values(3)
    y, status = op.compute(TIMES, x, c)
    again, status_again, _ = op.with_derivatives().compute(TIMES, x, c)
    assert (
        isinstance(op.with_derivatives(), OdeDerivatives)
        and not status.any()
        and not status_again.any()
    )
    np.testing.assert_allclose(again, y, rtol=1e-11)


def test_derivatives_are_those_of_the_exact_solution():
    op, c = operation()
    x = some_values(2)
    _, _, found = op.with_derivatives().compute(TIMES, x, c)
    for r in range(2):
        for j in range(3):
            step = 1e-4 * np.eye(3)[j]
            up, down = (
                oral_scipy(SUBJECT, TIMES, dose=v[:, 0], rates=v[:, 1:])
                for v in (x[r] + step, x[r] - step)
            )
            np.testing.assert_allclose(found[r, ..., j], (up - down) / 2e-4, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("batch", "mode"), [((), PLAIN), ((2, 2), PLAIN), ((), "NUMBA"), ((3,), "NUMBA")]
)
@pytest.mark.slow
def test_the_gradient_of_a_graph_needs_one_operation_and_equals_that_of_two(batch, mode):
    op, c = operation(tolerance=1e-10)
    x = pt.tensor("x", dtype="float64", shape=(*batch, N, 3))
    weights = np.random.default_rng(1).normal(size=(len(TIMES), 2))
    results = []
    for one in (op.with_derivatives(), op):
        loss = (pt.square(one(TIMES, x, c)[0]) * weights).sum()
        f = pytensor.function([x], [loss, pt.grad(loss, x)], mode=mode)
        kinds = [
            type(node.op)
            for node in f.maker.fgraph.apply_nodes
            if hasattr(node.op, "compiled_calls")
        ]
        assert kinds == [OdeDerivatives] if one is not op else OdeGradient in kinds
        results.append(f(some_values(int(np.prod(batch, dtype=int))).reshape(*batch, N, 3)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_a_failed_solve_has_zero_derivatives():
    op, c = operation(tolerance=1e-5, max_steps=20)
    y, status, found = op.with_derivatives().compute(TIMES, some_values(1), c)
    expected, expected_status = op.compute(TIMES, some_values(1), c)
    np.testing.assert_array_equal(status, expected_status)
    failed = status[0] == SolverStatus.MAX_STEPS
    assert failed.any() and not failed.all()
    of_failed = failed[SUBJECT]
    assert np.isnan(y[0, of_failed]).all() and not found[0, of_failed].any()
    assert np.isfinite(y[0, ~of_failed]).all() and found[0, ~of_failed].any()
    np.testing.assert_allclose(y, expected, rtol=1e-11)


def test_a_stiff_subject_keeps_its_solution_and_has_zero_derivatives():
    rate = pt.vector("rate", shape=(2,))
    times = np.tile([1.0, 10.0, 50.0], 2)
    solution = solve_ivp(
        lambda t, y, p: {"a": -p.rate * (y.a - pt.cos(t))}, {"a": 0.0}, {"rate": rate}, times, np.repeat([0, 1], 3),
        rtol=1e-6, atol=1e-6,
    )  # fmt: skip
    op, x, c = solution.status.owner.op, np.array([[[0.5], [1e6]]]), np.zeros((2, 1))
    y, status, found = op.with_derivatives().compute(times, x, c)
    np.testing.assert_allclose(y, op.compute(times, x, c)[0], rtol=1e-11)
    assert not status.any() and found[0, :3].all() and not found[0, 3:].any()


def test_where_there_is_none_the_operation_stays():
    doses = pd.DataFrame({"subject": range(N), "time": 2.0, "amt": 1.0, "cmt": "depot"})
    for op, _ in (operation(solver="cvodes"), operation(events=doses)):
        assert op.with_derivatives() is op
