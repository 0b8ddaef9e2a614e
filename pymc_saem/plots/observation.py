"""Predictive distribution of one observed value."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.random.op import RandomVariable

from pymc_saem.evaluate.fitted_outcome import DRAWS, MODE_SAMPLE, find_subjects, read_outcome, sample_values
from pymc_saem.evaluate.prediction import INTERPRETED, RowFunction
from pymc_saem.plots.style import BAND, DATA, INDIVIDUAL, MIXTURE, add_legend, tidy, unit_in, with_unit


def plot_observation_distribution(
    model,
    idata,
    subject,
    row=0,
    outcome=None,
    x=None,
    *,
    n_grid=400,
    n_draws=500,
    xlabel=None,
    ax=None,
    figsize=None,
):
    """Plot the distribution that the fit predicts for one observed value, and the value itself.

    Two distributions are drawn: one with the random effects at their conditional mode, and the mixture
    over draws of the random effects given the data, which is wider where the data say little about the subject.
    The legend states the quantile of the observed value in the mixture: P(Y <= y).

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    subject : label
        As in the model's coords.
    row : int, default 0
        Which of the subject's rows, in the order of the data; negative counts from the end.
    outcome : str, optional
        Name of the observed variable, when there are several.
    x : array_like, shape (row,), optional
        Time of each row of the outcome, for the title; an ODE solution knows it.
    n_grid : int, default 400
        Points of a density. Discrete outcomes are drawn at the whole numbers.
    n_draws : int, default 500
        Draws of the mixture, at most.
    xlabel : str, optional
        By default the name of the outcome, with its unit where ``x`` brings it.
    ax : Axes, optional
        Where to draw; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        When a subject or outcome does not exist, or the fit is of another model or has no draws.
    IndexError
        When the subject has no such row.
    NotImplementedError
        When the outcome is multivariate or composed of other distributions (censored, truncated, a mixture).

    Examples
    --------
    >>> ps.plot_observation_distribution(model, idata, subject=1, row=3)  # doctest: +SKIP
    """
    fitted = read_outcome(model, idata, outcome)
    which, row, at = _find_row(fitted, subject, row)
    samples = sample_values(model, idata, n_draws)
    rows = RowFunction(model, _dist_params(fitted.rv), fitted, samples, x)
    if len(next(iter(samples.values()))) <= DRAWS.start:
        raise ValueError("The fit has no draws of the random effects, so it has no predictive distribution.")
    law = _Predictive(fitted.rv, [values[:, at] for values in rows.at_rows()])
    y = float(fitted.observed[at])
    grid = law.support(y, n_grid)
    is_new = ax is None
    if is_new:
        _, ax = plt.subplots(figsize=figsize or (5.5, 3.6), layout="constrained")
    _draw(ax, law, grid)
    quantile = law.probability_up_to(y)
    stated = "" if quantile is None else f", quantile {quantile:.2f}"
    ax.axvline(y, color=DATA["color"], linewidth=1.2, linestyle=":", label=f"observed: {y:.4g}{stated}")
    place = f", {_place(x, rows.x[at])}" if rows.x is not None else ""
    ax.set_title(f"{fitted.subject_dim} {fitted.subjects[which]}, row {row}{place}", fontsize="medium")
    ax.set_xlabel(with_unit(fitted.name, unit_in(x, fitted.name)) if xlabel is None else xlabel)
    tidy(ax)
    add_legend([ax], is_new, n_columns=2)
    return ax


def _find_row(fitted, subject, row) -> tuple[int, int, int]:
    """Number of the subject, of the row within it, and of the row within the outcome."""
    if not isinstance(row, int | np.integer):
        raise TypeError(f"row must be a whole number, got {row!r}.")
    (which,) = find_subjects(fitted, [subject])
    own = fitted.rows_of(which)
    if not -own.size <= row < own.size:
        raise IndexError(
            f"{fitted.subject_dim} {subject!r} has {own.size} rows of '{fitted.name}', numbered from 0; "
            f"there is no row {row}."
        )
    return which, row % own.size, int(own[row])


def _place(x, value) -> str:
    """Such as ``time 0.25 h``."""
    name = getattr(x, "name", None) or "time"
    return f"{name} {value:.4g} {unit_in(x, name) or ''}".rstrip()


def _dist_params(rv):
    op = rv.owner.op
    if not isinstance(op, RandomVariable) or op.ndim_supp:
        raise NotImplementedError(
            f"Outcome '{rv.name}' is {op}; only univariate, not composed distributions can be drawn."
        )
    return op.dist_params(rv.owner)


class _Predictive:
    """Distribution of one row, for every sample of its arguments (sample,).

    The density comes from PyMC, so every univariate outcome that PyMC can evaluate has a figure.
    """

    def __init__(self, rv, arguments):
        self.op = rv.owner.op
        self.dtype = rv.type.dtype
        self.is_discrete = not self.dtype.startswith("float")
        self.arguments = arguments

    def density(self, grid, samples):
        """Mean density or mass over some samples at the points of a grid, shape (grid,)."""
        logp = self._evaluate(pm.logp, grid, samples)
        return np.nanmean(np.exp(logp), axis=0)

    def probability_up_to(self, y):
        """P(Y <= y) in the mixture over the draws; None where PyMC has no distribution function."""
        try:
            return float(np.nanmean(np.exp(self._evaluate(pm.logcdf, np.array([y]), DRAWS))))
        except NotImplementedError:
            return None

    def support(self, y, n_grid):
        """Points that hold nearly all probability, and the observed value, shape (grid,)."""
        simulated = self._simulate()
        lower, upper = np.quantile(simulated, [0.0005, 0.9995])
        margin = 0.2 * (upper - lower)
        # The margin shows the tails; beyond the least value ever simulated by much, a positive law has none.
        lower = max(lower - margin, 0.0) if simulated.min() >= 0 else lower - margin
        lower, upper = min(lower, y - 0.1 * margin), max(upper + margin, y + 0.1 * margin)
        grid = np.linspace(lower, upper, n_grid)
        return np.unique(np.round(grid)) if self.is_discrete else grid

    def _variable(self, arguments, size=None):
        """A random variable of this distribution, with a generator of its own."""
        rng = pytensor.shared(np.random.default_rng(0))
        return self.op.make_node(rng, size, *arguments).outputs[1]

    def _evaluate(self, log_function, points, samples):
        """log_function of every sample at every point, shape (sample, grid)."""
        chosen = [a[samples, None] for a in self.arguments]
        shape = (len(chosen[0]), len(points))
        inputs = [pt.tensor(dtype=a.dtype, shape=(None, None)) for a in chosen]
        value = pt.tensor(dtype=self.dtype, shape=(None, None))
        graph = log_function(self._variable(inputs), value)
        f = pytensor.function([*inputs, value], graph, mode=INTERPRETED)
        points = np.asarray(points, dtype=self.dtype)
        return f(*(np.broadcast_to(a, shape) for a in chosen), np.broadcast_to(points, shape))

    def _simulate(self, n_each=50):
        """Values of the mixture and of the conditional mode, shape (n,); the same in every call."""
        chosen = [a[MODE_SAMPLE:] for a in self.arguments]
        keep = np.all(np.isfinite(chosen), axis=0)
        chosen = [a[keep] for a in chosen]
        inputs = [pt.tensor(dtype=a.dtype, shape=(None,)) for a in chosen]
        graph = self._variable(inputs, size=(n_each, len(chosen[0])))
        return pytensor.function(inputs, graph, mode=INTERPRETED)(*chosen).ravel()


def _draw(ax, law, grid):
    mixture = law.density(grid, DRAWS)
    at_mode = law.density(grid, slice(MODE_SAMPLE, MODE_SAMPLE + 1))
    if law.is_discrete:
        ax.bar(grid, mixture, width=0.8, label="given the data", **BAND)
        ax.plot(
            grid, at_mode, marker="_", markersize=9, label="at conditional mode", **INDIVIDUAL | {"linestyle": "none"}
        )
        ax.set_ylabel("probability")
        ax.xaxis.get_major_locator().set_params(integer=True)
    else:
        ax.fill_between(grid, mixture, **BAND)
        ax.plot(grid, mixture, label="given the data", **MIXTURE)
        ax.plot(grid, at_mode, label="at conditional mode", **INDIVIDUAL)
        ax.set_ylabel("density")
        ax.set_xlim(grid[0], grid[-1])
    ax.set_ylim(bottom=0)
