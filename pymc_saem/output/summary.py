"""The table of a fit."""

from __future__ import annotations

import json

import pandas as pd

from pymc_saem.compat import get_group, group_names


def summary(idata) -> pd.DataFrame:
    """Population estimates of a fit as a table.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What :func:`pymc_saem.fit_saem` returned, or the same read from a file.

    Returns
    -------
    pandas.DataFrame
        Index: parameter, in the model's order. Columns: ``estimate`` on the natural scale of the user's
        variable, ``m_step`` (how it was maximized), ``note`` (fixed, at its floor, or empty), and
        for each random effect with a variance parameter ``shrinkage``, 1 - var(conditional mode) / omega
        (mean over the effect's entries). ``attrs`` has the options of the run.

    Raises
    ------
    KeyError
        When ``idata`` is not a fit.

    Examples
    --------
    >>> ps.summary(idata)  # doctest: +SKIP
    """
    population = get_group(idata, "population")
    table = population.to_dataframe()
    table.index.name = "parameter"
    if "individual" in group_names(idata):
        shrinkage = get_group(idata, "individual")["shrinkage"].to_series()
        values = [_shrinkage_of(columns, shrinkage) for columns in table["effects"]]
        if any(value == value for value in values):  # none where every covariance is fixed
            table["shrinkage"] = values
    table = table.drop(columns="effects")
    saem = dict(get_group(idata, "saem_trace").attrs)
    table.attrs = {name: saem[name] for name in ("n_explore", "n_smooth", "objective") if name in saem}
    return table


def _shrinkage_of(effects: str, shrinkage: pd.Series) -> float:
    names = json.loads(effects)
    return float(shrinkage.loc[names].mean()) if names else float("nan")
