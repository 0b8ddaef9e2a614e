"""Cross-validation by subject: how well the model predicts subjects that it was not fitted to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm

from pymc_saem.arguments import check_types, random_generator, shown
from pymc_saem.compat import InferenceData
from pymc_saem.refit.fitted import (
    N_EXPLORE,
    N_SMOOTH,
    Fitted,
    check_likelihood,
    check_options,
    make_refitter,
)
from pymc_saem.refit.parallel import Done, describe_failures, fit_once, run_tasks
from pymc_saem.refit.refitter import Refitter
from pymc_saem.results.tables.printed import HeadedTable
from pymc_saem.saem.start.pooled import default_exploration


@dataclass(frozen=True, repr=False)
class CrossValidation(HeadedTable):
    """Scores of subjects by fits that did not include them.

    Attributes
    ----------
    table : pandas.DataFrame
        By subject: fold, score = log p(y_i; theta of the other folds), error (Monte-Carlo standard
        error of the score).
    estimates : pandas.DataFrame
        Fold x parameter entry.
    total : float
        Sum of the scores; the larger, the better the model predicts new subjects.
    se : float
        Standard error of the total as an estimate for other subjects of the same population:
        sqrt(N) times the standard deviation of the scores.
    error : float
        Monte-Carlo standard error of the total.
    failures : dict of int to str
        Number of each fold that was lost, and why; its subjects have no score, and the total has
        none.
    """

    table: pd.DataFrame
    estimates: pd.DataFrame
    failures: dict[int, str]

    @property
    def total(self) -> float:
        return float(self.table["score"].sum(skipna=False))

    @property
    def se(self) -> float:
        return float(np.sqrt(len(self.table)) * self.table["score"].std(ddof=1, skipna=False))

    @property
    def error(self) -> float:
        return float(np.sqrt(np.sum(self.table["error"].to_numpy() ** 2)))

    def _heading(self) -> list[str]:
        n = self.table["fold"].nunique()
        head = f"{n} folds, {len(self.table)} subjects: log score {self.total:.2f}, standard error {self.se:.2f}"
        lost = [f"lost: fold {fold}, {reason}" for fold, reason in self.failures.items()]
        return [f"{head}, Monte-Carlo error {self.error:.2g}", *lost]


def cross_validate(
    model: pm.Model,
    idata: InferenceData | None = None,
    *,
    folds: int | str | Sequence = 5,
    likelihood: str = "auto",
    n_explore: int | None = None,
    n_smooth: int | None = None,
    n_jobs: int = 1,
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
    **options: Any,
) -> CrossValidation:
    """Score each subject by a fit to the other folds.

    The score of a subject is its marginal log-likelihood at the parameters estimated without it.
    Subjects of one fold get weight zero in one fit, which then has no trace of them; the model is
    compiled once. Scores of two models are compared subject by subject: the standard error of the
    difference of totals is sqrt(N) times the standard deviation of the differences.

    Parameters
    ----------
    model : pymc.Model
        The model of all subjects. It is not changed.
    idata : arviz.InferenceData or xarray.DataTree, optional
        A fit of the model to all subjects: refits start at its estimate, with its settings. Without
        one they start as ``fit_saem`` does.
    folds : int, "loo" or sequence, default 5
        Number of folds, to which subjects are assigned at random; "loo": one for each subject; or a
        label for each subject.
    likelihood : {"auto", "quadrature", "importance", "annealed"}
        How scores are computed; see :func:`pymc_saem.fit_saem`.
    n_explore, n_smooth : int, optional
        Iterations of each refit: 50 and 150 from a fit, and the defaults of ``fit_saem`` without
        one.
    n_jobs : int, default 1
        Processes, as joblib counts them, or workers of joblib's backend. Results do not depend on
        it.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same folds and scores.
    progressbar : bool, default True
        Shown in terminals and notebooks only.
    **options
        Options of ``fit_saem``, instead of those of the fit: ``objective``, ``fixed``,
        ``n_transitions``, ...

    Returns
    -------
    CrossValidation
        Printed with the total score and its errors; ``table`` has the scores of the subjects.

    Raises
    ------
    ValueError
        For options out of range, or a fit of another model.

    See Also
    --------
    pymc_saem.compare : Models compared by information criteria.
    pymc_saem.bootstrap : Refits to subjects drawn with replacement.

    Examples
    --------
    >>> found = ps.cross_validate(model, idata, folds=4, random_seed=1)
    >>> found.table.shape[0], len(found.estimates)
    (12, 4)
    """
    check_types("cross_validate", locals())
    refitter, start = _refitter(model, idata, n_explore, n_smooth, options)
    check_likelihood(refitter, likelihood)
    of_folds, of_runs, of_scores = random_generator(random_seed).spawn(3)
    fold = assign_folds(folds, refitter.mixed.n_subjects, of_folds)
    numbers = range(int(fold.max()) + 1)
    seeds = of_scores.integers(2**32, size=len(numbers))
    tasks = [
        {
            "weights": (fold != k).astype(float),
            "start": start,
            "seed": rng,
            "likelihood": likelihood,
            "likelihood_seed": int(seed),
        }
        for k, rng, seed in zip(numbers, of_runs.spawn(len(numbers)), seeds, strict=True)
    ]
    done = run_tasks(
        refitter, fit_once, tasks, n_jobs=n_jobs, progressbar=progressbar, title="cross-validation"
    )
    return _collect(refitter, fold, done)


def _refitter(
    model: pm.Model,
    idata: InferenceData | None,
    n_explore: int | None,
    n_smooth: int | None,
    options: Mapping[str, Any],
) -> tuple[Refitter, dict[str, np.ndarray] | None]:
    if idata is not None:
        fitted = Fitted(idata, options)
        n_explore, n_smooth = (
            N_EXPLORE if n_explore is None else n_explore,
            N_SMOOTH if n_smooth is None else n_smooth,
        )
        return make_refitter(model, fitted, n_explore, n_smooth), fitted.estimates
    refitter = Refitter(
        model, n_smooth=350 if n_smooth is None else n_smooth, **check_options(options)
    )
    refitter.n_explore = default_exploration(refitter.mixed) if n_explore is None else n_explore
    return refitter, None


def assign_folds(
    folds: int | str | Sequence, n_subjects: int, rng: np.random.Generator
) -> np.ndarray:
    """Number of the fold of each subject, (subject,).

    Raises
    ------
    ValueError
        When there are fewer than two folds, more than subjects, or not one label for each subject.
    """
    if isinstance(folds, str):
        if folds != "loo":
            raise ValueError(
                f"folds is {shown(folds)}; it must be a number, 'loo', or a label for each subject."
            )
        return np.arange(n_subjects)
    if np.ndim(folds) == 0:
        if (
            isinstance(folds, bool)
            or not isinstance(folds, int | np.integer)
            or not 2 <= folds <= n_subjects
        ):
            raise ValueError(
                f"folds is {shown(folds)}; it must be a whole number from 2 to {n_subjects}, the number of subjects."
            )
        return rng.permutation(np.arange(n_subjects) % folds)
    labels = pd.factorize(np.asarray(folds))[0]
    if labels.shape != (n_subjects,) or np.any(labels < 0) or labels.max() < 1:
        raise ValueError(
            f"folds has shape {np.shape(folds)} and {len(set(labels))} labels; {n_subjects} are needed, one for each subject, of at "
            "least two folds."
        )
    return labels


def _collect(refitter: Refitter, fold: np.ndarray, done: list[Done]) -> CrossValidation:
    score, error = np.full(fold.size, np.nan), np.full(fold.size, np.nan)
    for one in done:
        if not one.failure:
            out = fold == one.number
            score[out] = one.result.likelihood.loglik[out]
            error[out] = one.result.likelihood.error[out]
    failures = {one.number: one.failure for one in done if one.failure}
    if failures:
        warnings.warn(describe_failures(failures, len(done), "folds"), stacklevel=3)
    kept = [one for one in done if not one.failure]
    values = np.reshape([one.result.values for one in kept], (len(kept), len(refitter.labels)))
    estimates = pd.DataFrame(values, index=[one.number for one in kept], columns=refitter.labels)
    estimates.index.name = "fold"
    index = pd.Index(list(refitter.mixed.subjects), name=refitter.mixed.subject_dim)
    table = pd.DataFrame({"fold": fold, "score": score, "error": error}, index=index)
    return CrossValidation(table, estimates, failures)
