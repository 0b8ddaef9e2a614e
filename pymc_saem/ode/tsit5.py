"""Tsitouras' explicit Runge-Kutta pair of order 5(4), with forward sensitivities.

The steps are chosen by the tolerance alone; observation times between them are read off the
interpolant of order 4, which belongs to the method and costs no evaluation. With sensitivities, the
system is extended by dS/dt = (df/dy) S + df/dp, and S takes part in the error control: gradients
are then as accurate as the solution. (Tsitouras, Computers & Mathematics with Applications 62, 2011.)
"""

import math
from functools import lru_cache

import numpy as np

from pymc_saem.ode.native import (
    GX,
    JAC,
    MAX_STEPS,
    N_DP,
    N_DY0,
    N_STATES,
    N_SUBJECTS,
    RHS,
    TABLE_SIZE,
    TIMES,
    TOLERANCES,
    Y0_INDEX,
    call_jac,
    call_rhs,
    compile_task,
    floats,
    inner,
    integers,
    read_cotangent,
    read_subject,
    write_gradient,
    write_solution,
)
from pymc_saem.ode.status import SolverStatus

__all__ = ["task"]

_SUCCESS = int(SolverStatus.SUCCESS)
_MAX_STEPS = int(SolverStatus.MAX_STEPS)
_STEP_TOO_SMALL = int(SolverStatus.STEP_TOO_SMALL)
_NON_FINITE = int(SolverStatus.NON_FINITE)
_BAD_TIMES = int(SolverStatus.BAD_TIMES)

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


@inner
def _derivative(f, t, z, p, dz, n, n_dy0, n_dp, jy, jp):
    """Derivative of the states, and of the sensitivities S (n, n_dy0 + n_dp) behind them."""
    n_sens = n_dy0 + n_dp
    if jy.size == 0:
        call_rhs(f, t, z.ctypes.data, p.ctypes.data, dz.ctypes.data)
        return
    call_jac(f, t, z.ctypes.data, p.ctypes.data, dz.ctypes.data, jy.ctypes.data, jp.ctypes.data)
    for i in range(n):
        row = n + i * n_sens
        for j in range(n_dy0):
            dz[row + j] = 0.0
        for j in range(n_dp):
            dz[row + n_dy0 + j] = jp[i * n_dp + j]
        for k in range(n):
            slope, other = jy[i * n + k], n + k * n_sens
            if slope != 0.0:
                for j in range(n_sens):
                    dz[row + j] += slope * z[other + j]


@inner
def _norm(error, z, z_new, n, rtol, atol):
    """Root mean square of error / tolerance: the larger one of states and sensitivities."""
    states = sensitivities = 0.0
    for i in range(z.size):
        scaled = error[i] / (atol + rtol * max(abs(z[i]), abs(z_new[i])))
        if i < n:
            states += scaled * scaled
        else:
            sensitivities += scaled * scaled
    worst = states / n
    if z.size > n:
        other = sensitivities / (z.size - n)
        # Written so that a NaN of either is kept.
        worst = worst if worst >= other or worst != worst else other
    return math.sqrt(worst)


@inner
def _first_step(f, t, z, p, dz, span, n, rtol, atol, work):
    """Hairer, Norsett & Wanner's first step, from the size of the solution and its curvature."""
    d0 = d1 = d2 = 0.0
    for i in range(n):
        scale = atol + rtol * abs(z[i])
        d0 += (z[i] / scale) ** 2
        d1 += (dz[i] / scale) ** 2
    d0, d1 = math.sqrt(d0 / n), math.sqrt(d1 / n)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    h0 = min(h0, span)
    probe, slope = work[0], work[1]
    for i in range(n):
        probe[i] = z[i] + h0 * dz[i]
    call_rhs(f, t + h0, probe.ctypes.data, p.ctypes.data, slope.ctypes.data)
    for i in range(n):
        d2 += ((slope[i] - dz[i]) / (atol + rtol * abs(z[i]))) ** 2
    d2 = math.sqrt(d2 / n) / h0
    steepest = max(d1, d2)
    h1 = max(1e-6, 1e-3 * h0) if steepest <= 1e-15 else (0.01 / steepest) ** 0.2
    h = min(100.0 * h0, h1, span)
    return h if h > 0.0 else 1e-6 * span  # also when a slope is not finite


