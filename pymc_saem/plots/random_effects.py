"""Random effects against the distribution of the population, in pairs, and against covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pymc as pm
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from scipy import stats

from pymc_saem.arguments import check_probability, check_types, shown
from pymc_saem.compat import InferenceData
from pymc_saem.evaluate.effects import Effect, find_effects
from pymc_saem.plots.effect_panels import draw_covariates, draw_pairs, read_covariates
from pymc_saem.plots.style import (
    BAND,
    DATA,
    INDIVIDUAL,
    MIXTURE,
    POPULATION,
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

KINDS = ("marginals", "qq", "pairs", "covariates")
#: Up to this many effects each has a panel; of more, all entries of a variable share one.
MAX_SEPARATE = 12
_LEVELS = (0.25, 0.5, 0.75)
_REFERENCE: Style = {"color": "#DDDDDD", "alpha": 0.8, "linewidth": 0.0, "zorder": 0}


def plot_random_effects(
    model: pm.Model,
    idata: InferenceData,
    effects: str | Sequence[str] | None = None,
    kind: str | None = None,
    *,
    covariates: pd.DataFrame | Mapping[str, ArrayLike] | None = None,
    standardized: bool = False,
    n_draws: int = 200,
    ci_prob: float = 0.9,
    max_separate: int = MAX_SEPARATE,
    units: Units = None,
    ncols: int | None = None,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plot random effects against the distribution that the model gives them.

    "marginals"
        The draws of all subjects' effects given the data, as a histogram, with the density of the
        population; the marks below are conditional modes. Draws have no shrinkage: in a true model
        they follow the density.
    "qq"
        Sorted effects against normal quantiles, on the scale on which their distribution is
        standard normal: conditional modes and the band of the draws. Grey is where points of as
        many independent normal effects lie with probability ``ci_prob``, pointwise. Modes that
        shrink lie flatter than the diagonal.
    "pairs"
        Effects against each other on that scale: modes with a draw of each, and the ellipses that
        hold 50 and 90 % of the population. Above the diagonal their correlation over draws. For
        more than 6 effects, all correlations as an image.
    "covariates"
        Effects of all subjects against covariates, with their intervals; categories as boxes. r is
        the correlation with the modes. Where shrinkage is large, modes are pulled to the mean and
        hide or feign relations.

    The shrinkage of each effect, 1 - mean(eta^2) / omega^2 over the modes, stands in its panel.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    effects : str or sequence of str, optional
        Names of variables or of their entries; all random effects by default.
    kind : {"marginals", "qq", "pairs", "covariates"}, optional
        By default "covariates" where there are covariates, else "marginals".
    covariates : pandas.DataFrame or mapping of str to array_like, shape (subject,), optional
        A row per subject, in the order of the model's coords; or a table of any length with a
        column of the subjects' labels, of which the columns that are constant within subjects are
        taken. Text, booleans and whole numbers with at most 5 values are categories.
    standardized : bool, default False
        Draw marginals and covariates on the standard normal scale instead of the natural one. With
        many effects always.
    n_draws : int, default 200
        Draws of each subject, at most.
    ci_prob : float, default 0.9
        Probability of intervals and bands.
    max_separate : int, default 12
        With more effects, such as the weights of networks, "marginals" and "qq" have a panel per
        variable, with all its entries.
    units : mapping of str to str, optional
        Units of effects and covariates; or a table with ``attrs["units"]``, as the data sets of
        this package have.
    ncols : int, optional
        Panels of "marginals" and "qq" side by side; by default as many as make a grid somewhat
        wider than high. The grids of the other kinds follow from effects and covariates.
    ax : Axes or array of Axes, optional
        Where to draw; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Of shape (panel,).

    Raises
    ------
    ValueError
        When an effect or kind does not exist, covariates do not fit the subjects or are missing, or
        ``ax`` holds too few Axes.
    NotImplementedError
        When the distribution of an effect is multivariate and not normal.

    See Also
    --------
    pymc_saem.random_effects : The numbers.
    pymc_saem.individuals : Conditional distributions of the effects.

    Examples
    --------
    >>> axes = ps.plot_random_effects(model, idata)
    >>> axes.shape
    (3,)
    >>> axes = ps.plot_random_effects(model, idata, covariates=data)
    """
    check_types("plot_random_effects", locals())
    kind = kind or ("marginals" if covariates is None else "covariates")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {shown(kind)}.")
    check_probability("ci_prob", ci_prob)
    found = find_effects(model, idata, effects, n_draws)
    units = covariates if units is None and hasattr(covariates, "attrs") else units
    if kind == "pairs":
        return draw_pairs(found, ax, figsize)
    if kind == "covariates":
        read = read_covariates(covariates, found, Fit(idata).subject_dim)
        return draw_covariates(found, read, standardized, ci_prob, units, ax, figsize)
    many = len(found) > max_separate
    groups = _by_variable(found) if many else [[effect] for effect in found]
    size = (3.3, 2.8) if many else (2.8, 2.3)
    is_strip = many and kind == "marginals"
    axes, is_new = panels(
        len(groups),
        ax,
        figsize,
        share=False,
        size=size,
        max_columns=4,
        sharex=is_strip,
        ncols=ncols,
    )
    for panel, group in zip(axes, groups, strict=True):
        if kind == "qq":
            _draw_qq(panel, group, ci_prob)
        elif many:
            _draw_strips(panel, group, ci_prob)
        else:
            _draw_marginal(panel, group[0], standardized, units)
        panel.set_title(
            group[0].variable if many else group[0].label, loc="left", fontsize="medium"
        )
        if not is_strip:
            panel.set_title(_shrinkage(group), loc="right", fontsize="small", color="#444444")
        tidy(panel)
    add_legend(axes, is_new, n_columns=2 if many else 3)
    return axes


