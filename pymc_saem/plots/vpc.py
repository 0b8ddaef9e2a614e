"""Visual predictive check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.diagnose.bins import is_smooth
from pymc_saem.diagnose.fitted_rows import Rows
from pymc_saem.diagnose.vpc import Vpc, predictive_check
from pymc_saem.plots.style import (
    BAND,
    DATA,
    INDIVIDUAL,
    MARK,
    MIDDLE_BAND,
    SERIES,
    AxesLike,
    Style,
    dots,
    legend_above,
    log_scale,
    named_times,
    panels,
    tidy,
    unit_in,
    with_unit,
)

#: Where an observed line leaves its interval.
_OUTSIDE = {
    "color": "#D55E00",
    "marker": "o",
    "markersize": 8,
    "markerfacecolor": "none",
    "linestyle": "none",
    "zorder": 5,
}
_OUTSIDE_SMOOTH = {
    "color": _OUTSIDE["color"],
    "linewidth": 3.0,
    "marker": ".",
    "markersize": 3,
    "zorder": 5,
}


def plot_vpc(
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
    show_data: bool = True,
    log: bool = False,
    xlabel: str | None = None,
    ylabel: str | None = None,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plot a visual predictive check: quantiles of the data over time, on those of simulated data sets.

    Lines are quantiles of the observed rows in each bin, bands the intervals of the same quantiles
    in simulated data sets, with their medians as thin lines. A red ring marks a bin where the
    observed quantile lies outside of its interval, a red line the times where it does with
    ``bins="smooth"``. A ``Censored`` outcome has a second row of panels with the fraction of
    censored rows; a ``Bernoulli`` or ``Categorical`` one shows fractions instead of quantiles. The
    numbers are those of :func:`pymc_saem.vpc`.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    outcome : str, optional
        Name of the observed variable, when there are several.
    x : array_like, shape (row,), optional
        Time of each row, or any other number to sort by. A Series with ``attrs["units"]`` brings
        units; an ODE solution provides its times, and has the units of the ``t`` that it was given.
    bins : {"auto", "unique", "smooth"}, int or sequence of float, default "auto"
        How rows are sorted by their time, see :func:`pymc_saem.vpc`.
    quantiles : sequence of float, default (0.1, 0.5, 0.9)
        Probabilities of the quantiles.
    ci_prob : float, default 0.9
        Probability of the intervals, equal tails.
    prediction_corrected : bool, default False
        Whether differences in the prediction within a bin are taken out.
    lower_bound : float, default 0
        Of the outcome, for the correction.
    stratify : array_like, shape (row,), optional
        Group of each row; each has a panel. A Series brings its name.
    n_simulations : int, default 500
        Simulated data sets.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same figure.
    show_data : bool, default True
        Whether the observed rows are drawn as points.
    log : bool, default False
        Whether the axis of the outcome is logarithmic; it ends below the smallest positive
        observation.
    xlabel, ylabel : str, optional
        By default the name of ``x`` or "time", and the name of the outcome, with units where known.
    ax : Axes or array of Axes, optional
        Where to draw: one per stratum, then one per stratum for the censored fractions of a
        ``Censored`` outcome. A new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Of shape (stratum,), or (2, stratum) for a ``Censored`` outcome.

    Raises
    ------
    ValueError
        As :func:`pymc_saem.vpc`, or when fewer axes are given than needed.

    See Also
    --------
    pymc_saem.vpc : The numbers.
    pymc_saem.plot_residuals : Residuals of each row.
    pymc_saem.simulate : The simulated data sets.

    Examples
    --------
    >>> axes = ps.plot_vpc(model, idata, x=data["time"], random_seed=1)
    >>> heavy = (data["weight"] > 70).rename("above 70 kg")
    >>> axes = ps.plot_vpc(model, idata, x=data["time"], stratify=heavy, bins=4, random_seed=1)
    >>> axes.shape
    (2,)
    """
    check_types("plot_vpc", locals())
    check = predictive_check(
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
    )
    table, name = check.table, check.rows.outcome.name
    look = _Look(
        ci_prob,
        outside=_OUTSIDE_SMOOTH if is_smooth(bins) else _OUTSIDE,
        is_fraction=table["statistic"].iloc[0] == "fraction",
        show_data=show_data,
        log=log,
    )
    has_fractions = table["statistic"].isin(["below", "above"]).any()
    floor = _keep_above(check) if log else None
    grid, is_new = _axes(len(check.strata), has_fractions, ax, figsize)
    for column, (label, of_stratum) in zip(grid.T, check.strata, strict=True):
        _draw_stratum(column, check, label, of_stratum, look)
    if log:  # when all panels are drawn, as it fixes the upper end of an axis that they share
        for panel in grid[0]:
            panel.set_ylim(bottom=floor)
    times = named_times(model[name], x)
    x_name = getattr(times, "name", None) or table.attrs["x"]
    xlabel = with_unit(x_name, unit_in(times, x_name)) if xlabel is None else xlabel
    if ylabel is None:
        ylabel = (
            f"fraction of {name}" if look.is_fraction else with_unit(name, unit_in(times, name))
        )
        ylabel = (
            f"{ylabel}, prediction-corrected"
            if prediction_corrected and not look.is_fraction
            else ylabel
        )
    _finish(grid, is_new, xlabel, ylabel)
    return grid if has_fractions else grid[0]


