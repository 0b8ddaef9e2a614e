"""The ``linear`` solver: systems with constant coefficients, by the matrix exponential from one time to the next.

Exact up to rounding, whatever the tolerances. Eight subjects are taken side by side (``linear_engine``), each with its own
matrix and times; an exponential serves as long as the gaps between times stay the same. One task for solutions and
gradients, compiled once per machine: a model adds its right-hand side, by address. After a change of ``native.py`` or
``linear_engine.py``, save this file too.
"""

import math
from functools import lru_cache

import numpy as np

from pymc_saem.ode.linear_engine import LANES, Linear, exponential, measure, move, n_squarings, split, work_size
from pymc_saem.ode.native import (
    G_STRIDE,
    JAC,
    MAX_STEPS,
    N_DP,
    N_DY0,
    N_P,
    N_ROWS,
    N_STATES,
    N_SUBJECTS,
    ORDER,
    OUT,
    RHS,
    STARTS,
    T0,
    T_END,
    TIMES,
    Y0_CONSTANT,
    Y0_INDEX,
    Z0,
    Z1,
    G,
    compile_task,
    doubles,
    inlined,
    innermost,
    longs,
    values_of,
    write_gradient,
    write_status,
)
from pymc_saem.ode.status import SolverStatus

__all__ = ["task"]

_RUNNING = -1
_SUCCESS = int(SolverStatus.SUCCESS)
_MAX_STEPS = int(SolverStatus.MAX_STEPS)
_NON_FINITE = int(SolverStatus.NON_FINITE)
_BAD_TIMES = int(SolverStatus.BAD_TIMES)

# Rounding of relative size 1e-16 at the rate of the fastest state can grow by the number of fastest times in a gap: after
# 40 squarings, 1e12 of them, four digits of a slow state are left.
_MOST_SQUARINGS = 40
_FEW_UNITS = 4.0 * float(np.finfo(np.float64).eps)


