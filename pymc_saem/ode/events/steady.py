"""The steady state of a dose: its intervals, one after the other, until the states at their end no longer change.

It is computed from empty states, in isolation, and then added to the current states: a dose with
``ss`` 1 comes after a reset, one with ``ss`` 2 does not. Doses whose lag or infusion is longer than
the interval overlap with the next; how many of them run at the start of an interval is a difference
of whole numbers.

An infusion without end has no interval. Its lengths grow until the states follow.
"""

from __future__ import annotations

import math

from pymc_saem.ode.events import doses as ev
from pymc_saem.ode.events.changes import carry_out, copy, empty, infusion_of
from pymc_saem.ode.events.instants import (
    CALM,
    CHANGE,
    CYCLE,
    DONE,
    INTERVALS,
    LENGTH,
    NEAR,
    NOW,
    PACE,
    PHASE,
    STATUS,
    UNTIL,
    Task,
    instant,
    n_cells,
    numbers_of,
    phase_of,
    places_of,
)
from pymc_saem.ode.runtime import status as st
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import Longs, doubles, innermost, longs

__all__ = ["begin_steady_state", "go_on_in_cycle"]

# Intervals before a steady state is given up, and the remaining change, in units of the tolerance,
# at which it is reached.
_MAX_INTERVALS, _STEADY = 2000, 0.1
# Changes, in the same units, that count as none, and that may come from rounding and steps.
_STILL, _TREMBLE = 1e-3, 1.0
# Of a constant infusion: the first length, how often it may grow, and the change over one that
# counts as none: an explicit solver fluctuates by about the tolerance where it could take steps of
# any length.
_FIRST_LENGTH, _MAX_LENGTHS, _CALM = 2.0**-10, 60, 2.0


@innermost
def begin_steady_state(table: Longs, task: Task, steady: int) -> None:
    """Begin the intervals of a steady state, or set the status if lag or duration is bad."""
    cells, memory, c = longs(task.cells), doubles(task.memory), doubles(task.c)
    copy(task.z, task.before, n_cells(table))
    for k in range(table[tt.N_INFUSIONS]):
        doubles(task.c_before)[k] = c[infusion_of(table, k)]
    empty(table, task)
    copy(task.z, task.saved, n_cells(table))
    copy(task.z, task.earlier, n_cells(table))
    time, length, running = (
        numbers_of(task, steady)[ev.TIME],
        numbers_of(task, steady)[ev.INTERVAL],
        0,
    )
    for k in range(places_of(task, steady)[ev.TARGET]):
        memory[PHASE + k], n_before = phase_of(table, task, steady + 1 + k)
        if not math.isfinite(memory[PHASE + k]):
            cells[STATUS] = st.BAD_EVENT
        running = n_before - running
    if length == 0.0:
        length, running = max(_FIRST_LENGTH, 1e6 * memory[NEAR]), 1
    first = places_of(task, steady + 1)
    if first[ev.ACTION] == ev.ADD_PARAMETER:
        c[table[tt.N_STATES] - table[tt.N_DY0] + first[ev.TARGET] - table[tt.N_DP]] = (
            running * numbers_of(task, steady + 1)[ev.AMOUNT]
        )
    cells[CYCLE], cells[DONE], cells[INTERVALS], cells[CALM] = steady, 0, 0, 0
    memory[UNTIL], memory[LENGTH], memory[CHANGE], memory[PACE] = time, length, math.inf, math.inf
    memory[NOW] = time - length


@innermost
def _next_in_cycle(task: Task) -> tuple[int, float]:
    """What comes next in an interval, and when; -1 is its end."""
    cells, memory, best = longs(task.cells), doubles(task.memory), -1
    at, steady = memory[UNTIL], cells[CYCLE]
    for k in range(
        places_of(task, steady)[ev.TARGET] if numbers_of(task, steady)[ev.INTERVAL] > 0.0 else 0
    ):
        if not cells[DONE] & (1 << k):
            # Once in every interval, whatever rounding makes of its time.
            time = min(instant(task, steady + 1 + k, memory[PHASE + k], -1), memory[UNTIL])
            if best < 0 or time < at:
                best, at = steady + 1 + k, time
    return best, at


