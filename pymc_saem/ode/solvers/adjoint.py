"""Gradients by the discrete adjoint of ``tsit5``: the recorded steps are taken back, last one first.

Forward sensitivities carry a column for every parameter through every stage; here each stage costs
one vector-Jacobian product, whatever the number of parameters. With some thousand weights that is
the only way. The result is the exact derivative of the numerical solution at its step sizes, so it
is as accurate as the solution, but no tolerance controls its own error. (Hairer, Lubich & Wanner,
Geometric Numerical Integration, VI.1, for explicit methods.)

``lanes`` solves and records; this file goes back, with the same lanes. Stiff subjects get their
gradient from ``cvodes``.
"""

from __future__ import annotations

from collections import namedtuple
from functools import cache

import numpy as np
from numba.core.ccallback import CFunc

from pymc_saem.ode.runtime import status as st
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import (
    Longs,
    call_lanes,
    call_task,
    compile_task,
    doubles,
    innermost,
    longs,
)
from pymc_saem.ode.solvers import tsit5

__all__ = ["task"]

_LANES, _STAGES = 8, 7
# Addresses. By lane: t and h of the step, t_now of a stage, t_next (the end of the step), row and
# steps that are left. By value and lane: start z of the step, the adjoints of z and of one stage's
# values; values, slopes and adjoints of slopes of all stages; parameters p, their adjoints from one
# stage, and in total. Last the gradient of one task.
Work = namedtuple(
    "Work", "t h now t_next row left z z_bar y_bar values slopes slope_bars p p_bar total gradient"
)
# Row i: weights of the earlier slopes in the values of stage i; the last stage is the end of the
# step.
_A = np.zeros((_STAGES, _STAGES))
_A[1, :1] = tsit5.A21
_A[2, :2] = tsit5.A31, tsit5.A32
_A[3, :3] = tsit5.A41, tsit5.A42, tsit5.A43
_A[4, :4] = tsit5.A51, tsit5.A52, tsit5.A53, tsit5.A54
_A[5, :5] = tsit5.A61, tsit5.A62, tsit5.A63, tsit5.A64, tsit5.A65
_A[6, :6] = tsit5.B1, tsit5.B2, tsit5.B3, tsit5.B4, tsit5.B5, tsit5.B6
_C = np.array([0.0, tsit5.C2, tsit5.C3, tsit5.C4, tsit5.C5, 1.0, 1.0])


@innermost
def _split(table: Longs, a: int) -> Work:
    """Parts of the memory at address ``a``."""
    b = 8 * _LANES
    s = b * table[tt.N_STATES]
    z, p = a + 6 * b, a + 6 * b + (3 + 3 * _STAGES) * s
    values, total = z + 3 * s, p + (table[tt.N_P] + table[tt.N_DP]) * b
    return Work(
        a, a + b, a + 2 * b, a + 3 * b, a + 4 * b, a + 5 * b, z, z + s, z + 2 * s, values, values + _STAGES * s,
        values + 2 * _STAGES * s, p, p + table[tt.N_P] * b, total, total + table[tt.N_DP] * b,
    )  # fmt: skip


@innermost
def _enter(table: Longs, work: Work, task: int, lane: int, n_steps: int) -> None:
    """Put a task with that many steps into a lane, at its end."""
    n, n_dp, i = table[tt.N_STATES], table[tt.N_DP], task % table[tt.N_SUBJECTS]
    starts = longs(table[tt.STARTS])
    tt.load_parameters(table, task, lane, _LANES, work.p)
    for e in range(n):
        doubles(work.z_bar)[e * _LANES + lane] = 0.0
    for j in range(n_dp):
        doubles(work.total)[j * _LANES + lane] = 0.0
    row = starts[i + 1] - 1
    longs(work.row)[lane], longs(work.left)[lane] = row, n_steps
    doubles(work.t_next)[lane] = doubles(table[tt.TIMES])[row] if row >= starts[i] else 0.0


