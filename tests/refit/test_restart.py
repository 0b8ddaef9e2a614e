"""A fit at its maximum does not get better from there; one that stopped early does, and by as much as the exact likelihood says."""

import warnings

import pytest

import pymc_saem as ps
from pymc_saem.refit.restart import RestartCheck


def fitted(model, **options):
    with warnings.catch_warnings(action="ignore"):  # about runs that are too short
        start = {"omega": 3.0, "sigma": 3.0}
        return ps.fit_saem(
            model, initvals=start, n_starts=0, random_seed=1, progressbar=False, draws=20, **options
        )


@pytest.mark.slow
def test_a_maximum_stays_and_an_early_stop_does_not(intercepts):
    model, exact = intercepts, -26.386860  # DESIGN section 10
    good = ps.check_restart(model, fitted(model), n_explore=50, n_smooth=150, random_seed=1)
    assert not good.is_better and abs(good.gain) < 0.05 and "found no better optimum" in str(good)
    assert good.loglik == pytest.approx(exact, abs=0.05) and good.table["moved"].max() < 0.3
    early = ps.check_restart(
        model, fitted(model, n_explore=5, n_smooth=0), n_explore=100, n_smooth=150, random_seed=1
    )
    assert early.is_better and "had not reached its optimum" in early.advice
    assert early.loglik_again == pytest.approx(exact, abs=0.05)
    assert early.gain == pytest.approx(early.loglik_again - early.loglik)
    assert early.table.loc["sigma", "again"] == pytest.approx(0.3, abs=0.01)


def test_a_gain_within_its_error_is_none():
    assert not RestartCheck(None, -10.0, -9.0, 1.0, 0.3).is_better
    assert RestartCheck(None, -10.0, -9.0, 1.0, 0.2).is_better
