"""Takes subjects through ``tsit5`` in lanes: whenever one has finished, the next takes its lane.

What a lane computes depends on its subject alone, so the result does not depend on which subjects
stand side by side, nor on how the tasks are cut into ranges for threads.
"""

from __future__ import annotations

import math
from collections import namedtuple
from functools import lru_cache

import numpy as np
from numba.core.ccallback import CFunc

from pymc_saem.ode.runtime import status as st
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import (
    Doubles,
    Longs,
    call_task,
    compile_task,
    doubles,
    inlined,
    innermost,
    longs,
)
from pymc_saem.ode.runtime.vectors import LANES, VECTOR, load, splat, store, where_one
from pymc_saem.ode.solvers.tsit5 import (
    System,
    Work,
    add_shares,
    derivative,
    errors,
    first_step,
    share,
    slopes,
    split,
    step,
    stiffness,
    weights,
    work_size,
)  # fmt: skip

__all__ = ["task"]


# Stiff: this many steps at the bound of stability, with fewer than this many others in a row
# between them, and this many more to go, which would cost as much as an implicit solve. As long as
# there is no sign, one step in this many is looked at.
_STABLE, _MANY_SIGNS, _MANY_CALM, _MANY_LEFT, _LOOK = 2.5, 15, 6, 200, 20
# Stiff too, whatever the signs: after this many steps, those left will not do. With coarse
# tolerances a stiff problem may look harmless, because the stages of a step are too far from each
# other to show how steep it is.
_MANY_STEPS = 250
_LEAST_STEP = 16.0 * float(np.finfo(np.float64).eps)

# Addresses of what is kept of each task of a range: its next row, its state, its slopes at the
# start and first step, its gradient.
Tasks = namedtuple("Tasks", "begin count row state slopes h gradient")
# Addresses by lane: the task (counted from the first; -1: none), its steps, whether the last one
# was rejected; the logarithm of the last error, the next step, and where it ends; signs of
# stiffness (if negative: steps until the next look), and steps without one since the last; its
# status after the step.
Running = namedtuple("Running", "task steps rejected log_error h t_new signs calm status")


@innermost
def _load(system: System, work: Work, table: Longs, task: int, lane: int) -> None:
    """Put a task at its start into a lane."""
    tt.load_parameters(table, task, lane, LANES, work.p)
    tt.load_start(table, task, lane, LANES, work.z, system.n_sens, 0)
    doubles(work.t)[lane] = doubles(table[tt.T0])[task % table[tt.N_SUBJECTS]]


@inlined
def _record(
    system: System, work: Work, table: Longs, task: int, row: int, s: float, lane: int
) -> None:
    """Write the solution of a sorted row at the fraction s of a step, with derivatives or not, or note its part in the gradient."""
    if table[tt.TAPE] != 0:  # only the steps are wanted
        return
    n, replicate = system.n, task // table[tt.N_SUBJECTS]
    place = longs(table[tt.ORDER])[row] * n
    if system.n_sens > 0 and table[tt.SENS] == 0:
        share(
            system,
            work,
            lane,
            s,
            doubles(table[tt.G] + 8 * (replicate * table[tt.G_STRIDE] + place)),
        )
        return
    out = doubles(table[tt.OUT] + 8 * (replicate * table[tt.N_ROWS] * n + place))
    sens = doubles(table[tt.SENS] + 8 * (replicate * table[tt.N_ROWS] * n + place) * system.n_sens)
    h, stride, z, k = doubles(work.h)[lane], LANES * system.size, doubles(work.z), doubles(work.k)
    w1, w2, w3, w4, w5, w6, w7 = weights(s)
    for e in range(system.size):
        m = e * LANES + lane
        slope = w1 * k[m] + w2 * k[m + stride] + w3 * k[m + 2 * stride] + w4 * k[m + 3 * stride]
        slope += w5 * k[m + 4 * stride] + w6 * k[m + 5 * stride] + w7 * k[m + 6 * stride]
        if e < n:
            out[e] = z[m] + h * slope
        else:
            sens[e - n] = z[m] + h * slope


# The same for rows at the start: inlined twice, it would take twice as long to compile.
_record_start = innermost(_record.py_func)


@innermost
def _keep_step(system: System, work: Work, table: Longs, k: int, lane: int) -> None:
    """Append an accepted step to the tape: where it begins, its length, its values."""
    counts, n = longs(table[tt.TAPE]), system.n
    record = doubles(counts[0] + 8 * (k * table[tt.MAX_STEPS] + counts[1 + k]) * (2 + n))
    record[0], record[1] = doubles(work.t)[lane], doubles(work.h)[lane]
    for e in range(n):
        record[2 + e] = doubles(work.z)[e * LANES + lane]
    counts[1 + k] += 1


