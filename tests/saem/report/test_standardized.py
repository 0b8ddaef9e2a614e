"""Standardized residuals against NumPy, outcome by outcome, and what is shrunken of them."""

import numpy as np
import pymc as pm
import pytest

from pymc_saem.saem.report.standardized import residual_shrinkage, standardized_residuals
from tests.support.engines import engine_of
from tests.support.estimated import theta_of
from tests.support.models import random_intercept

RNG = np.random.default_rng(9)
SUBJECT = np.repeat(np.arange(6), 4)
Y = RNG.uniform(1.0, 3.0, size=24)
PHI = RNG.normal(1.5, 0.3, size=(6, 1))
MEAN = PHI[SUBJECT, 0]
NATURAL = {"a": 0.3, "prop": 0.2, "nu": 5.0, "beta": 1.4, "mean": 1.5, "omega": 0.3}

# Outcome of mean m: what is observed, its standardized residuals, and the parameters of its scale.
OUTCOMES = {
    "additive": (lambda m, a, prop, nu, beta: pm.Normal("y", m, a, observed=Y), (Y - MEAN) / 0.3, ["a"]),
    "proportional": (
        lambda m, a, prop, nu, beta: pm.Normal("y", beta * m, prop * beta * m, observed=Y),
        (Y - 1.4 * MEAN) / (0.2 * 1.4 * MEAN),
        ["prop"],
    ),
    "combined": (
        lambda m, a, prop, nu, beta: pm.Normal("y", m, a + prop * m, observed=Y),
        (Y - MEAN) / (0.3 + 0.2 * MEAN),
        ["a", "prop"],
    ),
    "exponential": (
        lambda m, a, prop, nu, beta: pm.LogNormal("y", m, a, observed=Y), (np.log(Y) - MEAN) / 0.3, ["a"],
    ),
    "student": (
        lambda m, a, prop, nu, beta: pm.StudentT("y", nu=nu, mu=m, sigma=a, observed=Y),
        (Y - MEAN) / (0.3 * np.sqrt(5.0 / 3.0)),
        ["a"],
    ),
    "laplace": (
        lambda m, a, prop, nu, beta: pm.Laplace("y", m, a, observed=Y), (Y - MEAN) / (0.3 * np.sqrt(2.0)), ["a"],
    ),
}  # fmt: skip


def mixed_and_theta(*outcomes):
    with pm.Model(coords={"subject": range(6)}) as model:
        mean = pm.Flat("mean", initval=1.5)
        m = pm.Normal("b", mean, pm.HalfFlat("omega", initval=1.0), dims="subject")[SUBJECT]
        parameters = {name: pm.HalfFlat(name, initval=1.0) for name in ("a", "prop", "nu", "beta")}
        for build in outcomes:
            build(m, **parameters)
    engine = engine_of(model)
    return engine.mixed, theta_of(engine, NATURAL)


def everything(m, a, prop, nu, beta):
    """Keeps parameters in use that the outcome in question has not."""
    pm.Poisson("count", a * prop * nu * beta * pm.math.exp(m), observed=np.ones(24, int))


@pytest.mark.parametrize("kind", OUTCOMES)
def test_residuals_and_their_shrinkage(kind):
    build, expected, scales = OUTCOMES[kind]
    mixed, theta = mixed_and_theta(build, everything)
    found = standardized_residuals(mixed, PHI, theta)
    assert list(found) == ["y"]  # a count has no residual scale
    assert np.allclose(found["y"], expected, rtol=1e-10)
    of_outcomes, of_parameters = residual_shrinkage(mixed, PHI, theta)
    assert of_outcomes == {"y": pytest.approx(1 - np.std(expected, ddof=1))}
    # not beta, which is part of the mean
    assert of_parameters == {name: of_outcomes["y"] for name in scales}


def test_a_scale_of_two_outcomes_has_the_shrinkage_of_all_their_rows():
    def second(m, a, prop, nu, beta):
        pm.Normal("z", 2.0 * m, a, observed=2.0 * Y + 1.0)

    mixed, theta = mixed_and_theta(OUTCOMES["additive"][0], second, everything)
    rows = np.concatenate([(Y - MEAN) / 0.3, (2.0 * Y + 1.0 - 2.0 * MEAN) / 0.3])
    of_outcomes, of_parameters = residual_shrinkage(mixed, PHI, theta)
    assert of_parameters["a"] == pytest.approx(1 - np.std(rows, ddof=1)) and set(of_outcomes) == {
        "y",
        "z",
    }


def test_a_student_law_without_variance_has_none():
    mixed, theta = mixed_and_theta(OUTCOMES["student"][0], everything)
    theta = theta.copy()
    theta[mixed.parameter("nu").columns] = np.log(1.5)
    assert np.isnan(residual_shrinkage(mixed, PHI, theta)[1]["a"])


def test_failed_solves_are_left_out():
    engine = engine_of(random_intercept())
    theta = theta_of(engine, {"a": 0.0, "omega": 1.0, "sigma": 0.5})
    phi = np.zeros((12, 1))
    whole = standardized_residuals(engine.mixed, phi, theta)["y"]
    phi[3] = np.nan
    assert residual_shrinkage(engine.mixed, phi, theta)[1]["sigma"] == pytest.approx(
        1 - np.std(np.delete(whole, slice(9, 12)), ddof=1)
    )
    assert np.isnan(residual_shrinkage(engine.mixed, np.full((12, 1), np.nan), theta)[1]["sigma"])
