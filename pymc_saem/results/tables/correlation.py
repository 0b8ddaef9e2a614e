"""The correlation matrix of the estimates."""

from __future__ import annotations

import pandas as pd

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.results.fit import Fit, stored


def correlation(idata: InferenceData) -> pd.DataFrame:
    """Tabulate the correlations of the population estimates of a fit.

    Estimates that are nearly exchangeable for the data have a correlation near 1 or -1.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What :func:`pymc_saem.fit_saem` returned, or the same read from a file.

    Returns
    -------
    pandas.DataFrame, shape (parameter, parameter)
        Of the estimates on their natural scale, from the Fisher information that the standard
        errors come from. Parameters without a standard error (fixed, at a floor, weights of
        networks) are left out. ``attrs``: ``condition_number``, largest over smallest eigenvalue of
        the correlation matrix on the unconstrained scale; ``standard_errors``, the method;
        ``identifiability``, a list of sentences about parameters that the data do not distinguish.

    Raises
    ------
    KeyError
        When ``idata`` is not a fit.
    ValueError
        When no parameter of the fit has a standard error; the message gives the reason.

    See Also
    --------
    pymc_saem.summary : The estimates with their standard errors.
    pymc_saem.profile_likelihood : Intervals without a normal approximation.

    Examples
    --------
    >>> table = ps.correlation(idata)
    >>> bool((table.columns == table.index).all())
    True
    """
    check_types("correlation", locals())
    population = Fit(idata).population
    attrs = population.attrs
    if "correlation" not in population:
        raise ValueError(
            'The fit has no standard errors. Fit with standard_errors="auto", or another method.'
        )
    table = population["correlation"].to_pandas()
    table.index.name = table.columns.name = None
    known = population["se"].to_series().notna().to_numpy()
    if not known.any():
        raise ValueError(
            f"No estimate of this fit has a standard error: {attrs['standard_errors_note'] or 'unknown'}."
        )
    table = table.loc[known, known]
    table.attrs = {name: attrs[name] for name in ("condition_number", "standard_errors")}
    table.attrs["identifiability"] = stored(attrs, "identifiability", [])
    return table
