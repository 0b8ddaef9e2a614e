"""Marginal log-likelihoods by annealed importance sampling against exact ones."""

import numpy as np
import pytest

from pymc_saem.saem.likelihood.annealed import marginal_loglik
from tests.support.engines import engine_of
from tests.support.models import slopes, slopes_data, slopes_loglik, theophylline

#: -2LL of theophylline by adaptive quadrature at the exact ML estimates, which are given to four
#: digits.
PK = {"log_ka": 0.4593, "log_CL": 1.0117, "log_V": 3.4539, "sigma": 0.6959}
PK_OMEGA = {"omega_ka": 0.4050, "omega_CL": 0.0703, "omega_V": 0.0185}
PK_DEVIANCE = 360.701


def estimate(engine, values, seed, **options):
    """Marginal log-likelihood at natural parameter values."""
    theta = engine.points.theta_at(values)
    population = engine.maximizer.population(theta)
    return marginal_loglik(
        engine.densities, population, theta, np.random.default_rng(seed), **options
    )


@pytest.fixture(scope="module")
def linear():
    """Engine of a linear model with correlated random effects, parameters, and each subject's exact log-likelihood."""
    data = slopes_data(n_subjects=6, n_rows=4)
    beta, gamma, omega, sigma = np.array([0.5, -0.5]), 0.8, np.array([[1.0, 0.3], [0.3, 0.5]]), 0.2
    values = {
        "beta": beta,
        "gamma": gamma,
        "sigma": sigma,
        "chol": np.linalg.cholesky(omega)[np.tril_indices(2)],
    }
    exact = []
    for s in range(6):
        rows = data["subject"] == s
        alone = {
            "y": data["y"][rows],
            "t": data["t"][rows],
            "x": data["x"][[s]],
            "subject": np.zeros(4, int),
        }
        exact.append(slopes_loglik(beta, gamma, omega, sigma, alone))
    return engine_of(slopes(data)), values, np.array(exact)


def test_the_linear_model_within_the_stated_error(linear):
    engine, values, exact = linear
    found = estimate(engine, values, 1)
    assert np.all(np.abs(found.loglik - exact) < 4 * found.error)
    assert found.total == pytest.approx(exact.sum(), abs=4 * found.total_error)
    assert found.total_error < 0.15


@pytest.mark.slow
def test_the_stated_error_is_the_spread_of_estimates(linear):
    """Over seeds, (estimate - exact) / error is standard normal; its mean square lies in 0.5 to 2 (99.9 % of chi2(72) / 72)."""
    engine, values, exact = linear
    z = []
    for seed in range(12):
        found = estimate(engine, values, seed, n_groups=16, n_particles=15, n_steps=1)
        z.append((found.loglik - exact) / found.error)
    assert 0.5 < np.mean(np.square(z)) < 2.0


def test_without_resampling_it_is_annealed_importance_sampling(linear):
    engine, values, exact = linear
    found = estimate(engine, values, 2, n_groups=400, n_particles=1)
    assert found.groups.shape == (400, 6)
    assert np.all(np.abs(found.loglik - exact) < 4 * found.error) and np.all(found.error < 0.25)


@pytest.mark.parametrize("ode", [False, True])
@pytest.mark.slow
def test_theophylline_within_the_stated_error(ode):
    """The ODE is solved to 1e-2 on the way, where its likelihood is wrong by more than the error of the estimate."""
    options = {"rtol": 1e-2, "atol": 1e-2, "solver": "tsit5"} if ode else {}
    engine = engine_of(theophylline(ode=ode, **options), mode="NUMBA")
    values = PK | {name: variance**0.5 for name, variance in PK_OMEGA.items()}
    found = estimate(engine, values, 3, n_steps=2)
    assert found.total_error < 0.3
    assert found.total == pytest.approx(-PK_DEVIANCE / 2, abs=4 * found.total_error)
    if ode:
        assert (
            engine.densities.solved_tightly().solved_tightly() is engine.densities.solved_tightly()
        )


def test_same_seed_same_result(linear):
    engine, values, _ = linear
    first, second = (
        estimate(engine, values, 4, n_groups=2, n_particles=10, n_steps=1) for _ in range(2)
    )
    assert np.array_equal(first.groups, second.groups)


def test_an_impossible_subject_has_no_likelihood(linear):
    """No particle has a density, so the result is -inf, without an error and without a warning."""
    engine, values, _ = linear
    found = estimate(engine, values | {"sigma": 1e-200}, 5, n_groups=2, n_particles=5, n_steps=1)
    assert np.all(found.loglik == -np.inf) and np.all(np.isnan(found.error))
