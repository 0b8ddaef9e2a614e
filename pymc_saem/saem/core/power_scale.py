"""Normal deviations whose standard deviation is a power of one positive parameter: log density, its maximum, its curvature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: The log density of a prior (k,) at x (k,), its first and its second derivative.
LogPrior = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class PowerScale:
    """Deviations d ~ N(0, (x^power c)^2) with a parameter x > 0 and known numbers c.

    Up to a constant, the log density of ``count`` of them is ``-count power log(x) - squares (unit
    / x)^(2 power) / 2``, where ``squares`` is the sum of the squared deviations, each divided by
    its variance at x = ``unit``. All methods work elementwise: x, count and squares may be arrays
    of the same shape.
    """

    power: float
    unit: float = 1.0

    def log_density(
        self, count: np.ndarray | float, squares: np.ndarray | float, x: float
    ) -> np.ndarray:
        """Log density at x, without its constant."""
        return -count * self.power * np.log(x) - 0.5 * squares * (self.unit / x) ** (
            2.0 * self.power
        )

    def maximum(self, count: np.ndarray | float, squares: np.ndarray) -> np.ndarray:
        """x at the maximum of the log density."""
        return scale_power(count, squares * self.unit ** (2 * self.power), self.power)

    def penalized_maximum(
        self, count: np.ndarray | float, squares: np.ndarray, start: np.ndarray, log_prior: LogPrior
    ) -> np.ndarray:
        """x at the maximum of the log density plus that of a prior, found from ``start``."""
        return penalized_scale(
            count, squares * self.unit ** (2 * self.power), self.power, start, log_prior
        )

    def precision(self, count: np.ndarray | float) -> np.ndarray:
        """Root of the negative second derivative of the log density in log(x), at its maximum."""
        return abs(self.power) * np.sqrt(2.0 * count)

    def variance(self, x: np.ndarray) -> np.ndarray:
        """Variance at x, in units of that at x = 1."""
        return x ** (2 * self.power)

    def of_variance(self, variance: np.ndarray) -> np.ndarray:
        """x with this variance, the inverse of :meth:`variance`."""
        return variance ** (0.5 / self.power)


def scale_power(count: np.ndarray | float, sum_of_squares: np.ndarray, power: float) -> np.ndarray:
    """Maximizer x of ``-count log(x^power) - sum_of_squares / (2 x^(2 power))``, elementwise."""
    return (np.asarray(sum_of_squares) / count) ** (0.5 / power)


def penalized_scale(
    count: np.ndarray | float,
    sum_of_squares: np.ndarray,
    power: float,
    x: np.ndarray,
    log_prior: LogPrior,
) -> np.ndarray:
    """Maximizer x > 0 of the same plus a log prior density, by Newton steps in log x, elementwise.

    Parameters
    ----------
    count, sum_of_squares : ndarray, shape (k,)
    power : float
        The standard deviation is proportional to x^power.
    x : ndarray, shape (k,)
        Start, where the prior is finite.
    log_prior : callable
        ``log_prior(x)`` gives the log density (k,), its first and its second derivative.

    Returns
    -------
    ndarray, shape (k,)
    """

    def value(t: np.ndarray, log_density: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return -count * power * t - 0.5 * sum_of_squares * np.exp(-2 * power * t) + log_density

    t = np.log(x)
    log_density, d1, d2 = log_prior(x)
    current = value(t, log_density)
    for _ in range(50):
        x = np.exp(t)
        pull = sum_of_squares * np.exp(-2 * power * t)
        slope = -count * power + power * pull + x * d1
        curvature = -2 * power**2 * pull + x * d1 + x**2 * d2
        step = np.where(
            curvature < 0, -slope / np.where(curvature < 0, curvature, -1.0), 0.5 * np.sign(slope)
        )
        step = np.clip(step, -1.0, 1.0)
        # halve until no entry gets worse; outside the prior's support it is -inf
        for _ in range(40):
            log_density, d1, d2 = log_prior(np.exp(t + step))
            new = value(t + step, log_density)
            worse = ~(new >= current - 1e-12 * np.abs(current))
            if not worse.any():
                break
            step = np.where(worse, 0.5 * step, step)
        else:
            step = np.where(worse, 0.0, step)
            log_density, d1, d2 = log_prior(np.exp(t + step))
            new = value(t + step, log_density)
        t, current = t + step, new
        if np.all(np.abs(step) < 1e-5):  # Newton: the error is of the order of its square
            break
    return np.exp(t)
