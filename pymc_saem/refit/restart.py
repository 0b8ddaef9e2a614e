"""Whether a fit that starts from a result ends at a much better one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
from pymc.util import get_random_generator

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.refit.fitted import Fitted, make_refitter
from pymc_saem.results.tables.printed import HeadedTable

#: Gain in the objective that is much: a parameter that is one standard error off costs half a unit.
MUCH = 0.5


@dataclass(frozen=True, repr=False)
class RestartCheck(HeadedTable):
    """A fit and its continuation from its own result.

    Attributes
    ----------
    table : pandas.DataFrame
        By parameter entry: estimate, again (that of the new run), moved (the distance in standard
        errors of the fit; NaN where it has none).
    loglik, loglik_again : float
        Marginal log-likelihood at both.
    gain : float
        Of the maximized objective, with log priors where the fit has counted them.
    error : float
        Monte-Carlo standard error of the gain, at most: both likelihoods are computed with the same
        random numbers.
    is_better : bool
        Whether the new run is better by more than half a unit of log density and two errors.
    """

    table: pd.DataFrame
    loglik: float
    loglik_again: float
    gain: float
    error: float

    @property
    def is_better(self) -> bool:
        return self.gain > MUCH + 2.0 * self.error

    @property
    def advice(self) -> str:
        """What it means, and what to do."""
        if self.is_better:
            return "The fit had not reached its optimum: fit again with more n_explore and n_smooth, or with initvals from column 'again'."
        return "A run from the fit found no better optimum; chains from dispersed starts search farther."

    def _heading(self) -> list[str]:
        both = f"log-likelihood {self.loglik:.2f}, after a restart {self.loglik_again:.2f}"
        return [f"{both}; gain {self.gain:.2f}, error {self.error:.2g}", self.advice]


def check_restart(
    model: pm.Model,
    idata: InferenceData,
    *,
    n_explore: int = 200,
    n_smooth: int = 350,
    likelihood: str = "auto",
    random_seed: int | np.random.Generator | None = None,
    **options: Any,
) -> RestartCheck:
    """Run a fit again from its own result, which must not get much better.

    Parameters
    ----------
    model : pymc.Model
        The model of the fit. It is not changed.
    idata : arviz.InferenceData or xarray.DataTree
        A fit of the model.
    n_explore, n_smooth : int
        Iterations of the new run, with annealing and step sizes as in ``fit_saem``.
    likelihood : {"auto", "quadrature", "importance", "annealed"}
        How both marginal log-likelihoods are computed.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same run.
    **options
        Options of ``fit_saem`` instead of those of the fit.

    Returns
    -------
    RestartCheck
        Printed with its interpretation.

    Raises
    ------
    ValueError
        When ``idata`` is not a fit, or belongs to a different model.

    See Also
    --------
    pymc_saem.diagnostics : Checks of the run itself.
    pymc_saem.rank_chains : Several runs from dispersed starts.

    Examples
    --------
    >>> check = ps.check_restart(model, idata, random_seed=1)
    >>> list(check.table.columns)
    ['estimate', 'again', 'moved']
    """
    check_types("check_restart", locals())
    fitted = Fitted(idata, options)
    refitter = make_refitter(model, fitted, n_explore, n_smooth)
    rng = get_random_generator(random_seed)
    seed = int(rng.integers(2**32))
    before = refitter.likelihood(fitted.estimates, likelihood, seed)
    again = refitter.fit(
        start=fitted.estimates, seed=rng, likelihood=likelihood, likelihood_seed=seed
    )
    found = again.known_likelihood
    prior = again.log_prior - refitter.log_prior(refitter.theta(fitted.estimates))
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = np.abs(again.values - fitted.column("estimate")) / fitted.column("se")
    table = pd.DataFrame(
        {"estimate": fitted.column("estimate"), "again": again.values, "moved": moved},
        index=pd.Index(refitter.labels, name="parameter"),
    )
    return RestartCheck(
        table,
        before.total,
        found.total,
        found.total - before.total + prior,
        float(np.hypot(before.total_error, found.total_error)),
    )
