"""Conditional draws against exact moments: calibrated effective sample sizes, disagreement seen, and budgets kept."""

from types import SimpleNamespace

import numpy as np
import pytest

from pymc_saem.results.thresholds import LARGEST_RHAT, LEAST_ESS
from pymc_saem.saem.conditional.draws import MAX_DRAWS, Draws, describe_individuals
from pymc_saem.saem.conditional.mixing import assess_draws
from tests.support.engines import engine_of
from tests.support.estimated import theta_of
from tests.support.models import slopes, slopes_data, theophylline

N_SUBJECTS = 100


@pytest.fixture(scope="module")
def linear():
    """Engine of random slopes of 100 subjects, theta, exact conditional means and covariances."""
    data = slopes_data(n_subjects=N_SUBJECTS, n_rows=3)
    engine = engine_of(slopes(data), n_replicates=4, mode="NUMBA", kernel={"coordinate": 1.0})
    omega, sigma = np.array([[1.0, 0.3], [0.3, 0.5]]), 0.4
    values = {"beta": [1.0, -0.5], "gamma": 0.8, "sigma": sigma}
    theta = theta_of(engine, values | {"chol": np.linalg.cholesky(omega)[np.tril_indices(2)]})
    prior = np.array([1.0, -0.5]) + 0.8 * data["x"][:, None] * np.array([1.0, 0.0])
    z = np.stack([np.ones((N_SUBJECTS, 3)), data["t"].reshape(N_SUBJECTS, 3)], axis=-1)
    covariance = np.linalg.inv(np.linalg.inv(omega) + np.einsum("sri,srj->sij", z, z) / sigma**2)
    residual = data["y"].reshape(N_SUBJECTS, 3) - np.einsum("sri,si->sr", z, prior)
    mean = prior + np.einsum("sij,srj,sr->si", covariance, z, residual) / sigma**2
    return engine, theta, mean, covariance


def started(linear, seed, n_replicates=4, n_transitions=60):
    """A frozen simulator, its population and theta, and exact draws to start from."""
    engine, theta, mean, covariance = linear
    population, rng = engine.maximizer.population(theta), np.random.default_rng(seed)
    simulator = engine.simulator(population, rng)
    simulator.n_transitions = n_transitions
    simulator.stop_tuning()
    simulator.kernels["coordinate"].scaling *= 0.4  # so short steps that draws are correlated
    noise = rng.standard_normal((n_replicates, *mean.shape))
    phi = mean + np.einsum("sij,ksj->ksi", np.linalg.cholesky(covariance), noise)
    return simulator, population, theta, phi


@pytest.mark.slow
def test_effective_sample_sizes_are_calibrated(linear):
    """Errors of means and standard deviations, in the units that the effective sample sizes promise, have variance 1.

    300 subjects in three seeds, and two correlated effects each: 4 standard errors of a mean square
    of 300 are 0.33, 0.4 leaves room for the error of the sizes themselves.
    """
    _, _, mean, covariance = linear
    sd = np.sqrt(np.einsum("sii->si", covariance))
    of_means, of_sds, sizes = [], [], []
    for seed in range(3):
        found = describe_individuals(*started(linear, seed), 250)
        sizes.append(found.convergence.ess)
        of_means.append((found.mean - mean) / sd * np.sqrt(found.convergence.ess))
        of_sds.append(np.log(found.sd / sd) * np.sqrt(2.0 * found.convergence.ess_sd))
    # the draws are correlated, or there would be nothing to see
    assert np.median(sizes) < 0.7 * 1000
    assert np.mean(np.square(of_means)) == pytest.approx(1.0, abs=0.4)
    assert np.mean(np.square(of_sds)) == pytest.approx(1.0, abs=0.4)


def test_draws_that_suffice_are_those_of_a_plain_loop(linear):
    """And they are the same with and without a budget."""
    simulator, population, theta, phi = started(linear, 5)
    phi, _, _ = simulator(population, theta, phi)
    expected = []
    for _ in range(200):
        phi, _, _ = simulator(population, theta, phi, 10)
        expected.append(phi)
    for budget in (0.0, 1e9):
        found = describe_individuals(*started(linear, 5), 200, budget)
        assert np.array_equal(found.draws, np.stack(expected, axis=1))
        assert found.convergence.is_enough.all()
        assert found.n_solves == 4 * N_SUBJECTS * (61 + 200 * 11)


