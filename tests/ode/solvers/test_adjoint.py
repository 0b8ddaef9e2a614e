"""Gradients of wide systems by the adjoint: against differences of tight solutions, and against forward sensitivities."""

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode

from pymc_saem.nn import MLP
from pymc_saem.ode import solve_ivp
from pymc_saem.ode.ops.call import plan_of
from pymc_saem.ode.ops.solution_op import OdeGradient

PLAIN = Mode("py", "fast_compile")
NET = MLP(in_size=2, out_size=2, width_size=10, depth=2)
N = 11  # more than the lanes, and not a multiple
# Ragged: subject 4 has no rows, subject 2 rows at its start only, some times come twice, and the
# order is arbitrary.
T0 = np.where(np.arange(N) == 7, 0.5, 0.0)
SUBJECT = np.array([0, 3, 1, 1, 0, 2, 2, 5, 6, 7, 7, 8, 8, 9, 10, 10, 10, 3, 3])
TIMES = np.array(
    [1.0, 0.3, 2.0, 2.0, 0.4, 0.0, 0.0, 3.0, 1.7, 0.5, 1.1, 0.0, 2.2, 0.9, 2.5, 0.1, 1.3, 0.3, 2.9]
)


def rhs(t, y, p):
    out = NET(p.w, pt.stack([y.a, y.b]))
    return {"a": out[0] - p.k * y.a, "b": p.c * out[1] - p.fast * y.b + 0.1 * t}


@pytest.fixture
def values(rng):
    return {
        "w": rng.normal(scale=0.4, size=(N, NET.n_weights)),
        "k": np.array(0.7),
        "a0": rng.normal(size=N),
        "g": rng.normal(size=(len(TIMES), 2)),
    }


def build(solver="auto", tolerance=1e-10, fast=0.5, **options):
    """Function of w, k, a0, g: loss and its gradient; and the gradient's operation."""
    w = pt.tensor("w", dtype="float64", shape=(N, NET.n_weights))
    k, a0, g = pt.dscalar("k"), pt.tensor("a0", dtype="float64", shape=(N,)), pt.dmatrix("g")
    solution = solve_ivp(
        rhs, {"a": a0, "b": -0.5}, {"w": w, "k": k, "c": np.linspace(0.5, 1.5, N), "fast": np.broadcast_to(fast, N)},
        TIMES, SUBJECT, t0=T0, rtol=tolerance, atol=tolerance, solver=solver, **options,
    )  # fmt: skip
    used = pt.eq(solution.status, 0)[SUBJECT]
    loss = pt.sum(pt.switch(used, solution.a * g[:, 0] + solution.b * g[:, 1], 0.0))
    gradient = pt.grad(loss, [w, k, a0])
    (op,) = {
        v.owner.op
        for v in pytensor.graph.traversal.ancestors(gradient)
        if v.owner and _is_gradient(v.owner.op)
    }
    return pytensor.function([w, k, a0, g], [loss, *gradient, solution.status], mode=PLAIN), op


def _is_gradient(op):
    return isinstance(op, OdeGradient)


def uses_adjoint(op):
    from pymc_saem.ode.solvers import adjoint

    return plan_of(op, TIMES, True).task is adjoint.task()


@pytest.mark.slow
def test_agrees_with_differences(values, rng):
    f, op = build()
    assert uses_adjoint(op)
    _, gw, gk, ga, status = f(**values)
    assert (status == 0).all()
    direction = {
        "w": rng.normal(size=gw.shape),
        "k": np.array(rng.normal()),
        "a0": rng.normal(size=N),
    }
    h = 1e-5
    up, down = (
        f(**{n: v + sign * h * direction[n] if n in direction else v for n, v in values.items()})[0]
        for sign in (1, -1)
    )
    slope = (gw * direction["w"]).sum() + gk * direction["k"] + (ga * direction["a0"]).sum()
    np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=2e-7)
    assert (gw[4] == 0).all() and ga[4] == 0  # no rows
    assert (gw[2] == 0).all() and ga[2] != 0  # rows at the start


@pytest.mark.slow
def test_agrees_with_forward_sensitivities(values):
    results, ops = zip(*((f(**values), op) for f, op in (build(), build("tsit5"))), strict=True)
    assert uses_adjoint(ops[0]) and not uses_adjoint(ops[1])
    for adjoint, forward in zip(results[0][1:4], results[1][1:4], strict=True):
        np.testing.assert_allclose(adjoint, forward, rtol=1e-7, atol=1e-8)


def test_is_the_derivative_of_the_numerical_solution(values, rng):
    """At a coarse tolerance too, where the exact derivative is another one: steps stay as small changes are small."""
    f, _ = build(tolerance=1e-3)
    _, gw, *_ = f(**values)
    direction = rng.normal(size=gw.shape)
    # Step sizes change with the weights, but only within the tolerance of the solution.
    up, down = (f(**values | {"w": values["w"] + h * direction})[0] for h in (1e-6, -1e-6))
    np.testing.assert_allclose((gw * direction).sum(), (up - down) / 2e-6, rtol=2e-2)


def test_threads_and_neighbours_change_nothing(values):
    one, two = (build(n_threads=n)[0](**values) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_replicates(values, rng):
    f, op = build()
    x = np.concatenate([values["a0"][:, None], values["w"], np.full((N, 1), 0.7)], axis=1)
    x = x + 0.1 * rng.normal(size=(3, *x.shape))
    c = np.column_stack([np.full(N, -0.5), np.linspace(0.5, 1.5, N), np.full(N, 0.5)])
    together = op.compute(TIMES, x, c, values["g"])[0]
    for one, part in zip(x, together, strict=True):
        np.testing.assert_array_equal(op.compute(TIMES, one, c, values["g"])[0], part)
    several = op.compute(TIMES, x[0], c, np.stack([values["g"], 2.0 * values["g"]]))[0]
    np.testing.assert_allclose(several[1], 2.0 * several[0], rtol=1e-12)


def test_a_stiff_subject_is_left_to_the_implicit_solver(values):
    fast = np.where(np.arange(N) == 5, 1e5, 0.5)
    tolerance = 1e-7
    f, op = build(fast=fast, tolerance=tolerance)
    assert uses_adjoint(op)
    _, gw, _, ga, status = f(**values)
    assert (status == 0).all()
    g, _ = build("cvodes", fast=fast, tolerance=tolerance)
    _, ew, _, ea, _ = g(**values)
    np.testing.assert_array_equal(gw[5], ew[5])
    np.testing.assert_array_equal(ga[5], ea[5])
    others = np.arange(N) != 5
    np.testing.assert_allclose(gw[others], ew[others], rtol=1e-3, atol=1e-4)


def test_a_failure_stays_with_its_subject(values):
    f, _ = build()
    whole = f(**values)
    broken = values["w"].copy()
    broken[3] = np.nan
    _, gw, _, ga, status = f(**values | {"w": broken})
    assert status[3] != 0 and (np.delete(status, 3) == 0).all()
    assert np.isnan(gw[3]).all() and np.isnan(ga[3])
    np.testing.assert_array_equal(np.delete(gw, 3, axis=0), np.delete(whole[1], 3, axis=0))


def test_with_doses_sensitivities_go_forward(values):
    doses = pd.DataFrame({"subject": [0, 6], "time": 0.2, "amt": 1.0, "cmt": "a"})
    f, op = build(events=doses, tolerance=1e-8)
    assert not uses_adjoint(op)
    g, _ = build("cvodes", events=doses, tolerance=1e-8)
    for a, b in zip(f(**values)[1:4], g(**values)[1:4], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