@dataclass(frozen=True)
class _Look:
    """How all panels are drawn."""

    ci_prob: float
    outside: Style  # where an observed line leaves its interval
    is_fraction: bool  # of rows in a category, instead of quantiles
    show_data: bool
    log: bool


def _keep_above(check: Vpc) -> float:
    """Lower end of a logarithmic axis; lines of the table end below it, as zero would be infinitely far down."""
    table, columns = check.table, ["observed", "simulated", "lower", "upper"]
    is_value = table["level"].notna()
    seen = np.concatenate([check.y, table.loc[is_value, "observed"]])
    floor = 0.7 * min(seen[seen > 0], default=1.0)
    table.loc[is_value, columns] = table.loc[is_value, columns].clip(lower=0.95 * floor)
    return floor


def _draw_stratum(
    column: np.ndarray, check: Vpc, label: object, of_stratum: np.ndarray, look: _Look
) -> None:
    """One group of rows: its quantiles, and below them its censored fractions if there are two panels."""
    table, panel = check.table, column[0]
    own = table if label is None else table[table.iloc[:, 0] == label]
    if look.show_data and not look.is_fraction:
        panel.plot(check.x[of_stratum], check.y[of_stratum], label="data", **dots(of_stratum.sum()))
    if look.log:
        log_scale(panel, "y")
    _draw_statistics(panel, own[own["statistic"].isin(["quantile", "fraction"])], look)
    if label is not None:
        panel.set_title(f"{table.columns[0]} {label}", fontsize="medium")
    if len(column) > 1:
        _draw_bounds(panel, check.rows, of_stratum)
        _draw_fractions(column[1], own, look.outside)


def _axes(
    n: int, has_fractions: bool, axes: AxesLike | None, figsize: tuple[float, float] | None
) -> tuple[np.ndarray, bool]:
    """Axes (1 or 2, stratum), and whether the figure is new."""
    if axes is not None:
        given, _ = panels(n * (1 + has_fractions), axes, None, share=False)
        return given.reshape(-1, n), False
    if not has_fractions:
        size = figsize or ((6.2, 4.2) if n == 1 else None)
        found, is_new = panels(n, None, size, share=True, size=(3.6, 2.9), max_columns=4)
        return found[None], is_new
    _, grid = plt.subplots(
        2,
        n,
        figsize=figsize or (max(6.2, 3.4 * n), 5.4),
        sharex=True,
        sharey="row",
        squeeze=False,
        height_ratios=(3, 1),
        layout="constrained",
    )
    return grid, True


def _draw_statistics(ax: Axes, own: pd.DataFrame, look: _Look) -> None:
    levels = np.sort(own["level"].unique())
    line: Style
    middle = levels[np.argmin(np.abs(levels - 0.5))]
    for k, level in enumerate(levels):
        part = own[own["level"] == level].sort_values("x")
        if look.is_fraction:
            color = SERIES[k % len(SERIES)]
            band, line = (
                BAND | {"color": color["color"], "alpha": 0.25},
                color | {"linewidth": 1.6, "zorder": 4},
            )
            name = f"fraction of {level:g}"
        else:
            is_middle = level == middle
            band = MIDDLE_BAND if is_middle else BAND
            line = DATA | {
                "marker": "none",
                "linewidth": 1.6,
                "linestyle": "-" if is_middle else "--",
            }
            name = (
                f"{level:g}" if is_middle else ", ".join(f"{p:g}" for p in levels[levels != middle])
            ) + " quantile"
        _band(ax, part, band, f"simulated {name}, {100 * look.ci_prob:g} % interval")
        thin: Style = {
            "color": line["color"] if look.is_fraction else "#777777",
            "linewidth": 0.8,
            "linestyle": ":",
            "zorder": 3,
        }
        x, simulated, observed = _over_bins(part, "simulated", "observed")
        ax.plot(x, simulated, label="simulated, median", **thin)
        ax.plot(x, observed, label=f"observed {name}", **line)
        _mark_outside(ax, part, look.outside)
    tidy(ax)


