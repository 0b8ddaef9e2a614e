"""Two nested levels, 20 subjects with 3 occasions each, in three spellings with one Gaussian marginal."""

from functools import cache

import numpy as np
import pymc as pm

from .case import Case
from .linear import gaussian_loglik, unbalanced

N_SUBJECTS, N_OCCASIONS = 20, 3


@cache
def data():
    """Observations, subject and occasion (0, 1, 2) of each row; 2 to 4 rows per occasion."""
    rng = np.random.default_rng(13)
    visit = unbalanced(rng, N_SUBJECTS * N_OCCASIONS, 2, 4)
    subject, occasion = np.divmod(visit, N_OCCASIONS)
    level = 3.0 + 1.0 * rng.normal(size=N_SUBJECTS)
    shift = 0.6 * rng.normal(size=(N_SUBJECTS, N_OCCASIONS))
    y = level[subject] + shift[subject, occasion] + 0.4 * rng.normal(size=visit.size)
    return y, subject, occasion


def build(spelling):
    """Model in which the occasion's effect is "added", has the subject's as its "mean", or has an index ("flat")."""
    y, subject, occasion = data()
    visit_subject = np.repeat(np.arange(N_SUBJECTS), N_OCCASIONS)
    coords = {
        "subject": np.arange(N_SUBJECTS),
        "occasion": np.arange(N_OCCASIONS),
        "visit": visit_subject.cumsum(),
    }
    with pm.Model(coords=coords) as model:
        a = pm.Flat("a")
        omega_subject = pm.HalfFlat("omega_subject", initval=1.0)
        omega_occasion = pm.HalfFlat("omega_occasion", initval=1.0)
        sigma = pm.HalfFlat("sigma", initval=1.0)
        b = pm.Normal("b", a, omega_subject, dims="subject")
        if spelling == "added":
            shift = pm.Normal("shift", 0.0, omega_occasion, dims=("subject", "occasion"))
            mean = b[subject] + shift[subject, occasion]
        elif spelling == "mean":
            level = pm.Normal("level", b[:, None], omega_occasion, dims=("subject", "occasion"))
            mean = level[subject, occasion]
        else:
            level = pm.Normal("level", b[visit_subject], omega_occasion, dims="visit")
            mean = level[subject * N_OCCASIONS + occasion]
        pm.Normal("y", mean, sigma, observed=y)
    return model


def loglik(v):
    y, subject, occasion = data()
    total = 0.0
    for i in range(N_SUBJECTS):
        mine = subject == i
        same = occasion[mine][:, None] == occasion[mine]
        covariance = (
            v["omega_subject"] ** 2
            + v["omega_occasion"] ** 2 * same
            + v["sigma"] ** 2 * np.eye(mine.sum())
        )
        total += gaussian_loglik(y[mine], v["a"], covariance)
    return total


CASES = tuple(
    Case(
        f"nested_{spelling}",
        lambda spelling=spelling: build(spelling),
        loglik,
        ({"a": 0.0, "omega_subject": 1.0, "omega_occasion": 1.0, "sigma": 1.0},),
        {name: "positive" for name in ("omega_subject", "omega_occasion", "sigma")},
    )
    for spelling in ("added", "mean", "flat")
)
