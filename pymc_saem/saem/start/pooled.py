"""The start: population parameters from the best of several fits with every subject at its mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from pymc_saem.model.density.densities import Densities
from pymc_saem.model.mixed_model import MixedModel, UnsupportedModelError
from pymc_saem.saem.core.closed_form import weighted
from pymc_saem.saem.mstep.score_step import Climber

#: Fits from different starting points; on network models about one in four ends in a good optimum.
N_STARTS = 12
#: The fits only choose a region; SAEM does the rest.
MAX_ITERATIONS = 100
#: A later fit replaces an earlier one only if its log-likelihood is larger by this much. Absorption
#: and elimination can swap places, and the user's initial values show which is meant: theophylline
#: with weight on CL and V fits 3.5 better when swapped (volume 0.08 L), a difference that random
#: effects make up for.
CLEARLY_BETTER = 10.0
#: A slope smaller than this share of the largest one is a rounding error.
ROUNDING = 1e-10


def default_starts(mixed: MixedModel) -> int:
    """Twelve fits, or none where random effects are weights of networks, or more than the observed values of a typical subject.

    Such random effects are regularized by their distribution alone, which a fit with phi at its
    mean ignores: it drives network weights to extremes that the run does not leave. Neural
    theophylline model, 28 weights and 11 rows a subject, 150 + 150 iterations: with Omega = I,
    seeds 1 to 3, sigma is 0.57, 0.57, 0.55 from the model's initial values and 0.75, 0.64, 0.62
    from the best of 12 fits; with one variance per network, seed 1, 0.66 and 0.83. Slow annealing
    of the residual variance finds a good region from there; eight short runs, the best of which
    went on, did no better (``schedule.RESIDUAL_FALL``, benchmarks/accuracy/README.md). Few weights
    are no exception: ten data sets simulated from a network of 7 weights with 9 rows a subject gain
    1.2 of log-likelihood over the truth from twelve fits, two of them losing 4, and 3.1 from the
    initial values (benchmarks/accuracy/simulation.py).
    """
    return 0 if is_flexible(mixed) else N_STARTS


def default_exploration(mixed: MixedModel) -> int:
    """Exploratory iterations: 600 where no fit finds the region, else 200.

    Both are measured in benchmarks/accuracy/README.md: the neural theophylline model ends in better
    optima with 600 than with 300, while models with a few random effects reach their exact maximum
    from 150.
    """
    return 600 if is_flexible(mixed) else 200


def is_flexible(mixed: MixedModel) -> bool:
    """Whether random effects are weights of networks, or more than the rows of a typical subject."""
    if any(effect.is_network for effect in mixed.random_effects):
        return True
    return mixed.n_phi > np.median(mixed.values_of_subjects)


@dataclass(frozen=True)
class Start:
    """Where a run begins."""

    theta: np.ndarray  # (theta,)
    scores: np.ndarray  # (start,): log likelihood of each pooled fit, -inf if it failed


class PooledObjective:
    """Minus the log likelihood with phi at its mean, as a function of all but the distributions of the random effects.

    Priors of parameters without a closed form count: they may be weights of a network that only its
    prior keeps small. But what this likelihood does not hold stays: the scale of ``scale * z`` is
    nowhere at z = 0, and its prior alone would take it to 0.
    """

    def __init__(self, densities: Densities, climber: Climber, theta: np.ndarray):
        self.densities, self.climber, self.maximizer, self.theta = (
            densities,
            climber,
            climber.maximizer,
            theta,
        )
        rules, maximizer = self.maximizer.rules, self.maximizer
        free = [*rules.mean.parameters, *(r.parameter for r in rules.residuals)]
        free += [r.parameter for r in climber.rules if r.outcomes]
        parts = [np.arange(p.columns.start, p.columns.stop) for p in free]
        columns = np.concatenate(parts or [np.zeros(0, int)])
        self.free = self.columns = columns[~maximizer.held[columns]]
        self.worst: float | None = None
        self.columns = self.columns[self._is_held_by_likelihood()]

    def _is_held_by_likelihood(self) -> np.ndarray:
        """Which of the columns change the likelihood at some of three random points; all where it is finite at none of them."""
        rng, slopes = np.random.default_rng(0), []  # probes a fixed function: any points do
        for spread in (0.1, 0.3, 0.5):
            x = self.theta[self.columns]
            theta = self.full(x + spread * (0.5 + 0.3 * np.abs(x)) * rng.standard_normal(x.size))
            value, gradient = self._likelihood(theta)
            if np.isfinite(value) and np.all(np.isfinite(gradient)):
                slopes.append(np.abs(gradient[self.columns]))
        if not slopes:
            return np.ones(self.columns.size, dtype=bool)
        largest = np.max(slopes, axis=0)
        return largest > ROUNDING * largest.max(initial=0.0)

    def full(self, x: np.ndarray) -> np.ndarray:
        theta = self.theta.copy()
        theta[self.columns] = x
        return theta

    def _likelihood(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Log likelihood with phi at its mean, and its gradient (theta,)."""
        rule = self.maximizer.rules.mean.at(theta)
        n = self.maximizer.mixed.n_subjects
        mean = np.array(self.maximizer.population(theta).mean[None])
        loglik, d_phi, d_theta = self.densities.gradient(mean, theta, self.maximizer.weight)
        gradient = np.array(d_theta, dtype=float)
        design = np.broadcast_to(rule.design, (n, *rule.design.shape[1:]))
        np.add.at(gradient, rule.columns, np.einsum("sp,spb->b", d_phi[0], design))
        return float(weighted(self.maximizer.weight, loglik).sum()), gradient

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        theta = self.full(x)
        value, gradient = self._likelihood(theta)
        prior, slope = self.climber.log_prior(theta)
        value, gradient = value + prior, (gradient + slope)[self.columns]
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            # a wall just above the worst value seen: the line search turns back without an overflow
            return (self.worst if self.worst is not None else 1e10) + 1e3, np.zeros_like(x)
        self.worst = max(-value, self.worst if self.worst is not None else -np.inf)
        return -value, -gradient


def find_start(
    densities: Densities,
    climber: Climber,
    theta: np.ndarray,
    rng: np.random.Generator,
    n_starts: int,
) -> Start:
    """Fit the population parameters with phi held at its mean, from several points, by L-BFGS.

    Parameters
    ----------
    densities : Densities
    climber : Climber
    theta : ndarray, shape (theta,)
        The model's own initial values; the first fit starts here, the others around it.
    rng : numpy.random.Generator
    n_starts : int

    Returns
    -------
    Start
        The best fit.

    Raises
    ------
    UnsupportedModelError
        When no start has a finite likelihood.
    """
    best, values = None, np.full(n_starts, -np.inf)
    objective = PooledObjective(densities, climber, theta)
    for k in range(n_starts):
        x0, objective.worst = theta[objective.columns], None
        if k:
            x0 = x0 + (0.5 + 0.3 * np.abs(x0)) * rng.standard_normal(x0.size)
        if not objective.columns.size:
            return Start(theta, values)
        first = objective(x0)[0]
        if objective.worst is None:
            continue
        fit = minimize(
            objective, x0, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS}
        )
        values[k] = -min(fit.fun, first)
        if best is None or values[k] > best[0] + CLEARLY_BETTER:
            best = values[k], objective.full(fit.x if fit.fun <= first else x0)
    if best is None:
        raise UnsupportedModelError(
            f"The likelihood is not finite at any of {n_starts} starting points with every random effect at its mean. "
            "Give starting values with initval=... or fit_saem(initvals={...})."
        )
    return Start(best[1], values)
