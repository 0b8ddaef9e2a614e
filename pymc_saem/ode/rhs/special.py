"""Derivatives of the gamma function for compiled right-hand sides, within 1e-13 of SciPy's.

The derivative of each is the next one, so the operations of right-hand sides are closed under
differentiation.
"""

from __future__ import annotations

import math

import numba

from pymc_saem.ode.runtime.native import FLOATING

__all__ = ["digamma", "polygamma"]

# Bernoulli numbers B2, B4, ..., B16.
_B = (
    1.0 / 6.0,
    -1.0 / 30.0,
    1.0 / 42.0,
    -1.0 / 30.0,
    5.0 / 66.0,
    -691.0 / 2730.0,
    7.0 / 6.0,
    -3617.0 / 510.0,
)
_LOWEST = -1e5  # below, the sum from pole to pole would take too long


@numba.njit(**FLOATING)
def digamma(x: float) -> float:
    """Derivative of log Gamma; NaN at its poles."""
    total = 0.0
    if x <= 0.0:
        share = x - math.floor(x)
        if share == 0.0:
            return math.nan
        total, x = -math.pi / math.tan(math.pi * share), 1.0 - x
    while x < 10.0:
        total -= 1.0 / x
        x += 1.0
    square = 1.0 / (x * x)
    power = square
    for k in range(len(_B)):
        total -= _B[k] * power / (2 * k + 2)
        power *= square
    return total + math.log(x) - 0.5 / x


@numba.njit(**FLOATING)
def polygamma(order: float, x: float) -> float:
    """Derivative of order ``order`` of digamma; NaN at its poles."""
    n = int(order)
    if n == 0:
        return digamma(x)
    if x < _LOWEST or (x <= 0.0 and x == math.floor(x)):
        return math.nan
    factorial = 1.0  # of n - 1
    for k in range(2, n):
        factorial *= k
    total = 0.0
    while x < 12.0 + n:
        total += n * factorial / x ** (n + 1)
        x += 1.0
    total += factorial / x**n + 0.5 * n * factorial / x ** (n + 1)
    term = factorial / x**n
    for k in range(len(_B)):
        m = 2 * k + 2
        term *= (m + n - 2) * (m + n - 1) / ((m - 1.0) * m) / (x * x)
        total += _B[k] * term
    return total if n % 2 else -total