@innermost
def _take_row(table: Longs, work: Work, task: int, lane: int, s: float, h: float) -> None:
    """Add the cotangent of the last row, at the fraction s of a step, to the adjoints of the step's start and slopes."""
    n, replicate, row = table[tt.N_STATES], task // table[tt.N_SUBJECTS], longs(work.row)[lane]
    g = doubles(
        table[tt.G] + 8 * (replicate * table[tt.G_STRIDE] + longs(table[tt.ORDER])[row] * n)
    )
    z_bar, slope_bars, size = doubles(work.z_bar), doubles(work.slope_bars), n * _LANES
    w1, w2, w3, w4, w5, w6, w7 = tsit5.weights(s)
    for e in range(n):
        m, value = e * _LANES + lane, g[e]
        z_bar[m] += value
        value *= h
        slope_bars[m] += w1 * value
        slope_bars[size + m] += w2 * value
        slope_bars[2 * size + m] += w3 * value
        slope_bars[3 * size + m] += w4 * value
        slope_bars[4 * size + m] += w5 * value
        slope_bars[5 * size + m] += w6 * value
        slope_bars[6 * size + m] += w7 * value
    longs(work.row)[lane] = row - 1


@innermost
def _recall(table: Longs, work: Work, tape: int, task: int, lane: int) -> None:
    """Put the last step that is left into a lane, with the adjoints of its slopes that come from its end and its rows."""
    n, size, h_ = table[tt.N_STATES], table[tt.N_STATES] * _LANES, doubles(work.h)
    left = longs(work.left)[lane] - 1
    if left < 0:
        h_[lane] = 0.0
        return
    longs(work.left)[lane] = left
    record = doubles(tape + 8 * (lane * table[tt.MAX_STEPS] + left) * (2 + n))
    t, h = record[0], record[1]
    doubles(work.t)[lane], h_[lane] = t, h
    for e in range(n):
        m = e * _LANES + lane
        doubles(work.z)[m] = record[2 + e]
        for j in range(_STAGES - 1):
            doubles(work.slope_bars)[j * size + m] = h * _A[_STAGES - 1, j] * doubles(work.z_bar)[m]
    first, times = longs(table[tt.STARTS])[task % table[tt.N_SUBJECTS]], doubles(table[tt.TIMES])
    while longs(work.row)[lane] >= first and times[longs(work.row)[lane]] > t:
        at = times[longs(work.row)[lane]]
        _take_row(
            table, work, task, lane, 1.0 if at == doubles(work.t_next)[lane] else (at - t) / h, h
        )
    doubles(work.t_next)[lane] = t


@innermost
def _set_time(work: Work, i: int) -> None:
    for lane in range(_LANES):
        doubles(work.now)[lane] = doubles(work.t)[lane] + _C[i] * doubles(work.h)[lane]


@innermost
def _stages(table: Longs, work: Work) -> None:
    """Values of all stages of a step, and the slopes that they need."""
    size = table[tt.N_STATES] * _LANES
    z, h, y, k = doubles(work.z), doubles(work.h), doubles(work.values), doubles(work.slopes)
    for i in range(_STAGES):
        for m in range(size):
            total = 0.0
            for j in range(i):
                total += _A[i, j] * k[j * size + m]
            y[i * size + m] = z[m] + h[m % _LANES] * total
        if i < _STAGES - 1:
            _set_time(work, i)
            offset = 8 * i * size
            call_lanes(
                table[tt.RHS],
                _LANES,
                work.now,
                work.values + offset,
                work.p,
                work.slopes + offset,
                0,
                0,
            )


@innermost
def _pull_back(table: Longs, work: Work) -> None:
    """From the adjoints of the slopes to those of the step's start and of the parameters."""
    size, h, bars = table[tt.N_STATES] * _LANES, doubles(work.h), doubles(work.slope_bars)
    for i in range(_STAGES - 1, -1, -1):
        used = False
        for m in range(size):
            used = used or bars[i * size + m] != 0.0
        if not used:  # the last slope matters to rows inside the step only
            continue
        _set_time(work, i)
        offset = 8 * i * size
        call_lanes(
            table[tt.VJP],
            _LANES,
            work.now,
            work.values + offset,
            work.p,
            work.slope_bars + offset,
            work.y_bar,
            work.p_bar,
        )
        for m in range(size):
            if h[m % _LANES] > 0.0:  # a lane without a step may hold anything
                doubles(work.z_bar)[m] += doubles(work.y_bar)[m]
                for j in range(i):
                    bars[j * size + m] += h[m % _LANES] * _A[i, j] * doubles(work.y_bar)[m]
        for first in range(0, table[tt.N_DP] * _LANES, _LANES):
            for lane in range(_LANES):
                doubles(work.total)[first + lane] += (
                    doubles(work.p_bar)[first + lane] if h[lane] > 0.0 else 0.0
                )


