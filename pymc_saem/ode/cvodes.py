"""The `cvodes` engine: SUNDIALS CVODE, driven from Numba-compiled code. BDF for stiff systems, Adams on request.

One call makes one context and one solver memory and frees both, so calls may run in parallel threads.

Forward: Newton with SUNDIALS' dense solver and the analytic Jacobian.

Gradient: CVODE integrates y and its sensitivities S = dy/d(parameters, y0) as one system, S in the error control.
The wheels' CVODE has no sensitivity solver, and a generic linear solver on n (1 + n_sens) states is wasteful: the
Jacobian is needed for S anyway, and given y the corrector equation of S is linear. So the corrector is ours: Newton
on the n states, then S from one n x n factorization. CVODE believes that it runs a fixed-point iteration that
converges at once (`cvodes_callbacks.corrector` has the algebra).
"""

from __future__ import annotations

import numpy as np
from numba import types

from pymc_saem.ode import cvodes_callbacks as callbacks
from pymc_saem.ode import sundials as sun
from pymc_saem.ode.cvodes_callbacks import ATOL, MEM, N_SENS, RTOL
from pymc_saem.ode.native import inner
from pymc_saem.ode.status import SolverStatus

SUCCESS = int(SolverStatus.SUCCESS)
MAX_STEPS = int(SolverStatus.MAX_STEPS)
STEP_TOO_SMALL = int(SolverStatus.STEP_TOO_SMALL)
NON_FINITE = int(SolverStatus.NON_FINITE)
BAD_TIMES = int(SolverStatus.BAD_TIMES)
SOLVER_FAILURE = int(SolverStatus.SOLVER_FAILURE)

# Cells for handles, in one array, because C functions want their addresses.
CONTEXT, VECTOR, ROW, MATRIX, LINEAR, NONLINEAR, MEMORY, N_HANDLES = range(8)

METHODS = {"bdf": sun.CV_BDF, "adams": sun.CV_ADAMS}

_pointer = types.voidptr
rhs_address = sun.c_address(sun.integer(sun.real, sun.handle, sun.handle, _pointer))
jac_address = sun.c_address(
    sun.integer(sun.real, sun.handle, sun.handle, sun.handle, _pointer, sun.handle, sun.handle, sun.handle)
)
weights_address = sun.c_address(sun.integer(sun.handle, sun.handle, _pointer))


@inner
def _status(flag):
    """SolverStatus of a CVODE return flag."""
    if flag >= 0:
        return SUCCESS
    if -11 <= flag <= -8:  # the right-hand side refused: at once, or every smaller step
        return NON_FINITE
    if flag == -2:  # more accuracy asked for than doubles have
        return STEP_TOO_SMALL
    return SOLVER_FAILURE


@inner
def _open(handles, state, row, method):
    """Context, vectors over `state` and `row`, solver memory; False if out of memory."""
    address = handles.ctypes.data
    if sun.SUNContext_Create(0, address + 8 * CONTEXT) != 0:
        return False
    context = handles[CONTEXT]
    sun.SUNContext_ClearErrHandlers(context)  # or every failure is printed
    handles[VECTOR] = sun.N_VMake_Serial(state.size, state.ctypes.data, context)
    handles[ROW] = sun.N_VMake_Serial(row.size, row.ctypes.data, context)
    handles[MEMORY] = sun.CVodeCreate(method, context)
    return handles[VECTOR] != 0 and handles[ROW] != 0 and handles[MEMORY] != 0


@inner
def _close(handles):
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


@inner
def _start(handles, rhs, t0, work):
    """What both problems set; user data first: a callback without it would read address 0."""
    memory = handles[MEMORY]
    flag = sun.CVodeInit(memory, rhs, t0, handles[VECTOR])
    flag = min(flag, sun.CVodeSetUserData(memory, work.ctypes.data))
    return min(flag, sun.CVodeSetMaxHnilWarns(memory, -1))  # -1: no warnings on the terminal


