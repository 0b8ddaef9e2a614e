"""Closed-form maximizers of the expected complete-data log density, on sufficient statistics.

Nothing here depends on PyMC. Sources: Kuhn & Lavielle (2005), section 3, for the statistics of the
Gaussian model; generalized least squares for the mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize


def gls_mean(
    first: np.ndarray,
    design: np.ndarray,
    offset: np.ndarray,
    precision: np.ndarray,
    prior_precision: np.ndarray,
    prior_shift: np.ndarray,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Coefficients beta of phi_i ~ N(A_i beta + c_i, Omega), given E[phi_i], by generalized least squares.

    Parameters
    ----------
    first : ndarray, shape (subject, phi)
        First moments.
    design : ndarray, shape (subject or 1, phi, beta)
        A_i; a leading axis of 1 means that all subjects share it.
    offset : ndarray, shape (subject or 1, phi)
        c_i.
    precision : ndarray, shape (phi, phi)
        Inverse of Omega.
    prior_precision : ndarray, shape (beta, beta)
    prior_shift : ndarray, shape (beta,)
        Precision times mean of a Gaussian prior; zeros for a flat one.
    weight : ndarray, shape (subject,), optional
        Weight of each subject; 1 by default.

    Returns
    -------
    ndarray, shape (beta,)
    """
    equations = gls_normal_equations(
        first, design, offset, precision, prior_precision, prior_shift, weight
    )
    return np.linalg.solve(*equations)


def gls_normal_equations(
    first: np.ndarray,
    design: np.ndarray,
    offset: np.ndarray,
    precision: np.ndarray,
    prior_precision: np.ndarray | float = 0.0,
    prior_shift: np.ndarray | float = 0.0,
    weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (beta, beta) and right-hand side (beta,) of the weighted normal equations, a Gaussian prior included."""
    scaled = np.einsum("pq,sqb->spb", precision, design)
    residual = first - offset
    if design.shape[0] == 1:
        left = (
            np.einsum("spa,spb->ab", design, scaled) * total_weight(weight, first.shape[0])
            + prior_precision
        )
        return left, scaled[0].T @ _by_subject(weight, residual).sum(axis=0) + prior_shift
    scaled = _by_subject(weight, scaled)
    left = np.einsum("spa,spb->ab", design, scaled) + prior_precision
    return left, np.einsum("spb,sp->b", scaled, residual) + prior_shift


def total_weight(weight: np.ndarray | None, n_subjects: int) -> float:
    """Sum of the weights (subject,); without weights the number of subjects."""
    return n_subjects if weight is None else float(weight.sum())


def weighted(weight: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    """``weight * x``, and 0 where the weight is 0, whatever x is; x itself without weights."""
    return x if weight is None else np.where(weight > 0, weight * x, 0.0)


def _by_subject(weight: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    """x (subject, ...) times the weights (subject,)."""
    return x if weight is None else weight.reshape(-1, *[1] * (x.ndim - 1)) * x


def covariance_about(
    first: np.ndarray, second: np.ndarray, mean: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Weighted mean over subjects of E[(phi_i - mean_i)(phi_i - mean_i)'].

    Parameters
    ----------
    first : ndarray, shape (subject, phi)
        E[phi_i].
    second : ndarray, shape (phi, phi)
        Sum over subjects of E[phi_i phi_i'], by their weights.
    mean : ndarray, shape (subject, phi)
        Each subject's own mean: centring about the overall mean instead would count the spread
        of the covariates as random variability.
    weight : ndarray, shape (subject,), optional
        Weight of each subject; 1 by default.

    Returns
    -------
    ndarray, shape (phi, phi)
    """
    if weight is not None:  # square roots, so that products of two are weighted once
        first, mean = _by_subject(np.sqrt(weight), first), _by_subject(np.sqrt(weight), mean)
    cross = first.T @ mean
    return symmetric(second - cross - cross.T + mean.T @ mean) / total_weight(
        weight, first.shape[0]
    )


def symmetric(matrix: np.ndarray) -> np.ndarray:
    return 0.5 * (matrix + matrix.T)


def penalized_mean(
    left: np.ndarray, right: np.ndarray, beta: np.ndarray, log_prior: Callable
) -> np.ndarray:
    """Maximizer of ``-beta' left beta / 2 + right' beta + log prior`` for a prior that is not Gaussian.

    ``log_prior(beta)`` gives the value and the gradient.
    """

    def negative(b: np.ndarray) -> tuple[float, np.ndarray]:
        log_density, gradient = log_prior(b)
        return 0.5 * b @ left @ b - right @ b - log_density, left @ b - right - gradient

    return minimize(negative, beta, jac=True, method="BFGS").x


def unpack_cholesky(packed: np.ndarray, n: int) -> np.ndarray:
    """Lower triangular matrix from its rows, PyMC's packing order."""
    lower = np.zeros((n, n))
    lower[np.tril_indices(n)] = packed
    return lower


def pack_cholesky(covariance: np.ndarray) -> np.ndarray:
    """Rows of the lower Cholesky factor of a covariance."""
    return np.linalg.cholesky(covariance)[np.tril_indices(covariance.shape[0])]


def penalized_cholesky(
    count: float, covariance: np.ndarray, u: np.ndarray, log_prior: Callable
) -> np.ndarray:
    """Maximizer of ``-count/2 (log|LL'| + tr((LL')^-1 covariance)) + log prior`` over a Cholesky factor.

    Parameters
    ----------
    count : float
        Number of subjects, or sum of their weights.
    covariance : ndarray, shape (n, n)
        The unpenalized maximizer of LL'.
    u : ndarray, shape (n (n + 1) / 2,)
        Packed L with the logarithm of its diagonal; the start.
    log_prior : callable
        ``log_prior(u)`` gives the value and the gradient with respect to u.

    Returns
    -------
    ndarray, shape (n (n + 1) / 2,)
    """
    n = covariance.shape[0]
    rows = np.tril_indices(n)
    on_diagonal = rows[0] == rows[1]
    root = np.linalg.cholesky(covariance)

    def negative(u: np.ndarray) -> tuple[float, np.ndarray]:
        packed = np.where(on_diagonal, np.exp(u), u)
        lower = unpack_cholesky(packed, n)
        white = solve_triangular(lower, root, lower=True)
        log_density, d_prior = log_prior(u)
        value = -count * u[on_diagonal].sum() - 0.5 * count * np.sum(white**2) + log_density
        slope = count * solve_triangular(lower.T, white @ white.T, lower=False)[rows]
        slope = np.where(on_diagonal, slope * packed - count, slope)
        return -value, -(slope + d_prior)

    return minimize(negative, u, jac=True, method="BFGS").x
