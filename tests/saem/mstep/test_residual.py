"""Every residual model: its log density is that of the data, its maximizer the maximum of it, its precision the root of its curvature."""

from functools import cache

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.read import read_model
from pymc_saem.saem.core.schedule import Schedule
from pymc_saem.saem.engine import Engine

N, M = 6, 4
SUBJECT, X = np.repeat(np.arange(N), M), np.tile(np.linspace(0.5, 2.0, M), N)
RNG = np.random.default_rng(0)
Y = 2.0 + 0.3 * RNG.normal(size=N)[SUBJECT] + X + 0.4 * RNG.normal(size=N * M)

# What writes the outcomes with mean f, and the power of the parameter x in their standard
# deviation.
MODELS = {
    "additive": (lambda f: pm.Normal("y", f, pm.HalfNormal("x", 2.0), observed=Y), 1.0),
    "with another prior": (
        lambda f: pm.Normal("y", f, pm.LogNormal("x", 0.0, 1.0), observed=Y),
        1.0,
    ),
    "proportional": (
        lambda f: pm.Normal("y", f, pm.HalfNormal("x", 2.0) * pt.abs(f), observed=Y),
        1.0,
    ),
    "variance": (lambda f: pm.Normal("y", f, pt.sqrt(pm.HalfNormal("x", 2.0)), observed=Y), 0.5),
    "precision": (lambda f: pm.Normal("y", f, tau=pm.Gamma("x", 2.0, 1.0), observed=Y), -0.5),
    "lognormal": (
        lambda f: pm.LogNormal("y", pt.log(pt.abs(f)), pm.HalfNormal("x", 2.0), observed=Y),
        1.0,
    ),
    "of two outcomes": (
        lambda f: [
            pm.Normal("y", f, sd := pm.HalfNormal("x", 2.0), observed=Y),
            pm.Normal("late", 2 * f[::2], 3 * sd, observed=2 * Y[::2] + 1),
        ],
        1.0,
    ),
}


@cache
def built(name, objective="ml"):
    write, power = MODELS[name]
    with pm.Model(coords={"subject": range(N)}) as model:
        b = pm.Normal("b", pm.Normal("mu", 0, 5), pm.HalfNormal("omega", 2), dims="subject")
        write(b[SUBJECT] + X)
    options = {
        "objective": objective,
        "fixed": {},
        "n_transitions": 4,
        "n_replicates": 1,
        "kernel": None,
    }
    engine = Engine.build(
        read_model(model), Schedule(1, annealing=0.0), mode=INTERPRETED, **options
    )
    (residual,) = engine.rules.residuals
    assert residual.power == pytest.approx(power) and residual.parameter.name == "x"
    return engine, residual


def at(engine, residual, theta, u):
    """Log likelihood (subject,) and statistics (subject, residual) of fixed random effects at an unconstrained value of x."""
    theta = theta.copy()
    theta[residual.parameter.columns] = u
    phi = np.random.default_rng(1).normal(2.0, 0.3, size=(1, N, 1))
    loglik, statistics, *_ = engine.densities.likelihood(phi, theta)
    return (
        loglik[0],
        statistics[0],
        float(engine.points.natural(residual.parameter, np.array([u]))[0]),
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_log_density_is_that_of_the_data(name):
    """By subject, up to a constant, wherever x is; the statistic does not depend on x."""
    engine, residual = built(name)
    theta = engine.points.theta_of(engine.points.template)
    rows = residual.rows(engine.mixed)
    before, statistics, x = at(engine, residual, theta, 0.0)
    assert x == residual.unit and residual.count(engine.mixed) == rows.sum()
    for u in (-1.3, 0.8):
        after, moved, other = at(engine, residual, theta, u)
        np.testing.assert_allclose(moved, statistics, rtol=1e-10)
        squares = residual.squares(statistics)
        change = residual.log_density(rows, squares, other) - residual.log_density(rows, squares, x)
        np.testing.assert_allclose(after - before, change, rtol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_maximum_and_curvature(name):
    engine, residual = built(name)
    statistics = at(engine, residual, engine.points.theta_of(engine.points.template), 0.0)[1].sum(
        axis=0
    )
    count, squares = residual.count(engine.mixed), residual.squares(statistics)
    best = float(residual.maximum(count, squares))

    def f(t):
        return residual.log_density(count, squares, best * np.exp(t))

    h = 1e-3
    assert abs(f(h) - f(-h)) / (2 * h) < 1e-4 * count and f(0.0) > max(f(h), f(-h), f(1.0), f(-1.0))
    curvature = -(f(h) - 2 * f(0.0) + f(-h)) / h**2
    assert residual.precision(count) == pytest.approx(np.sqrt(curvature), rel=1e-4)
    assert residual.of_variance(residual.variance(best)) == pytest.approx(best)


@pytest.mark.parametrize("name", MODELS)
def test_the_maximum_with_a_prior(name):
    engine, residual = built(name, "map")
    statistics = at(engine, residual, engine.points.theta_of(engine.points.template), 0.0)[1].sum(
        axis=0
    )
    count, squares = residual.count(engine.mixed), residual.squares(statistics)
    prior = engine.maximizer.priors["x"].natural
    (best,) = residual.penalized_maximum(
        np.array([count]), np.array([squares]), np.array([1.0]), prior
    )

    def f(t):
        x = best * np.exp(t)
        return residual.log_density(count, squares, x) + prior(np.array([x]))[0][0]

    assert abs(f(1e-3) - f(-1e-3)) / 2e-3 < 1e-4 * count and f(0.0) > max(
        f(t) for t in (-1.0, -1e-3, 1e-3, 1.0)
    )
    assert not np.isclose(best, residual.maximum(count, squares), rtol=1e-6)


@pytest.mark.parametrize("name", ["additive", "variance", "precision"])
def test_a_drift_is_judged_by_the_standard_error(name):
    """Of log x, whatever the power; that of a precision was negative, and so as good as 0."""
    engine, residual = built(name)
    theta = engine.points.theta_of(engine.points.template)
    expected = 1.0 / (abs(residual.power) * np.sqrt(2.0 * residual.count(engine.mixed)))
    assert engine.maximizer.scales(theta)[residual.parameter.columns] == pytest.approx(
        expected, rel=1e-6
    )
