"""One linear mixed model written in many ways: its likelihood at fixed values, against the exact one."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt

from robustness.judge import Input
from robustness.linear import Data, at

#: Degrees of freedom; a plain 1e7 would become a small float, for which PyMC's density is wrong by
#: units.
NEARLY_NORMAL = pt.constant(1e7, dtype="float64")


def _z(n):
    return pm.Normal("z", 0.0, 1.0, shape=n)


# The intercepts of the subjects, by parameters and number of subjects: all are Normal(mu, omega^2).
EFFECTS = {
    "centred": lambda p, n: pm.Normal("e", p["mu"], p["omega"], dims="subject"),
    "centred, shape only": lambda p, n: pm.Normal("e", p["mu"], p["omega"], shape=n),
    "centred, by precision": lambda p, n: pm.Normal("e", p["mu"], tau=p["omega"] ** -2, dims="subject"),
    "centred, mean per subject": lambda p, n: pm.Normal("e", p["mu"] + np.zeros(n), p["omega"] * np.ones(n), dims="subject"),
    "centred at 0": lambda p, n: p["mu"] + pm.Normal("e", 0.0, p["omega"], dims="subject"),
    "not centred": lambda p, n: p["mu"] + p["omega"] * _z(n),
    "not centred, the other way round": lambda p, n: _z(n) * p["omega"] + p["mu"],
    "not centred, named": lambda p, n: pm.Deterministic("e", p["mu"] + p["omega"] * _z(n), dims="subject"),
    "not centred, minus": lambda p, n: p["mu"] - p["omega"] * _z(n),
    "not centred, variance": lambda p, n: p["mu"] + pt.sqrt(p["omega"] ** 2) * _z(n),
    "not centred, halves": lambda p, n: p["mu"] / 2 + (0.5 * _z(n)) * (2 * p["omega"]) + p["mu"] / 2,
    "z of another scale": lambda p, n: p["mu"] + p["omega"] / 2 * pm.Normal("z", 0.0, 2.0, shape=n),
    "z of another place": lambda p, n: p["mu"] + p["omega"] * (pm.Normal("z", 1.0, 1.0, shape=n) - 1.0),
    "a column": lambda p, n: pm.Normal("e", p["mu"], p["omega"], shape=(n, 1))[:, 0],
    "a column, not centred": lambda p, n: (p["mu"] + p["omega"] * pm.Normal("z", 0, 1, shape=(n, 1))).flatten(),
    "a row": lambda p, n: pm.Normal("e", p["mu"], p["omega"], shape=(1, n))[0],
    "a row, not centred": lambda p, n: (p["mu"] + p["omega"] * pm.Normal("z", 0, 1, shape=(1, n)))[0],
    "transposed": lambda p, n: (p["mu"] + p["omega"] * pm.Normal("z", 0, 1, shape=(n, 1)).T)[0],
    "on the log scale": lambda p, n: pt.log(pm.LogNormal("e", p["mu"], p["omega"], dims="subject")),
    "on the logit scale": lambda p, n: pm.math.logit(pm.LogitNormal("e", p["mu"], p["omega"], dims="subject")),
    "matrix normal of one": lambda p, n: pm.MvNormal("e", p["mu"][None], (p["omega"] ** 2)[None, None], shape=(n, 1))[:, 0],
    "by its factor": lambda p, n: pm.MvNormal("e", p["mu"][None], chol=p["omega"][None, None], shape=(n, 1))[:, 0],
    "product with a factor": lambda p, n: p["mu"] + (pm.Normal("z", 0, 1, shape=(n, 1)) @ p["omega"][None, None])[:, 0],
    "product from the left": lambda p, n: p["mu"] + (p["omega"][None, None] @ pm.Normal("z", 0, 1, shape=(1, n)))[0],
    "sum of two parts": lambda p, n: pm.Normal("e", p["mu"], 0.6 * p["omega"], shape=n) + pm.Normal("f", 0.0, 0.8 * p["omega"], shape=n),
    "deviation that is an effect": lambda p, n: pm.Normal("e", pm.Normal("d", p["mu"], 0.6 * p["omega"], shape=n), 0.8 * p["omega"], shape=n),
    "one by one": lambda p, n: _pieces(p, n),
    "two halves of the subjects": lambda p, n: pt.concatenate([pm.Normal("e", p["mu"], p["omega"], shape=n // 2), pm.Normal("f", p["mu"], p["omega"], shape=n - n // 2)]),
    "flipped": lambda p, n: pm.Normal("e", p["mu"], p["omega"], shape=n)[::-1],
    "permuted": lambda p, n: pm.Normal("e", p["mu"], p["omega"], shape=n)[np.roll(np.arange(n), 1)],
    "one subject too many": lambda p, n: pm.Normal("e", p["mu"], p["omega"], shape=n + 1)[:n],
    "truncated where nothing is": lambda p, n: pm.TruncatedNormal("e", p["mu"], p["omega"], lower=-1e3, shape=n),
    "heavy tails that are none": lambda p, n: pm.StudentT("e", NEARLY_NORMAL, mu=p["mu"], sigma=p["omega"], shape=n),
    "skewed by nothing": lambda p, n: pm.SkewNormal("e", mu=p["mu"], sigma=p["omega"], alpha=0.0, shape=n),
}  # fmt: skip


def _pieces(p, n):
    z = _z(n)
    return pt.stack([p["mu"] + p["omega"] * z[i] for i in range(n)])


def _matrix(d, e):
    hot = np.zeros((d.g.size, d.n))
    hot[np.arange(d.g.size), d.g] = 1.0
    return hot @ e


# The intercept of each row.
ROWS = {
    "index": lambda d, e: e[d.g],
    "series as index": lambda d, e: e[pd.Series(d.g, index=np.arange(d.g.size)[::-1])],
    "small whole numbers": lambda d, e: e[d.g.astype(np.int8)],
    "unsigned": lambda d, e: e[d.g.astype(np.uint16)],
    "list": lambda d, e: e[d.g.tolist()],
    "from the end": lambda d, e: e[d.g - d.n],
    "data container": lambda d, e: e[pm.Data("group", d.g)],
    "take": lambda d, e: pt.take(e, d.g),
    "indicator matrix": _matrix,
    "column, then index": lambda d, e: e[:, None][d.g, 0],
    "index, then index": lambda d, e: e[np.arange(d.n)][d.g],
    "codes of categories": lambda d, e: e[pd.Categorical(d.g).codes],
    "codes of text": lambda d, e: e[
        np.unique(np.array([f"s{k}" for k in d.g]), return_inverse=True)[1]
    ],
    "repeated": lambda d, e: pt.repeat(e[:, None], 3, axis=1)[d.g, 1],
    "where": lambda d, e: pt.switch(pt.as_tensor(d.g) >= 0, e[d.g], 0.0),
}


def _missing(d, mean, p):
    y = d.y.copy()
    y[[3, 9]] = np.nan
    return pm.Normal("y", mean, p["sigma"], observed=y)


# The outcome.
OUTCOMES = {
    "array": lambda d, mean, p: pm.Normal("y", mean, p["sigma"], observed=d.y),
    "series": lambda d, mean, p: pm.Normal("y", mean, p["sigma"], observed=pd.Series(d.y, index=np.arange(d.y.size)[::-1])),
    "container": lambda d, mean, p: pm.Normal("y", mean, p["sigma"], observed=pm.Data("seen", d.y)),
    "small floats": lambda d, mean, p: pm.Normal("y", mean, p["sigma"], observed=d.y.astype(np.float32)),
    "scale per row": lambda d, mean, p: pm.Normal("y", mean, p["sigma"] * np.ones(d.y.size), observed=d.y),
    "precision": lambda d, mean, p: pm.Normal("y", mean, tau=p["sigma"] ** -2, observed=d.y),
    "missing rows": _missing,
    "one column": lambda d, mean, p: pm.Normal("y", mean[:, None], p["sigma"], observed=d.y[:, None]),
    "one row": lambda d, mean, p: pm.Normal("y", mean[None, :], p["sigma"], observed=d.y[None, :]),
    "two outcomes": lambda d, mean, p: (pm.Normal("y", mean[:20], p["sigma"], observed=d.y[:20]), pm.Normal("x", mean[20:], p["sigma"], observed=d.y[20:])),
    "logarithms": lambda d, mean, p: pm.Normal("y", mean, pt.exp(pt.log(p["sigma"])), observed=d.y),
    "a mean with its name": lambda d, mean, p: pm.Normal("y", pm.Deterministic("m", mean), p["sigma"], observed=d.y),
    "censored where nothing is": lambda d, mean, p: pm.Censored("y", pm.Normal.dist(mean, p["sigma"]), -1e6, 1e6, observed=d.y),
    "heavy tails that are none": lambda d, mean, p: pm.StudentT("y", NEARLY_NORMAL, mu=mean, sigma=p["sigma"], observed=d.y),
    "of a distribution by hand": lambda d, mean, p: pm.CustomDist("y", mean, p["sigma"], logp=lambda v, m, s: -0.5 * ((v - m) / s) ** 2 - pt.log(s) - 0.5 * np.log(2 * np.pi), observed=d.y),
    "potential of its rows": lambda d, mean, p: pm.Potential("y", pm.logp(pm.Normal.dist(mean, p["sigma"]), d.y)),
}  # fmt: skip
COUNT = 66


def spelled(rng, number=None, outcomes=tuple(OUTCOMES)):
    """Data, model and how it is spelled; every way comes up, the others by chance."""
    d = Data(rng)
    pick = [
        str(rng.choice([*options], p=_mostly_first(options)))
        for options in (EFFECTS, ROWS, OUTCOMES)
    ]
    pick[2] = pick[2] if pick[2] in outcomes else outcomes[0]
    if number is not None:
        kind, place = [
            (k, i)
            for k, options in enumerate((EFFECTS, ROWS, OUTCOMES))
            for i in range(len(options))
        ][number]
        pick[kind] = [*(EFFECTS, ROWS, OUTCOMES)[kind]][place]
    with pm.Model(coords={"subject": [f"s{k}" for k in range(d.n)]}) as model:
        p = d.priors()
        mean = ROWS[pick[1]](d, EFFECTS[pick[0]](p, d.n)) + p["slope"] * d.t
        OUTCOMES[pick[2]](d, mean, p)
    if pick[2] == "missing rows":
        d.y = np.where(np.isin(np.arange(d.y.size), [3, 9]), np.nan, d.y)
    return d, model, pick


def _mostly_first(options):
    return np.array([0.6] + [0.4 / (len(options) - 1)] * (len(options) - 1))


def make(seed):
    rng = np.random.default_rng([3, seed])
    d, model, pick = spelled(rng, seed if seed < len(EFFECTS) + len(ROWS) + len(OUTCOMES) else None)
    if pick[2] == "missing rows":
        keep = ~np.isnan(d.y)
        d.y = np.nan_to_num(d.y)
    else:
        keep = None
    right = d.loglik(**d.values, keep=keep)

    def wrong(found):
        loglik, n_subjects = found
        if n_subjects != d.n + (pick[0] == "one subject too many"):
            return f"{n_subjects} subjects, right {d.n}"
        return (
            None
            if abs(loglik - right) < 1e-3
            else f"log-likelihood {loglik:.5f}, right {right:.5f}"
        )

    return Input(
        ", ".join(pick),
        lambda: at(model, d.values),
        wrong,
        ("'e'", "'z'", "'y'", "(y)", "'f'", "'d'", "axis"),
    )
