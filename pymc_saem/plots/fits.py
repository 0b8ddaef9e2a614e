"""Fitted curves, subject by subject."""

from __future__ import annotations

import warnings

import numpy as np

from pymc_saem.evaluate.arguments import check_probability
from pymc_saem.evaluate.censored import censored_rows
from pymc_saem.evaluate.curves import draw_curves
from pymc_saem.evaluate.fitted_outcome import (
    DRAWS,
    MODE_SAMPLE,
    POPULATION_SAMPLE,
    find_subjects,
    read_outcome,
    sample_values,
)
from pymc_saem.evaluate.row_function import RowFunction, location
from pymc_saem.plots.style import (
    BAND,
    CENSORED,
    DATA,
    INDIVIDUAL,
    POPULATION,
    add_legend,
    label_axes,
    log_scale,
    pages,
    tidy,
    unit_in,
    with_unit,
)


def plot_fits(
    model,
    idata,
    subjects=None,
    outcome=None,
    x=None,
    *,
    n_grid=150,
    n_draws=200,
    ci_prob=0.9,
    xlabel=None,
    ylabel=None,
    yscale="linear",
    sharex=True,
    sharey=True,
    columns=None,
    per_page=30,
    axes=None,
    figsize=None,
):
    """Plot data and predictions of each subject over time.

    Each panel has the data, the individual prediction (random effects at their conditional mode), the
    population prediction (random effects at their population value), and a band of the individual prediction from
    draws of its random effects given the data. The band is about the curve; residual error is not in it.
    Rows of a ``pm.Censored`` outcome that were observed at a limit are open triangles there, which point to where the value may be; the
    curves are those of the law before it was cut off.

    ODEs are solved at tolerance 1e-8 on a fine grid, whatever the tolerance of the model.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    subjects : label or sequence of labels, optional
        As in the model's coords; all subjects by default.
    outcome : str, optional
        Name of the observed variable, when there are several.
    x : array_like, shape (row,), optional
        Time of each row. An ODE solution knows its times; a model written as a formula needs them here, and
        gets smooth curves when the formula uses the same numbers. A Series with ``attrs["units"]`` brings units.
    n_grid : int, default 150
        Points of each curve.
    n_draws : int, default 200
        Draws behind the band, at most.
    ci_prob : float, default 0.9
        Probability of the band, equal tails.
    xlabel, ylabel : str, optional
        By default the name of ``x`` or "time", and the name of the outcome, with units where known.
    yscale : str, default "linear"
        Such as "log". Values that are not positive have no place there.
    sharex, sharey : bool, default True
        Whether all panels, on all pages, have the same axes.
    columns : int, optional
        Panels side by side; by default as many as make a page somewhat wider than high.
    per_page : int, default 30
        More subjects than that take several figures; ``axes[k].figure`` is the one of a panel.
    axes : Axes or array of Axes, optional
        Where to draw, one per subject; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure, or of each page, in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (subject,)

    Raises
    ------
    ValueError
        When a subject or outcome does not exist, ``x`` is missing or wrong, or the fit is of another model.

    Examples
    --------
    >>> ps.plot_fits(model, idata, subjects=[1, 2], xlabel="time [h]")  # doctest: +SKIP
    """
    check_probability("ci_prob", ci_prob)
    if n_grid < 2:
        raise ValueError(f"n_grid must be at least 2, got {n_grid}.")
    fitted = read_outcome(model, idata, outcome)
    chosen = find_subjects(fitted, subjects)
    samples = sample_values(model, idata, n_draws)
    rows = RowFunction(model, [location(fitted.rv)], fitted, samples, x)
    if rows.x is None:
        raise ValueError(
            f"Nothing tells the times of outcome '{fitted.name}'; give one per row as x=, as in x=data[\"time\"]."
        )
    curves = draw_curves(rows, chosen, n_grid)
    side = censored_rows(model, fitted, samples, x)
    axes, figures = pages(len(chosen), axes, figsize, per_page, sharex=sharex, sharey=sharey, columns=columns)
    for ax, subject, curve in zip(axes, chosen, curves, strict=True):
        own = fitted.rows_of(subject)
        _draw_data(ax, rows.x[own], fitted.observed[own], side[own], is_censored=side.any())
        _draw_curve(ax, curve, ci_prob)
        ax.set_title(f"{fitted.subject_dim} {fitted.subjects[subject]}", fontsize="medium")
        if yscale == "log":
            log_scale(ax, "y")
        elif yscale != "linear":
            ax.set_yscale(yscale)
        tidy(ax)
    if yscale == "log":
        _fit_log_axes(axes, fitted, chosen, curves, sharey)
    _warn_of_gaps(fitted, chosen, curves)
    x_name = getattr(x, "name", None) or "time"
    xlabel = with_unit(x_name, unit_in(x, x_name)) if xlabel is None else xlabel
    ylabel = with_unit(fitted.name, unit_in(x, fitted.name)) if ylabel is None else ylabel
    for page, is_new in figures:
        label_axes(page, is_new, xlabel, ylabel)
        add_legend(page, is_new, n_columns=3 if side.any() else 4)
    if len(figures) > 1:
        _same_limits([page for page, _ in figures], sharex, sharey)
    return axes


