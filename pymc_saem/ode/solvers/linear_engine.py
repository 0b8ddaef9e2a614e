"""The matrix exponential of a linear system and its derivatives, for eight subjects side by side.

``y' = A y + b`` is ``z' = M z`` with ``z = (y, 1)``, and M = (A, b) above a row of zeros, which is
never stored: matrices are n by n + 1. exp(h M) comes from scaling and squaring: the Taylor
polynomial of degree 16 at h / 2^s, by the scheme of Paterson and Stockmeyer (SIAM J. Comput. 2,
1973) with blocks of four powers, then s squarings. Every product AB is followed by its derivative
dA B + A dB for each parameter, which gives the Frechet derivatives of exp(h M) exactly (Al-Mohy and
Higham, SIAM J. Matrix Anal. Appl. 30, 1639, 2009). b and the derivatives of M enter linearly, so
the norm of A alone chooses s (Al-Mohy and Higham, SIAM J. Sci. Comput. 33, 488, 2011, scale b down,
to the same effect).

Taylor and not Pade, because there is nothing to solve: all is sums of products, which eight lanes
share in one vector instruction. No eigen-decomposition, because there is none of a chain with equal
rates, and digits are lost near one.

A matrix element of lane l is at ``element * LANES + l``. A block is a matrix followed by its
derivatives.
"""

from __future__ import annotations

from collections import namedtuple

from llvmlite import ir
from numba import types
from numba.core.typing.context import BaseContext as TypingContext
from numba.extending import intrinsic

from pymc_saem.ode.runtime.native import Intrinsic, call_lanes, doubles, inlined, innermost, writing

__all__ = [
    "LANES",
    "LARGEST",
    "Linear",
    "Work",
    "exponential",
    "measure",
    "move",
    "split",
    "work_size",
]

LANES = 8
_VECTOR = 8 * LANES  # bytes
# Largest norm at which the backward error of the polynomial's Frechet derivative is below 2^-53:
# the largest x for which sum k |c_k| x^(k-1) is, with log(exp(-x) T_16(x)) = sum c_k x^k (Al-Mohy
# and Higham 2009 do the same with Pade's approximants). For the polynomial itself, without the
# factor k, it is 0.78.
LARGEST = 0.6569684347661535
_BLOCK, _BLOCKS = 4, 4
# Far from zero, so that of f(s e_k) = s A e_k + b the second term costs no digits of the first, nor
# the reverse.
_FAR = 2.0**40

# Addresses of the right-hand side and its Jacobian (0: no derivatives), number of states and
# parameters, of entries of y0, and of parameters and of all with derivatives (0 without).
Linear = namedtuple("Linear", "rhs jac n n_p n_dy0 n_dp n_sens")
# Addresses. Per lane: time, norm of A, gap, the gap after division, squarings, mask. Then
# parameters, states and derivatives for ``measure``, Jacobians, the diagonal of exp - 1, sums; (y,
# 1) and S, the new ones; powers of M; two blocks; coefficients of the polynomial.
Work = namedtuple(
    "Work", "t norm gap tau s mask p y dy jy jp d sums z new powers exp other coefficients"
)


@inlined
def _sizes(linear: Linear) -> tuple[int, int]:
    """Lengths, in vectors, of z, and of a block."""
    return linear.n + 1 + linear.n * linear.n_sens, (1 + linear.n_dp) * linear.n * (linear.n + 1)


@inlined
def work_size(linear: Linear) -> int:
    """Number of floats that ``split`` wants."""
    n_z, block = _sizes(linear)
    n, jacobians = linear.n, linear.n * (linear.n + linear.n_dp)
    return LANES * (
        6 + linear.n_p + 4 * n + jacobians + 2 * n_z + (_BLOCK + 2) * block + _BLOCK * _BLOCKS
    )


@inlined
def split(linear: Linear, a: int) -> Work:
    """Parts of the memory at address ``a``."""
    n_z, block = _sizes(linear)
    v, n = _VECTOR, linear.n
    y = a + (6 + linear.n_p) * v
    jy = y + 2 * n * v
    d = jy + n * (n + linear.n_dp) * v
    z = d + 2 * n * v
    powers = z + 2 * n_z * v
    e = powers + _BLOCK * block * v
    return Work(
        a, a + v, a + 2 * v, a + 3 * v, a + 4 * v, a + 5 * v, a + 6 * v, y, y + n * v, jy, jy + n * n * v,
        d, d + n * v, z, z + n_z * v, powers, e, e + block * v, e + 2 * block * v,
    )  # fmt: skip


_VECTOR_TYPE = ir.VectorType(ir.DoubleType(), LANES)
_ZEROS = ir.Constant(_VECTOR_TYPE, [0.0] * LANES)
_CONTRACT = ("contract",)


def _place(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, _VECTOR_TYPE.as_pointer())