@pytest.mark.slow
def test_too_few_draws_go_on_until_they_suffice(linear):
    found = describe_individuals(*started(linear, 6), 20, 1e9)
    again = describe_individuals(*started(linear, 6), 20, 1e9)
    before = describe_individuals(*started(linear, 6), 20)
    assert not before.convergence.is_enough.any() and before.draws.shape[1] == 20
    assert found.convergence.is_enough.all() and 20 < found.draws.shape[1] <= MAX_DRAWS
    assert np.array_equal(found.draws[:, :20], before.draws) and np.array_equal(
        found.draws, again.draws
    )
    assert (found.convergence.rhat < LARGEST_RHAT).all() and (
        found.convergence.ess >= LEAST_ESS
    ).all()


class Slow:
    """A simulator whose chains are AR(1) with a given correlation after one transition."""

    def __init__(self, correlation, n_subjects=3, n_transitions=80):
        effect = SimpleNamespace(is_network=False, columns=slice(0, 1))
        self.mixed = SimpleNamespace(
            n_subjects=n_subjects, is_used=np.ones((n_subjects, 1), bool), random_effects=[effect]
        )
        self.rng, self.weight = np.random.default_rng(4), None
        self.correlation, self.n_transitions, self.n_evaluations = correlation, n_transitions, 0

    def __call__(self, population, theta, phi, n_transitions=None):
        n = n_transitions or self.n_transitions
        rho = self.correlation**n
        phi = rho * phi + np.sqrt(1.0 - rho**2) * self.rng.standard_normal(phi.shape)
        self.n_evaluations += n + 1
        logp = -0.5 * phi[..., 0] ** 2
        return phi, None, {"subject_logp": logp, "subject_loglik": logp}


def drawn_by(simulator, n_draws, max_solves):
    """The draws, and what is known of them."""
    draws = Draws(
        simulator, None, None, simulator.rng.standard_normal((4, simulator.mixed.n_subjects, 1))
    )
    return draws, draws.until_enough(n_draws, max_solves)


@pytest.mark.parametrize("max_solves", [5_000, 100_000, 333_333, 2_000_000])
@pytest.mark.parametrize("n_draws", [5, 250])
def test_the_budget_is_kept_and_used(n_draws, max_solves):
    """About 100 of 4 chains need 200,000 transitions: none of the smaller budgets will do, so all of them is used."""
    draws, found = drawn_by(Slow(0.9995), n_draws, max_solves)
    first = 12 * (81 + 11 * n_draws)
    assert draws.n_solves == 12 * draws.simulator.n_evaluations <= max(max_solves, first)
    assert draws.n_draws <= max(2 * n_draws, MAX_DRAWS) and draws.n_draws >= n_draws
    assert draws.loglik.shape == draws.subject_logp.shape == draws.phi.shape[:3]
    assert np.allclose(draws.loglik, -0.5 * draws.phi[..., 0] ** 2)
    assert found.worst_rhat.shape == (3,)


def test_longer_chains_are_thinned_and_not_larger():
    draws, found = drawn_by(Slow(0.999), 250, 1e8)
    assert found.is_enough.all()
    assert 250 <= draws.n_draws <= MAX_DRAWS and draws.spacing > 10 and draws.spacing % 10 == 0
    # all of the chain, not its last part
    assert draws.n_solves > 12 * draws.spacing * draws.n_draws
    lag = np.mean(draws.phi[:, 1:] * draws.phi[:, :-1]) / np.mean(draws.phi**2)
    assert lag == pytest.approx(0.999**draws.spacing, abs=0.1)  # evenly spaced, across the rounds


def test_nothing_is_spent_on_a_hopeless_case():
    draws, found = drawn_by(Slow(0.999999), 250, 100_000)
    assert not found.is_enough.any() and draws.n_draws == 250


def independent_draws(n_subjects=6, n_phi=2, n_chains=4, n_draws=250):
    return np.random.default_rng(8).standard_normal((n_chains, n_draws, n_subjects, n_phi))


@pytest.fixture
def mixed():
    effects = [SimpleNamespace(is_network=False, columns=slice(k, k + 1)) for k in range(2)]
    return SimpleNamespace(n_subjects=6, is_used=np.ones((6, 2), bool), random_effects=effects)


