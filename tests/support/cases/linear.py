"""Models that are linear in normal random effects: their marginal is Gaussian, and exact."""

from functools import cache

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import pymc_saem as ps
from tests.support.models import exact_loglik, random_intercept, random_intercept_data

from .case import Case


def gaussian_loglik(y, mean, covariance):
    r = np.linalg.solve(np.linalg.cholesky(covariance), y - mean)
    return -0.5 * (r @ r + np.linalg.slogdet(2 * np.pi * covariance)[1])


def unbalanced(rng, n_subjects, least, most):
    """Subject of each row, with between ``least`` and ``most`` rows per subject."""
    return np.repeat(np.arange(n_subjects), rng.integers(least, most + 1, n_subjects))


# Orange trees: xmid and scal have no random effect


def build_orange():
    data = ps.datasets.load_orange()
    subject, trees = data["tree"].factorize()
    with pm.Model(coords={"subject": trees}) as model:
        mean = pm.Flat("mean_asym", initval=150.0)
        omega = pm.HalfFlat("omega", initval=20.0)
        xmid = pm.Flat("xmid", initval=600.0)
        scal = pm.HalfFlat("scal", initval=300.0)
        sigma = pm.HalfFlat("sigma", initval=10.0)
        asym = pm.Normal("asym", mean, omega, dims="subject")
        size = asym[subject] / (1 + pt.exp((xmid - data["age"].to_numpy()) / scal))
        pm.Normal("circumference", size, sigma, observed=data["circumference"])
    return model


@cache
def orange_trees():
    """Age and circumference of each tree."""
    trees = ps.datasets.load_orange().groupby("tree")
    return tuple((rows["age"].to_numpy(), rows["circumference"].to_numpy()) for _, rows in trees)


def orange_loglik(v):
    total = 0.0
    for age, circumference in orange_trees():
        g = 1 / (1 + np.exp((v["xmid"] - age) / v["scal"]))
        covariance = v["omega"] ** 2 * np.outer(g, g) + v["sigma"] ** 2 * np.eye(g.size)
        total += gaussian_loglik(circumference, v["mean_asym"] * g, covariance)
    return total


ORANGE = Case(
    "orange",
    build_orange,
    orange_loglik,
    ({"mean_asym": 190.0, "omega": 30.0, "xmid": 700.0, "scal": 350.0, "sigma": 8.0},)
    + ({"mean_asym": 150.0, "omega": 20.0, "xmid": 600.0, "scal": 300.0, "sigma": 10.0},),
    {"omega": "positive", "scal": "positive", "sigma": "positive"},
)

# A random intercept, centered and not


def build_noncentered():
    y, subject = random_intercept_data()
    with pm.Model(coords={"subject": np.arange(12)}) as model:
        a = pm.Flat("a")
        omega = pm.HalfFlat("omega", initval=1.0)
        sigma = pm.HalfFlat("sigma", initval=1.0)
        eta = pm.Normal("eta", 0.0, 1.0, dims="subject")
        b = pm.Deterministic("b", a + omega * eta, dims="subject")
        pm.Normal("y", b[subject], sigma, observed=y)
    return model


def intercept_loglik(v):
    return exact_loglik(v["a"], v["omega"], v["sigma"], *random_intercept_data())


INTERCEPT_STARTS = ({"a": 0.0, "omega": 1.0, "sigma": 1.0},)
POSITIVE = {"omega": "positive", "sigma": "positive"}
INTERCEPT = Case("intercept", random_intercept, intercept_loglik, INTERCEPT_STARTS, POSITIVE)
NONCENTERED = Case("noncentered", build_noncentered, intercept_loglik, INTERCEPT_STARTS, POSITIVE)

# Correlated intercepts and slopes, covariates on both, 20 subjects with 3 to 7 rows


@cache
def slopes_data():
    rng = np.random.default_rng(11)
    subject = unbalanced(rng, 20, 3, 7)
    x = rng.normal(size=20)
    factor = np.array([[0.9, 0.0], [-0.3, 0.5]])
    b = np.column_stack([2.0 + 0.6 * x, -1.0 + 0.4 * x]) + rng.normal(size=(20, 2)) @ factor.T
    t = rng.uniform(-1, 1, subject.size)
    y = b[subject, 0] + b[subject, 1] * t + 0.4 * rng.normal(size=t.size)
    return y, t, x, subject


