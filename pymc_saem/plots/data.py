"""Longitudinal data before any model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pymc_saem.arguments import check_types
from pymc_saem.plots.style import (
    COLOURS,
    MARKERS,
    OTHER,
    AxesLike,
    Style,
    add_legend,
    label_axes,
    log_scale,
    named_unit,
    pages,
    panels,
    tidy,
    with_unit,
)

KINDS = ("spaghetti", "panels")


def plot_data(
    data: pd.DataFrame,
    x: str,
    y: str,
    subject: str = "subject",
    *,
    kind: str = "spaghetti",
    subjects: Hashable | Sequence[Hashable] | None = None,
    by: str | None = None,
    log: bool = False,
    per_page: int = 30,
    ncols: int | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plot longitudinal data, one line per subject.

    Parameters
    ----------
    data : pandas.DataFrame
        One row per observation; ``attrs["units"]``, a unit by column, brings units.
    x, y, subject : str
        Columns. Rows without ``y`` are left out; lines go from row to row in the order of ``x``.
    kind : {"spaghetti", "panels"}
        All subjects in one panel, or each in its own, with those of the others in grey behind it.
    subjects : label or sequence of labels, optional
        Those to draw; all by default.
    by : str, optional
        Column by whose values subjects or rows have a colour and a marker, such as a dose group or
        the kind of outcome; at most 7.
    log : bool, default False
        Logarithmic ``y`` axis.
    per_page : int, default 30
        Panels of a figure; of more subjects there are several figures.
    ncols : int, optional
        Panels side by side; by default as many as make a grid somewhat wider than high.
    xlabel, ylabel : str, optional
        By default the columns, with units where known.
    ax : Axes or array of Axes, optional
        Where to draw; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Of shape (1,), or (subject,) for panels.

    Raises
    ------
    ValueError
        When a column or subject does not exist, a column does not hold numbers, or ``by`` has too
        many values.

    See Also
    --------
    pymc_saem.plot_fits : Data with the curves of a fit.
    pymc_saem.summarize : How a model of the data is read.

    Examples
    --------
    >>> data = ps.datasets.load_theophylline()
    >>> axes = ps.plot_data(data, "time", "conc", kind="panels")
    >>> axes.shape
    (12,)
    """
    check_types("plot_data", locals())
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be 'spaghetti' or 'panels'.")
    rows = _checked(data, x, y, subject, by)
    labels = _chosen(rows, subject, subjects)
    styles = _styles(rows, by)
    if kind == "spaghetti":
        axes, is_new = panels(1, ax, figsize or (6.0, 3.6), share=False)
        figures = [(axes, is_new)]
        for label in labels:
            _draw(axes[0], rows[rows[subject] == label], x, y, by, styles)
    else:
        axes, figures = pages(
            len(labels), ax, figsize, per_page, sharex=True, sharey=True, ncols=ncols
        )
        for panel, label in zip(axes, labels, strict=True):
            for other in labels:
                own = rows[rows[subject] == other].sort_values(x, kind="stable")
                panel.plot(own[x], own[y], **OTHER | {"alpha": 0.35, "linewidth": 0.6})
            _draw(panel, rows[rows[subject] == label], x, y, by, styles)
            panel.set_title(f"{subject} {label}", fontsize="medium")
    for panel in axes:
        if log:
            log_scale(panel, "y")
        tidy(panel)
    xlabel = with_unit(x, named_unit(data, x)) if xlabel is None else xlabel
    ylabel = with_unit(y, named_unit(data, y)) if ylabel is None else ylabel
    for page, is_new in figures:
        label_axes(page, is_new, xlabel, ylabel)
        _legend(page, is_new, by, styles)
    return axes


def _checked(data: pd.DataFrame, x: str, y: str, subject: str, by: str | None) -> pd.DataFrame:
    """The rows with a ``y``."""
    wanted = [x, y, subject] + ([by] if by is not None else [])
    lacking = [name for name in wanted if name not in getattr(data, "columns", ())]
    if lacking:
        raise ValueError(
            f"data has no column {lacking[0]!r}; it has {', '.join(map(str, getattr(data, 'columns', ())))}."
        )
    for name in (x, y):
        if data[name].dtype.kind not in "iufb":
            raise ValueError(f"column {name!r} must hold numbers, but has type {data[name].dtype}.")
    rows = data[
        np.isfinite(data[x].to_numpy(dtype=float)) & np.isfinite(data[y].to_numpy(dtype=float))
    ]
    if rows.empty:
        raise ValueError(f"no row of data has both {x!r} and {y!r}.")
    return rows


def _chosen(rows: pd.DataFrame, subject: str, subjects: Hashable | Sequence[Hashable]) -> list:
    known = {str(label): label for label in rows[subject].unique()}
    if subjects is None:
        return list(known.values())
    asked = [subjects] if isinstance(subjects, str) or not np.iterable(subjects) else list(subjects)
    unknown = [label for label in asked if str(label) not in known]
    if unknown or not asked:
        raise ValueError(
            f"There is no {subject} {unknown[0] if unknown else 'asked for'}; there are {', '.join(known)}."
        )
    return [known[str(label)] for label in asked]


def _styles(rows: pd.DataFrame, by: str | None) -> dict[Hashable, Style]:
    """Colour and marker by value of ``by``."""
    if by is None:
        return {None: {"color": COLOURS[0], "marker": MARKERS[0]}}
    values = sorted(rows[by].dropna().unique(), key=lambda value: (str(type(value)), value))
    if len(values) > len(COLOURS):
        raise ValueError(
            f"column {by!r} has {len(values)} values; at most {len(COLOURS)} colours can be distinguished. Group the values."
        )
    return {v: {"color": c, "marker": m} for v, c, m in zip(values, COLOURS, MARKERS, strict=False)}


def _draw(
    ax: Axes, own: pd.DataFrame, x: str, y: str, by: str | None, styles: Mapping[Hashable, Style]
) -> None:
    own = own.sort_values(x, kind="stable")
    for value, style in styles.items():
        part = own if by is None else own[own[by] == value]
        ax.plot(part[x], part[y], markersize=3.0, linewidth=0.9, alpha=0.8, **style)


def _legend(
    axes: np.ndarray, is_new: bool, by: str | None, styles: Mapping[Hashable, Style]
) -> None:
    if by is None:
        return
    for value, style in styles.items():
        axes[0].plot([], [], label=f"{by} {value}", markersize=3.0, linewidth=0.9, **style)
    add_legend(axes, is_new)
