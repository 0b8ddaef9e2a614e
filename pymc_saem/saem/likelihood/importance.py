"""Marginal log-likelihood by importance sampling from t distributions fitted to conditional draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from pymc_saem.compat import pareto_k
from pymc_saem.results.thresholds import LARGEST_K
from pymc_saem.saem.likelihood.joint import Joint, WeightedPoints
from pymc_saem.saem.likelihood.proposals import TMixture

N_FIRST = 500
MAX_POINTS = 20_000
#: Effective share of the points above which bounded weights have no tail that matters.
LARGE_SHARE = 0.05
#: Points from which a mixture learns its shape, how often at most, and the effective share of them
#: that is enough.
N_LEARNING, N_ROUNDS, ENOUGH = 1000, 8, 0.3


@dataclass(frozen=True)
class ImportanceSample:
    """Estimates of log p(y_i; theta), each (subject,).

    Attributes
    ----------
    loglik, error : ndarray
        The error by the delta method.
    ess : ndarray
        Effective sample size.
    pareto_k : ndarray
        Shape of the tail of the weights.
    unreliable : ndarray of bool
        Whose estimate and error are not to be trusted: Pareto k above 0.7, which does not count
        where weights are bounded and their effective number is large; there the tail is short, and
        k may be anything (1.4 where -151.12 +- 0.03 was exact to 0.01).
    """

    loglik: np.ndarray
    error: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
    unreliable: np.ndarray

    @property
    def total_error(self) -> float:
        return float(np.sqrt(np.sum(self.error**2)))


def importance_sample(
    joint: Joint,
    proposal: TMixture,
    rng: np.random.Generator,
    error: float,
    max_solves: float,
    patience: int = 4 * N_FIRST,
) -> ImportanceSample:
    """Draw until the total has this Monte-Carlo error.

    Parameters
    ----------
    joint : Joint
    proposal : TMixture
        It must not depend on these draws.
    rng : numpy.random.Generator
    error : float
        Wanted standard error of the sum over subjects.
    max_solves : float
        Ends the search for it; the first ``N_FIRST`` points are drawn anyway.
    patience : int
        Points after which weights with too heavy a tail end it.
    """
    weights, n = [], N_FIRST
    while True:
        phi, log_density = proposal.draw(rng, n)
        weights.append(joint(phi) - log_density)
        log_weights = np.concatenate(weights)
        found = _summarize(log_weights, joint.population.gaussian is None)
        n = min(len(log_weights), MAX_POINTS - len(log_weights))
        enough = found.total_error <= error and not found.unreliable.any()
        hopeless = len(log_weights) >= patience and found.unreliable.any()
        if enough or hopeless or n <= 0 or joint.n_solves + n * joint.n_subjects > max_solves:
            return found


def learned(
    joint: Joint, draws: np.ndarray, rng: np.random.Generator, max_solves: float
) -> TMixture:
    """The mixture around conditional draws (point, subject, phi), put right by the weights of points drawn from it."""
    population = joint.population
    proposal = TMixture.around(draws, population)
    for _ in range(N_ROUNDS):
        if joint.n_solves + N_LEARNING * joint.n_subjects > max_solves:
            break
        phi, log_density = proposal.draw(rng, N_LEARNING)
        log_weights = joint(phi) - log_density
        # impossible rows: nothing to learn
        log_weights = np.where(np.isfinite(log_weights.max(axis=0)), log_weights, 0.0)
        points = WeightedPoints.of_nodes(phi, log_weights)
        if np.all(np.sum(points.weight**2, axis=0) * N_LEARNING < 1.0 / ENOUGH):
            break
        proposal = TMixture.around(points.equally_weighted(N_LEARNING // 2), population)
    return proposal


def _summarize(log_weights: np.ndarray, are_bounded: bool) -> ImportanceSample:
    """Of log_weights (point, subject); ``are_bounded``: by the likelihood, up to a factor."""
    n = len(log_weights)
    loglik = logsumexp(log_weights, axis=0) - np.log(n)
    possible = np.isfinite(loglik)
    # mean 1
    relative = np.exp(np.where(possible, log_weights - np.where(possible, loglik, 0.0), 0.0))
    second = np.mean(relative**2, axis=0)
    variance = (second - 1.0).clip(0.0) / n  # of the average, relative to it
    error = np.where(possible, np.sqrt(variance), np.nan)
    k = pareto_k(np.log(np.maximum(relative, 1e-300)))
    k = np.where(possible, k, np.nan)
    heavy = ~(k <= LARGEST_K)
    if are_bounded:
        heavy &= ~(second < 1.0 / LARGE_SHARE)
    # The logarithm of an average lies below that of its expectation, by half its relative variance.
    return ImportanceSample(loglik + 0.5 * variance, error, n / second, k, heavy | ~possible)
