"""Panels of ``plot_random_effects``: effects in pairs, and against covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike
from scipy import stats

from pymc_saem.arguments import shown
from pymc_saem.evaluate.effects import Effect
from pymc_saem.plots.style import (
    BAND,
    DATA,
    INDIVIDUAL,
    OTHER,
    POPULATION,
    AxesLike,
    Units,
    add_legend,
    named_unit,
    panels,
    tidy,
    with_unit,
)

#: Up to here pairs are drawn one by one.
MAX_PAIRS = 6
#: From blue over white to orange, distinguishable with every kind of colour blindness.
_MAP = "PuOr_r"


@dataclass(frozen=True)
class Covariate:
    """Values of all subjects; whole numbers 0, 1, ... of categories with their labels."""

    name: str
    values: np.ndarray
    categories: tuple | None


# -- covariates ---------------------------------------------------------------------------------


def read_covariates(
    given: pd.DataFrame | Mapping[str, ArrayLike] | None, effects: list[Effect], dim: str
) -> list[Covariate]:
    """Covariates with a row per subject, from a table or a mapping."""
    if given is None:
        raise ValueError(
            "kind='covariates' needs covariates=, a table or a mapping with a value per subject."
        )
    labels = next((e.units for e in effects if e.dim == dim), None)
    if labels is None:
        raise ValueError(
            f"None of these effects belongs to a {dim}, so covariates do not apply to them."
        )
    if isinstance(given, pd.DataFrame) and dim in given:
        given = _one_per_subject(given, dim, labels)
    columns = {str(name): np.asarray(values) for name, values in dict(given).items()}
    for name, values in columns.items():
        if values.shape != labels.shape:
            raise ValueError(
                f"The covariate {name!r} has shape {values.shape}; it needs one value for each of the {labels.size} {dim}s. "
                f"A table with several rows per {dim} needs the column {dim!r}."
            )
    if not columns:
        raise ValueError(f"covariates has no column that is constant within each {dim}.")
    return [_covariate(name, values) for name, values in columns.items()]


def _one_per_subject(table: pd.DataFrame, dim: str, labels: np.ndarray) -> pd.DataFrame:
    """Columns that are constant within subjects, a row for each label."""
    text = table[dim].astype(str)
    missing = [str(s) for s in labels if str(s) not in set(text)]
    if missing:
        raise ValueError(f"covariates has no row of the {dim} {shown(missing[0])}.")
    groups = table.drop(columns=dim).groupby(text)
    constant = groups.nunique(dropna=False).max() <= 1
    return groups.first().loc[[str(s) for s in labels], constant[constant].index]


def _covariate(name: str, values: np.ndarray) -> Covariate:
    is_number = values.dtype.kind in "fiu"
    few = np.unique(values[~pd.isna(values)])
    if is_number and (
        few.size > 5 or not np.all(few == np.round(few)) or few.size * 2 > values.size
    ):
        return Covariate(name, values.astype(float), None)
    codes, found = pd.factorize(values, sort=True)
    return Covariate(name, np.where(codes < 0, np.nan, codes), tuple(map(str, found)))


def draw_covariates(
    effects: list[Effect],
    covariates: Sequence[Covariate],
    standardized: bool,
    ci_prob: float,
    units: Units,
    axes: AxesLike | None,
    figsize: tuple[float, float] | None,
) -> np.ndarray:
    """A panel for each effect and covariate."""
    size = next(iter(covariates)).values.size
    effects = [e for e in effects if e.units.size == size]
    rows, columns = len(effects), len(covariates)
    if axes is None:
        figsize = figsize or (max(5.5, 2.9 * columns), 2.2 * rows + 0.6)
        _, grid = plt.subplots(
            rows,
            columns,
            figsize=figsize,
            sharex="col",
            sharey="row",
            squeeze=False,
            layout="constrained",
        )
        axes, is_new = grid.ravel(), True
    else:
        axes, is_new = panels(rows * columns, axes, None, share=False)
    for k, ax in enumerate(axes):
        effect, covariate = effects[k // columns], covariates[k % columns]
        draws, mode = (
            (effect.z_draws, effect.z_mode) if standardized else (effect.draws, effect.mode)
        )
        if covariate.categories is None:
            _draw_numbers(ax, covariate, mode, draws, ci_prob)
        else:
            _draw_boxes(ax, covariate, mode)
        if not is_new or k % columns == 0:
            unit = None if standardized else named_unit(units, effect.variable)
            ax.set_ylabel(with_unit(effect.label, unit))
        if not is_new or k // columns == rows - 1:
            ax.set_xlabel(with_unit(covariate.name, named_unit(units, covariate.name)))
        ax.set_title(
            f"shrinkage {100 * effect.shrinkage:.0f} %",
            loc="right",
            fontsize="small",
            color="#444444",
        )
        tidy(ax)
    numeric = [k for k, c in enumerate(covariates) if c.categories is None]
    add_legend(axes[numeric[0] if numeric else 0 :], is_new)
    return axes


def _draw_numbers(
    ax: Axes, covariate: Covariate, mode: np.ndarray, draws: np.ndarray, ci_prob: float
) -> None:
    x = covariate.values
    ok = np.isfinite(x) & np.isfinite(mode)
    if len(draws):
        lower, upper = np.quantile(draws, [0.5 - ci_prob / 2, 0.5 + ci_prob / 2], axis=0)
        ax.vlines(
            x[ok],
            lower[ok],
            upper[ok],
            label=f"{100 * ci_prob:g} % interval",
            **BAND | {"linewidth": 2.0, "alpha": 0.6},
        )
    ax.plot(x[ok], mode[ok], label="conditional mode", **DATA | {"color": INDIVIDUAL["color"]})
    if np.unique(x[ok]).size > 2:
        line = stats.linregress(x[ok], mode[ok])
        ends = np.array([x[ok].min(), x[ok].max()])
        ax.plot(ends, line.intercept + line.slope * ends, label="regression of modes", **POPULATION)
        ax.set_title(f"r = {line.rvalue:.2f}", loc="left", fontsize="small", color="#444444")


def _draw_boxes(ax: Axes, covariate: Covariate, mode: np.ndarray) -> None:
    """Boxes of the modes of each category, with the modes beside the middle line."""
    categories = covariate.categories or ()
    groups = [mode[covariate.values == k] for k in range(len(categories))]
    line = {"color": INDIVIDUAL["color"], "linewidth": 1.0}
    ax.boxplot(
        [g[np.isfinite(g)] for g in groups],
        positions=range(len(groups)),
        widths=0.5,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": BAND["color"], "alpha": 0.35, "edgecolor": INDIVIDUAL["color"]},
        medianprops=line | {"linewidth": 1.8},
        whiskerprops=line,
        capprops=line,
        manage_ticks=False,
    )
    for k, group in enumerate(groups):
        # spread evenly, the same in every call
        shift = 0.3 * ((np.arange(group.size) * 0.618034) % 1.0 - 0.5)
        ax.plot(
            k + shift,
            group,
            label="conditional mode" if k == 0 else None,
            **DATA | {"color": INDIVIDUAL["color"]},
        )
    ax.set_xticks(
        range(len(groups)),
        [f"{c}\n(n = {g.size})" for c, g in zip(categories, groups, strict=True)],
    )
    ax.set_xlim(-0.6, len(groups) - 0.4)


# -- pairs ----------------------------------------------------------------------------------------


def draw_pairs(
    effects: list[Effect], axes: AxesLike | None, figsize: tuple[float, float] | None
) -> np.ndarray:
    """Effects against each other, on the scale on which their distributions are standard normal."""
    effects = [e for e in effects if e.units.size == effects[0].units.size]
    if len(effects) < 2:
        raise ValueError(
            f"kind='pairs' needs two effects of the same units; there is only {effects[0].label}."
        )
    if len(effects) > MAX_PAIRS:
        return _draw_image(effects, axes, figsize)
    n = len(effects)
    if axes is None:
        figsize = figsize or (max(5.0, 1.9 * n), max(4.6, 1.8 * n + 0.5))
        _, grid = plt.subplots(n, n, figsize=figsize, squeeze=False, layout="constrained")
        axes, is_new = grid.ravel(), True
    else:
        axes, is_new = panels(n * n, axes, None, share=False)
    limit = 1.1 * max(2.6, *(np.abs(e.z_mode).max() for e in effects))
    for k, ax in enumerate(axes):
        row, column = effects[k // n], effects[k % n]
        _draw_pair(ax, row, column, limit, k // n - k % n)
        if k // n == n - 1:
            ax.set_xlabel(column.label)
        if k % n == 0:
            ax.set_ylabel(row.label)
        if k // n < n - 1 or k % n > k // n:
            ax.tick_params(labelbottom=False)
        if k % n > 0 or k == 0:
            ax.tick_params(labelleft=False)
    add_legend(axes[n:], is_new, n_columns=2)
    return axes


def _draw_pair(ax: Axes, row: Effect, column: Effect, limit: float, below: int) -> None:
    ax.set_xlim(-limit, limit)
    if below == 0:
        grid = np.linspace(-limit, limit, 200)
        if row.z_draws.size:
            ax.hist(
                row.z_draws.ravel(), bins=list(np.linspace(-limit, limit, 25)), density=True, **BAND
            )
        ax.plot(grid, stats.norm.pdf(grid), **POPULATION)
        ax.set_yticks([])
        ax.set_title(
            f"shrinkage {100 * row.shrinkage:.0f} %",
            loc="right",
            fontsize="x-small",
            color="#444444",
        )
        tidy(ax)
        return
    ax.set_ylim(-limit, limit)
    r = model_correlation(row, column)
    if below < 0:
        drawn = draws_correlation(row, column)
        ax.text(0.5, 0.58, f"r = {drawn:.2f}", transform=ax.transAxes, ha="center", va="center")
        ax.text(
            0.5,
            0.38,
            f"population {r:.2f}",
            transform=ax.transAxes,
            ha="center",
            va="center",
            fontsize="small",
            color="#444444",
        )
        ax.axis("off")
        return
    for level in (0.5, 0.9):
        ax.add_patch(
            _ellipse(r, level, label="population, 50 % and 90 %" if level == 0.5 else None)
        )
    if len(row.z_draws):
        style = OTHER | {
            "linestyle": "none",
            "marker": ".",
            "markersize": 4,
            "color": BAND["color"],
            "alpha": 0.8,
        }
        ax.plot(column.z_draws[-1], row.z_draws[-1], label="one draw given the data", **style)
    ax.plot(
        column.z_mode, row.z_mode, label="conditional mode", **DATA | {"color": INDIVIDUAL["color"]}
    )
    tidy(ax)


def model_correlation(one: Effect, other: Effect) -> float:
    """Correlation of two effects in the distribution of the population."""
    if one.variable != other.variable:
        return 0.0
    if one.correlation is None:
        return 1.0 if one.place == other.place else 0.0
    return float(one.correlation[other.place])


def draws_correlation(one: Effect, other: Effect) -> float:
    """Correlation of two effects over all subjects: the mean over draws, or that of the modes if there are no draws."""
    a, b = (e.z_draws if len(e.z_draws) else e.z_mode[None] for e in (one, other))
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        each = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return float(np.nanmean(each)) if np.isfinite(each).any() else np.nan


def _ellipse(r: float, level: float, label: str | None) -> Ellipse:
    """The ellipse that holds a share of a standard normal pair with correlation r."""
    radius = np.sqrt(stats.chi2.ppf(level, 2))
    style = {
        "fill": False,
        "edgecolor": POPULATION["color"],
        "linestyle": "--",
        "linewidth": 1.1,
        "label": label,
    }
    return Ellipse(
        (0, 0), 2 * radius * np.sqrt(1 + r), 2 * radius * np.sqrt(1 - r), angle=45, **style
    )


def _draw_image(
    effects: list[Effect], axes: AxesLike | None, figsize: tuple[float, float] | None
) -> np.ndarray:
    """Correlations of many effects."""
    n = len(effects)
    axes, is_new = panels(1, axes, figsize or (1.8 + 0.24 * n + 1.2, 1.6 + 0.24 * n), share=False)
    ax = axes[0]
    r = np.array(
        [[draws_correlation(a, b) if a is not b else np.nan for b in effects] for a in effects]
    )
    image = ax.imshow(r, vmin=-1, vmax=1, cmap=_MAP)
    ax.set_xticks(range(n), [e.label for e in effects], rotation=90, fontsize="x-small")
    ax.set_yticks(range(n), [e.label for e in effects], fontsize="x-small")
    ends = [k - 0.5 for k in range(1, n) if effects[k].variable != effects[k - 1].variable]
    for end in ends:
        ax.axhline(end, color="#444444", linewidth=0.8)
        ax.axvline(end, color="#444444", linewidth=0.8)
    ax.figure.colorbar(image, ax=ax, shrink=0.7, label="correlation over draws given the data")
    return axes
