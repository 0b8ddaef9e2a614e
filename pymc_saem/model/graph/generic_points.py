"""Random points in no special position, which show what a function depends on.

At a model's start coefficients are 0 and groups are equal, which hides dependence. At a point
without zeros and without symmetry it shows; several points reveal what is decided by cases, such as
a switch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

#: Lengths of the steps from the start, tried one after the other until the function is finite.
SPREADS = (1.0, 0.5, 0.2, 0.05, 0.01)
#: Shorter ones, for functions that solve differential equations: far away these may be stiff, and
#: slow.
NEAR = SPREADS[2:]


def quietly(f: Callable) -> Callable:
    """A function without NumPy's warnings: at trial points it may overflow, which the caller detects in the result."""

    def quiet(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return f(*arguments)

    return quiet


def generic_points(
    start: np.ndarray,
    is_fine: Callable[[np.ndarray], bool],
    rng: np.random.Generator,
    n_points: int = 3,
    spreads: tuple[float, ...] = SPREADS,
) -> list[np.ndarray]:
    """Points around a start, each entry moved away from it by its own amount.

    Parameters
    ----------
    start : ndarray, shape (entry,)
        On an unconstrained scale.
    is_fine : callable
        Whether a point may be taken: whether the function is finite there.
    rng : numpy.random.Generator
    n_points : int
    spreads : tuple of float
        Lengths of the steps, in the order in which they are tried.

    Returns
    -------
    list of ndarray
        Where no moved point is fine, the start itself stands in for it.
    """
    points = []
    for _ in range(n_points):
        for spread in spreads:
            step = (
                spread * rng.uniform(0.3, 1.0, start.shape) * rng.choice([-1.0, 1.0], start.shape)
            )
            if is_fine(start + step):
                points.append(start + step)
                break
        else:
            points.append(start.copy())
    return points
