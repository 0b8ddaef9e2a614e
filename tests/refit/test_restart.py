"""A fit at its maximum does not get better from there; one that stopped early does, and by as much as the exact likelihood says."""

import warnings

import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.refit.restart import RestartCheck


def intercepts():
    """Random intercept, 12 subjects x 3 rows: exact ML a .0275, omega_sd .80081, sigma .3, loglik -26.386860 (DESIGN section 10)."""
    i = np.arange(1, 13)
    eta = np.where(i % 2 == 1, -1.1, 1.1) * (0.4 + 0.6 * i / 12)
    y, subject = eta[:, None] + np.array([-0.3, 0.0, 0.3]), np.repeat(np.arange(12), 3)
    with pm.Model(coords={"subject": i}) as model:
        a = pm.Flat("a")
        omega = pm.HalfFlat("omega", initval=3.0)
        sigma = pm.HalfFlat("sigma", initval=3.0)
        b = pm.Normal("b", a, omega, dims="subject")
        pm.Normal("y", b[subject], sigma, observed=y.ravel())
    return model


def fitted(model, **options):
    with warnings.catch_warnings(action="ignore"):  # about runs that are too short
        return ps.fit_saem(model, n_starts=0, random_seed=1, progressbar=False, draws=20, **options)


def test_a_maximum_stays_and_an_early_stop_does_not():
    model, exact = intercepts(), -26.386860
    good = ps.check_restart(model, fitted(model), n_explore=50, n_smooth=150, random_seed=1)
    assert not good.is_better and abs(good.gain) < 0.05 and "at an optimum" in str(good)
    assert good.loglik == pytest.approx(exact, abs=0.05) and good.table["moved"].max() < 0.3
    early = ps.check_restart(model, fitted(model, n_explore=5, n_smooth=0), n_explore=100, n_smooth=150, random_seed=1)
    assert early.is_better and "had not reached its optimum" in early.advice
    assert early.loglik_again == pytest.approx(exact, abs=0.05)
    assert early.gain == pytest.approx(early.loglik_again - early.loglik)
    assert early.table.loc["sigma", "again"] == pytest.approx(0.3, abs=0.01)


def test_a_gain_within_its_error_is_none():
    assert not RestartCheck(None, -10.0, -9.0, 1.0, 0.3).is_better
    assert RestartCheck(None, -10.0, -9.0, 1.0, 0.2).is_better
