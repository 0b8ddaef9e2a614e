"""What events do to one subject of one replicate: when each comes, how it changes states, sensitivities and parameters."""

import math
from collections import namedtuple

import numpy as np

from pymc_saem.ode import events as ev
from pymc_saem.ode import task_table as tt
from pymc_saem.ode.native import call_lanes, doubles, innermost, longs

__all__ = [
    "Task",
    "carry_out",
    "copy",
    "end_interval",
    "enter_cycle",
    "n_cells",
    "next_event",
    "next_in_cycle",
    "places_of",
    "reset",
]

# Intervals until a steady state is given up, and the change over the last one, in units of the tolerance, that ends it.
_MAX_INTERVALS, _STEADY = 2000, 0.1

# Memory of a task (one subject of one replicate), float cells: time, time of the last event, end of the steady-state
# interval, size of the last change.
NOW, LAST, UNTIL, CHANGE, N_FLOATS = range(5)
# Integer cells: status, next row, index of the last event, resets so far, steady-state event (-1: none), what of its
# interval is done (1: start, 2: end of the infusion), intervals so far.
STATUS, ROW, INDEX, EPOCH, CYCLE, DONE, INTERVALS, N_INTS = range(8)


# Addresses of a task: float cells, integer cells, states and sensitivities, those at the end of the last interval of a steady
# state, differentiable and constant values, gradient; and of the events of its subject.
Task = namedtuple("Task", "replicate subject memory cells z saved x c gradient numbers places n_events")


@innermost
def _parameter(table, task, j):
    """Parameter j of a task, from its differentiable and its constant values."""
    n_dp, n_dy0 = table[tt.N_DP], table[tt.N_DY0]
    return doubles(task.x)[n_dy0 + j] if j < n_dp else doubles(task.c)[table[tt.N_STATES] - n_dy0 + j - n_dp]


@innermost
def _numbers(task, e):
    return doubles(task.numbers + 8 * e * ev.N_NUMBERS)


@innermost
def places_of(task, e):
    return longs(task.places + 8 * e * ev.N_PLACES)


@innermost
def n_cells(table):
    """Number of states and sensitivities."""
    return table[tt.N_STATES] * (1 + tt.n_sens(table))


@innermost
def copy(source, target, n):
    source, target = doubles(source), doubles(target)
    for m in range(n):
        target[m] = source[m]


@innermost
def _duration(table, task, e):
    value, places = _numbers(task, e)[ev.DURATION], places_of(task, e)
    if value != 0.0:
        if places[ev.F] >= 0:
            value *= _parameter(table, task, places[ev.F])
        if places[ev.R] >= 0:
            value /= _parameter(table, task, places[ev.R])
        if places[ev.D] >= 0:
            value *= _parameter(table, task, places[ev.D])
    return value


@innermost
def _lag(table, task, e):
    j = places_of(task, e)[ev.LAG]
    return _parameter(table, task, j) if j >= 0 else 0.0


@innermost
def _time(table, task, e):
    """Time of an event; NaN where lag or duration is negative or not finite."""
    lag, duration = _lag(table, task, e), _duration(table, task, e)
    return _numbers(task, e)[ev.TIME] + lag + duration if lag >= 0.0 and duration >= 0.0 else np.nan


@innermost
def next_event(table, task):
    """Earliest event after the last one, in time and then in the table; -1 if there is none, -2 if a time is bad. Its time."""
    best, at, cells, memory = -1, math.inf, longs(task.cells), doubles(task.memory)
    for e in range(task.n_events):
        epoch = places_of(task, e)[ev.EPOCH]
        if epoch >= 0 and epoch != cells[EPOCH]:
            continue
        time = _time(table, task, e)
        if not math.isfinite(time):
            return -2, time
        if time < memory[LAST] or (time == memory[LAST] and e <= cells[INDEX]):
            continue
        if time < at:
            best, at = e, time
    return best, at


@innermost
def next_in_cycle(table, task):
    """The same within an interval of a steady state; -1 is its end."""
    cells, at = longs(task.cells), doubles(task.memory)[UNTIL]
    steady, best = cells[CYCLE], -1
    numbers = _numbers(task, steady)
    begin = at - numbers[ev.INTERVAL]
    for k in range(places_of(task, steady)[ev.TARGET]):
        if not cells[DONE] & (1 << k):
            time = begin + (_time(table, task, steady + 1 + k) - numbers[ev.TIME]) % numbers[ev.INTERVAL]
            if time < at:
                best, at = steady + 1 + k, time
    return best, at


@innermost
def _slope(table, task, p, out):
    """Derivative of the states of one task; ``p`` and ``out`` are addresses, the former scratch."""
    for j in range(table[tt.N_P]):
        doubles(p)[j] = _parameter(table, task, j)
    call_lanes(table[tt.RHS], 1, task.memory + 8 * NOW, task.z, p, out, 0, 0)