def _load(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.load(_place(builder, address), align=8)


@intrinsic
def _dot(
    typingctx: TypingContext,
    target: types.Type,
    keep: types.Type,
    a: types.Type,
    a_step: types.Type,
    b: types.Type,
    b_step: types.Type,
    count: types.Type,
) -> Intrinsic:
    """Vector at ``target`` = sum of ``count`` products of vectors, and what is there if ``keep``; addresses, steps in bytes.

    Written for LLVM, as Numba would not keep the sum of eight lanes in registers.
    """

    def write(
        builder: ir.IRBuilder,
        target: ir.Value,
        keep: ir.Value,
        a: ir.Value,
        a_step: ir.Value,
        b: ir.Value,
        b_step: ir.Value,
        count: ir.Value,
    ) -> ir.Value:
        zero, one = (ir.Constant(ir.IntType(64), k) for k in (0, 1))
        first = builder.select(
            builder.icmp_signed("!=", keep, zero), _load(builder, target), _ZEROS
        )
        before = builder.block
        loop, after = builder.append_basic_block("dot"), builder.append_basic_block("dotted")
        builder.cbranch(builder.icmp_signed(">", count, zero), loop, after)
        builder.position_at_end(loop)
        total, k = builder.phi(_VECTOR_TYPE), builder.phi(ir.IntType(64))
        left = _load(builder, builder.add(a, builder.mul(k, a_step)))
        right = _load(builder, builder.add(b, builder.mul(k, b_step)))
        new_total = builder.fadd(total, builder.fmul(left, right, flags=_CONTRACT), flags=_CONTRACT)
        new_k = builder.add(k, one)
        total.add_incoming(first, before)
        total.add_incoming(new_total, loop)
        k.add_incoming(zero, before)
        k.add_incoming(new_k, loop)
        builder.cbranch(builder.icmp_signed("<", new_k, count), loop, after)
        builder.position_at_end(after)
        result = builder.phi(_VECTOR_TYPE)
        result.add_incoming(first, before)
        result.add_incoming(new_total, loop)
        builder.store(result, _place(builder, target), align=8)
        return zero

    return types.int64(*[types.int64] * 7), writing(write)


@intrinsic
def _blend(
    typingctx: TypingContext, target: types.Type, source: types.Type, mask: types.Type
) -> Intrinsic:
    """Vector at ``target`` = that at ``source`` in the lanes whose mask is positive."""

    def write(
        builder: ir.IRBuilder, target: ir.Value, source: ir.Value, mask: ir.Value
    ) -> ir.Value:
        old, new, known = (_load(builder, a) for a in (target, source, mask))
        chosen = builder.select(builder.fcmp_ordered(">", known, _ZEROS), new, old)
        builder.store(chosen, _place(builder, target), align=8)
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(*[types.int64] * 3), writing(write)


@intrinsic
def _slope(
    typingctx: TypingContext,
    target: types.Type,
    value: types.Type,
    start: types.Type,
    distance: types.Type,
) -> Intrinsic:
    """Vector at ``target`` = (value - start) / distance, of vectors by address."""

    def write(
        builder: ir.IRBuilder,
        target: ir.Value,
        value: ir.Value,
        start: ir.Value,
        distance: ir.Value,
    ) -> ir.Value:
        divisor = ir.Constant(_VECTOR_TYPE, ir.Undefined)
        for lane in range(LANES):
            divisor = builder.insert_element(divisor, distance, ir.Constant(ir.IntType(32), lane))
        change = builder.fsub(_load(builder, value), _load(builder, start))
        builder.store(builder.fdiv(change, divisor), _place(builder, target), align=8)
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(types.int64, types.int64, types.int64, types.float64), writing(write)


@innermost
def _chain(n: int, n_dp: int, target: int, keep: int, a: int, b: int) -> None:
    """The product A B and its derivatives, into a block or added to it; the last rows count as zero."""
    row, size = (n + 1) * _VECTOR, n * (n + 1) * _VECTOR
    for j in range(n_dp + 1):
        for i in range(n):
            for m in range(0, row, _VECTOR):
                place, left = j * size + i * row + m, i * row
                _dot(target + place, keep, a + left, _VECTOR, b + j * size + m, row, n)
                if j > 0:
                    _dot(target + place, 1, a + j * size + left, _VECTOR, b + m, row, n)


@innermost
def measure(linear: Linear, work: Work) -> None:
    """The matrix M and its derivatives from values of f, its norm, and its powers; ``sums`` is NaN where something is not finite."""
    n, n_dp, w = linear.n, linear.n_dp, linear.n + 1
    y, n_block, n_z = doubles(work.y), (1 + n_dp) * n * w, w + n * linear.n_sens
    f = linear.jac if n_dp > 0 else linear.rhs
    for m in range(n * LANES):
        y[m] = 0.0
    # At zero first, which gives b: then along each state.
    distance = 1.0
    for k in range(n, -1, -1):
        for m in range(k * LANES, min(k + 1, n) * LANES):
            y[m] = _FAR
        call_lanes(f, LANES, work.t, work.y, work.p, work.dy, work.jy, work.jp)
        for j in range(n_dp + 1):
            for i in range(n):
                row = work.powers + (j * n + i) * w * _VECTOR
                value = work.dy + i * _VECTOR if j == 0 else work.jp + (i * n_dp + j - 1) * _VECTOR
                _slope(row + k * _VECTOR, value, row + n * _VECTOR if k < n else work.y, distance)
        for m in range(k * LANES, min(k + 1, n) * LANES):
            y[m] = 0.0
        distance = _FAR
    matrix, z = doubles(work.powers), doubles(work.z)
    for lane in range(LANES):
        largest = bad = 0.0
        for k in range(n):
            total = 0.0
            for i in range(n):
                total += abs(matrix[(i * w + k) * LANES + lane])
            largest = max(largest, total)
        for m in range(n_block):
            bad += 0.0 * matrix[m * LANES + lane]
        for m in range(n_z):
            bad += 0.0 * z[m * LANES + lane]
        doubles(work.norm)[lane], doubles(work.sums)[lane] = largest, bad
    block = n_block * _VECTOR
    for k in range(1, _BLOCK):
        _chain(n, n_dp, work.powers + k * block, 0 * k, work.powers, work.powers + (k - 1) * block)


@innermost
def exponential(linear: Linear, work: Work) -> None:
    """exp(gap M) and its derivatives, in ``work.exp``: tau is gap / 2^s."""
    n, n_dp, w = linear.n, linear.n_dp, linear.n + 1
    n_vectors = (1 + n_dp) * n * w
    block, row, n_squarings = n_vectors * _VECTOR, w * _VECTOR, 0.0
    c, tau, s, mask = (
        doubles(work.coefficients),
        doubles(work.tau),
        doubles(work.s),
        doubles(work.mask),
    )
    for lane in range(LANES):
        power = 1.0
        for k in range(_BLOCK * _BLOCKS):
            power *= tau[lane] / (k + 1.0)
            c[k * LANES + lane] = power
        n_squarings = max(n_squarings, s[lane])
    here, other = work.exp, work.other
    for q in range(_BLOCKS - 1, -1, -1):
        here, other = other, here  # four blocks: the last one is in work.exp
        for v in range(0, block, _VECTOR):
            _dot(
                here + v,
                0,
                work.coefficients + q * _BLOCK * _VECTOR,
                _VECTOR,
                work.powers + v,
                block,
                _BLOCK,
            )
        if q < _BLOCKS - 1:
            _chain(n, n_dp, here, q + 1, work.powers + (_BLOCK - 1) * block, other)
    e, new, d, sums = doubles(here), doubles(other), doubles(work.d), doubles(work.sums)
    for i in range(n):
        for lane in range(LANES):
            d[i * LANES + lane] = e[(i * w + i) * LANES + lane]
            e[(i * w + i) * LANES + lane] += 1.0
    # What a slow rate leaves of 1 would drown in rounding if the diagonal were squared as it is:
    # with x = exp - 1 it becomes x (2 + x) + the sum of e_ik e_ki over the others.
    for r in range(int(n_squarings)):
        _chain(n, n_dp, other, 0 * r, here, here)
        for m in range(n, n_vectors, w):
            for k in range(m * LANES, (m + 1) * LANES):
                # the last row: in the exponential 1 in its last place, in derivatives 0
                new[k] += e[k]
        for lane in range(LANES):
            mask[lane] = s[lane] - r
        for i in range(n):
            at, x, rest = here + i * row, work.sums + i * _VECTOR, n - i - 1
            _dot(x, 0, at, _VECTOR, here + i * _VECTOR, row, i)
            _dot(x, 1, at + (i + 1) * _VECTOR, _VECTOR, at + row + i * _VECTOR, row, rest)
            for lane in range(LANES):
                k, m = i * LANES + lane, (i * w + i) * LANES + lane
                less = d[k] * (2.0 + d[k]) + sums[k]
                square = e[m] * e[m] + sums[k]
                near = abs(less) < 0.5
                new[m] = 1.0 + less if near else square
                sums[k] = less if near else square - 1.0
            _blend(work.d + i * _VECTOR, x, work.mask)
        for v in range(0, block, _VECTOR):
            _blend(here + v, other + v, work.mask)


@innermost
def move(linear: Linear, work: Work) -> None:
    """States and sensitivities after the gap; ``work.sums`` is NaN in lanes where one of them is not finite."""
    n, w, n_sens, n_dy0 = linear.n, linear.n + 1, linear.n_sens, linear.n_dy0
    size, s, row = n * w * _VECTOR, work.z + w * _VECTOR, n_sens * _VECTOR
    for i in range(n):
        e, place = work.exp + i * w * _VECTOR, work.new + w * _VECTOR + i * row
        _dot(work.new + i * _VECTOR, 0, e, _VECTOR, work.z, _VECTOR, w)
        for j in range(n_sens):
            _dot(place + j * _VECTOR, 0, e, _VECTOR, s + j * _VECTOR, row, n)
            if j >= n_dy0:
                _dot(
                    place + j * _VECTOR, 1, e + (j - n_dy0 + 1) * size, _VECTOR, work.z, _VECTOR, w
                )
    z, new, sums = doubles(work.z), doubles(work.new), doubles(work.sums)
    for lane in range(LANES):
        total = 0.0
        for m in range(lane, (w + n * n_sens) * LANES, LANES):
            if m != n * LANES + lane:
                z[m] = new[m]
                total += 0.0 * new[m]
        sums[lane] = total
