"""exp and log as plain arithmetic, which the compiler runs for several subjects at once.

A call of the C library cannot be vectorized and ends the vectorization of the loop around it. These
have no branches and no calls: within 2 units in the last place of the exact result, which the tests
verify.
"""

from __future__ import annotations

import math

import numba
from llvmlite import ir
from numba import types
from numba.core.typing.context import BaseContext as TypingContext
from numba.extending import intrinsic

from pymc_saem.ode.runtime.native import FLOATING, Intrinsic, writing

__all__ = ["exp", "exp_of_negative", "log"]

_LOG2_E = 1.4426950408889634
# the high part has 21 zero bits at its end
_LN2_HIGH, _LN2_LOW = (
    0.6931471803691238,
    1.9082149292705877e-10,
)
_ROUNDER = (
    6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer, which is then in the low bits
)
_ROUNDER_BITS = 0x4338000000000000
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_SMALLEST_NORMAL = 2.2250738585072014e-308
# Interpolates exp on [-log(2)/2, log(2)/2] in the Chebyshev points: relative error 4e-18 before
# rounding.
_E2, _E3, _E4 = 0.5000000000000019, 0.1666666666666668, 0.04166666666648812
_E5, _E6 = 0.008333333333319913, 0.0013888888952297436
_E7, _E8, _E9 = 0.00019841269888946277, 2.480148550290625e-05, 2.7557242259433993e-06
_E10, _E11 = 2.7632632406249117e-07, 2.510952234724359e-08
_L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9, _L10 = (2.0 / (2 * k + 1) for k in range(1, 11))


@intrinsic
def _bits(typingctx: TypingContext, x: types.Type) -> Intrinsic:
    """The 64 bits of a float."""
    return types.int64(types.float64), writing(
        lambda builder, x: builder.bitcast(x, ir.IntType(64))
    )


@intrinsic
def _float(typingctx: TypingContext, bits: types.Type) -> Intrinsic:
    """The float that has these 64 bits."""
    return types.float64(types.int64), writing(
        lambda builder, bits: builder.bitcast(bits, ir.DoubleType())
    )


@numba.njit(**FLOATING)
def _exp(x: float) -> float:
    """e**x between -708 and 709."""
    rounded = x * _LOG2_E + _ROUNDER
    k = rounded - _ROUNDER
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = (_E2 + _E3 * r) + (_E4 + _E5 * r) * r2
    middle = (_E6 + _E7 * r) + (_E8 + _E9 * r) * r2
    high = _E10 + _E11 * r
    # r is added to the small rest first, and 1 last: only these two roundings count.
    power = 1.0 + (r + r2 * (low + r4 * (middle + r4 * high)))
    return power * _float((_bits(rounded) + 1023) << 52)


@numba.njit(**FLOATING)
def exp(x: float) -> float:
    """e**x; 0 below -708 and inf above 709, where powers of two end."""
    result = _exp(709.0 if x > 709.0 else (-708.0 if x < -708.0 else x))
    return math.inf if x > 709.0 else (0.0 if x < -708.0 else result)


@numba.njit(**FLOATING)
def exp_of_negative(x: float) -> float:
    """e**x for x <= 0; 3e-308 below -708. For sums, in which that is as good as 0."""
    return _exp(-708.0 if x < -708.0 else x)


@numba.njit(**FLOATING)
def log(x: float) -> float:
    """Natural logarithm; -inf at zero, NaN below."""
    small = x < _SMALLEST_NORMAL
    bits = _bits(x * 2.0**54 if small else x)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    m = _float(bits - (exponent << 52))  # between sqrt(1/2) and sqrt(2)
    k = _float(exponent + _ROUNDER_BITS) - _ROUNDER - (54.0 if small else 0.0)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    z2 = z * z
    z4 = z2 * z2
    low = (_L1 + _L2 * z) + (_L3 + _L4 * z) * z2
    high = (_L5 + _L6 * z) + (_L7 + _L8 * z) * z2 + (_L9 + _L10 * z) * z4
    half_square = 0.5 * f * f
    # log(1 + f) = f - (f^2/2 - s (f^2/2 + rest)): f itself is exact, so only small terms are
    # rounded.
    rest = s * (half_square + z * (low + high * z4)) + k * _LN2_LOW
    result = k * _LN2_HIGH - ((half_square - rest) - f)
    result = result if x < math.inf else x  # also NaN
    return result if x > 0.0 else (-math.inf if x == 0.0 else x + math.nan)