def _draw_data(ax, x, y, side, is_censored):
    ax.plot(x[side == 0], y[side == 0], label="data", **DATA)
    if is_censored:  # in all panels, for the legend
        for k, (marker, label) in {-1: ("v", "below its limit"), 1: ("^", "above its limit")}.items():
            label = label if (side == k).any() or k == -1 else None
            ax.plot(x[side == k], y[side == k], label=label, **CENSORED | {"marker": marker})


def _fit_log_axes(axes, fitted, chosen, curves, sharey):
    """Lower ends by what is positive in data and modes: a band that falls to zero would stretch the axis by decades."""
    lows, highs = [], []
    for subject, curve in zip(chosen, curves, strict=True):
        y = np.concatenate([fitted.observed[fitted.rows_of(subject)], curve.y[:2].ravel()])
        observed = fitted.observed[fitted.rows_of(subject)]
        y, observed = y[np.isfinite(y) & (y > 0)], observed[observed > 0]
        lows.append(0.5 * observed.min() if observed.size else np.nan)
        highs.append(2.0 * y.max() if y.size else np.nan)
    if sharey:
        lows, highs = [np.nanmin(lows)] * len(lows), [np.nanmax(highs)] * len(highs)
    for ax, low, high in zip(axes, lows, highs, strict=True):
        if np.isfinite([low, high]).all():
            ax.set_ylim(low, high)


def _same_limits(pages, sharex, sharey):
    """The same axes on all pages; within a figure Matplotlib sees to it."""
    for wanted, get, put in ((sharex, "get_xlim", "set_xlim"), (sharey, "get_ylim", "set_ylim")):
        if wanted:
            limits = np.array([getattr(page[0], get)() for page in pages])
            for page in pages:
                getattr(page[0], put)(limits[:, 0].min(), limits[:, 1].max())


def _draw_curve(ax, curve, ci_prob):
    ax.plot(curve.x, curve.y[MODE_SAMPLE], label="individual", **INDIVIDUAL)
    ax.plot(curve.x, curve.y[POPULATION_SAMPLE], label="population", **POPULATION)
    draws = curve.y[DRAWS]
    if len(draws):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where every draw failed the band has a gap
            lower, upper = np.nanquantile(draws, [0.5 - ci_prob / 2, 0.5 + ci_prob / 2], axis=0)
        ax.fill_between(curve.x, lower, upper, label=f"{100 * ci_prob:g} % band", **BAND)


def _warn_of_gaps(fitted, chosen, curves):
    """Say which curves have gaps, because an empty panel explains nothing."""
    names = [str(fitted.subjects[s]) for s, c in zip(chosen, curves, strict=True) if not np.isfinite(c.y[:2]).all()]
    if names:
        warnings.warn(
            f"The prediction is not finite everywhere for {fitted.subject_dim} {', '.join(names)}; with an ODE, the "
            "solver failed at tolerance 1e-8: raise max_steps of solve_ivp.",
            UserWarning,
            stacklevel=3,
        )
