"""Tsitouras' explicit Runge-Kutta pair of order 5(4), with forward sensitivities, in lanes.

Several subjects are solved side by side, each with a time and a step size of its own, so that one
vector instruction serves all of them. Values lie in flat arrays, lane innermost: element m of lane
l at ``m * lanes + l``. The steps are chosen by the tolerance alone; observation times between them
are read off the interpolant of order 4, which belongs to the method and costs no evaluation. With
sensitivities, the system is extended by dS/dt = (df/dy) S + df/dp, and S takes part in the error
control: gradients are then as accurate as the solution. (Tsitouras, Computers & Mathematics with
Applications 62, 2011.)

This file is the method; ``lanes.py`` takes subjects through it.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

from pymc_saem.ode.runtime.native import Doubles, call_lanes, doubles, inlined, innermost
from pymc_saem.ode.runtime.vectors import LANES, VECTOR, larger, load, root, splat, store, where_one

__all__ = [
    "System", "add_shares", "derivative", "errors", "first_step", "share", "slopes", "split", "step", "stiffness", "weights",
    "work_size",
]  # fmt: skip

A21 = 0.161
A31, A32 = -0.008480655492356989, 0.335480655492357
A41, A42, A43 = 2.8971530571054935, -6.359448489975075, 4.3622954328695815
A51, A52, A53, A54 = (
    5.325864828439257,
    -11.748883564062828,
    7.4955393428898365,
    -0.09249506636175525,
)
A61, A62, A63 = 5.86145544294642, -12.92096931784711, 8.159367898576159
A64, A65 = -0.071584973281401, -0.028269050394068383
B1, B2, B3 = 0.09646076681806523, 0.01, 0.4798896504144996
B4, B5, B6 = 1.379008574103742, -3.290069515436081, 2.324710524099774
E1, E2, E3 = -0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995
E4, E5, E6 = -0.1447110071732629, 0.5823571654525552, -0.45808210592918697
E7 = 1.0 / 66.0
C2, C3, C4, C5 = 0.161, 0.327, 0.9, 0.9800255409045097


_STAGES = 7
_C = 0.0, C2, C3, C4, C5, 1.0, 1.0

# Address of the right-hand side; of the function to integrate, which has Jacobians too if n_sens is
# not 0; number of states, entries of y0 and columns of the sensitivities, n (1 + n_sens) values, of
# which the first ``controlled`` count in errors; parameters; tolerances.
System = namedtuple("System", "rhs f n n_dy0 n_sens size controlled n_p rtol atol")
# Addresses. Per lane: t, h, now, norm, other. Per value: states and sensitivities z and z_new,
# slopes k1 to k7 one after the other. Then parameters p, the Jacobians jy (n, n) and jp (n, n_sens
# - n_dy0); the shares of z and of the slopes of each state in the gradient (8, n), a mask first;
# the gradient (n_sens).
Work = namedtuple("Work", "t h now norm other z z_new k p jy shares gradient")


@inlined
def _jacobians(system: System) -> int:
    """Number of vectors of the Jacobians."""
    return system.n * (system.n + system.n_sens - system.n_dy0) if system.n_sens else 0


@inlined
def work_size(system: System) -> int:
    """Number of vectors that ``split`` wants."""
    gradient = 1 + 8 * system.n + system.n_sens
    return 5 + (2 + _STAGES) * system.size + system.n_p + _jacobians(system) + gradient


@inlined
def split(system: System, a: int) -> Work:
    """Parts of the memory at address ``a``."""
    b, s = VECTOR, VECTOR * system.size
    c = a + 5 * b
    p = c + (2 + _STAGES) * s
    jy = p + system.n_p * b
    shares = jy + _jacobians(system) * b
    gradient = shares + (1 + 8 * system.n) * b
    return Work(
        a, a + b, a + 2 * b, a + 3 * b, a + 4 * b, c, c + s, c + 2 * s, p, jy, shares, gradient
    )


@inlined
def slopes(system: System, work: Work, stage: int) -> int:
    """Address of the slopes k1 (stage 0) to k7."""
    return work.k + VECTOR * system.size * stage


@innermost
def _products(n: int, n_dy0: int, n_dp: int, jy: int, z: int, k: int) -> None:
    """Slopes of the sensitivities at ``z``: dS/dt = (df/dy) S + df/dp."""
    n_sens, jp, second = n_dy0 + n_dp, jy + VECTOR * n * n, min(1, n - 1)
    for i in range(n):
        row, j_row, other = n + i * n_sens, i * n_dp - n_dy0, n + second * n_sens
        f, g = load(jy, i * n), float(second) * load(jy, i * n + second)
        for j in range(n_dy0):
            store(k, row + j, f * load(z, n + j) + g * load(z, other + j))
        for j in range(n_dy0, n_sens):
            store(k, row + j, load(jp, j_row + j) + f * load(z, n + j) + g * load(z, other + j))
        for m in range(2, n):
            f, other = load(jy, i * n + m), n + m * n_sens
            for j in range(n_sens):
                store(k, row + j, load(k, row + j) + f * load(z, other + j))


@innermost
def derivative(system: System, work: Work, f: int, t: int, z: int, k: int) -> None:
    """Slopes ``k`` at ``z``: of the states, and if ``f`` is ``system.f`` of the sensitivities."""
    call_lanes(f, LANES, t, z, work.p, k, work.jy, work.jy + VECTOR * system.n * system.n)
    if f != system.rhs:
        _products(system.n, system.n_dy0, system.n_sens - system.n_dy0, work.jy, z, k)


@innermost
def _values(stage: int, h_place: int, z: int, z_new: int, k: int, size: int) -> None:
    """Values of a stage, from the slopes before it."""
    h, s = load(h_place, 0), VECTOR * size
    k2, k3, k4, k5, k6 = k + s, k + 2 * s, k + 3 * s, k + 4 * s, k + 5 * s
    if stage == 1:
        for e in range(size):
            store(z_new, e, load(z, e) + h * (A21 * load(k, e)))
    elif stage == 2:
        for e in range(size):
            store(z_new, e, load(z, e) + h * (A31 * load(k, e) + A32 * load(k2, e)))
    elif stage == 3:
        for e in range(size):
            store(
                z_new,
                e,
                load(z, e) + h * (A41 * load(k, e) + A42 * load(k2, e) + A43 * load(k3, e)),
            )
    elif stage == 4:
        for e in range(size):
            slope = A51 * load(k, e) + A52 * load(k2, e) + A53 * load(k3, e) + A54 * load(k4, e)
            store(z_new, e, load(z, e) + h * slope)
    elif stage == 5:
        for e in range(size):
            slope = (
                A61 * load(k, e)
                + A62 * load(k2, e)
                + A63 * load(k3, e)
                + A64 * load(k4, e)
                + A65 * load(k5, e)
            )
            store(z_new, e, load(z, e) + h * slope)
    else:
        for e in range(size):
            slope = B1 * load(k, e) + B2 * load(k2, e) + B3 * load(k3, e) + B4 * load(k4, e)
            store(z_new, e, load(z, e) + h * (slope + B5 * load(k5, e) + B6 * load(k6, e)))


@inlined
def step(system: System, work: Work) -> None:
    """One step from z to z_new, and its slopes."""
    for stage in range(1, _STAGES):
        _values(stage, work.h, work.z, work.z_new, work.k, system.size)
        store(work.now, 0, load(work.t, 0) + _C[stage] * load(work.h, 0))
        derivative(system, work, system.f, work.now, work.z_new, slopes(system, work, stage))


@innermost
def _squares(system: System, work: Work, first: int, last: int) -> Any:
    """Sum of (error / tolerance)^2 over the values ``first`` to ``last``."""
    s, k, total = VECTOR * system.size, work.k, splat(0.0)
    h, atol = load(work.h, 0), splat(system.atol)
    for e in range(first, last):
        error = (
            E1 * load(k, e)
            + E2 * load(k + s, e)
            + E3 * load(k + 2 * s, e)
            + E4 * load(k + 3 * s, e)
        )
        error = h * (
            error + E5 * load(k + 4 * s, e) + E6 * load(k + 5 * s, e) + E7 * load(k + 6 * s, e)
        )
        scaled = error / (atol + system.rtol * larger(load(work.z, e), load(work.z_new, e)))
        total = total + scaled * scaled
    return total


@inlined
def errors(system: System, work: Work) -> None:
    """Root mean square of error / tolerance of each lane: the larger one of states and sensitivities."""
    norm, other = doubles(work.norm), doubles(work.other)
    for part in range(2):  # the states, then the sensitivities, if any
        first, last = part * system.n, system.controlled if part else system.n
        store(
            work.norm,
            part,
            root((1.0 / max(1, last - first)) * _squares(system, work, first, last)),
        )
    for lane in range(LANES):
        # Written so that a NaN of either is kept.
        norm[lane] = (
            norm[lane] if norm[lane] >= other[lane] or norm[lane] != norm[lane] else other[lane]
        )


@innermost
def share(system: System, work: Work, lane: int, s: float, g: Doubles) -> None:
    """Take into account that a row at the fraction ``s`` of the step of a lane has the cotangent ``g``."""
    shares, h, w = doubles(work.shares), doubles(work.h)[lane], weights(s)
    shares[lane] = 1.0
    for i in range(system.n):
        place = (1 + 8 * i) * LANES + lane
        shares[place] += g[i]
        for m in range(_STAGES):
            shares[place + (1 + m) * LANES] += h * g[i] * w[m]


@innermost
def add_shares(system: System, work: Work) -> None:
    """Add what the rows of this step contribute to the gradients of all lanes."""
    n, n_sens, stride, any_row, mask = (
        system.n,
        system.n_sens,
        VECTOR * system.size,
        0.0,
        load(work.shares, 0),
    )
    for lane in range(LANES):
        any_row += doubles(work.shares)[lane]
    if any_row == 0.0:
        return
    k, k2, k3, k4 = work.k, work.k + stride, work.k + 2 * stride, work.k + 3 * stride
    k5, k6, k7 = k4 + stride, k4 + 2 * stride, k4 + 3 * stride
    for i in range(n):
        c = work.shares + VECTOR * (1 + 8 * i)
        c0, c1, c2, c3, c4 = load(c, 0), load(c, 1), load(c, 2), load(c, 3), load(c, 4)
        c5, c6, c7 = load(c, 5), load(c, 6), load(c, 7)
        for j in range(n_sens):
            e = n + i * n_sens + j
            total = c0 * load(work.z, e) + c1 * load(k, e) + c2 * load(k2, e) + c3 * load(k3, e)
            total = (
                total + c4 * load(k4, e) + c5 * load(k5, e) + c6 * load(k6, e) + c7 * load(k7, e)
            )
            before = load(work.gradient, j)
            # A lane without a row may hold anything.
            store(work.gradient, j, where_one(mask, before + total, before))
    for m in range(1 + 8 * n):
        store(work.shares, m, splat(0.0))


@innermost
def stiffness(system: System, work: Work, lane: int) -> float:
    """Step times the size of the Jacobian, as the last two stages see it, which both are at the end of the step.

    The method is stable up to 3.5; when stability and not accuracy limits the step, it stays
    between 2.5 and that. (Hairer & Wanner, Solving Ordinary Differential Equations II, IV.2.)
    """
    k, s, h = doubles(work.k), LANES * system.size, doubles(work.h)[lane]
    z_new, steep, values = doubles(work.z_new), 0.0, 0.0
    for m in range(lane, LANES * system.controlled, LANES):
        # z_new minus the values at which k6 was taken; in units of the tolerance, or what is large
        # hides what is stiff
        scale = 1.0 / (system.atol + system.rtol * abs(z_new[m]))
        value = (
            (B1 - A61) * k[m]
            + (B2 - A62) * k[s + m]
            + (B3 - A63) * k[2 * s + m]
            + (B4 - A64) * k[3 * s + m]
        )
        value = scale * h * (value + (B5 - A65) * k[4 * s + m] + B6 * k[5 * s + m])
        steep += (scale * (k[6 * s + m] - k[5 * s + m])) ** 2
        values += value * value
    return h * math.sqrt(steep / values) if values > 0.0 else 0.0


@innermost
def first_step(system: System, work: Work, lane: int, probe_h: float, span: float) -> float:
    """Hairer, Norsett & Wanner's first step, from the size of the solution and its curvature.

    Called first with ``probe_h`` zero, it returns the distance of the probe; then, with the slopes
    of the start in k1 and those of the probe in k2, the step.
    """
    n, z, k1, k2 = system.n, doubles(work.z), doubles(work.k), doubles(slopes(system, work, 1))
    d0 = d1 = d2 = 0.0
    for m in range(lane, n * LANES, LANES):
        scale = system.atol + system.rtol * abs(z[m])
        d0 += (z[m] / scale) ** 2
        d1 += (k1[m] / scale) ** 2
        d2 += ((k2[m] - k1[m]) / scale) ** 2
    d0, d1 = math.sqrt(d0 / n), math.sqrt(d1 / n)
    if probe_h == 0.0:
        return min(1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1, span)
    steepest = max(d1, math.sqrt(d2 / n) / probe_h)
    h = max(1e-6, 1e-3 * probe_h) if steepest <= 1e-15 else (0.01 / steepest) ** 0.2
    h = min(100.0 * probe_h, h, span)
    return h if h > 0.0 else 1e-6 * span  # also when a slope is not finite


@inlined
def weights(s: float) -> tuple[float, float, float, float, float, float, float]:
    """Weights of the seven slopes at the fraction ``s`` of a step."""
    s2 = s * s
    return (
        -1.0530884977290216
        * s
        * (s - 1.3299890189751412)
        * (s2 - 1.4364028541716351 * s + 0.7139816917074209),
        0.1017 * s2 * (s2 - 2.1966568338249754 * s + 1.2949852507374631),
        2.490627285651252793 * s2 * (s2 - 2.38535645472061657 * s + 1.57803468208092486),
        -16.54810288924490272 * (s - 1.21712927295533244) * (s - 0.61620406037800089) * s2,
        47.37952196281928122 * (s - 1.203071208372362603) * (s - 0.658047292653547382) * s2,
        -34.87065786149660974 * (s - 1.2) * (s - 0.666666666666666667) * s2,
        2.5 * (s - 1.0) * (s - 0.6) * s2,
    )
