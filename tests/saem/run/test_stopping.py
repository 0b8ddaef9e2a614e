"""When a run ends, and what it says of drift, chains and shrinkage."""

import re
import warnings

import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group
from pymc_saem.saem.core.schedule import FIRST_LOOK, LOOK_EVERY, N_LOOKS, Drift, StoppingRule
from tests.support.cases import CASES
from tests.support.models import random_intercept, slopes, slopes_data, slopes_loglik

QUICK = {"draws": 5, "progressbar": False}


def test_drift_and_its_error_against_known_moments():
    """Independent iterates: the error is that of the difference of two means; a slope of 1 moves them by half the length."""
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(400, 2000))
    found = Drift.of(noise, np.ones(2000))
    # of the last 200, two halves of 100
    assert np.isclose(np.mean(found.error**2), 2.0 / 100, rtol=0.05)
    assert np.isclose(np.mean(found.size**2), 2.0 / 100, rtol=0.15)
    slope = np.arange(400.0)[:, None] * np.array([1.0, 0.0])
    assert np.allclose(Drift.of(slope, np.array([4.0, 1.0])).size, [100 / 4.0, 0.0])


def test_the_rule_wants_several_looks_without_drift():
    rng = np.random.default_rng(3)
    still = list(1e-3 * rng.normal(size=(400, 2)))
    rule, stops = StoppingRule(0.05), []
    for n in range(1, 400):
        if rule(still[:n], lambda: np.ones(2)):
            stops.append(n)
            break
    assert stops == [FIRST_LOOK + (N_LOOKS - 1) * LOOK_EVERY]
    moving = [np.array([0.01 * k]) for k in range(400)]
    rule = StoppingRule(0.05)
    assert not any(rule(moving[:n], lambda: np.ones(1)) for n in range(1, 400))
    rule = StoppingRule(0.0)
    assert not any(rule(still[:n], lambda: np.ones(2)) for n in range(1, 400))


@pytest.mark.slow
def test_a_run_ends_when_it_has_settled():
    idata = ps.fit_saem(random_intercept(), random_seed=1, n_smooth=2000, **QUICK)
    trace = get_group(idata, "saem_trace")
    n = trace.sizes["iteration"]
    assert trace.attrs["n_iterations"] == n < 1000 and trace.attrs["converged"] == "true"
    assert abs(trace["sigma"].values[0, -1] - 0.3) < 0.01


@pytest.mark.slow
def test_a_run_that_has_not_settled_says_so():
    """A start far away, no exploration, and steps 1/k."""
    far = {"a": 20.0, "omega": 0.3, "sigma": 0.3}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        ps.fit_saem(
            random_intercept(), initvals=far, n_explore=0, n_smooth=120, n_starts=0, step_size_exponent=1.0,
            random_seed=1, **QUICK,
        )  # fmt: skip
    (drift,) = (str(w.message) for w in caught if "has not converged" in str(w.message))
    assert re.search(
        "has not converged: 'sigma' drifted by [1-9][0-9.]* approximate standard errors .* Increase n_smooth",
        drift,
    )


@pytest.mark.slow
def test_chains_start_apart_and_agree():
    idata = ps.fit_saem(random_intercept(), chains=3, random_seed=2, n_starts=0, **QUICK)
    trace = get_group(idata, "saem_trace")
    assert trace.sizes["chain"] == 3 and np.ptp(trace["a"].values[:, 0]) > 0
    ends = trace["sigma"].values[:, -1]
    assert np.ptp(ends) < 0.02  # approximate standard error .035


@pytest.mark.slow
def test_chains_that_end_in_different_maxima_are_reported():
    """Two clusters that a mean of |m| cannot tell apart: m and -m are the same model."""
    rng = np.random.default_rng(1)
    subject = np.repeat(np.arange(12), 3)
    y = np.abs(2.0 + 0.3 * rng.normal(size=12))[subject] + 0.1 * rng.normal(size=36)
    with pm.Model(coords={"subject": range(12)}) as model:
        b = pm.Normal(
            "b", pm.Flat("m", initval=0.05), pm.HalfFlat("o", initval=1.0), dims="subject"
        )
        pm.Normal("y", pm.math.abs(b)[subject], pm.HalfFlat("sigma", initval=1.0), observed=y)
    with pytest.warns(
        UserWarning, match="The chains disagree: 'm' differs by [0-9.]+ approximate standard errors"
    ):
        ps.fit_saem(model, chains=4, random_seed=1, n_starts=0, **QUICK)


@pytest.mark.slow
def test_shrinkage_is_reported():
    """One row per subject, and as much noise as variability: conditional modes shrink by half and more."""
    rng = np.random.default_rng(3)
    y = rng.normal(size=(40, 2)) * 0.4 + 0.3 * rng.normal(size=(40, 1))
    with pm.Model(coords={"subject": range(40)}) as model:
        b = pm.Normal("b", pm.Flat("m"), pm.HalfFlat("o", initval=0.3), dims="subject")
        pm.Normal("y", b[np.repeat(np.arange(40), 2)], 0.6, observed=y.ravel())
    with pytest.warns(UserWarning, match=r"The shrinkage is above 50 % for b [0-9]+ %"):
        ps.fit_saem(model, random_seed=1, **QUICK)


# A quarter of the few solves of a minibatch fit is too little for the draws of 100 subjects, of
# which it asks for 5.
@pytest.mark.filterwarnings("ignore:The conditional draws of:UserWarning")
@pytest.mark.slow
def test_minibatches_have_the_same_limit():
    """A fifth of the subjects in each iteration; within 0.1 of the exact maximum of the log-likelihood, as all of them."""
    from tests.saem.run.test_fit import estimates, exact_slopes

    data = slopes_data(n_subjects=100, n_rows=5)
    _, top = exact_slopes(data)
    solves = []
    for minibatch in (1.0, 0.2):
        idata = ps.fit_saem(
            slopes(data), objective="ml", minibatch=minibatch, n_transitions=40, n_explore=150, n_smooth=700, tolerance=0.0,
            random_seed=1, **QUICK,
        )  # fmt: skip
        found, chol = estimates(idata), np.zeros((2, 2))
        chol[np.tril_indices(2)] = found["chol"]
        assert (
            slopes_loglik(found["beta"], found["gamma"], chol @ chol.T, found["sigma"], data)
            > top - 0.1
        )
        solves.append(int(get_group(idata, "saem_trace").attrs["n_solves"]))
    assert solves[1] < 0.25 * solves[0]


@pytest.mark.parametrize(
    "name",
    ["orange", "logistic_time", "bolus_combined", "bolus_censored", "student_effect", "nested_flat", "noncentered",
     "theophylline_weight", "map_orange"],
)  # fmt: skip
@pytest.mark.slow
def test_default_fits_reach_the_exact_maximum(name):
    """Log-likelihood within 0.1 and every parameter within 0.3 standard errors of the exact maximum (tests/saem/cases)."""
    case = CASES[name]
    table = ps.summary(ps.fit_saem(case.build(), random_seed=1, **QUICK, **case.options))
    values = {}
    for parameter, like in case.starts[0].items():
        entries = [
            label
            for label in table.index
            if label == parameter or label.startswith(f"{parameter}[")
        ]
        values[parameter] = table["estimate"][entries].to_numpy().reshape(np.shape(like))[()]
    assert case.objective(values) > case.answer.objective - 0.1
    errors = (case.flat(values) - case.answer.estimate) / case.answer.standard_error
    assert np.abs(errors).max() < 0.3
