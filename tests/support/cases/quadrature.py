"""Integrals over random effects, NumPy only: adaptive Gauss-Hermite in a few dimensions, and the trapezoid on a line.

A joint log density has shapes (..., subject, d) -> (..., subject), as in :class:`case.Case`.
"""

from itertools import product

import numpy as np
from scipy.special import logsumexp

STEP = 1e-3  # of finite differences; posteriors here are no narrower than 0.02


def log_normal_density(x, mean, sd):
    """As scipy.stats.norm.logpdf, whose checks take longer than the formula."""
    z = (x - mean) / sd
    return -0.5 * z * z - np.log(sd) - 0.5 * np.log(2 * np.pi)


def sum_rows(rows, subject):
    """Sum (..., row) by subject; rows are sorted by subject, and every subject has some."""
    return np.add.reduceat(rows, np.searchsorted(subject, np.arange(subject[-1] + 1)), axis=-1)


def derivatives(log_joint, phi):
    """Value (subject,), gradient (subject, d) and Hessian (subject, d, d) by central differences, in one call."""
    d = phi.shape[1]
    units = STEP * np.eye(d)
    pairs = [(i, j) for i in range(d) for j in range(i)]
    moves = [np.zeros(d)] + [s * u for u in units for s in (1, -1)]
    moves += [s * units[i] + t * units[j] for i, j in pairs for s, t in product((1, -1), repeat=2)]
    values = log_joint(phi + np.array(moves)[:, None, :])
    middle, up, down = values[0], values[1 : 2 * d + 1 : 2].T, values[2 : 2 * d + 1 : 2].T
    gradient = (up - down) / (2 * STEP)
    hessian = np.zeros((phi.shape[0], d, d))
    hessian[:, np.arange(d), np.arange(d)] = (up - 2 * middle[:, None] + down) / STEP**2
    for (i, j), (pp, pm, mp, mm) in zip(
        pairs, values[2 * d + 1 :].reshape(len(pairs), 4, len(phi)), strict=True
    ):
        hessian[:, i, j] = hessian[:, j, i] = (pp - pm - mp + mm) / (4 * STEP**2)
    return middle, gradient, hessian


def modes(log_joint, start, n_steps: int = 60):
    """Mode of every subject and a covariance from the curvature there: (subject, d), (subject, d, d).

    Newton with eigenvalues made positive, and the best of several step lengths.
    """
    phi = np.array(start, float)
    lengths = np.concatenate([[0.0], 2.0 ** -np.arange(10)])
    for _ in range(n_steps):
        _, gradient, hessian = derivatives(log_joint, phi)
        curvature, axes = np.linalg.eigh(-hessian)
        curvature = np.maximum(np.abs(curvature), 1e-2)
        step = np.einsum("sij,sj->si", axes, np.einsum("sji,sj->si", axes, gradient) / curvature)
        step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        trials = log_joint(phi + lengths[:, None, None] * step)
        best = lengths[np.argmax(np.where(np.isfinite(trials), trials, -np.inf), axis=0)]
        phi = phi + best[:, None] * step
        if np.abs(best[:, None] * step).max() < 1e-5:
            break
    covariance = np.einsum("sij,sj,skj->sik", axes, 1 / curvature, axes)
    return phi, covariance


def gauss_hermite(log_joint, start, n_nodes: int):
    """Log integral over phi of every subject (subject,), by n_nodes**d nodes around its mode."""
    phi, covariance = modes(log_joint, start)
    d = phi.shape[1]
    x, w = np.polynomial.hermite.hermgauss(n_nodes)
    nodes = np.array(list(product(x, repeat=d)))
    log_weights = np.array(list(product(np.log(w) + x**2, repeat=d))).sum(axis=1)
    factor = np.sqrt(2) * np.linalg.cholesky(covariance)
    at = phi + np.einsum("sij,nj->nsi", factor, nodes)
    volume = np.log(np.abs(np.diagonal(factor, axis1=1, axis2=2))).sum(axis=1)
    return volume + logsumexp(log_joint(at) + log_weights[:, None], axis=0)


def trapezoid(log_joint, center, half_width, n_nodes: int):
    """Log integral (subject,) over a line, center +- half_width (subject,); exponentially exact for smooth tails."""
    z = np.linspace(-1.0, 1.0, n_nodes)
    at = center + z[:, None] * half_width
    return logsumexp(log_joint(at[..., None]), axis=0) + np.log(half_width * (z[1] - z[0]))
