"""Marginal log-likelihoods after the estimate against exact ones, and the criteria made of them."""

from dataclasses import replace

import numpy as np
import pymc as pm
import pytest
from scipy.special import logsumexp

from pymc_saem.compat import pareto_k
from pymc_saem.saem.likelihood import marginal
from pymc_saem.saem.likelihood.importance import importance_sample
from pymc_saem.saem.likelihood.marginal import information_criteria, marginal_likelihood
from pymc_saem.saem.likelihood.proposals import TMixture
from tests.support.cases import CASES
from tests.support.engines import engine_of
from tests.support.estimated import at_maximum, conditional_at, joint_at, theta_of
from tests.support.models import exact_loglik, random_intercept_data


def estimate(name, method, seed=1, **options):
    _, engine, theta, conditional = at_maximum(name)
    return marginal_likelihood(
        engine, theta, conditional, np.random.default_rng(seed), method, **options
    )


def test_theophylline_by_quadrature_and_importance_sampling():
    """-2LL of the exact maximum is 360.701 (DESIGN section 10)."""
    quadrature = estimate("theophylline", "quadrature")
    assert -2 * quadrature.total == pytest.approx(360.701, abs=0.01)
    assert abs(-2 * quadrature.total - 360.701449) < 2 * quadrature.total_error + 1e-5
    sample = estimate("theophylline", "importance", error=0.02)
    assert sample.total_error < 0.02 and not sample.warning
    assert -2 * sample.total == pytest.approx(360.701, abs=0.1)
    assert abs(sample.total - quadrature.total) < 4 * sample.total_error
    assert estimate("theophylline", "auto").method == "quadrature"


@pytest.mark.parametrize("method", ["quadrature", "importance", "annealed"])
@pytest.mark.slow
def test_every_subject_of_a_linear_model(method):
    case, _, _, _ = at_maximum("intercept")
    values, (y, subject) = case.by_name(case.answer.estimate), random_intercept_data()
    exact = [
        exact_loglik(**values, y=y[subject == i], subject=subject[subject == i]) for i in range(12)
    ]
    found = estimate("intercept", method)
    assert found.method == method
    tolerance = 1e-6 if method == "quadrature" else 4 * found.error
    assert np.all(np.abs(found.loglik - exact) < tolerance)
    assert found.total == pytest.approx(
        -26.386860, abs=1e-5 if method == "quadrature" else 4 * found.total_error
    )


@pytest.mark.parametrize(
    "name", ["slopes", "two_outcomes", "poisson_time", "student_errors", "bolus_combined"]
)
@pytest.mark.slow
def test_quadrature_is_exact(name):
    case = CASES[name]
    engine = engine_of(case.build(), n_replicates=5, mode="NUMBA")
    theta = theta_of(engine, case.starts[0])
    conditional = conditional_at(engine, theta, n_draws=20)
    found = marginal_likelihood(engine, theta, conditional, np.random.default_rng(0), "quadrature")
    values = {name: np.asarray(value, float) for name, value in case.starts[0].items()}
    assert found.total == pytest.approx(case.marginal(values), abs=0.005)
    assert found.total_error < 0.005


@pytest.mark.slow
def test_the_error_of_importance_sampling_is_its_spread():
    """Over seeds, (estimate - exact) / error is standard normal; its mean square lies in 0.6 to 1.6 (99.9 % of chi2(200) / 200)."""
    exact = estimate("slopes", "quadrature").loglik
    found = [estimate("slopes", "importance", seed, error=np.inf) for seed in range(10)]
    z = [(one.loglik - exact) / one.error for one in found]
    assert 0.6 < np.mean(np.square(z)) < 1.6
    assert all(np.all(one.ess > 100) and np.all(one.pareto_k < 0.7) for one in found)


@pytest.mark.slow
def test_four_random_effects_take_importance_sampling():
    case = at_maximum("nested_added")[0]
    found = estimate("nested_added", "auto")
    assert found.method == "importance" and found.total_error < 0.05
    assert found.total == pytest.approx(case.answer.objective, abs=4 * found.total_error)
    with pytest.raises(
        ValueError, match="a subject has 4 random effects; a grid is feasible for at most 3"
    ):
        estimate("nested_added", "quadrature")


@pytest.mark.parametrize("method", ["importance", "auto"])
def test_a_proposal_that_is_too_narrow_is_found_out(method):
    """With draws of a tenth of the standard deviation, the proposal is learned from weighted points."""
    case, engine, theta, conditional = at_maximum("nested_added")
    narrow = replace(
        conditional, draws=conditional.mean + 0.1 * (conditional.draws - conditional.mean)
    )
    found = marginal_likelihood(
        engine, theta, narrow, np.random.default_rng(1), method, max_solves=1e5
    )
    assert found.method == "importance" and not found.warning and found.pareto_k.max() <= 0.7
    assert found.total == pytest.approx(case.answer.objective, abs=4 * found.total_error)
    assert found.total_error < 0.3


