"""Log likelihood and gradient from one solve: the density of the E-step, and the derivative of it."""

import numpy as np
import pytest

from pymc_saem.model.read import read_model
from pymc_saem.saem.core.schedule import Schedule
from pymc_saem.saem.engine import Engine
from tests.support.models import slopes, slopes_data, theophylline

CASES = {
    "formula": lambda: theophylline(),
    "rows by index": lambda: slopes(slopes_data(n_subjects=5, n_rows=3)),
    "tsit5": lambda: theophylline(ode=True, solver="tsit5", rtol=1e-8, atol=1e-8),
    "linear": lambda: theophylline(ode=True, solver="linear"),
    "two solves: doses": lambda: theophylline(
        ode=True, doses=True, solver="tsit5", rtol=1e-8, atol=1e-8
    ),
    "two solves: cvodes": lambda: theophylline(ode=True, solver="cvodes", rtol=1e-8, atol=1e-8),
}


@pytest.mark.parametrize("name", CASES)
def test_derivative_is_that_of_the_likelihood(name):
    options = {
        "objective": "ml",
        "fixed": {},
        "n_transitions": 2,
        "n_replicates": 2,
        "kernel": "auto",
        "mode": "FAST_COMPILE",
    }
    engine = Engine.build(read_model(CASES[name]()), Schedule(1), **options)
    densities, theta = engine.densities, engine.points.theta_of(engine.points.template)
    population = engine.maximizer.population(theta)
    phi = population.mean + 0.1 * np.random.default_rng(0).standard_normal(
        (2, *population.mean.shape)
    )
    loglik, residual, d_phi, *status = densities.derivative(phi, theta)
    expected, expected_residual, _ = densities.likelihood(phi, theta)
    np.testing.assert_allclose(loglik, expected, rtol=1e-9)
    np.testing.assert_allclose(residual, expected_residual, rtol=1e-9)
    assert len(status) == ("formula" not in name and "index" not in name)
    solves = [
        n.op
        for n in densities._function("derivative").maker.fgraph.apply_nodes
        if hasattr(n.op, "compiled_calls")
    ]
    assert len(solves) == (2 if "two" in name else len(status))
    for k in range(phi.shape[-1]):
        step = 1e-4 * np.eye(phi.shape[-1])[k]
        up, down = (densities.likelihood(phi + s, theta)[0] for s in (step, -step))
        np.testing.assert_allclose(d_phi[..., k], (up - down) / 2e-4, rtol=2e-3, atol=2e-2)