@innermost
def _shift(table, task, e, before, after):
    """Sensitivities after an event whose time depends on parameters, from the slopes before and after it."""
    n, n_dy0, n_dp = table[tt.N_STATES], table[tt.N_DY0], table[tt.N_DP]
    z, before, after, duration = doubles(task.z), doubles(before), doubles(after), _duration(table, task, e)
    for which in (ev.LAG, ev.F, ev.R, ev.D):
        j = places_of(task, e)[which]
        if 0 <= j < n_dp:
            slope = 1.0
            if which != ev.LAG:
                slope = (
                    (-duration if which == ev.R else duration) / _parameter(table, task, j) if duration != 0.0 else 0.0
                )
            for i in range(n):
                z[n + i * (n_dy0 + n_dp) + n_dy0 + j] += (before[i] - after[i]) * slope


@innermost
def carry_out(table, task, e, scratch):
    """Change states, sensitivities and parameters by an event that is no reset and no steady state."""
    n, n_dy0, n_dp = table[tt.N_STATES], table[tt.N_DY0], table[tt.N_DP]
    places, amount, with_sens = places_of(task, e), _numbers(task, e)[ev.AMOUNT], n_cells(table) > n
    z, c, target = doubles(task.z), doubles(task.c), places[ev.TARGET]
    moves = with_sens and max(places[ev.LAG], places[ev.F], places[ev.R], places[ev.D]) >= 0
    after, p = scratch + 8 * n, scratch + 16 * n
    if moves:
        _slope(table, task, p, scratch)
    if places[ev.ACTION] == ev.ADD_STATE:
        j = places[ev.SCALE]
        z[target] += amount * (_parameter(table, task, j) if j >= 0 else 1.0)
        if 0 <= j < n_dp and with_sens:
            z[n + target * (n_dy0 + n_dp) + n_dy0 + j] += amount
    else:
        k = n - n_dy0 + target - n_dp  # what events set is constant
        c[k] = amount if places[ev.ACTION] == ev.SET_PARAMETER else c[k] + amount
    if moves:
        _slope(table, task, p, after)
        _shift(table, task, e, scratch, after)


@innermost
def reset(table, task):
    """Empty all states and stop all infusions."""
    z, c, base = doubles(task.z), doubles(task.c), table[tt.N_STATES] - table[tt.N_DY0] - table[tt.N_DP]
    for m in range(n_cells(table)):
        z[m] = 0.0
    for e in range(task.n_events):
        if places_of(task, e)[ev.ACTION] == ev.ADD_PARAMETER:
            c[base + places_of(task, e)[ev.TARGET]] = 0.0


@innermost
def enter_cycle(table, task, steady):
    """Begin the intervals of a steady state; False if its doses do not fit into the interval."""
    cells, memory, saved = longs(task.cells), doubles(task.memory), doubles(task.saved)
    interval, lag, duration, done = _numbers(task, steady)[ev.INTERVAL], _lag(table, task, steady + 1), 0.0, 0
    if places_of(task, steady)[ev.TARGET] == 2:
        duration = _duration(table, task, steady + 2)
        if (lag + duration) % interval <= lag % interval:
            done = 2  # in the first interval, no infusion has begun before
    cells[CYCLE], cells[DONE], cells[INTERVALS] = steady, done, 0
    memory[UNTIL], memory[CHANGE] = _numbers(task, steady)[ev.TIME], math.inf
    memory[NOW] = memory[UNTIL] - interval
    for m in range(n_cells(table)):
        saved[m] = 0.0
    return lag < interval and 0.0 <= duration <= interval


@innermost
def end_interval(table, task):
    """Judge the change over an interval, and begin the next one unless the state is steady; False if there are too many."""
    cells, memory, z, saved = longs(task.cells), doubles(task.memory), doubles(task.z), doubles(task.saved)
    tolerances, change = doubles(table[tt.TOLERANCES]), 0.0
    for m in range(n_cells(table)):
        change = max(change, abs(z[m] - saved[m]) / (tolerances[1] + tolerances[0] * abs(z[m])))
    # What is left of a geometric approach: the sum of all changes to come.
    ratio = change / memory[CHANGE]
    left = change * ratio / (1.0 - ratio) if ratio < 1.0 else math.inf
    cells[INTERVALS] += 1
    if change == 0.0 or (left <= _STEADY and change <= 1e3 * _STEADY and cells[INTERVALS] > 1):
        cells[CYCLE] = -1
        return True
    memory[CHANGE] = change
    copy(task.z, task.saved, n_cells(table))
    cells[DONE] = 0
    memory[NOW] -= _numbers(task, cells[CYCLE])[ev.INTERVAL]
    return cells[INTERVALS] < _MAX_INTERVALS