@innermost
def _load(linear, work, table, task, lane):
    """Put a task at its start into a lane."""
    n, n_dy0, n_dp, p, z = linear.n, linear.n_dy0, linear.n_dp, doubles(work.p), doubles(work.z)
    n_sens, i = (n_dy0 + n_dp if linear.jac != 0 else 0), task % table[N_SUBJECTS]
    x_address, c_address = values_of(table, task // table[N_SUBJECTS], i)
    x, c, n_constant = doubles(x_address), doubles(c_address), n - n_dy0
    y0_index, y0_constant = longs(table[Y0_INDEX]), longs(table[Y0_CONSTANT])
    for m in range(n * n_sens):
        z[(n + 1 + m) * LANES + lane] = 0.0
    for j in range(n_dy0):
        z[y0_index[j] * LANES + lane] = x[j]
        if n_sens:
            z[(n + 1 + y0_index[j] * n_sens + j) * LANES + lane] = 1.0
    for j in range(n_constant):
        z[y0_constant[j] * LANES + lane] = c[j]
    z[n * LANES + lane] = 1.0
    if table[Z0] != 0:
        n_values = n * (1 + n_sens)
        z0 = doubles(table[Z0] + 8 * task * n_values)
        for m in range(n_values):
            z[(m if m < n else m + 1) * LANES + lane] = z0[m]
    for j in range(linear.n_p):
        p[j * LANES + lane] = x[n_dy0 + j] if j < n_dp else c[n_constant + j - n_dp]
    doubles(work.t)[lane] = doubles(table[T0])[i]


@innermost
def _record(linear, work, table, task, lane, row, time, gradient):
    """Write the solution at the sorted rows of a time, or add their part to the gradient; the next row."""
    n, z, last = linear.n, doubles(work.z), longs(table[STARTS])[task % table[N_SUBJECTS] + 1]
    replicate, n_sens = task // table[N_SUBJECTS], linear.n_dy0 + linear.n_dp
    while row < last and doubles(table[TIMES])[row] <= time:
        place = longs(table[ORDER])[row] * n
        if linear.jac != 0:
            g = doubles(table[G] + 8 * (replicate * table[G_STRIDE] + place))
            for m in range(n * n_sens):
                doubles(gradient)[m % n_sens] += g[m // n_sens] * z[(n + 1 + m) * LANES + lane]
        else:
            out = doubles(table[OUT] + 8 * (replicate * table[N_ROWS] * n + place))
            for i in range(n):
                out[i] = z[i * LANES + lane]
        row += 1
    return row


@innermost
def _finish(linear, work, table, task, lane, gradient, status):
    """Store the result of a task."""
    n, n_sens, replicate, i = linear.n, 0, task // table[N_SUBJECTS], task % table[N_SUBJECTS]
    if linear.jac != 0:
        n_sens = linear.n_dy0 + linear.n_dp
    if table[Z1] != 0:
        n_values = n * (1 + n_sens)
        z1 = doubles(table[Z1] + 8 * task * n_values)
        for m in range(n_values):
            z1[m] = doubles(work.z)[(m if m < n else m + 1) * LANES + lane]
    if linear.jac != 0:
        write_gradient(table, replicate, i, doubles(gradient), status)
    else:
        write_status(table, replicate, i, status)


@innermost
def _first_status(linear, work, table, task, lane):
    """Whether a task can run: its times, its matrix and its states are what they should be."""
    i, times, t0 = task % table[N_SUBJECTS], doubles(table[TIMES]), doubles(work.t)[lane]
    first, last, total = longs(table[STARTS])[i], longs(table[STARTS])[i + 1], doubles(work.sums)[lane]
    if first < last and not (times[first] >= t0 and math.isfinite(times[last - 1])):
        return _BAD_TIMES
    for m in range(linear.n):
        total += 0.0 * doubles(work.z)[m * LANES + lane]
    t_end = doubles(table[T_END])[i] if table[T_END] != 0 else t0
    return _NON_FINITE if total != 0.0 and (first < last or t_end > t0) else _RUNNING


@inlined
def _next_time(table, i, row, now):
    """The next time at which something is wanted of a subject, infinite if there is none."""
    if row < longs(table[STARTS])[i + 1]:
        return doubles(table[TIMES])[row]
    return doubles(table[T_END])[i] if table[T_END] != 0 and doubles(table[T_END])[i] > now else math.inf


@innermost
def _solve(linear, work, table, first, count, lanes):
    """Solve ``count`` tasks, at most one per lane; ``lanes``: memory for what is known of each lane."""
    n_x, z = linear.n_dy0 + linear.n_dp, LANES * 8
    state, rows, at, now, last_gap = longs(lanes), longs(lanes + z), doubles(lanes + 2 * z), doubles(lanes + 3 * z), doubles(lanes + 4 * z)
    gap, s, norm, sums = doubles(work.gap), doubles(work.s), doubles(work.norm), doubles(work.sums)
    limit = min(table[MAX_STEPS], _MOST_SQUARINGS)
    for lane in range(LANES):
        # Lanes without a task of their own repeat the last one.
        _load(linear, work, table, first + min(lane, count - 1), lane)
    measure(linear, work)
    for m in range(LANES * n_x):
        doubles(lanes + 5 * z)[m] = 0.0
    for lane in range(LANES):
        task, gradient = first + lane, lanes + 5 * z + 8 * lane * n_x
        state[lane], at[lane], gap[lane], last_gap[lane] = _SUCCESS, doubles(work.t)[lane], 0.0, -1.0
        now[lane] = at[lane]
        if lane < count:
            rows[lane] = longs(table[STARTS])[task % table[N_SUBJECTS]]
            state[lane] = _first_status(linear, work, table, task, lane)
            if state[lane] == _RUNNING:
                rows[lane] = _record(linear, work, table, task, lane, rows[lane], at[lane], gradient)
            else:
                _finish(linear, work, table, task, lane, gradient, state[lane])
    while True:
        n_running, is_new = 0, False
        for lane in range(LANES):
            if state[lane] != _RUNNING:
                continue
            task, gradient = first + lane, lanes + 5 * z + 8 * lane * n_x
            time = _next_time(table, task % table[N_SUBJECTS], rows[lane], at[lane])
            if time == math.inf:
                state[lane] = _SUCCESS
                _finish(linear, work, table, task, lane, gradient, _SUCCESS)
                continue
            gap[lane] = time - now[lane]
            # Times on a grid differ by the same but for rounding, which is made up for in the next gap.
            if abs(gap[lane] - last_gap[lane]) <= _FEW_UNITS * abs(time):
                gap[lane] = last_gap[lane]
            else:
                is_new, last_gap[lane] = True, gap[lane]
            squarings = n_squarings(norm[lane], gap[lane], limit)
            if squarings > limit:
                state[lane], gap[lane] = _MAX_STEPS, 0.0
                _finish(linear, work, table, task, lane, gradient, _MAX_STEPS)
                continue
            s[lane], at[lane] = squarings, time
            now[lane] += gap[lane]
            n_running += 1
        if n_running == 0:
            return
        if is_new:
            exponential(linear, work)
        move(linear, work)
        for lane in range(LANES):
            if state[lane] == _RUNNING:
                task, gradient = first + lane, lanes + 5 * z + 8 * lane * n_x
                if sums[lane] == 0.0:
                    rows[lane] = _record(linear, work, table, task, lane, rows[lane], at[lane], gradient)
                else:
                    state[lane] = _NON_FINITE
                    _finish(linear, work, table, task, lane, gradient, _NON_FINITE)


def _task(begin, end, table_address):
    """Solve the tasks begin to end, one per subject and replicate, or compute their gradients if the table has some."""
    table = longs(table_address)
    linear = Linear(table[RHS], table[JAC], table[N_STATES], table[N_P], table[N_DY0], table[N_DP])
    size = work_size(linear)
    memory = np.zeros(size + LANES * (5 + table[N_DY0] + table[N_DP]))
    address = memory.ctypes.data
    work = split(linear, address)
    for first in range(begin, end, LANES):
        _solve(linear, work, table, first, min(LANES, end - first), address + 8 * size)
    memory[0] = 0.0  # Numba frees an array after its last use
    return 0


@lru_cache
def _compiled():
    return compile_task(_task, cache=True)


def task(gradient):
    """Compiled task of the solver; one for every system, solutions and gradients, and kept on disk."""
    return _compiled()
