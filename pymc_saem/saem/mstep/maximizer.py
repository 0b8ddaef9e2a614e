"""The M-step of a mixed model: applies each rule to the statistics, with priors and safeguards."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.density.priors import Prior
from pymc_saem.model.mixed_model import MixedModel, Parameter
from pymc_saem.saem.core import closed_form
from pymc_saem.saem.core.algorithm import Statistics
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.core.schedule import Schedule, at_least
from pymc_saem.saem.mstep.rules import EffectScaleRule, MeanRule, OmegaRule, ResidualRule, Rules

#: A standard deviation may not fall below this fraction of its start: at zero the E-step could not move.
SMALLEST_SD = 1e-4


@dataclass
class Maximizer:
    """Maximizes E[log p(y, phi; theta)] (+ log p(theta)) given the statistics.

    Parameters
    ----------
    objective : {"map", "ml"}
        "map" adds the log prior of each parameter on its natural scale, "ml" ignores the priors.
    fixed : dict
        Parameters held at a natural value: name -> flat value, NaN for entries that are estimated.
    weight : ndarray, shape (subject,), optional
        Weight of each subject: the log density is that of a data set with this many copies of it. 1 by default.
    """

    mixed: MixedModel
    rules: Rules
    points: PointMap
    schedule: Schedule
    objective: str = "map"
    fixed: dict[str, np.ndarray] = field(default_factory=dict)
    weight: np.ndarray | None = None
    floor_state: dict = field(init=False)

    def __post_init__(self):
        self.reset()
        priors = {p.name: Prior(self.mixed, p) for p in self.mixed.parameters} if self.objective == "map" else {}
        self.priors = {name: prior for name, prior in priors.items() if not prior.is_flat()}
        self.fix(self.fixed)

    def fix(self, fixed: dict[str, np.ndarray]) -> None:
        """Hold these parameters instead of those so far."""
        self.fixed = fixed
        self.held = np.zeros(self.mixed.n_theta, dtype=bool)  # entries of theta that are fixed
        for name, value in fixed.items():
            p, known = self.mixed.parameter(name), np.isfinite(value)
            self.held[p.columns] = known if p.is_entrywise else known.all()
        self._prior_of_mean()

    @property
    def n_weighted(self) -> float:
        """Number of subjects, or the sum of their weights."""
        return closed_form.total_weight(self.weight, self.mixed.n_subjects)

    @property
    def weighted_subjects(self) -> np.ndarray:
        """Numbers of the subjects that count at all."""
        return np.arange(self.mixed.n_subjects) if self.weight is None else np.flatnonzero(self.weight)

    def n_rows(self, rule: ResidualRule) -> float:
        if self.weight is None:
            return float(rule.n_rows)
        return float(sum(self.weight[self.mixed.outcomes[j].row_subject].sum() for j in rule.outcomes))

    def reset(self) -> None:
        """Forget the start of the last run, which the variance floor is relative to."""
        self.floor_state = {"start": {}, "reached": set()}

    def population(self, theta: np.ndarray) -> Population:
        """The distribution of phi at theta."""
        rules, omega = self.rules, self.rules.fixed_omega.copy()
        for block in rules.moving_omega:
            omega[np.ix_(block.columns, block.columns)] = rules.law.covariance(block, theta)
        for rule in rules.omegas:
            x = self.points.natural(rule.parameter, theta[rule.parameter.columns])
            omega[np.ix_(rule.columns, rule.columns)] = omega_of(rule, x)
        mean = rules.mean.mean(theta, self.mixed.n_subjects)
        if rules.typical is None:
            return Population(mean, omega)
        mean = rules.typical.mean(theta, mean)
        other = np.flatnonzero(~self.mixed.is_gaussian)
        omega[other, other] = self._rough_sd[other] ** 2
        return Population(mean, omega, self.mixed.is_gaussian)

    @cached_property
    def _rough_sd(self) -> np.ndarray:
        """Standard deviations of the non-Gaussian columns, evaluated at the initial values so that chains are independent."""
        base = self.rules.law.base
        typical = self.rules.typical
        return typical.sd(base, typical.mean(base, self.rules.mean.mean(base, self.mixed.n_subjects)))

    @property
    def score_columns(self) -> np.ndarray:
        """Entries of theta that score steps move."""
        parts = [np.arange(r.parameter.columns.start, r.parameter.columns.stop) for r in self.rules.scores]
        columns = np.concatenate(parts or [np.zeros(0, int)])
        return columns[~self.held[columns]]

    def apply_fixed(self, theta: np.ndarray) -> np.ndarray:
        """theta with the user's constants in place."""
        theta = theta.copy()
        for name, value in self.fixed.items():
            p = self.mixed.parameter(name)
            known = np.isfinite(value)
            value = np.where(known, value, self.points.natural(p, theta[p.columns]))
            u = self.points.unconstrained(p, value)
            theta[p.columns] = np.where(known, u, theta[p.columns]) if p.is_entrywise else u
        return theta

    def is_fixed(self, p: Parameter) -> bool:
        """Whether no entry of a parameter is estimated."""
        return bool(self.held[p.columns].all()) and p.columns.stop > p.columns.start

    def __call__(self, statistics: Statistics, theta: np.ndarray, iteration: int) -> np.ndarray:
        """The next theta, (theta,)."""
        old, theta = theta, theta.copy()
        ratio = self.schedule.smallest_ratio(iteration)
        residual_ratio = self.schedule.smallest_residual_ratio(iteration)
        mean_rule = self.rules.mean.at(theta)
        theta = self._update_mean(mean_rule, statistics, theta)
        mean = mean_rule.design @ theta[mean_rule.columns] + mean_rule.offset
        mean = np.broadcast_to(mean, statistics.first.shape)
        covariance = closed_form.covariance_about(statistics.first, statistics.second, mean, self.weight)
        for rule in self.rules.omegas:
            if not self.is_fixed(rule.parameter):
                theta[rule.parameter.columns] = self._omega(rule, covariance, old, ratio)
        for rule in self.rules.residuals:
            if not self.is_fixed(rule.parameter):
                theta[rule.parameter.columns] = self._residual(rule, statistics.residual, old, residual_ratio)
        for rule in self.rules.effect_scales:
            if not self.is_fixed(rule.parameter):
                theta[rule.parameter.columns] = self._effect_scale(rule, statistics.residual, old, ratio)
        # Entries of a diagonal are maximized one by one, so those that are not held are right.
        return np.where(self.held, old, theta)

    def scales(self, theta: np.ndarray, curvature=None) -> np.ndarray:
        """Rough standard errors of theta (theta,) if phi were known: the units in which a drift or a difference is judged.

        ``curvature`` is that of the score steps. Fixed entries have infinite ones, so that nothing counts as a drift of them.
        """
        rules, n, scale = self.rules, self.n_weighted, np.ones(self.mixed.n_theta)
        mean, law = rules.mean.at(theta), self.population(theta)
        zeros = np.zeros_like(law.mean)
        information, _ = closed_form.gls_normal_equations(
            zeros, mean.design, mean.offset, law.precision, weight=self.weight
        )
        scale[mean.columns] = 1.0 / np.sqrt(np.diag(information))
        for rule in rules.omegas:
            count = n * rule.columns.size if rule.kind == "scalar" else n
            scale[rule.parameter.columns] = self._scale_step(rule.parameter, theta, rule.power * np.sqrt(2.0 * count))
        for rule in rules.residuals:
            scale[rule.parameter.columns] = self._scale_step(
                rule.parameter, theta, rule.power * np.sqrt(2.0 * self.n_rows(rule))
            )
        for rule in rules.effect_scales:
            count = np.maximum(self._count(rule), 1e-3)
            scale[rule.parameter.columns] = self._scale_step(rule.parameter, theta, rule.power * np.sqrt(2.0 * count))
        if curvature is not None:
            scale[self.score_columns] = 1.0 / np.sqrt(np.maximum(np.abs(np.diag(curvature.matrix)), 1e-12))
        scale[self.held] = np.inf
        return scale

    def _scale_step(self, p: Parameter, theta: np.ndarray, precision: float) -> np.ndarray:
        """Change of the unconstrained value when the natural one changes by a share of 1 / precision."""
        u = theta[p.columns]
        step = np.abs(self.points.natural(p, u)) / precision
        slope = np.abs(self.points.natural(p, u + 1e-5) - self.points.natural(p, u - 1e-5)) / 2e-5
        return np.maximum(step, 1e-8) / np.maximum(slope, 1e-12)

    # -- means --------------------------------------------------------------------------------

    def _prior_of_mean(self) -> None:
        """Collect Gaussian priors of the mean parameters; the others are maximized numerically."""
        rule = self.rules.mean
        self._mean_columns = rule.columns[~self.held[rule.columns]]
        in_rule = np.searchsorted(rule.columns, self._mean_columns)
        self._free, self._held = in_rule, np.setdiff1d(np.arange(rule.columns.size), in_rule)
        size = self._mean_columns.size
        self._prior_precision, self._prior_shift = np.zeros((size, size)), np.zeros(size)
        self._other_priors = []
        for p in rule.parameters:
            if p.name not in self.priors or self.is_fixed(p):
                continue
            where = np.flatnonzero((self._mean_columns >= p.columns.start) & (self._mean_columns < p.columns.stop))
            gaussian = self.priors[p.name].quadratic() if not self.held[p.columns].any() else None
            if gaussian is None:
                self._other_priors.append((where, p))
            else:
                self._prior_precision[np.ix_(where, where)], self._prior_shift[where] = gaussian

    def _update_mean(self, rule: MeanRule, statistics: Statistics, theta: np.ndarray) -> np.ndarray:
        if not self._mean_columns.size:
            return theta
        held, design = self._held, rule.design[:, :, self._free]
        offset = rule.offset + rule.design[:, :, held] @ theta[rule.columns[held]] if held.size else rule.offset
        precision = self.population(theta).precision
        gaussian = self._prior_precision, self._prior_shift
        if self._other_priors:
            left, right = closed_form.gls_normal_equations(
                statistics.first, design, offset, precision, *gaussian, self.weight
            )
            log_prior = partial(self._log_prior_of_mean, theta)
            beta = closed_form.penalized_mean(left, right, theta[self._mean_columns], log_prior)
        else:
            beta = closed_form.gls_mean(statistics.first, design, offset, precision, *gaussian, self.weight)
        theta[self._mean_columns] = beta
        return theta

    def _log_prior_of_mean(self, theta, beta):
        value, gradient, full = 0.0, np.zeros_like(beta), theta.copy()
        full[self._mean_columns] = beta
        for where, p in self._other_priors:
            density, slope = self.priors[p.name].unconstrained(full[p.columns])
            value, gradient[where] = value + density, slope[~self.held[p.columns]]
        return value, gradient

    # -- variances ----------------------------------------------------------------------------

    def _omega(self, rule: OmegaRule, covariance, old, ratio) -> np.ndarray:
        p, prior = rule.parameter, self.priors.get(rule.parameter.name)
        u_old = old[p.columns]
        x_old = self.points.natural(p, u_old)
        target = covariance[np.ix_(rule.columns, rule.columns)]
        if rule.kind == "full":
            return self._omega_full(rule, target, u_old, x_old, ratio, prior)
        n = self.n_weighted
        if rule.kind == "scalar":
            count = np.array([n * target.shape[0]], dtype=float)
            squares = np.array([n * np.trace(np.linalg.solve(rule.base, target))])
        else:
            count = np.full(target.shape[0], float(n))
            squares = n * np.diag(target) / np.diag(rule.base)
        return self._scale(p, count, squares, rule.power, x_old, ratio, np.inf, prior)

    def _omega_full(self, rule, target, u_old, x_old, ratio, prior) -> np.ndarray:
        k = target.shape[0]
        old_variance = np.diag(omega_of(rule, x_old))
        variance = np.maximum(np.diag(target), SMALLEST_SD**2 * old_variance)
        factor = np.sqrt(at_least(variance, old_variance, ratio) / np.maximum(np.diag(target), 1e-300))
        target = target * np.outer(factor, factor) + 1e-12 * np.diag(variance)
        packed = closed_form.pack_cholesky(target)
        if prior is None:
            return self.points.unconstrained(rule.parameter, packed)
        on_diagonal = np.equal(*np.tril_indices(k))
        start = np.where(on_diagonal, np.log(np.abs(packed)), packed)
        return closed_form.penalized_cholesky(self.n_weighted, target, start, prior.unconstrained)

    def _residual(self, rule: ResidualRule, residual, old, ratio) -> np.ndarray:
        p = rule.parameter
        x_old = self.points.natural(p, old[p.columns])
        squares = np.array([residual[list(rule.terms)].sum() * rule.unit ** (2 * rule.power)])
        count = np.array([self.n_rows(rule)])
        return self._scale(p, count, squares, rule.power, x_old, ratio, self.schedule.rise, self.priors.get(p.name))

    def _count(self, rule: EffectScaleRule) -> np.ndarray:
        """Effects, by the weights of their subjects, that each entry of a parameter scales, (entry,)."""
        return closed_form.weighted(None if self.weight is None else self.weight[:, None], rule.count).sum(axis=0)

    def _effect_scale(self, rule: EffectScaleRule, residual, old, ratio) -> np.ndarray:
        p, count = rule.parameter, self._count(rule)
        x_old = self.points.natural(p, old[p.columns])
        squares, is_used = residual[rule.terms].sum(axis=1), count > 0
        # An entry without effects stays, but for its prior.
        squares, count = np.where(is_used, squares, x_old ** (2 * rule.power)), np.where(is_used, count, 1.0)
        u = self._scale(p, count, squares, rule.power, x_old, ratio, np.inf, self.priors.get(p.name))
        return np.where(is_used, u, old[p.columns])

    def _scale(self, p, count, squares, power, x_old, ratio, rise, prior) -> np.ndarray:
        """Unconstrained value of a scale parameter after its update, (k,)."""
        if prior is None:
            x = closed_form.scale_power(count, squares, power)
        else:
            x = closed_form.penalized_scale(count, squares, power, x_old, prior.natural)
        variance, old = x ** (2 * power), x_old ** (2 * power)
        bounded = np.minimum(at_least(variance, old, ratio), rise * old)
        floor = SMALLEST_SD**2 * self.floor_state["start"].setdefault(p.name, old)
        if np.any(bounded < floor):
            self.floor_state["reached"].add(p.name)
            bounded = np.maximum(bounded, floor)
        x = np.where(bounded == variance, x, bounded ** (0.5 / power))
        return self.points.unconstrained(p, x)


def omega_of(rule: OmegaRule, x: np.ndarray) -> np.ndarray:
    """Covariance (k, k) of the rule's columns at the natural value x of its parameter."""
    if rule.kind == "full":
        lower = closed_form.unpack_cholesky(x, rule.base.shape[0])
        return lower @ lower.T
    if rule.kind == "scalar":
        return rule.base * x ** (2 * rule.power)
    return np.diag(np.diag(rule.base) * x ** (2 * rule.power))
