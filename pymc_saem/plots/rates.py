"""What the networks of a model have learned."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pymc as pm
from matplotlib.axes import Axes

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.evaluate.rates import RateCurves, check_arguments, rate_curves
from pymc_saem.plots.style import (
    BAND,
    DATA,
    INDIVIDUAL,
    OUTSIDE,
    POPULATION,
    SERIES,
    AxesLike,
    Style,
    Units,
    add_legend,
    named_unit,
    panels,
    tidy,
    with_unit,
)
from pymc_saem.results.fit import Fit

#: Up to this many subjects, each has a colour and a band of its own.
MAX_COLOURS = 4
#: Marks of rows; more would be a bar.
_MAX_MARKS = 400


def plot_rates(
    model: pm.Model,
    idata: InferenceData,
    networks: str | Sequence[str] | None = None,
    subjects: Hashable | Sequence[Hashable] | None = None,
    *,
    along: str = "variable",
    raw: bool = False,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    n_grid: int = 100,
    n_draws: int = 200,
    ci_prob: float = 0.9,
    labels: Mapping[str, str] | None = None,
    units: Units = None,
    log: bool = False,
    sharey: bool = False,
    ncols: int | None = None,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plot what the networks of a model have learned: the output of each over its input.

    A panel per network has the curve of each subject (random effects at their conditional mode), of
    the population (random effects at their population value), and a band. The range that the fitted
    trajectories of the subjects cover is white, what lies outside is grey: there no data have
    formed the curves. Curves of subjects are faint where the subject's own trajectory does not go,
    and ticks at the bottom are the rows of the data.

    The networks, what each is called with, and the rate that the model makes of each are read from
    the model.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    networks : str or sequence of str, optional
        Names of the networks' weights; all networks by default.
    subjects : label or sequence of labels, optional
        As in the model's coords; all subjects by default. Up to four have colours and bands of
        their own; of more, the band is that of all draws of all of them.
    along : {"variable", "input"}
        Whether the horizontal axis is the time or the state that the input is made of, where it is
        made of one alone, or the input itself.
    raw : bool, default False
        Draw the network's output instead of the rate that the model makes of it, such as its
        softplus.
    ranges : mapping of str to (float, float), optional
        Ends of the horizontal axis of some networks; by default a little more than what is covered.
    n_grid : int, default 100
        Points of each curve.
    n_draws : int, default 200
        Draws behind the band, at most.
    ci_prob : float, default 0.9
        Probability of the band, equal tails.
    labels : mapping of str to str, optional
        Titles and axis labels instead of the names of networks and variables, as in ``{"w_a1":
        "absorption", "t": "time"}``.
    units : mapping of str to str, optional
        Units of variables and networks, as in ``{"t": "h", "w_a1": "1/h"}``.
    log : bool, default False
        Logarithmic y axes, for rates of different size; a panel without positive values stays
        linear.
    sharey : bool, default False
        Whether all panels of a new figure have the same vertical axis.
    ncols : int, optional
        Panels side by side; by default as many as make a grid somewhat wider than high.
    ax : Axes or array of Axes, optional
        Where to draw, one per network and input; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Of shape (panel,).

    Raises
    ------
    ValueError
        When the model has no networks, a network or subject does not exist, or ``ax`` holds too few
        Axes.

    See Also
    --------
    pymc_saem.rates : The numbers.
    pymc_saem.nn.MLP : A network.

    Examples
    --------
    >>> axes = ps.plot_rates(network_model, network_fit, labels={"t": "time"}, units={"t": "h"})
    >>> axes.shape
    (1,)
    """
    check_types("plot_rates", locals())
    check_arguments(ci_prob, n_grid, along)
    curves = rate_curves(model, idata, networks, subjects, along, raw, ranges, n_grid, n_draws)
    axes, is_new = panels(
        len(curves),
        ax,
        figsize,
        share=False,
        size=(3.2, 2.7),
        max_columns=4,
        sharey=sharey,
        ncols=ncols,
    )
    labels = labels or {}
    for panel, one in zip(axes, curves, strict=True):
        if len(one.subjects) <= MAX_COLOURS:
            _draw_few(panel, one, ci_prob, Fit(idata).subject_dim)
        else:
            _draw_many(panel, one, ci_prob)
        _mark_coverage(panel, one)
        panel.set_title(labels.get(one.network, one.network), fontsize="medium")
        variable = one.axis.variable
        panel.set_xlabel(with_unit(labels.get(variable, variable), named_unit(units, variable)))
        panel.set_ylabel(with_unit(one.label, named_unit(units, one.network)))
        _scale(panel, one, ci_prob, log)
        tidy(panel)
    add_legend(axes, is_new, n_columns=3)
    return axes


