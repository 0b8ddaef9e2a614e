"""The `cvodes` solver: SUNDIALS CVODE with BDF, for stiff systems, driven from compiled code.

Like `lanes`, its tasks are compiled once per machine, and a model adds only its right-hand side, by
address: the same machine code that `lanes` calls, here with one lane.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba.core.ccallback import CFunc

from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import compile_task, copy_values, floats, innermost, integers
from pymc_saem.ode.solvers.cvodes_engine import BDF, PROBLEM, engine, forward, sensitivities

__all__ = ["task"]


@innermost
def _times(table: np.ndarray, i: int, first: int, last: int) -> np.ndarray:
    """Times of a subject's rows; in a piece between two events also its end."""
    rows = floats(table[tt.TIMES] + 8 * first, last - first)
    if table[tt.T_END] == 0:
        return rows
    times = np.empty(last - first + 1)
    copy_values(times, rows, rows.size)
    times[rows.size] = floats(table[tt.T_END] + 8 * i, 1)[0]
    return times


@innermost
def _problem(table: np.ndarray, n_steps: np.ndarray) -> np.ndarray:
    """The record of a problem with what all tasks of a table share."""
    problem = np.zeros(1, PROBLEM)
    shared, tolerances = problem[0], floats(table[tt.TOLERANCES], 2)
    shared.method, shared.rhs = BDF, table[tt.RHS]
    shared.jac = table[tt.JAC] if table[tt.JAC] != 0 else integers(table[tt.STIFF], 2)[1]
    shared.n, shared.n_p, shared.n_dp = table[tt.N_STATES], table[tt.N_P], table[tt.N_DP]
    shared.rtol, shared.atol, shared.max_steps = tolerances[0], tolerances[1], table[tt.MAX_STEPS]
    shared.steps = n_steps.ctypes.data
    return problem


@innermost
def _set_subject(
    problem: np.ndarray, times: np.ndarray, t0: float, y0: np.ndarray, p: np.ndarray
) -> None:
    """Put a subject into the record."""
    own = problem[0]
    own.n_rows, own.times, own.t0 = times.size, times.ctypes.data, t0
    own.y0, own.p = y0.ctypes.data, p.ctypes.data


def _solve(begin: int, end: int, table_address: int) -> int:
    """Solve the tasks begin to end, one per subject and replicate."""
    table, n_steps = integers(table_address, tt.TABLE_SIZE), np.zeros(1, np.int64)
    n, problem = table[tt.N_STATES], _problem(table, n_steps)
    for k in range(begin, end):
        replicate, i = k // table[tt.N_SUBJECTS], k % table[tt.N_SUBJECTS]
        first, last, t0, y0, p = tt.read_subject(table, k)
        times, m = _times(table, i, first, last), last - first
        out = np.empty((times.size, n))
        _set_subject(problem, times, t0, y0, p)
        problem[0].out = out.ctypes.data
        status = forward(problem.ctypes.data)
        if table[tt.Z1] != 0:
            copy_values(floats(table[tt.Z1] + 8 * k * n, n), out[m], n)
        tt.write_solution(table, replicate, i, first, out[:m], status)
        # uses after the call: Numba frees an array after its last one
        n_steps[0] = y0.size + p.size + times.size
    return 0


def _pull_back(begin: int, end: int, table_address: int) -> int:
    """Gradients of the tasks begin to end."""
    table, n_steps = integers(table_address, tt.TABLE_SIZE), np.zeros(1, np.int64)
    n, n_dp, n_dy0 = table[tt.N_STATES], table[tt.N_DP], table[tt.N_DY0]
    problem, gradient = _problem(table, n_steps), np.empty(n_dy0 + n_dp)
    own = problem[0]
    own.n_y0, own.y0_index = n_dy0, table[tt.Y0_INDEX]
    for k in range(begin, end):
        replicate, i = k // table[tt.N_SUBJECTS], k % table[tt.N_SUBJECTS]
        first, last, t0, y0, p = tt.read_subject(table, k)
        times, total = _times(table, i, first, last), np.zeros(n_dp + n_dy0)
        g = np.zeros((times.size, n))  # the end of a piece has no observation
        copy_values(
            g.ravel(),
            tt.read_cotangent(table, replicate, first, last - first).ravel(),
            (last - first) * n,
        )
        _set_subject(problem, times, t0, y0, p)
        own.g, own.total = g.ctypes.data, total.ctypes.data
        if table[tt.Z0] != 0:
            place = 8 * k * n * (1 + total.size)
            own.z0, own.z1 = table[tt.Z0] + place, table[tt.Z1] + place
        status = sensitivities(problem.ctypes.data)
        # The engine has the parameters first, the table the entries of y0.
        copy_values(gradient, total[n_dp:], n_dy0)
        copy_values(gradient[n_dy0:], total, n_dp)
        tt.write_gradient(table, replicate, i, gradient, status)
        n_steps[0] = y0.size + p.size + g.size + times.size  # uses after the call, as above
    return 0


@lru_cache
def task(gradient: bool) -> CFunc:
    """Compiled task of the solver; the same for every system, and kept on disk."""
    engine(gradient)
    return compile_task(_pull_back if gradient else _solve)
