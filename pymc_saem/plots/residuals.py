"""Residuals against time and prediction, and their distribution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from scipy import stats

from pymc_saem.arguments import check_types, name_of_times, shown
from pymc_saem.compat import InferenceData
from pymc_saem.diagnose.residuals import residuals
from pymc_saem.plots.smooth import trend
from pymc_saem.plots.style import (
    BAND,
    DATA,
    INDIVIDUAL,
    MARK,
    TREND,
    AxesLike,
    add_legend,
    dots,
    named_times,
    panels,
    tidy,
    unit_in,
    with_unit,
)

_RESIDUALS = ("iwres", "pwres", "npde", "pit")
_KINDS = ("time", "prediction", "qq", "histogram", "autocorrelation")
_PROBABILITY = 0.95  # of every interval in the figure


def plot_residuals(
    model: pm.Model,
    idata: InferenceData,
    outcome: str | None = None,
    x: ArrayLike | None = None,
    *,
    which: str | Sequence[str] = ("iwres", "npde"),
    kinds: str | Sequence[str] | None = None,
    n_simulations: int = 1000,
    random_seed: int | np.random.Generator | None = None,
    xlabel: str | None = None,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plot residuals: against time and prediction, QQ plot, histogram, autocorrelation.

    A row of panels per residual, a column per kind. Shaded is where 95 % of the residuals, or of a
    statistic of as many independent ones, lie if the model is true. Trends are local linear
    regressions. The numbers are those of :func:`pymc_saem.residuals`, which says what each residual
    is.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    outcome : str, optional
        Name of the observed variable, when there are several.
    x : array_like, shape (row,), optional
        Time of each row, or any other number such as time after dose. An ODE solution provides its
        times, and has the units of the ``t`` that it was given. A Series with ``attrs["units"]``
        brings units.
    which : str or sequence of {"iwres", "pwres", "npde", "pit"}, default ("iwres", "npde")
        Residuals, one row of panels each.
    kinds : str or sequence of {"time", "prediction", "qq", "histogram", "autocorrelation"}, optional
        By default all but the last, and "time" only where it is known. "prediction" is the
        individual one for "iwres", else the population's. "autocorrelation" is within subjects, by
        the number of rows between, in order of time.
    n_simulations : int, default 1000
        Simulated data sets.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same residuals.
    xlabel : str, optional
        Of the panels over time; by default the name of ``x`` or "time", with its unit where known.
    ax : Axes or array of Axes, optional
        Where to draw, residual by residual; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Of shape (residual, kind).

    Raises
    ------
    ValueError
        When a residual or kind does not exist, "time" is asked for and not known, or as
        :func:`pymc_saem.residuals`.

    See Also
    --------
    pymc_saem.residuals : The numbers, and what each residual is.
    pymc_saem.plot_vpc : Quantiles of the data beside those of simulations.
    pymc_saem.plot_predictions : Observed values against predictions.

    Examples
    --------
    >>> axes = ps.plot_residuals(model, idata, x=data["time"], random_seed=1)
    >>> axes.shape
    (2, 4)
    >>> axes = ps.plot_residuals(model, idata, which="pit", kinds="histogram", random_seed=1)
    """
    check_types("plot_residuals", locals())
    which, asked = _several("which", which, _RESIDUALS), kinds
    kinds = _several("kinds", _KINDS[:4] if kinds is None else kinds, _KINDS)
    table = residuals(
        model, idata, outcome, x, n_simulations=n_simulations, random_seed=random_seed
    )
    if "x" not in table and "time" in kinds:
        if asked is not None:
            raise ValueError(
                f"The times of outcome '{table.attrs['outcome']}' are unknown; give one per row with x=, as in "
                'x=data["time"].'
            )
        kinds = tuple(kind for kind in kinds if kind != "time")
    if not np.isfinite(table[["population", "individual"]]).any(axis=None):
        kinds = tuple(kind for kind in kinds if kind != "prediction")
    grid, is_new = _axes(len(which), len(kinds), ax, figsize)
    name = table.attrs["outcome"]
    times = named_times(model[name], x)
    x_name = name_of_times(times)
    for i, residual in enumerate(which):
        prediction = "individual" if residual == "iwres" else "population"
        labels = {
            "time": xlabel or with_unit(x_name, unit_in(times, x_name)),
            "prediction": with_unit(f"{prediction} prediction", unit_in(times, name)),
        }
        for panel, kind in zip(grid[i], kinds, strict=True):
            _DRAW[kind](panel, table, residual)
            panel.set_xlabel(labels.get(kind, panel.get_xlabel()))
            tidy(panel)
    add_legend(list(grid[0]), is_new)
    return grid


def _several(argument: str, value: str | Sequence[str], known: Iterable[str]) -> tuple:
    value = (value,) if isinstance(value, str) else tuple(value)
    wrong = [v for v in value if v not in known]
    if wrong or not value:
        raise ValueError(
            f"{argument} must be among {', '.join(map(repr, known))}, got {shown(value)}."
        )
    return value


def _axes(
    n_rows: int, n_columns: int, axes: AxesLike | None, figsize: tuple[float, float] | None
) -> tuple[np.ndarray, bool]:
    if axes is not None:
        given, _ = panels(n_rows * n_columns, axes, None, share=False)
        return given.reshape(n_rows, n_columns), False
    size = figsize or (max(4.2, 2.9 * n_columns), 2.45 * n_rows + 0.5)
    _, grid = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    return grid, True


def _law(residual: str) -> Any:
    """The distribution of the residual if the model is true."""
    return stats.uniform() if residual == "pit" else stats.norm()


