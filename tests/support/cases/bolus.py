"""An intravenous bolus in one compartment, log-normal V and CL, with several error models; quadrature in 2 dimensions."""

from functools import cache, partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from scipy.special import log_ndtr

from .case import Case
from .quadrature import gauss_hermite, log_normal_density, sum_rows

N_SUBJECTS, DOSE, LIMIT = 30, 100.0, 0.8
TIMES = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 9.0, 12.0])
#: The values that the data are simulated with; V about 10, CL about 3, so concentrations from 10 to
#: 0.3.
TRUTH = {"log_V": np.log(10.0), "log_CL": np.log(3.0), "omega_V": 0.2, "omega_CL": 0.35}
ERRORS = {
    "proportional": {"b": 0.15},
    "combined": {"a": 0.2, "b": 0.12},
    "combined_linear": {"a": 0.15, "b": 0.1},
    "censored": {"sigma": 0.4},
    "truncated": {"sigma": 0.4},
}


def deviation(kind, f, v, sqrt=np.sqrt):
    """Standard deviation of the error at predictions ``f``; the one formula that model and evaluator share."""
    if kind == "proportional":
        return v["b"] * f
    if kind == "combined":
        return sqrt(v["a"] ** 2 + (v["b"] * f) ** 2)
    if kind == "combined_linear":
        return v["a"] + v["b"] * f
    return v["sigma"]


@cache
def data(kind):
    """Rows (conc, time, subject). Censored rows stand at LIMIT; truncated data lack the rows below it."""
    rng = np.random.default_rng(21)
    subject, t = np.repeat(np.arange(N_SUBJECTS), TIMES.size), np.tile(TIMES, N_SUBJECTS)
    volume = np.exp(TRUTH["log_V"] + TRUTH["omega_V"] * rng.normal(size=N_SUBJECTS))
    clearance = np.exp(TRUTH["log_CL"] + TRUTH["omega_CL"] * rng.normal(size=N_SUBJECTS))
    f = DOSE / volume[subject] * np.exp(-(clearance / volume)[subject] * t)
    conc = f + deviation(kind, f, ERRORS[kind]) * rng.normal(size=f.size)
    if kind == "censored":
        conc = np.maximum(conc, LIMIT)
    keep = conc > LIMIT if kind == "truncated" else np.full(f.size, True)
    return conc[keep], t[keep], subject[keep]


def build(kind):
    conc, t, subject = data(kind)
    with pm.Model(coords={"subject": np.arange(N_SUBJECTS)}) as model:
        effect = {}
        for name, start in (("V", 2.0), ("CL", 0.5)):
            mean = pm.Flat(f"log_{name}", initval=start)
            effect[name] = pm.LogNormal(
                name, mean, pm.HalfFlat(f"omega_{name}", initval=0.5), dims="subject"
            )
        error = {name: pm.HalfFlat(name, initval=0.3) for name in ERRORS[kind]}
        V, CL = (effect[name][subject] for name in ("V", "CL"))
        f = DOSE / V * pt.exp(-CL / V * t)
        sd = deviation(kind, f, error, pt.sqrt)
        if kind == "censored":
            pm.Censored("conc", pm.Normal.dist(f, sd), lower=LIMIT, upper=None, observed=conc)
        elif kind == "truncated":
            pm.Truncated("conc", pm.Normal.dist(f, sd), lower=LIMIT, upper=None, observed=conc)
        else:
            pm.Normal("conc", f, sd, observed=conc)
    return model


def joint(kind, v, phi):
    conc, t, subject = data(kind)
    log_v, log_cl = np.moveaxis(phi[..., subject, :], -1, 0)
    f = np.exp(np.log(DOSE) - log_v - np.exp(log_cl - log_v) * t)
    sd = deviation(kind, f, v)
    rows = log_normal_density(conc, f, sd)
    if kind == "censored":
        rows = np.where(conc > LIMIT, rows, log_ndtr((LIMIT - f) / sd))
    elif kind == "truncated":
        rows = rows - log_ndtr((f - LIMIT) / sd)
    prior = log_normal_density(
        phi, np.array([v["log_V"], v["log_CL"]]), np.array([v["omega_V"], v["omega_CL"]])
    ).sum(axis=-1)
    return prior + sum_rows(rows, subject)


def marginal(kind, v, n_nodes: int = 13):
    start = np.tile([v["log_V"], v["log_CL"]], (N_SUBJECTS, 1))
    with np.errstate(all="ignore"):  # the search for the mode tries absurd values, and leaves them
        return gauss_hermite(lambda phi: joint(kind, v, phi), start, n_nodes).sum()


CASES = tuple(
    Case(
        f"bolus_{kind}",
        partial(build, kind),
        partial(marginal, kind),
        (TRUTH | error,),
        {name: "positive" for name in ("omega_V", "omega_CL", *error)},
        joint=partial(joint, kind),
    )
    for kind, error in ERRORS.items()
)
