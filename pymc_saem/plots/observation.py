"""Predictive distribution of one observed value, or of several."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pymc as pm
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from pymc_saem.arguments import check_types, name_of_times, shown
from pymc_saem.compat import InferenceData
from pymc_saem.evaluate.fitted_outcome import (
    DRAWS,
    MODE_SAMPLE,
    FittedOutcome,
    find_subjects,
    read_outcome,
    sample_values,
)
from pymc_saem.evaluate.predictive import Predictive, RowLaw
from pymc_saem.evaluate.row_function import RowFunction
from pymc_saem.plots.style import (
    BAND,
    DATA,
    INDIVIDUAL,
    MIXTURE,
    AxesLike,
    add_legend,
    named_times,
    panels,
    tidy,
    unit_in,
    with_unit,
)


def plot_observation_distribution(
    model: pm.Model,
    idata: InferenceData,
    subject: Hashable,
    row: int | Sequence[int] | str = 0,
    outcome: str | None = None,
    x: ArrayLike | None = None,
    *,
    n_grid: int = 400,
    n_draws: int = 500,
    xlabel: str | None = None,
    ncols: int | None = None,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> Axes | np.ndarray:
    """Plot the distribution that the fit predicts for an observed value, and the value itself; of one row, or a panel for each of several.

    Two distributions are drawn: one with the random effects at their conditional mode, and the
    mixture over draws of the random effects given the data, which is wider where the data say
    little about the subject. The quantile of the observed value in the mixture, P(Y <= y), is
    stated. Counts have a mass function instead of a density; a ``pm.Censored`` outcome has the
    density between its limits, and bars at them: their heights are the probabilities that are
    written there, relative to the highest density.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    subject : label
        As in the model's coords.
    row : int, sequence of int, or "all", default 0
        Which of the subject's rows, in the order of the data; negative counts from the end. Several
        rows have a panel each.
    outcome : str, optional
        Name of the observed variable, when there are several.
    x : array_like, shape (row,), optional
        Time of each row of the outcome, for the title; an ODE solution provides it.
    n_grid : int, default 400
        Points of a density. Discrete outcomes are drawn at the whole numbers.
    n_draws : int, default 500
        Draws of the mixture, at most.
    xlabel : str, optional
        By default the name of the outcome, with its unit where ``x`` brings it.
    ncols : int, optional
        Panels side by side; by default as many as make a grid somewhat wider than high.
    ax : Axes or array of Axes, optional
        Where to draw, one per row; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    matplotlib.axes.Axes or ndarray of them
        One for one row, shape (row,) for several.

    Raises
    ------
    ValueError
        When a subject or outcome does not exist, or the fit belongs to a different model or has no
        draws.
    IndexError
        When the subject has no such row.
    NotImplementedError
        When the outcome is multivariate or composed of other distributions (truncated, a mixture).

    See Also
    --------
    pymc_saem.plot_residuals : All rows.
    pymc_saem.residuals : Where each row lies in its distribution, as numbers.

    Examples
    --------
    >>> ax = ps.plot_observation_distribution(model, idata, subject=1, row=3)
    >>> axes = ps.plot_observation_distribution(model, idata, subject=1, row=[3, 4], x=data["time"])
    """
    check_types("plot_observation_distribution", locals())
    fitted = read_outcome(model, idata, outcome)
    which, places = _find_rows(fitted, subject, row)
    samples = sample_values(model, idata, n_draws)
    law = RowLaw(fitted.rv)
    rows = RowFunction(model, law.graphs, fitted, samples, x)
    if len(next(iter(samples.values()))) <= DRAWS.start:
        raise ValueError(
            "The fit has no draws of the random effects, so it has no predictive distribution."
        )
    values, x = rows.at_rows(), named_times(fitted.rv, x)
    axes, is_new = panels(
        len(places), ax, figsize, share=False, size=(2.9, 2.3), max_columns=4, ncols=ncols
    )
    for panel, (number, at) in zip(axes, places, strict=True):
        one, y = law.row([v[:, at] for v in values]), float(fitted.observed[at])
        _draw(panel, one, one.support(y, n_grid))
        stated = _mark(panel, one, y, is_single=len(places) == 1)
        title = f"{fitted.subject_dim} {fitted.subjects[which]}, row {number}"
        where = _place(x, rows.x[at]) if rows.x is not None else ""
        if len(places) == 1:
            panel.set_title(", ".join(filter(None, [title, where])), fontsize="medium")
        else:
            panel.set_title(
                "\n".join([title, ", ".join(filter(None, [where, stated]))]), fontsize="small"
            )
        tidy(panel)
    xlabel = with_unit(fitted.name, unit_in(x, fitted.name)) if xlabel is None else xlabel
    for panel in axes:
        panel.set_xlabel(xlabel)
    add_legend(axes, is_new, n_columns=2 if len(places) == 1 else 3)
    return axes[0] if _is_number(row) else axes


def _is_number(row: object) -> bool:
    return isinstance(row, int | np.integer) and not isinstance(row, bool)


def _find_rows(
    fitted: FittedOutcome, subject: Hashable, row: int | Sequence[int] | str
) -> tuple[int, list[tuple[int, int]]]:
    """Number of the subject; of each row, its number within the subject and within the outcome."""
    (which,) = find_subjects(fitted, [subject])
    own = fitted.rows_of(which)
    if isinstance(row, str):
        if row != "all":
            raise TypeError(f'row must be a whole number, several, or "all", got {shown(row)}.')
        wanted: Sequence[int] = range(own.size)
    else:
        wanted = [row] if not np.iterable(row) else list(row)
    places = []
    for k in wanted:
        if not _is_number(k):
            raise TypeError(f'row must be a whole number, several, or "all", got {shown(k)}.')
        if not -own.size <= k < own.size:
            raise IndexError(
                f"{fitted.subject_dim} {shown(subject)} has {own.size} rows of '{fitted.name}', numbered from 0; "
                f"there is no row {k}."
            )
        places.append((int(k % own.size), int(own[k])))
    if not places:
        raise ValueError("No row was asked for.")
    return which, places


def _place(x: object, value: float) -> str:
    """Time of a row with its unit, such as ``time 0.25 h``."""
    name = name_of_times(x)
    return f"{name} {value:.4g} {unit_in(x, name) or ''}".rstrip()


def _draw(ax: Axes, law: Predictive, grid: np.ndarray) -> None:
    mixture = law.density(grid, DRAWS)
    mode = slice(MODE_SAMPLE, MODE_SAMPLE + 1)
    at_mode = law.density(grid, mode)
    masses, masses_at_mode = law.masses(DRAWS), law.masses(mode)
    dashes = INDIVIDUAL | {"linestyle": "none", "marker": "_", "markersize": 9}
    if law.is_discrete:
        for points, values in ((masses, mixture), (masses_at_mode, at_mode)):
            for limit, mass in points.items():
                values[grid == limit] = mass
        inside = (grid >= law.lower) & (grid <= law.upper)
        ax.bar(grid[inside], mixture[inside], width=0.8, label="given the data", **BAND)
        ax.plot(grid[inside], at_mode[inside], label="at conditional mode", **dashes)
        ax.set_ylabel("probability")
        ax.locator_params(axis="x", integer=True)
    else:
        inside = (grid > law.lower) & (grid < law.upper)
        ax.fill_between(grid, mixture, where=inside, **BAND)
        ax.plot(grid, np.where(inside, mixture, np.nan), label="given the data", **MIXTURE)
        ax.plot(grid, np.where(inside, at_mode, np.nan), label="at conditional mode", **INDIVIDUAL)
        ax.set_ylabel("density")
        ax.set_xlim(grid[0], grid[-1])
        height = max(mixture.max(), at_mode.max()) or 1.0
        width = 0.02 * (grid[-1] - grid[0])
        for limit, mass in masses.items():
            label = "probability at a limit" if limit == min(masses) else None
            ax.bar(limit, mass * height, width=width, label=label, **BAND | {"alpha": 0.9})
            ax.plot(limit, masses_at_mode[limit] * height, **dashes)
            side = "left" if limit == law.lower else "right"
            ax.annotate(
                f" {mass:.2g} ", (limit, mass * height), xytext=(4 if side == "left" else -4, 0), ha=side, va="bottom",
                textcoords="offset points", fontsize="small", color=DATA["color"],
            )  # fmt: skip
    ax.set_ylim(bottom=0)


def _mark(ax: Axes, law: Predictive, y: float, is_single: bool) -> str:
    """Draw the observed value; what is said of it: of a single row in the legend, else by the caller."""
    quantile = law.probability_up_to(y)
    at_limit = y in (law.lower, law.upper)
    stated = "at its limit" if at_limit else "" if quantile is None else f"quantile {quantile:.2f}"
    label = ", ".join(filter(None, [f"observed: {y:.4g}", stated])) if is_single else "observed"
    ax.axvline(y, label=label, color=DATA["color"], linewidth=1.2, linestyle=":")
    return stated
