"""The matrix exponential of a linear system and its derivatives, for eight subjects side by side.

``y' = A y + b`` is ``z' = M z`` with ``z = (y, 1)``, and M = (A, b) above a row of zeros, which is never stored: matrices
are n by n + 1. exp(h M) comes from scaling and squaring: the Taylor polynomial of degree 16 at h / 2^s, by the scheme of
Paterson and Stockmeyer (SIAM J. Comput. 2, 1973) with blocks of four powers, then s squarings. Every product AB is
followed by its derivative dA B + A dB for each parameter, which gives the Frechet derivatives of exp(h M) exactly (Al-Mohy
and Higham, SIAM J. Matrix Anal. Appl. 30, 2009, section 4). b and the derivatives of M enter linearly, so the norm of A alone
chooses s (Al-Mohy and Higham, SIAM J. Sci. Comput. 33, 2011, section 4, let the scale of b go to zero with the same effect).

Taylor and not Pade, because there is nothing to solve: all is sums of products, which eight lanes share in one vector
instruction. An eigen-decomposition would cost less per time, but fails near defective matrices (equal rates in a chain).

A matrix element of lane l is at ``element * LANES + l``. A block is a matrix followed by its derivatives.
"""

from collections import namedtuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pymc_saem.ode.native import call_lanes, doubles, inlined, innermost

__all__ = ["LANES", "Linear", "exponential", "measure", "move", "n_squarings", "split", "work_size"]

LANES = 8
_VECTOR = 8 * LANES  # bytes
# Largest norm at which the polynomial's Frechet derivative has a backward error below 2^-53: the bound ell_m of Al-Mohy and
# Higham 2009, (4.9), for m = 16 and Taylor in place of Pade. For the polynomial itself it is 0.78.
_LARGEST = 0.6569684347661535
_BLOCK, _BLOCKS = 4, 4
# Far from zero, so that of f(s e_k) = s A e_k + b the second term costs no digits of the first, nor the reverse.
_FAR = 2.0**40

# Addresses of the right-hand side and its Jacobian (0: no derivatives), then sizes.
Linear = namedtuple("Linear", "rhs jac n n_p n_dy0 n_dp")
# Addresses. Per lane: time, norm of A, gap, squarings, factor, mask. Then parameters, a state and its derivative, Jacobians,
# the diagonal of exp - 1 and its new value, sums; (y, 1) and S, the new ones; powers of M; two blocks; coefficients of the polynomial.
Work = namedtuple("Work", "t norm gap s tau mask p y dy jy jp d sums z new powers exp other coefficients")


@inlined
def _sizes(linear):
    """Lengths, in vectors, of what ``Work`` lists, from the parameters on."""
    n, n_dp = linear.n, linear.n_dp if linear.jac != 0 else 0
    n_sens = linear.n_dy0 + n_dp if linear.jac != 0 else 0
    block = (1 + n_dp) * n * (n + 1)
    return linear.n_p, n, n * n, n * n_dp, n + 1 + n * n_sens, block


@inlined
def work_size(linear):
    """Number of floats that ``split`` wants."""
    n_p, n, n_jy, n_jp, n_z, block = _sizes(linear)
    return LANES * (6 + n_p + 5 * n + n_jy + n_jp + 2 * n_z + (_BLOCK + 2) * block + _BLOCK * _BLOCKS)


@inlined
def split(linear, a):
    """Parts of the memory at address ``a``."""
    n_p, n, n_jy, n_jp, n_z, block = _sizes(linear)
    v = _VECTOR
    p = a + 6 * v
    y = p + n_p * v
    jy = y + 2 * n * v
    jp = jy + n_jy * v
    d = jp + n_jp * v
    z = d + 3 * n * v
    powers = z + 2 * n_z * v
    e = powers + _BLOCK * block * v
    return Work(
        a, a + v, a + 2 * v, a + 3 * v, a + 4 * v, a + 5 * v, p, y, y + n * v, jy, jp, d, d + n * v,
        z, z + n_z * v, powers, e, e + block * v, e + 2 * block * v,
    )  # fmt: skip


_VECTOR_TYPE = ir.VectorType(ir.DoubleType(), LANES)
_CONTRACT = ("contract",)


def _at(builder, address):
    return builder.inttoptr(address, _VECTOR_TYPE.as_pointer())


def _dot(keep):
    """Codegen of ``target = sum a_k b_k`` over vectors, added to what is there if ``keep``."""

    def codegen(context, builder, signature, args):
        target, a, a_step, b, b_step, count = args
        zero = ir.Constant(ir.IntType(64), 0)
        first = builder.load(_at(builder, target), align=8) if keep else ir.Constant(_VECTOR_TYPE, [0.0] * LANES)
        before = builder.block
        loop, after = builder.append_basic_block("dot"), builder.append_basic_block("dotted")
        builder.cbranch(builder.icmp_signed(">", count, zero), loop, after)
        builder.position_at_end(loop)
        total, k = builder.phi(_VECTOR_TYPE), builder.phi(ir.IntType(64))
        factors = [
            builder.load(_at(builder, builder.add(address, builder.mul(k, step))), align=8)
            for address, step in ((a, a_step), (b, b_step))
        ]
        new = builder.fadd(total, builder.fmul(*factors, flags=_CONTRACT), flags=_CONTRACT)
        k_new = builder.add(k, ir.Constant(ir.IntType(64), 1))
        total.add_incoming(first, before)
        total.add_incoming(new, loop)
        k.add_incoming(zero, before)
        k.add_incoming(k_new, loop)
        builder.cbranch(builder.icmp_signed("<", k_new, count), loop, after)
        builder.position_at_end(after)
        result = builder.phi(_VECTOR_TYPE)
        result.add_incoming(first, before)
        result.add_incoming(new, loop)
        builder.store(result, _at(builder, target), align=8)
        return zero

    return codegen