@inlined
def _end(table: Longs, i: int) -> float:
    """When the solve of a subject ends: with its last row, unless the table says otherwise."""
    starts = longs(table[tt.STARTS])
    if table[tt.T_END] != 0:
        return doubles(table[tt.T_END])[i]
    return (
        doubles(table[tt.TIMES])[starts[i + 1] - 1]
        if starts[i + 1] > starts[i]
        else doubles(table[tt.T0])[i]
    )


@innermost
def _keep_gradient(system: System, work: Work, tasks: Tasks, k: int, lane: int) -> Doubles:
    """The gradient of a lane, stored as that of its task."""
    gradient = doubles(tasks.gradient + 8 * k * system.n_sens)
    for j in range(system.n_sens):
        gradient[j] = doubles(work.gradient)[j * LANES + lane]
    return gradient


@innermost
def _finish(
    system: System, work: Work, tasks: Tasks, table: Longs, k: int, lane: int, status: int
) -> None:
    """Store the result of a task, which ends in z_new."""
    task = tasks.begin + k
    if table[tt.Z1] != 0:
        z1 = doubles(table[tt.Z1] + 8 * task * system.size)
        for e in range(system.size):
            z1[e] = doubles(work.z_new)[e * LANES + lane]
    replicate, i = task // table[tt.N_SUBJECTS], task % table[tt.N_SUBJECTS]
    longs(tasks.state)[k] = status
    if table[tt.SENS] != 0 and status != st.SUCCESS:
        tt.forget_derivatives(table, replicate, i)
    if system.n_sens and table[tt.SENS] == 0:
        gradient = _keep_gradient(system, work, tasks, k, lane)
        tt.write_gradient(table, replicate, i, gradient, status)
    else:
        tt.write_status(table, replicate, i, status)


@innermost
def _prepare(system: System, work: Work, tasks: Tasks, table: Longs, begin: int) -> None:
    """Slopes and first step of at most one task per lane, from number ``begin``, and their rows at the start time."""
    t, h, now, z, k1 = (
        doubles(work.t),
        doubles(work.h),
        doubles(work.now),
        doubles(work.z),
        doubles(work.k),
    )
    times, starts, n_subjects = (
        doubles(table[tt.TIMES]),
        longs(table[tt.STARTS]),
        table[tt.N_SUBJECTS],
    )
    next_row, h_first, starts_k1 = longs(tasks.row), doubles(tasks.h), doubles(tasks.slopes)
    n_values, last_task = system.size, tasks.count - 1
    for lane in range(LANES):
        # Lanes without a task of their own repeat the last one.
        _load(system, work, table, tasks.begin + min(begin + lane, last_task), lane)
    derivative(system, work, system.f, work.t, work.z, work.k)
    for lane in range(LANES):
        i = (tasks.begin + min(begin + lane, last_task)) % n_subjects
        h[lane] = first_step(system, work, lane, 0.0, _end(table, i) - t[lane])
        now[lane] = t[lane] + h[lane]
    for e in range(system.n):
        store(work.z_new, e, load(work.z, e) + load(work.h, 0) * load(work.k, e))
    derivative(system, work, system.rhs, work.now, work.z_new, slopes(system, work, 1))
    for k in range(begin, min(begin + LANES, tasks.count)):
        lane, i = k - begin, (tasks.begin + k) % n_subjects
        row, last, total, state, t_end = starts[i], starts[i + 1], 0.0, st.RUNNING, _end(table, i)
        for e in range(n_values):
            m = e * LANES + lane
            starts_k1[k * n_values + e] = k1[m]
            if e < system.controlled:
                total += 0.0 * (k1[m] + z[m])  # NaN if one of them is not finite
        if row < last and not (times[row] >= t[lane] and math.isfinite(times[last - 1])):
            state = st.BAD_TIMES
        elif total != 0.0 and (row < last or t_end > t[lane]):
            state = st.NON_FINITE
        else:
            while row < last and times[row] == t[lane]:
                _record_start(system, work, table, tasks.begin + k, row, 0.0, lane)
                row += 1
            if not t_end > t[lane]:
                state = st.SUCCESS
            else:
                h_first[k] = first_step(system, work, lane, h[lane], t_end - t[lane])
        next_row[k], longs(tasks.state)[k] = row, state
    for j in range(system.n_sens):
        store(work.gradient, j, splat(0.0))
    add_shares(system, work)
    for k in range(begin, min(begin + LANES, tasks.count)):
        _keep_gradient(system, work, tasks, k, k - begin)
        if longs(tasks.state)[k] != st.RUNNING:
            _finish(system, work, tasks, table, k, k - begin, longs(tasks.state)[k])


