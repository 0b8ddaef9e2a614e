"""Random intercepts with counts, binary, binomial and ordinal outcomes; adaptive quadrature in 1 dimension."""

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import ordered
from scipy.special import expit, gammaln, log_expit

from .case import Case
from .quadrature import gauss_hermite, log_normal_density, sum_rows


@dataclass(frozen=True)
class Family:
    """Simulation of one outcome: sizes and parameters; "slope" belongs to the time of each row, and is shared by all."""

    n_subjects: int
    n_rows: int
    truth: dict


FAMILIES = {
    "poisson": Family(30, 5, {"a": 1.0, "beta": 0.5, "omega": 0.6}),
    "poisson_time": Family(30, 5, {"a": 1.0, "beta": 0.5, "omega": 0.6, "slope": -0.4}),
    "logistic": Family(60, 8, {"a": -0.5, "beta": 1.0, "omega": 1.2}),
    "logistic_time": Family(60, 8, {"a": -0.5, "beta": 1.0, "omega": 1.2, "slope": 0.8}),
    "binomial": Family(30, 4, {"a": -0.5, "beta": 0.7, "omega": 0.8}),
    "negative_binomial": Family(40, 8, {"a": 1.5, "beta": 0.5, "omega": 0.6, "alpha": 3.0}),
    "ordinal": Family(60, 8, {"beta": 1.0, "omega": 1.0, "cutpoints": [-1.0, 0.5, 1.5]}),
}
N_TRIALS = 10


def covariates(kind):
    """Subject of each row, time of each row in [-1, 1], and a treatment (0 or 1) of each subject."""
    family = FAMILIES[kind]
    subject = np.repeat(np.arange(family.n_subjects), family.n_rows)
    t = np.tile(np.linspace(-1, 1, family.n_rows), family.n_subjects)
    return subject, t, np.arange(family.n_subjects) % 2.0


@cache
def data(kind):
    """Outcome of each row."""
    rng = np.random.default_rng(31)
    subject, t, x = covariates(kind)
    v = FAMILIES[kind].truth
    b = v.get("a", 0.0) + v["beta"] * x + v["omega"] * rng.normal(size=x.size)
    predictor = b[subject] + v.get("slope", 0.0) * t
    if kind.startswith("poisson"):
        return rng.poisson(np.exp(predictor))
    if kind.startswith("logistic"):
        return (rng.uniform(size=t.size) < expit(predictor)).astype(int)
    if kind == "binomial":
        return rng.binomial(N_TRIALS, expit(predictor))
    if kind == "negative_binomial":
        return rng.poisson(np.exp(predictor) * rng.gamma(v["alpha"], 1 / v["alpha"], t.size))
    return (predictor + rng.logistic(size=t.size) > np.array(v["cutpoints"])[:, None]).sum(axis=0)


def build(kind):
    subject, t, x = covariates(kind)
    y, truth = data(kind), FAMILIES[kind].truth
    with pm.Model(coords={"subject": np.arange(x.size)}) as model:
        a = pm.Flat("a") if "a" in truth else 0.0  # the cutpoints place an ordinal outcome
        b = pm.Normal(
            "b", a + pm.Flat("beta") * x, pm.HalfFlat("omega", initval=1.0), dims="subject"
        )
        predictor = b[subject]
        if "slope" in truth:
            predictor = predictor + pm.Flat("slope") * t
        if kind.startswith("poisson"):
            pm.Poisson("y", pt.exp(predictor), observed=y)
        elif kind.startswith("logistic"):
            pm.Bernoulli("y", logit_p=predictor, observed=y)
        elif kind == "binomial":
            pm.Binomial("y", n=N_TRIALS, logit_p=predictor, observed=y)
        elif kind == "negative_binomial":
            pm.NegativeBinomial(
                "y", mu=pt.exp(predictor), alpha=pm.HalfFlat("alpha", initval=1.0), observed=y
            )
        else:
            cutpoints = pm.Flat(
                "cutpoints", shape=3, transform=ordered, initval=np.array([-1.0, 0.0, 1.0])
            )
            pm.OrderedLogistic("y", eta=predictor, cutpoints=cutpoints, observed=y, compute_p=False)
    return model


def log_outcome(kind, v, predictor):
    """Log probability of each row (..., row)."""
    y = data(kind)
    if kind.startswith("poisson"):
        return y * predictor - np.exp(predictor) - gammaln(y + 1)
    if kind.startswith("logistic"):
        return log_expit(np.where(y == 1, predictor, -predictor))
    if kind == "binomial":
        choose = gammaln(N_TRIALS + 1) - gammaln(y + 1) - gammaln(N_TRIALS - y + 1)
        return choose + y * log_expit(predictor) + (N_TRIALS - y) * log_expit(-predictor)
    if kind == "negative_binomial":
        alpha, log_total = v["alpha"], np.logaddexp(np.log(v["alpha"]), predictor)
        choose = gammaln(y + alpha) - gammaln(alpha) - gammaln(y + 1)
        return choose + alpha * (np.log(alpha) - log_total) + y * (predictor - log_total)
    edges = np.concatenate([[-np.inf], v["cutpoints"], [np.inf]])
    return np.log(expit(edges[y + 1] - predictor) - expit(edges[y] - predictor))


def center(kind, v):
    return v.get("a", 0.0) + v["beta"] * covariates(kind)[2]


def joint(kind, v, phi):
    subject, t, _ = covariates(kind)
    b = phi[..., 0]
    rows = log_outcome(kind, v, b[..., subject] + v.get("slope", 0.0) * t)
    return log_normal_density(b, center(kind, v), v["omega"]) + sum_rows(rows, subject)


def marginal(kind, v, n_nodes: int = 21):
    with np.errstate(all="ignore"):  # the search for the mode tries absurd values, and leaves them
        return gauss_hermite(
            lambda phi: joint(kind, v, phi), center(kind, v)[:, None], n_nodes
        ).sum()


CASES = tuple(
    Case(
        kind,
        partial(build, kind),
        partial(marginal, kind),
        (family.truth,),
        {"omega": "positive", "alpha": "positive", "cutpoints": "ordered"},
        joint=partial(joint, kind),
    )
    for kind, family in FAMILIES.items()
)