@intrinsic
def _set_dot(typingctx, target, a, a_step, b, b_step, count):
    """Vector at ``target`` = sum of ``count`` products of vectors; all by address, steps in bytes."""
    return types.int64(*[types.int64] * 6), _dot(False)


@intrinsic
def _add_dot(typingctx, target, a, a_step, b, b_step, count):
    """The same added to the vector at ``target``."""
    return types.int64(*[types.int64] * 6), _dot(True)


@intrinsic
def _blend(typingctx, target, source, mask):
    """Vector at ``target`` = that at ``source`` in the lanes whose mask is positive."""

    def codegen(context, builder, signature, args):
        old, new, mask = (builder.load(_at(builder, a), align=8) for a in args)
        chosen = builder.fcmp_ordered(">", mask, ir.Constant(_VECTOR_TYPE, [0.0] * LANES))
        builder.store(builder.select(chosen, new, old), _at(builder, args[0]), align=8)
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(*[types.int64] * 3), codegen


@innermost
def _add_product(n, target, a, b):
    """Add A B; the last rows count as zero."""
    for i in range(n):
        row = i * (n + 1) * _VECTOR
        for j in range(n + 1):
            m = j * _VECTOR
            _add_dot(target + row + m, a + row, _VECTOR, b + m, (n + 1) * _VECTOR, n)


@innermost
def _add_chain(n, n_dp, target, a, b):
    """Add A B and its derivatives to a block."""
    size = n * (n + 1) * _VECTOR
    _add_product(n, target, a, b)
    for j in range(1, n_dp + 1):
        _add_product(n, target + j * size, a, b + j * size)
        _add_product(n, target + j * size, a + j * size, b)


@inlined
def _clear(address, n_vectors):
    x = doubles(address)
    for m in range(n_vectors * LANES):
        x[m] = 0.0


@innermost
def measure(linear, work):
    """The matrix M and its derivatives from values of f, its norm, and its powers; sums are NaN where one is not finite."""
    n, n_dp, w = linear.n, linear.n_dp if linear.jac != 0 else 0, linear.n + 1
    size = n * w * LANES
    y, dy, jp, norm, m = doubles(work.y), doubles(work.dy), doubles(work.jp), doubles(work.norm), doubles(work.powers)
    _clear(work.y, n)
    # At zero first, which gives b: then along each state.
    for k in range(n, -1, -1):
        if k < n:
            for lane in range(LANES):
                y[k * LANES + lane] = _FAR
        f = linear.jac if n_dp else linear.rhs
        call_lanes(f, LANES, -n_dp, work.t, work.y, work.p, work.dy, work.jy, work.jp)
        for i in range(n):
            for lane in range(LANES):
                here, b = (i * w + k) * LANES + lane, (i * w + n) * LANES + lane
                m[here] = dy[i * LANES + lane] if k == n else (dy[i * LANES + lane] - m[b]) / _FAR
                for j in range(n_dp):
                    slope = jp[(i * n_dp + j) * LANES + lane]
                    m[(j + 1) * size + here] = slope if k == n else (slope - m[(j + 1) * size + b]) / _FAR
        if k < n:
            for lane in range(LANES):
                y[k * LANES + lane] = 0.0
    for lane in range(LANES):
        norm[lane] = 0.0
        for k in range(n):
            total = 0.0
            for i in range(n):
                total += abs(m[(i * w + k) * LANES + lane])
            # Also true for NaN.
            if not total <= norm[lane]:
                norm[lane] = total
    n_block = (1 + n_dp) * size
    for lane in range(LANES):
        total = 0.0
        for e in range(lane, n_block, LANES):
            total += 0.0 * m[e]
        doubles(work.sums)[lane] = total
    block = 8 * n_block
    _clear(work.powers + block, (_BLOCK - 1) * (1 + n_dp) * n * w)
    for k in range(1, _BLOCK):
        _add_chain(n, n_dp, work.powers + k * block, work.powers, work.powers + (k - 1) * block)


@innermost
def n_squarings(norm, gap, limit):
    """Squarings that a gap takes; more than the limit if it takes too many."""
    s, size = 0, norm * gap
    while size > _LARGEST and s <= limit:
        size *= 0.5
        s += 1
    return s


