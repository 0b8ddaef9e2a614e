"""Ranks and decorrelated residuals of rows among simulated ones. NumPy only."""

from __future__ import annotations

import numpy as np


def ranks(observed: np.ndarray, simulated: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Randomized ranks of rows among simulated ones, as probabilities strictly between 0 and 1, shape (row,).

    (r + u (1 + e)) / (K + 1), where r of K simulated values lie below the observed one, e are equal
    to it, and u is uniform on (0, 1). When observed and simulated values have the same distribution
    this is uniform exactly, whatever K, for discrete and censored values as well, as the observed
    one is equally likely to have each place among all K + 1.

    Parameters
    ----------
    observed : ndarray, shape (row,)
    simulated : ndarray, shape (K, row)
        NaN where a simulation failed; these do not count.
    rng : numpy.random.Generator
    """
    counts = np.isfinite(simulated).sum(axis=0)
    lower = (simulated < observed).sum(axis=0)
    equal = (simulated == observed).sum(axis=0)
    u = rng.uniform(np.finfo(float).tiny, 1.0, observed.shape)
    return np.where(
        np.isfinite(observed) & (counts > 0), (lower + u * (1 + equal)) / (counts + 1), np.nan
    )


def complete(
    observed: np.ndarray,
    simulated: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Values in the place of censored ones, drawn from the marginal distribution of their row beyond its bound.

    Observed and simulated rows are treated alike, so that they have the same joint distribution if
    the model is true (method "cdf" of Nguyen et al. 2012).

    Parameters
    ----------
    observed : ndarray, shape (row,)
        Censored rows have their bound.
    simulated : ndarray, shape (K, row)
        Before censoring.
    lower, upper : ndarray, shape (row,)
    rng : numpy.random.Generator

    Returns
    -------
    observed : ndarray, shape (row,)
    simulated : ndarray, shape (K, row)
    """
    observed, simulated = observed.copy(), simulated.copy()
    for row in np.flatnonzero(np.isfinite(lower) | np.isfinite(upper)):
        values = simulated[:, row]
        for beyond, is_cut in (
            (values <= lower[row], observed[row] <= lower[row]),
            (values >= upper[row], observed[row] >= upper[row]),
        ):
            found = np.append(values[beyond], [])
            if is_cut and found.size:
                observed[row] = rng.choice(found)
            simulated[beyond, row] = rng.permutation(found)
    return observed, simulated


def decorrelate(observed: np.ndarray, simulated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residuals of one subject, with the mean and covariance of the simulated rows: L^-1 (y - m), V = L L'.

    Parameters
    ----------
    observed : ndarray, shape (row,)
    simulated : ndarray, shape (K, row)

    Returns
    -------
    observed : ndarray, shape (row,)
    simulated : ndarray, shape (K, row)
        NaN in rows that do not vary, and in all rows when the covariance is singular.
    """
    finite = np.isfinite(simulated).all(axis=1)
    use = simulated[finite]
    out = np.full(observed.shape, np.nan), np.full(simulated.shape, np.nan)
    if len(use) < 2:
        return out
    mean, sd = use.mean(axis=0), use.std(axis=0, ddof=1)
    free = np.flatnonzero(sd > 1e-12 * (1e-300 + np.abs(mean)))
    if free.size == 0 or len(use) <= free.size:
        return out
    scaled = (use[:, free] - mean[free]) / sd[free]
    try:
        root = np.linalg.cholesky(scaled.T @ scaled / (len(use) - 1))
    except np.linalg.LinAlgError:
        return out
    both = np.vstack([(observed[free] - mean[free]) / sd[free], scaled])
    # Row by row: LAPACK's own wakes threads, which on a busy machine takes a hundred times as long.
    for row in range(free.size):
        both[:, row] = (both[:, row] - both[:, :row] @ root[row, :row]) / root[row, row]
    out[0][free], out[1][np.ix_(finite, free)] = both[0], both[1:]
    return out


def decorrelated_by_subject(
    observed: np.ndarray, simulated: np.ndarray, subject: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`decorrelate` for the rows of each subject, ``subject`` (row,), in the order of the rows."""
    residual, others = np.full(observed.shape, np.nan), np.full(simulated.shape, np.nan)
    order = np.argsort(subject, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(subject[order])) + 1):
        residual[own], others[:, own] = decorrelate(observed[own], simulated[:, own])
    return residual, others
