"""A linear model with normal errors, whose modes, means and covariances are known, and a fit of it at the truth."""

import numpy as np
import pymc as pm

from tests.support.made_up_fit import made_up_fit

N, R = 8, 4
SUBJECT = np.tile(np.arange(N), R)  # rows of the subjects mixed
T = np.repeat(np.array([0.0, 1.0, 2.5, 4.0]), N)
A, SLOPE, OMEGA, SIGMA = 2.0, 0.5, 0.8, 0.4


def simulate(rng, n, omega=OMEGA, sigma=SIGMA):
    """Data sets, (n, row)."""
    b = A + omega * rng.standard_normal((n, N))
    return b[:, SUBJECT] + SLOPE * T + sigma * rng.standard_normal((n, N * R))


def build(y, outcome=None):
    """The model with data ``y``; ``outcome(mean, sigma, y)`` may give another distribution than the normal one."""
    with pm.Model(coords={"subject": [f"s{k}" for k in range(N)]}) as model:
        a, slope = pm.Flat("a"), pm.Flat("slope")
        omega, sigma = pm.HalfFlat("omega"), pm.HalfFlat("sigma")
        b = pm.Normal("b", a, omega, dims="subject")
        mean = b[SUBJECT] + slope * T
        if outcome is None:
            pm.Normal("y", mean, sigma, observed=y)
        else:
            outcome(mean, sigma, y)
    return model


def modes(y):
    """Conditional modes of b, (subject,)."""
    total = np.bincount(SUBJECT, y - SLOPE * T, minlength=N)
    return (total / SIGMA**2 + A / OMEGA**2) / (R / SIGMA**2 + 1 / OMEGA**2)


def fit_at_truth(model, mode, outcomes=("y",)):
    fit = made_up_fit(
        model,
        {"b": mode},
        {"a": A, "slope": SLOPE, "omega": OMEGA, "sigma": SIGMA},
        {name: SUBJECT for name in outcomes},
    )
    fit["individual"]["b_population"].values[:] = A
    return fit


def covariance():
    """Of the rows of one subject, (R, R)."""
    return OMEGA**2 * np.ones((R, R)) + SIGMA**2 * np.eye(R)
