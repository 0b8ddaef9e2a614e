"""Random effects of each subject in a fit, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.results.fit import Fit

#: Column -> variable of the group ``individual``: by subject and effect, by effect, or by subject.
_COLUMNS = {
    "mode": "conditional_mode",
    "mean": "conditional_mean",
    "sd": "conditional_sd",
    "natural_mode": "natural_mode",
    "natural_mean": "natural_mean",
    "natural_sd": "natural_sd",
    "rhat": "conditional_rhat",
    "ess": "conditional_ess",
    "shrinkage": "shrinkage",
    "mode_agreement": "mode_agreement",
}


def individuals(idata: InferenceData) -> pd.DataFrame:
    """Tabulate the conditional distributions of the random effects of a fit, one line per subject and effect.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What :func:`pymc_saem.fit_saem` returned, or the same read from a file.

    Returns
    -------
    pandas.DataFrame
        Index: subject (under the name of the model's dim) and effect; units of a lower level that a
        subject lacks are left out. Columns, as far as the fit has them:

        - ``mode``, ``mean``, ``sd``: of p(phi | y, theta_hat), on the scale on which the effect is normal (the logarithm of a
          LogNormal), and ``eta``, the mode's distance from the subject's population mean on that
          scale;
        - ``natural_mode``, ``natural_mean``, ``natural_sd``: of the variable itself;
        - ``rhat``, ``ess``: rank-normalized split R-hat and bulk effective sample size of the conditional draws;
        - ``shrinkage``: of the effect over all subjects, 1 - var(eta) / omega;
        - ``mode_agreement``: share of the searches for the subject's mode that ended in it; below 1 there are other maxima.

    Raises
    ------
    KeyError
        When ``idata`` is not a fit, or has no conditional distributions.

    See Also
    --------
    pymc_saem.random_effects : The effects against the distribution of the population.
    pymc_saem.predict : The predictions that follow from them.

    Examples
    --------
    >>> table = ps.individuals(idata)
    >>> list(table.index.names)
    ['subject', 'effect']
    >>> mode = table.loc[(1, "ka"), "natural_mode"]
    """
    check_types("individuals", locals())
    fit = Fit(idata)
    group, dim = fit.individual, fit.subject_dim
    mode = group["conditional_mode"].transpose(dim, "effect")
    known = {column: group[name] for column, name in _COLUMNS.items() if name in group}
    known["eta"] = group["conditional_mode"] - group["population_mean"]
    values = {
        name: x.broadcast_like(mode).transpose(dim, "effect").values.ravel()
        for name, x in known.items()
    }
    index = pd.MultiIndex.from_product(
        [mode[dim].values, mode["effect"].values], names=[dim, "effect"]
    )
    order = [*_COLUMNS]
    order.insert(order.index("sd") + 1, "eta")
    table = pd.DataFrame({name: values[name] for name in order if name in values}, index=index)
    absent = table["natural_mode"].isna() if "natural_mode" in table else np.zeros(len(table), bool)
    return table[~absent]