def _against(ax: Axes, table: pd.DataFrame, residual: str, values: np.ndarray) -> None:
    law, y = _law(residual), table[residual].to_numpy()
    tail = (1 - _PROBABILITY) / 2
    ax.axhspan(
        law.ppf(tail),
        law.ppf(1 - tail),
        label=f"{100 * _PROBABILITY:g} % if the model is true",
        **BAND | {"alpha": 0.18},
    )
    ax.axhline(law.mean(), **MARK)
    is_cut = (
        (table["censored"] != "no").to_numpy()
        if "censored" in table
        else np.zeros(y.size, dtype=bool)
    )
    style = dots(y.size)
    ax.plot(values[~is_cut], y[~is_cut], label="rows", **style)
    if is_cut.any():
        ring = style | {"markerfacecolor": "none", "markeredgewidth": 0.9, "alpha": 0.6}
        ax.plot(values[is_cut], y[is_cut], label="censored rows", **ring)
    line = trend(values, y)
    if line[0].size:
        ax.plot(*line, label="trend", **TREND)
    if residual == "pit":
        ax.set_ylim(-0.02, 1.02)
    else:
        most = 1.08 * max(3.0, np.nanmax(np.abs(y)))
        ax.set_ylim(-most, most)
    ax.set_ylabel(residual.upper())


def _time(ax: Axes, table: pd.DataFrame, residual: str) -> None:
    _against(ax, table, residual, table["x"].to_numpy())


def _prediction(ax: Axes, table: pd.DataFrame, residual: str) -> None:
    _against(
        ax, table, residual, table["individual" if residual == "iwres" else "population"].to_numpy()
    )


def _qq(ax: Axes, table: pd.DataFrame, residual: str) -> None:
    law, y = _law(residual), np.sort(table[residual].dropna().to_numpy())
    k = np.arange(1, y.size + 1)
    expected = law.ppf((k - 0.5) / y.size)
    tail = (1 - _PROBABILITY) / 2
    # an order statistic of uniform numbers has a beta distribution
    lower, upper = (law.ppf(stats.beta.ppf(p, k, y.size + 1 - k)) for p in (tail, 1 - tail))
    ax.fill_between(expected, lower, upper, **BAND | {"alpha": 0.18})
    ax.plot(expected[[0, -1]], expected[[0, -1]], **MARK)
    ax.plot(expected, y, **dots(y.size) | {"alpha": 0.6})
    ax.set_xlabel("uniform quantile" if residual == "pit" else "normal quantile")
    ax.set_ylabel(residual.upper())


def _histogram(ax: Axes, table: pd.DataFrame, residual: str) -> None:
    law, y = _law(residual), table[residual].dropna().to_numpy()
    n_bins = int(np.clip(2 * y.size ** (1 / 3), 6, 40))
    if residual == "pit":
        edges = np.linspace(0, 1, n_bins + 1)
    else:
        most = max(3.0, np.abs(y).max())
        edges = np.linspace(-most, most, n_bins + 1)
    p = np.diff(law.cdf(edges))
    tail = (1 - _PROBABILITY) / 2
    scale = y.size * np.diff(edges)
    lower, upper = (stats.binom.ppf(q, y.size, p) / scale for q in (tail, 1 - tail))
    ax.stairs(
        np.histogram(y, edges)[0] / scale, edges, color=DATA["color"], alpha=0.75, linewidth=1.2
    )
    ax.stairs(upper, edges, baseline=lower, fill=True, **BAND | {"alpha": 0.3})
    grid = np.linspace(edges[0], edges[-1], 200)
    ax.plot(grid, law.pdf(grid), **INDIVIDUAL | {"linewidth": 1.2})
    ax.set_ylim(bottom=0)
    ax.set_xlabel(residual.upper())
    ax.set_ylabel("density")


def _autocorrelation(ax: Axes, table: pd.DataFrame, residual: str, most: int = 10) -> None:
    values = table[residual] - _law(residual).mean()
    order = table.assign(_value=values)
    if "x" in table:
        order = order.sort_values("x", kind="stable")
    groups = [own["_value"].to_numpy() for _, own in order.groupby(order.columns[0], sort=False)]
    variance = np.nanmean(values**2)
    lags = np.arange(1, 1 + min(most, max(g.size for g in groups) - 1))
    found, bounds = [], []
    for lag in lags:
        products = np.concatenate([g[lag:] * g[:-lag] for g in groups])
        products = products[np.isfinite(products)]
        found.append(products.mean() / variance if products.size else np.nan)
        bounds.append(stats.norm.ppf((1 + _PROBABILITY) / 2) / np.sqrt(max(products.size, 1)))
    bound = np.array(bounds)
    if lags.size:
        edges = np.append(lags - 0.5, lags[-1] + 0.5)
        ax.stairs(bound, edges, baseline=-bound, fill=True, **BAND | {"alpha": 0.18})
        ax.vlines(lags, 0, found, color=DATA["color"], linewidth=1.4)
        ax.plot(lags, found, **DATA)
    ax.axhline(0, **MARK)
    highest = max(0.5, 1.1 * np.nanmax(np.abs([*found, *bound]))) if lags.size else 0.5
    ax.set_ylim(-min(highest, 1.05), min(highest, 1.05))
    ax.set_xlim(0.4, max(lags.size, 1) + 0.6)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("lag within subject [rows]")
    ax.set_ylabel(f"autocorrelation of {residual.upper()}")


_DRAW = {
    "time": _time,
    "prediction": _prediction,
    "qq": _qq,
    "histogram": _histogram,
    "autocorrelation": _autocorrelation,
}