@innermost
def _leave(table: Longs, work: Work, task: int, lane: int, status: int) -> None:
    """Take the rows at the start, and store the gradient of a task."""
    n_dy0, gradient, i = table[tt.N_DY0], doubles(work.gradient), task % table[tt.N_SUBJECTS]
    while status == 0 and longs(work.row)[lane] >= longs(table[tt.STARTS])[i]:
        _take_row(table, work, task, lane, 0.0, 0.0)
    for j in range(n_dy0):
        gradient[j] = doubles(work.z_bar)[longs(table[tt.Y0_INDEX])[j] * _LANES + lane]
    for j in range(table[tt.N_DP]):
        gradient[n_dy0 + j] = doubles(work.total)[j * _LANES + lane]
    tt.write_gradient(table, task // table[tt.N_SUBJECTS], i, gradient, status)


def _task(begin: int, end: int, table_address: int) -> int:
    """Gradients of the tasks begin to end, as many at a time as there are lanes."""
    table = longs(table_address)
    n, n_dp = table[tt.N_STATES], table[tt.N_DP]
    memory = np.zeros(
        (6 + n * (3 + 3 * _STAGES) + table[tt.N_P] + 2 * n_dp) * _LANES + table[tt.N_DY0] + n_dp
    )
    work = _split(table, memory.ctypes.data)
    tape, counts = np.empty(_LANES * table[tt.MAX_STEPS] * (2 + n)), np.zeros(1 + _LANES, np.int64)
    status, nobody, inner = (
        np.zeros(end, np.int64),
        np.zeros(2, np.int64),
        np.empty(tt.TABLE_SIZE, np.int64),
    )
    # The table of the solutions that are recorded; a stiff subject stays marked as such.
    for m in range(tt.TABLE_SIZE):
        inner[m] = table[m]
    inner[tt.GX], inner[tt.OUT], inner[tt.STATUS], inner[tt.TAPE] = (
        0,
        0,
        status.ctypes.data,
        counts.ctypes.data,
    )
    inner[tt.STIFF] = nobody.ctypes.data if table[tt.STIFF] != 0 else 0
    for first in range(begin, end, _LANES):
        n_used, most = min(_LANES, end - first), 0
        counts[0] = tape.ctypes.data
        for lane in range(_LANES):
            counts[1 + lane] = 0
        call_task(table[tt.SOLVER], first, first + n_used, inner.ctypes.data)
        for lane in range(_LANES):  # lanes without a task take the last one, and no step
            task = first + min(lane, n_used - 1)
            n_steps = counts[1 + lane] if lane < n_used and status[task] == 0 else 0
            _enter(table, work, task, lane, n_steps)
            most = max(most, n_steps)
        for _ in range(most):
            for m in range(_STAGES * n * _LANES):
                doubles(work.slope_bars)[m] = 0.0
            for lane in range(_LANES):
                _recall(table, work, tape.ctypes.data, first + lane, lane)
            _stages(table, work)
            _pull_back(table, work)
        for lane in range(n_used):
            if status[first + lane] == st.STIFF and longs(table[tt.STIFF])[0] != 0:
                call_task(longs(table[tt.STIFF])[0], first + lane, first + lane + 1, table_address)
            else:
                _leave(table, work, first + lane, lane, status[first + lane])
    memory[0], tape[0] = 0.0, 0.0  # Numba frees an array after its last use
    status[begin] = counts[0] + nobody[0] + inner[0]
    return 0


@cache
def task() -> CFunc:
    """The compiled task; one for every system, and kept on disk."""
    return compile_task(_task)
