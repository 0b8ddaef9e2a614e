"""Kernels leave the conditional distribution invariant; replicates do not collapse."""

import numpy as np
import pytest

from pymc_saem.saem.conditional.modes import find_modes
from pymc_saem.saem.estep import walk_mala
from pymc_saem.saem.estep.fsaem import Independence
from pymc_saem.saem.estep.random_walk import SubjectMetropolis
from pymc_saem.saem.estep.walk import add_all, decide
from tests.support.engines import engine_of
from tests.support.models import (
    exact_loglik,
    random_intercept,
    random_intercept_data,
    slopes,
    slopes_data,
    theophylline,
)


@pytest.fixture(scope="module")
def linear():
    """Engine of the slopes model, theta, and the exact conditional moments."""
    return linear_gaussian()


def linear_gaussian(**options):
    data = slopes_data(n_subjects=6, n_rows=3)
    engine = engine_of(slopes(data, **options))
    beta, gamma, omega, sigma = np.array([1.0, -0.5]), 0.8, np.array([[1.0, 0.3], [0.3, 0.5]]), 0.4
    values = {
        "beta": beta,
        "gamma": gamma,
        "sigma": sigma,
        "chol": np.linalg.cholesky(omega)[np.tril_indices(2)],
    }
    theta = engine.points.theta_at(values)
    means, covs = [], []
    for s in range(6):
        rows = data["subject"] == s
        z = np.column_stack([np.ones(rows.sum()), data["t"][rows]])
        mean = beta + gamma * data["x"][s] * np.array([1.0, 0.0])
        cov = np.linalg.inv(np.linalg.inv(omega) + z.T @ z / sigma**2)
        means.append(mean + cov @ z.T @ (data["y"][rows] - z @ mean) / sigma**2)
        covs.append(cov)
    return engine, theta, np.array(means), np.array(covs)


@pytest.mark.parametrize("kernel", ["prior", "coordinate", "block", "mala", "independence"])
@pytest.mark.slow
def test_invariance(linear, kernel):
    """Started from exact draws, every kernel keeps their distribution (within 5 Monte-Carlo standard errors).

    Starting in the distribution makes the test independent of how fast a kernel mixes: only a wrong
    acceptance rule can move the moments.
    """
    check_invariance(linear, kernel)


@pytest.mark.parametrize("kernel", ["mala", "independence"])
@pytest.mark.slow
def test_invariance_with_an_ode(kernel):
    check_invariance(linear_gaussian(ode=True), kernel)


def check_invariance(target, kernel):
    engine, theta, means, covs = target
    rng = np.random.default_rng(5)
    roots = np.linalg.cholesky(covs)
    n = 4000
    phi = means + np.einsum("sij,rsj->rsi", roots, rng.standard_normal((n, *means.shape)))
    population = engine.maximizer.population(theta)
    simulator = engine.simulator(population, rng)
    simulator.shares, simulator.n_transitions = {kernel: 1.0}, 25
    simulator.stop_tuning()
    moved, _, report = simulator(population, theta, phi)
    assert report[f"accept_{kernel}"] > {"mala": 0.3, "independence": 0.8}.get(
        kernel, 0.02
    ) and np.any(moved != phi)
    sd = np.sqrt(np.diagonal(covs, axis1=1, axis2=2))
    assert np.all(np.abs(moved.mean(0) - means) < 5 * sd / np.sqrt(n))
    found = np.einsum("rsi,rsj->sij", moved - means, moved - means) / n
    error = np.sqrt((covs**2 + sd[:, :, None] ** 2 * sd[:, None, :] ** 2) / n)
    assert np.all(np.abs(found - covs) < 5 * error)


