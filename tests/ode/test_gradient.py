"""Gradients: against finite differences, for what they exist, and errors where they do not."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.gradient import NullTypeGradError
from pytensor.graph.replace import vectorize_graph

from pymc_saem.ode import solve_ivp
from tests.support.systems import DOSE, RATES, START, SUBJECT, TIMES, N, oral, oral_scipy

WEIGHTS = np.random.default_rng(3).normal(size=TIMES.size)


def solve(y0, params):
    return solve_ivp(oral, y0, params, TIMES, SUBJECT, t0=START, rtol=1e-9, atol=1e-9)


def numeric(cost, value, step=1e-5):
    out = np.empty_like(value)
    for index in np.ndindex(value.shape):
        up, down = value.copy(), value.copy()
        up[index] += step
        down[index] -= step
        out[index] = (cost(up) - cost(down)) / (2 * step)
    return out


@pytest.mark.slow
def test_gradient_by_parameters_initial_values_and_shared_scalars():
    rates, dose = pt.matrix("rates", shape=(N, 2)), pt.vector("dose", shape=(N,))
    scale, base = pt.scalar("scale"), pt.scalar("base")
    solution = solve({"depot": dose, "center": base}, {"scale": scale, "rates": rates})
    wrt = [rates, dose, scale, base]
    cost = ((solution.center + 0.5 * solution.depot) * WEIGHTS).sum()
    got = pytensor.function(wrt, pytensor.grad(cost, wrt))(RATES, DOSE, 1.3, 0.2)

    def reference(**changed):
        y = oral_scipy(SUBJECT, TIMES, **changed)
        return ((y[:, 1] + 0.5 * y[:, 0]) * WEIGHTS).sum()

    values = {"rates": RATES, "dose": DOSE, "scale": np.array(1.3), "base": np.array(0.2)}
    for name, gradient in zip(values, got, strict=True):
        expected = numeric(lambda v, name=name: reference(**{name: v}), values[name])
        assert gradient == pytest.approx(expected, rel=1e-5, abs=1e-6), name


def test_constants_get_no_sensitivities():
    rates = pt.matrix("rates", shape=(N, 2))
    with pm.Model():
        scale = pm.Data("scale", 1.3)
        solution = solve({"depot": DOSE, "center": 0.2}, {"scale": scale, "rates": rates})
    op = solution.status.owner.op
    assert op.n_x == 2 and op.n_c == 3 and op.y0_index == ()


@pytest.mark.slow
def test_batched_gradient_equals_loop():
    rates = pt.matrix("rates", shape=(N, 2))
    solution = solve({"depot": DOSE, "center": 0.2}, {"scale": 1.3, "rates": rates})
    gradient = pytensor.grad((solution.center * WEIGHTS).sum(), rates)
    one = pytensor.function([rates], gradient)
    batch = pt.tensor3("batch", shape=(None, N, 2))
    many = pytensor.function([batch], vectorize_graph(gradient, {rates: batch}))
    values = RATES * np.random.default_rng(0).uniform(0.8, 1.2, (3, N, 2))
    np.testing.assert_array_equal(many(values), [one(v) for v in values])


def test_missing_gradients_are_errors_not_zero():
    rates, times = pt.matrix("rates", shape=(N, 2)), pt.vector("times", shape=TIMES.shape)
    scale = pytensor.shared(np.array(1.3), name="scale")
    solution = solve_ivp(
        oral,
        {"depot": DOSE, "center": 0.2},
        {"scale": scale, "rates": rates},
        times,
        SUBJECT,
        t0=START,
    )
    cost = solution.center.sum()
    with pytest.raises(NullTypeGradError, match="observation times"):
        pytensor.grad(cost, times)
    with pytest.raises(NullTypeGradError, match="was data"):
        pytensor.grad(cost, scale)
    gradient = pytensor.grad(cost, rates)
    with pytest.raises(NullTypeGradError, match="second derivatives"):
        pytensor.grad(gradient.sum(), rates)


@pytest.mark.slow
def test_model_logp_has_gradients():
    with pm.Model(coords={"subject": range(N), "rate": ["ka", "ke"]}) as model:
        rates = pm.LogNormal("rates", -1.0, 0.5, dims=("subject", "rate"))
        solution = solve({"depot": DOSE, "center": 0.2}, {"scale": 1.3, "rates": rates})
        pm.Normal("y", solution.center, 0.1, observed=np.ones(TIMES.size))
    point = model.initial_point()
    gradient = model.compile_dlogp()(point)
    logp = model.compile_logp()

    def at(flat):
        return logp({"rates_log__": flat.reshape(N, 2)})

    expected = numeric(at, point["rates_log__"].ravel())
    assert gradient == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("solver", ["tsit5", "cvodes"])
def test_a_gradient_that_fails_says_why_and_once(solver, caplog):
    rates = pt.matrix("rates", shape=(N, 2))
    y0, params = {"depot": DOSE, "center": 0.2}, {"scale": 1.3, "rates": rates}
    solution = solve_ivp(oral, y0, params, TIMES, SUBJECT, t0=START, solver=solver, max_steps=3)
    gradient = pytensor.function([rates], pytensor.grad(solution.center.sum(), rates))
    for _ in range(2):
        assert np.isnan(gradient(RATES)).any()
    (record,) = caplog.records
    assert "MAX_STEPS" in record.message and "raise max_steps" in record.message
