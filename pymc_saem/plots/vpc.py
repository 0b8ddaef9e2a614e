"""Visual predictive check."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from pymc_saem.diagnose.vpc import predictive_check
from pymc_saem.plots.style import (
    BAND,
    DATA,
    INDIVIDUAL,
    MARK,
    MIDDLE_BAND,
    SERIES,
    add_legend,
    dots,
    panels,
    tidy,
    unit_in,
    with_unit,
)

#: Where an observed line leaves its interval.
_OUTSIDE = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "linestyle": "none", "zorder": 5}


def plot_vpc(
    model,
    idata,
    outcome=None,
    x=None,
    *,
    bins="auto",
    quantiles=(0.1, 0.5, 0.9),
    ci_prob=0.9,
    prediction_corrected=False,
    lower_bound=0.0,
    stratify=None,
    n_simulations=500,
    random_seed=None,
    show_data=True,
    log=False,
    xlabel=None,
    ylabel=None,
    axes=None,
    figsize=None,
):
    """Plot a visual predictive check: quantiles of the data over time, on those of simulated data sets.

    Lines are quantiles of the observed rows in each bin, bands the intervals of the same quantiles in simulated
    data sets, with their medians as thin lines. A red ring marks a bin where the observed quantile lies outside of its interval.
    A ``Censored`` outcome has a second row of panels with the fraction of censored rows; a ``Bernoulli`` or ``Categorical`` one
    shows fractions instead of quantiles. The numbers are those of :func:`pymc_saem.vpc`.

    Parameters
    ----------
    model, idata, outcome, x, bins, quantiles, ci_prob, prediction_corrected, lower_bound, stratify, n_simulations, random_seed
        As in :func:`pymc_saem.vpc`. A Series ``x`` with ``attrs["units"]`` brings units.
    show_data : bool, default True
        Whether the observed rows are drawn as points.
    log : bool, default False
        Whether the axis of the outcome is logarithmic.
    xlabel, ylabel : str, optional
        By default the name of ``x`` or "time", and the name of the outcome, with units where known.
    axes : Axes or array of Axes, optional
        Where to draw: one per stratum, then one per stratum for the censored fractions of a ``Censored`` outcome. A new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (stratum,), or (2, stratum) for a ``Censored`` outcome

    Raises
    ------
    ValueError
        As :func:`pymc_saem.vpc`, or when fewer axes are given than needed.

    Examples
    --------
    >>> ps.plot_vpc(model, idata, x=data["time"], random_seed=1)  # doctest: +SKIP
    >>> ps.plot_vpc(model, idata, prediction_corrected=True, stratify=data["sex"], log=True)  # doctest: +SKIP
    """
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
    is_fraction = table["statistic"].iloc[0] == "fraction"
    has_fractions = table["statistic"].isin(["below", "above"]).any()
    grid, is_new = _axes(len(check.strata), has_fractions, axes, figsize)
    for k, (label, of_stratum) in enumerate(check.strata):
        own = table if label is None else table[table.iloc[:, 0] == label]
        ax = grid[0, k]
        if show_data and not is_fraction:
            ax.plot(check.x[of_stratum], check.y[of_stratum], label="data", **dots(of_stratum.sum()))
        _draw_statistics(ax, own[own["statistic"].isin(["quantile", "fraction"])], ci_prob, is_fraction)
        if label is not None:
            ax.set_title(f"{table.columns[0]} {label}", fontsize="medium")
        if has_fractions:
            _draw_bounds(ax, check.rows, of_stratum)
            _draw_fractions(grid[1, k], own)
    x_name = table.attrs["x"]
    xlabel = with_unit(x_name, unit_in(x, x_name)) if xlabel is None else xlabel
    if ylabel is None:
        ylabel = f"fraction of {name}" if is_fraction else with_unit(name, unit_in(x, name))
        ylabel = f"{ylabel}, prediction-corrected" if prediction_corrected and not is_fraction else ylabel
    _finish(grid, is_new, xlabel, ylabel, log)
    return grid if has_fractions else grid[0]


def _axes(n, has_fractions, axes, figsize):
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


def _draw_statistics(ax, own, ci_prob, is_fraction):
    levels = np.sort(own["level"].unique())
    drawn = set()
    for level in levels:
        part = own[own["level"] == level].sort_values("x")
        is_middle = not is_fraction and level == levels[np.argmin(np.abs(levels - 0.5))]
        if is_fraction:
            color = SERIES[int(np.flatnonzero(levels == level)[0]) % len(SERIES)]
            label, band = f"observed: {level:g}", BAND | {"color": color["color"], "alpha": 0.25}
            line = color | {"linewidth": 1.6, "zorder": 4}
        else:
            color = MIDDLE_BAND if is_middle else BAND
            label = "observed quantiles " + ", ".join(f"{p:g}" for p in levels)
            band, line = color, DATA | {"marker": "none", "linewidth": 1.6, "linestyle": "-" if is_middle else "--"}
        interval = f"{100 * ci_prob:g} % interval of simulations"
        _band(ax, part, band, interval if interval not in drawn else None)
        thin = {"color": line["color"] if is_fraction else "#777777", "linewidth": 0.8, "linestyle": ":", "zorder": 3}
        ax.plot(part["x"], part["simulated"], label="their median" if "median" not in drawn else None, **thin)
        ax.plot(part["x"], part["observed"], label=label if label not in drawn else None, **line)
        _mark_outside(ax, part)
        drawn |= {interval, "median", label}
    tidy(ax)


def _band(ax, part, style, label):
    if len(part) == 1:  # a single bin has a width of its own
        (one,) = part.itertuples()
        ax.fill_between([one.left, one.right], one.lower, one.upper, label=label, **style)
        return
    ax.fill_between(part["x"], part["lower"], part["upper"], label=label, **style)


def _mark_outside(ax, part):
    out = part[(part["observed"] < part["lower"]) | (part["observed"] > part["upper"])]
    if len(out):
        ax.plot(out["x"], out["observed"], markeredgecolor="#D55E00", markeredgewidth=1.4, **_OUTSIDE)


def _draw_bounds(ax, rows, of_stratum):
    for bounds in (rows.lower, rows.upper):
        for bound in np.unique(bounds[of_stratum & np.isfinite(bounds)])[:3]:
            ax.axhline(bound, **MARK)


def _draw_fractions(ax, own):
    for statistic, style in (("below", INDIVIDUAL), ("above", SERIES[1])):
        part = own[own["statistic"] == statistic].sort_values("x")
        if part.empty:
            continue
        _band(ax, part, BAND, None)
        ax.plot(part["x"], part["simulated"], color="#777777", linewidth=0.8, linestyle=":")
        ax.plot(
            part["x"], part["observed"], **DATA | {"marker": "none", "linestyle": style["linestyle"], "linewidth": 1.6}
        )
        _mark_outside(ax, part)
    ax.set_ylim(-0.03, 1.03)
    tidy(ax)


def _finish(grid, is_new, xlabel, ylabel, log):
    for ax in grid[0]:
        if log:
            ax.set_yscale("log", nonpositive="mask")
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
    add_legend(list(grid[0]), is_new, n_columns=2)