@pytest.mark.parametrize("kernel", ["mala", "independence"])
@pytest.mark.slow
def test_a_wrong_acceptance_rule_is_found(linear, kernel, monkeypatch):
    """The test above notices when the densities of the proposals are left out."""
    if kernel == "mala":
        decide = walk_mala.decide_langevin

        def without_way_back(*args):
            scaling = np.zeros_like(args[11])
            return decide(*args[:11], scaling, *args[12:])

        monkeypatch.setattr(walk_mala, "decide_langevin", without_way_back)
    else:
        monkeypatch.setattr(Independence, "log_density", lambda self, phi: np.zeros(phi.shape[:-1]))
    with pytest.raises(AssertionError):
        check_invariance(linear, kernel)


@pytest.mark.slow
def test_langevin_adapts_to_its_target_and_freezes(linear):
    engine, theta, _, _ = linear
    population = engine.maximizer.population(theta)
    simulator = engine.simulator(population, np.random.default_rng(1))
    simulator.shares = {"block": 0.5, "mala": 0.5}
    phi, rates = np.repeat(population.mean[None], 40, axis=0), []
    for _ in range(40):
        phi, _, report = simulator(population, theta, phi)
        rates.append(report["accept_mala"])
    assert np.isclose(np.mean(rates[-10:]), 0.57, atol=0.05)
    simulator.stop_tuning()
    before = simulator.adapted["mala"]["scaling"]
    simulator(population, theta, phi)
    assert (
        np.array_equal(before, simulator.adapted["mala"]["scaling"]) and np.unique(before).size == 6
    )


def test_adaptation_reaches_the_target_and_freezes(linear):
    engine, theta, _, _ = linear
    rng = np.random.default_rng(1)
    population = engine.maximizer.population(theta)
    simulator = engine.simulator(population, rng)
    phi = np.repeat(population.mean[None], 40, axis=0)
    for _ in range(40):
        phi, _, report = simulator(population, theta, phi)
    assert 0.3 < report["accept_coordinate"] < 0.5 and 0.3 < report["accept_block"] < 0.5
    simulator.stop_tuning()
    before = simulator.adapted["walks"]["coordinate"]["scaling"]
    simulator(population, theta, phi)
    assert np.array_equal(before, simulator.adapted["walks"]["coordinate"]["scaling"])


@pytest.mark.slow
def test_the_prior_density_equals_that_of_the_pymc_graph(linear):
    """The E-step computes the Gaussian density itself; it must be the model's own."""
    engine, theta, means, _ = linear
    phi = means + 0.1
    point = engine.points.to_point(theta, phi, engine.points.template)
    model = engine.mixed.model
    expected = model.compile_logp(vars=[model["b"]], jacobian=False)(point)
    assert np.isclose(
        engine.maximizer.population(theta).log_density(phi).sum(), expected, rtol=1e-10
    )
    loglik, _, _ = engine.densities.likelihood(phi[None], theta)
    assert np.isclose(loglik.sum(), model.compile_logp(vars=[model["y"]])(point), rtol=1e-10)


def test_modes_of_gaussian_conditionals_are_their_means(linear):
    engine, theta, means, _ = linear
    population = engine.maximizer.population(theta)
    starts = population.mean + np.random.default_rng(0).normal(size=(3, *means.shape))
    mode, logp = find_modes(engine.densities, population, theta, starts)
    assert np.allclose(mode, means, atol=1e-4)
    at_mode = engine.densities.likelihood(means[None], theta)[0][0] + population.log_density(means)
    assert np.allclose(logp, at_mode, atol=1e-6)


@pytest.mark.slow
def test_replicates_do_not_collapse_omega():
    """With 1 and with 30 replicates the same omega: averaging draws before squaring would shrink it."""
    y, subject = random_intercept_data()
    estimates = []
    for n_replicates in (1, 30):
        engine = engine_of(random_intercept(), n_replicates=n_replicates)
        state, simulator, _ = engine.begin(engine.points.template, np.random.default_rng(2), 1)
        maximizer = engine.maximizer

        def simulate(theta, phi, simulator=simulator, maximizer=maximizer):
            return simulator(maximizer.population(theta), theta, phi)

        from pymc_saem.saem.core.algorithm import iterate

        for k in range(150):
            if k == 40:
                simulator.stop_tuning()
            state, _ = iterate(
                state, simulate, maximizer, maximizer.schedule.step_size(max(0, k - 39))
            )
        estimates.append({n: v.item() for n, v in engine.points.natural_theta(state.theta).items()})
    for found in estimates:
        assert np.isclose(found["omega"], 0.80081, rtol=0.02)
        assert (
            exact_loglik(found["a"], found["omega"], found["sigma"], y, subject) > -26.386860 - 0.01
        )