@inner
def _use_newton(handles, n, jacobian):
    context, memory = handles[CONTEXT], handles[MEMORY]
    handles[MATRIX] = sun.SUNDenseMatrix(n, n, context)
    handles[LINEAR] = sun.SUNLinSol_Dense(handles[VECTOR], handles[MATRIX], context)
    if handles[MATRIX] == 0 or handles[LINEAR] == 0:
        return -1
    flag = sun.CVodeSetLinearSolver(memory, handles[LINEAR], handles[MATRIX])
    return min(flag, sun.CVodeSetJacFn(memory, jacobian))


@inner
def _use_corrector(handles, corrector):
    memory = handles[MEMORY]
    handles[NONLINEAR] = sun.SUNNonlinSol_FixedPoint(handles[VECTOR], 0, handles[CONTEXT])
    if handles[NONLINEAR] == 0:
        return -1
    flag = sun.CVodeSetNonlinearSolver(memory, handles[NONLINEAR])
    flag = min(flag, sun.CVodeSetNlsRhsFn(memory, corrector))
    # The corrector has converged when it returns, so CVODE's own test must pass at the first iteration.
    return min(flag, sun.CVodeSetNonlinConvCoef(memory, 1e100))


@inner
def _first_after(t_rows, t0):
    """Index of the first row that CVODE can tell from t0 (nearer ones are t0), or -1 for times that are invalid."""
    first = t_rows.size
    for i in range(t_rows.size - 1, -1, -1):
        t = t_rows[i]
        if not (np.isfinite(t) and t >= t0) or (i + 1 < t_rows.size and t > t_rows[i + 1]):
            return -1
        if t - t0 > 4.0 * np.finfo(np.float64).eps * max(abs(t), abs(t0)):
            first = i
    return first if np.isfinite(t0) else -1


@inner
def _advance(handles, t_now, t, t_first, n_steps, max_steps, cells):
    """Step until `t` is passed, then interpolate into the row vector. Returns status, time reached, steps so far.

    One step per call (not CV_NORMAL), so that `max_steps` counts the whole solve and not each output.
    """
    memory = handles[MEMORY]
    while t_now < t:
        if n_steps >= max_steps:
            return MAX_STEPS, t_now, n_steps
        flag = sun.CVode(memory, t_first, handles[VECTOR], cells.ctypes.data, sun.CV_ONE_STEP)
        n_steps += 1
        if flag < 0:
            return _status(flag), t_now, n_steps
        if not cells[0] > t_now:
            return STEP_TOO_SMALL, t_now, n_steps
        t_now = cells[0]
    return _status(sun.CVodeGetDky(memory, t, 0, handles[ROW])), t_now, n_steps


@inner
def _run_forward(handles, state, row, t_rows, first, t0, max_steps, out):
    for r in range(first):
        out[r] = state
    t_now, n_steps, cells = t0, 0, np.zeros(1)
    for r in range(first, t_rows.size):
        if r > first and t_rows[r] == t_rows[r - 1]:
            out[r] = out[r - 1]
            continue
        status, t_now, n_steps = _advance(handles, t_now, t_rows[r], t_rows[first], n_steps, max_steps, cells)
        if status != SUCCESS:
            return status, n_steps
        out[r] = row
    return SUCCESS, n_steps


@inner
def _contract(g_row, row, total):
    n = g_row.size
    n_sens = total.size
    for i in range(n):
        weight = g_row[i]
        if weight != 0.0:
            for j in range(n_sens):
                total[j] += weight * row[n + i * n_sens + j]


@inner
def _run_sens(handles, state, row, t_rows, first, t0, max_steps, g, total):
    for r in range(first):
        _contract(g[r], state, total)
    t_now, n_steps, cells = t0, 0, np.zeros(1)
    for r in range(first, t_rows.size):
        if r == first or t_rows[r] != t_rows[r - 1]:
            status, t_now, n_steps = _advance(
                handles, t_now, t_rows[r], t_rows[first], n_steps, max_steps, cells
            )
            if status != SUCCESS:
                return status, n_steps
        _contract(g[r], row, total)
    return SUCCESS, n_steps


