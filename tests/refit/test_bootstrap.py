"""Every replicate against the exact maximum of its data, and standard errors against closed forms."""

import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.refit.bootstrap import draw_cases
from pymc_saem.refit.fitted import Fitted
from pymc_saem.refit.simulated import simulate_outcomes
from tests.support.models import random_intercept_data, theophylline

Y, _ = random_intercept_data()


@pytest.mark.slow
def test_cases_are_refitted_exactly(intercepts, fit, exact_maximum):
    n = 20
    found = ps.bootstrap(intercepts, fit, n, kind="case", random_seed=2, progressbar=False)
    weights = draw_cases(np.random.default_rng(2).spawn(2)[0], n, 12)
    exact = np.array([exact_maximum(Y.reshape(12, 3), w) for w in weights])
    sd = exact.std(axis=0, ddof=1)
    np.testing.assert_allclose(found.replicates.to_numpy(), exact, atol=0.01)
    assert found.table.index.tolist() == ["a", "omega", "sigma"] and not found.failures
    np.testing.assert_allclose(found.table["se"][:2], sd[:2], rtol=0.02)
    np.testing.assert_allclose(
        found.table["bias"], exact.mean(axis=0) - found.table["estimate"], atol=0.005
    )
    np.testing.assert_allclose(
        found.table[["lower", "upper"]].T, np.quantile(exact, [0.025, 0.975], axis=0), atol=0.01
    )
    assert str(found).startswith("case bootstrap, 20 replicates; 95 % percentile intervals")


@pytest.mark.slow
def test_data_drawn_from_the_fit(intercepts, fit):
    """The standard error of the mean is sqrt((omega^2 + sigma^2 / 3) / 12), up to the Monte-Carlo error of 40 replicates."""
    found = ps.bootstrap(intercepts, fit, 40, kind="parametric", random_seed=3, progressbar=False)
    a, omega, sigma = found.table["estimate"]
    within = 3.0 / np.sqrt(2 * 40)
    assert found.table["se"]["a"] == pytest.approx(
        np.sqrt((omega**2 + sigma**2 / 3) / 12), rel=within
    )
    # 24 degrees of freedom
    assert found.table["se"]["sigma"] == pytest.approx(sigma / np.sqrt(2 * 24), rel=within)
    assert found.replicates["sigma"].mean() == pytest.approx(
        sigma, abs=3 * sigma / np.sqrt(48 * 40)
    )


def test_draws_of_subjects():
    counts = draw_cases(np.random.default_rng(1), 500, 6, strata=list("aaaabb"))
    assert counts.shape == (500, 6)
    assert np.all(counts[:, :4].sum(axis=1) == 4) and np.all(counts[:, 4:].sum(axis=1) == 2)
    # n p (1 - p) with n p = 1
    np.testing.assert_allclose(counts.var(axis=0), [0.75] * 4 + [0.5] * 2, atol=0.15)
    with pytest.raises(ValueError, match="6 labels are needed"):
        draw_cases(np.random.default_rng(1), 2, 6, strata=["a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "residual"}, "must be 'parametric' or 'case'"),
        ({"n": 1}, "n is 1; it must be an integer of at least 2"),
        ({"ci_prob": 95}, "between 0 and 1"),
        ({"strata": [1] * 12}, "strata are for kind='case'"),
        ({"n_chains": 3}, r"\['n_chains'\] are not options of a refit"),
    ],
)
def test_arguments_are_checked(intercepts, fit, arguments, message):
    with pytest.raises(ValueError, match=message):
        ps.bootstrap(intercepts, fit, **arguments)


def test_a_fit_of_another_model_is_refused(fit):
    with pytest.raises(
        ValueError, match="The fit belongs to a different model: its parameters are"
    ):
        ps.bootstrap(theophylline(), fit, kind="case")


@pytest.mark.slow
def test_what_is_lost_is_told(intercepts, fit, monkeypatch):
    """A replicate whose fit fails has a number and a reason."""
    from pymc_saem.refit import refitter

    run = refitter.Refitter._run

    def sometimes(self, theta, is_start, rng):
        if self.engine.maximizer.weight[0] == 0:
            raise FloatingPointError("not finite")
        return run(self, theta, is_start, rng)

    monkeypatch.setattr(refitter.Refitter, "_run", sometimes)
    lost = np.flatnonzero(draw_cases(np.random.default_rng(2).spawn(2)[0], 6, 12)[:, 0] == 0)
    assert 0 < lost.size < 6
    with pytest.warns(
        UserWarning,
        match=f"{lost.size} of 6 replicates were lost; the first, number {lost[0]}: Floating",
    ):
        found = ps.bootstrap(
            intercepts,
            fit,
            6,
            kind="case",
            n_explore=2,
            n_smooth=1,
            random_seed=2,
            progressbar=False,
        )
    assert list(found.failures) == lost.tolist() and len(found.replicates) == 6 - lost.size


def test_simulated_sets_have_the_gaps_of_the_data(intercepts, fit):
    """Where rows are missing, whole outcomes are drawn, and what was observed is taken from them."""
    y = Y.copy()
    y[[4, 5, 30]] = np.nan
    subject = np.repeat(np.arange(12), 3)
    with pm.Model(coords={"subject": np.arange(1, 13)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        with pytest.warns(pm.exceptions.ImputationWarning):
            pm.Normal("y", b[subject], pm.HalfFlat("sigma", initval=1.0), observed=y)
    sets = simulate_outcomes(model, Fitted(fit), 200, np.random.default_rng(1))
    (name,) = sets[0]
    values = np.stack([one[name] for one in sets])
    assert name == "y_observed" and values.shape == (200, 33)
    correlation = np.corrcoef(values.T)
    same = subject[np.isfinite(y)]
    within = correlation[(same[:, None] == same) & ~np.eye(33, dtype=bool)]
    assert within.min() > 0.7  # 0.88: rows of one subject, as they stand in the data
    assert np.abs(correlation[same[:, None] != same]).max() < 0.35
