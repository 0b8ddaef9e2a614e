"""One compilation, many fits: with other data, constants and weights, and what is refused."""

import cloudpickle
import numpy as np
import pymc as pm
import pytest

from pymc_saem.refit.refitter import Refitter
from pymc_saem.saem.core.schedule import HELD
from tests.support.models import exact_loglik, random_intercept, random_intercept_data

START = {"a": 0.0275, "omega": 0.80081, "sigma": 0.3}
Y, SUBJECT = random_intercept_data()


@pytest.fixture(scope="module")
def refitter(intercepts):
    return Refitter(intercepts, other_data=True, n_explore=50, n_smooth=150, tolerance=0.0)


@pytest.mark.slow
def test_other_data_weights_and_constants(refitter, intercepts, exact_maximum):
    before = dict(intercepts.rvs_to_values)
    new = Y + np.random.default_rng(3).normal(size=36) * 0.5
    weight = np.array([1.0, 2.0, 0.0, 1.0, 1.0, 3.0, 1.0, 1.0, 0.0, 1.0, 0.5, 1.0])
    found = refitter.fit(observed={"y": new}, weights=weight, start=START, seed=1)
    np.testing.assert_allclose(found.values, exact_maximum(new.reshape(12, 3), weight), atol=0.01)
    held = refitter.fit(fixed={"sigma": 0.5}, start=START, seed=2)
    between = np.var(Y.reshape(12, 3).mean(axis=1))
    assert held.estimates["sigma"] == 0.5
    assert held.estimates["omega"] == pytest.approx(np.sqrt(between - 0.25 / 3), abs=0.01)
    own = refitter.fit(start=START, seed=1, likelihood="auto")  # nothing of those before is left
    np.testing.assert_allclose(own.values, exact_maximum(Y.reshape(12, 3)), atol=0.005)
    each = [exact_loglik(*own.values, Y[SUBJECT == i], SUBJECT[SUBJECT == i]) for i in range(12)]
    np.testing.assert_allclose(own.likelihood.loglik, each, atol=1e-6)
    assert intercepts.rvs_to_values == before  # the user's model is as it was


@pytest.mark.slow
def test_a_fit_does_not_depend_on_those_before(refitter):
    task = {"observed": {"y": 2.0 * Y}, "start": START, "seed": 5, "weights": np.arange(12.0)}
    first = refitter.fit(**task)
    refitter.fit(fixed={"a": 1.0}, seed=1)
    copy = cloudpickle.loads(cloudpickle.dumps(refitter))
    for again in (refitter.fit(**task), copy.fit(**task)):
        np.testing.assert_array_equal(again.values, first.values)


def test_a_fit_without_a_start_begins_as_the_first_one_would(refitter, exact_maximum):
    found = refitter.fit(observed={"y": 10.0 * Y}, seed=1)
    np.testing.assert_allclose(
        found.values, exact_maximum(10.0 * Y.reshape(12, 3)), rtol=0.02, atol=0.05
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observed": {"z": Y}}, r"names \['z'\]; the outcomes are \['y'\]"),
        ({"observed": {"y": Y[:5]}}, r"shape \(5,\); the data of the model have shape \(36,\)"),
        (
            {"observed": {"y": np.where(np.arange(36) == 4, np.nan, Y)}},
            r"is nan in row 4, of subject 2 \(1 such",
        ),
        ({"start": {"b": 1.0}}, r"start names \['b'\]"),
        ({"start": {"sigma": -1.0}}, "outside the support of 'sigma'"),
        ({"fixed": {"sigma": -1.0}}, "outside the support"),
        ({"weights": np.ones(3)}, "12 numbers are needed"),
    ],
)
def test_what_makes_no_sense_is_refused(refitter, arguments, message):
    with pytest.raises(ValueError, match=message):
        refitter.fit(**arguments)
    np.testing.assert_array_equal(refitter.data.shared["y"].get_value(), Y)


def test_a_likelihood_that_was_not_asked_for_is_refused(refitter):
    with pytest.raises(ValueError, match="has no likelihood; give Refitter.fit a method"):
        _ = refitter.fit(start=START, seed=1).known_likelihood


