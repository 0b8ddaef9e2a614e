"""Which of several chains ended in the best optimum, by marginal likelihood."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
from pymc.util import get_random_generator

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.refit.fitted import Fitted, check_likelihood, make_refitter
from pymc_saem.refit.parallel import describe_failures, run_tasks
from pymc_saem.refit.refitter import Refitter


def rank_chains(
    model: pm.Model,
    idata: InferenceData,
    *,
    likelihood: str = "auto",
    n_jobs: int = 1,
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Compute the marginal log-likelihood at the end of every chain of a fit.

    ``fit_saem(chains=8, cores=4)`` is multi-start: whole runs, the first from the initial values,
    the others from dispersed ones. It chooses among them by a score that needs no integral, exact
    for Gaussian conditional distributions. This table integrates, with the same random numbers for
    all chains.

    Parameters
    ----------
    model : pymc.Model
        The model of the fit. It is not changed.
    idata : arviz.InferenceData or xarray.DataTree
        A fit of the model with several chains.
    likelihood : {"auto", "quadrature", "importance", "annealed"}
        How the log-likelihoods are computed; see :func:`pymc_saem.fit_saem`.
    n_jobs : int, default 1
        Processes, as joblib counts them.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same numbers.
    progressbar : bool, default True
        Shown in terminals and notebooks only.
    **options
        Options of ``fit_saem`` instead of those of the fit.

    Returns
    -------
    pandas.DataFrame
        By chain, the best one first: loglik and its Monte-Carlo error, log_prior (of priors that
        the fit has maximized), objective (their sum, which ranks), below (the best one's objective
        minus this one's), then the estimates.

    Raises
    ------
    ValueError
        When ``idata`` is not such a fit, or belongs to a different model.

    See Also
    --------
    pymc_saem.fit_saem : Several chains by ``chains``.
    pymc_saem.plot_convergence : The iterates of all chains.
    pymc_saem.check_restart : A run from the result of a fit.

    Examples
    --------
    >>> idata = ps.fit_saem(model, chains=2, random_seed=1)
    >>> table = ps.rank_chains(model, idata)
    >>> list(table.columns[:5])
    ['loglik', 'error', 'log_prior', 'objective', 'below']
    """
    check_types("rank_chains", locals())
    fitted = Fitted(idata, options)
    refitter = make_refitter(model, fitted)
    check_likelihood(refitter, likelihood)
    seed = int(get_random_generator(random_seed).integers(2**32))
    ends = [fitted.end_of_chain(chain) for chain in range(fitted.n_chains)]
    tasks = [(values, likelihood, seed) for values in ends]
    done = run_tasks(
        refitter, _evaluate, tasks, n_jobs=n_jobs, progressbar=progressbar, title="likelihoods"
    )
    failures = {one.number: one.failure for one in done if one.failure}
    if failures:
        warnings.warn(describe_failures(failures, len(done), "likelihoods"), stacklevel=2)
    rows = [np.full(3, np.nan) if one.failure else np.array(one.result) for one in done]
    table = pd.DataFrame(rows, columns=["loglik", "error", "log_prior"])
    table["objective"] = table["loglik"] + table["log_prior"]
    table["below"] = table["objective"].max() - table["objective"]
    estimates = [np.concatenate([np.ravel(values[name]) for name in values]) for values in ends]
    table = table.join(pd.DataFrame(estimates, columns=refitter.labels))
    table.index.name = "chain"
    return table.sort_values("objective", ascending=False, kind="stable", na_position="last")


def _evaluate(
    refitter: Refitter, task: tuple[Mapping[str, np.ndarray], str, int]
) -> tuple[float, float, float]:
    values, method, seed = task
    found = refitter.likelihood(values, method, seed)
    return found.total, found.total_error, refitter.log_prior(refitter.theta(values))
