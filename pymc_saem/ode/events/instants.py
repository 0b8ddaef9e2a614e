"""When events come: the only place that computes the time of one, and that decides which of two comes first.

Resets, steady states and covariates come at times that are data: they stand first among the events
of a subject, in order. Doses come later by a lag, and infusions end, at times that parameters
decide: a heap of doses gives the next one, so that a step costs the logarithm of their number. An
event is taken once, by its place in this order, and never looked up by its time.

Times that differ by rounding are one instant. The order within an instant: covariates, resets and
steady states, rows, doses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pymc_saem.ode.events import doses as ev
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import Doubles, Longs, doubles, innermost, longs

__all__ = [
    "UNITS",
    "Task",
    "begin_period",
    "duration_of",
    "instant",
    "n_cells",
    "n_schedule",
    "next_fixed",
    "next_dose",
    "numbers_of",
    "parameter_of",
    "phase_of",
    "places_of",
    "take_dose",
]

# Times nearer than this many units in the last place of the latest time of a subject are one: the
# sums that make them round.
UNITS = 8.0 * float(np.finfo(np.float64).eps)

# Memory of a task (one subject of one replicate), float cells: time, how near is the same; of a
# steady state: where its interval ends, its length, the change over the last one, that change per
# time, and the phases of start and end of its infusion.
NOW, NEAR, UNTIL, LENGTH, CHANGE, PACE, PHASE, _, N_FLOATS = range(9)
# Integer cells: status, next row, next event of those at given times, next dose to enter the heap,
# resets so far, doses in the heap; the steady state that is being computed (-1: none), what of its
# interval is done (1: start, 2: end), intervals so far, how many of them were calm.
STATUS, ROW, FIXED, DOSE, PERIOD, N_HEAP, CYCLE, DONE, INTERVALS, CALM, N_INTS = range(11)


class Task(NamedTuple):
    """One subject of one replicate, and the addresses of what belongs to it."""

    replicate: int
    subject: int
    memory: int  # float cells
    cells: int  # integer cells
    z: int  # states with sensitivities
    saved: int  # those at the end of the last interval of a steady state,
    earlier: int  # at the end of the interval before,
    before: int  # and before the steady state began
    x: int  # differentiable values
    c: int  # constant values
    c_before: int  # rates of infusions before the steady state began
    gradient: int
    schedule: int  # when doses come
    numbers: int  # the events of the subject
    places: int
    n_events: int


# What is known of each dose: phase, next time; which repetition that is, the last one, and a place
# of the heap.
_PHASES, _TIMES, _COUNTS, _LASTS, _HEAP, N_ARRAYS = range(6)


@innermost
def n_schedule(n_events: int) -> int:
    """Cells for the schedule of this many events."""
    return N_ARRAYS * n_events


@innermost
def _floats(task: Task, which: int) -> Doubles:
    return doubles(task.schedule + 8 * which * task.n_events)


@innermost
def _ints(task: Task, which: int) -> Longs:
    return longs(task.schedule + 8 * which * task.n_events)


@innermost
def numbers_of(task: Task, e: int) -> Doubles:
    return doubles(task.numbers + 8 * e * ev.N_NUMBERS)


@innermost
def places_of(task: Task, e: int) -> Longs:
    return longs(task.places + 8 * e * ev.N_PLACES)


@innermost
def n_cells(table: Longs) -> int:
    """Number of states and sensitivities."""
    return table[tt.N_STATES] * (1 + tt.n_sens(table))


@innermost
def parameter_of(table: Longs, task: Task, j: int) -> float:
    """Parameter j of a task, from its differentiable and its constant values."""
    n_dp, n_dy0 = table[tt.N_DP], table[tt.N_DY0]
    return (
        doubles(task.x)[n_dy0 + j]
        if j < n_dp
        else doubles(task.c)[table[tt.N_STATES] - n_dy0 + j - n_dp]
    )


@innermost
def duration_of(table: Longs, task: Task, e: int) -> float:
    """How long after the start of a dose the event comes: 0, or the duration of the infusion that it ends."""
    value, places = numbers_of(task, e)[ev.DURATION], places_of(task, e)
    if value != 0.0:
        if places[ev.F] >= 0:
            value *= parameter_of(table, task, places[ev.F])
        if places[ev.R] >= 0:
            value /= parameter_of(table, task, places[ev.R])
        if places[ev.D] >= 0:
            value *= parameter_of(table, task, places[ev.D])
    return value


@innermost
def phase_of(table: Longs, task: Task, e: int) -> tuple[float, int]:
    """How long after the time of its record a dose first comes, and how many intervals before the record it was given.

    Without a past, that is the lag and the duration. A dose that has been given for ever comes at
    all multiples of the interval from there, so first at the remainder. The phase is NaN where lag
    or duration is bad.
    """
    j, duration, interval = (
        places_of(task, e)[ev.LAG],
        duration_of(table, task, e),
        numbers_of(task, e)[ev.INTERVAL],
    )
    lag = parameter_of(table, task, j) if j >= 0 else 0.0
    phase, n_before = lag + duration, 0
    # The amount of an infusion that takes no time would be lost.
    has_time = places_of(task, e)[ev.D] < 0 or duration > 0.0
    if not (lag >= 0.0 and duration >= 0.0 and has_time and math.isfinite(phase)):
        return np.nan, 0
    if places_of(task, e)[ev.PAST] == 0 or interval == 0.0:
        return phase, 0
    if phase > 1e15 * interval:
        return np.nan, 0
    near = max(doubles(task.memory)[NEAR], UNITS * phase)
    n_before = int(math.floor(phase / interval))
    phase -= n_before * interval
    if phase > interval - near:  # a whole interval, but for rounding
        phase, n_before = 0.0, n_before + 1
    return max(phase, 0.0), n_before


@innermost
def instant(task: Task, e: int, phase: float, count: int) -> float:
    """The time of a dose's repetition number ``count`` from its phase on."""
    return numbers_of(task, e)[ev.TIME] + (phase + count * numbers_of(task, e)[ev.INTERVAL])