@pytest.mark.slow
def test_outcomes_outside_their_support_are_refused():
    rng = np.random.default_rng(1)
    subject = np.repeat(np.arange(8), 5)
    with pm.Model(coords={"subject": list("abcdefgh")}) as model:
        b = pm.Normal("b", pm.Flat("mu"), pm.HalfFlat("omega", initval=0.5), dims="subject")
        pm.Poisson("count", pm.math.exp(b[subject]), observed=rng.poisson(3.0, size=40))
        pm.LogNormal(
            "size", b[subject], pm.HalfFlat("sigma", initval=1.0), observed=rng.lognormal(size=40)
        )
    refitter = Refitter(model, other_data=True, n_explore=2, n_smooth=1)
    good = {"count": rng.poisson(3.0, size=40), "size": rng.lognormal(size=40)}
    for name, value, message in (
        (
            "count",
            -1,
            r"'count'\] is outside the support of its distribution in row 7, of subject b",
        ),
        ("count", 0.5, r"'count'\] is 0.5 in row 7, of subject b; the outcome takes whole numbers"),
        ("size", -0.1, r"'size'\] is outside the support"),
    ):
        bad = good[name].astype(float)
        bad[7] = value
        with pytest.raises(ValueError, match=message):
            refitter.fit(observed=good | {name: bad})
    assert np.isfinite(refitter.fit(observed=good, seed=1).values).all()


@pytest.mark.slow
def test_missing_rows(exact_maximum):
    """Rows without a value stay without; weights count the rest."""
    y = Y.copy()
    y[SUBJECT == 3] = np.nan
    with pm.Model(coords={"subject": np.arange(12)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        with pytest.warns(pm.exceptions.ImputationWarning):
            pm.Normal("y", b[SUBJECT], pm.HalfFlat("sigma", initval=1.0), observed=y)
    refitter = Refitter(model, other_data=True, n_explore=50, n_smooth=150, tolerance=0.0)
    weight = np.ones(12)
    weight[3] = 0.0
    found = refitter.fit(
        observed={"y_observed": 2.0 * Y[SUBJECT != 3]}, weights=weight, start=START, seed=1
    )
    np.testing.assert_allclose(
        found.values, exact_maximum(2.0 * Y.reshape(12, 3), weight), atol=0.01
    )


@pytest.mark.slow
def test_score_parameters_are_held_one_by_one():
    """Counts, which have no closed form: the same as fits by a refitter of their own."""
    rng = np.random.default_rng(5)
    person, x = np.repeat(np.arange(10), 4), rng.normal(size=40)
    y = rng.poisson(rng.gamma(2.0, np.exp(rng.normal(0.5, 0.7, 10)[person] + 0.4 * x) / 2.0))
    with pm.Model(coords={"person": range(10)}) as model:
        bx, alpha = pm.Flat("bx"), pm.HalfFlat("alpha", initval=1.0)
        u = pm.Normal("u", pm.Flat("mu"), pm.HalfFlat("omega", initval=1.0), dims="person")
        pm.NegativeBinomial("y", mu=pm.math.exp(u[person] + bx * x), alpha=alpha, observed=y)
    options = {
        "n_explore": 5,
        "n_smooth": 5,
        "tolerance": 0.0,
        "compile_kwargs": {"mode": "FAST_COMPILE"},
    }
    both = Refitter(model, **options)
    free = both.fit(seed=1)
    for held in ({"alpha": 2.0}, {"alpha": 2.0, "bx": 0.3}):
        found, alone = (
            both.fit(fixed=held, seed=1),
            Refitter(model, fixed=held, **options).fit(seed=1),
        )
        assert {name: found.estimates[name] for name in held} == held
        np.testing.assert_allclose(found.values, alone.values, rtol=1e-10)
    np.testing.assert_array_equal(both.fit(seed=1).values, free.values)


def test_a_refit_from_an_estimate_holds_no_variances():
    """Half of the start is a maximum that is reached from above too: the hold is for residual variances far above theirs."""
    refitter = Refitter(random_intercept(), n_explore=30, n_smooth=60, tolerance=0.0)
    refitter.fit(start={"omega": 3.0}, seed=1)
    assert refitter.step.schedule.held == 0.0
    refitter.fit(seed=1)
    assert refitter.step.schedule.held == HELD
