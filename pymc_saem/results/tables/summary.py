"""The table of a fit."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from pymc_saem.arguments import check_types
from pymc_saem.compat import get_group, group_names
from pymc_saem.results.tables.printed import WIDTH, PrintedTable
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

    def _as_text(self) -> str:
        """Without roles, which ``summarize`` has, where lines would be too long."""
        table = _without_empty(self)
        text = _as_text(table)
        if "role" in table and max(map(len, text.splitlines())) > WIDTH:
            text = _as_text(table.drop(columns="role"))
        return text

    def _as_html(self) -> str:
        return _without_empty(self).to_html(float_format="{:.4g}".format, na_rep="")

    def _lines(self) -> list[str]:
        return footer(self.attrs)


def _without_empty(table) -> pd.DataFrame:
    """Without columns that say nothing: no standard errors, no shrinkage, no notes."""
    table = pd.DataFrame(table)
    return table[[name for name in table if not table[name].isin(["", np.nan]).all()]]


def _as_text(table: pd.DataFrame) -> str:
    return table.to_string(float_format="{:.4g}".format, na_rep="")


def summary(idata) -> pd.DataFrame:
    """Population estimates of a fit as a table.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What :func:`pymc_saem.fit_saem` returned, or the same read from a file.

    Returns
    -------
    pandas.DataFrame
        Index: parameter, in the model's order. Columns, the same of every fit (NaN where it does not know a number): ``estimate`` on the natural scale of the user's
        variable; ``se`` its standard error, ``rse`` that in percent of the estimate, ``lower`` and ``upper`` the ends
        of a 95 % confidence interval; ``m_step`` (how it was maximized), ``role``, ``note`` (fixed, at its floor, or
        empty), and ``shrinkage``: for each random effect with a variance parameter 1 - var(conditional mode) / omega
        (mean over the effect's entries), for each scale of residuals 1 - sd(standardized residuals at the conditional modes). Printed, the table has -2 log-likelihood, AIC, BIC and corrected BIC below. ``attrs``
        has these (``loglik``, ``loglik_error``, ``loglik_method``, ``aic``, ``bic``, ``bicc``, ``n_parameters``), what is known of the standard errors
        (``standard_errors``, ``condition_number``; ``identifiability``: sentences about parameters that the data do not tell apart,
        see :func:`pymc_saem.correlation`), of the conditional draws (``conditional_draws``: what is wrong with them, or empty), and the
        options of the run. ``loglik_error`` is the Monte-Carlo standard error of ``loglik``; that of -2LL, which is printed, is twice as large.

    Raises
    ------
    KeyError
        When ``idata`` is not a fit.

    Examples
    --------
    >>> ps.summary(idata)  # doctest: +SKIP
    """
    check_types("summary", locals())
    population = get_group(idata, "population")
    table = population[[n for n in population.data_vars if population[n].ndim == 1]].to_dataframe()
    table.index.name = "parameter"
    if "individual" in group_names(idata) and "shrinkage" in get_group(idata, "individual"):
        shrinkage = get_group(idata, "individual")["shrinkage"].to_series()
        values = [_shrinkage_of(columns, shrinkage) for columns in table["effects"]]
        if "residual_shrinkage" in table:
            values = table["residual_shrinkage"].where(table["residual_shrinkage"].notna(), values)
        table["shrinkage"] = values
    table = FitTable(table.reindex(columns=_COLUMNS))
    saem = dict(get_group(idata, "saem_trace").attrs)
    table.attrs = dict(population.attrs)
    for name in ("identifiability", "priors"):  # lists, which files hold as text
        if name in table.attrs:
            table.attrs[name] = json.loads(table.attrs[name])
    table.attrs |= {name: saem[name] for name in ("n_explore", "n_smooth", "objective") if name in saem}
    if "individual" in group_names(idata):
        table.attrs["conditional_draws"] = _of_draws(get_group(idata, "individual"))
    return table


def _of_draws(individual) -> str:
    """What is wrong with the conditional draws; empty if nothing is."""
    if "judged_rhat" not in individual:
        return ""
    rhat, ess = individual["judged_rhat"].values, individual["judged_ess"].values
    bad = ~((rhat < LARGEST_RHAT) & (ess >= LEAST_ESS))  # NaN is bad: a chain did not move
    if not bad.any():
        return ""
    worst = f"R-hat up to {np.nanmax(rhat):.2f}" if np.isfinite(rhat).any() else "no R-hat"
    return (
        f"{bad.sum()} of {bad.size} subjects have too few draws, or chains that disagree ({worst}); see ps.diagnostics"
    )


def footer(attrs) -> list[str]:
    """The lines below a table: likelihood, criteria, standard errors, what the data do not tell."""
    lines = []
    if "loglik" in attrs:
        error = f"{attrs['loglik_method']}, {error_of(attrs)}"
        criteria = "   ".join(f"{name} {attrs[name.lower()]:.2f}" for name in ("AIC", "BIC", "BICc"))
        lines.append(f"-2LL {-2 * attrs['loglik']:.2f} ({error})   {criteria}   {attrs['n_parameters']} parameters")
    if "standard_errors" in attrs:
        method = _STANDARD_ERRORS[attrs["standard_errors"]]
        condition = attrs.get("condition_number", float("nan"))
        of_matrix = f"; condition number of the correlations {condition:.1f}" if condition == condition else ""
        note = f"; {attrs['standard_errors_note']}" if attrs.get("standard_errors_note") else ""
        lines.append(f"standard errors: {method}{of_matrix}{note}")
        lines += [f"note: {hint}" for hint in attrs.get("identifiability", ()) if hint not in note]
    if attrs.get("conditional_draws"):
        lines.append(f"conditional draws: {attrs['conditional_draws']}")
    return lines


def error_of(attrs) -> str:
    """The error of -2LL, in words where its method has none."""
    if attrs["loglik_method"] in APPROXIMATIONS:
        return "an approximation without an estimate of its error"
    return f"error {2 * attrs['loglik_error']:.2g}"


def _shrinkage_of(effects: str, shrinkage: pd.Series) -> float:
    names = json.loads(effects)
    return float(shrinkage[shrinkage.index.isin(names)].mean())  # NaN of none
