"""Mixtures of t distributions for importance sampling: densities, draws, and what they find that one t distribution misses."""

from functools import partial

import numpy as np
import pymc as pm
import pytest
from scipy.special import logsumexp
from scipy.stats import laplace, norm
from scipy.stats import t as student

from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.likelihood.marginal import marginal_likelihood
from pymc_saem.saem.likelihood.proposals import OF_POPULATION, TMixture
from tests.support.engines import engine_of
from tests.support.estimated import conditional_at, theta_of


def two_clouds(rng, n=600):
    """Points of two subjects: one cloud, and two that are far apart and narrow."""
    near = rng.normal(1.0, 0.5, size=(n, 1))
    apart = rng.choice([-3.0, 3.0], size=(n, 1)) + 0.1 * rng.normal(size=(n, 1))
    return np.stack([near, apart], axis=1)


@pytest.fixture(scope="module")
def mixture():
    return TMixture.around(
        two_clouds(np.random.default_rng(1)), Population(np.zeros((2, 1)), np.array([[4.0]]))
    )


def test_a_mixture_is_a_density(mixture):
    grid = np.linspace(-400.0, 400.0, 400_001)
    logp = mixture.log_density(np.repeat(grid[:, None, None], 2, axis=1))
    np.testing.assert_allclose(
        np.exp(logsumexp(logp, axis=0)) * (grid[1] - grid[0]), 1.0, atol=2e-4
    )


def test_draws_come_from_the_density(mixture):
    phi, logp = mixture.draw(np.random.default_rng(2), 40_000)
    np.testing.assert_allclose(logp, mixture.log_density(phi))
    grid = np.linspace(-6.0, 6.0, 12_001)
    density = np.exp(mixture.log_density(np.repeat(grid[:, None, None], 2, axis=1)))
    for low, high in ((-6.0, -2.0), (-2.0, 0.5), (0.5, 2.0), (2.0, 6.0)):
        share = np.mean((phi[..., 0] > low) & (phi[..., 0] < high), axis=0)
        exact = np.sum(density[(grid > low) & (grid < high)], axis=0) * (grid[1] - grid[0])
        np.testing.assert_allclose(share, exact, atol=0.012)


def test_a_mixture_covers_modes_and_the_population(mixture):
    """Narrow modes get density near that of the draws, the gap between them little, and no point less than its share of p(phi)."""
    logp = mixture.log_density(np.array([[[1.0], [3.0]], [[1.0], [0.0]]]))
    assert logp[0, 1] - logp[1, 1] > 2.0
    far = np.full((1, 2, 1), 9.0)
    assert np.all(mixture.log_density(far) >= np.log(OF_POPULATION) + norm.logpdf(9.0, 0.0, 2.0))


def one_effect(mean, y, x):
    with pm.Model(coords={"subject": np.arange(len(y))}) as model:
        e = pm.Normal("e", pm.Flat("mu"), pm.HalfFlat("omega"), dims="subject")
        g = np.repeat(np.arange(len(y)), len(x))
        pm.Normal(
            "y", mean(e[g], np.tile(x, len(y)), pm.math), pm.HalfFlat("sigma"), observed=y.ravel()
        )
    return model


CURVES = {
    "two_modes": lambda e, x, xp: e**2 + 0.0 * x,
    "kink_and_shoulder": lambda e, x, xp: xp.minimum(e, x),
    "step": lambda e, x, xp: 1.0 / (1.0 + xp.exp(-20.0 * (e - x))),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_auto_is_within_its_errors(name, seed):
    """By a fine grid over the effect. With one t distribution and quadratures that agreed with themselves, errors were up to 12 of their own."""
    rng, x = np.random.default_rng([seed, len(name)]), np.linspace(-1.0, 2.0, 6)
    curve, values = CURVES[name], {"mu": 0.6, "omega": 1.0, "sigma": 0.3}
    e = rng.normal(0.6, 1.0, size=(20, 1))
    y = curve(e, x, np) + 0.3 * rng.normal(size=(20, 6))
    engine = engine_of(one_effect(curve, y, x), n_replicates=3)
    theta = theta_of(engine, values)
    grid = 0.6 + np.linspace(-9.0, 9.0, 6001)
    rows = norm.logpdf(y[None], curve(grid[:, None, None], x, np), 0.3).sum(-1)
    exact = logsumexp(
        rows + norm.logpdf(grid, 0.6, 1.0)[:, None] + np.log(grid[1] - grid[0]), axis=0
    )
    found = marginal_likelihood(engine, theta, conditional_at(engine, theta), rng)
    assert found.method != "annealed" and found.total_error < 0.2
    assert abs(found.total - exact.sum()) < 3.5 * found.total_error + 0.01
    assert np.all(np.abs(found.loglik - exact) < 5.0 * found.error + 0.01)


@pytest.mark.parametrize("method", ["auto", "importance", "annealed"])
@pytest.mark.parametrize("family", ["laplace", "student"])
def test_effects_that_are_not_gaussian(family, method):
    """By a fine grid. Annealing once took the rough scale of such effects for a second prior."""
    y = np.random.default_rng(4).normal(0.5, 1.0, size=(8, 3))
    with pm.Model(coords={"subject": np.arange(8)}) as model:
        mu, scale = pm.Flat("mu"), pm.HalfFlat("scale", initval=0.7)
        if family == "laplace":
            e = pm.Laplace("e", mu, scale, dims="subject")
        else:
            e = pm.StudentT("e", nu=3.0, mu=mu, sigma=scale, dims="subject")
        pm.Normal("y", e[np.repeat(np.arange(8), 3)], pm.HalfFlat("sigma"), observed=y.ravel())
    engine = engine_of(model, n_replicates=5)
    theta = theta_of(engine, {"mu": 0.3, "scale": 0.7, "sigma": 0.9})
    grid = np.linspace(-30.0, 30.0, 60_001)
    standard = laplace.logpdf if family == "laplace" else partial(student.logpdf, df=3.0)
    prior = standard((grid - 0.3) / 0.7) - np.log(0.7)
    rows = norm.logpdf(y[None], grid[:, None, None], 0.9).sum(-1)
    exact = logsumexp(rows + prior[:, None] + np.log(grid[1] - grid[0]), axis=0)
    conditional = conditional_at(engine, theta)
    found = marginal_likelihood(engine, theta, conditional, np.random.default_rng(5), method)
    assert np.all(np.abs(found.loglik - exact) < 4.0 * found.error + 0.002)
    assert found.total_error < 0.3
