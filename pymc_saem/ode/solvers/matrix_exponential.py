"""The ``linear`` solver: systems with constant coefficients, by the matrix exponential from one time to the next.

Exact up to rounding, whatever the tolerances. Eight subjects are taken side by side
(``linear_engine``), each with its own matrix and times; an exponential serves as long as the gaps
between times stay the same. One task for solutions and gradients, compiled once per machine: a
model adds its right-hand side, by address.
"""

from __future__ import annotations

import math
from collections import namedtuple
from functools import lru_cache

import numpy as np
from numba.core.ccallback import CFunc

from pymc_saem.ode.runtime import status as st
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import Longs, compile_task, doubles, inlined, innermost, longs
from pymc_saem.ode.solvers.linear_engine import (
    LANES,
    LARGEST,
    Linear,
    Work,
    exponential,
    measure,
    move,
    split,
    work_size,
)

__all__ = ["task"]


# Rounding of relative size 1e-16 at the rate of the fastest state can grow by the number of fastest
# times in a gap: after 40 squarings, 1e12 of them, four digits of a slow state are left.
_MOST_SQUARINGS = 40
_FEW_UNITS = 4.0 * float(np.finfo(np.float64).eps)


@innermost
def _load(linear: Linear, work: Work, table: Longs, task: int, lane: int) -> None:
    """Put a task at its start into a lane; behind the states stands 1."""
    tt.load_parameters(table, task, lane, LANES, work.p)
    tt.load_start(table, task, lane, LANES, work.z, linear.n_sens, 1)
    doubles(work.z)[linear.n * LANES + lane] = 1.0
    doubles(work.t)[lane] = doubles(table[tt.T0])[task % table[tt.N_SUBJECTS]]