def _by_variable(effects: list[Effect]) -> list[list[Effect]]:
    groups: dict = {}
    for effect in effects:
        groups.setdefault(effect.variable, []).append(effect)
    return list(groups.values())


def _shrinkage(group: list[Effect]) -> str:
    values = [100 * effect.shrinkage for effect in group]
    if len(values) == 1:
        return f"shrinkage {values[0]:.0f} %"
    return f"shrinkage {min(values):.0f} to {max(values):.0f} %"


def _draw_marginal(ax: Axes, effect: Effect, standardized: bool, units: Units) -> None:
    """Histogram of the draws, density of the population, marks at the modes."""
    draws, mode = (effect.z_draws, effect.z_mode) if standardized else (effect.draws, effect.mode)
    shown = np.concatenate([draws.ravel(), mode])
    shown = shown[np.isfinite(shown)]
    lowest, highest = np.quantile(shown, [0.002, 0.998])
    lowest, highest = min(lowest, mode.min()), max(highest, mode.max())
    margin = 0.15 * (highest - lowest) or 1.0
    start = max(lowest - margin, 0.0) if shown.min() >= 0 else lowest - margin
    grid = np.linspace(start, highest + margin, 300)
    if draws.size:
        bins = np.linspace(lowest, highest, int(np.clip(2 * np.cbrt(draws.size), 8, 40)))
        ax.hist(draws.ravel(), bins=list(bins), density=True, label="draws given the data", **BAND)
    density = stats.norm.pdf(grid) if standardized else effect.density(grid)
    ax.plot(grid, density, label="population", **POPULATION | {"zorder": 3})
    style = DATA | {
        "marker": "|",
        "markersize": 7,
        "markeredgewidth": 0.9,
        "color": INDIVIDUAL["color"],
    }
    ax.plot(
        mode,
        np.full(mode.size, 0.03),
        transform=ax.get_xaxis_transform(),
        label="conditional modes",
        **style,
    )
    ax.set_xlim(grid[0], grid[-1])
    ax.set_ylim(bottom=0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(
        "standardized"
        if standardized
        else with_unit(effect.variable, named_unit(units, effect.variable))
    )


def _draw_strips(ax: Axes, group: list[Effect], ci_prob: float) -> None:
    """Standardized effects of many entries, one line each: draws, modes, shrinkage."""
    tail = 0.5 - ci_prob / 2
    edge = stats.norm.isf(tail)
    ax.axvspan(-edge, edge, label=f"population, {100 * ci_prob:g} %", **_REFERENCE)
    ax.axvline(0.0, color="#FFFFFF", linewidth=1.0, zorder=0)
    for k, effect in enumerate(group):
        first = k == 0
        if effect.z_draws.size:
            q = np.nanquantile(effect.z_draws, [tail, *_LEVELS, 1 - tail])
            style = MIXTURE | {"solid_capstyle": "butt"}
            ax.plot(
                q[[0, 4]],
                [k, k],
                label=f"draws given the data, {100 * ci_prob:g} % and 50 %" if first else None,
                **style,
            )
            ax.plot(q[[1, 3]], [k, k], **style | {"linewidth": 4.5})
        modes = DATA | {"markersize": 2.6, "color": INDIVIDUAL["color"], "alpha": 0.6}
        ax.plot(
            effect.z_mode,
            np.full(effect.units.size, k),
            label="conditional modes" if first else None,
            **modes,
        )
        text = f"{100 * effect.shrinkage:.0f} %"
        ax.text(
            1.01,
            k,
            text,
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize="x-small",
            color="#444444",
        )
    ax.text(
        1.01,
        1.01,
        "shrinkage",
        transform=ax.transAxes,
        va="bottom",
        ha="center",
        fontsize="x-small",
        color="#444444",
    )
    ax.set_yticks(range(len(group)), [effect.entry for effect in group], fontsize="small")
    ax.set_ylim(len(group) - 0.5, -0.5)
    ax.set_xlabel("standardized effect")


def _draw_qq(ax: Axes, group: list[Effect], ci_prob: float) -> None:
    """Sorted standardized effects against the quantiles of as many normal ones."""
    n = group[0].units.size
    rank = np.arange(1, n + 1)
    x = stats.norm.ppf((rank - 0.375) / (n + 0.25))
    tail = 0.5 - ci_prob / 2
    reference = stats.norm.ppf(stats.beta.ppf([[tail], [1 - tail]], rank, n - rank + 1))
    ax.fill_between(x, *reference, label=f"{100 * ci_prob:g} % of normal effects", **_REFERENCE)
    ax.plot(x, x, label="population", **POPULATION)
    for k, effect in enumerate(group):
        first = k == 0
        if effect.z_draws.size:
            bounds = np.quantile(np.sort(effect.z_draws, axis=1), [tail, 1 - tail], axis=0)
            if len(group) == 1:
                ax.fill_between(x, *bounds, label=f"{100 * ci_prob:g} % of the draws", **BAND)
        style = (
            DATA | {"color": INDIVIDUAL["color"]}
            if len(group) == 1
            else INDIVIDUAL | {"linewidth": 0.9, "alpha": 0.7}
        )
        ax.plot(x, np.sort(effect.z_mode), label="conditional modes" if first else None, **style)
    ax.set_xlabel("normal quantile")
    ax.set_ylabel("standardized effect")
