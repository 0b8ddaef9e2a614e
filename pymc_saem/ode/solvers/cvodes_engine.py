"""One solve by SUNDIALS CVODE, without and with sensitivities; compiled functions that take all by address.

One call makes one context and one solver memory and frees both, so calls may run in parallel
threads.

Forward: Newton with SUNDIALS' dense solver and the analytic Jacobian.

Gradient: CVODE integrates y and its sensitivities S = dy/d(parameters, y0) as one system, S in the
error control. The wheels' CVODE has no sensitivity solver, and a generic linear solver on n (1 +
n_sens) states is wasteful: the Jacobian is needed for S anyway, and given y the corrector equation
of S is linear. So the corrector is ours: Newton on the n states, then S from one n x n
factorization. CVODE believes that it runs a fixed-point iteration that converges at once
(`cvodes_callbacks.corrector` has the algebra).

The engine is compiled once per machine and kept on disk; a model adds only its right-hand side.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core.ccallback import CFunc

from pymc_saem.ode.runtime import status as st
from pymc_saem.ode.runtime.native import (
    copy_values,
    external,
    floats,
    innermost,
    integers,
    kept_cfunc,
    register,
)
from pymc_saem.ode.solvers import cvodes_callbacks as callbacks
from pymc_saem.ode.solvers import sundials as sun

__all__ = ["PROBLEM", "engine", "forward", "sensitivities"]

BDF, ADAMS = sun.CV_BDF, sun.CV_ADAMS


# What one solve is given, as a record in memory, by its address: a call through a symbol takes
# numbers only. Addresses of the right-hand side and its Jacobian; number of states, parameters, of
# both with derivatives, rows; addresses of sorted times, y0, p and the places of differentiable
# entries in y0; where the number of steps goes.
_NUMBERS = "method", "rhs", "jac", "n", "n_p", "n_dp", "n_y0", "n_rows", "max_steps"
_ADDRESSES = "times", "y0", "p", "y0_index", "steps"
# Where the solution goes (rows, n). Of a gradient: the cotangent g (rows, n), its total (parameters
# first, then y0), and in a piece between two events the states and sensitivities at its start and
# end (y0 first, then parameters), or zero.
_RESULTS = "out", "g", "total", "z0", "z1"
_REALS = "t0", "rtol", "atol"
PROBLEM = np.dtype(
    [(k, np.int64) for k in (*_NUMBERS, *_ADDRESSES, *_RESULTS)] + [(k, np.float64) for k in _REALS]
)
_SIZE = PROBLEM.itemsize // 8


@innermost
def _problem_at(address: int) -> Any:
    return floats(address, _SIZE).view(PROBLEM)[0]


class _Run(NamedTuple):
    """One solve under way: its objects, the memory of their two vectors, and the rows to reach."""

    handles: np.ndarray
    state: np.ndarray
    row: np.ndarray
    t_rows: np.ndarray
    first: int  # the first row that is not the start
    t0: float
    max_steps: int


# Cells for handles, in one array, because C functions want their addresses.
CONTEXT, VECTOR, ROW, MATRIX, LINEAR, NONLINEAR, MEMORY, N_HANDLES = range(8)

rhs_address = sun.c_address(sun.integer(sun.real, *[sun.handle] * 3))
jac_address = sun.c_address(sun.integer(sun.real, *[sun.handle] * 7))
weights_address = sun.c_address(sun.integer(*[sun.handle] * 3))


@innermost
def _status(flag: int) -> int:
    """SolverStatus of a CVODE return flag."""
    if flag >= 0:
        return st.SUCCESS
    if -11 <= flag <= -8:  # the right-hand side refused: at once, or every smaller step
        return st.NON_FINITE
    if flag == -2:  # more accuracy asked for than doubles have
        return st.STEP_TOO_SMALL
    return st.SOLVER_FAILURE


@innermost
def _open(run: _Run, method: int) -> bool:
    """Context, vectors over `state` and `row`, solver memory; False if out of memory."""
    handles, state, row = run.handles, run.state, run.row
    address = handles.ctypes.data
    if sun.SUNContext_Create(0, address + 8 * CONTEXT) != 0:
        return False
    context = handles[CONTEXT]
    sun.SUNContext_ClearErrHandlers(context)  # or every failure is printed
    handles[VECTOR] = sun.N_VMake_Serial(state.size, state.ctypes.data, context)
    handles[ROW] = sun.N_VMake_Serial(row.size, row.ctypes.data, context)
    handles[MEMORY] = sun.CVodeCreate(method, context)
    return handles[VECTOR] != 0 and handles[ROW] != 0 and handles[MEMORY] != 0


@innermost
def _close(handles: np.ndarray) -> None:
    """Free what was made, in reverse; also after a failure half way through opening."""
    address = handles.ctypes.data
    if handles[MEMORY] != 0:
        sun.CVodeFree(address + 8 * MEMORY)
    if handles[NONLINEAR] != 0:
        sun.SUNNonlinSolFree(handles[NONLINEAR])
    if handles[LINEAR] != 0:
        sun.SUNLinSolFree(handles[LINEAR])
    if handles[MATRIX] != 0:
        sun.SUNMatDestroy(handles[MATRIX])
    if handles[ROW] != 0:
        sun.N_VDestroy(handles[ROW])
    if handles[VECTOR] != 0:
        sun.N_VDestroy(handles[VECTOR])
    if handles[CONTEXT] != 0:
        sun.SUNContext_Free(address + 8 * CONTEXT)


@innermost
def _start(handles: np.ndarray, rhs: int, t0: float, work: np.ndarray) -> int:
    """What both problems set; user data first: a callback without it would read address 0."""
    memory = handles[MEMORY]
    flag = sun.CVodeInit(memory, rhs, t0, handles[VECTOR])
    flag = min(flag, sun.CVodeSetUserData(memory, work.ctypes.data))
    return min(flag, sun.CVodeSetMaxHnilWarns(memory, -1))  # -1: no warnings on the terminal


@innermost
def _use_newton(handles: np.ndarray, n: int, jacobian: int) -> int:
    context, memory = handles[CONTEXT], handles[MEMORY]
    handles[MATRIX] = sun.SUNDenseMatrix(n, n, context)
    handles[LINEAR] = sun.SUNLinSol_Dense(handles[VECTOR], handles[MATRIX], context)
    if handles[MATRIX] == 0 or handles[LINEAR] == 0:
        return -1
    flag = sun.CVodeSetLinearSolver(memory, handles[LINEAR], handles[MATRIX])
    return min(flag, sun.CVodeSetJacFn(memory, jacobian))


@innermost
def _use_corrector(handles: np.ndarray, corrector: int) -> int:
    memory = handles[MEMORY]
    handles[NONLINEAR] = sun.SUNNonlinSol_FixedPoint(handles[VECTOR], 0, handles[CONTEXT])
    if handles[NONLINEAR] == 0:
        return -1
    flag = sun.CVodeSetNonlinearSolver(memory, handles[NONLINEAR])
    flag = min(flag, sun.CVodeSetNlsRhsFn(memory, corrector))
    # The corrector has converged when it returns, so CVODE's own test must pass at the first
    # iteration.
    return min(flag, sun.CVodeSetNonlinConvCoef(memory, 1e100))


@innermost
def _first_after(t_rows: np.ndarray, t0: float) -> int:
    """Index of the first row that CVODE can distinguish from t0 (nearer ones are t0), or -1 for invalid times."""
    first = t_rows.size
    for i in range(t_rows.size - 1, -1, -1):
        t = t_rows[i]
        if not (np.isfinite(t) and t >= t0) or (i + 1 < t_rows.size and t > t_rows[i + 1]):
            return -1
        if t - t0 > 4.0 * np.finfo(np.float64).eps * max(abs(t), abs(t0)):
            first = i
    return first if np.isfinite(t0) else -1


@innermost
def _advance(
    run: _Run, t_now: float, t: float, n_steps: int, cells: np.ndarray
) -> tuple[int, float, int]:
    """Step until `t` is passed, then interpolate into the row vector.

    Returns status, time reached, steps so far. One step per call (not CV_NORMAL), so that
    `max_steps` counts the whole solve and not each output.
    """
    handles, memory, t_first = run.handles, run.handles[MEMORY], run.t_rows[run.first]
    while t_now < t:
        if n_steps >= run.max_steps:
            return st.MAX_STEPS, t_now, n_steps
        flag = sun.CVode(memory, t_first, handles[VECTOR], cells.ctypes.data, sun.CV_ONE_STEP)
        n_steps += 1
        if flag < 0:
            return _status(flag), t_now, n_steps
        if not cells[0] > t_now:
            return st.STEP_TOO_SMALL, t_now, n_steps
        t_now = cells[0]
    return _status(sun.CVodeGetDky(memory, t, 0, handles[ROW])), t_now, n_steps


@innermost
def _run_forward(run: _Run, out: np.ndarray) -> tuple[int, int]:
    """Write the states of all rows; status and steps."""
    n, t_rows, first = run.state.size, run.t_rows, run.first
    t_now, n_steps, cells = run.t0, 0, np.zeros(1)
    for r in range(t_rows.size):
        if r == first or (r > first and t_rows[r] != t_rows[r - 1]):
            status, t_now, n_steps = _advance(run, t_now, t_rows[r], n_steps, cells)
            if status != st.SUCCESS:
                return status, n_steps
        source = run.state if r < first else run.row
        for i in range(n):
            out[r * n + i] = source[i]
    return st.SUCCESS, n_steps


@innermost
def _run_sens(run: _Run, g: np.ndarray, total: np.ndarray) -> tuple[int, int]:
    """Add the sensitivities of all rows, times the cotangent `g`, to `total`; status and steps."""
    n_sens, t_rows, first = total.size, run.t_rows, run.first
    n = run.state.size // (1 + n_sens)
    t_now, n_steps, cells = run.t0, 0, np.zeros(1)
    for r in range(t_rows.size):
        if r == first or (r > first and t_rows[r] != t_rows[r - 1]):
            status, t_now, n_steps = _advance(run, t_now, t_rows[r], n_steps, cells)
            if status != st.SUCCESS:
                return status, n_steps
        source = run.state if r < first else run.row
        for i in range(n):
            weight = g[r * n + i]
            for j in range(n_sens):
                total[j] += weight * source[n + i * n_sens + j]
    return st.SUCCESS, n_steps


@innermost
def _reorder(source: np.ndarray, target: np.ndarray, n: int, n_first: int, n_second: int) -> None:
    """Copy states and sensitivities; the first n_first columns of the sensitivities become the last ones."""
    copy_values(target, source, n)
    n_sens = n_first + n_second
    for i in range(n):
        row = n + i * n_sens
        for j in range(n_first):
            target[row + n_second + j] = source[row + j]
        for j in range(n_second):
            target[row + j] = source[row + n_first + j]


def _forward(address: int) -> int:
    problem = _problem_at(address)
    n, n_rows, t0, rtol, atol = problem.n, problem.n_rows, problem.t0, problem.rtol, problem.atol
    t_rows, y0 = floats(problem.times, n_rows), floats(problem.y0, n)
    first = _first_after(t_rows, t0)
    if first < 0:
        return st.BAD_TIMES
    data, handles = callbacks.user_data(problem), np.zeros(N_HANDLES, np.int64)
    run = _Run(handles, y0.copy(), np.empty(n), t_rows, first, t0, problem.max_steps)
    status = st.SOLVER_FAILURE
    if _open(run, problem.method):
        flag = _start(handles, rhs_address(callbacks.forward_rhs), t0, data)
        flag = min(flag, sun.CVodeSStolerances(handles[MEMORY], rtol, atol))
        flag = min(flag, _use_newton(handles, n, jac_address(callbacks.forward_jacobian)))
        if flag == 0:
            status, integers(problem.steps, 1)[0] = _run_forward(
                run, floats(problem.out, n_rows * n)
            )
    _close(handles)
    data[0] = 0.0  # a use after the last callback: Numba frees an array after its last use
    return status


def _sensitivities(address: int) -> int:
    problem = _problem_at(address)
    n, n_rows, n_dp, n_y0, t0 = problem.n, problem.n_rows, problem.n_dp, problem.n_y0, problem.t0
    t_rows, y0, y0_index = (
        floats(problem.times, n_rows),
        floats(problem.y0, n),
        integers(problem.y0_index, n_y0),
    )
    n_sens, first = n_dp + n_y0, _first_after(t_rows, t0)
    if first < 0:
        return st.BAD_TIMES
    data, handles = callbacks.user_data(problem), np.zeros(N_HANDLES, np.int64)
    state, row = np.zeros(n + n * n_sens), np.empty(n + n * n_sens)
    copy_values(state, y0, n)
    for j in range(n_y0):
        state[n + y0_index[j] * n_sens + n_dp + j] = 1.0
    if problem.z0 != 0:
        _reorder(floats(problem.z0, state.size), state, n, n_y0, n_dp)
    run, status = _Run(handles, state, row, t_rows, first, t0, problem.max_steps), st.SOLVER_FAILURE
    if _open(run, problem.method):
        data.view(np.int64)[callbacks.MEMORY] = handles[MEMORY]
        flag = _start(handles, rhs_address(callbacks.augmented_rhs), t0, data)
        flag = min(
            flag, sun.CVodeWFtolerances(handles[MEMORY], weights_address(callbacks.error_weights))
        )
        flag = min(flag, _use_corrector(handles, rhs_address(callbacks.corrector)))
        if flag == 0:
            g, total = floats(problem.g, n_rows * n), floats(problem.total, n_sens)
            status, integers(problem.steps, 1)[0] = _run_sens(run, g, total)
            if problem.z1 != 0:
                _reorder(
                    row if first < n_rows else state, floats(problem.z1, state.size), n, n_dp, n_y0
                )
    _close(handles)
    data[0] = 0.0  # a use after the last callback: Numba frees an array after its last use
    return status


# Both are called through a symbol, like SUNDIALS itself: a call that Numba links would compile them
# again for each model, even when they come from its cache.
_SIGNATURE = types.int64(types.int64)
forward = external("cvodes_forward", _SIGNATURE)
sensitivities = external("cvodes_sensitivities", _SIGNATURE)


@lru_cache
def engine(gradient: bool) -> CFunc:
    """Compile one of the two, or read it from Numba's cache, and give its symbol the address."""
    sun.load()
    function = _sensitivities if gradient else _forward
    compiled = kept_cfunc(_SIGNATURE, function)
    register("cvodes" + function.__name__, compiled.address)
    return compiled  # the code lives as long as this object
