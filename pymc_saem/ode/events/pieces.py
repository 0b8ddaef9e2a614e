"""A solve with events, in pieces: any solver goes from one event to the next, and here the events are carried out.

All subjects of a range go to the solver together, each with its next piece, so that lanes stay
full. A piece starts from the states and sensitivities of the last one. When an event's time depends
on a parameter q, the sensitivities jump by (f before - f after) dtime/dq, besides what the event
itself depends on (Rozenvasser, Automation and Remote Control 28, 1967). Compiled on first use of
events, and kept on disk.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba.core.ccallback import CFunc

from pymc_saem.ode.events import doses as ev
from pymc_saem.ode.events.changes import carry_out, copy, empty
from pymc_saem.ode.events.instants import (
    CYCLE,
    DOSE,
    FIXED,
    N_FLOATS,
    N_INTS,
    NEAR,
    NOW,
    PERIOD,
    ROW,
    STATUS,
    UNITS,
    Task,
    begin_period,
    n_cells,
    n_schedule,
    next_dose,
    next_fixed,
    places_of,
    take_dose,
)
from pymc_saem.ode.events.steady import begin_steady_state, go_on_in_cycle
from pymc_saem.ode.runtime import status as st
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import Longs, call_task, compile_task, doubles, innermost, longs

__all__ = ["task"]


@innermost
def _write_rows(table: Longs, task: Task) -> None:
    """Store the solution at the rows of this time, or add their part to the gradient."""
    n, n_sens, last = (
        table[tt.N_STATES],
        tt.n_sens(table),
        longs(table[tt.STARTS])[task.subject + 1],
    )
    cells, z, gradient = longs(task.cells), doubles(task.z), doubles(task.gradient)
    now = doubles(task.memory)[NOW] + doubles(task.memory)[NEAR]
    while cells[ROW] < last and doubles(table[tt.TIMES])[cells[ROW]] <= now:
        place = longs(table[tt.ORDER])[cells[ROW]]
        if n_sens > 0:
            g = doubles(table[tt.G] + 8 * (task.replicate * table[tt.G_STRIDE] + place * n))
            for m in range(n * n_sens):
                gradient[m % n_sens] += g[m // n_sens] * z[n + m]
        else:
            copy(task.z, table[tt.OUT] + 8 * (task.replicate * table[tt.N_ROWS] + place) * n, n)
        cells[ROW] += 1


@innermost
def _take_fixed(table: Longs, task: Task, scratch: int) -> None:
    """Carry out the next event at a given time: a covariate, a reset, or the beginning of a steady state."""
    cells = longs(task.cells)
    e = cells[FIXED]
    places = places_of(task, e)
    cells[FIXED] = e + 1
    if places[ev.ACTION] == ev.RESET:
        empty(table, task)
        cells[PERIOD] += 1
        if not begin_period(table, task):
            cells[STATUS] = st.BAD_EVENT
    elif places[ev.ACTION] == ev.STEADY:
        cells[FIXED] += places[ev.TARGET]  # what it is the steady state of
        begin_steady_state(table, task, e)
    else:
        carry_out(table, task, e, scratch)


@innermost
def _plan(table: Longs, task: Task, scratch: int) -> float:
    """Carry out all events of the present instant; then where the next piece ends. Sets the status if there is none."""
    cells, memory = longs(task.cells), doubles(task.memory)
    last = longs(table[tt.STARTS])[task.subject + 1]
    while cells[STATUS] == st.RUNNING:
        soon = memory[NOW] + memory[NEAR]
        if cells[CYCLE] >= 0:
            stop, is_piece = go_on_in_cycle(table, task, scratch)
            if is_piece:
                return stop
        elif next_fixed(task) <= soon:
            _take_fixed(table, task, scratch)
        else:
            _write_rows(table, task)
            if cells[ROW] == last:
                cells[STATUS] = st.SUCCESS
            elif next_dose(task) <= soon:
                carry_out(table, task, take_dose(task), scratch)
            else:
                return min(next_fixed(task), next_dose(task), doubles(table[tt.TIMES])[last - 1])
    return memory[NOW]


@innermost
def _start(table: Longs, task: Task) -> None:
    """A task at its start time; the status is BAD_TIMES if its rows are not after it."""
    n, n_dy0, n_dp, i = table[tt.N_STATES], table[tt.N_DY0], table[tt.N_DP], task.subject
    x, c = tt.values_of(table, task.replicate, i)
    copy(x, task.x, n_dy0 + n_dp)
    copy(c, task.c, n - n_dy0 + table[tt.N_P] - n_dp)
    cells, memory, times = longs(task.cells), doubles(task.memory), doubles(table[tt.TIMES])
    tt.load_start(
        table, task.replicate * table[tt.N_SUBJECTS] + i, 0, 1, task.z, tt.n_sens(table), 0
    )
    first, last = longs(table[tt.STARTS])[i], longs(table[tt.STARTS])[i + 1]
    memory[NOW] = memory[NEAR] = doubles(table[tt.T0])[i]
    cells[STATUS], cells[ROW], cells[CYCLE], cells[FIXED], cells[DOSE], cells[PERIOD] = (
        st.RUNNING,
        first,
        -1,
        0,
        0,
        0,
    )
    if last > first:
        if not (times[first] >= memory[NOW] and math.isfinite(times[last - 1])):
            cells[STATUS] = st.BAD_TIMES
        memory[NEAR] = times[last - 1]
    memory[NEAR] = UNITS * max(abs(memory[NOW]), abs(memory[NEAR]))
    if cells[STATUS] == st.RUNNING and not begin_period(table, task):
        cells[STATUS] = st.BAD_EVENT


@innermost
def _gather_rows(
    table: Longs, task: Task, stop: float, times: int, order: int, n_taken: int
) -> int:
    """Rows of the piece that ends at ``stop``, which the solver itself writes; how many rows all pieces have."""
    cells, last = longs(task.cells), longs(table[tt.STARTS])[task.subject + 1]
    # In units of rows, whichever array of the replicate they are in.
    stride = table[tt.N_ROWS] if tt.n_sens(table) == 0 else table[tt.G_STRIDE] // table[tt.N_STATES]
    # Rows at its end are written when it is known what else happens then.
    before = stop - doubles(task.memory)[NEAR]
    while cells[CYCLE] < 0 and cells[ROW] < last and doubles(table[tt.TIMES])[cells[ROW]] < before:
        doubles(times)[n_taken] = doubles(table[tt.TIMES])[cells[ROW]]
        longs(order)[n_taken] = task.replicate * stride + longs(table[tt.ORDER])[cells[ROW]]
        cells[ROW] += 1
        n_taken += 1
    return n_taken


class Range(NamedTuple):
    """The tasks of a range, and the addresses of what they share; pieces stand in the order of the running tasks."""

    begin: int  # number of the first task
    tasks: int  # cells of the tasks,
    size: int  # and how many each has
    schedules: int  # when the doses of the tasks come
    who: int  # of every piece: number of its task in the range,
    t0: int  # start,
    t_end: int  # end,
    status: int
    starts: int  # first row,
    z0: int  # states at the start
    z1: int  # and at the end,
    x: int  # differentiable values,
    gradient: int
    c: int  # constant values
    times: int  # rows of all pieces: times
    order: int  # and places
    scratch: int
    table: int  # of the solver's call for the pieces


@innermost
def _sizes(table: Longs) -> tuple[int, int, int, int]:
    """Numbers of states with sensitivities, of differentiable and of constant values; cells of a task."""
    n_values, n_x = n_cells(table), table[tt.N_DY0] + table[tt.N_DP]
    n_c = table[tt.N_STATES] + table[tt.N_P] - n_x
    return (
        n_values,
        n_x,
        n_c,
        N_FLOATS + N_INTS + 4 * n_values + 2 * n_x + n_c + table[tt.N_INFUSIONS],
    )


@innermost
def _before(starts: Longs, n_subjects: int, k: int) -> int:
    """Sum of the lengths of tasks 0 to k - 1, from where those of each subject start."""
    return k // n_subjects * starts[n_subjects] + starts[k % n_subjects]


@innermost
def _n_of_range(table: Longs, which: int, begin: int, end: int) -> int:
    """Rows or events of the tasks of a range."""
    starts, n = longs(table[which]), table[tt.N_SUBJECTS]
    return _before(starts, n, end) - _before(starts, n, begin)


@innermost
def _split(table: Longs, begin: int, end: int, a: int) -> tuple[Range, int]:
    """The parts of the memory at address ``a``, and where it ends; called with 0, the latter is its size."""
    n_values, n_x, n_c, size = _sizes(table)
    b, n_rows = 8 * (end - begin), _n_of_range(table, tt.STARTS, begin, end)
    schedules = a + b * size
    who = schedules + 8 * n_schedule(_n_of_range(table, tt.EVENT_STARTS, begin, end))
    t0, t_end, status, starts = who + b, who + 2 * b, who + 3 * b, who + 4 * b
    z0 = starts + b + 8
    z1 = z0 + b * n_values
    x = z1 + b * n_values
    gradient = x + b * n_x
    c = gradient + b * n_x
    times = c + b * n_c
    order = times + 8 * n_rows
    scratch = order + 8 * n_rows
    piece = scratch + 8 * (2 * table[tt.N_STATES] + table[tt.N_P])
    parts = Range(
        begin,
        a,
        size,
        schedules,
        who,
        t0,
        t_end,
        status,
        starts,
        z0,
        z1,
        x,
        gradient,
        c,
        times,
        order,
        scratch,
        piece,
    )
    return parts, piece + 8 * tt.TABLE_SIZE


@innermost
def _task_at(table: Longs, parts: Range, k: int) -> Task:
    """Task number k of a range."""
    n_values, n_x, n_c, size = _sizes(table)
    n, number = table[tt.N_SUBJECTS], parts.begin + k
    i, event_starts, a = number % n, longs(table[tt.EVENT_STARTS]), parts.tasks + 8 * k * size
    cells = a + 8 * N_FLOATS
    z = cells + 8 * N_INTS
    x = z + 32 * n_values
    c = x + 16 * n_x
    first = event_starts[i]
    n_earlier = _before(event_starts, n, number) - _before(event_starts, n, parts.begin)
    return Task(
        number // n, i, a, cells, z, z + 8 * n_values, z + 16 * n_values, z + 24 * n_values, x, c, c + 8 * n_c, x + 8 * n_x,
        parts.schedules + 8 * n_schedule(n_earlier), table[tt.EVENT_NUMBERS] + 8 * first * ev.N_NUMBERS,
        table[tt.EVENT_PLACES] + 8 * first * ev.N_PLACES, event_starts[i + 1] - first,
    )  # fmt: skip


@innermost
def _make_table(table: Longs, parts: Range, count: int) -> None:
    """The table of a solver's call for one piece of each task."""
    piece = longs(parts.table)
    for k in range(tt.TABLE_SIZE):
        piece[k] = table[k]
    piece[tt.N_SUBJECTS], piece[tt.X_STRIDE], piece[tt.C_STRIDE], piece[tt.G_STRIDE] = (
        count,
        0,
        0,
        0,
    )
    piece[tt.TIMES], piece[tt.ORDER], piece[tt.STARTS] = parts.times, parts.order, parts.starts
    piece[tt.T0], piece[tt.T_END], piece[tt.STATUS] = parts.t0, parts.t_end, parts.status
    piece[tt.Z0], piece[tt.Z1], piece[tt.X], piece[tt.C] = parts.z0, parts.z1, parts.x, parts.c
    # A solve for values stays one: what is carried from piece to piece is as wide as the solver
    # reads it.
    piece[tt.GX] = parts.gradient if table[tt.GX] != 0 else 0