def test_acceptance_rejects_nan_and_takes_every_improvement():
    new = np.array([[np.nan, 0.0, 3.0, -np.inf, -1.0, -1.0]])
    log_uniform = np.array([[-1.0, -1e-9, -1e-9, -50.0, -0.5, -1.5]])
    phi, zeros = np.zeros((1, 6, 1)), np.zeros((1, 6))
    empty, total, square, held = (
        np.zeros((1, 6, 0)),
        np.zeros((1, 6, 1)),
        np.zeros((1, 1)),
        np.full((1, 6), 2),
    )
    weight = np.array([1.0, 2.0, 0.0, 1.0, 1.0, 0.5])
    bookkeeping = (held, weight, total, square, empty)
    rate = decide(
        phi,
        zeros.copy(),
        zeros.copy(),
        empty,
        phi + 1,
        new,
        zeros,
        empty,
        log_uniform,
        False,
        *bookkeeping,
    )
    assert phi.ravel().tolist() == [0, 1, 1, 0, 0, 1] and rate == 0.5
    add_all(phi, empty, held, weight, total, square, empty)
    # Two visits to 0 before, one of the new state after; the sums have every visit once, the sum
    # over subjects by weight.
    assert np.array_equal(total, phi) and square.item() == 2.5 and not held.any()


def test_subject_metropolis_is_pymc_metropolis(linear):
    import pymc as pm

    engine = linear[0]
    kernel = engine.simulator(
        engine.maximizer.population(linear[1]), np.random.default_rng(0)
    ).kernels["block"]
    assert isinstance(kernel, SubjectMetropolis) and isinstance(kernel, pm.Metropolis)
    state = kernel.sampling_state
    kernel.scaling = kernel.scaling * 2
    kernel.sampling_state = state
    assert np.array_equal(kernel.scaling, state.scaling)
    with pytest.raises(TypeError, match="pass pymc_saem.SAEM"):
        kernel.step({})


@pytest.mark.parametrize("kernel", ["auto", {"block": 0.5, "mala": 0.3, "independence": 0.2}])
@pytest.mark.slow
def test_compiled_and_interpreted_e_steps_agree(kernel):
    """One loop in machine code, one in Python, from the same random numbers: states, statistics, failed solves."""
    results = {}
    for mode in ("NUMBA", "FAST_COMPILE"):
        engine = engine_of(
            theophylline(ode=True, rtol=1e-4, atol=1e-4, max_steps=40, solver="tsit5"),
            n_replicates=3,
            mode=mode,
            kernel=kernel,
        )
        theta = engine.points.theta_of(engine.points.template)
        population = engine.maximizer.population(theta)
        simulator = engine.simulator(population, np.random.default_rng(4))
        phi = np.repeat(population.mean[None], 3, axis=0)
        for _ in range(2):
            phi, statistics, report = simulator(population, theta, phi)
        assert (engine.densities.compiled_likelihood() is None) == (mode == "FAST_COMPILE")
        results[mode] = phi, *statistics.arrays(), report["complete_logp"], simulator.failures
    *compiled, compiled_failures = results["NUMBA"]
    *interpreted, interpreted_failures = results["FAST_COMPILE"]
    for a, b in zip(compiled, interpreted, strict=True):
        # a search for modes multiplies rounding
        np.testing.assert_allclose(a, b, rtol=1e-8 if kernel == "auto" else 1e-5)
    assert compiled_failures.keys() == interpreted_failures.keys() == {1}  # the step limit
    np.testing.assert_array_equal(compiled_failures[1], interpreted_failures[1])
