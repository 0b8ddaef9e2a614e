"""Visual predictive checks: percentiles of the data beside those of simulated data sets."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pymc as pm
from numpy.typing import ArrayLike
from pytensor.tensor.random.basic import BernoulliRV, CategoricalRV

from pymc_saem.arguments import (
    check_count,
    check_probability,
    check_types,
    name_of_times,
    random_generator,
)
from pymc_saem.compat import InferenceData
from pymc_saem.diagnose.bins import Bins, Place, Windows, is_smooth
from pymc_saem.diagnose.fitted_rows import POPULATION, FittedRows, Rows
from pymc_saem.diagnose.windows import weighted_quantile

#: A number of each data set, (n,), of values (n, row) in a place.
Statistic: TypeAlias = Callable[[np.ndarray, Place], np.ndarray]
#: ``(label, rows)`` of each group; label None where there is one only.
Strata: TypeAlias = list[tuple[Hashable, np.ndarray]]


@dataclass(frozen=True)
class Vpc:
    """A visual predictive check, and the rows behind it.

    Attributes
    ----------
    table : pandas.DataFrame
        What :func:`pymc_saem.vpc` returns.
    x, y : ndarray, shape (row,)
        Time and value of the observed rows, corrected where asked for.
    rows : Rows
    strata : list of (label, ndarray of bool (row,))
        Label None where there is one stratum only.
    """

    table: pd.DataFrame
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    rows: Rows = field(repr=False)
    strata: Strata = field(repr=False)


def vpc(
    model: pm.Model,
    idata: InferenceData,
    outcome: str | None = None,
    x: ArrayLike | None = None,
    *,
    bins: str | int | Sequence[float] = "auto",
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    ci_prob: float = 0.9,
    prediction_corrected: bool = False,
    lower_bound: float = 0.0,
    stratify: ArrayLike | None = None,
    n_simulations: int = 500,
    random_seed: int | np.random.Generator | None = None,
) -> pd.DataFrame:
    r"""Compute a visual predictive check: quantiles of the data, and of simulated data sets.

    Rows are sorted into bins by their time. In each bin a quantile of the observed rows stands
    beside the median and an interval of the same quantile in simulated data sets with new random
    effects. If the model is true the observed one lies in the interval with probability
    ``ci_prob``, separately in each bin.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted. It is not changed.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    outcome : str, optional
        Name of the observed variable, when there are several.
    x : array_like, shape (row,), optional
        Time of each row, or any other number to sort by, such as time after dose. An ODE solution
        provides its times.
    bins : {"auto", "unique", "smooth"}, int or sequence of float, default "auto"
        "unique": one for each time. A number: this many bins of about as many rows each. A
        sequence: the edges. "auto": "unique" where subjects share their times, else as many as a
        typical subject has rows, 20 at most. "smooth": no bins; quantiles in a window that moves
        over the times and has twice the rows of an automatic bin, near ones with larger (tricube)
        weights, the same for data and simulations.
    quantiles : sequence of float, default (0.1, 0.5, 0.9)
        Probabilities of the quantiles.
    ci_prob : float, default 0.9
        Probability of the intervals, equal tails.
    prediction_corrected : bool, default False
        Whether differences in the prediction within a bin (doses, covariates, times) are taken out
        (Bergstrand et al. 2011).
    lower_bound : float, default 0
        Of the outcome, for the correction.
    stratify : array_like, shape (row,), optional
        Group of each row, such as a column of treatments; each is checked separately. A Series
        brings its name.
    n_simulations : int, default 500
        Simulated data sets.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same numbers.

    Returns
    -------
    pandas.DataFrame
        A line per stratum, statistic and bin:

        - the name of ``stratify`` ("stratum" where it has none), when given;
        - "statistic": "quantile"; "below" and "above", fractions of censored rows, for a ``Censored`` outcome; "fraction" of
          rows in a category, instead of quantiles, for ``Bernoulli`` and ``Categorical`` outcomes;
        - "level": probability of the quantile, or number of the category; NaN for censored fractions;
        - "bin", "x" (median time of its rows; the middle of a window), "left", "right", "n" (rows);
        - "observed": in the data; "simulated": median over data sets; "lower", "upper": interval over data sets.

        ``attrs`` has "outcome", "x", "ci_prob", "n_simulations" and "prediction_corrected".

    Raises
    ------
    ValueError
        When the times are unknown, an option is out of range, the fit belongs to a different model,
        or a prediction below ``lower_bound`` cannot be corrected.

    See Also
    --------
    pymc_saem.plot_vpc : The same as a figure.
    pymc_saem.residuals : Residuals of each row.
    pymc_saem.simulate : The simulated data sets.

    Notes
    -----
    Prediction correction (Bergstrand et al. 2011, equation 1): for row j of subject i, with PRED
    the population prediction and
    :math:`\widetilde{PRED}` its median over the rows of the bin (and stratum),

    .. math:: pcY_{ij} = lb + (Y_{ij} - lb) \frac{\widetilde{PRED}_{bin} - lb}{PRED_{ij} - lb},

    for observed and simulated rows alike. Rows whose prediction is ``lower_bound`` itself stay as
    they are. On a log scale with lb = 0 this is their equation 2. Censored rows enter quantiles
    with their bound, in the data and in the simulations.

    References
    ----------
    Bergstrand, Hooker, Wallin & Karlsson (2011). Prediction-corrected visual predictive checks for
    diagnosing nonlinear mixed-effects models. The AAPS Journal 13, 143-151.

    Examples
    --------
    >>> table = ps.vpc(model, idata, x=data["time"], random_seed=1)
    >>> sorted(set(table["level"]))
    [0.1, 0.5, 0.9]
    >>> heavy = (data["weight"] > 70).rename("above 70 kg")
    >>> table = ps.vpc(model, idata, x=data["time"], stratify=heavy, prediction_corrected=True, bins=4, random_seed=1)
    >>> table.columns[0]
    'above 70 kg'
    """
    check_types("vpc", locals())
    return predictive_check(
        model,
        idata,
        outcome,
        x,
        bins=bins,
        quantiles=quantiles,
        ci_prob=ci_prob,
        prediction_corrected=prediction_corrected,
        lower_bound=lower_bound,
        stratify=stratify,
        n_simulations=n_simulations,
        random_seed=random_seed,
    ).table


def predictive_check(
    model: pm.Model,
    idata: InferenceData,
    outcome: str | None = None,
    x: ArrayLike | None = None,
    **options: Any,
) -> Vpc:
    """The result of :func:`vpc`, with the rows themselves; same arguments, all options needed."""
    check_count("n_simulations", options["n_simulations"], 2)
    quantiles = np.atleast_1d(np.asarray(options["quantiles"], dtype=float))
    if not quantiles.size or not np.all((quantiles > 0) & (quantiles < 1)):
        raise ValueError(f"quantiles must lie between 0 and 1, got {options['quantiles']!r}.")
    check_probability("ci_prob", options["ci_prob"])
    fitted = FittedRows(model, idata, outcome, x)
    rows = fitted.rows
    if rows.x is None:
        raise ValueError(
            f"The times of outcome '{rows.outcome.name}' are unknown; give one per row with x=, as in x=data[\"time\"]."
        )
    strata = _strata(rows, options["stratify"])
    smooth = is_smooth(options["bins"])
    bins = Windows(rows.x, rows.subject) if smooth else Bins(rows.x, options["bins"], rows.subject)
    simulated = fitted.simulate(options["n_simulations"], random_generator(options["random_seed"]))
    simulated = np.clip(simulated, rows.lower, rows.upper)
    statistics = _statistics(fitted, quantiles)
    y, corrected = rows.observed, simulated
    if options["prediction_corrected"]:
        factors = _corrections(rows, strata, bins, options["lower_bound"])
        y, corrected = (
            options["lower_bound"] + (v - options["lower_bound"]) * factors for v in (y, simulated)
        )
    lines = []
    for label, of_stratum in strata:
        places = list(bins.places(of_stratum))
        for statistic, level, f, is_corrected in statistics:
            data, sets = (y, corrected) if is_corrected else (rows.observed, simulated)
            for line in _lines(data, sets, places, f, options["ci_prob"]):
                lines.append({"stratum": label, "statistic": statistic, "level": level} | line)
    table = pd.DataFrame(lines).rename(columns={"stratum": _name_of(options["stratify"])})
    if options["stratify"] is None:
        table = table.drop(columns="stratum")
    table.attrs = {
        "outcome": rows.outcome.name,
        "x": name_of_times(x),
        "ci_prob": float(options["ci_prob"]),
        "n_simulations": int(options["n_simulations"]),
        "prediction_corrected": bool(options["prediction_corrected"]),
    }
    return Vpc(table, rows.x, y, rows, strata)


def _statistics(
    fitted: FittedRows, quantiles: np.ndarray
) -> list[tuple[str, float, Statistic, bool]]:
    """``(statistic, level, function, whether of corrected values)``; a function of (n, row) and the place that gives (n,)."""
    rows = fitted.rows
    found: list[tuple[str, float, Statistic, bool]] = []
    if isinstance(rows.outcome.parts[0].rv.owner.op, BernoulliRV | CategoricalRV):
        levels = (
            [1.0]
            if isinstance(rows.outcome.parts[0].rv.owner.op, BernoulliRV)
            else np.unique(rows.observed).tolist()
        )
        found += [("fraction", float(level), _fraction(level), False) for level in levels]
    else:
        found += [("quantile", float(p), _quantile(p), True) for p in quantiles]
    if np.isfinite(rows.lower).any():
        found.append(
            ("below", np.nan, lambda v, place: _mean(v <= rows.lower[place.own], v, place), False)
        )
    if np.isfinite(rows.upper).any():
        found.append(
            ("above", np.nan, lambda v, place: _mean(v >= rows.upper[place.own], v, place), False)
        )
    return found


def _quantile(p: float) -> Statistic:
    def quantile(values: np.ndarray, place: Place) -> np.ndarray:
        if place.weights is not None:
            return weighted_quantile(values, place.weights, p)
        whole = np.isfinite(values).all(axis=1)
        out = np.full(len(values), np.nan)
        out[whole] = np.quantile(values[whole], p, axis=1)
        # a subject without a solution
        for k in np.flatnonzero(~whole & np.isfinite(values).any(axis=1)):
            out[k] = np.nanquantile(values[k], p)
        return out

    return quantile


def _fraction(level: float) -> Statistic:
    return lambda values, place: _mean(values == level, values, place)


def _mean(is_true: np.ndarray, values: np.ndarray, place: Place) -> np.ndarray:
    """Fraction of the rows that have a value, (n,)."""
    counts = np.isfinite(values) * (1 if place.weights is None else place.weights)
    total = counts.sum(axis=1)
    return np.divide(
        (is_true * counts).sum(axis=1), total, out=np.full(len(values), np.nan), where=total > 0
    )


def _lines(
    data: np.ndarray, sets: np.ndarray, places: Sequence[Place], f: Statistic, ci_prob: float
) -> Iterator[dict[str, Any]]:
    """A line per place that has rows."""
    for place in places:
        simulated = f(sets[:, place.own], place)
        simulated = simulated[np.isfinite(simulated)]
        tails = [0.5, 0.5 - ci_prob / 2, 0.5 + ci_prob / 2]
        middle, lower, upper = np.quantile(simulated, tails) if simulated.size else [np.nan] * 3
        yield {
            "bin": place.number,
            "x": place.x,
            "left": place.left,
            "right": place.right,
            "n": place.own.size,
            "observed": float(f(data[None, place.own], place)[0]),
            "simulated": middle,
            "lower": lower,
            "upper": upper,
        }


def _corrections(
    rows: Rows, strata: Strata, bins: Bins | Windows, lower_bound: float
) -> np.ndarray:
    """Factors of the prediction correction, (row,)."""
    if rows.predicted is None:
        raise ValueError(
            f"PyMC has no mean for outcome '{rows.outcome.name}', so its predictions cannot be corrected for; use "
            "prediction_corrected=False."
        )
    above = rows.predicted[POPULATION] - lower_bound
    if np.any(above < 0):
        row = int(np.argmin(above))
        raise ValueError(
            f"The population prediction of row {rows.number[row]} is {above[row] + lower_bound:g}, below lower_bound="
            f"{lower_bound:g}, so it cannot be corrected. Set lower_bound= to a value that the outcome never falls below."
        )
    factors, median = np.ones(above.size), _quantile(0.5)
    for _, of_stratum in strata:
        for own, place in bins.around_rows(of_stratum):
            middle = median(above[None, place.own], place)[0]
            factors[own] = np.divide(
                middle, above[own], out=np.ones(own.size), where=above[own] > 0
            )
    return factors


def _name_of(stratify: ArrayLike | None) -> str:
    return str(getattr(stratify, "name", None) or "stratum")


def _strata(rows: Rows, stratify: ArrayLike | None) -> Strata:
    """``(label, rows)`` of each group, in the order of their labels."""
    if stratify is None:
        return [(None, np.ones(rows.number.size, dtype=bool))]
    groups = pd.Series(np.ravel(np.asarray(stratify)))
    if groups.size == rows.outcome.n_rows:
        groups = groups.iloc[rows.number]
    elif groups.size != rows.number.size:
        raise ValueError(
            f"stratify must have one group per row of '{rows.outcome.name}', {rows.outcome.n_rows} in all; got {groups.size}."
        )
    if groups.isna().any():
        raise ValueError(f"stratify has no group for {int(groups.isna().sum())} rows.")
    labels = sorted(groups.unique())
    return [(label, (groups == label).to_numpy()) for label in labels]
