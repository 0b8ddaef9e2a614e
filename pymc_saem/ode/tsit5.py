"""Tsitouras' explicit Runge-Kutta pair of order 5(4), with forward sensitivities, in lanes.

Several subjects are solved side by side, each with a time and a step size of its own, so that one vector
instruction serves all of them. Values lie in flat arrays, lane innermost: element m of lane l at
``m * lanes + l``. The steps are chosen by the tolerance alone; observation times between them are read
off the interpolant of order 4, which belongs to the method and costs no evaluation. With sensitivities,
the system is extended by dS/dt = (df/dy) S + df/dp, and S takes part in the error control: gradients are
then as accurate as the solution. (Tsitouras, Computers & Mathematics with Applications 62, 2011.)

This file is the method; ``lanes.py`` takes subjects through it.
"""

import math
from collections import namedtuple

from pymc_saem.ode.native import call_lanes, doubles, inlined, innermost

__all__ = ["System", "derivative", "errors", "first_step", "split", "step", "stiffness", "weights", "work_size"]

A21 = 0.161
A31, A32 = -0.008480655492356989, 0.335480655492357
A41, A42, A43 = 2.8971530571054935, -6.359448489975075, 4.3622954328695815
A51, A52, A53, A54 = 5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525
A61, A62, A63 = 5.86145544294642, -12.92096931784711, 8.159367898576159
A64, A65 = -0.071584973281401, -0.028269050394068383
B1, B2, B3 = 0.09646076681806523, 0.01, 0.4798896504144996
B4, B5, B6 = 1.379008574103742, -3.290069515436081, 2.324710524099774
E1, E2, E3 = -0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995
E4, E5, E6 = -0.1447110071732629, 0.5823571654525552, -0.45808210592918697
E7 = 1.0 / 66.0
C2, C3, C4, C5 = 0.161, 0.327, 0.9, 0.9800255409045097


# Address of the right-hand side; of the function to integrate, which has sensitivities too if n_sens is not 0;
# number of states, entries of y0 and columns of the sensitivities, n (1 + n_sens) lanes values, of which the first
# ``controlled`` count in errors; parameters; tolerances.
System = namedtuple("System", "rhs f n n_dy0 n_sens lanes size controlled n_p rtol atol")
# Addresses. Per lane: t, h, now, norm, other. Per value: hs (h again), states and sensitivities z and z_new, error,
# slopes k1 to k7. Then parameters p and the Jacobians jy (n, n), jp (n, n_sens).
Work = namedtuple("Work", "t h now norm other hs z z_new error k1 k2 k3 k4 k5 k6 k7 p jy jp")


@inlined
def work_size(system):
    """Number of floats that ``split`` wants."""
    jacobians = system.n * (system.n + system.n_sens) if system.n_sens else 0
    return (5 + system.n_p + jacobians) * system.lanes + 11 * system.size


@inlined
def split(system, a):
    """Parts of the memory at address ``a``."""
    b, s = 8 * system.lanes, 8 * system.size
    c = a + 5 * b
    p = c + 11 * s
    jy = p + system.n_p * b
    return Work(
        a, a + b, a + 2 * b, a + 3 * b, a + 4 * b,
        c, c + s, c + 2 * s, c + 3 * s, c + 4 * s, c + 5 * s, c + 6 * s, c + 7 * s, c + 8 * s, c + 9 * s, c + 10 * s,
        p, jy, jy + system.n * system.n * b,
    )  # fmt: skip


@inlined
def derivative(system, work, f, t, z, dz):
    """Derivative of the states, and of the sensitivities behind them if ``f`` is ``system.f``."""
    call_lanes(f, system.lanes, system.n_dy0, t, z, work.p, dz, work.jy, work.jp)


@innermost
def _stage(system, work, c, dz):
    """Derivative of z_new at the fraction c of the step."""
    t, h, now = doubles(work.t), doubles(work.h), doubles(work.now)
    for lane in range(system.lanes):
        now[lane] = t[lane] + c * h[lane]
    derivative(system, work, system.f, work.now, work.z_new, dz)


