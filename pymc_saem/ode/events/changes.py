"""What events do to one subject of one replicate: how they change states, sensitivities and parameters."""

from __future__ import annotations

from pymc_saem.ode.events import doses as ev
from pymc_saem.ode.events.instants import (
    NOW,
    Task,
    duration_of,
    n_cells,
    numbers_of,
    parameter_of,
    places_of,
)
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import Longs, call_lanes, doubles, innermost, longs

__all__ = ["carry_out", "copy", "empty", "infusion_of"]


@innermost
def copy(source: int, target: int, n: int) -> None:
    a, b = doubles(source), doubles(target)
    for m in range(n):
        b[m] = a[m]


@innermost
def infusion_of(table: Longs, k: int) -> int:
    """Where the constant values of a task have the rate of infusion number k."""
    return table[tt.N_STATES] - table[tt.N_DY0] + longs(table[tt.INFUSIONS])[k] - table[tt.N_DP]


@innermost
def empty(table: Longs, task: Task) -> None:
    """Empty all states and stop all infusions."""
    z, c = doubles(task.z), doubles(task.c)
    for m in range(n_cells(table)):
        z[m] = 0.0
    for k in range(table[tt.N_INFUSIONS]):
        c[infusion_of(table, k)] = 0.0


@innermost
def _slope(table: Longs, task: Task, p: int, out: int) -> None:
    """Derivative of the states of one task; ``p`` and ``out`` are addresses, the former scratch."""
    for j in range(table[tt.N_P]):
        doubles(p)[j] = parameter_of(table, task, j)
    call_lanes(table[tt.RHS], 1, task.memory + 8 * NOW, task.z, p, out, 0, 0)


@innermost
def _shift(table: Longs, task: Task, e: int, before: int, after: int) -> None:
    """Sensitivities after an event whose time depends on parameters, from the slopes before and after it."""
    n, n_dy0, n_dp = table[tt.N_STATES], table[tt.N_DY0], table[tt.N_DP]
    z, f_before, f_after, duration = (
        doubles(task.z),
        doubles(before),
        doubles(after),
        duration_of(table, task, e),
    )
    for which in (ev.LAG, ev.F, ev.R, ev.D):
        j = places_of(task, e)[which]
        if 0 <= j < n_dp:
            slope = 1.0
            if which != ev.LAG:
                slope = (
                    (-duration if which == ev.R else duration) / parameter_of(table, task, j)
                    if duration != 0.0
                    else 0.0
                )
            for i in range(n):
                z[n + i * (n_dy0 + n_dp) + n_dy0 + j] += (f_before[i] - f_after[i]) * slope


@innermost
def carry_out(table: Longs, task: Task, e: int, scratch: int) -> None:
    """Change states, sensitivities and parameters by an event that is neither a reset nor a steady state."""
    n, n_dy0, n_dp = table[tt.N_STATES], table[tt.N_DY0], table[tt.N_DP]
    places, amount, with_sens = (
        places_of(task, e),
        numbers_of(task, e)[ev.AMOUNT],
        n_cells(table) > n,
    )
    z, c, target = doubles(task.z), doubles(task.c), places[ev.TARGET]
    moves = with_sens and max(places[ev.LAG], places[ev.F], places[ev.R], places[ev.D]) >= 0
    after, p = scratch + 8 * n, scratch + 16 * n
    if moves:
        _slope(table, task, p, scratch)
    if places[ev.ACTION] == ev.ADD_STATE:
        j = places[ev.SCALE]
        z[target] += amount * (parameter_of(table, task, j) if j >= 0 else 1.0)
        if 0 <= j < n_dp and with_sens:
            z[n + target * (n_dy0 + n_dp) + n_dy0 + j] += amount
    else:
        k = n - n_dy0 + target - n_dp  # what events set is constant
        c[k] = amount if places[ev.ACTION] == ev.SET_PARAMETER else c[k] + amount
    if moves:
        _slope(table, task, p, after)
        _shift(table, task, e, scratch, after)
