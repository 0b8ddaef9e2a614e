"""The M-step of a mixed model: applies each rule to the statistics, with priors and safeguards."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.density.priors import Prior
from pymc_saem.model.mixed_model import MixedModel, Parameter
from pymc_saem.saem.core import closed_form
from pymc_saem.saem.core.algorithm import Statistics
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.core.newton import Curvature
from pymc_saem.saem.core.schedule import Schedule
from pymc_saem.saem.mstep.held import Held
from pymc_saem.saem.mstep.means import MeanStep
from pymc_saem.saem.mstep.rules import Rules
from pymc_saem.saem.mstep.variances import Floor, OmegaStep, ScaleStep


@dataclass
class Maximizer:
    """Maximizes E[log p(y, phi; theta)] (+ log p(theta)) given the statistics: one small step for each kind of rule.

    Parameters
    ----------
    objective : {"map", "ml"}
        "map" adds the log prior of each parameter on its natural scale, "ml" ignores the priors.
    fixed : dict
        Parameters held at a natural value: name -> flat value, NaN for entries that are estimated.
    weight : ndarray, shape (subject,), optional
        Weight of each subject: the log density is that of a data set with this many copies of it. 1
        by default.
    """

    mixed: MixedModel
    rules: Rules
    points: PointMap
    schedule: Schedule
    objective: str = "map"
    fixed: dict[str, np.ndarray] = field(default_factory=dict)
    weight: np.ndarray | None = None

    def __post_init__(self) -> None:
        priors = (
            {p.name: Prior(self.mixed, p) for p in self.mixed.parameters}
            if self.objective == "map"
            else {}
        )
        self.priors = {name: prior for name, prior in priors.items() if not prior.is_flat()}
        self.scale_step = ScaleStep(self.points, self.priors, Floor())
        self.omega_step = OmegaStep(self.points, self.priors, self.scale_step)
        self.fix(self.fixed)

    # -- constants of the user ----------------------------------------------------------------

    def fix(self, fixed: dict[str, np.ndarray]) -> None:
        """Hold these parameters instead of those so far."""
        self.fixed, self._held = fixed, Held(self.mixed, self.points, fixed)
        self.mean_step = MeanStep(self.rules.mean, self.priors, self._held)

    @property
    def held(self) -> np.ndarray:
        """Which entries of theta are fixed, (theta,)."""
        return self._held.entries

    def is_fixed(self, p: Parameter) -> bool:
        """Whether no entry of a parameter is estimated."""
        return self._held.all_of(p)

    def apply_fixed(self, theta: np.ndarray) -> np.ndarray:
        """theta with the user's constants in place."""
        return self._held.apply(theta)

    @property
    def score_columns(self) -> np.ndarray:
        """Entries of theta that score steps move."""
        parts = [
            np.arange(r.parameter.columns.start, r.parameter.columns.stop)
            for r in self.rules.scores
        ]
        columns = np.concatenate(parts or [np.zeros(0, int)])
        return columns[~self.held[columns]]

    # -- weights of subjects ------------------------------------------------------------------

    @property
    def n_weighted(self) -> float:
        """Number of subjects, or the sum of their weights."""
        return closed_form.total_weight(self.weight, self.mixed.n_subjects)

    @property
    def weighted_subjects(self) -> np.ndarray:
        """Numbers of the subjects that count at all."""
        return (
            np.arange(self.mixed.n_subjects) if self.weight is None else np.flatnonzero(self.weight)
        )

    # -- the distribution of phi --------------------------------------------------------------

    def population(self, theta: np.ndarray) -> Population:
        """The distribution of phi at theta."""
        rules, omega = self.rules, self.rules.fixed_omega.copy()
        for block in rules.moving_omega:
            omega[np.ix_(block.columns, block.columns)] = rules.law.covariance(block, theta)
        for rule in rules.omegas:
            x = self.points.natural(rule.parameter, theta[rule.parameter.columns])
            omega[np.ix_(rule.columns, rule.columns)] = rule.omega(x)
        mean = rules.mean.mean(theta, self.mixed.n_subjects)
        if rules.typical is None:
            return Population(mean, omega)
        mean = rules.typical.mean(theta, mean)
        other = np.flatnonzero(~self.mixed.is_gaussian)
        omega[other, other] = self._rough_sd[other] ** 2
        return Population(mean, omega, self.mixed.is_gaussian)

    @cached_property
    def _rough_sd(self) -> np.ndarray:
        """Standard deviations of the non-Gaussian columns, evaluated at the initial values so that chains are independent; else 1."""
        base, typical = self.rules.law.base, self.rules.typical
        if typical is None:
            return np.ones(self.mixed.n_phi)
        return typical.sd(
            base, typical.mean(base, self.rules.mean.mean(base, self.mixed.n_subjects))
        )

    # -- the M-step ---------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the start of the last run, which the variance floor is relative to."""
        self.scale_step.floor = Floor()

    @property
    def floor_state(self) -> dict[str, Any]:
        """What the variance floor remembers: ``start`` variances, and the parameters that ``reached`` it."""
        return {"start": self.scale_step.floor.start, "reached": self.scale_step.floor.reached}

    @floor_state.setter
    def floor_state(self, value: dict[str, Any]) -> None:
        self.scale_step.floor = Floor(**value)

    def __call__(self, statistics: Statistics, theta: np.ndarray, iteration: int) -> np.ndarray:
        """The next theta, (theta,)."""
        old, theta = theta, theta.copy()
        mean = self._move_means(statistics, theta)
        covariance = closed_form.covariance_about(
            statistics.first, statistics.second, mean, self.weight
        )
        self._move_variances(statistics.residual, covariance, old, theta, iteration)
        # Entries of a diagonal are maximized one by one, so those that are not held are right.
        return np.where(self.held, old, theta)

    def _move_means(self, statistics: Statistics, theta: np.ndarray) -> np.ndarray:
        """Write the maximizers of the means into theta; the means (subject, phi) there."""
        rule, step = self.rules.mean.at(theta), self.mean_step
        if step.columns.size:
            precision = self.population(theta).precision
            theta[step.columns] = step(rule, statistics.first, theta, precision, self.weight)
        mean = rule.design @ theta[rule.columns] + rule.offset
        return np.broadcast_to(mean, statistics.first.shape)

    def _move_variances(
        self,
        residual: np.ndarray,
        covariance: np.ndarray,
        old: np.ndarray,
        theta: np.ndarray,
        iteration: int,
    ) -> None:
        """Write the maximizers of covariances, residual scales and scales of effects into theta."""
        ratio, rise = self.schedule.smallest_ratio(iteration), self.schedule.rise
        residual_ratio = self.schedule.smallest_residual_ratio(iteration)
        is_held = self.schedule.holds_variances(iteration)
        for omega in self.rules.omegas:
            if not self.is_fixed(omega.parameter):
                where = omega.parameter.columns
                theta[where] = self.omega_step(
                    omega, self.n_weighted, covariance, old[where], ratio, is_held
                )
        for model in self.rules.residuals:
            p, where = model.parameter, model.parameter.columns
            if not self.is_fixed(p):
                sums = (
                    np.array([model.count(self.mixed, self.weight)]),
                    np.array([model.squares(residual)]),
                )
                theta[where] = self.scale_step(p, model, *sums, old[where], residual_ratio, rise)
        for rule in self.rules.effect_scales:
            where = rule.parameter.columns
            if not self.is_fixed(rule.parameter):
                count, squares = rule.count(self.weight), rule.squares(residual)
                arrays = count, squares, old[where]
                theta[where] = self.scale_step.of_effects(rule, *arrays, ratio, is_held)

    # -- how well the parameters are known ----------------------------------------------------

    def scales(self, theta: np.ndarray, curvature: Curvature | None = None) -> np.ndarray:
        """Rough standard errors of theta (theta,) if phi were known: the units in which a drift or a difference is judged.

        ``curvature`` is that of the score steps. Fixed entries have infinite ones, so that nothing
        counts as a drift of them.
        """
        rules, n, scale = self.rules, self.n_weighted, np.ones(self.mixed.n_theta)
        mean, law = rules.mean.at(theta), self.population(theta)
        zeros = np.zeros_like(law.mean)
        information, _ = closed_form.gls_normal_equations(
            zeros, mean.design, mean.offset, law.precision, weight=self.weight
        )
        scale[mean.columns] = 1.0 / np.sqrt(np.diag(information))
        precisions = [(r.parameter, r.scale.precision(r.count(n))) for r in rules.omegas]
        precisions += [
            (r.parameter, r.precision(r.count(self.mixed, self.weight))) for r in rules.residuals
        ]
        precisions += [
            (r.parameter, r.precision(np.maximum(r.count(self.weight), 1e-3)))
            for r in rules.effect_scales
        ]
        for p, precision in precisions:
            scale[p.columns] = self._error_of_scale(p, theta[p.columns], precision)
        if curvature is not None:
            scale[self.score_columns] = 1.0 / np.sqrt(
                np.maximum(np.abs(np.diag(curvature.matrix)), 1e-12)
            )
        scale[self.held] = np.inf
        return scale

    def _error_of_scale(self, p: Parameter, u: np.ndarray, precision: np.ndarray) -> np.ndarray:
        """Change of the unconstrained value u when the natural one changes by a share of 1 / precision."""
        step = np.abs(self.points.natural(p, u)) / precision
        slope = np.abs(self.points.natural(p, u + 1e-5) - self.points.natural(p, u - 1e-5)) / 2e-5
        return np.maximum(step, 1e-8) / np.maximum(slope, 1e-12)