def build_slopes():
    y, t, x, subject = slopes_data()
    with pm.Model(coords={"subject": np.arange(20), "effect": ["intercept", "slope"]}) as model:
        beta = pm.Flat("beta", dims="effect")
        gamma = pm.Flat("gamma", dims="effect")
        chol, _, _ = pm.LKJCholeskyCov(
            "chol", n=2, eta=1.0, sd_dist=pm.Exponential.dist(1.0), compute_corr=True
        )
        sigma = pm.HalfFlat("sigma", initval=1.0)
        b = pm.MvNormal("b", beta + gamma * x[:, None], chol=chol, dims=("subject", "effect"))
        pm.Normal("y", b[subject, 0] + b[subject, 1] * t, sigma, observed=y)
    return model


def slopes_loglik(v):
    y, t, x, subject = slopes_data()
    l11, l21, l22 = v["chol"]
    factor = np.array([[l11, 0.0], [l21, l22]])
    total = 0.0
    for i in range(20):
        mine = subject == i
        z = np.column_stack([np.ones(mine.sum()), t[mine]])
        covariance = z @ factor @ factor.T @ z.T + v["sigma"] ** 2 * np.eye(mine.sum())
        total += gaussian_loglik(y[mine], z @ (v["beta"] + v["gamma"] * x[i]), covariance)
    return total


SLOPES = Case(
    "slopes",
    build_slopes,
    slopes_loglik,
    ({"beta": [0.0, 0.0], "gamma": [0.0, 0.0], "chol": [1.0, 0.0, 1.0], "sigma": 1.0},)
    + ({"beta": [1.0, 0.0], "gamma": [0.0, 0.0], "chol": [0.5, 0.2, 0.5], "sigma": 0.5},),
    {"chol": "cholesky", "sigma": "positive"},
    options={"objective": "ml"},  # an LKJ prior cannot be flat
)

# Two outcomes: the level, and the level plus a shift, measured at other rows and with another error


@cache
def two_outcomes_data():
    rng = np.random.default_rng(12)
    first, second = unbalanced(rng, 25, 2, 5), unbalanced(rng, 25, 1, 4)
    level, shift = 1.0 + 0.8 * rng.normal(size=25), -2.0 + 0.5 * rng.normal(size=25)
    y = level[first] + 0.5 * rng.normal(size=first.size)
    z = level[second] + shift[second] + 0.2 * rng.normal(size=second.size)
    return y, first, z, second


def build_two_outcomes():
    y, first, z, second = two_outcomes_data()
    with pm.Model(coords={"subject": np.arange(25)}) as model:
        effect = {}
        for name in ("level", "shift"):
            mean = pm.Flat(f"mean_{name}")
            effect[name] = pm.Normal(
                name, mean, pm.HalfFlat(f"omega_{name}", initval=1.0), dims="subject"
            )
        sigma_y = pm.HalfFlat("sigma_y", initval=1.0)
        sigma_z = pm.HalfFlat("sigma_z", initval=1.0)
        pm.Normal("y", effect["level"][first], sigma_y, observed=y)
        pm.Normal("z", effect["level"][second] + effect["shift"][second], sigma_z, observed=z)
    return model


def two_outcomes_loglik(v):
    y, first, z, second = two_outcomes_data()
    total = 0.0
    for i in range(25):
        n, m = (first == i).sum(), (second == i).sum()
        on_shift = np.r_[np.zeros(n), np.ones(m)]
        covariance = v["omega_level"] ** 2 + v["omega_shift"] ** 2 * np.outer(on_shift, on_shift)
        covariance += np.diag(np.r_[np.full(n, v["sigma_y"] ** 2), np.full(m, v["sigma_z"] ** 2)])
        mean = v["mean_level"] + v["mean_shift"] * on_shift
        total += gaussian_loglik(np.r_[y[first == i], z[second == i]], mean, covariance)
    return total


TWO_OUTCOMES = Case(
    "two_outcomes",
    build_two_outcomes,
    two_outcomes_loglik,
    (
        {
            "mean_level": 0.0,
            "omega_level": 1.0,
            "mean_shift": 0.0,
            "omega_shift": 1.0,
            "sigma_y": 1.0,
            "sigma_z": 1.0,
        },
    ),
    {name: "positive" for name in ("omega_level", "omega_shift", "sigma_y", "sigma_z")},
)

CASES = (ORANGE, INTERCEPT, NONCENTERED, SLOPES, TWO_OUTCOMES)