@inlined
def _fill(
    system: System, work: Work, tasks: Tasks, running: Running, table: Longs, queue: int
) -> tuple[int, int]:
    """Give free lanes the next tasks of the queue, and every lane its step; the queue, and how many lanes run."""
    t, h, k1 = doubles(work.t), doubles(work.h), doubles(work.k)
    of_lane, steps, rejected = longs(running.task), longs(running.steps), longs(running.rejected)
    log_error, h_next, t_new = (
        doubles(running.log_error),
        doubles(running.h),
        doubles(running.t_new),
    )
    state, starts_k1, h_first = longs(tasks.state), doubles(tasks.slopes), doubles(tasks.h)
    n_running = 0
    for lane in range(LANES):
        while of_lane[lane] < 0 and queue < tasks.count:
            if state[queue] == st.RUNNING:
                _load(system, work, table, tasks.begin + queue, lane)
                for e in range(system.size):
                    k1[e * LANES + lane] = starts_k1[queue * system.size + e]
                for j in range(system.n_sens):
                    doubles(work.gradient)[j * LANES + lane] = doubles(tasks.gradient)[
                        queue * system.n_sens + j
                    ]
                of_lane[lane], steps[lane], rejected[lane] = queue, 0, 0
                log_error[lane], h_next[lane] = 0.0, h_first[queue]
                longs(running.signs)[lane], longs(running.calm)[lane] = -_LOOK, 0
            queue += 1
        h[lane], k = 0.0, of_lane[lane]
        if k >= 0:
            n_running += 1
            t_end = _end(table, (tasks.begin + k) % table[tt.N_SUBJECTS])
            # Reach the end in this step when it is near, rather than with a tiny one after it.
            near = t[lane] + 1.01 * h_next[lane] >= t_end
            h[lane] = t_end - t[lane] if near else h_next[lane]
            t_new[lane] = t_end if near else t[lane] + h[lane]
    return queue, n_running


@innermost
def _is_stiff(
    system: System, work: Work, running: Running, table: Longs, lane: int, rest: float
) -> bool:
    """Look at an accepted step; whether there are enough signs of stiffness, with that much time left."""
    signs, calm, steps = longs(running.signs), longs(running.calm), longs(running.steps)[lane]
    if signs[lane] < 0:
        signs[lane] += 1
    elif stiffness(system, work, lane) > _STABLE:
        signs[lane] += 1
        calm[lane] = 0
    else:
        calm[lane] += 1
        if signs[lane] == 0 or calm[lane] == _MANY_CALM:
            signs[lane], calm[lane] = -_LOOK, 0
    many = table[tt.MAX_STEPS] - steps
    if signs[lane] >= _MANY_SIGNS:
        many = min(many, _MANY_LEFT)
    return (signs[lane] >= _MANY_SIGNS or steps >= _MANY_STEPS) and rest > many * doubles(work.h)[
        lane
    ]


@inlined
def _judge(
    system: System, work: Work, tasks: Tasks, running: Running, table: Longs, lane: int
) -> float:
    """Accept or reject the step of a lane: rows in it, next step size, and whether its task has ended; 1.0 if accepted."""
    t, h, norm = doubles(work.t)[lane], doubles(work.h)[lane], doubles(work.norm)[lane]
    steps, rejected, log_error = (
        longs(running.steps),
        longs(running.rejected),
        doubles(running.log_error),
    )
    h_next, t_new, next_row = doubles(running.h), doubles(running.t_new)[lane], longs(tasks.row)
    times, k, status = doubles(table[tt.TIMES]), longs(running.task)[lane], st.RUNNING
    steps[lane] += 1
    if norm <= 1.0:
        if table[tt.TAPE] != 0:
            _keep_step(system, work, table, k, lane)
        i = (tasks.begin + k) % table[tt.N_SUBJECTS]
        row, last = next_row[k], longs(table[tt.STARTS])[i + 1]
        while row < last and times[row] <= t_new:
            fraction = 1.0 if times[row] == t_new else (times[row] - t) / h
            _record(system, work, table, tasks.begin + k, row, fraction, lane)
            row += 1
        next_row[k] = row
        if not t_new < _end(table, i):
            status = st.SUCCESS
        elif table[tt.STIFF] != 0 and _is_stiff(
            system, work, running, table, lane, _end(table, i) - t_new
        ):
            status = st.STIFF
        # Proportional-integral control: fewer rejections than from the last error alone.
        now = math.log(max(norm, 1e-8))
        factor = 0.9 * math.exp(0.04 * log_error[lane] - 0.17 * now)
        h_next[lane] = h * min(1.0 if rejected[lane] else 10.0, max(0.2, factor))
        log_error[lane], rejected[lane] = max(now, math.log(1e-4)), 0
        doubles(work.t)[lane] = t_new
    else:
        h_next[lane] = h * (max(0.2, 0.9 * norm**-0.2) if math.isfinite(norm) else 0.1)
        rejected[lane] = 1
        if h_next[lane] <= _LEAST_STEP * max(abs(t), abs(t_new)):
            status = st.STEP_TOO_SMALL if math.isfinite(norm) else st.NON_FINITE
    if status == st.RUNNING and steps[lane] >= table[tt.MAX_STEPS]:
        status = st.MAX_STEPS if table[tt.STIFF] == 0 else st.STIFF
    longs(running.status)[lane] = status
    return 1.0 if norm <= 1.0 else 0.0


