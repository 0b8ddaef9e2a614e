"""Posterior modes on the natural scale: conjugate priors, where the mode is a formula, and others."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from scipy import stats

import pymc_saem as ps
from tests.support.models import random_intercept_data

from .case import Case
from .linear import ORANGE, POSITIVE, gaussian_loglik, intercept_loglik, orange_loglik

#: A covariate for the 12 subjects of the random intercept.
X = np.linspace(-1, 1, 12)
#: Constants of the model with the conjugate prior for means.
OMEGA, SIGMA = 0.8, 0.3
PRIOR_MEAN, PRIOR_SD = np.array([1.0, -0.5]), np.array([0.2, 0.3])
#: Shape and scale of the inverse gamma prior of sigma2.
SHAPE, RATE = 3.0, 1.0


def intercepts(mean, omega, sigma):
    """The part of the models here that is the same."""
    y, subject = random_intercept_data()
    b = pm.Normal("b", mean, omega, dims="subject")
    pm.Normal("y", b[subject], sigma, observed=y)


def build_mean():
    """Normal priors for the coefficients of a mean, all else known."""
    with pm.Model(coords={"subject": np.arange(12)}) as model:
        a = pm.Normal("a", PRIOR_MEAN[0], PRIOR_SD[0])
        beta = pm.Normal("beta", PRIOR_MEAN[1], PRIOR_SD[1])
        intercepts(a + beta * X, OMEGA, SIGMA)
    return model


def mean_loglik(v):
    y, _ = random_intercept_data()
    covariance = OMEGA**2 + SIGMA**2 * np.eye(3)
    mean = v["a"] + v["beta"] * X
    return sum(gaussian_loglik(y[3 * i : 3 * i + 3], mean[i], covariance) for i in range(12))


def mean_log_prior(v):
    return stats.norm.logpdf([v["a"], v["beta"]], PRIOR_MEAN, PRIOR_SD).sum()


def mean_mode():
    """(a, beta) from the normal equations of subject means and prior."""
    design = np.column_stack([np.ones(12), X])
    averages = random_intercept_data()[0].reshape(12, 3).mean(axis=1)
    precision = 1 / (OMEGA**2 + SIGMA**2 / 3)
    left = precision * design.T @ design + np.diag(PRIOR_SD**-2.0)
    return np.linalg.solve(left, precision * design.T @ averages + PRIOR_MEAN / PRIOR_SD**2)


def build_variance():
    """An inverse gamma prior for the variance of the errors, written as a variance."""
    with pm.Model(coords={"subject": np.arange(12)}) as model:
        a = pm.Flat("a")
        omega2 = pm.HalfFlat("omega2", initval=1.0)
        sigma2 = pm.InverseGamma("sigma2", alpha=SHAPE, beta=RATE)
        intercepts(a, pt.sqrt(omega2), pt.sqrt(sigma2))
    return model


def variance_loglik(v):
    return intercept_loglik(
        {"a": v["a"], "omega": np.sqrt(v["omega2"]), "sigma": np.sqrt(v["sigma2"])}
    )


def variance_log_prior(v):
    return stats.invgamma.logpdf(v["sigma2"], SHAPE, scale=RATE)


def variance_mode():
    """(a, omega2, sigma2): sums of squares within and between subjects are independent in a balanced design."""
    y = random_intercept_data()[0].reshape(12, 3)
    averages = y.mean(axis=1)
    within, between = ((y - averages[:, None]) ** 2).sum(), 3 * ((averages - y.mean()) ** 2).sum()
    sigma2 = (within / 2 + RATE) / (12 + SHAPE + 1)
    return np.array([y.mean(), (between / 12 - sigma2) / 3, sigma2])


def build_intercept():
    """Priors without a conjugate form, strong enough to move the answer."""
    with pm.Model(coords={"subject": np.arange(12)}) as model:
        a = pm.StudentT("a", nu=5, mu=0.6, sigma=0.2)
        omega = pm.Exponential("omega", 4.0)
        sigma = pm.LogNormal("sigma", np.log(0.5), 0.1)
        intercepts(a, omega, sigma)
    return model


def intercept_log_prior(v):
    return (
        stats.t.logpdf(v["a"], 5, 0.6, 0.2)
        + stats.expon.logpdf(v["omega"], scale=1 / 4)
        + stats.lognorm.logpdf(v["sigma"], 0.1, scale=0.5)
    )


def build_orange():
    """Orange with priors on everything, also on the parameters without a random effect."""
    data = ps.datasets.load_orange()
    subject, trees = data["tree"].factorize()
    with pm.Model(coords={"subject": trees}) as model:
        mean = pm.Normal("mean_asym", 170.0, 10.0)
        omega = pm.HalfNormal("omega", 20.0)
        xmid = pm.Normal("xmid", 650.0, 30.0)
        scal = pm.LogNormal("scal", np.log(300.0), 0.1)
        sigma = pm.Gamma("sigma", 20.0, 2.0)
        asym = pm.Normal("asym", mean, omega, dims="subject")
        size = asym[subject] / (1 + pt.exp((xmid - data["age"].to_numpy()) / scal))
        pm.Normal("circumference", size, sigma, observed=data["circumference"])
    return model


def orange_log_prior(v):
    return (
        stats.norm.logpdf(v["mean_asym"], 170.0, 10.0)
        + stats.halfnorm.logpdf(v["omega"], scale=20.0)
        + stats.norm.logpdf(v["xmid"], 650.0, 30.0)
        + stats.lognorm.logpdf(v["scal"], 0.1, scale=300.0)
        + stats.gamma.logpdf(v["sigma"], 20.0, scale=1 / 2.0)
    )


CASES = (
    Case("map_mean", build_mean, mean_loglik, ({"a": 0.0, "beta": 0.0},), log_prior=mean_log_prior),
    Case(
        "map_variance",
        build_variance,
        variance_loglik,
        ({"a": 0.0, "omega2": 1.0, "sigma2": 0.5},),
        {"omega2": "positive", "sigma2": "positive"},
        variance_log_prior,
    ),
    Case(
        "map_intercept",
        build_intercept,
        intercept_loglik,
        ({"a": 0.5, "omega": 0.5, "sigma": 0.5},),
        POSITIVE,
        intercept_log_prior,
    ),
    Case("map_orange", build_orange, orange_loglik, ORANGE.starts, ORANGE.kinds, orange_log_prior),
)
