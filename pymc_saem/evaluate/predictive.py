"""The predictive distribution of single rows of an outcome: density or mass, limits, quantiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.variable import TensorVariable

from pymc_saem.evaluate.censored import base_of, limit_graphs
from pymc_saem.evaluate.fitted_outcome import DRAWS, MODE_SAMPLE
from pymc_saem.evaluate.row_function import INTERPRETED


class RowLaw:
    """The distribution of the rows of an outcome, compiled once for all of them.

    The density comes from PyMC, so every univariate outcome that PyMC can evaluate has one. Of a
    censored outcome it is the distribution before it was cut off, and the limits are known beside
    it.

    Raises
    ------
    NotImplementedError
        When the outcome is multivariate or composed of other distributions (truncated, a mixture).
    """

    def __init__(self, rv: TensorVariable) -> None:
        self.rv = base_of(rv)
        self.op = self.rv.owner.op
        if not isinstance(self.op, RandomVariable) or self.op.ndim_supp:
            law = getattr(self.op, "_print_name", (type(self.op).__name__,))[0]
            kind = "multivariate" if self.op.ndim_supp else "composed of other distributions"
            raise NotImplementedError(
                f"Outcome '{rv.name}' has the distribution {law}, which is {kind}; only a univariate distribution, or one that is censored, "
                "can be drawn."
            )
        self.dtype = self.rv.type.dtype
        self.is_discrete = not self.dtype.startswith("float")
        #: Evaluate these at the rows, and give one row of each to :meth:`row`.
        self.graphs = [*self.op.dist_params(self.rv.owner), *limit_graphs(rv)]
        self._functions: dict = {}

    def row(self, values: list[np.ndarray]) -> Predictive:
        """The distribution of one row, from its values of ``graphs``, each (sample,)."""
        return Predictive(self, values[:-2], *values[-2:])

    def variable(self, arguments: Sequence, size: tuple[int, ...] | None = None) -> TensorVariable:
        """A random variable of this distribution, with its own generator."""
        rng = pytensor.shared(np.random.default_rng(0))
        return self.op.make_node(rng, size, *arguments).outputs[1]

    def evaluate(
        self, log_function: Callable, arguments: Sequence[np.ndarray], points: np.ndarray
    ) -> np.ndarray:
        """log_function of every sample of the arguments (sample,) at every point, shape (sample, point)."""
        if log_function not in self._functions:
            inputs = [pt.tensor(dtype=a.dtype, shape=(None, None)) for a in arguments]
            value = pt.tensor(dtype=self.dtype, shape=(None, None))
            graph = log_function(self.variable(inputs), value)
            self._functions[log_function] = pytensor.function(
                [*inputs, value], graph, mode=INTERPRETED
            )
        shape = (len(arguments[0]), len(points))
        values = np.broadcast_to(np.asarray(points, dtype=self.dtype), shape)
        return self._functions[log_function](
            *(np.broadcast_to(a[:, None], shape) for a in arguments), values
        )

    def simulate(self, arguments: Sequence[np.ndarray], n_each: int = 50) -> np.ndarray:
        """Values for every sample of the arguments, shape (n,); the same in every call."""
        inputs = [pt.tensor(dtype=a.dtype, shape=(None,)) for a in arguments]
        graph = self.variable(inputs, size=(n_each, len(arguments[0])))
        return pytensor.function(inputs, graph, mode=INTERPRETED)(*arguments).ravel()


class Predictive:
    """Distribution of one row, for every sample of its arguments (sample,)."""

    def __init__(
        self, law: RowLaw, arguments: Sequence[np.ndarray], lower: np.ndarray, upper: np.ndarray
    ) -> None:
        self.law, self.arguments = law, arguments
        self.lower, self.upper = (float(limit[MODE_SAMPLE]) for limit in (lower, upper))

    @property
    def is_discrete(self) -> bool:
        return self.law.is_discrete

    def density(self, grid: np.ndarray, samples: int | slice) -> np.ndarray:
        """Mean density or mass over some samples at the points of a grid (point,); nothing at and beyond limits, where masses are."""
        logp = self.law.evaluate(pm.logp, [a[samples] for a in self.arguments], grid)
        inside = (grid > self.lower) & (grid < self.upper)
        return np.where(inside, np.nanmean(np.exp(logp), axis=0), 0.0)

    def masses(self, samples: int | slice) -> dict[float, float]:
        """Limit -> probability of an observation there."""
        found = {}
        if np.isfinite(self.lower):
            found[self.lower] = self._below(self.lower, samples)
        if np.isfinite(self.upper):
            found[self.upper] = 1.0 - self._below(
                self.upper - 1 if self.is_discrete else self.upper, samples
            )
        return found

    def _below(self, y: float, samples: int | slice) -> float:
        logcdf = self.law.evaluate(pm.logcdf, [a[samples] for a in self.arguments], np.array([y]))
        return float(np.nanmean(np.exp(logcdf)))

    def probability_up_to(self, y: float) -> float | None:
        """P(Y <= y) in the mixture over the draws; None where PyMC has no distribution function."""
        if y >= self.upper:
            return 1.0
        if y < self.lower:
            return 0.0
        try:
            return self._below(y, DRAWS)
        except NotImplementedError:
            return None

    def support(self, y: float, n_grid: int) -> np.ndarray:
        """Points that hold nearly all probability, and the observed value, shape (point,)."""
        chosen = [a[MODE_SAMPLE:] for a in self.arguments]
        keep = np.all(np.isfinite(chosen), axis=0)
        simulated = self.law.simulate([a[keep] for a in chosen])
        simulated = np.clip(simulated, self.lower, self.upper)
        lower, upper = np.quantile(simulated, [0.0005, 0.9995])
        margin = 0.2 * (upper - lower) or 0.2 * max(abs(upper), 1.0)
        # The margin shows the tails; beyond the least value ever simulated by much, a positive
        # distribution has none.
        lower = max(lower - margin, 0.0) if simulated.min() >= 0 else lower - margin
        lower, upper = min(lower, y - 0.1 * margin), max(upper + margin, y + 0.1 * margin)
        grid = np.linspace(lower, upper, n_grid)
        return np.unique(np.round(grid)) if self.is_discrete else grid
