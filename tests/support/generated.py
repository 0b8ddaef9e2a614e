"""Models with their parameters, and NumPy programs that simulate the same: what `simulate` is compared with.

Each entry is a function that returns the model, natural values of its parameters, and
``program(rng, n)``, which gives random effects and outcomes by name, (n, ...).
"""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from scipy.stats import gamma, norm

N, R = 5, 4
SUBJECT = np.repeat(np.arange(N), R)
T = np.tile(np.arange(1.0, R + 1), N)
X = np.linspace(-1.0, 1.0, N)
COORDS = {"subject": [f"s{i}" for i in range(N)], "effect": ["one", "two"]}


def log_normal_and_counts():
    with pm.Model(coords=COORDS) as model:
        mu, gamma = pm.Flat("mu"), pm.Flat("gamma")
        omega, sigma = pm.HalfFlat("omega"), pm.HalfFlat("sigma")
        k = pm.LogNormal("k", mu + gamma * X, omega, dims="subject")
        curve = 10 * pt.exp(-k[SUBJECT] * T)
        pm.Normal("y", curve, sigma * curve, observed=np.ones(N * R))
        pm.Poisson("count", 5 * k, observed=np.ones(N, dtype=int), dims="subject")

    def program(rng, n):
        k = np.exp(-1.0 + 0.5 * X + 0.3 * rng.standard_normal((n, N)))
        curve = 10 * np.exp(-k[:, SUBJECT] * T)
        return {
            "k": k,
            "y": curve * (1 + 0.2 * rng.standard_normal(curve.shape)),
            "count": rng.poisson(5 * k),
        }

    return model, {"mu": -1.0, "gamma": 0.5, "omega": 0.3, "sigma": 0.2}, program


def correlated_effects():
    with pm.Model(coords=COORDS) as model:
        beta = pm.Flat("beta", dims="effect")
        chol, _, _ = pm.LKJCholeskyCov("chol", n=2, eta=1.0, sd_dist=pm.Exponential.dist(1.0))
        b = pm.MvNormal("b", beta, chol=chol, dims=("subject", "effect"))
        mu = b[SUBJECT, 0] + b[SUBJECT, 1] * T
        pm.StudentT("y", nu=4, mu=mu, sigma=pm.HalfFlat("sigma"), observed=np.zeros(N * R))
    root = np.array([[1.0, 0.0], [0.6, 0.5]])

    def program(rng, n):
        b = np.array([2.0, -1.0]) + rng.standard_normal((n, N, 2)) @ root.T
        mu = b[:, SUBJECT, 0] + b[:, SUBJECT, 1] * T
        return {"b": b, "y": mu + 0.3 * rng.standard_t(4, size=mu.shape)}

    return model, {"beta": [2.0, -1.0], "chol": root[np.tril_indices(2)], "sigma": 0.3}, program


def gamma_and_student_effects():
    with pm.Model(coords=COORDS) as model:
        rate, scale = pm.HalfFlat("rate"), pm.HalfFlat("scale")
        lam = pm.Gamma("lam", 3.0, rate, dims="subject")
        b = pm.StudentT("b", nu=5, mu=pm.Flat("mu"), sigma=scale, dims="subject")
        pm.Poisson("count", lam[SUBJECT] * T, observed=np.ones(N * R, dtype=int))
        pm.Bernoulli("flag", logit_p=b[SUBJECT], observed=np.ones(N * R, dtype=int))

    def program(rng, n):
        lam, b = rng.gamma(3.0, 1 / 1.5, (n, N)), 0.5 + 0.7 * rng.standard_t(5, (n, N))
        p = 1 / (1 + np.exp(-b[:, SUBJECT]))
        return {
            "lam": lam,
            "b": b,
            "count": rng.poisson(lam[:, SUBJECT] * T),
            "flag": (rng.random(p.shape) < p) * 1,
        }

    return model, {"rate": 1.5, "scale": 0.7, "mu": 0.5}, program


OCCASION_SUBJECT = np.array([0, 0, 1, 1, 1, 2, 3, 4])
OCCASION = np.repeat(np.arange(8), 2)


