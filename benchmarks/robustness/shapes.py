"""Parameters of every prior, shape and transform beside a random intercept: the fit ends, and its estimates are where the prior allows them."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions import transforms

import pymc_saem as ps
from robustness.judge import Input, Lost
from robustness.linear import Data, fit

K = 4
_start = np.array([-0.3, 0.0, 0.2, 0.4])


def _positive(x):
    return None if (x > 0).all() else "not positive"


def _simplex(x):
    return None if np.allclose(x.sum(-1), 1) and (x > 0).all() else "no simplex"


def _lkj():
    found = pm.LKJCorr("x", n=3, eta=2)
    flat = found.flatten()
    return pt.concatenate([flat[:3], [0.0]])


# Parameters of 4 entries that are added to the rows: prior, and what its values are.
VECTORS = {
    "ZeroSumNormal": (lambda: pm.ZeroSumNormal("x", 1.0, shape=K), lambda x: None if abs(x.sum(-1)).max() < 1e-9 else "sum"),
    "Dirichlet": (lambda: pm.Dirichlet("x", np.ones(K)), _simplex),
    "Dirichlet of two rows": (lambda: pm.Dirichlet("x", np.ones((2, K)))[0], _simplex),
    "StickBreakingWeights": (lambda: pm.StickBreakingWeights("x", 1.0, K - 1), _simplex),
    "ordered": (lambda: pm.Normal("x", 0, 1, shape=K, transform=transforms.ordered, initval=_start), lambda x: None if (np.diff(x) > 0).all() else "order"),
    "sum_to_1": (lambda: pm.Uniform("x", 0, 1, shape=K, default_transform=None, transform=transforms.sum_to_1, initval=np.full(K, 0.25)), _simplex),
    "circular": (lambda: pm.VonMises("x", 0, 1, shape=K), lambda x: None if abs(x).max() <= np.pi else "angle"),
    "interval": (lambda: pm.Uniform("x", -1, 1, shape=K), lambda x: None if abs(x).max() < 1 else "outside"),
    "truncated": (lambda: pm.TruncatedNormal("x", 0, 1, lower=-0.5, upper=2, shape=K), lambda x: None if x.min() > -0.5 else "outside"),
    "MvNormal": (lambda: pm.MvNormal("x", np.zeros(K), np.eye(K)), None),
    "no entries": (lambda: pt.concatenate([pm.Normal("x", shape=0), np.zeros(K)]), None),
    "a cube": (lambda: pm.Normal("x", 0, 1, shape=(1, K, 1))[0, :, 0], None),
    "LKJCorr": (_lkj, None),
    "random walk": (lambda: pm.GaussianRandomWalk("x", 0, 1, init_dist=pm.Normal.dist(0, 1), steps=K - 1), None),
    "AR": (lambda: pm.AR("x", rho=[0.5], sigma=1.0, init_dist=pm.Normal.dist(0, 1), steps=K - 1), None),
    "Deterministic of all": (lambda: pm.Deterministic("all", pm.Normal("x", 0, 1, shape=K) * 2), None),
    "simplex of one": (lambda: pt.zeros(K) + pm.Dirichlet("x", np.ones(1))[0], None),
    "Cauchy": (lambda: pm.Cauchy("x", 0, 1, shape=K), None),
    "Laplace": (lambda: pm.Laplace("x", 0, 1, shape=K), None),
    "StudentT": (lambda: pm.StudentT("x", 3, shape=K), None),
    "Flat": (lambda: pm.Flat("x", shape=K), None),
    "Gumbel": (lambda: pm.Gumbel("x", 0, 1, shape=K), None),
    "by CustomDist": (lambda: pm.CustomDist("x", 0.0, logp=lambda v, m: -0.5 * (v - m) ** 2, shape=K), None),
}  # fmt: skip


# Priors of the residual standard deviation.
SCALES = {
    name: (lambda kind=kind, options=options: getattr(pm, kind)("x", **options))
    for name, kind, options in [
        ("HalfFlat that starts at 0", "HalfFlat", {"initval": 0.0}), ("HalfFlat", "HalfFlat", {"initval": 1.0}), ("HalfCauchy", "HalfCauchy", {"beta": 1}), ("HalfStudentT", "HalfStudentT", {"nu": 3}),
        ("Exponential", "Exponential", {"lam": 1}), ("Gamma", "Gamma", {"alpha": 2, "beta": 2}), ("InverseGamma", "InverseGamma", {"alpha": 2, "beta": 1}), ("LogNormal", "LogNormal", {"mu": 0, "sigma": 1}),
        ("Weibull", "Weibull", {"alpha": 2, "beta": 1}), ("Uniform", "Uniform", {"lower": 0, "upper": 5}), ("Uniform that starts at its end", "Uniform", {"lower": 0, "upper": 5, "initval": 5.0}),
        ("Beta", "Beta", {"alpha": 2, "beta": 2}), ("Pareto", "Pareto", {"alpha": 1, "m": 0.1}), ("ChiSquared", "ChiSquared", {"nu": 2}), ("TruncatedNormal", "TruncatedNormal", {"mu": 1, "sigma": 1, "lower": 0}),
        ("Wald", "Wald", {"mu": 1, "lam": 1}), ("Kumaraswamy", "Kumaraswamy", {"a": 2, "b": 2}), ("Triangular", "Triangular", {"lower": 0, "c": 1, "upper": 3}),
        ("a Normal that may be negative", "Normal", {"mu": 1, "sigma": 1}), ("a bounded one whose truth is outside", "Uniform", {"lower": 2, "upper": 3}),
    ]
}  # fmt: skip
COUNT = len(VECTORS) + len(SCALES)
BUNCH = 8


def _whole(model):
    found = fit(model)
    try:
        ps.summary(found)
        return found["posterior"]["x"].values if "x" in found["posterior"] else None, found[
            "population"
        ]["estimate"].values
    except Exception as error:
        raise Lost(f"after the fit: {type(error).__name__}: {error}") from error


def make(seed):
    rng = np.random.default_rng([7, seed])
    d, k = Data(rng), seed % COUNT
    place = rng.integers(0, K, d.g.size)
    is_vector = k < len(VECTORS)
    name = [*VECTORS, *SCALES][k]
    with pm.Model(coords={"subject": range(d.n)}) as model:
        sigma = pm.HalfNormal("sigma", 1.0) if is_vector else SCALES[name]()
        extra = VECTORS[name][0]() if is_vector else np.zeros(K)
        e = pm.Normal("e", pm.Normal("mu", 0, 5), pm.HalfNormal("omega", 2), dims="subject")
        pm.Normal("y", e[d.g] + extra[place], sigma, observed=d.y)
    check = VECTORS[name][1] if is_vector else _positive

    def wrong(found):
        values, numbers = found
        if not np.isfinite(numbers).all():
            return f"estimates {numbers}"
        if values is None:
            return "no x in the posterior"
        if not np.isfinite(values).all():
            return "draws that are not finite"
        return check(values) if check else None

    return Input(name, lambda: _whole(model), wrong, ("'x'", "x ", "x[", "initval"))
