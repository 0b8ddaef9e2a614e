"""Expected Fisher information of the linearized model, in which the data of a subject are Gaussian.

For y ~ N(mu(theta), V(theta)) it is (Kay 1993, Fundamentals of Statistical Signal Processing I, eq.
3.31)

    I_jk = d_j mu' V^-1 d_k mu + 1/2 tr(V^-1 d_j V V^-1 d_k V)

summed over subjects; the points of expansion stay where they are. saemix does the same, except that
it leaves out how structural parameters without random effects move V. There is no Monte-Carlo error
and no negative direction, at a maximum or not; how near it is to the second derivative of the
likelihood itself depends on how bent the predictions are (numbers in
:mod:`pymc_saem.saem.uncertainty.fisher`).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from pymc_saem.saem.likelihood.linearize import GaussianRows, Linearized, cholesky_or_none

#: Central differences reach this many standard errors, as if the other parameters were known.
REACH = 0.01


def expected_information(
    linearized: Linearized, theta: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Information of some entries of theta.

    Parameters
    ----------
    linearized : Linearized
    theta : ndarray, shape (theta,)
    columns : ndarray of int, shape (p,)

    Returns
    -------
    information : ndarray, shape (p, p)
    left_out : ndarray of bool, shape (subject,)
        Subjects for which a prediction failed; nothing of them is in the information.
    """
    step = 1e-4 * (1.0 + np.abs(theta[columns]))
    for _ in range(2):  # the first one gives the units
        information, left_out = _information(linearized, theta, columns, step)
        diagonal = np.diag(information)
        step = np.where(diagonal > 0, REACH / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), step)
    return _information(linearized, theta, columns, step)


def _information(
    linearized: Linearized, theta: np.ndarray, columns: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    here = linearized.expand(theta)
    middle = linearized.law(theta, here)
    up, down = (
        [_at(linearized, theta, j, s * h, here) for j, h in zip(columns, step, strict=True)]
        for s in (1, -1)
    )
    information, left_out = (
        np.zeros((columns.size, columns.size)),
        np.zeros(len(linearized.rows), dtype=bool),
    )
    for i, rows in enumerate(linearized.rows):
        moves = list(zip(up, down, 2.0 * step, strict=True))
        d_mean = np.stack([(a.mean[rows] - b.mean[rows]) / h for a, b, h in moves])
        d_covariance = np.stack(
            [(a.covariance(rows) - b.covariance(rows)) / h for a, b, h in moves]
        )
        root = cholesky_or_none(middle.covariance(rows))
        if root is None or not (np.isfinite(d_mean).all() and np.isfinite(d_covariance).all()):
            left_out[i] = True
        else:
            information += _of_subject(root, d_mean, d_covariance)
    return information, left_out


def _at(
    linearized: Linearized, theta: np.ndarray, column: int, step: float, here: tuple
) -> GaussianRows:
    """The distribution with one entry of theta moved; solved again only where predictions or residual scales depend on it."""
    moved = theta.copy()
    moved[column] += step
    return linearized.law(
        moved, linearized.expand(moved) if column in linearized.of_model else here
    )


def _of_subject(root: np.ndarray, d_mean: np.ndarray, d_covariance: np.ndarray) -> np.ndarray:
    """(p, p) from the Cholesky factor (row, row) of V, and derivatives (p, row) and (p, row, row)."""
    p, n = d_mean.shape
    white = solve_triangular(root, d_mean.T, lower=True, check_finite=False)
    half = solve_triangular(
        root, np.moveaxis(d_covariance, 0, 1).reshape(n, p * n), lower=True, check_finite=False
    )
    # transposed, as V is symmetric
    half = np.moveaxis(half.reshape(n, p, n), 2, 0).reshape(n, p * n)
    both = solve_triangular(root, half, lower=True, check_finite=False).reshape(n, n, p)
    return white.T @ white + 0.5 * np.einsum("abj,abk->jk", both, both, optimize=True)