def test_too_many_dimensions_to_learn_are_annealed(monkeypatch):
    """A proposal that is too narrow, where none is learned: the user is told, and "auto" goes on to annealing."""
    monkeypatch.setattr(marginal, "LARGEST_D", 0)
    case, engine, theta, conditional = at_maximum("nested_added")
    narrow = replace(
        conditional, draws=conditional.mean + 0.1 * (conditional.draws - conditional.mean)
    )
    found = marginal_likelihood(
        engine, theta, narrow, np.random.default_rng(1), "importance", max_solves=1e5
    )
    assert "unreliable for" in found.warning and found.pareto_k.max() > 0.7
    auto = marginal_likelihood(
        engine, theta, narrow, np.random.default_rng(1), "auto", max_solves=1e5
    )
    assert auto.method == "annealed" and auto.warning == ""
    assert auto.total == pytest.approx(case.answer.objective, abs=4 * auto.total_error)


def test_a_grid_at_one_of_two_modes_is_found_out():
    """y = b^2 + noise: a quadrature around one mode would miss half of the integral, log 2 for each subject."""
    y = np.array([1.0, 2.0, 3.0, 4.0])
    with pm.Model(coords={"subject": np.arange(4)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega"), dims="subject")
        pm.Normal("y", b**2, pm.HalfFlat("sigma"), observed=y)
    values = {"a": 0.1, "omega": 1.5, "sigma": 0.3}
    engine = engine_of(model, n_replicates=5)
    theta = theta_of(engine, values)
    grid = np.linspace(-9.0, 9.0, 20001)[:, None]
    log_joint = (
        -0.5 * ((grid - 0.1) / 1.5) ** 2
        - 0.5 * ((y - grid**2) / 0.3) ** 2
        - np.log(2 * np.pi * 1.5 * 0.3)
    )
    exact = logsumexp(log_joint, axis=0) + np.log(grid[1, 0] - grid[0, 0])
    found = marginal_likelihood(
        engine, theta, conditional_at(engine, theta), np.random.default_rng(2)
    )
    assert found.method != "quadrature"
    assert np.all(np.abs(found.loglik - exact) < 4 * found.error) and np.all(found.error < 0.2)


def test_an_impossible_subject_has_no_likelihood():
    joint = joint_at("intercept")
    n = joint.population.mean.shape[0]
    joint.theta = joint.theta + np.array([0.0, 0.0, -800.0])  # sigma is 0 in double precision
    found = importance_sample(
        joint,
        TMixture.of_moments(np.zeros((n, 1)), np.ones((n, 1, 1)), joint.population),
        np.random.default_rng(1),
        0.1,
        1e5,
    )
    assert np.all(found.loglik == -np.inf) and found.unreliable.all()


def test_the_tail_of_pareto_weights():
    """Weights with P(w > x) = x^(-1/k) have this k; the sample of 20000 leaves an error of about 0.04."""
    u = np.random.default_rng(3).uniform(size=(20000, 3))
    np.testing.assert_allclose(
        pareto_k(-np.array([0.3, 0.7, 1.2]) * np.log(u)), [0.3, 0.7, 1.2], atol=0.2
    )


def test_a_single_giant_weight_is_unreliable():
    log_weights = np.full((500, 2), -700.0)
    log_weights[0] = 0.0
    log_weights[:, 1] = np.random.default_rng(1).normal(size=500)
    k = pareto_k(log_weights)
    assert not k[0] <= 0.7 and k[1] < 0.7


def test_criteria():
    """7 parameters, 6 of them of random effects; 12 subjects and 132 rows."""
    _, engine, _, _ = at_maximum("theophylline")
    found = information_criteria(engine, -180.0)
    assert (found.n_parameters, found.n_of_random_effects) == (7, 6)
    assert found.aic == pytest.approx(360 + 14) and found.bic == pytest.approx(360 + 7 * np.log(12))
    assert found.bicc == pytest.approx(360 + 6 * np.log(12) + np.log(132))
    # xmid and scal have no random effect
    of_orange = information_criteria(at_maximum("orange")[1], 0.0)
    assert (of_orange.n_parameters, of_orange.n_of_random_effects) == (5, 2)
    held = engine_of(at_maximum("intercept")[0].build(), fixed={"sigma": np.array([0.3])})
    assert information_criteria(held, 0.0).n_parameters == 2
