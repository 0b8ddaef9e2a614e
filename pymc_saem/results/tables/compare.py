"""Several fits of the same data side by side."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from pymc_saem.arguments import check_types, shown
from pymc_saem.compat import InferenceData
from pymc_saem.results.fit import Fit, stored
from pymc_saem.results.tables.printed import PrintedTable, fitted, shortened
from pymc_saem.results.tables.summary import APPROXIMATIONS

CRITERIA = {"aic": "AIC", "bic": "BIC", "bicc": "BICc"}
#: Headers of the printed table; what is the same for all fits stands below it.
_PRINTED = {
    "minus_2ll": "-2LL",
    "error": "error",
    "aic": "AIC",
    "bic": "BIC",
    "bicc": "BICc",
    "difference": "diff",
    "weight": "weight",
    "n_parameters": "p",
    "method": "method",
}
#: Printed names of fits are cut there, so that lines stay short.
_LONGEST_NAME = 18


class ComparisonTable(PrintedTable):
    """Fits sorted by a criterion, with notes on the comparison."""

    def _printed(self) -> pd.DataFrame:
        table = pd.DataFrame(self)[[name for name in _PRINTED if name in self]].rename(
            columns=_PRINTED
        )
        for name in table.columns.difference(["p", "method"]):
            digits = 2 if table[name].abs().max() < 1e5 else 1
            form = {"error": ".2g", "weight": ".3f"}.get(name, f".{digits}f")
            table[name] = [f"{x:{form}}" if x == x else "" for x in table[name]]
        table.index = [shortened(str(name), _LONGEST_NAME) for name in table.index]
        if table["method"].nunique() == 1:  # stands below
            table = table.drop(columns="method")
        return table

    def _as_text(self) -> str:
        """Without criteria that do not order the table where lines would be too long."""
        others = [header for name, header in CRITERIA.items() if name != self.attrs["criterion"]]
        return fitted(self._printed(), others[::-1])

    def _as_html(self) -> str:
        return self._printed().to_html()

    def _lines(self) -> list[str]:
        of_data = (
            f"{self.attrs['n_subjects']} subjects, {self.attrs['n_observations']} observations"
        )
        head = f"{of_data}; differences and weights of {CRITERIA[self.attrs['criterion']]}"
        methods = set(self["method"])
        head += f"; likelihood: {methods.pop()}" if len(methods) == 1 else ""
        return [head, *(f"note: {note}" for note in self.attrs["notes"])]


def compare(fits: Mapping, criterion: str = "aic") -> pd.DataFrame:
    """Compare fits of the same data by an information criterion.

    Parameters
    ----------
    fits : mapping of str to arviz.InferenceData or xarray.DataTree
        Fits of :func:`pymc_saem.fit_saem` by name, two or more; or the same read from files.
    criterion : {"aic", "bic", "bicc"}, default "aic"
        What the table is sorted by, and differences and weights are made of. BIC counts
        log(subjects) for each parameter; the corrected BIC log(subjects) for parameters of random
        effects and log(observations) for the others (Delattre, Lavielle & Poursat 2014).

    Returns
    -------
    pandas.DataFrame
        A row for each fit, the best first. Columns: ``minus_2ll`` (-2 log-likelihood) and its
        ``error`` (its Monte-Carlo standard error, twice that of the log-likelihood; NaN for
        approximations); ``aic``, ``bic``, ``bicc``; ``difference`` of the criterion to the best
        one; ``weight``, exp(-difference / 2) scaled to sum 1, which for AIC are Akaike weights
        (Burnham & Anderson 2002, section 2.9); ``n_parameters``; ``method`` of the likelihood;
        ``objective``; ``n_subjects``, ``n_observations``. Printed, it has notes below; ``attrs``
        has them (``notes``), and the ``criterion``.

    Raises
    ------
    ValueError
        When there are fewer than two fits, when one has no log-likelihood, and when the fits have
        different rows.
    KeyError
        When something is not a fit.

    Warns
    -----
    UserWarning
        When approximate likelihoods stand beside others, or errors are larger than differences.

    See Also
    --------
    pymc_saem.plot_comparison : The same as a figure, with the estimates.
    pymc_saem.cross_validate : Compares models by subjects that they were not fitted to.

    Examples
    --------
    >>> fixed = ps.fit_saem(model, fixed={"omega_CL": 0.3}, random_seed=1)
    >>> table = ps.compare({"estimated": idata, "fixed": fixed}, criterion="bicc")
    >>> sorted(table.index)
    ['estimated', 'fixed']
    """
    check_types("compare", locals())
    if not isinstance(fits, Mapping) or len(fits) < 2:
        raise ValueError(
            "fits must be a mapping of two or more fits by name, as in compare({'one': idata, 'two': other})."
        )
    if criterion not in CRITERIA:
        raise ValueError(
            f"criterion is {shown(criterion)}; it must be one of {', '.join(map(repr, CRITERIA))}."
        )
    rows = {str(name): _row(str(name), idata) for name, idata in fits.items()}
    _refuse_different_rows(fits)
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values(criterion, kind="stable")
    difference = table[criterion] - table[criterion].iloc[0]
    weight = np.exp(-0.5 * difference)
    table.insert(5, "difference", difference)
    table.insert(6, "weight", weight / weight.sum())
    table.index.name = "fit"
    doubts = [*_different_methods(table), *_large_errors(table)]
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=2)
    table = ComparisonTable(table.drop(columns="priors"))
    table.attrs = {name: int(table[name].iloc[0]) for name in ("n_subjects", "n_observations")}
    table.attrs |= {"criterion": criterion, "notes": [*doubts, *_modes(rows)]}
    return table


def _row(name: str, idata: InferenceData) -> dict:
    fit = Fit(idata)
    attrs = fit.population.attrs
    if "loglik" not in attrs:
        raise ValueError(
            f"The fit '{name}' has no log-likelihood: it was fitted with likelihood=None, or the likelihood failed with a warning. Fit "
            'again with likelihood="auto".'
        )
    if not np.isfinite(attrs["loglik"]):
        raise ValueError(
            f"The log-likelihood of the fit '{name}' by {attrs['loglik_method']} is {attrs['loglik']}. Fit again with "
            'likelihood="importance" or "annealed".'
        )
    objective = fit.trace.attrs["objective"]
    return {
        "minus_2ll": -2.0 * attrs["loglik"],
        "error": np.nan
        if attrs["loglik_method"] in APPROXIMATIONS
        else 2.0 * attrs["loglik_error"],
        **{name: float(attrs[name]) for name in CRITERIA},
        "n_parameters": int(attrs["n_parameters"]),
        "method": attrs["loglik_method"],
        "objective": objective,
        "n_subjects": int(attrs["n_subjects"]),
        "n_observations": int(attrs["n_observations"]),
        "priors": stored(attrs, "priors", []) if objective == "map" else [],
    }


# -- the same rows ------------------------------------------------------------------------------


def _refuse_different_rows(fits: Mapping) -> None:
    (first, reference), *others = ((str(name), _rows(idata)) for name, idata in fits.items())
    for name, rows in others:
        what = _what_differs(first, reference, name, rows)
        if what:
            raise ValueError(
                f"The fits '{first}' and '{name}' do not have the same data: {what}. Their likelihoods cannot be compared."
            )


def _rows(idata: InferenceData) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values and subjects of the rows of each outcome, by its name."""
    fit = Fit(idata)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    labels = fit.subjects if "individual" in fit else None
    for name in fit.observed.data_vars:
        values, subject = fit.observed[name].values.ravel(), fit.constant[f"{name}_subject"].values
        # of a vector per row: each of its numbers
        subject = np.repeat(subject, values.size // max(subject.size, 1))
        found[str(name)] = (
            values,
            np.array([str(s) for s in (subject if labels is None else labels[subject])]),
        )
    return found


def _what_differs(first: str, a: dict, second: str, b: dict) -> str:
    if set(a) != set(b):
        return f"the outcomes of '{first}' are {', '.join(sorted(a))}, those of '{second}' {', '.join(sorted(b))}"
    for outcome, (values, subjects) in a.items():
        others, other_subjects = b[outcome]
        if values.size != others.size:
            return (
                f"'{outcome}' has {values.size} rows in '{first}' and {others.size} in '{second}'"
            )
        same = _same_rows(values, subjects, others, other_subjects)
        if (
            not same.all()
            and not _same_rows(*_sorted(values, subjects), *_sorted(others, other_subjects)).all()
        ):
            k = int(np.argmin(same))
            return (
                f"row {k} of '{outcome}' is {values[k]:g} of subject {subjects[k]} in '{first}', and {others[k]:g} of subject "
                f"{other_subjects[k]} in '{second}' ({int((~same).sum())} of {same.size} rows differ)"
            )
    return ""


def _same_rows(
    values: np.ndarray, subjects: np.ndarray, others: np.ndarray, other_subjects: np.ndarray
) -> np.ndarray:
    same = np.isclose(
        values.astype(float), others.astype(float), rtol=1e-12, atol=0.0, equal_nan=True
    )
    return same & (subjects == other_subjects)


def _sorted(values: np.ndarray, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows by subject, then by value: models may take them in different orders."""
    order = np.lexsort((values, subjects))
    return values[order], subjects[order]


# -- doubts and notes ---------------------------------------------------------------------------


def _different_methods(table: pd.DataFrame) -> Iterator[str]:
    """Approximations beside others: quadrature and sampling all say how far from the integral they may be."""
    approximate = set(table["method"]) & set(APPROXIMATIONS)
    if approximate and table["method"].nunique() > 1:
        methods = ", ".join(f"{name} by {method}" for name, method in table["method"].items())
        yield (
            f"The likelihoods were computed by different methods ({methods}), and {' and '.join(sorted(approximate))} may be wrong by "
            "several units. Fit with one likelihood= for all."
        )


def _large_errors(table: pd.DataFrame) -> Iterator[str]:
    """Neighbours in the table that Monte-Carlo errors may have put in the wrong order."""
    for (name, one), (other, two) in zip(
        table.iloc[:-1].iterrows(), table.iloc[1:].iterrows(), strict=True
    ):
        gap, error = two["difference"] - one["difference"], np.hypot(one["error"], two["error"])
        if error > gap:
            yield f"The difference between '{name}' and '{other}' is {gap:.2g}, less than the error of their likelihoods, {error:.2g}."


def _modes(rows: dict) -> Iterator[str]:
    """Estimates that maximize more than the likelihood."""
    for name, row in rows.items():
        if row["priors"]:
            yield (
                f"'{name}' maximizes the likelihood times priors (objective \"map\", of {', '.join(row['priors'][:4])}"
                f"{' and others' if len(row['priors']) > 4 else ''}): its -2LL is not the minimum for its model."
            )
