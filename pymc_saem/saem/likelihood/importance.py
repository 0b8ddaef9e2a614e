"""Marginal log-likelihood by importance sampling from a t distribution with the conditional moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, logsumexp

from pymc_saem.compat import pareto_k
from pymc_saem.results.thresholds import LARGEST_K
from pymc_saem.saem.likelihood.joint import Joint

#: Degrees of freedom of the proposal: tails heavier than those of a Gaussian prior, whatever the likelihood.
DF = 5.0
N_FIRST = 500
MAX_POINTS = 20_000
#: Share of the correlations of the draws that is not trusted.
SHRINK = 0.05


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
        Shape of the tail of the weights; above 0.7 estimate and error are unreliable.
    """

    loglik: np.ndarray
    error: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray

    @property
    def total_error(self) -> float:
        return float(np.sqrt(np.sum(self.error**2)))

    @property
    def unreliable(self) -> np.ndarray:
        """Subjects whose weights have too heavy a tail."""
        return ~(self.pareto_k <= LARGEST_K)


def importance_sample(
    joint: Joint, mean: np.ndarray, covariance: np.ndarray, rng: np.random.Generator, error: float, max_solves: float
) -> ImportanceSample:
    """Draw until the total has this Monte-Carlo error.

    Parameters
    ----------
    joint : Joint
    mean : ndarray, shape (subject, phi)
    covariance : ndarray, shape (subject, phi, phi)
        Conditional moments.
    rng : numpy.random.Generator
    error : float
        Wanted standard error of the sum over subjects.
    max_solves : float
        Ends the search for it; the first ``N_FIRST`` points are drawn anyway.
    """
    proposal = _Proposal(mean, covariance)
    weights, n = [], N_FIRST
    while True:
        phi, log_density = proposal.draw(rng, n)
        weights.append(joint(phi) - log_density)
        log_weights = np.concatenate(weights)
        found = _summarize(log_weights)
        n = min(len(log_weights), MAX_POINTS - len(log_weights))
        enough = found.total_error <= error and not found.unreliable.any()
        hopeless = len(log_weights) >= 4 * N_FIRST and found.unreliable.any()
        if enough or hopeless or n <= 0 or joint.n_solves + n * len(mean) > max_solves:
            return found


class _Proposal:
    """Multivariate t with ``DF`` degrees of freedom, one for each subject."""

    def __init__(self, mean: np.ndarray, covariance: np.ndarray):
        self.mean = mean
        diagonal = np.einsum("sii->si", covariance)
        shrunk = (1.0 - SHRINK) * covariance
        np.einsum("sii->si", shrunk)[:] = diagonal * (1.0 + 1e-9) + 1e-300
        self.root = np.linalg.cholesky(shrunk)
        d = mean.shape[1]
        self.log_constant = gammaln(0.5 * (DF + d)) - gammaln(0.5 * DF) - 0.5 * d * np.log(DF * np.pi)
        self.log_constant = self.log_constant - np.log(np.einsum("sii->si", self.root)).sum(axis=1)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Points (point, subject, phi) and their log density (point, subject)."""
        n_subjects, d = self.mean.shape
        z = rng.standard_normal((n, n_subjects, d)) * np.sqrt(DF / rng.chisquare(DF, size=(n, n_subjects, 1)))
        log_density = self.log_constant - 0.5 * (DF + d) * np.log1p(np.sum(z**2, axis=-1) / DF)
        return self.mean + np.einsum("sij,ksj->ksi", self.root, z), log_density


def _summarize(log_weights: np.ndarray) -> ImportanceSample:
    """log_weights (point, subject)"""
    n = len(log_weights)
    loglik = logsumexp(log_weights, axis=0) - np.log(n)
    possible = np.isfinite(loglik)
    relative = np.exp(np.where(possible, log_weights - np.where(possible, loglik, 0.0), 0.0))  # mean 1
    second = np.mean(relative**2, axis=0)
    error = np.where(possible, np.sqrt((second - 1.0).clip(0.0) / n), np.nan)
    k = pareto_k(np.log(np.maximum(relative, 1e-300)))
    return ImportanceSample(loglik, error, n / second, np.where(possible, k, np.nan))
