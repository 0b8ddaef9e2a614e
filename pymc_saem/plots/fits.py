"""Fitted curves, subject by subject."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pymc as pm
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from pymc_saem.arguments import check_probability, check_types, name_of_times
from pymc_saem.compat import InferenceData
from pymc_saem.evaluate.censored import censored_rows
from pymc_saem.evaluate.curves import Curve, draw_curves
from pymc_saem.evaluate.fitted_outcome import (
    DRAWS,
    MODE_SAMPLE,
    POPULATION_SAMPLE,
    FittedOutcome,
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
    AxesLike,
    add_legend,
    label_axes,
    log_scale,
    named_times,
    pages,
    tidy,
    unit_in,
    with_unit,
)


def plot_fits(
    model: pm.Model,
    idata: InferenceData,
    subjects: Hashable | Sequence[Hashable] | None = None,
    outcome: str | Sequence[str] | None = None,
    x: ArrayLike | Mapping[str, ArrayLike] | None = None,
    *,
    n_grid: int = 150,
    n_draws: int = 200,
    ci_prob: float = 0.9,
    xlabel: str | None = None,
    ylabel: str | Sequence[str] | None = None,
    log: bool = False,
    sharex: bool = True,
    sharey: bool = True,
    ncols: int | None = None,
    per_page: int = 30,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plot data and predictions of each subject over time.

    Each panel has the data, the individual prediction (random effects at their conditional mode),
    the population prediction (random effects at their population value), and a band of the
    individual prediction from draws of its random effects given the data. The band is about the
    curve; residual error is not in it. Rows of a ``pm.Censored`` outcome that were observed at a
    limit are open triangles there, which point to where the value may be; the curves are those of
    the distribution before it was cut off.

    ODEs are solved at tolerance 1e-8 on a fine grid, whatever the tolerance of the model.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    subjects : label or sequence of labels, optional
        As in the model's coords; all subjects by default.
    outcome : str or sequence of str, optional
        Name of the observed variable, when there are several. Of a sequence each subject has as
        many panels side by side.
    x : array_like, shape (row,), or dict of str to array_like, optional
        Time of each row, by outcome where several have different rows. An ODE solution provides its
        times; a model written as a formula needs them here, and gets smooth curves when the formula
        uses the same numbers. A Series with ``attrs["units"]`` brings units; an ODE solution has
        those of the ``t`` that it was given.
    n_grid : int, default 150
        Points of each curve.
    n_draws : int, default 200
        Draws behind the band, at most.
    ci_prob : float, default 0.9
        Probability of the band, equal tails.
    xlabel : str, optional
        By default the name of ``x`` or "time", with its unit where known.
    ylabel : str or sequence of str, optional
        By default the name of the outcome, with its unit where known; a sequence has one for each
        outcome.
    log : bool, default False
        Logarithmic y axes; non-positive values are not drawn.
    sharex, sharey : bool, default True
        Whether all panels, on all pages, have the same axes; y axes those of an outcome.
    ncols : int, optional
        Panels side by side; by default as many as make a page somewhat wider than high. With
        several outcomes a multiple of their number.
    per_page : int, default 30
        More panels than that take several figures; ``axes[k].figure`` is the one of a panel.
    ax : Axes or array of Axes, optional
        Where to draw, one per subject and outcome; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure, or of each page, in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Of shape (subject,), or (subject, outcome) with a sequence of outcomes.

    Raises
    ------
    ValueError
        When a subject or outcome does not exist, ``x`` is missing or wrong, the fit belongs to a
        different model, or the number of columns or labels does not suit the outcomes.

    See Also
    --------
    pymc_saem.predict : The predictions as a table.
    pymc_saem.plot_predictions : Observed values against predictions.
    pymc_saem.plot_data : The data alone.

    Examples
    --------
    >>> axes = ps.plot_fits(model, idata, subjects=[1, 2], x=data["time"], xlabel="time [h]")
    >>> axes.shape
    (2,)
    """
    check_types("plot_fits", locals())
    check_probability("ci_prob", ci_prob)
    if n_grid < 2:
        raise ValueError(f"n_grid must be at least 2, got {n_grid}.")
    several = not (outcome is None or isinstance(outcome, str))
    names = [outcome] if outcome is None or isinstance(outcome, str) else list(outcome)
    if not names:
        raise ValueError("outcome is an empty sequence; name at least one, or leave it out.")
    samples = sample_values(model, idata, n_draws)
    parts = []
    for name in names:
        parts.append(_read(model, idata, name, subjects, x, samples, n_grid))
    n_outcomes, chosen = len(parts), parts[0].chosen
    xlabel, ylabels = _labels(parts, xlabel, ylabel)
    ncols = _columns(ncols, len(chosen), n_outcomes)
    if per_page >= 1:  # the panels of a subject stay together
        per_page = max(per_page // n_outcomes, 1) * n_outcomes
    n_panels, all_alike = len(chosen) * n_outcomes, sharey and n_outcomes == 1
    axes, figures = pages(
        n_panels, ax, figsize, per_page, sharex=sharex, sharey=all_alike, ncols=ncols
    )
    new = [page.reshape(-1, n_outcomes) for page, is_new in figures if is_new]
    if sharey and not all_alike:
        _share_y_by_outcome(new)
    by_outcome = axes.reshape(-1, n_outcomes).T
    kinds = {int(side) for part in parts for side in part.side}
    for part, own_axes in zip(parts, by_outcome, strict=True):
        _draw_part(part, own_axes, kinds, ci_prob, log)
        if log:
            _fit_log_axes(own_axes, part, sharey)
        _warn_of_gaps(part)
    for page, is_new in figures:
        label_axes(page, is_new, xlabel, "" if several else ylabels[0])
        add_legend(page, is_new, n_columns=4 if kinds == {0} else 3)
    if several:
        for panel, label in zip(axes, ylabels * len(chosen), strict=True):
            panel.set_ylabel(label)
    if len(new) > 1:
        _same_limits(new, sharex, sharey)
    return by_outcome.T if several else axes


@dataclass(frozen=True)
class _Part:
    """What is drawn of one outcome."""

    fitted: FittedOutcome
    chosen: list[int]  # places of the subjects
    given: object  # times with their name and units: those of the caller, or what an ODE solution remembers of its own
    x: np.ndarray  # (row,)
    curves: list[Curve]  # by subject
    side: np.ndarray  # (row,); -1 below its limit, 1 above


def _read(
    model: pm.Model,
    idata: InferenceData,
    name: str | None,
    subjects: Hashable | Sequence[Hashable],
    x: ArrayLike | Mapping[str, ArrayLike] | None,
    samples: Mapping[str, np.ndarray],
    n_grid: int,
) -> _Part:
    fitted = read_outcome(model, idata, name)
    chosen = find_subjects(fitted, subjects)
    given = x.get(fitted.name) if isinstance(x, Mapping) else x
    rows = RowFunction(model, [location(fitted.rv)], fitted, samples, given)
    if rows.x is None:
        raise ValueError(
            f"The times of outcome '{fitted.name}' are unknown; give one per row with x=, as in x=data[\"time\"]."
        )
    curves = draw_curves(rows, chosen, n_grid)
    return _Part(
        fitted,
        chosen,
        named_times(fitted.rv, given),
        rows.x,
        curves,
        censored_rows(model, fitted, samples, given),
    )


def _labels(
    parts: Sequence[_Part], xlabel: str | None, ylabel: str | Sequence[str] | None
) -> tuple[str, list[str]]:
    """Labels of the common x axis, and of the y axis of each outcome."""
    given = next((part.given for part in parts if part.given is not None), None)
    x_name = name_of_times(given)
    xlabel = with_unit(x_name, unit_in(given, x_name)) if xlabel is None else xlabel
    if ylabel is None:
        return xlabel, [
            with_unit(part.fitted.name, unit_in(part.given, part.fitted.name)) for part in parts
        ]
    ylabels = [ylabel] if isinstance(ylabel, str) else list(ylabel)
    if len(ylabels) != len(parts):
        raise ValueError(
            f"ylabel has {len(ylabels)} labels, but there are {len(parts)} outcomes; give one for each."
        )
    return xlabel, ylabels


def _columns(ncols: int | None, n_subjects: int, n_outcomes: int) -> int | None:
    """Panels side by side, so that those of a subject stay together; None leaves it to the number of panels."""
    if n_outcomes == 1:
        return ncols
    if ncols is None:
        return n_outcomes * min(n_subjects, max(1, 4 // n_outcomes))
    if ncols % n_outcomes:
        raise ValueError(
            f"ncols must be a multiple of {n_outcomes}, the number of outcomes, got {ncols}."
        )
    return ncols


def _draw_part(part: _Part, axes: np.ndarray, kinds: set[int], ci_prob: float, log: bool) -> None:
    """One outcome, a panel per subject."""
    for panel, subject, curve in zip(axes, part.chosen, part.curves, strict=True):
        own = part.fitted.rows_of(subject)
        _draw_data(panel, part.x[own], part.fitted.observed[own], part.side[own], kinds)
        _draw_curve(panel, curve, ci_prob)
        panel.set_title(
            f"{part.fitted.subject_dim} {part.fitted.subjects[subject]}", fontsize="medium"
        )
        if log:
            log_scale(panel, "y")
        tidy(panel)


def _draw_data(ax: Axes, x: np.ndarray, y: np.ndarray, side: np.ndarray, kinds: set[int]) -> None:
    """Rows of one subject; ``kinds`` of censored rows in the figure are named in all panels, for the legend."""
    ax.plot(x[side == 0], y[side == 0], label="data", **DATA)
    for k, (marker, label) in {-1: ("v", "below its limit"), 1: ("^", "above its limit")}.items():
        if k in kinds:
            ax.plot(x[side == k], y[side == k], label=label, **CENSORED | {"marker": marker})
    if not x.size:
        ax.annotate(
            "no rows",
            (0.5, 0.5),
            xycoords="axes fraction",
            ha="center",
            va="center",
            color=DATA["color"],
        )


def _fit_log_axes(axes: np.ndarray, part: _Part, sharey: bool) -> None:
    """Lower ends by what is positive in data and modes: a band that falls to zero would stretch the axis by decades."""
    lows, highs = [], []
    for subject, curve in zip(part.chosen, part.curves, strict=True):
        observed = part.fitted.observed[part.fitted.rows_of(subject)]
        y = np.concatenate([observed, curve.y[:2].ravel()])
        y, observed = y[np.isfinite(y) & (y > 0)], observed[observed > 0]
        lows.append(0.5 * observed.min() if observed.size else np.nan)
        highs.append(2.0 * y.max() if y.size else np.nan)
    if sharey:
        lows, highs = [np.nanmin(lows)] * len(lows), [np.nanmax(highs)] * len(highs)
    for ax, low, high in zip(axes, lows, highs, strict=True):
        if np.isfinite([low, high]).all():
            ax.set_ylim(low, high)


def _share_y_by_outcome(pages: Sequence[np.ndarray]) -> None:
    for page in pages:
        for own_axes in page.T:
            for ax in own_axes[1:]:
                ax.sharey(own_axes[0])


def _same_limits(pages: Sequence[np.ndarray], sharex: bool, sharey: bool) -> None:
    """Give all pages the same axis limits, y axes by outcome; within a page Matplotlib does so."""
    firsts = np.array([page[0] for page in pages])
    shared = [(firsts[:, 0], "x")] * sharex + [(own_axes, "y") for own_axes in firsts.T] * sharey
    for own_axes, name in shared:
        limits = np.array([getattr(ax, f"get_{name}lim")() for ax in own_axes])
        for ax in own_axes:
            getattr(ax, f"set_{name}lim")(limits[:, 0].min(), limits[:, 1].max())


def _draw_curve(ax: Axes, curve: Curve, ci_prob: float) -> None:
    ax.plot(curve.x, curve.y[MODE_SAMPLE], label="individual", **INDIVIDUAL)
    ax.plot(curve.x, curve.y[POPULATION_SAMPLE], label="population", **POPULATION)
    draws = curve.y[DRAWS]
    if len(draws):
        # where every draw failed the band has a gap; nanquantile goes point by point in Python
        lower, upper = np.full((2, curve.x.size), np.nan)
        some = np.isfinite(draws).any(axis=0)
        quantile = np.quantile if np.isfinite(draws[:, some]).all() else np.nanquantile
        lower[some], upper[some] = quantile(
            draws[:, some], [0.5 - ci_prob / 2, 0.5 + ci_prob / 2], axis=0
        )
        ax.fill_between(curve.x, lower, upper, label=f"{100 * ci_prob:g} % band", **BAND)


def _warn_of_gaps(part: _Part) -> None:
    """Warn about curves with gaps, because an empty panel explains nothing."""
    names = [
        str(part.fitted.subjects[s])
        for s, c in zip(part.chosen, part.curves, strict=True)
        if not np.isfinite(c.y[:2, np.isfinite(c.x)]).all()
    ]
    if names:
        warnings.warn(
            f"The prediction is not finite everywhere for {part.fitted.subject_dim} {', '.join(names)}; with an ODE, the "
            "solver failed at tolerance 1e-8: raise max_steps of solve_ivp.",
            UserWarning,
            stacklevel=3,
        )
