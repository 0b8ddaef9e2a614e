"""Moving windows over a sorted axis, for curves that need no bins."""

from __future__ import annotations

import numpy as np


def tricube(x: np.ndarray, at: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights of points around places, (place, point), and the reach of each window, (place,) (Cleveland 1979).

    Parameters
    ----------
    x : ndarray, shape (point,)
    at : ndarray, shape (place,)
    span : float
        Share of the points in each window; at least four, and three different x, where many points
        share one.
    """
    distance = np.abs(at[:, None] - x)
    reach = np.sort(distance, axis=1)[:, min(x.size, max(4, round(span * x.size))) - 1]
    different = np.unique(x)
    if different.size > 3:
        reach = np.maximum(reach, np.sort(np.abs(at[:, None] - different), axis=1)[:, 3])
    reach = np.where(reach > 0, reach, 1.0)  # all points in one place
    return np.clip(1 - (distance / reach[:, None]) ** 3, 0, None) ** 3, reach


def weighted_quantile(values: np.ndarray, weights: np.ndarray, p: float) -> np.ndarray:
    """Quantile of each line of values, (n, point), that are finite; NaN for a line that has none, and where no weight is positive.

    Between the middles of the steps of the weighted distribution function it is interpolated.
    """
    weights = np.where(np.isfinite(values), weights, 0.0)
    order = np.argsort(np.where(weights > 0, values, np.inf), axis=1)
    values, weights = np.take_along_axis(values, order, 1), np.take_along_axis(weights, order, 1)
    sums = np.cumsum(weights, axis=1)
    out = np.full(len(values), np.nan)
    for k in np.flatnonzero(sums[:, -1] > 0):
        keep = weights[k] > 0
        out[k] = np.interp(
            p, (sums[k, keep] - 0.5 * weights[k, keep]) / sums[k, -1], values[k, keep]
        )
    return out