@pytest.mark.parametrize("change", ["shift", "scale", "stuck", "trend"])
def test_disagreement_is_seen_where_it_is(mixed, change):
    draws = independent_draws()
    if change == "shift":
        draws[0, :, 3, 1] += 1.0
    elif change == "scale":
        draws[0, :, 3, 1] *= 3.0  # same mean: only folded draws show it
    elif change == "stuck":
        draws[:, :, 3, 1] = 0.7
    else:
        draws[:, :, 3, 1] += np.linspace(0.0, 2.0, 250)
    found = assess_draws(mixed, draws, draws[..., 0])
    assert list(np.flatnonzero(~found.is_enough)) == [3]
    assert not found.rhat[3, 1] < LARGEST_RHAT and found.rhat[3, 0] < LARGEST_RHAT
    assert np.isnan(found.worst_rhat[3]) == (change == "stuck")


def test_weights_of_networks_are_judged_by_the_log_likelihood(mixed):
    draws = independent_draws()
    draws[0, :, :, 1] += 3.0
    loglik = independent_draws()[..., 0]
    loglik[0, :, 2] += 3.0
    assert not assess_draws(mixed, draws, loglik).is_enough.any()
    mixed.random_effects[1].is_network = True
    found = assess_draws(mixed, draws, loglik)
    assert (
        list(np.flatnonzero(~found.is_enough)) == [2]
        and found.worst_rhat[2] == found.loglik_rhat[2]
    )
    assert (found.rhat[:, 1] > LARGEST_RHAT).all()


def test_units_that_a_subject_lacks_are_not_judged(mixed):
    draws = independent_draws()
    draws[0, :, 2, 1] += 3.0
    mixed.is_used[2, 1] = False
    found = assess_draws(mixed, draws, draws[..., 0])
    assert found.is_enough.all() and np.isnan(found.rhat[2, 1]) and np.isnan(found.ess[2, 1])


def test_few_draws_and_failed_subjects_are_not_enough(mixed):
    draws = independent_draws(n_draws=7)
    found = assess_draws(mixed, draws, draws[..., 0])
    assert np.isnan(found.worst_rhat).all() and not found.is_enough.any()
    draws = independent_draws()
    loglik = draws[..., 0].copy()
    loglik[:, :, 4] = -np.inf  # no solve succeeds
    found = assess_draws(mixed, draws, loglik)
    assert np.isnan(found.loglik_rhat[4]) and np.isfinite(found.loglik_rhat[:4]).all()
    mixed = SimpleNamespace(**vars(mixed))
    mixed.random_effects = [SimpleNamespace(is_network=True, columns=slice(0, 2))]
    assert list(np.flatnonzero(~assess_draws(mixed, draws, loglik).is_enough)) == [4]


@pytest.mark.parametrize("tolerance", [0.1, 1e-6])
@pytest.mark.slow
def test_the_error_of_coarse_solves_is_that_of_the_formula(tolerance):
    """One compartment, solved coarsely and by its formula, at the draws."""
    exact = engine_of(theophylline(), n_replicates=4)
    engine = engine_of(
        theophylline(True, rtol=tolerance, atol=tolerance, solver="tsit5"), n_replicates=4
    )
    values = {
        "log_ka": 0.46,
        "log_V": 3.45,
        "log_CL": 1.01,
        "omega_ka": 0.64,
        "omega_V": 0.14,
        "omega_CL": 0.27,
        "sigma": 0.1,
    }
    theta = theta_of(engine, values)
    population = engine.maximizer.population(theta)
    simulator = engine.simulator(population, np.random.default_rng(2))
    found = describe_individuals(
        simulator, population, theta, np.repeat(population.mean[None], 4, axis=0), 12
    )
    if tolerance == 1e-6:  # nothing to compare with
        assert not found.solver_error.any()
        return
    phi = np.concatenate(np.swapaxes(found.draws, 0, 1))
    change = engine.densities.likelihood(phi, theta)[0] - exact.densities.likelihood(phi, theta)[0]
    assert np.allclose(found.solver_error, np.median(np.abs(change), axis=0), rtol=0.02, atol=0.01)
    assert found.solver_error.max() > 1.0
