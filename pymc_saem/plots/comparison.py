"""Several fits side by side: estimates with intervals, and their likelihoods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pymc_saem.arguments import check_types, shown
from pymc_saem.compat import InferenceData
from pymc_saem.plots.style import (
    COLOURS,
    MARKERS,
    OTHER,
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

#: Attribute of the group ``population`` -> name in the figure.
_CRITERIA = {"loglik": "-2LL", "aic": "AIC", "bic": "BIC", "bicc": "BICc"}
#: Up to here each entry of an array has a panel of its own.
MAX_SEPARATE = 4


def plot_comparison(
    fits: Mapping[str, InferenceData],
    var_names: str | Sequence[str] | None = None,
    *,
    criteria: Sequence[str] = ("loglik", "aic", "bic"),
    max_separate: int = MAX_SEPARATE,
    units: Units = None,
    ncols: int | None = None,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plot the parameters of several fits side by side, and their -2 log-likelihood and information criteria.

    One panel per parameter has the estimate of each fit with its 95 % interval; without standard
    errors there is a point alone, and a fit without the parameter has an empty line. An array with
    many entries, such as the weights of a network, has one panel with all its entries. The last
    panel has -2 log-likelihood, AIC and BIC as differences to the best fit by each; the bar at -2LL
    is its Monte-Carlo standard error, to both sides. Fits of one model to different data or by
    different settings may be compared as well, but criteria of different data may not: the panel is
    left out.

    Parameters
    ----------
    fits : mapping of str to arviz.InferenceData or xarray.DataTree
        Fits of :func:`pymc_saem.fit_saem` by name, one or more; or the same read from files.
    var_names : str or sequence of str, optional
        Names of parameters; by default all, in the order of the fits.
    criteria : sequence of {"loglik", "aic", "bic", "bicc"}, optional
        What the last panel shows; empty for no such panel.
    max_separate : int, default 4
        An array with more entries has one panel.
    units : mapping of str to str, optional
        Units of parameters.
    ncols : int, optional
        Panels side by side; by default as many as make a grid somewhat wider than high.
    ax : Axes or array of Axes, optional
        Where to draw, one per parameter, then one for the criteria; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Of shape (panel,).

    Raises
    ------
    ValueError
        When there is no fit, a parameter or criterion does not exist, or ``ax`` holds too few Axes.

    See Also
    --------
    pymc_saem.compare : The criteria as a table, with doubts about them.
    pymc_saem.summary : The estimates of one fit as a table.

    Examples
    --------
    >>> fixed = ps.fit_saem(model, fixed={"omega_CL": 0.3}, random_seed=1)
    >>> axes = ps.plot_comparison({"estimated": idata, "fixed": fixed})
    """
    check_types("plot_comparison", locals())
    if not isinstance(fits, Mapping) or not fits:
        raise ValueError(
            "fits must be a mapping of fits by name, as in plot_comparison({'one': idata, 'two': other})."
        )
    unknown = [name for name in criteria if name not in _CRITERIA]
    if unknown:
        raise ValueError(
            f"There is no criterion {shown(unknown[0])}; there are {', '.join(_CRITERIA)}."
        )
    tables = {str(name): _estimates(idata) for name, idata in fits.items()}
    groups = _groups(tables, var_names, max_separate)
    differences = _differences(fits, criteria)
    n = len(groups) + (differences is not None)
    height = max(1.8, 0.9 + 0.25 * len(fits))
    tallest = max([0.55 + 0.2 * len(labels) for labels in groups.values()], default=0.0)
    size = (2.7, max(height, tallest if len(groups) <= 4 else min(tallest, 3.5)))
    axes, is_new = panels(n, ax, figsize, share=False, size=size, max_columns=4, ncols=ncols)
    for panel, (title, labels) in zip(axes, groups.items(), strict=False):
        if len(labels) == 1:
            _draw_parameter(panel, labels[0], tables)
        else:
            _draw_entries(panel, title, labels, tables)
        panel.set_title(title, loc="left", fontsize="medium")
        if unit := named_unit(units, title):
            panel.set_xlabel(with_unit("estimate", unit))
        tidy(panel)
    if differences is not None:
        _draw_differences(axes[-1], differences)
    add_legend(axes[: len(groups)] if groups else axes, is_new)
    return axes


def _estimates(idata: InferenceData) -> pd.DataFrame:
    """Estimate, lower and upper bound (NaN where there is none), by the label of the parameter."""
    fit = Fit(idata)
    return pd.DataFrame(
        {name: fit.column(name) for name in ("estimate", "lower", "upper")}, index=fit.labels
    )


