"""The M-step of the scales and covariances: each goes to its maximum, as far as the safeguards allow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.density.priors import Prior
from pymc_saem.model.mixed_model import Parameter
from pymc_saem.saem.core import closed_form
from pymc_saem.saem.core.power_scale import PowerScale
from pymc_saem.saem.core.schedule import at_least
from pymc_saem.saem.mstep.rules import EffectScaleRule, OmegaRule

#: A standard deviation may not fall below this fraction of its start: at zero the E-step could not
#: move.
SMALLEST_SD = 1e-4


@dataclass
class Floor:
    """Variances below which none may fall: a share of those that a run starts with."""

    # variances in the first M-step, by parameter
    start: dict[str, np.ndarray] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)  # parameters that were at their floor

    def __call__(
        self, name: str, variance: np.ndarray, old: np.ndarray, is_held: bool = False
    ) -> np.ndarray:
        """The variances (k,) of a parameter, or their floor; ``old`` (k,) are those before the step.

        ``is_held``: the floor is where they started.
        """
        start = self.start.setdefault(name, old)
        if is_held:
            return np.maximum(variance, start)
        floor = SMALLEST_SD**2 * start
        if np.any(variance < floor):
            self.reached.add(name)
            variance = np.maximum(variance, floor)
        return variance


@dataclass
class ScaleStep:
    """Maximizes parameters of which standard deviations are powers."""

    points: PointMap
    priors: dict[str, Prior]
    floor: Floor

    def __call__(
        self,
        p: Parameter,
        scale: PowerScale,
        count: np.ndarray,
        squares: np.ndarray,
        old: np.ndarray,
        ratio: float,
        rise: float = np.inf,
        is_held: bool = False,
    ) -> np.ndarray:
        """The next unconstrained value (k,) of a parameter, from ``old``, that of this iteration.

        Its variances change at least by the factor ``ratio`` and at most by ``rise``; ``is_held``:
        they do not fall below their start.
        """
        old, prior = self.points.natural(p, old), self.priors.get(p.name)
        if prior is None:
            x = scale.maximum(count, squares)
        else:
            x = scale.penalized_maximum(count, squares, old, prior.natural)
        variance, before = scale.variance(x), scale.variance(old)
        bounded = np.minimum(at_least(variance, before, ratio), rise * before)
        bounded = self.floor(p.name, bounded, before, is_held)
        x = np.where(bounded == variance, x, scale.of_variance(bounded))
        return self.points.unconstrained(p, x)

    def of_effects(
        self,
        rule: EffectScaleRule,
        count: np.ndarray,
        squares: np.ndarray,
        old: np.ndarray,
        ratio: float,
        is_held: bool = False,
    ) -> np.ndarray:
        """The same for entries that scale ``count`` (k,) random effects each; an entry without effects stays."""
        is_used, at_old = count > 0, rule.variance(self.points.natural(rule.parameter, old))
        squares, count = np.where(is_used, squares, at_old), np.where(is_used, count, 1.0)
        x = self(rule.parameter, rule, count, squares, old, ratio, is_held=is_held)
        return np.where(is_used, x, old)


@dataclass
class OmegaStep:
    """Maximizes parameters of the covariance of phi."""

    points: PointMap
    priors: dict[str, Prior]
    scale: ScaleStep

    def __call__(
        self,
        rule: OmegaRule,
        n: float,
        covariance: np.ndarray,
        old: np.ndarray,
        ratio: float,
        is_held: bool = False,
    ) -> np.ndarray:
        """The next unconstrained value (k,) of a parameter.

        Parameters
        ----------
        n : float
            Number of subjects, or the sum of their weights.
        covariance : ndarray, shape (phi, phi)
            Mean over the subjects of the expected squared deviations from their means.
        old : ndarray, shape (k,)
            The value of this iteration.
        ratio : float
            Smallest factor by which a variance may change.
        is_held : bool
            Whether no variance may fall below its start.
        """
        target = covariance[np.ix_(rule.columns, rule.columns)]
        if rule.kind == "full":
            return self._full(rule, n, target, old, ratio, is_held)
        if rule.kind == "scalar":
            squares = np.array([n * np.trace(np.linalg.solve(rule.base, target))])
        else:
            squares = n * np.diag(target) / np.diag(rule.base)
        count = np.full(squares.size, float(rule.count(n)))
        return self.scale(rule.parameter, rule.scale, count, squares, old, ratio, is_held=is_held)

    def _full(
        self,
        rule: OmegaRule,
        n: float,
        target: np.ndarray,
        old: np.ndarray,
        ratio: float,
        is_held: bool,
    ) -> np.ndarray:
        k, prior = target.shape[0], self.priors.get(rule.parameter.name)
        before = np.diag(rule.omega(self.points.natural(rule.parameter, old)))
        variance = np.maximum(np.diag(target), SMALLEST_SD**2 * before)
        bounded = at_least(variance, before, ratio)
        if is_held:
            bounded = self.scale.floor(rule.parameter.name, bounded, before, is_held)
        factor = np.sqrt(bounded / np.maximum(np.diag(target), 1e-300))
        target = target * np.outer(factor, factor) + 1e-12 * np.diag(variance)
        packed = closed_form.pack_cholesky(target)
        if prior is None:
            return self.points.unconstrained(rule.parameter, packed)
        on_diagonal = np.equal(*np.tril_indices(k))
        start = np.where(on_diagonal, np.log(np.abs(packed)), packed)
        return closed_form.penalized_cholesky(n, target, start, prior.unconstrained)