@inner
def _stages(f, t, h, z, p, k1, k2, k3, k4, k5, k6, k7, z_new, error, n, n_dy0, n_dp, jy, jp):
    """One step from z to z_new, its slopes, and the error estimate."""
    size = z.size
    for i in range(size):
        z_new[i] = z[i] + h * (A21 * k1[i])
    _derivative(f, t + C2 * h, z_new, p, k2, n, n_dy0, n_dp, jy, jp)
    for i in range(size):
        z_new[i] = z[i] + h * (A31 * k1[i] + A32 * k2[i])
    _derivative(f, t + C3 * h, z_new, p, k3, n, n_dy0, n_dp, jy, jp)
    for i in range(size):
        z_new[i] = z[i] + h * (A41 * k1[i] + A42 * k2[i] + A43 * k3[i])
    _derivative(f, t + C4 * h, z_new, p, k4, n, n_dy0, n_dp, jy, jp)
    for i in range(size):
        z_new[i] = z[i] + h * (A51 * k1[i] + A52 * k2[i] + A53 * k3[i] + A54 * k4[i])
    _derivative(f, t + C5 * h, z_new, p, k5, n, n_dy0, n_dp, jy, jp)
    for i in range(size):
        z_new[i] = z[i] + h * (A61 * k1[i] + A62 * k2[i] + A63 * k3[i] + A64 * k4[i] + A65 * k5[i])
    _derivative(f, t + h, z_new, p, k6, n, n_dy0, n_dp, jy, jp)
    for i in range(size):
        z_new[i] = z[i] + h * (B1 * k1[i] + B2 * k2[i] + B3 * k3[i] + B4 * k4[i] + B5 * k5[i] + B6 * k6[i])
    _derivative(f, t + h, z_new, p, k7, n, n_dy0, n_dp, jy, jp)
    for i in range(size):
        error[i] = h * (
            E1 * k1[i] + E2 * k2[i] + E3 * k3[i] + E4 * k4[i] + E5 * k5[i] + E6 * k6[i] + E7 * k7[i]
        )


@inner
def _weights(s):
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


@inner
def _record(k, s, h, z, slopes, n, out, g, gradient):
    """Solution of row k at the fraction s of a step, and its part of the gradient."""
    w1, w2, w3, w4, w5, w6, w7 = _weights(s)
    k1, k2, k3, k4, k5, k6, k7 = slopes
    for i in range(n):
        out[k, i] = z[i] + h * (
            w1 * k1[i] + w2 * k2[i] + w3 * k3[i] + w4 * k4[i] + w5 * k5[i] + w6 * k6[i] + w7 * k7[i]
        )
    n_sens = gradient.size
    if z.size == n:
        return
    for i in range(n):
        factor = g[k, i]
        if factor != 0.0:
            for j in range(n_sens):
                m = n + i * n_sens + j
                gradient[j] += factor * (
                    z[m]
                    + h
                    * (w1 * k1[m] + w2 * k2[m] + w3 * k3[m] + w4 * k4[m] + w5 * k5[m] + w6 * k6[m] + w7 * k7[m])
                )


