"""A one-compartment model by ``solver="linear"`` and by its formula: the same fit."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import pymc_saem as ps

N, TIMES, DOSE, VOLUME = 4, np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0]), 100.0, 20.0
SUBJECT = np.repeat(np.arange(N), TIMES.size)


def formula(ka, ke):
    ka, ke, t = ka[SUBJECT], ke[SUBJECT], np.tile(TIMES, N)
    return DOSE / VOLUME * ka / (ka - ke) * (pt.exp(-ke * t) - pt.exp(-ka * t))


def system(ka, ke):
    solution = ps.ode.solve_ivp(
        lambda t, y, p: {"gut": -p.ka * y.gut, "blood": p.ka * y.gut - p.ke * y.blood},
        {"gut": DOSE / VOLUME, "blood": 0.0}, {"ka": ka, "ke": ke}, np.tile(TIMES, N), SUBJECT,
    )  # fmt: skip
    assert solution.solver == "linear"
    return solution.blood


def fit(curves):
    rng = np.random.default_rng(1)
    ka, ke = (np.exp(np.log(c) + 0.2 * rng.normal(size=N)) for c in (1.5, 0.2))
    observed = formula(ka, ke).eval() + 0.1 * rng.normal(size=SUBJECT.size)
    with pm.Model(coords={"subject": range(N)}):
        mu = {name: pm.Normal(f"mu_{name}", 0.0, 2.0) for name in ("ka", "ke")}
        omega = {name: pm.HalfNormal(f"omega_{name}", 1.0) for name in ("ka", "ke")}
        sigma = pm.HalfNormal("sigma", 1.0)
        log_ka = pm.Normal("log_ka", mu["ka"], omega["ka"], dims="subject")
        log_ke = pm.Normal("log_ke", mu["ke"], omega["ke"], dims="subject")
        pm.Normal(
            "obs",
            curves(pm.math.exp(log_ka + 0.5), pm.math.exp(log_ke - 1.5)),
            sigma,
            observed=observed,
        )
        idata = ps.fit_saem(
            n_explore=6,
            n_smooth=6,
            n_transitions=8,
            n_replicates=2,
            draws=10,
            n_starts=1,
            random_seed=3,
            likelihood=None,
            standard_errors=None,
        )
    return ps.summary(idata)["estimate"]


@pytest.mark.slow
def test_estimates_are_those_of_the_formula():
    """Same seed, same proposals; only rounding differs."""
    np.testing.assert_allclose(fit(system), fit(formula), rtol=1e-6)