def _groups(
    tables: Mapping[str, pd.DataFrame], var_names: str | Sequence[str] | None, max_separate: int
) -> dict[str, list[str]]:
    """Labels of the entries of each panel, by its title."""
    entries: dict[str, list[str]] = {}
    for table in tables.values():
        for label in table.index:
            known = entries.setdefault(label.split("[")[0], [])
            if label not in known:
                known.append(label)
    if var_names is not None:
        names = [var_names] if isinstance(var_names, str) else list(var_names)
        for name in names:
            if name not in entries:
                raise ValueError(
                    f"No fit has a parameter {name!r}; there are {', '.join(entries)}."
                )
        entries = {name: entries[name] for name in names}
    groups = {}
    for name, labels in entries.items():
        if len(labels) > max_separate:
            groups[name] = labels
        else:
            groups |= {label: [label] for label in labels}
    return groups


def _style(k: int) -> Style:
    """Colour and marker of the fit number k."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKERS[k % len(MARKERS)],
        "linestyle": "none",
    }


def _draw_one(
    ax: Axes, table: pd.DataFrame, label: str, y: float, k: int, name: str | None
) -> None:
    """Estimate and interval of one parameter in one fit."""
    style = _style(k)
    if label not in table.index:
        ax.plot([], [], label=name, markersize=5, **style)
        return
    estimate, lower, upper = table.loc[label]
    if np.isfinite([lower, upper]).all():
        ax.plot([lower, upper], [y, y], color=style["color"], linewidth=1.4, solid_capstyle="butt")
    ax.plot([estimate], [y], label=name, markersize=5, **style)


def _draw_parameter(ax: Axes, label: str, tables: Mapping[str, pd.DataFrame]) -> None:
    for k, (name, table) in enumerate(tables.items()):
        _draw_one(ax, table, label, k, k, name)
    ax.set_ylim(len(tables) - 0.4, -0.6)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.12)


def _draw_entries(
    ax: Axes, title: str, labels: list[str], tables: Mapping[str, pd.DataFrame]
) -> None:
    """All entries of an array, a line each, the fits side by side within it."""
    shifts = np.linspace(-0.3, 0.3, len(tables)) if len(tables) > 1 else [0.0]
    for k, (name, table) in enumerate(tables.items()):
        for row, label in enumerate(labels):
            _draw_one(ax, table, label, row + shifts[k], k, name if row == 0 else None)
    ax.set_yticks(
        range(len(labels)),
        [label[len(title) :].strip("[").removesuffix("]") for label in labels],
        fontsize="x-small",
    )
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.axvline(0.0, **OTHER | {"linewidth": 0.6, "zorder": 0})


def _differences(fits: Mapping[str, InferenceData], criteria: Sequence[str]) -> pd.DataFrame | None:
    """Criteria of each fit as differences to the best; None where they cannot be compared."""
    rows, data = {}, set()
    for name, idata in fits.items():
        fit = Fit(idata)
        attrs = fit.population.attrs
        if "loglik" not in attrs or not np.isfinite(attrs["loglik"]):
            continue
        row = {c: -2.0 * attrs["loglik"] if c == "loglik" else float(attrs[c]) for c in criteria}
        rows[str(name)] = row | {"error": 2.0 * float(attrs.get("loglik_error", np.nan))}
        observed = {
            str(name): values.values.tobytes() for name, values in fit.observed.data_vars.items()
        }
        data.add(tuple(sorted(observed.items())))
    if len(rows) < 2 or len(data) > 1 or not criteria:
        return None
    table = pd.DataFrame.from_dict(rows, orient="index")
    for c in criteria:
        table[c] -= table[c].min()
    return table.reindex([str(name) for name in fits])


def _draw_differences(ax: Axes, table: pd.DataFrame) -> None:
    names = [c for c in _CRITERIA if c in table]
    n = len(table)
    height = 0.8 / n
    for k, name in enumerate(table.index):
        places = np.arange(len(names)) + (k - (n - 1) / 2) * height
        values = table.loc[name, names].to_numpy(dtype=float)
        ax.barh(
            places, values, 0.9 * height, color=COLOURS[k % len(COLOURS)], alpha=0.75, label=name
        )
        for place, value in zip(places, values, strict=True):
            text = "no likelihood" if np.isnan(value) else f"{value:.1f}"
            x = 0.0 if np.isnan(value) else value
            ax.annotate(
                text,
                (x, place),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize="x-small",
            )
        if "loglik" in names and np.isfinite(table.loc[name, "error"]):
            at = values[names.index("loglik")]
            ax.errorbar(
                at,
                places[names.index("loglik")],
                xerr=table.loc[name, "error"],
                color="#222222",
                linewidth=1.0,
            )
    ax.set_yticks(range(len(names)), [_CRITERIA[c] for c in names])
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.margins(x=0.2)
    ax.set_title("criteria", loc="left", fontsize="medium")
    ax.set_xlabel("difference to the best")
    tidy(ax)