@inner
def _integrate(f, rhs, times, t0, y0, p, y0_index, n_dp, sens, rtol, atol, max_steps, out, g, gradient):
    """Solve one subject; ``sens`` says whether f gives Jacobians and a gradient is wanted."""
    n, n_rows = y0.size, times.size
    n_dy0 = y0_index.size if sens else 0
    n_sens = n_dy0 + n_dp if sens else 0
    if n_rows == 0:
        return _SUCCESS, 0
    if not (times[0] >= t0 and math.isfinite(times[n_rows - 1])):
        return _BAD_TIMES, 0
    size = n * (1 + n_sens)
    work = np.empty((10, size))
    k1, k2, k3, k4, k5, k6, k7 = work[0], work[1], work[2], work[3], work[4], work[5], work[6]
    z, z_new, error = work[7], work[8], work[9]
    jy, jp = np.empty(n * n if sens else 0), np.empty(n * n_dp if sens else 0)
    z[:] = 0.0
    for i in range(n):
        z[i] = y0[i]
    for j in range(n_dy0):
        z[n + y0_index[j] * n_sens + j] = 1.0

    t, t_end, row = t0, times[n_rows - 1], 0
    _derivative(f, t, z, p, k1, n, n_dy0, n_dp, jy, jp)
    for i in range(size):
        if not math.isfinite(k1[i] + z[i]):
            return _NON_FINITE, 0
    while row < n_rows and times[row] == t0:
        _record(row, 0.0, 0.0, z, (k1, k1, k1, k1, k1, k1, k1), n, out, g, gradient)
        row += 1
    if row == n_rows:
        return _SUCCESS, 0
    h = _first_step(rhs, t, z, p, k1, t_end - t, n, rtol, atol, (z_new, k2))
    previous, rejected = 1.0, False
    for step in range(max_steps):
        # Reach the end in this step when it is near, rather than with a tiny one after it.
        last = t + 1.01 * h >= t_end
        if last:
            h = t_end - t
        t_new = t_end if last else t + h
        _stages(f, t, h, z, p, k1, k2, k3, k4, k5, k6, k7, z_new, error, n, n_dy0, n_dp, jy, jp)
        norm = _norm(error, z, z_new, n, rtol, atol)
        if norm <= 1.0:
            while row < n_rows and times[row] <= t_new:
                fraction = 1.0 if times[row] == t_new else (times[row] - t) / h
                _record(row, fraction, h, z, (k1, k2, k3, k4, k5, k6, k7), n, out, g, gradient)
                row += 1
            if row == n_rows:
                return _SUCCESS, step + 1
            t = t_new
            z, z_new, k1, k7 = z_new, z, k7, k1
            # Proportional-integral control: fewer rejections than from the last error alone.
            factor = 0.9 * max(norm, 1e-8) ** -0.17 * previous**0.04
            h *= min(1.0 if rejected else 10.0, max(0.2, factor))
            previous, rejected = max(norm, 1e-4), False
        else:
            h *= max(0.2, 0.9 * norm**-0.2) if math.isfinite(norm) else 0.1
            rejected = True
            if h <= 16.0 * np.finfo(np.float64).eps * max(abs(t), abs(t_end)):
                return (_STEP_TOO_SMALL if math.isfinite(norm) else _NON_FINITE), step + 1
    return _MAX_STEPS, max_steps


def _task(k, table_address):
    """Solve task k, one per subject and replicate, or compute its gradient if the table asks for one.

    One function for both, as compiling it twice would double the wait of the first use.
    """
    table = integers(table_address, TABLE_SIZE)
    sens = table[GX] != 0
    replicate, i = k // table[N_SUBJECTS], k % table[N_SUBJECTS]
    first, last, t0, y0, p = read_subject(table, replicate, i)
    m, n, n_dp = last - first, table[N_STATES], table[N_DP]
    times, tolerances = floats(table[TIMES] + 8 * first, m), floats(table[TOLERANCES], 2)
    y0_index = integers(table[Y0_INDEX], table[N_DY0])
    g = read_cotangent(table, replicate, first, m if sens else 0)
    gradient = np.zeros(table[N_DY0] + n_dp if sens else 0)
    solution = np.empty((m, n))
    status, _ = _integrate(
        table[JAC] if sens else table[RHS], table[RHS], times, t0, y0, p, y0_index, n_dp, sens,
        tolerances[0], tolerances[1], table[MAX_STEPS], solution, g, gradient,
    )  # fmt: skip
    if sens:
        write_gradient(table, replicate, i, gradient, status)
    else:
        write_solution(table, replicate, i, first, solution, status)
    return 0


@lru_cache
def task():
    """Compiled task of the solver; the same for every system, and kept on disk."""
    return compile_task(_task, cache=True)
