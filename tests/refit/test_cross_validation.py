"""Scores of held-out subjects against the exact ones of random intercepts; the ranking of chains."""

import numpy as np
import pytest

import pymc_saem as ps
from pymc_saem.refit.cross_validation import assign_folds
from tests.support.models import exact_loglik, random_intercept_data

Y, SUBJECT = random_intercept_data()


@pytest.mark.parametrize("start", ["fit", "model"])
@pytest.mark.slow
def test_scores_are_exact(intercepts, fit, exact_maximum, start):
    labels = np.arange(12) // 4
    found = ps.cross_validate(
        intercepts, fit if start == "fit" else None, folds=labels, n_explore=60, n_smooth=150, random_seed=1, progressbar=False
    )  # fmt: skip
    each = np.empty(12)
    for k in range(3):
        theta = exact_maximum(Y.reshape(12, 3), (labels != k).astype(float))
        np.testing.assert_allclose(found.estimates.loc[k], theta, atol=0.01)
        for i in np.flatnonzero(labels == k):
            each[i] = exact_loglik(*theta, Y[SUBJECT == i], SUBJECT[SUBJECT == i])
    np.testing.assert_allclose(found.table["score"], each, atol=0.01)
    assert found.total == pytest.approx(each.sum(), abs=0.03)
    assert found.se == pytest.approx(np.sqrt(12) * each.std(ddof=1), rel=0.02)
    assert found.table.index.tolist() == list(range(1, 13)) and found.error < 0.01


def test_folds():
    rng = np.random.default_rng(1)
    assert assign_folds("loo", 4, rng).tolist() == [0, 1, 2, 3]
    assert sorted(np.bincount(assign_folds(5, 12, rng))) == [2, 2, 2, 3, 3]
    assert assign_folds(["x", "y", "x"], 3, rng).tolist() == [0, 1, 0]
    for folds, message in (
        ("kfold", "must be a number, 'loo'"),
        (1, "from 2 to 12"),
        (13, "from 2 to 12"),
        (True, "from 2 to 12"),
        (["a"] * 12, "at least two folds"),
        ([1, 2], "12 are needed"),
    ):
        with pytest.raises(ValueError, match=message):
            assign_folds(folds, 12, rng)


@pytest.mark.slow
def test_chains_are_ranked_by_their_exact_likelihood(intercepts, fit):
    table = ps.rank_chains(intercepts, fit, random_seed=1, progressbar=False)
    exact = [exact_loglik(*row, Y, SUBJECT) for row in table[["a", "omega", "sigma"]].to_numpy()]
    np.testing.assert_allclose(table["loglik"], exact, atol=1e-6)
    assert sorted(table.index) == [0, 1] and table["objective"].is_monotonic_decreasing
    assert table["below"].iloc[0] == 0.0 and np.all(table["log_prior"] == 0.0)  # flat priors
