"""Bootstrap of a fit: refits to data simulated from it, or to subjects drawn with replacement."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm

from pymc_saem.arguments import (
    check_choice,
    check_count,
    check_probability,
    check_types,
    random_generator,
)
from pymc_saem.compat import InferenceData
from pymc_saem.refit.fitted import N_EXPLORE, N_SMOOTH, Fitted, make_refitter
from pymc_saem.refit.parallel import INTERRUPTED, Done, describe_failures, fit_once, run_tasks
from pymc_saem.refit.simulated import simulate_outcomes
from pymc_saem.results.tables.printed import HeadedTable

KINDS = ("parametric", "case")


@dataclass(frozen=True, repr=False)
class Bootstrap(HeadedTable):
    """What a bootstrap found.

    Attributes
    ----------
    table : pandas.DataFrame
        By parameter entry: estimate of the fit, bias (mean of the replicates minus estimate), se
        (their standard deviation), rse (%), and the percentile interval, lower and upper.
    replicates : pandas.DataFrame
        Estimates, replicate x parameter entry; those that failed are left out.
    failures : dict of int to str
        Number of each replicate that was lost, and why.
    at_floor : dict of str to int
        In how many replicates a variance ended at its floor.
    kind : str
    ci_prob : float
    seconds : float
        Of all refits, summed over processes.
    """

    table: pd.DataFrame
    replicates: pd.DataFrame
    failures: dict[int, str]
    kind: str
    ci_prob: float
    at_floor: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def _heading(self) -> list[str]:
        n = f"{len(self.replicates)} replicates" + (
            f", {len(self.failures)} lost" if self.failures else ""
        )
        return [f"{self.kind} bootstrap, {n}; {100 * self.ci_prob:g} % percentile intervals"]


def bootstrap(
    model: pm.Model,
    idata: InferenceData,
    n: int = 200,
    *,
    kind: str = "parametric",
    strata: Sequence | None = None,
    ci_prob: float = 0.95,
    n_explore: int = N_EXPLORE,
    n_smooth: int = N_SMOOTH,
    n_jobs: int = 1,
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
    **options: Any,
) -> Bootstrap:
    """Bootstrap standard errors and intervals of the population parameters.

    The model is compiled once (in each process) and fitted ``n`` times, from the estimate. A refit
    has 50 + 150 iterations by default: on theophylline (12 subjects, 7 parameters) its estimates
    differ by 0.01 to 0.05 standard errors from those of 1600 iterations, so that less than 1 % of a
    variance is Monte-Carlo noise of the refits (``benchmarks/accuracy/refits.py``).

    Parameters
    ----------
    model : pymc.Model
        The model of the fit.
    idata : arviz.InferenceData or xarray.DataTree
        What :func:`pymc_saem.fit_saem` returned. Objective, constants and settings are those of
        this fit.
    n : int, default 200
        Replicates. A standard deviation from n of them has a relative error of about 1 / sqrt(2 n):
        5 % for 200.
    kind : {"parametric", "case"}, default "parametric"
        "parametric": new random effects and new outcomes are drawn from the fitted model, with the
        design of the data. "case": as many subjects as there are, drawn with replacement; what it
        finds does not depend on whether the model is right (Thai et al. 2013). A subject that is
        drawn twice counts twice, so that nothing is compiled again.
    strata : sequence, optional
        A label for each subject (subject,); "case" draws within these groups.
    ci_prob : float, default 0.95
        Of the percentile intervals.
    n_explore, n_smooth : int
        Iterations of each refit.
    n_jobs : int, default 1
        Processes, as joblib counts them; with another backend of joblib, such as dask's, its
        workers. Results do not depend on it.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same replicates.
    progressbar : bool, default True
        Shown in terminals and notebooks only.
    **options
        Options of ``fit_saem`` that override those stored in the fit: ``fixed``, ``n_transitions``,
        ``kernel``, ...

    Returns
    -------
    Bootstrap
        A failed replicate is reported with its number and reason, and loses no other; Ctrl-C
        returns what there is.

    Raises
    ------
    ValueError
        For options out of range, or a fit of another model.
    RuntimeError
        When no replicate succeeded; the text has the first reason.

    Warns
    -----
    UserWarning
        When replicates were lost, or variances ended at their floors.

    See Also
    --------
    pymc_saem.profile_likelihood : Intervals by the likelihood, for few parameters.
    pymc_saem.summary : Standard errors by the Fisher information.
    pymc_saem.simulate : The data sets of a parametric bootstrap.

    Examples
    --------
    >>> found = ps.bootstrap(model, idata, n=200, kind="case", random_seed=1)
    >>> list(found.table.columns)
    ['estimate', 'bias', 'se', 'rse', 'lower', 'upper']
    """
    check_types("bootstrap", locals())
    check_count("n", n, 2)
    check_choice("kind", kind, KINDS)
    check_probability("ci_prob", ci_prob)
    if strata is not None and kind != "case":
        raise ValueError("strata are for kind='case': a parametric bootstrap keeps the design.")
    fitted = Fitted(idata, options)
    refitter = make_refitter(model, fitted, n_explore, n_smooth, other_data=kind == "parametric")
    of_data, of_runs = random_generator(random_seed).spawn(2)
    if kind == "case":
        drawn = [{"weights": w} for w in draw_cases(of_data, n, refitter.mixed.n_subjects, strata)]
    else:
        drawn = [{"observed": values} for values in simulate_outcomes(model, fitted, n, of_data)]
    tasks = [
        {"start": fitted.estimates, "seed": rng, **one}
        for rng, one in zip(of_runs.spawn(n), drawn, strict=True)
    ]
    done = run_tasks(
        refitter, fit_once, tasks, n_jobs=n_jobs, progressbar=progressbar, title="bootstrap"
    )
    return _collect(fitted, refitter.labels, done, kind, ci_prob)


def draw_cases(
    rng: np.random.Generator, n: int, n_subjects: int, strata: Sequence | None = None
) -> np.ndarray:
    """How often each subject is drawn, (replicate, subject); within ``strata`` if there are any."""
    labels = np.zeros(n_subjects, dtype=int)
    if strata is not None:
        labels = pd.factorize(np.asarray(strata))[0]
        if labels.shape != (n_subjects,) or np.any(labels < 0):
            raise ValueError(
                f"strata has shape {np.shape(strata)}; {n_subjects} labels are needed, one for each subject."
            )
    counts = np.zeros((n, n_subjects))
    for label in np.unique(labels):
        who = np.flatnonzero(labels == label)
        counts[:, who] = rng.multinomial(who.size, np.full(who.size, 1.0 / who.size), size=n)
    return counts


def _collect(
    fitted: Fitted, labels: list[str], done: list[Done], kind: str, ci_prob: float
) -> Bootstrap:
    failures = {one.number: one.failure for one in done if one.failure}
    found = {one.number: one.result for one in done if not one.failure}
    if not found:
        if set(failures.values()) == {INTERRUPTED}:
            raise KeyboardInterrupt
        raise RuntimeError(describe_failures(failures, len(done), "replicates"))
    replicates = pd.DataFrame([r.values for r in found.values()], index=list(found), columns=labels)
    replicates.index.name = "replicate"
    floors = [name for r in found.values() for name in r.at_floor]
    at_floor = {name: floors.count(name) for name in dict.fromkeys(floors)}
    for text in _messages(failures, at_floor, len(done)):
        warnings.warn(text, stacklevel=3)
    table = _table(fitted, replicates, ci_prob)
    return Bootstrap(
        table, replicates, failures, kind, ci_prob, at_floor, sum(r.seconds for r in found.values())
    )


def _messages(failures: Mapping[int, str], at_floor: Mapping[str, int], n: int) -> Iterator[str]:
    if failures:
        yield describe_failures(failures, n, "replicates")
    if at_floor:
        listed = ", ".join(f"{name} in {count}" for name, count in at_floor.items())
        yield f"Variances ended at their floors ({listed} of {n} replicates), so the lower ends of their intervals are too high."


def _table(fitted: Fitted, replicates: pd.DataFrame, ci_prob: float) -> pd.DataFrame:
    values, estimate = replicates.to_numpy(), fitted.column("estimate")
    se = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(estimate.size, np.nan)
    lower, upper = np.quantile(values, [0.5 - 0.5 * ci_prob, 0.5 + 0.5 * ci_prob], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rse = 100.0 * se / np.abs(estimate)
    columns = {"estimate": estimate, "bias": values.mean(axis=0) - estimate, "se": se, "rse": rse}
    table = pd.DataFrame({**columns, "lower": lower, "upper": upper}, index=replicates.columns)
    table.index.name = "parameter"
    constant = fitted.is_fixed
    table.loc[constant, ["bias", "se", "rse", "lower", "upper"]] = np.nan
    return table
