"""The table of a fit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.results.fit import Fit
from pymc_saem.results.tables.printed import HEADERS, PrintedTable, fitted, four_digits
from pymc_saem.results.thresholds import LARGEST_RHAT, LEAST_ESS

#: Columns of the table; numbers that a fit does not have are NaN.
_COLUMNS = ("estimate", "se", "rse", "lower", "upper", "shrinkage", "m_step", "role", "note")
#: Likelihoods that have no error estimate.
APPROXIMATIONS = ("laplace", "linearization")
_STANDARD_ERRORS = {
    "louis": "Louis' formula (observed Fisher information)",
    "score": "score-based Fisher information",
    "linearization": "linearized model (expected Fisher information)",
    "none": "none",
}


class FitTable(PrintedTable):
    """Estimates, and what is known of the fit; the numbers are in ``attrs`` as well."""

    #: Parameters, all weights of networks, whose entries share a line if none has a standard error.
    _folded: tuple[str, ...] = ()

    def _printed(self) -> pd.DataFrame:
        return _without_empty(_with_intervals(_fold(pd.DataFrame(self), self._folded))).rename(
            columns=HEADERS
        )

    def _as_text(self) -> str:
        """Without columns that ``summarize`` has too where lines would be too long."""
        return fitted(self._printed(), ("role", "m_step"), float_format=four_digits, na_rep="")

    def _as_html(self) -> str:
        return self._printed().to_html(float_format=four_digits, na_rep="")

    def _lines(self) -> list[str]:
        return footer(self.attrs)


def _without_empty(table: pd.DataFrame) -> pd.DataFrame:
    """Drop empty columns: no standard errors, no shrinkage, no notes."""
    return table[[name for name in table if not table[name].isin(["", np.nan]).all()]]


def _with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """With the limits of an interval in one column, whose header says which interval."""
    table = table.astype({"estimate": object})
    lower, upper = (
        [four_digits(x) if x == x else "" for x in table[name]] for name in ("lower", "upper")
    )
    longest = max(map(len, lower), default=0), max(map(len, upper), default=0)
    limits = [
        f"{a:>{longest[0]}} to {b:<{longest[1]}}" if a and b else ""
        for a, b in zip(lower, upper, strict=True)
    ]
    table.insert(table.columns.get_loc("lower"), "95 % interval", limits)
    return table.drop(columns=["lower", "upper"])


def _fold(table: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """With one line in place of the entries of each of some parameters, if none of them has a standard error."""
    of_entry = pd.Series(
        [re.sub(r"\[.*", "", str(label)) for label in table.index], index=table.index
    )
    parts = []
    for name, entries in table.groupby(of_entry.to_numpy(), sort=False):
        if name in names and len(entries) > 1 and entries["se"].isna().all():
            entries = _one_line(name, entries)
        parts.append(entries)
    return pd.concat(parts) if parts else table


def _one_line(name: str, entries: pd.DataFrame) -> pd.DataFrame:
    """Range of the estimates; of the other columns, what is the same for all."""
    line = {
        column: x.iloc[0] if x.nunique(dropna=False) == 1 else np.nan
        for column, x in entries.items()
    }
    line["estimate"] = (
        f"{four_digits(entries['estimate'].min())} to {four_digits(entries['estimate'].max())}"
    )
    index = pd.Index([f"{name} ({len(entries)} weights)"], name=entries.index.name)
    return pd.DataFrame([line], index=index, columns=entries.columns)


def summary(idata: InferenceData, weights: bool = False) -> pd.DataFrame:
    """Tabulate the population estimates of a fit.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What :func:`pymc_saem.fit_saem` returned, or the same read from a file.
    weights : bool, default False
        Print a line for every network weight. By default the weights of a network that have no
        standard errors share a line with their smallest and largest estimate. The table itself
        always has a row for each.

    Returns
    -------
    pandas.DataFrame
        Index: parameter, in the model's order. Columns, the same for every fit (NaN where a number
        is not available): ``estimate`` on the natural scale of the user's variable; ``se`` its
        standard error, ``rse`` that in percent of the estimate, ``lower`` and ``upper`` the ends of
        a 95 % confidence interval; ``m_step`` (how it was maximized), ``role``, ``note`` (fixed, at
        its floor, or empty), and ``shrinkage``: for each random effect with a variance parameter 1
        - var(conditional mode) / omega (mean over the effect's entries), for each scale of
        residuals 1 - sd(standardized residuals at the conditional modes). Printed, the table fits
        the terminal (columns ``role`` and ``m_step`` are left out where there is no room), and has
        -2 log-likelihood, AIC, BIC and corrected BIC below. ``attrs`` has these (``loglik``,
        ``loglik_error``, ``loglik_method``, ``aic``, ``bic``, ``bicc``, ``n_parameters``), what is
        known of the standard errors (``standard_errors``, ``condition_number``;
        ``identifiability``: sentences about parameters that the data do not distinguish, see
        :func:`pymc_saem.correlation`), of the conditional draws (``conditional_draws``: what is
        wrong with them, or empty), and the options of the run. ``loglik_error`` is the Monte-Carlo
        standard error of ``loglik``; that of -2LL, which is printed, is twice as large.

    Raises
    ------
    KeyError
        When ``idata`` is not a fit.

    See Also
    --------
    pymc_saem.individuals : The random effects of each subject.
    pymc_saem.correlation : Correlations of the estimates.
    pymc_saem.bootstrap : Standard errors by refits.
    pymc_saem.compare : Several fits side by side.

    Examples
    --------
    >>> table = ps.summary(idata)
    >>> list(table.columns[:5])
    ['estimate', 'se', 'rse', 'lower', 'upper']
    >>> table.loc["sigma", "m_step"]
    'closed form'
    """
    check_types("summary", locals())
    fit = Fit(idata)
    population = fit.population
    table = population[[n for n in population.data_vars if population[n].ndim == 1]].to_dataframe()
    table.index.name = "parameter"
    if "individual" in fit and "shrinkage" in fit.individual:
        shrinkage = fit.individual["shrinkage"].to_series()
        values = [_shrinkage_of(columns, shrinkage) for columns in table["effects"]]
        if "residual_shrinkage" in table:
            values = table["residual_shrinkage"].where(table["residual_shrinkage"].notna(), values)
        table["shrinkage"] = values
    table = FitTable(table.reindex(columns=_COLUMNS))
    saem = dict(fit.trace.attrs)
    table.attrs = dict(population.attrs)
    networks = tuple(json.loads(table.attrs.pop("networks", "[]")))
    table._folded = () if weights else networks
    for name in ("identifiability", "priors"):  # lists, which files hold as text
        if name in table.attrs:
            table.attrs[name] = json.loads(table.attrs[name])
    table.attrs |= {
        name: saem[name] for name in ("n_explore", "n_smooth", "objective") if name in saem
    }
    if "individual" in fit:
        table.attrs["conditional_draws"] = _of_draws(fit.individual)
    return table


def _of_draws(individual: xr.Dataset) -> str:
    """What is wrong with the conditional draws; empty if nothing."""
    if "judged_rhat" not in individual:
        return ""
    rhat, ess = individual["judged_rhat"].values, individual["judged_ess"].values
    bad = ~((rhat < LARGEST_RHAT) & (ess >= LEAST_ESS))  # NaN is bad: a chain did not move
    if not bad.any():
        return ""
    worst = f"R-hat up to {np.nanmax(rhat):.2f}" if np.isfinite(rhat).any() else "no R-hat"
    return f"{bad.sum()} of {bad.size} subjects have too few draws, or chains that disagree ({worst}); see ps.diagnostics"


def footer(attrs: Mapping[str, Any]) -> list[str]:
    """The lines below a table: likelihood, criteria, standard errors, what the data do not determine."""
    lines = []
    if "loglik" in attrs:
        error = f"{attrs['loglik_method']}, {error_of(attrs)}"
        criteria = "   ".join(
            f"{name} {attrs[name.lower()]:.2f}" for name in ("AIC", "BIC", "BICc")
        )
        lines += [
            f"-2LL {-2 * attrs['loglik']:.2f} ({error})   {attrs['n_parameters']} parameters",
            criteria,
        ]
    if "standard_errors" in attrs:
        method = _STANDARD_ERRORS[attrs["standard_errors"]]
        condition = attrs.get("condition_number", float("nan"))
        of_matrix = (
            f"; condition number of the correlations {condition:.1f}"
            if condition == condition
            else ""
        )
        note = f"; {attrs['standard_errors_note']}" if attrs.get("standard_errors_note") else ""
        lines.append(f"standard errors: {method}{of_matrix}{note}")
        lines += [f"note: {hint}" for hint in attrs.get("identifiability", ()) if hint not in note]
    if attrs.get("conditional_draws"):
        lines.append(f"conditional draws: {attrs['conditional_draws']}")
    return lines


def error_of(attrs: Mapping[str, Any]) -> str:
    """The error of -2LL, in words where its method has none."""
    if attrs["loglik_method"] in APPROXIMATIONS:
        return "an approximation without an estimate of its error"
    return f"error {2 * attrs['loglik_error']:.2g}"


def _shrinkage_of(effects: str, shrinkage: pd.Series) -> float:
    names = json.loads(effects)
    return float(shrinkage[shrinkage.index.isin(names)].mean())  # NaN of none
