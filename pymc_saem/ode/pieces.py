"""A solve with events, in pieces: any solver goes from one event to the next, and here the events are carried out.

All subjects of a range go to the solver together, each with its next piece, so that lanes stay full. A piece starts from
the states and sensitivities of the last one. When an event's time depends on a parameter q, the sensitivities jump by
(f before - f after) dtime/dq, besides what the event itself depends on (Rozenvasser, Automation and Remote Control 28,
1967). Compiled on first use of events, and kept on disk.
"""

import math
from functools import lru_cache

import numpy as np

from pymc_saem.ode import events as ev
from pymc_saem.ode import status as st
from pymc_saem.ode import task_table as tt
from pymc_saem.ode.changes import (
    CYCLE,
    DONE,
    EPOCH,
    INDEX,
    LAST,
    N_FLOATS,
    N_INTS,
    NOW,
    ROW,
    STATUS,
    Task,
    carry_out,
    copy,
    end_interval,
    enter_cycle,
    n_cells,
    next_event,
    next_in_cycle,
    places_of,
    reset,
)
from pymc_saem.ode.native import call_task, compile_task, doubles, innermost, longs

__all__ = ["task"]


@innermost
def _write_rows(table, task):
    """Store the solution at the rows of this time, or add their part to the gradient."""
    n, n_sens, last = table[tt.N_STATES], table[tt.N_DY0] + table[tt.N_DP], longs(table[tt.STARTS])[task.subject + 1]
    cells, z, gradient, now = longs(task.cells), doubles(task.z), doubles(task.gradient), doubles(task.memory)[NOW]
    while cells[ROW] < last and doubles(table[tt.TIMES])[cells[ROW]] <= now:
        place = longs(table[tt.ORDER])[cells[ROW]]
        if table[tt.GX] != 0:
            g = doubles(table[tt.G] + 8 * (task.replicate * table[tt.G_STRIDE] + place * n))
            for m in range(n * n_sens):
                gradient[m % n_sens] += g[m // n_sens] * z[n + m]
        else:
            copy(task.z, table[tt.OUT] + 8 * (task.replicate * table[tt.N_ROWS] + place) * n, n)
        cells[ROW] += 1


@innermost
def _is_first(task, e):
    """Whether an event comes before the observations of its time."""
    return e >= 0 and (places_of(task, e)[ev.ACTION] == ev.RESET or places_of(task, e)[ev.ACTION] == ev.STEADY)


@innermost
def _plan(table, task, scratch):
    """Carry out all events of the present time; then where the next piece ends. Sets the status if there is none."""
    cells, memory, starts = longs(task.cells), doubles(task.memory), longs(table[tt.STARTS])
    last = starts[task.subject + 1]
    last_time = doubles(table[tt.TIMES])[last - 1] if last > starts[task.subject] else memory[NOW]
    while True:
        now = memory[NOW]
        if cells[CYCLE] >= 0:
            e, at = next_in_cycle(table, task)
            if at > now:
                return at
            if e >= 0:
                carry_out(table, task, e, scratch)
                cells[DONE] |= 1 << (e - cells[CYCLE] - 1)
            elif not end_interval(table, task):
                cells[STATUS] = st.NO_STEADY_STATE
                return now
            continue
        e, at = next_event(table, task)
        if e == -2 or at < now:
            cells[STATUS] = st.BAD_EVENT
            return now
        if at > now or not _is_first(task, e):
            _write_rows(table, task)
        if cells[ROW] == last:
            cells[STATUS] = st.SUCCESS
            return now
        if at > now:
            return min(at, last_time)
        memory[LAST], cells[INDEX] = at, e
        if not _is_first(task, e):
            carry_out(table, task, e, scratch)
            continue
        reset(table, task)
        cells[EPOCH] += 1
        if places_of(task, e)[ev.ACTION] == ev.STEADY and not enter_cycle(table, task, e):
            cells[STATUS] = st.BAD_EVENT
            return now


@innermost
def _start(table, task):
    """A task at its start time; the status is BAD_TIMES if its rows are not after it."""
    n, n_dy0, n_dp, i = table[tt.N_STATES], table[tt.N_DY0], table[tt.N_DP], task.subject
    x, c = tt.values_of(table, task.replicate, i)
    copy(x, task.x, n_dy0 + n_dp)
    copy(c, task.c, n - n_dy0 + table[tt.N_P] - n_dp)
    cells, memory, starts = longs(task.cells), doubles(task.memory), longs(table[tt.STARTS])
    number = task.replicate * table[tt.N_SUBJECTS] + i
    tt.load_start(table, number, 0, 1, task.z, n_cells(table) // n - 1, 0)
    memory[NOW], memory[LAST], cells[INDEX] = doubles(table[tt.T0])[i], -math.inf, -1
    cells[STATUS], cells[ROW], cells[CYCLE], cells[EPOCH] = st.RUNNING, starts[i], -1, 0
    if starts[i + 1] > starts[i]:
        times = doubles(table[tt.TIMES])
        if not (times[starts[i]] >= memory[NOW] and math.isfinite(times[starts[i + 1] - 1])):
            cells[STATUS] = st.BAD_TIMES


@innermost
def _gather_rows(table, task, stop, times, order, n_taken):
    """Rows of the piece that ends at ``stop``, which the solver itself writes; how many rows all pieces have."""
    cells, last = longs(task.cells), longs(table[tt.STARTS])[task.subject + 1]
    # In units of rows, whichever array of the replicate they are in.
    stride = table[tt.N_ROWS] if table[tt.GX] == 0 else table[tt.G_STRIDE] // table[tt.N_STATES]
    # Rows at its end are written when it is known what else happens then.
    while cells[CYCLE] < 0 and cells[ROW] < last and doubles(table[tt.TIMES])[cells[ROW]] < stop:
        doubles(times)[n_taken] = doubles(table[tt.TIMES])[cells[ROW]]
        longs(order)[n_taken] = task.replicate * stride + longs(table[tt.ORDER])[cells[ROW]]
        cells[ROW] += 1
        n_taken += 1
    return n_taken


@innermost
def _task_at(table, k, begin, address, size):
    """Task number k of a range whose memory begins at ``address``, ``size`` cells each."""
    n_values, n_x, n_subjects = n_cells(table), table[tt.N_DY0] + table[tt.N_DP], table[tt.N_SUBJECTS]
    a, i = address + 8 * k * size, (begin + k) % n_subjects
    cells = a + 8 * N_FLOATS
    z = cells + 8 * N_INTS
    saved = z + 8 * n_values
    x = saved + 8 * n_values
    gradient = x + 8 * n_x
    first = longs(table[tt.EVENT_STARTS])[i]
    return Task(
        (begin + k) // n_subjects, i, a, cells, z, saved, x, gradient + 8 * n_x, gradient,
        table[tt.EVENT_NUMBERS] + 8 * first * ev.N_NUMBERS, table[tt.EVENT_PLACES] + 8 * first * ev.N_PLACES,
        longs(table[tt.EVENT_STARTS])[i + 1] - first,
    )  # fmt: skip


def _task(begin, end, table_address):
    table, count = longs(table_address), end - begin
    n, n_p, n_values = table[tt.N_STATES], table[tt.N_P], n_cells(table)
    n_x = table[tt.N_DY0] + table[tt.N_DP]
    n_c = n + n_p - n_x
    size = N_FLOATS + N_INTS + 2 * n_values + 2 * n_x + n_c
    n_rows, row_starts = 0, longs(table[tt.STARTS])
    for k in range(begin, end):
        n_rows += row_starts[k % table[tt.N_SUBJECTS] + 1] - row_starts[k % table[tt.N_SUBJECTS]]
    # Of every piece: who, start and end, states there, values, gradient, status, first row; and the rows of all.
    memory = np.zeros(count * (size + 5 + 2 * n_values + 2 * n_x + n_c) + 1 + 2 * n_rows + 2 * n + n_p + tt.TABLE_SIZE)
    tasks = memory.ctypes.data
    who = tasks + 8 * count * size
    t0, t_end, status = who + 8 * count, who + 16 * count, who + 24 * count
    starts = who + 32 * count
    z0 = starts + 8 * (count + 1)
    z1 = z0 + 8 * count * n_values
    x = z1 + 8 * count * n_values
    gradient = x + 8 * count * n_x
    c = gradient + 8 * count * n_x
    times = c + 8 * count * n_c
    order = times + 8 * n_rows
    scratch = order + 8 * n_rows
    piece = longs(scratch + 8 * (2 * n + n_p))
    for k in range(tt.TABLE_SIZE):
        piece[k] = table[k]
    piece[tt.N_SUBJECTS], piece[tt.X_STRIDE], piece[tt.C_STRIDE], piece[tt.G_STRIDE] = count, 0, 0, 0
    piece[tt.TIMES], piece[tt.ORDER], piece[tt.STARTS], piece[tt.STATUS] = times, order, starts, status
    piece[tt.T0], piece[tt.T_END], piece[tt.Z0], piece[tt.Z1] = t0, t_end, z0, z1
    # A solve for values stays one: what is carried from piece to piece is as wide as the solver reads it.
    piece[tt.X], piece[tt.C], piece[tt.GX] = x, c, gradient if table[tt.GX] != 0 else 0
    for k in range(count):
        _start(table, _task_at(table, k, begin, tasks, size))
    while True:
        m = n_taken = 0
        for k in range(count):
            task = _task_at(table, k, begin, tasks, size)
            if longs(task.cells)[STATUS] != st.RUNNING:
                continue
            stop = _plan(table, task, scratch)
            if longs(task.cells)[STATUS] == st.RUNNING:
                n_taken = _gather_rows(table, task, stop, times, order, n_taken)
                longs(who)[m], longs(starts)[m + 1] = k, n_taken
                doubles(t0)[m], doubles(t_end)[m] = doubles(task.memory)[NOW], stop
                copy(task.z, z0 + 8 * m * n_values, n_values)
                copy(task.x, x + 8 * m * n_x, n_x)
                copy(task.c, c + 8 * m * n_c, n_c)
                m += 1
        if m == 0:
            break
        call_task(table[tt.SOLVER], 0, m, scratch + 8 * (2 * n + n_p))
        for j in range(m):
            task = _task_at(table, longs(who)[j], begin, tasks, size)
            copy(z1 + 8 * j * n_values, task.z, n_values)
            doubles(task.memory)[NOW] = doubles(t_end)[j]
            for q in range(n_x if table[tt.GX] != 0 else 0):
                doubles(task.gradient)[q] += doubles(gradient)[j * n_x + q]
            if longs(status)[j] != st.SUCCESS:
                longs(task.cells)[STATUS] = longs(status)[j]
    for k in range(count):
        task = _task_at(table, k, begin, tasks, size)
        if table[tt.GX] != 0:
            tt.write_gradient(table, task.replicate, task.subject, doubles(task.gradient), longs(task.cells)[STATUS])
        else:
            tt.write_status(table, task.replicate, task.subject, longs(task.cells)[STATUS])
    memory[0] = 0.0  # Numba frees an array after its last use
    return 0


@lru_cache
def task():
    """Compiled task for systems with events; the table holds the solver of the pieces."""
    return compile_task(_task)
