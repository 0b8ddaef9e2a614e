"""Priors on the natural scale against SciPy, whichever way they are evaluated."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats

from pymc_saem.model.density.priors import Prior
from pymc_saem.model.read import read_model

X = np.array([1e-3, 0.05, 0.7, 1.0, 3.0, 40.0])
PRIORS = {
    "LogNormal": (
        lambda: pm.LogNormal("sigma", 0.3, 0.5),
        stats.lognorm(0.5, scale=np.exp(0.3)),
        True,
    ),
    "Gamma": (lambda: pm.Gamma("sigma", 2.5, 1.7), stats.gamma(2.5, scale=1 / 1.7), True),
    "InverseGamma": (
        lambda: pm.InverseGamma("sigma", 3.0, 2.0),
        stats.invgamma(3.0, scale=2.0),
        True,
    ),
    "HalfNormal": (lambda: pm.HalfNormal("sigma", 2.0), stats.halfnorm(scale=2.0), True),
    "Exponential": (lambda: pm.Exponential("sigma", 0.4), stats.expon(scale=2.5), True),
    "HalfCauchy": (lambda: pm.HalfCauchy("sigma", 1.5), stats.halfcauchy(scale=1.5), False),
    "Uniform": (lambda: pm.Uniform("sigma", 0.0, 50.0), stats.uniform(0.0, 50.0), False),
}


@pytest.mark.parametrize("name", PRIORS)
def test_density_and_derivatives(name):
    make, reference, is_elementary = PRIORS[name]
    subject = np.repeat(np.arange(4), 3)
    with pm.Model(coords={"subject": range(4)}) as model:
        sigma = make()
        phi = pm.Normal("phi", pm.Flat("mu"), 1.0, dims="subject")
        pm.Normal("y", phi[subject], sigma, observed=np.linspace(0.0, 1.0, 12))
    mixed = read_model(model)
    prior = Prior(mixed, mixed.parameter("sigma"))
    assert (prior._elementary is not None) == is_elementary
    h = 1e-4
    for x in X:
        value, d1, d2 = (float(v[0]) for v in prior.natural(np.array([x])))
        up, here, down = reference.logpdf(x * np.array([1 + h, 1.0, 1 - h]))
        # PyMC rounds some constants to single precision
        assert value == pytest.approx(here, rel=1e-6, abs=1e-6)
        assert d1 * x == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-5)
        assert d2 * x**2 == pytest.approx((up - 2 * here + down) / h**2, rel=1e-3, abs=1e-3)


def test_a_density_of_bounded_support_stays_minus_infinity_outside():
    subject = np.repeat(np.arange(4), 3)
    with pm.Model(coords={"subject": range(4)}) as model:
        sigma = pm.Uniform("sigma", 0.0, 50.0)
        phi = pm.Normal("phi", pm.Flat("mu"), 1.0, dims="subject")
        pm.Normal("y", phi[subject], sigma, observed=np.linspace(0.0, 1.0, 12))
    mixed = read_model(model)
    value, _, _ = Prior(mixed, mixed.parameter("sigma")).natural(np.array([60.0]))
    assert value == -np.inf
