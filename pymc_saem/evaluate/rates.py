"""Learned functions as numbers: the output of every network over its input, by subject and for the population."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pymc as pm

from pymc_saem.arguments import check_probability, check_types, shown
from pymc_saem.compat import InferenceData
from pymc_saem.evaluate.fitted_outcome import DRAWS, MODE_SAMPLE, POPULATION_SAMPLE, sample_values
from pymc_saem.evaluate.learned import Axis, Learned, find_learned

COLUMNS = ["network", "variable", "subject", "x", "value", "lower", "upper", "is_covered"]


@dataclass(frozen=True)
class RateCurves:
    """The curves of one network along one axis.

    Attributes
    ----------
    network : str
    axis : Axis
    label : str
        What the values are: "softplus(net)".
    subjects : ndarray, shape (subject,)
    x : ndarray, shape (point,)
    population : ndarray, shape (point,)
    individual : ndarray, shape (subject, point)
        At the conditional mode.
    draws : ndarray, shape (draw, subject, point)
    is_covered : ndarray of bool, shape (subject, point)
        Whether x lies in the range of the subject's fitted trajectory.
    """

    network: str
    axis: Axis
    label: str
    subjects: np.ndarray
    x: np.ndarray = field(repr=False)
    population: np.ndarray = field(repr=False)
    individual: np.ndarray = field(repr=False)
    draws: np.ndarray = field(repr=False)
    is_covered: np.ndarray = field(repr=False)

    def band(self, ci_prob: float, is_pooled: bool = False) -> np.ndarray:
        """Quantiles of the draws, (2, subject, point), or of all subjects' together (2, point); NaN without draws."""
        levels = [0.5 - ci_prob / 2, 0.5 + ci_prob / 2]
        shape = self.individual.shape[1:] if is_pooled else self.individual.shape
        if not len(self.draws):
            return np.full((2, *shape), np.nan)
        draws = self.draws.reshape(-1, self.x.size) if is_pooled else self.draws
        return np.quantile(draws, levels, axis=0)


def rates(
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
) -> pd.DataFrame:
    """Tabulate what the networks of a model have learned: their output over their input.

    The networks are found in the model, in the right-hand side of its differential equations and
    elsewhere; nothing needs to be said about them.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    networks : str or sequence of str, optional
        Names of the networks' weights; all networks by default.
    subjects : label or sequence of labels, optional
        As in the model's coords; all subjects by default.
    along : {"variable", "input"}
        What ``x`` is. "variable" is the time or the state that the input is made of (for ``net(p.w,
        t / 24)`` the time), where it is made of one alone; else, and with "input", the input
        itself.
    raw : bool, default False
        By default the value is the rate: what the model makes of the network's output alone, such
        as ``softplus(net(...))``, up to where it meets another quantity, without a minus in front.
        True gives the network's output.
    ranges : mapping of str to (float, float), optional
        Lowest and highest ``x`` of some networks; by default a little more than what the fitted
        trajectories cover.
    n_grid : int, default 100
        Points of each curve.
    n_draws : int, default 200
        Draws behind the intervals, at most.
    ci_prob : float, default 0.9
        Probability of the intervals, equal tails.

    Returns
    -------
    pandas.DataFrame
        A row for each network, subject and point; the subject "population" has the random effects
        at their population value. Columns: ``network`` (name of its weights), ``variable`` (what x
        is), ``subject``, ``x``, ``value`` at the conditional mode, ``lower`` and ``upper`` (from
        draws of the random effects given the data; NaN for the population), ``is_covered`` (whether
        x lies in the range of the subject's fitted trajectory; for the population, of any
        subject's).

    Raises
    ------
    ValueError
        When the model has no networks, or not those that were asked for.

    See Also
    --------
    pymc_saem.plot_rates : The same as figures.
    pymc_saem.nn.MLP : A network.
    pymc_saem.nn.weights : Its weights as a variable of a model.

    Examples
    --------
    >>> table = ps.rates(network_model, network_fit, "w_in")
    >>> typical = table[table["subject"] == "population"]
    >>> typical["variable"].unique().tolist()
    ['t']
    >>> ax = typical.plot("x", "value")
    """
    check_types("rates", locals())
    check_arguments(ci_prob, n_grid, along)
    curves = rate_curves(model, idata, networks, subjects, along, raw, ranges, n_grid, n_draws)
    return pd.concat([_table(one, ci_prob) for one in curves], ignore_index=True)[COLUMNS]


def check_arguments(ci_prob: float, n_grid: int, along: str) -> None:
    check_probability("ci_prob", ci_prob)
    if n_grid < 2:
        raise ValueError(f"n_grid must be at least 2, got {n_grid}.")
    if along not in ("variable", "input"):
        raise ValueError(f"along must be 'variable' or 'input', got {shown(along)}.")