@innermost
def go_on_in_cycle(table: Longs, task: Task, scratch: int) -> tuple[float, bool]:
    """Carry out what a steady state has at the present time. Where the next piece ends, or 0 and False if there is none."""
    cells, memory = longs(task.cells), doubles(task.memory)
    e, at = _next_in_cycle(task)
    if at > memory[NOW] + memory[NEAR]:
        return at, True
    if e >= 0:
        carry_out(table, task, e, scratch)
        cells[DONE] |= 1 << (e - cells[CYCLE] - 1)
    else:
        _end_interval(table, task)
    return at, False


@innermost
def _end_interval(table: Longs, task: Task) -> None:
    """Judge the change over an interval: the state is steady, or the next interval begins, or there were too many."""
    cells, memory, z, saved = (
        longs(task.cells),
        doubles(task.memory),
        doubles(task.z),
        doubles(task.saved),
    )
    tolerances, change, is_constant = (
        doubles(table[tt.TOLERANCES]),
        0.0,
        numbers_of(task, cells[CYCLE])[ev.INTERVAL] == 0.0,
    )
    for m in range(n_cells(table)):
        change = max(change, abs(z[m] - saved[m]) / (tolerances[1] + tolerances[0] * abs(z[m])))
    cells[INTERVALS] += 1
    if change == 0.0 or (
        _is_calm(task, change) if is_constant else _is_steady(table, task, change)
    ):
        _end_cycle(table, task)
        return
    if cells[INTERVALS] >= (_MAX_LENGTHS if is_constant else _MAX_INTERVALS):
        cells[STATUS] = st.NO_STEADY_STATE
    if is_constant and not change < 0.5 * memory[CHANGE]:
        memory[LENGTH] *= 2.0
    memory[CHANGE] = change
    copy(task.saved, task.earlier, n_cells(table))
    copy(task.z, task.saved, n_cells(table))
    cells[DONE], memory[NOW] = 0, memory[UNTIL] - memory[LENGTH]


@innermost
def _is_steady(table: Longs, task: Task, change: float) -> bool:
    """Whether the sum of all changes to come, if they fall as the last two did, is small: over all, once, and for each state.

    The largest change is that of the fastest state as long as it moves, and hides a slow one that
    is still changing.
    """
    cells, ratio = longs(task.cells), change / doubles(task.memory)[CHANGE]
    if _left(change, ratio) <= _STEADY and change <= 1e3 * _STEADY and cells[INTERVALS] > 1:
        cells[CALM] = 1
    if cells[CALM] == 0 or change > 1e3 * _STEADY:
        return False
    z, saved, earlier, tolerances = (
        doubles(task.z),
        doubles(task.saved),
        doubles(task.earlier),
        doubles(table[tt.TOLERANCES]),
    )
    for m in range(n_cells(table)):
        now, last = z[m] - saved[m], saved[m] - earlier[m]
        units = abs(now) / (tolerances[1] + tolerances[0] * abs(z[m]))
        ratio = now / last if last != 0.0 else math.inf
        # The solver fluctuates by less than its tolerance.
        trembles = units <= _TREMBLE and not 0.8 < ratio < 1.05
        if not (trembles or units <= _STILL or _left(units, abs(ratio)) <= _STEADY):
            return False
    return True


@innermost
def _left(change: float, ratio: float) -> float:
    """What is left of a geometric approach: the sum of all changes to come."""
    return change * ratio / (1.0 - ratio) if ratio < 1.0 else math.inf


@innermost
def _is_calm(task: Task, change: float) -> bool:
    """Whether twice in a row the change was small and grew less than time did, as that of a slow state would not."""
    cells, memory = longs(task.cells), doubles(task.memory)
    pace = change / memory[LENGTH]
    cells[CALM] = cells[CALM] + 1 if change <= _CALM and pace <= 0.75 * memory[PACE] else 0
    memory[PACE] = pace
    return cells[CALM] == 2


@innermost
def _end_cycle(table: Longs, task: Task) -> None:
    """Add the steady state to what there was, and the infusions that run in it to those that ran."""
    z, c, before = doubles(task.z), doubles(task.c), doubles(task.before)
    for m in range(n_cells(table)):
        z[m] += before[m]
    for k in range(table[tt.N_INFUSIONS]):
        c[infusion_of(table, k)] += doubles(task.c_before)[k]
    longs(task.cells)[CYCLE] = -1