def make_solve_one(compiled, method="bdf"):
    """njit `solve_one(t_rows, t0, y0, p, rtol, atol, max_steps, out) -> (status, n_steps)`; see the module.

    `t_rows` ascends, may repeat and may contain t0. `out` is NaN after a failure.
    """
    sun.load()
    at, method = callbacks.layout(compiled), METHODS[method]
    n, n_p, at_p, size = at.n, at.n_p, at.p, at.size
    rhs, jacobian = callbacks.forward_rhs(compiled), callbacks.forward_jacobian(compiled)

    @inner
    def solve_one(t_rows, t0, y0, p, rtol, atol, max_steps, out):
        first = _first_after(t_rows, t0)
        if first < 0:
            out[:] = np.nan
            return BAD_TIMES, 0
        work = np.zeros(size)
        work[at_p : at_p + n_p] = p
        handles, state, row = np.zeros(N_HANDLES, np.int64), y0.copy(), np.empty(n)
        status, n_steps = SOLVER_FAILURE, 0
        if _open(handles, state, row, method):
            flag = _start(handles, rhs_address(rhs), t0, work)
            flag = min(flag, sun.CVodeSStolerances(handles[MEMORY], rtol, atol))
            flag = min(flag, _use_newton(handles, n, jac_address(jacobian)))
            if flag == 0:
                status, n_steps = _run_forward(handles, state, row, t_rows, first, t0, max_steps, out)
        _close(handles)
        if status != SUCCESS:
            out[:] = np.nan
        work[0] = 0.0  # a use after the last callback: Numba frees an array after its last use
        return status, n_steps

    return solve_one


def make_sens_one(compiled, method="bdf"):
    """njit `sens_one(t_rows, t0, y0, p, y0_index, rtol, atol, max_steps, g, out_gy0, out_gp) -> (status, n_steps)`.

    out_gp[j] = sum over rows and states of g[r, s] dy_s(t_r)/dp_j, for the first n_dp parameters; out_gy0 likewise
    for the entries of y0 in `y0_index`. Both are NaN after a failure.
    """
    sun.load()
    at, method = callbacks.layout(compiled), METHODS[method]
    n, n_p, n_dp, at_p, at_scale, size = at.n, at.n_p, at.n_dp, at.p, at.scale, at.size
    rhs, corrector = callbacks.augmented_rhs(compiled), callbacks.corrector(compiled)
    weights = callbacks.error_weights(compiled)

    @inner
    def sens_one(t_rows, t0, y0, p, y0_index, rtol, atol, max_steps, g, out_gy0, out_gp):
        out_gy0[:] = np.nan
        out_gp[:] = np.nan
        first = _first_after(t_rows, t0)
        if first < 0:
            return BAD_TIMES, 0
        n_sens = n_dp + y0_index.size
        work = np.zeros(size)
        head = work.view(np.int64)
        work[RTOL], work[ATOL], head[N_SENS] = rtol, atol, n_sens
        work[at_p : at_p + n_p] = p
        state, row = np.zeros(n + n * n_sens), np.empty(n + n * n_sens)
        state[:n] = y0
        for j in range(n_dp):
            work[at_scale + j] = 1.0 / max(1.0, abs(p[j]))
        for j in range(y0_index.size):
            work[at_scale + n_dp + j] = 1.0 / max(1.0, abs(y0[y0_index[j]]))
            state[n + y0_index[j] * n_sens + n_dp + j] = 1.0
        handles, total = np.zeros(N_HANDLES, np.int64), np.zeros(n_sens)
        status, n_steps = SOLVER_FAILURE, 0
        if _open(handles, state, row, method):
            head[MEM] = handles[MEMORY]
            flag = _start(handles, rhs_address(rhs), t0, work)
            flag = min(flag, sun.CVodeWFtolerances(handles[MEMORY], weights_address(weights)))
            flag = min(flag, _use_corrector(handles, rhs_address(corrector)))
            if flag == 0:
                status, n_steps = _run_sens(handles, state, row, t_rows, first, t0, max_steps, g, total)
        _close(handles)
        if status == SUCCESS:
            out_gp[:] = total[:n_dp]
            out_gy0[:] = total[n_dp:]
        work[0] = 0.0  # a use after the last callback: Numba frees an array after its last use
        return status, n_steps

    return sens_one