@innermost
def next_fixed(task: Task) -> float:
    """Time of the next event at a given time; infinity if there is none."""
    e = longs(task.cells)[FIXED]
    if e >= task.n_events or places_of(task, e)[ev.PERIOD] >= 0:
        return math.inf
    return numbers_of(task, e)[ev.TIME]


@innermost
def next_dose(task: Task) -> float:
    """Time of the next dose, or end of an infusion; infinity if there is none."""
    return (
        _floats(task, _TIMES)[_ints(task, _HEAP)[0]] if longs(task.cells)[N_HEAP] > 0 else math.inf
    )


@innermost
def _is_before(task: Task, a: int, b: int) -> bool:
    """Whether one dose comes before another: by time, then by their order in the table."""
    times = _floats(task, _TIMES)
    return times[a] < times[b] or (times[a] == times[b] and a < b)


@innermost
def _push(task: Task, e: int) -> None:
    heap, k = _ints(task, _HEAP), longs(task.cells)[N_HEAP]
    longs(task.cells)[N_HEAP] = k + 1
    while k > 0 and _is_before(task, e, heap[(k - 1) // 2]):
        heap[k] = heap[(k - 1) // 2]
        k = (k - 1) // 2
    heap[k] = e


@innermost
def _sink(task: Task, e: int) -> None:
    """Put a dose in place of the first one of the heap."""
    heap, size, k = _ints(task, _HEAP), longs(task.cells)[N_HEAP], 0
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and _is_before(task, heap[child + 1], heap[child]):
            child += 1
        if not _is_before(task, heap[child], e):
            break
        heap[k] = heap[child]
        k = child
    heap[k] = e


@innermost
def take_dose(task: Task) -> int:
    """The next dose, whose following repetition takes its place."""
    e, cells = _ints(task, _HEAP)[0], longs(task.cells)
    count = _ints(task, _COUNTS)[e] + 1
    _ints(task, _COUNTS)[e] = count
    if count <= _ints(task, _LASTS)[e]:
        _floats(task, _TIMES)[e] = instant(task, e, _floats(task, _PHASES)[e], count)
        _sink(task, e)
    else:
        cells[N_HEAP] -= 1
        if cells[N_HEAP] > 0:
            _sink(task, _ints(task, _HEAP)[cells[N_HEAP]])
    return e


@innermost
def begin_period(table: Longs, task: Task) -> bool:
    """Forget the doses from before a reset, and arrange those until the next one; False if a time is bad."""
    cells = longs(task.cells)
    cells[N_HEAP] = 0
    while cells[DOSE] < task.n_events and places_of(task, cells[DOSE])[ev.PERIOD] <= cells[PERIOD]:
        e = cells[DOSE]
        if places_of(task, e)[ev.PERIOD] == cells[PERIOD]:
            phase, n_before = phase_of(table, task, e)
            if not math.isfinite(phase):
                return False
            _floats(task, _PHASES)[e], _floats(task, _TIMES)[e] = phase, instant(task, e, phase, 0)
            _ints(task, _COUNTS)[e], _ints(task, _LASTS)[e] = (
                0,
                n_before + places_of(task, e)[ev.MORE],
            )
            _push(task, e)
        cells[DOSE] += 1
    return True