@inlined
def _record(
    linear: Linear, work: Work, table: Longs, task: int, lane: int, row: int, gradient: int
) -> None:
    """Write the solution at a sorted row, or add its part to the gradient."""
    n, n_sens, z = linear.n, linear.n_sens, doubles(work.z)
    replicate, place = task // table[tt.N_SUBJECTS], longs(table[tt.ORDER])[row] * n
    g = doubles(table[tt.G] + 8 * (replicate * table[tt.G_STRIDE] + place))
    out = doubles(table[tt.OUT] + 8 * (replicate * table[tt.N_ROWS] * n + place))
    sens = doubles(table[tt.SENS] + 8 * (replicate * table[tt.N_ROWS] * n + place) * n_sens)
    for m in range(n if n_sens == 0 or table[tt.SENS] != 0 else 0):
        out[m] = z[m * LANES + lane]
    for m in range(n * n_sens):
        if table[tt.SENS] != 0:
            sens[m] = z[(n + 1 + m) * LANES + lane]
        else:
            doubles(gradient)[m % n_sens] += g[m // n_sens] * z[(n + 1 + m) * LANES + lane]


@innermost
def _finish(
    linear: Linear, work: Work, table: Longs, task: int, lane: int, gradient: int, status: int
) -> None:
    """Store the result of a task."""
    n, replicate, i = linear.n, task // table[tt.N_SUBJECTS], task % table[tt.N_SUBJECTS]
    if table[tt.Z1] != 0:
        n_values = n * (1 + linear.n_sens)
        z1 = doubles(table[tt.Z1] + 8 * task * n_values)
        for m in range(n_values):
            z1[m] = doubles(work.z)[(m if m < n else m + 1) * LANES + lane]
    if table[tt.SENS] != 0 and status != st.SUCCESS:
        tt.forget_derivatives(table, replicate, i)
    if linear.n_sens > 0 and table[tt.SENS] == 0:
        tt.write_gradient(table, replicate, i, doubles(gradient), status)
    else:
        tt.write_status(table, replicate, i, status)


# Addresses, of what is known per lane: its status, next row, the last time reached, the same as a
# sum of gaps, the last gap; and per lane a gradient.
Lanes = namedtuple("Lanes", "state row at now last_gap gradient")


@innermost
def _next_gap(
    linear: Linear, work: Work, table: Longs, lanes: Lanes, task: int, lane: int
) -> tuple[int, bool]:
    """Write the rows of the present time, and find the next gap; the status, and whether the gap is as long as the last one."""
    i, row, at, gap = (
        task % table[tt.N_SUBJECTS],
        longs(lanes.row),
        doubles(lanes.at),
        doubles(work.gap),
    )
    times, last, before = (
        doubles(table[tt.TIMES]),
        longs(table[tt.STARTS])[i + 1],
        doubles(lanes.last_gap),
    )
    if doubles(work.sums)[lane] != 0.0:
        return st.NON_FINITE, True
    while row[lane] < last and times[row[lane]] <= at[lane]:
        _record(
            linear, work, table, task, lane, row[lane], lanes.gradient + 8 * lane * linear.n_sens
        )
        row[lane] += 1
    time = (
        times[row[lane]]
        if row[lane] < last
        else doubles(table[tt.T_END])[i]
        if table[tt.T_END] != 0
        else at[lane]
    )
    if not time > at[lane]:
        return st.SUCCESS, True
    at[lane], gap[lane] = time, time - doubles(lanes.now)[lane]
    # Times on a grid differ by the same but for rounding, which the next gap makes up for.
    is_same = abs(gap[lane] - before[lane]) <= _FEW_UNITS * abs(time)
    if is_same:
        gap[lane] = before[lane]
    before[lane] = gap[lane]
    doubles(lanes.now)[lane] += gap[lane]
    s, tau, size, most = (
        0,
        gap[lane],
        gap[lane] * doubles(work.norm)[lane],
        min(table[tt.MAX_STEPS], _MOST_SQUARINGS),
    )
    while size > LARGEST and s <= most:
        s, tau, size = s + 1, 0.5 * tau, 0.5 * size
    doubles(work.s)[lane], doubles(work.tau)[lane] = s, tau
    return (st.RUNNING if s <= most else st.MAX_STEPS), is_same


@inlined
def _solve(linear: Linear, work: Work, lanes: Lanes, table: Longs, first: int, count: int) -> None:
    """Solve ``count`` tasks, at most one per lane."""
    state, t0, t_end = longs(lanes.state), doubles(work.t), doubles(table[tt.T_END])
    for m in range(LANES * linear.n_sens):
        doubles(lanes.gradient)[m] = 0.0
    for lane in range(LANES):
        # Lanes without a task of their own repeat the last one.
        task = first + min(lane, count - 1)
        _load(linear, work, table, task, lane)
        i = task % table[tt.N_SUBJECTS]
        begin, end, times = (
            longs(table[tt.STARTS])[i],
            longs(table[tt.STARTS])[i + 1],
            doubles(table[tt.TIMES]),
        )
        doubles(lanes.at)[lane] = doubles(lanes.now)[lane] = t0[lane]
        longs(lanes.row)[lane], doubles(lanes.last_gap)[lane] = begin, -1.0
        doubles(work.s)[lane] = doubles(work.tau)[lane] = 0.0
        state[lane] = st.RUNNING
        if begin < end and not (times[begin] >= t0[lane] and math.isfinite(times[end - 1])):
            state[lane] = st.BAD_TIMES
        elif begin == end and not (table[tt.T_END] != 0 and t_end[i] > t0[lane]):
            state[lane] = st.SUCCESS
        if lane < count and state[lane] != st.RUNNING:
            _finish(linear, work, table, task, lane, lanes.gradient, state[lane])
    measure(linear, work)
    while True:
        n_running, is_known = 0, True
        for lane in range(count):
            if state[lane] == st.RUNNING:
                status, is_same = _next_gap(linear, work, table, lanes, first + lane, lane)
                if status == st.RUNNING:
                    n_running, is_known = n_running + 1, is_known and is_same
                else:
                    state[lane] = status
                    doubles(work.s)[lane] = doubles(work.tau)[lane] = 0.0
                    gradient = lanes.gradient + 8 * lane * linear.n_sens
                    _finish(linear, work, table, first + lane, lane, gradient, state[lane])
        if n_running == 0:
            return
        if not is_known:
            exponential(linear, work)
        move(linear, work)


def _task(begin: int, end: int, table_address: int) -> int:
    """Solve the tasks begin to end, one per subject and replicate, or compute their gradients if the table has some."""
    table = longs(table_address)
    n_sens = tt.n_sens(table)
    n_dp = table[tt.N_DP] if n_sens > 0 else 0
    linear = Linear(
        table[tt.RHS],
        table[tt.JAC],
        table[tt.N_STATES],
        table[tt.N_P],
        table[tt.N_DY0],
        n_dp,
        n_sens,
    )
    size = work_size(linear)
    memory = np.zeros(size + LANES * (5 + n_sens))
    a, b = memory.ctypes.data, 8 * LANES
    work = split(linear, a)
    a += 8 * size
    lanes = Lanes(a, a + b, a + 2 * b, a + 3 * b, a + 4 * b, a + 5 * b)
    for first in range(begin, end, LANES):
        _solve(linear, work, lanes, table, first, min(LANES, end - first))
    memory[0] = 0.0  # Numba frees an array after its last use
    return 0


@lru_cache
def _compiled() -> CFunc:
    return compile_task(_task)


def task(gradient: bool) -> CFunc:
    """Compiled task of the solver; one for every system, solutions and gradients, and kept on disk."""
    return _compiled()