@innermost
def _polynomial(n, n_dp, work):
    """exp(tau M) - 1 and its derivatives, in ``work.exp``."""
    c, tau = doubles(work.coefficients), doubles(work.tau)
    for lane in range(LANES):
        c[lane] = tau[lane]
    for k in range(1, _BLOCK * _BLOCKS):
        for lane in range(LANES):
            c[k * LANES + lane] = c[(k - 1) * LANES + lane] * tau[lane] / (k + 1.0)
    n_vectors = (1 + n_dp) * n * (n + 1)
    block = n_vectors * _VECTOR
    here, other = work.exp, work.other
    for q in range(_BLOCKS - 1, -1, -1):
        # With four blocks, the last one ends where it shall.
        here, other = other, here
        for m in range(n_vectors):
            v = m * _VECTOR
            _set_dot(here + v, work.coefficients + q * _BLOCK * _VECTOR, _VECTOR, work.powers + v, block, _BLOCK)
        if q < _BLOCKS - 1:
            _add_chain(n, n_dp, here, work.powers + (_BLOCK - 1) * block, other)


@innermost
def _square(n, n_dp, work):
    """The square of the exponential and its derivatives, in ``work.other``; in ``sums`` the diagonal of the square minus 1.

    What a slow rate leaves of 1 would drown in rounding if the diagonal were squared as it is: with x = exp - 1 it is
    x (2 + x) + the sum of e_ik e_ki over the others.
    """
    w, n_vectors = n + 1, (1 + n_dp) * n * (n + 1)
    _clear(work.other, n_vectors)
    _add_chain(n, n_dp, work.other, work.exp, work.exp)
    e, new, d, sums = doubles(work.exp), doubles(work.other), doubles(work.d), doubles(work.sums)
    for r in range((1 + n_dp) * n):
        for m in range((r * w + n) * LANES, (r * w + w) * LANES):
            new[m] += e[m]  # the last row of the exponential: 1 in its last place, in derivatives 0
    for i in range(n):
        row, column, x = work.exp + i * w * _VECTOR, work.exp + i * _VECTOR, work.sums + i * _VECTOR
        _set_dot(x, row, _VECTOR, column, w * _VECTOR, i)
        rest = i + 1
        _add_dot(x, row + rest * _VECTOR, _VECTOR, column + rest * w * _VECTOR, w * _VECTOR, n - rest)
        for lane in range(LANES):
            m, diagonal = i * LANES + lane, (i * w + i) * LANES + lane
            less = d[m] * (2.0 + d[m]) + sums[m]
            near = abs(less) < 0.5
            new[diagonal] = 1.0 + less if near else e[diagonal] * e[diagonal] + sums[m]
            sums[m] = less if near else new[diagonal] - 1.0


@innermost
def exponential(linear, work):
    """exp(gap M) and its derivatives, in ``work.exp``, after ``work.s`` squarings in each lane."""
    n, n_dp, w = linear.n, linear.n_dp if linear.jac != 0 else 0, linear.n + 1
    tau, gap, s, mask, most = doubles(work.tau), doubles(work.gap), doubles(work.s), doubles(work.mask), 0.0
    for lane in range(LANES):
        tau[lane] = gap[lane] * 0.5 ** s[lane]
        most = max(most, s[lane])
    _polynomial(n, n_dp, work)
    e, d = doubles(work.exp), doubles(work.d)
    for i in range(n):
        for lane in range(LANES):
            d[i * LANES + lane] = e[(i * w + i) * LANES + lane]
            e[(i * w + i) * LANES + lane] += 1.0
    for r in range(int(most)):
        _square(n, n_dp, work)
        for lane in range(LANES):
            mask[lane] = s[lane] - r
        for m in range((1 + n_dp) * n * w):
            _blend(work.exp + m * _VECTOR, work.other + m * _VECTOR, work.mask)
        for i in range(n):
            _blend(work.d + i * _VECTOR, work.sums + i * _VECTOR, work.mask)


@innermost
def move(linear, work):
    """States and sensitivities after the gap; ``work.sums`` is NaN in lanes where one of them is not finite."""
    n, w, n_dy0 = linear.n, linear.n + 1, linear.n_dy0
    n_sens, size = 0, n * w * _VECTOR
    if linear.jac != 0:
        n_sens = n_dy0 + linear.n_dp
    s, new_s, row = work.z + w * _VECTOR, work.new + w * _VECTOR, n_sens * _VECTOR
    for i in range(n):
        e = work.exp + i * w * _VECTOR
        _set_dot(work.new + i * _VECTOR, e, _VECTOR, work.z, _VECTOR, w)
        for j in range(n_sens):
            place = new_s + i * row + j * _VECTOR
            _set_dot(place, e, _VECTOR, s + j * _VECTOR, row, n)
            if j >= n_dy0:
                _add_dot(place, e + (j - n_dy0 + 1) * size, _VECTOR, work.z, _VECTOR, w)
    z, new, sums = doubles(work.z), doubles(work.new), doubles(work.sums)
    for lane in range(LANES):
        new[n * LANES + lane], sums[lane] = 1.0, 0.0
    for m in range((w + n * n_sens) * LANES):
        z[m] = new[m]
        sums[m % LANES] += 0.0 * new[m]
