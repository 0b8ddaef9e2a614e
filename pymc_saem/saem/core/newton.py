"""M-step for parameters without a closed form: Newton steps on the expected complete-data log density.

One step per iteration, x <- x + gamma_k H^-1 g, where g is the gradient of log p(y, phi; x) + log
p(x), averaged over the draws of phi, whose expectation is the gradient of the marginal log density
(Fisher's identity), and H the negative second derivative of the same: the gradient EM algorithm of
Lange (1995, section 3) with the step sizes of stochastic approximation. Near the optimum it moves
as the M-step itself would, so a parameter converges at the same rate with and without a closed
form.

The outer products of scores, of which Fisher-SGD (Baey, Delattre & Kuhn 2023) makes H, cost no
second gradient. Far from the optimum they are too large by the square of what the score is too
large, and the steps vanish; so they are not used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Up to as many parameters, all columns of the second derivative are differenced; beyond, one
#: direction an iteration.
MAX_DENSE = 12
#: First iterations with a new differencing in each: far from the optimum an old one would be off by
#: an order of magnitude.
N_FRESH = 20
#: Iterations between two differencings after that; the matrix only shapes the steps, and is not
#: where they end.
REFRESH_EVERY = 5
#: Weight of a new differencing then: the mean of about four iterations' draws.
WEIGHT = 0.3
#: Smallest curvature of a direction, relative to that of its parameters: a flat direction may not
#: be run along.
FLATTEST = 1e-3


@dataclass(frozen=True)
class Curvature:
    """Negative second derivative of the expected log density, as far as it is known.

    Attributes
    ----------
    matrix : ndarray, shape (x, x)
    age : int
        Iterations since the first step.
    last : ndarray, shape (x,)
        The last step, along which a large system is differenced.
    """

    matrix: np.ndarray
    age: int
    last: np.ndarray

    def newton(self, gradient: np.ndarray) -> np.ndarray:
        """H^-1 g with H made positive definite, in units in which its diagonal is 1."""
        unit = np.sqrt(np.maximum(np.abs(np.diag(self.matrix)), 1e-12))
        values, vectors = np.linalg.eigh(self.matrix / np.outer(unit, unit))
        values = np.maximum(np.abs(values), FLATTEST)
        return vectors @ ((vectors.T @ (gradient / unit)) / values) / unit


def climb(
    objective: Callable, x: np.ndarray, curvature: Curvature | None, step_size: float
) -> tuple[np.ndarray, Curvature | None]:
    """One step uphill.

    Parameters
    ----------
    objective : callable
        ``objective(x)`` gives the log density for the current draws, and its gradient (x,).
    x : ndarray, shape (x,)
    curvature : Curvature, optional
        What the last step left; None at the first one.
    step_size : float
        gamma_k.

    Returns
    -------
    x : ndarray, shape (x,)
        Unchanged where the log density is not finite.
    curvature : Curvature
    """
    value, gradient = objective(x)
    if not _is_finite(value, gradient):
        return x, curvature
    curvature = _learn(objective, x, gradient, curvature)
    if curvature is None:
        return x, None
    step = step_size * curvature.newton(gradient)
    for _ in range(20):
        trial, slope = objective(x + step)
        # Uphill for these draws: a step that Newton's method takes too far is no mean of anything.
        if _is_finite(trial, slope) and trial >= value - 1e-9 * abs(value):
            return x + step, Curvature(curvature.matrix, curvature.age + 1, step)
        step = 0.5 * step
    return x, curvature


def _is_finite(value: float, gradient: np.ndarray) -> bool:
    return bool(np.isfinite(value) and np.all(np.isfinite(gradient)))


def _learn(
    objective: Callable, x: np.ndarray, gradient: np.ndarray, curvature: Curvature | None
) -> Curvature | None:
    if x.size > MAX_DENSE:
        return _learn_direction(objective, x, gradient, curvature)
    if curvature is not None and curvature.age >= N_FRESH and curvature.age % REFRESH_EVERY:
        return curvature
    new = np.empty((x.size, x.size))
    for k in range(x.size):
        known = 0.0 if curvature is None else curvature.matrix[k, k]
        length = 1e-3 / np.sqrt(known) if known > 0 else 1e-4 * (1.0 + abs(x[k]))
        moved = x.copy()
        moved[k] += length
        value, there = objective(moved)
        if not _is_finite(value, there):
            return curvature
        new[k] = (gradient - there) / length
    new = 0.5 * (new + new.T)
    if curvature is None:
        return Curvature(new, 0, np.zeros_like(x))
    weight = 1.0 if curvature.age < N_FRESH else WEIGHT
    return Curvature(
        curvature.matrix + weight * (new - curvature.matrix), curvature.age, curvature.last
    )


def _learn_direction(
    objective: Callable, x: np.ndarray, gradient: np.ndarray, curvature: Curvature | None
) -> Curvature | None:
    """Update along one direction, the last step or at first the gradient (BFGS; Byrd et al. 2016, section 2.1).

    Both gradients belong to the same draws, so their difference has none of the noise of two
    iterations.
    """
    along = gradient if curvature is None else curvature.last
    if not np.any(along):
        return curvature
    s = along * (1e-3 * (1.0 + np.linalg.norm(x)) / np.linalg.norm(along))
    value, there = objective(x + s)
    if not _is_finite(value, there):
        return curvature
    y = gradient - there
    if curvature is None:
        scale = max(abs(s @ y) / (s @ s), np.linalg.norm(gradient) / (1.0 + np.linalg.norm(x)))
        return Curvature(scale * np.eye(x.size), 0, s)
    hs = curvature.matrix @ s
    if s @ y <= 1e-8 * np.linalg.norm(s) * np.linalg.norm(y):  # curved upwards: keep what is known
        return curvature
    matrix = curvature.matrix - np.outer(hs, hs) / (s @ hs) + np.outer(y, y) / (s @ y)
    return Curvature(matrix, curvature.age, curvature.last)
