"""Weights of subjects: estimates are the maxima of the weighted marginal likelihood, which SciPy finds by other means."""

import numpy as np
import pymc as pm
import pytest
from scipy.optimize import minimize
from scipy.special import gammaln, logsumexp
from scipy.stats import norm, t

from pymc_saem.model.density.point_map import initial_point
from pymc_saem.saem.core import closed_form
from pymc_saem.saem.run.chains import Job, run_chain
from pymc_saem.saem.run.step import SAEM
from tests.support.models import (
    exact_loglik,
    random_intercept,
    random_intercept_data,
    slopes,
    slopes_data,
    slopes_loglik,
)


def run(step, weight, seed=1, n=(100, 200)):
    step.engine.weigh(weight)
    job = Job(step, initial_point(step.engine.mixed.model), *n, draws=0, tolerance=0.0)
    return run_chain(job, 0, np.random.default_rng(seed), lambda *_: None)


def estimate(step, weight, **options):
    chain = run(step, weight, **options)
    return step.engine.points.natural_theta(chain.theta[-1])


def maximum(negative, start):
    fit = minimize(
        negative,
        start,
        method="Nelder-Mead",
        options={"maxiter": 4000, "fatol": 1e-9, "xatol": 1e-7},
    )
    assert fit.success
    return fit.x


def test_m_steps_with_weights_are_those_of_repeated_subjects(rng):
    weight = np.array([2, 0, 1, 3])
    twice = np.repeat(np.arange(4), weight)
    first, mean = rng.normal(size=(2, 4, 3))
    spread = np.eye(3) + np.einsum("si,sj->sij", first, first)
    precision = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.5]])
    for n_designs in (1, 4):
        design, offset = rng.normal(size=(n_designs, 3, 2)), rng.normal(size=(n_designs, 3))
        of = twice if n_designs > 1 else [0]
        prior = np.eye(2), np.ones(2)
        with_weights = closed_form.gls_mean(
            first, design, offset, precision, *prior, weight.astype(float)
        )
        repeated = closed_form.gls_mean(first[twice], design[of], offset[of], precision, *prior)
        np.testing.assert_allclose(with_weights, repeated, rtol=1e-12)
    with_weights = closed_form.covariance_about(
        first, np.einsum("s,sij->ij", weight, spread), mean, weight.astype(float)
    )
    repeated = closed_form.covariance_about(first[twice], spread[twice].sum(axis=0), mean[twice])
    np.testing.assert_allclose(with_weights, repeated, rtol=1e-12)


@pytest.mark.slow
def test_random_intercepts_and_subjects_that_do_not_count():
    """The weighted maximum; what subjects of weight zero observed changes no bit of any iterate."""
    y, subject = random_intercept_data()
    with pm.Model(coords={"subject": np.arange(12)}) as model:
        data = pm.Data("data", y)
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        pm.Normal("y", b[subject], pm.HalfFlat("sigma", initval=1.0), observed=data)
    step = SAEM(model=model)
    weight = np.array([0, 1, 2.5, 0, 1, 1, 3, 0, 1, 1, 2, 1])
    chain = run(step, weight)

    def negative(x):
        each = [
            exact_loglik(x[0], *np.exp(x[1:]), y[subject == i], subject[subject == i])
            for i in range(12)
        ]
        return -weight @ each

    best = maximum(negative, [0.0, 0.0, -1.0])
    assert abs(best[0] - 0.0275) > 0.05  # the weights matter
    np.testing.assert_allclose(chain.theta[-1], best, atol=0.02)
    wild = np.where(weight[subject] == 0, 1e3 * (y + 5.0), y)
    pm.set_data({"data": wild}, model=model)
    np.testing.assert_array_equal(run(step, weight).theta, chain.theta)
    pm.set_data({"data": y}, model=model)
    # The same proposals are accepted; sums with weights may differ from those without in the last bit.
    once, bare = run(step, np.ones(12)).theta, run(step, None).theta
    np.testing.assert_allclose(once, bare, rtol=0.0, atol=1e-12)


@pytest.mark.slow
def test_full_covariance_with_a_covariate_and_priors():
    data = slopes_data()
    weight = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30)).astype(float)
    step = SAEM(model=slopes(data), objective="ml")
    found = estimate(step, weight)

    def negative(x):
        root = np.array([[np.exp(x[3]), 0.0], [x[4], np.exp(x[5])]])
        return -slopes_loglik(x[:2], x[2], root @ root.T, np.exp(x[6]), data, weight)

    best = maximum(negative, [1.0, -0.5, 0.8, 0.0, 0.2, -0.7, -0.9])
    ours = np.concatenate([found["beta"], [found["gamma"]], found["chol"], [found["sigma"]]])
    exact = np.concatenate(
        [best[:3], [np.exp(best[3]), best[4], np.exp(best[5])], [np.exp(best[6])]]
    )
    np.testing.assert_allclose(ours, exact, atol=0.02)


