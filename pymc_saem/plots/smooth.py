"""A smooth trend through points."""

from __future__ import annotations

import numpy as np

from pymc_saem.diagnose.windows import tricube

#: With fewer different x, lines through the nearest points of a gap lead far away from all data.
FEWEST = 8


def trend(
    x: np.ndarray, y: np.ndarray, span: float = 0.75, n_grid: int = 80
) -> tuple[np.ndarray, np.ndarray]:
    """Local linear regression with tricube weights (LOESS; Cleveland 1979, without robustness steps).

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Points that are not finite do not count.
    span : float
        Share of the points behind each value of the trend.
    n_grid : int

    Returns
    -------
    x, y : ndarray, shape (grid,)
        From the first to the last point; empty where fewer than eight different x make no trend.
    """
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x, dtype=float)[keep], np.asarray(y, dtype=float)[keep]
    if np.unique(x).size < FEWEST:
        return np.empty(0), np.empty(0)
    even = np.linspace(0, 1, n_grid // 2)
    grid = np.unique(np.concatenate([np.quantile(x, even), x.min() + np.ptp(x) * even]))
    weights, _ = tricube(x, grid, span)
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    centred = x - mean_x[:, None]
    slope = (weights * centred * (y - mean_y[:, None])).sum(axis=1) / (weights * centred**2).sum(
        axis=1
    )
    return grid, mean_y + slope * (grid - mean_x)