@innermost
def _gather(table: Longs, parts: Range, n_running: int) -> int:
    """The next pieces of the running tasks, whose numbers stand in ``who``; how many continue."""
    n_values, n_x, n_c, size = _sizes(table)
    who, m, n_taken = longs(parts.who), 0, 0
    for j in range(n_running):
        k = who[j]
        task = _task_at(table, parts, k)
        stop = _plan(table, task, parts.scratch)
        if longs(task.cells)[STATUS] == st.RUNNING:
            n_taken = _gather_rows(table, task, stop, parts.times, parts.order, n_taken)
            who[m], longs(parts.starts)[m + 1] = k, n_taken
            doubles(parts.t0)[m], doubles(parts.t_end)[m] = doubles(task.memory)[NOW], stop
            copy(task.z, parts.z0 + 8 * m * n_values, n_values)
            copy(task.x, parts.x + 8 * m * n_x, n_x)
            copy(task.c, parts.c + 8 * m * n_c, n_c)
            m += 1
    return m


@innermost
def _spread(table: Longs, parts: Range, n_running: int) -> None:
    """Give the tasks what the solver made of their pieces."""
    n_values, n_x, n_c, size = _sizes(table)
    for j in range(n_running):
        task = _task_at(table, parts, longs(parts.who)[j])
        copy(parts.z1 + 8 * j * n_values, task.z, n_values)
        doubles(task.memory)[NOW] = doubles(parts.t_end)[j]
        for q in range(n_x if table[tt.GX] != 0 else 0):
            doubles(task.gradient)[q] += doubles(parts.gradient)[j * n_x + q]
        if longs(parts.status)[j] != st.SUCCESS:
            longs(task.cells)[STATUS] = longs(parts.status)[j]


def _task(begin: int, end: int, table_address: int) -> int:
    table, count = longs(table_address), end - begin
    _, n_bytes = _split(table, begin, end, 0 * begin)
    memory = np.zeros(n_bytes // 8)
    parts, _ = _split(table, begin, end, memory.ctypes.data)
    _make_table(table, parts, count)
    for k in range(count):
        _start(table, _task_at(table, parts, k))
        longs(parts.who)[k] = k
    n_running = _gather(table, parts, count)
    while n_running > 0:
        call_task(table[tt.SOLVER], 0, n_running, parts.table)
        _spread(table, parts, n_running)
        n_running = _gather(table, parts, n_running)
    for k in range(count):
        task = _task_at(table, parts, k)
        status = longs(task.cells)[STATUS]
        if table[tt.GX] != 0:
            tt.write_gradient(table, task.replicate, task.subject, doubles(task.gradient), status)
        else:
            tt.write_status(table, task.replicate, task.subject, status)
    memory[0] = 0.0  # Numba frees an array after its last use
    return 0


@lru_cache
def task() -> CFunc:
    """Compiled task for systems with events; the table holds the solver of the pieces."""
    return compile_task(_task)