@inlined
def _advance(system: System, work: Work) -> None:
    """Take over the new values of the lanes whose step was accepted, as ``other`` says."""
    accepted, last = load(work.other, 0), slopes(system, work, 6)
    for e in range(system.size):
        store(work.z, e, where_one(accepted, load(work.z_new, e), load(work.z, e)))
        store(work.k, e, where_one(accepted, load(last, e), load(work.k, e)))


def _task(begin: int, end: int, table_address: int) -> int:
    """Solve the tasks begin to end, one per subject and replicate, or compute their gradients if the table has some.

    One function for both, as compiling it twice would double the wait of the first use.
    """
    table = longs(table_address)
    n, n_sens, count = table[tt.N_STATES], tt.n_sens(table), end - begin
    f = table[tt.JAC] if n_sens > 0 else table[tt.RHS]
    size, tolerances = n * (1 + n_sens), doubles(table[tt.TOLERANCES])
    # Derivatives of rows are those of the numerical solution: they do not change its steps.
    controlled = n if table[tt.SENS] != 0 else size
    system = System(
        table[tt.RHS], f, n, table[tt.N_DY0], n_sens, size, controlled, table[tt.N_P], tolerances[0], tolerances[1]
    )  # fmt: skip
    memory = np.zeros((work_size(system) + 10) * LANES + count * (3 + size + n_sens))
    # or every vector would lie across two lines of the cache
    a = (memory.ctypes.data + VECTOR - 1) // VECTOR * VECTOR
    work, b = split(system, a), VECTOR
    a += VECTOR * work_size(system)
    running = Running(
        a, a + b, a + 2 * b, a + 3 * b, a + 4 * b, a + 5 * b, a + 6 * b, a + 7 * b, a + 8 * b
    )
    a += 9 * b
    b = 8 * count
    tasks = Tasks(begin, count, a, a + b, a + 3 * b, a + 2 * b, a + (3 + size) * b)
    for first in range(0, count, LANES):
        _prepare(system, work, tasks, table, first)
    for lane in range(LANES):
        longs(running.task)[lane] = -1
    queue = 0 * begin  # an int64 from the start, or _fill is compiled twice
    while True:
        queue, n_running = _fill(system, work, tasks, running, table, queue)
        if n_running == 0:
            break
        step(system, work)
        errors(system, work)
        for lane in range(LANES):
            accepted = 0.0
            if longs(running.task)[lane] >= 0:
                accepted = _judge(system, work, tasks, running, table, lane)
            doubles(work.other)[lane] = accepted
        add_shares(system, work)
        _advance(system, work)
        for lane in range(LANES):
            k = longs(running.task)[lane]
            if k >= 0 and longs(running.status)[lane] != st.RUNNING:
                _finish(system, work, tasks, table, k, lane, longs(running.status)[lane])
                longs(running.task)[lane] = -1
    for k in range(count):
        if longs(tasks.state)[k] == st.STIFF and longs(table[tt.STIFF])[0] != 0:
            call_task(longs(table[tt.STIFF])[0], begin + k, begin + k + 1, table_address)
    memory[0] = 0.0  # Numba frees an array after its last use
    return 0


@lru_cache
def _compiled() -> CFunc:
    return compile_task(_task)


def task(gradient: bool) -> CFunc:
    """Compiled task of the solver; one for every system, solutions and gradients, and kept on disk."""
    return _compiled()