def nested_data():
    rng = np.random.default_rng(4)
    of_unit = np.repeat(np.arange(8), [2, 3, 2, 1, 3, 2, 2, 2])
    unit = np.repeat(np.arange(of_unit.size), 4)
    effects = (2.0 + rng.normal(size=8))[of_unit] + 0.7 * rng.normal(size=of_unit.size)
    return effects[unit] + 0.3 * rng.normal(size=unit.size), unit, of_unit


@pytest.mark.slow
def test_two_levels():
    y, unit, of_unit = nested_data()
    weight = np.array([1.0, 0.0, 2.0, 1.0, 1.0, 3.0, 0.0, 1.0])
    with pm.Model(coords={"subject": range(8), "occasion": range(of_unit.size)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        c = pm.Normal("c", b[of_unit], pm.HalfFlat("gamma", initval=1.0), dims="occasion")
        pm.Normal("y", c[unit], pm.HalfFlat("sigma", initval=1.0), observed=y)
    found = estimate(SAEM(model=model), weight, n=(100, 200))

    def negative(x):
        total, (omega, gamma, sigma) = 0.0, np.exp(x[1:])
        for i in np.flatnonzero(weight):
            mine = of_unit[unit] == i
            same = unit[mine][:, None] == unit[mine]
            r, cov = y[mine] - x[0], omega**2 + gamma**2 * same + sigma**2 * np.eye(mine.sum())
            total += (
                weight[i]
                * 0.5
                * (r @ np.linalg.solve(cov, r) + np.linalg.slogdet(2 * np.pi * cov)[1])
            )
        return total

    best = maximum(negative, [2.0, 0.0, -0.4, -1.2])
    ours = [found["a"], *np.log([found["omega"], found["gamma"], found["sigma"]])]
    np.testing.assert_allclose(ours, best, atol=0.04)


@pytest.mark.parametrize("law", ["Normal", "StudentT"])
@pytest.mark.slow
def test_counts_with_a_shared_slope(law):
    """Score steps: a parameter that all subjects share, and a distribution of the effects that is not Gaussian."""
    rng = np.random.default_rng(5)
    subject, x = np.repeat(np.arange(30), 6), np.tile(np.linspace(-1, 1, 6), 30)
    y = rng.poisson(np.exp((1.0 + 0.5 * rng.standard_normal(30))[subject] + 0.6 * x))
    weight = rng.multinomial(30, np.full(30, 1 / 30)).astype(float)
    with pm.Model(coords={"subject": range(30)}) as model:
        mu, omega = pm.Flat("mu", initval=0.8), pm.HalfFlat("omega", initval=0.4)
        scale = {"mu": mu, "sigma": omega, "dims": "subject"}
        b = pm.Normal("b", **scale) if law == "Normal" else pm.StudentT("b", nu=5, **scale)
        pm.Poisson("y", pm.math.exp(b[subject] + pm.Flat("slope", initval=0.0) * x), observed=y)
    found = estimate(SAEM(model=model), weight)
    grid = np.linspace(-3.0, 5.0, 801)

    def negative(theta):
        scale = np.exp(theta[1])
        density = (
            norm.logpdf(grid, theta[0], scale)
            if law == "Normal"
            else t.logpdf(grid, 5, theta[0], scale)
        )
        log_rate = grid[:, None] + theta[2] * x
        rows = y * log_rate - np.exp(log_rate) - gammaln(y + 1.0)
        each = [logsumexp(rows[:, subject == i].sum(axis=1) + density) for i in range(30)]
        return -weight @ each

    best = maximum(negative, [1.0, -0.7, 0.6])
    np.testing.assert_allclose(
        [found["mu"], np.log(found["omega"]), found["slope"]], best, atol=0.03
    )


@pytest.mark.parametrize(
    "weight", [[1.0] * 11, [-1.0] + [1.0] * 11, [np.nan] + [1.0] * 11, [0.0] * 12]
)
def test_weights_that_make_no_sense_are_refused(weight):
    engine = SAEM(model=random_intercept()).engine
    with pytest.raises(ValueError, match="12 numbers are needed"):
        engine.weigh(weight)
