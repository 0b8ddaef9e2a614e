"""Colours, labels and panels that all figures share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from pytensor.tensor.variable import TensorVariable

from pymc_saem.evaluate.row_function import ode_nodes

#: Keyword arguments of Matplotlib.
Style: TypeAlias = dict[str, Any]
#: Where users want a figure drawn: the argument ``ax``.
AxesLike: TypeAlias = Axes | Sequence[Axes] | np.ndarray
#: Units by name, or a table that has them in its ``attrs``.
Units: TypeAlias = Mapping[str, str] | pd.DataFrame | None

# Okabe and Ito's colours, distinguishable with every kind of colour blindness; the line styles
# differ as well, so the figures survive a black-and-white printer.
DATA: Style = {
    "color": "#222222",
    "marker": "o",
    "markersize": 3.5,
    "linestyle": "none",
    "zorder": 4,
}
CENSORED: Style = DATA | {"markersize": 4.5, "markerfacecolor": "none", "markeredgewidth": 0.9}
INDIVIDUAL: Style = {"color": "#0072B2", "linewidth": 1.6, "linestyle": "-", "zorder": 3}
POPULATION: Style = {"color": "#D55E00", "linewidth": 1.3, "linestyle": "--", "zorder": 2}
BAND: Style = {"color": "#56B4E9", "alpha": 0.35, "linewidth": 0.0, "zorder": 1}
MIXTURE: Style = {"color": "#56B4E9", "linewidth": 1.6, "linestyle": "-", "zorder": 2}
OTHER: Style = {"color": "#999999", "linewidth": 0.9, "linestyle": "-", "zorder": 1}
TREND: Style = {"color": "#D55E00", "linewidth": 1.6, "linestyle": "-", "zorder": 5}
MIDDLE_BAND: Style = {"color": "#E69F00", "alpha": 0.45, "linewidth": 0.0, "zorder": 1.5}
MARK: Style = {"color": "#444444", "linewidth": 1.0, "linestyle": ":", "zorder": 0}
#: Where nothing was observed.
OUTSIDE: Style = {"color": "#E4E4E4", "alpha": 0.7, "linewidth": 0.0, "zorder": 0}
#: Inches beside each panel of a grid.
PADDING = 0.08
#: Lines of equal rank in one panel, such as the kernels of the E-step: colour and line style change
#: together.
SERIES: list[Style] = [
    {"color": "#0072B2", "linestyle": "-"},
    {"color": "#D55E00", "linestyle": "--"},
    {"color": "#009E73", "linestyle": "-."},
    {"color": "#CC79A7", "linestyle": ":"},
]

#: More things side by side, such as fits; markers change with the colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def with_unit(name: object, unit: str | None = None) -> str:
    """``time [h]``, or the name alone.

    Examples
    --------
    >>> with_unit("time", "h"), with_unit("time")
    ('time [h]', 'time')
    """
    return f"{name} [{unit}]" if unit else str(name)


def unit_in(values: object, name: str) -> str | None:
    """Unit of a column, as a pandas Series or DataFrame or an xarray array carries it; None when it does not.

    Parameters
    ----------
    values : object
        Something with ``attrs``, whose "units" (or "unit") is a text, or a dict by column.
    name : str
        The column.

    Examples
    --------
    >>> import pandas as pd
    >>> time = pd.Series([0.0, 1.0], name="time")
    >>> time.attrs["units"] = {"time": "h", "conc": "mg/L"}
    >>> unit_in(time, "conc")
    'mg/L'
    """
    attrs = getattr(values, "attrs", None) or {}
    units = attrs.get("units", attrs.get("unit"))
    if isinstance(units, dict):
        return units.get(name)
    return units if name == getattr(values, "name", None) else None


def named_times(rv: TensorVariable, given: object) -> Any:
    """Times with their name and units: those of the caller, or what the ODE solution of an outcome remembers of its own.

    Parameters
    ----------
    rv : TensorVariable
        The outcome.
    given : object or None
        Argument ``x`` of a figure.

    Returns
    -------
    object
        For :func:`unit_in`; None where nothing is known.
    """
    if given is not None:
        return given
    remembered = [getattr(node.outputs[0].tag, "times", None) for node in ode_nodes([rv])]
    return next((times for times in remembered if times is not None), None)


def dots(n: int) -> Style:
    """Style of ``n`` data points in one panel: the more, the fainter."""
    alpha = float(np.clip(6 / np.sqrt(max(n, 1)), 0.15, 0.75))
    return DATA | {
        "markersize": 3.4 if n < 1000 else 2.4,
        "markeredgewidth": 0.0,
        "alpha": alpha,
        "zorder": 2,
    }


def log_scale(ax: Axes, which: str) -> None:
    """Logarithmic axes, "x", "y" or "xy", with plain numbers, and those of 2 and 5 where the axis is short.

    What is not positive lies far below; set the limits.
    """

    def between(axis: Axis) -> Callable[[float, int], str]:
        def text(value: float, _position: int) -> str:
            low, high = axis.get_view_interval()
            return f"{value:g}" if f"{value:e}"[0] in "25" and high < 100 * low else ""

        return text

    for name in which:
        axis = getattr(ax, f"{name}axis")
        getattr(ax, f"set_{name}scale")("log", nonpositive="clip")
        axis.set_major_formatter(lambda value, _position: f"{value:g}")
        axis.set_minor_formatter(between(axis))


def named_unit(units: Units, name: str) -> str | None:
    """Unit of a name in ``{name: unit}``, or in the ``attrs["units"]`` of a table; None when there is none."""
    if units is None:
        return None
    if hasattr(units, "attrs") or not isinstance(units, Mapping):
        units = (getattr(units, "attrs", None) or {}).get("units") or {}
    return units.get(name) or None


def panels(
    n: int,
    axes: AxesLike | None,
    figsize: tuple[float, float] | None,
    *,
    share: bool,
    size: tuple[float, float] = (2.6, 2.0),
    max_columns: int = 6,
    sharex: bool | None = None,
    sharey: bool | None = None,
    ncols: int | None = None,
) -> tuple[np.ndarray, bool]:
    """Axes for ``n`` panels: those given, or a new figure with a grid of them.

    Parameters
    ----------
    n : int
    axes : Axes, array of Axes or None
    figsize : tuple of float or None
        Inches of a new figure.
    share : bool
        Whether the panels of a new figure share both axes.
    sharex, sharey : bool, optional
        The same for one axis, where they differ.
    ncols : int, optional
        Number of panels side by side.
    size : tuple of float
        Inches of one panel of a new figure, where ``figsize`` is None.
    max_columns : int

    Returns
    -------
    ndarray of Axes, shape (n,)
    bool
        Whether the figure is new, so that figure-wide labels and legends are ours to place.

    Raises
    ------
    ValueError
        When fewer axes are given than there are panels.
    """
    if axes is not None:
        given = np.ravel(np.asarray(axes, dtype=object))
        if given.size < n:
            raise ValueError(f"ax holds {given.size} Axes; {n} are needed, one per panel.")
        return given[:n], False
    if ncols is not None and ncols < 1:
        raise ValueError(f"ncols must be at least 1, got {ncols}.")
    columns = _columns_for(n, max_columns) if ncols is None else min(ncols, n)
    rows = math.ceil(n / columns)
    if figsize is None:
        figsize = (5.5, 3.6) if n == 1 else (max(5.5, columns * size[0]), rows * size[1] + 0.9)
    sharex, sharey = (share if one is None else one for one in (sharex, sharey))
    # padding, as what stands at the right above a panel would touch the title of the next one
    layout = ConstrainedLayoutEngine(w_pad=PADDING)
    _, grid = plt.subplots(
        rows, columns, figsize=figsize, sharex=sharex, sharey=sharey, squeeze=False, layout=layout
    )
    grid = grid.ravel()
    for k in range(n, grid.size):
        grid[k].remove()
        # a shared axis has its numbers at the bottom row only
        grid[k - columns].tick_params(labelbottom=True)
    return grid[:n], True


def pages(
    n: int,
    axes: AxesLike | None,
    figsize: tuple[float, float] | None,
    per_page: int,
    *,
    sharex: bool,
    sharey: bool,
    ncols: int | None = None,
) -> tuple[np.ndarray, list[tuple[np.ndarray, bool]]]:
    """Axes for ``n`` panels like :func:`panels`, on several new figures where one would have too many.

    Returns
    -------
    ndarray of Axes, shape (n,)
    list of (ndarray of Axes, bool)
        The panels of each page, and whether its figure is new.
    """
    if per_page < 1:
        raise ValueError(f"per_page must be at least 1, got {per_page}.")
    if axes is not None or n <= per_page:
        axes, is_new = panels(
            n, axes, figsize, share=True, sharex=sharex, sharey=sharey, ncols=ncols
        )
        return axes, [(axes, is_new)]
    ncols = ncols or _columns_for(per_page, 6)  # the same on the last page, which has fewer panels
    figures = []
    for start in range(0, n, per_page):
        k = min(per_page, n - start)
        figures.append(
            panels(k, None, figsize, share=True, sharex=sharex, sharey=sharey, ncols=ncols)
        )
    return np.concatenate([page for page, _ in figures]), figures


def _columns_for(n: int, most: int) -> int:
    """A grid somewhat wider than high, with few empty places."""
    if n <= 3:
        return n
    wide = min(most, math.ceil(math.sqrt(1.3 * n)))
    return min(wide, wide - 1, key=lambda columns: (-n % columns, -columns))


def label_axes(axes: np.ndarray, is_new: bool, xlabel: str, ylabel: str) -> None:
    """Label the panels; a new grid gets one label for all of them."""
    if is_new and len(axes) > 1:
        axes[0].figure.supxlabel(xlabel, fontsize="medium")
        axes[0].figure.supylabel(ylabel, fontsize="medium")
        return
    for ax in axes:
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)


def add_legend(axes: Sequence[Axes] | np.ndarray, is_new: bool, n_columns: int = 4) -> None:
    """One legend for all panels: above the grid of a new figure, else inside the first panel."""
    handles, labels = axes[0].get_legend_handles_labels()
    if not handles:
        return
    if is_new:
        legend_above(axes[0].figure, handles, labels, n_columns)
    else:
        axes[0].legend(handles, labels, frameon=False, fontsize="small")


def legend_above(
    figure: Figure | SubFigure,
    handles: Sequence[Artist],
    labels: Sequence[str],
    n_columns: int,
    **style: Any,
) -> None:
    """A legend above all panels, in as many columns as the figure is wide enough for."""
    for columns in range(n_columns, 0, -1):
        legend = figure.legend(
            handles, labels, loc="outside upper center", ncols=columns, frameon=False, **style
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def tidy(ax: Axes) -> None:
    """Hide the top and right spines."""
    ax.spines[["top", "right"]].set_visible(False)