@inlined
def step(system, work):
    """One step from z to z_new, its slopes, and the error estimate."""
    z, z_new, h, error = doubles(work.z), doubles(work.z_new), doubles(work.hs), doubles(work.error)
    k1, k2, k3, k4 = doubles(work.k1), doubles(work.k2), doubles(work.k3), doubles(work.k4)
    k5, k6, k7, size = doubles(work.k5), doubles(work.k6), doubles(work.k7), system.size
    for m in range(size):
        z_new[m] = z[m] + h[m] * (A21 * k1[m])
    _stage(system, work, C2, work.k2)
    for m in range(size):
        z_new[m] = z[m] + h[m] * (A31 * k1[m] + A32 * k2[m])
    _stage(system, work, C3, work.k3)
    for m in range(size):
        z_new[m] = z[m] + h[m] * (A41 * k1[m] + A42 * k2[m] + A43 * k3[m])
    _stage(system, work, C4, work.k4)
    for m in range(size):
        z_new[m] = z[m] + h[m] * (A51 * k1[m] + A52 * k2[m] + A53 * k3[m] + A54 * k4[m])
    _stage(system, work, C5, work.k5)
    for m in range(size):
        z_new[m] = z[m] + h[m] * (A61 * k1[m] + A62 * k2[m] + A63 * k3[m] + A64 * k4[m] + A65 * k5[m])
    _stage(system, work, 1.0, work.k6)
    for m in range(size):
        z_new[m] = z[m] + h[m] * (B1 * k1[m] + B2 * k2[m] + B3 * k3[m] + B4 * k4[m] + B5 * k5[m] + B6 * k6[m])
    _stage(system, work, 1.0, work.k7)
    for m in range(size):
        error[m] = h[m] * (E1 * k1[m] + E2 * k2[m] + E3 * k3[m] + E4 * k4[m] + E5 * k5[m] + E6 * k6[m] + E7 * k7[m])


@inlined
def errors(system, work):
    """Root mean square of error / tolerance of each lane: the larger one of states and sensitivities."""
    error, z, z_new = doubles(work.error), doubles(work.z), doubles(work.z_new)
    norm, other = doubles(work.norm), doubles(work.other)
    n, lanes, rtol, atol = system.n, system.lanes, system.rtol, system.atol
    for m in range(system.controlled):
        before, after = abs(z[m]), abs(z_new[m])
        scaled = error[m] / (atol + rtol * (before if before > after else after))
        error[m] = scaled * scaled
    for lane in range(lanes):
        norm[lane] = other[lane] = 0.0
    for first in range(0, n * lanes, lanes):
        for lane in range(lanes):
            norm[lane] += error[first + lane]
    for first in range(n * lanes, system.controlled, lanes):
        for lane in range(lanes):
            other[lane] += error[first + lane]
    n_others = max(1, n * system.n_sens)
    for lane in range(lanes):
        worst, mean = norm[lane] / n, other[lane] / n_others
        # Written so that a NaN of either is kept.
        norm[lane] = math.sqrt(worst if worst >= mean or worst != worst else mean)


@innermost
def stiffness(system, work, lane):
    """Step times the size of the Jacobian, as the last two stages see it, which both are at the end of the step.

    The method is stable up to 3.5; when stability and not accuracy limits the step, it stays between 2.5 and that. (Hairer &
    Wanner, Solving Ordinary Differential Equations II, IV.2.)
    """
    k1, k2, k3, k4 = doubles(work.k1), doubles(work.k2), doubles(work.k3), doubles(work.k4)
    k5, k6, k7, h = doubles(work.k5), doubles(work.k6), doubles(work.k7), doubles(work.h)[lane]
    z_new, slopes, values = doubles(work.z_new), 0.0, 0.0
    for m in range(lane, system.controlled, system.lanes):
        # z_new minus the values at which k6 was taken; in units of the tolerance, or what is large hides what is stiff
        scale = 1.0 / (system.atol + system.rtol * abs(z_new[m]))
        value = (B1 - A61) * k1[m] + (B2 - A62) * k2[m] + (B3 - A63) * k3[m] + (B4 - A64) * k4[m]
        value = scale * h * (value + (B5 - A65) * k5[m] + B6 * k6[m])
        slopes += (scale * (k7[m] - k6[m])) ** 2
        values += value * value
    return h * math.sqrt(slopes / values) if values > 0.0 else 0.0


@innermost
def first_step(system, work, lane, probe_h, span):
    """Hairer, Norsett & Wanner's first step, from the size of the solution and its curvature.

    Called first with ``probe_h`` zero, it returns the distance of the probe; then, with the slopes of the start in k1
    and those of the probe in k2, the step.
    """
    n, lanes, z, k1, k2 = system.n, system.lanes, doubles(work.z), doubles(work.k1), doubles(work.k2)
    d0 = d1 = d2 = 0.0
    for m in range(lane, n * lanes, lanes):
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
def weights(s):
    """Weights of the seven slopes at the fraction ``s`` of a step."""
    s2 = s * s
    return (
        -1.0530884977290216 * s * (s - 1.3299890189751412) * (s2 - 1.4364028541716351 * s + 0.7139816917074209),
        0.1017 * s2 * (s2 - 2.1966568338249754 * s + 1.2949852507374631),
        2.490627285651252793 * s2 * (s2 - 2.38535645472061657 * s + 1.57803468208092486),
        -16.54810288924490272 * (s - 1.21712927295533244) * (s - 0.61620406037800089) * s2,
        47.37952196281928122 * (s - 1.203071208372362603) * (s - 0.658047292653547382) * s2,
        -34.87065786149660974 * (s - 1.2) * (s - 0.666666666666666667) * s2,
        2.5 * (s - 1.0) * (s - 0.6) * s2,
    )