def occasions_as_means():
    with pm.Model(coords={**COORDS, "occasion": np.arange(8)}) as model:
        tau, omega, sigma = (pm.HalfFlat(name) for name in ("tau", "omega", "sigma"))
        b = pm.Normal("b", pm.Flat("a"), tau, dims="subject")
        c = pm.Normal("c", b[OCCASION_SUBJECT], omega, dims="occasion")
        pm.Normal("y", c[OCCASION], sigma, observed=np.zeros(16))

    def program(rng, n):
        b = 1.0 + 2.0 * rng.standard_normal((n, N))
        c = b[:, OCCASION_SUBJECT] + 0.5 * rng.standard_normal((n, 8))
        return {"b": b, "c": c, "y": c[:, OCCASION] + 0.1 * rng.standard_normal((n, 16))}

    return model, {"a": 1.0, "tau": 2.0, "omega": 0.5, "sigma": 0.1}, program


def not_centred():
    with pm.Model(coords=COORDS) as model:
        a, omega, sigma = pm.Flat("a"), pm.HalfFlat("omega"), pm.HalfFlat("sigma")
        eta = pm.Normal("eta", 0.0, 1.0, dims="subject")
        b = pm.Deterministic("b", a + omega * eta, dims="subject")
        pm.LogNormal("y", b[SUBJECT], sigma, observed=np.ones(N * R))

    def program(rng, n):
        eta = rng.standard_normal((n, N))
        return {
            "eta": eta,
            "y": np.exp(0.3 + 0.8 * eta[:, SUBJECT] + 0.1 * rng.standard_normal((n, N * R))),
        }

    return model, {"a": 0.3, "omega": 0.8, "sigma": 0.1}, program


def cut_off():
    with pm.Model(coords=COORDS) as model:
        a, omega, sigma = pm.Flat("a"), pm.HalfFlat("omega"), pm.HalfFlat("sigma")
        b = pm.Normal("b", a, omega, dims="subject")
        law = pm.Normal.dist(b[SUBJECT], sigma)
        pm.Censored("limited", law, lower=0.0, upper=None, observed=np.ones(N * R))
        pm.Truncated("positive", law, lower=0.0, upper=None, observed=np.ones(N * R))
        pm.Truncated(
            "gamma", pm.Gamma.dist(2.0, pt.exp(b)), lower=0.5, observed=np.ones(N), dims="subject"
        )

    def program(rng, n):
        b = 0.5 + 0.8 * rng.standard_normal((n, N))
        mu = b[:, SUBJECT]
        return {
            "b": b,
            "limited": np.maximum(mu + 0.5 * rng.standard_normal(mu.shape), 0.0),
            "positive": mu + 0.5 * norm.isf(norm.sf(-mu / 0.5) * rng.random(mu.shape)),
            "gamma": gamma.isf(
                gamma.sf(0.5, 2.0, scale=np.exp(-b)) * rng.random(b.shape), 2.0, scale=np.exp(-b)
            ),
        }

    return model, {"a": 0.5, "omega": 0.8, "sigma": 0.5}, program


def ordered_and_mixed():
    with pm.Model(coords=COORDS) as model:
        m = pm.Flat("m", shape=2)
        b = pm.NormalMixture("b", w=[0.3, 0.7], mu=m, sigma=0.2, dims="subject")
        cut = pm.Flat("cut", shape=2)
        pm.OrderedLogistic(
            "grade",
            eta=b[SUBJECT],
            cutpoints=cut,
            observed=np.zeros(N * R, dtype=int),
            compute_p=False,
        )
        pm.NegativeBinomial(
            "count", mu=pt.exp(b), alpha=pm.HalfFlat("alpha"), observed=np.ones(N, dtype=int)
        )

    def program(rng, n):
        b = np.where(rng.random((n, N)) < 0.3, -1.0, 2.0) + 0.2 * rng.standard_normal((n, N))
        logistic = b[:, SUBJECT] + rng.logistic(size=(n, N * R))
        mean = rng.gamma(2.0, np.exp(b) / 2.0)
        return {
            "b": b,
            "grade": (logistic > 0.0) * 1 + (logistic > 1.5),
            "count": rng.poisson(mean),
        }

    return model, {"m": [-1.0, 2.0], "cut": [0.0, 1.5], "alpha": 2.0}, program


MODELS = [
    log_normal_and_counts,
    correlated_effects,
    gamma_and_student_effects,
    occasions_as_means,
    not_centred,
    cut_off,
    ordered_and_mixed,
]