def _draw_many(ax: Axes, one: RateCurves, ci_prob: float) -> None:
    """All subjects alike, and one band of their draws together."""
    alpha = float(np.clip(12 / len(one.subjects), 0.15, 0.7))
    style = INDIVIDUAL | {"linewidth": 0.9}
    for k, y in enumerate(one.individual):
        _draw_curve(ax, one, k, y, style, alpha, "subjects" if k == 0 else None)
    ax.plot(
        one.x, one.population, label="population", **POPULATION | {"linewidth": 2.0, "zorder": 4}
    )
    if len(one.draws):
        label = f"{100 * ci_prob:g} % of the subjects' draws"
        ax.fill_between(one.x, *one.band(ci_prob, is_pooled=True), label=label, **BAND)


def _draw_few(ax: Axes, one: RateCurves, ci_prob: float, dim: str) -> None:
    """Each subject with a colour and a band."""
    lower, upper = one.band(ci_prob)
    for k, y in enumerate(one.individual):
        style = SERIES[k] | {"linewidth": 1.6, "zorder": 3}
        is_all = str(one.subjects[k]) == "all"
        _draw_curve(
            ax, one, k, y, style, 1.0, "all subjects" if is_all else f"{dim} {one.subjects[k]}"
        )
        if len(one.draws):
            label = f"{100 * ci_prob:g} % band" if k == 0 else None
            ax.fill_between(
                one.x,
                lower[k],
                upper[k],
                label=label,
                **BAND | {"color": style["color"], "alpha": 0.18},
            )
    ax.plot(
        one.x,
        one.population,
        label="population",
        **POPULATION | {"color": "#444444", "linewidth": 1.6},
    )


def _draw_curve(
    ax: Axes, one: RateCurves, k: int, y: np.ndarray, style: Style, alpha: float, label: str | None
) -> None:
    """A curve, faint where the subject's trajectory does not go."""
    ax.plot(one.x, np.where(one.is_covered[k], y, np.nan), label=label, **style | {"alpha": alpha})
    ax.plot(
        one.x,
        y,
        **style | {"alpha": 0.35 * alpha, "linewidth": 0.7 * style["linewidth"], "zorder": 1},
    )


def _mark_coverage(ax: Axes, one: RateCurves) -> None:
    """Grey where no trajectory goes, and ticks at the rows of the data."""
    lowest, highest = np.nanmin(one.axis.used), np.nanmax(one.axis.used)
    label: str | None = "outside the fitted trajectories"
    for start, end in ((one.x[0], lowest), (highest, one.x[-1])):
        if start < end:
            ax.axvspan(start, end, label=label, **OUTSIDE)
            label = None
    rows = np.unique(one.axis.at_rows)
    rows = rows[np.linspace(0, rows.size - 1, min(rows.size, _MAX_MARKS)).astype(int)]
    style = DATA | {"marker": "|", "markersize": 5, "markeredgewidth": 0.6, "alpha": 0.6}
    ax.plot(
        rows,
        np.full(rows.size, 0.018),
        transform=ax.get_xaxis_transform(),
        label="rows of the data",
        **style,
    )
    ax.set_xlim(one.x[0], one.x[-1])


def _scale(ax: Axes, one: RateCurves, ci_prob: float, log: bool) -> None:
    """Limits that the covered part of the curves fills: outside they may be anywhere.

    With ``log``, a panel without positive values stays linear.
    """
    covered = one.is_covered.any(axis=0)
    parts = [one.population[covered], one.individual[one.is_covered]]
    if len(one.draws):
        parts.append(
            one.band(ci_prob, is_pooled=len(one.subjects) > MAX_COLOURS)[..., covered].ravel()
        )
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    is_log = log and bool((values > 0).any())
    values = np.log(values[values > 0]) if is_log else values
    if is_log:
        ax.set_yscale("log")
    if values.size:
        lowest, highest = values.min(), values.max()
        margin = 0.06 * (highest - lowest) or 0.1 * max(abs(highest), 1e-6)
        limits = np.array([lowest - margin, highest + margin])
        ax.set_ylim(*(np.exp(limits) if is_log else limits))