def rate_curves(
    model: pm.Model,
    idata: InferenceData,
    networks: str | Sequence[str] | None = None,
    subjects: Hashable | Sequence[Hashable] | None = None,
    along: str = "variable",
    raw: bool = False,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    n_grid: int = 100,
    n_draws: int = 200,
) -> list[RateCurves]:
    """The curves behind :func:`rates`, one entry per network and axis; arguments as there."""
    found = find_learned(model, idata, sample_values(model, idata, n_draws), along)
    if not found:
        raise ValueError(
            "The model has no networks that were called in its graph: networks are pymc_saem.nn.MLP, called in the right-hand "
            "side of a differential equation or in a formula. A model that was unpickled has lost its right-hand side; build it again."
        )
    found = _chosen(found, networks)
    unknown = set(ranges or {}) - {one.name for one in found}
    if unknown:
        raise ValueError(
            f"ranges has {min(unknown)!r}, which is not a network; the networks are {_names(found)}."
        )
    return [
        _curves(one, axis, subjects, raw, (ranges or {}).get(one.name), n_grid)
        for one in found
        for axis in one.axes
    ]


def _names(found: Sequence[Learned]) -> str:
    return ", ".join(one.name for one in found)


def _chosen(found: list[Learned], networks: str | Sequence[str] | None) -> list[Learned]:
    if networks is None:
        return found
    by_name = {one.name: one for one in found}
    names = [networks] if isinstance(networks, str) else list(networks)
    for name in names:
        if name not in by_name:
            raise ValueError(f"There is no network {name!r}; there are {_names(found)}.")
    return [by_name[name] for name in names]


def _curves(
    one: Learned,
    axis: Axis,
    subjects: Hashable | Sequence[Hashable],
    raw: bool,
    given: tuple[float, float] | None,
    n_grid: int,
) -> RateCurves:
    x = np.linspace(*(_range(axis) if given is None else _checked_range(one.name, given)), n_grid)
    keep = _kept(one, subjects)
    with np.errstate(over="ignore"):  # exp of a network far outside
        values = one.values(axis, x, raw)
    lowest, highest = (
        np.nanmin(axis.used, axis=1)[keep, None],
        np.nanmax(axis.used, axis=1)[keep, None],
    )
    return RateCurves(
        network=one.name,
        axis=axis,
        label="net" if raw else one.call.rate_text,
        subjects=one.subjects[keep],
        x=x,
        # where the typical subject depends on covariates, the mean of them
        population=values[POPULATION_SAMPLE].mean(axis=0),
        individual=values[MODE_SAMPLE][keep],
        draws=values[DRAWS][:, keep],
        is_covered=(x >= lowest) & (x <= highest),
    )


def _range(axis: Axis, margin: float = 0.15) -> tuple[float, float]:
    """A little more than what is covered; not beyond zero, where nothing that is covered lies."""
    lowest, highest = np.nanmin(axis.used), np.nanmax(axis.used)
    more = margin * (highest - lowest) or max(abs(highest), 1.0) * margin
    start = max(lowest - more, 0.0) if lowest >= 0 else lowest - more
    return start, (min(highest + more, 0.0) if highest <= 0 else highest + more)


def _checked_range(name: str, given: tuple[float, float]) -> tuple[float, float]:
    lowest, highest = map(float, given)
    if not lowest < highest:
        raise ValueError(
            f"ranges[{name!r}] must be (low, high) with low < high, got {shown(given)}."
        )
    return lowest, highest


def _kept(one: Learned, subjects: Hashable | Sequence[Hashable]) -> np.ndarray:
    """Numbers of the subjects that were asked for."""
    labels = [str(s) for s in one.subjects]
    if subjects is None or labels == ["all"]:
        return np.arange(len(labels))
    wanted = (
        [subjects] if isinstance(subjects, str) or not np.iterable(subjects) else list(subjects)
    )
    for s in wanted:
        if str(s) not in labels:
            raise ValueError(f"There is no subject {shown(s)}; there are {', '.join(labels[:30])}.")
    return np.array([labels.index(str(s)) for s in wanted])


def _table(one: RateCurves, ci_prob: float) -> pd.DataFrame:
    n = one.x.size
    lower, upper = one.band(ci_prob)
    nothing = np.full((1, n), np.nan)
    names = ["population", *one.subjects.tolist()]
    return pd.DataFrame(
        {
            "network": one.network,
            "variable": one.axis.variable,
            "subject": [name for name in names for _ in range(n)],
            "x": np.tile(one.x, len(names)),
            "value": np.concatenate([one.population[None], one.individual]).ravel(),
            "lower": np.concatenate([nothing, lower]).ravel(),
            "upper": np.concatenate([nothing, upper]).ravel(),
            "is_covered": np.concatenate(
                [one.is_covered.any(axis=0, keepdims=True), one.is_covered]
            ).ravel(),
        }
    )
