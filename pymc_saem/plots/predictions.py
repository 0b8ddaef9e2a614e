"""Observed against predicted."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pymc as pm
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.diagnose.fitted_rows import INDIVIDUAL as INDIVIDUAL_ROW
from pymc_saem.diagnose.fitted_rows import POPULATION as POPULATION_ROW
from pymc_saem.diagnose.fitted_rows import FittedRows
from pymc_saem.evaluate.fitted_outcome import find_subjects
from pymc_saem.plots.smooth import trend
from pymc_saem.plots.style import (
    MARK,
    TREND,
    AxesLike,
    add_legend,
    dots,
    log_scale,
    named_times,
    panels,
    tidy,
    unit_in,
    with_unit,
)

_PANELS = {"population": POPULATION_ROW, "individual": INDIVIDUAL_ROW}


def plot_predictions(
    model: pm.Model,
    idata: InferenceData,
    outcome: str | None = None,
    x: ArrayLike | None = None,
    *,
    kinds: str | Sequence[str] = ("population", "individual"),
    subjects: Hashable | Sequence[Hashable] | None = None,
    log: bool = False,
    smooth: bool = True,
    xlabel: str | None = None,
    ylabel: str | None = None,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plot observed values against population and individual predictions.

    Points of a good fit lie around the identity line, widely for the population prediction, by the
    residual error for the individual one. A smooth trend (local linear regression) shows where they
    lie to one side. Censored rows are rings.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    outcome : str, optional
        Name of the observed variable, when there are several.
    x : array_like, shape (row,), optional
        Only for its unit of the outcome, in ``attrs["units"]``; an ODE solution has that of the
        ``t`` that it was given.
    kinds : sequence of {"population", "individual"}
        Panels: predictions with the random effects at their population value, and at the
        conditional mode.
    subjects : label or sequence of labels, optional
        As in the model's coords; all subjects by default.
    log : bool, default False
        Whether both axes are logarithmic; non-positive points are not drawn.
    smooth : bool, default True
        Whether the trend is drawn.
    xlabel, ylabel : str, optional
        By default the kind of prediction, and the name of the outcome, with its unit where known.
    ax : Axes or array of Axes, optional
        Where to draw, one per kind; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Of shape (kind,).

    Raises
    ------
    ValueError
        When a subject, outcome or kind does not exist, the fit belongs to a different model, or
        PyMC has no mean of the outcome.

    See Also
    --------
    pymc_saem.predict : The predictions as a table.
    pymc_saem.plot_residuals : The differences, standardized.
    pymc_saem.plot_fits : Curves of each subject.

    Examples
    --------
    >>> axes = ps.plot_predictions(model, idata, log=True)
    >>> axes.shape
    (2,)
    """
    check_types("plot_predictions", locals())
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [kind for kind in kinds if kind not in _PANELS]
    if unknown or not kinds:
        raise ValueError(f"kinds must be among {', '.join(map(repr, _PANELS))}, got {kinds!r}.")
    rows = FittedRows(model, idata, outcome).rows
    if rows.predicted is None:
        raise ValueError(
            f"PyMC has no mean for outcome '{rows.outcome.name}', so there are no predictions to plot."
        )
    chosen = np.isin(rows.subject, find_subjects(rows, subjects))
    if not chosen.any():
        raise ValueError(f"The chosen subjects have no rows of outcome '{rows.outcome.name}'.")
    figsize = figsize or (3.7 * len(kinds) + 0.3, 4.0)
    axes, is_new = panels(len(kinds), ax, figsize, share=True)
    unit = unit_in(named_times(model[rows.outcome.name], x), rows.outcome.name)
    observed, is_cut = rows.observed[chosen], (rows.below | rows.above)[chosen]
    limits = _limits(
        [np.stack([observed, rows.predicted[_PANELS[kind]][chosen]]) for kind in kinds], log
    )
    for panel, kind in zip(axes, kinds, strict=True):
        predicted = rows.predicted[_PANELS[kind]][chosen]
        _draw(panel, predicted, observed, is_cut, limits, log, smooth)
        panel.set_xlabel(with_unit(f"{kind} prediction", unit) if xlabel is None else xlabel)
    for panel in axes[:1] if is_new else axes:
        panel.set_ylabel(
            with_unit(f"observed {rows.outcome.name}", unit) if ylabel is None else ylabel
        )
    add_legend(axes, is_new)
    return axes


def _limits(pairs: Sequence[np.ndarray], log: bool) -> tuple[float, float]:
    """Ends of both axes, for all points (2, row) of all panels that can be drawn."""
    values = np.concatenate(pairs, axis=1)
    values = values[:, np.isfinite(values).all(axis=0) & ((values > 0).all(axis=0) | (not log))]
    if not values.size:
        raise ValueError(
            "No row has a prediction"
            + log * " and an observation above zero, as log=True needs"
            + "."
        )
    low, high = values.min(), values.max()
    if log:
        margin = (high / low) ** 0.05
        return low / margin, high * margin
    margin = 0.04 * (high - low or 1.0)
    return low - margin, high + margin


def _draw(
    ax: Axes,
    predicted: np.ndarray,
    observed: np.ndarray,
    is_cut: np.ndarray,
    limits: tuple[float, float],
    log: bool,
    smooth: bool,
) -> None:
    style = dots(predicted.size)
    ax.plot(predicted[~is_cut], observed[~is_cut], label="data", **style)
    if is_cut.any():
        ring = style | {"markerfacecolor": "none", "markeredgewidth": 0.9, "alpha": 0.6}
        ax.plot(predicted[is_cut], observed[is_cut], label="censored", **ring)
    ax.plot(limits, limits, label="identity", **MARK | {"linestyle": "-"})
    if smooth:
        keep = (predicted > 0) & (observed > 0) if log else np.ones(predicted.size, dtype=bool)
        x, y = (np.log(v[keep]) if log else v[keep] for v in (predicted, observed))
        line = trend(x, y)
        ax.plot(*(np.exp(v) if log else v for v in line), label="trend", **TREND)
    if log:
        log_scale(ax, "xy")
    ax.set_xlim(limits)
    ax.set_ylim(limits)
    ax.set_box_aspect(1)
    tidy(ax)
