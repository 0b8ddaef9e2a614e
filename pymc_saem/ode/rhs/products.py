"""Matrix products for several subjects side by side: what the loops of a wide right-hand side spend their time in.

Compiled once per machine and called through a symbol, because code that Numba links would be
compiled again with each model.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.core.ccallback import CFunc

from pymc_saem.ode.runtime.native import Doubles, external, kept_cfunc, register

__all__ = ["load", "multiply"]

_memory, _n = types.CPointer(types.float64), types.int64
_SIGNATURE = _n(_memory, _n, _memory, _n, _memory, _n, *[_n] * 8)


def _multiply(
    out: Doubles,
    o: int,
    a: Doubles,
    a0: int,
    b: Doubles,
    b0: int,
    rows: int,
    inner: int,
    columns: int,
    a_row: int,
    a_inner: int,
    b_inner: int,
    b_column: int,
    lanes: int,
) -> int:
    """``out[i, k] = sum over j of a[i, j] b[j, k]``; memory, number of the first element, sizes and distances.

    Four lanes at a time in four sums, which the compiler turns into one vector.
    """
    whole = lanes // 4 * 4
    for i in range(rows):
        for k in range(columns):
            to = (o + i * columns + k) * lanes
            for lane in range(0, whole, 4):
                t0 = t1 = t2 = t3 = 0.0
                m, n = (a0 + i * a_row) * lanes + lane, (b0 + k * b_column) * lanes + lane
                for _ in range(inner):
                    t0 += a[m] * b[n]
                    t1 += a[m + 1] * b[n + 1]
                    t2 += a[m + 2] * b[n + 2]
                    t3 += a[m + 3] * b[n + 3]
                    m += a_inner * lanes
                    n += b_inner * lanes
                out[to + lane], out[to + lane + 1] = t0, t1
                out[to + lane + 2], out[to + lane + 3] = t2, t3
            for lane in range(whole, lanes):
                total = 0.0
                m, n = (a0 + i * a_row) * lanes + lane, (b0 + k * b_column) * lanes + lane
                for _ in range(inner):
                    total += a[m] * b[n]
                    m += a_inner * lanes
                    n += b_inner * lanes
                out[to + lane] = total
    return 0


multiply = external("multiply", _SIGNATURE)


@cache
def load() -> CFunc:
    """Compile the product, or read it from Numba's cache, and give its symbol the address."""
    compiled = kept_cfunc(_SIGNATURE, _multiply)
    register("multiply", compiled.address)
    return compiled  # the code lives as long as this object