def _over_bins(part: pd.DataFrame, *names: str) -> tuple:
    """x and columns of a table of bins; a single bin, which would be a point, from its left to its right."""
    x = part["x"] if len(part) > 1 else part[["left", "right"]].iloc[0]
    return x, *(np.broadcast_to(part[name], len(x)) for name in names)


def _band(ax: Axes, part: pd.DataFrame, style: Style, label: str | None = None) -> None:
    x, lower, upper = _over_bins(part, "lower", "upper")
    ax.fill_between(x, lower, upper, label=label, **style)
    for edge in (lower, upper):  # bands may overlap
        ax.plot(x, edge, color=style["color"], linewidth=0.7, alpha=0.8, zorder=style["zorder"])


def _mark_outside(ax: Axes, part: pd.DataFrame, style: Style) -> None:
    is_out = (part["observed"] < part["lower"]) | (part["observed"] > part["upper"])
    if is_out.any():
        # a line breaks where the curve is inside; rings stand alone
        out = (
            part[is_out]
            if style is _OUTSIDE
            else part.assign(observed=part["observed"].where(is_out))
        )
        ax.plot(out["x"], out["observed"], label="outside of its interval", **style)


def _draw_bounds(ax: Axes, rows: Rows, of_stratum: np.ndarray) -> None:
    for bounds in (rows.lower, rows.upper):
        for bound in np.unique(bounds[of_stratum & np.isfinite(bounds)])[:3]:
            ax.axhline(bound, **MARK)


def _draw_fractions(ax: Axes, own: pd.DataFrame, outside: Style) -> None:
    for statistic, style in (("below", INDIVIDUAL), ("above", SERIES[1])):
        part = own[own["statistic"] == statistic].sort_values("x")
        if part.empty:
            continue
        _band(ax, part, BAND)
        x, simulated, observed = _over_bins(part, "simulated", "observed")
        ax.plot(x, simulated, color="#777777", linewidth=0.8, linestyle=":")
        ax.plot(
            x,
            observed,
            **DATA | {"marker": "none", "linestyle": style["linestyle"], "linewidth": 1.6},
        )
        _mark_outside(ax, part, outside)
    ax.set_ylim(-0.03, 1.03)
    tidy(ax)


def _finish(grid: np.ndarray, is_new: bool, xlabel: str, ylabel: str) -> None:
    for ax in grid[-1] if len(grid) > 1 or not is_new or grid.shape[1] == 1 else ():
        ax.set_xlabel(xlabel)
    if is_new and len(grid) == 1 and grid.shape[1] > 1:
        grid[0, 0].figure.supxlabel(xlabel, fontsize="medium")
        grid[0, 0].figure.supylabel(ylabel, fontsize="medium")
    else:
        for ax in grid[0] if not is_new else grid[0, :1]:
            ax.set_ylabel(ylabel)
    if len(grid) > 1:
        for ax in grid[1] if not is_new else grid[1, :1]:
            ax.set_ylabel("censored")
    _legend(grid, is_new)


def _legend(grid: np.ndarray, is_new: bool) -> None:
    """One legend for all panels, each label once."""
    found: dict[str, Artist] = {}
    for ax in grid[0]:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    words = ("data", "observed 0.5", "observed ", "outside", "simulated")
    order = sorted(
        found, key=lambda label: [k for k, word in enumerate(words) if label.startswith(word)]
    )
    handles = [found[label] for label in order]
    if is_new:
        legend_above(grid[0, 0].figure, handles, order, n_columns=2, fontsize="small")
    else:
        grid[0, 0].legend(handles, order, frameon=False, fontsize="small")
