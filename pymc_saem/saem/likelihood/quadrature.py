"""Marginal log-likelihood by adaptive Gauss-Hermite quadrature (Pinheiro & Bates 1995), for a few random effects."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.special import logsumexp

from pymc_saem.saem.likelihood.joint import Joint, WeightedPoints

#: Nodes per dimension, by the number of dimensions: more until two rules agree.
RULES = {1: (9, 15, 25, 45, 81), 2: (7, 11, 17, 27), 3: (5, 7, 9, 13)}
#: Two rules agree when their totals over subjects differ by less than this.
AGREED = 0.002
#: Share of the difference before that the next one of a smooth density is below.
FAST = 0.25


def gauss_hermite(
    joint: Joint, center: np.ndarray, root: np.ndarray, n_nodes: int
) -> tuple[np.ndarray, WeightedPoints]:
    """Log integral over phi of every subject, by ``n_nodes**d`` nodes.

    Parameters
    ----------
    joint : Joint
    center : ndarray, shape (subject, phi)
        Mode of each subject.
    root : ndarray, shape (subject, phi, phi)
        Cholesky factor of each subject's covariance there.
    n_nodes : int

    Returns
    -------
    loglik : ndarray, shape (subject,)
    points : WeightedPoints
        The nodes, with their weights in p(phi | y).
    """
    d = center.shape[1]
    x, w = np.polynomial.hermite.hermgauss(n_nodes)
    nodes = np.array(list(product(x, repeat=d)))
    log_weights = np.array(list(product(np.log(w) + x**2, repeat=d))).sum(axis=1)
    # What the corners of the grid weigh at most, if the density is that of the normal distribution:
    # nothing worth a solve.
    kept = log_weights - np.sum(nodes**2, axis=1) > -30.0
    nodes, log_weights = nodes[kept], log_weights[kept]
    phi = center + np.sqrt(2.0) * np.einsum("sij,kj->ksi", root, nodes)
    terms = joint(phi) + log_weights[:, None]
    volume = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1) + 0.5 * d * np.log(2.0)
    loglik = volume + logsumexp(terms, axis=0)
    return loglik, WeightedPoints.of_nodes(phi, np.where(np.isfinite(loglik), terms, 0.0))


def integrate(
    joint: Joint, mode: np.ndarray, covariance: np.ndarray, max_solves: float = np.inf
) -> tuple[np.ndarray, np.ndarray, WeightedPoints]:
    """Log integrals by rules with more and more nodes.

    Returns
    -------
    loglik : ndarray, shape (subject,)
    error : ndarray, shape (subject,)
        Difference of the last two rules; where it is not much smaller than the difference before,
        as it is for smooth densities, twice the larger one: rules converge slowly, and may agree by
        chance.
    points : WeightedPoints
        Of the last rule.
    """
    root = np.linalg.cholesky(covariance)
    d = mode.shape[1]
    rules = RULES[d]
    loglik, points = gauss_hermite(joint, mode, root, rules[0])
    error = difference = np.full(loglik.shape, np.nan)
    for n_nodes in rules[1:]:
        if joint.n_solves + n_nodes**d * len(mode) > max_solves and np.all(np.isfinite(error)):
            break
        before, previous = loglik, difference
        loglik, points = gauss_hermite(joint, mode, root, n_nodes)
        with np.errstate(invalid="ignore"):
            difference = np.abs(loglik - before)
            is_fast = ~(difference > FAST * previous)
            error = np.where(is_fast, difference, 2.0 * np.fmax(difference, previous))
        if error.sum() <= AGREED:
            break
    return loglik, error, points
