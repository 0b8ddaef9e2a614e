"""One solve with solver memory that sunode made: what CVODES calls back, and the loop over steps.

Compiled once per machine, like `cvodes_engine`: the model comes in as two addresses in the user
data. The memory (CVODES, linear solver, vectors) is sunode's, a `sunode.solver.Solver` per thread,
so this works with the SUNDIALS that sunode was built with, and nothing here makes or frees an
object of it. The functions have names of their own (`sunode_`): the process may also hold the
SUNDIALS of the `cvodes` solver, of another version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from numba.core.ccallback import CFunc
from numba.core.typing.templates import Signature

from pymc_saem.ode.runtime import status as st
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import (
    compile_task,
    external,
    floats,
    inner,
    integers,
    kept_cfunc,
    longs,
    register,
)
from pymc_saem.ode.runtime.threads import _pause, _swap, _write
from pymc_saem.ode.solvers import sundials as sun
from pymc_saem.ode.solvers.cvodes_callbacks import (
    DY,
    JP,
    JY,
    N_DP,
    N_HEAD,
    N,
    derivative,
    derivatives,
    finite,
    jacobian,
)
from pymc_saem.ode.solvers.cvodes_engine import _first_after, _status

__all__ = ["PROTOTYPES", "bind", "callbacks", "task"]

# Memory of an operation: the number of places in its first cell, then a cache line per place
# (thread):
BUSY, SOLVER, VECTOR, STATE, PARAMETERS, SENS_VECTORS, SENS, PLACE_SIZE = range(8)

# The names that sunode's own interface to SUNDIALS declares too.
PROTOTYPES = {
    "N_VGetArrayPointer_Serial": sun.address(sun.handle),
    "SUNDenseMatrix_Data": sun.address(sun.handle),
    "CVodeReInit": sun.integer(sun.handle, sun.real, sun.handle),
    "CVodeSStolerances": sun.integer(sun.handle, sun.real, sun.real),
    "CVodeSetSensParams": sun.integer(*[sun.handle] * 4),
    "CVodeSensReInit": sun.integer(sun.handle, sun.integer, sun.handle),
    "CVode": sun.integer(sun.handle, sun.real, sun.handle, sun.handle, sun.integer),
    "CVodeGetDky": sun.integer(sun.handle, sun.real, sun.integer, sun.handle),
    "CVodeGetSensDky": sun.integer(sun.handle, sun.real, sun.integer, sun.handle),
}
_functions = {name: external(f"sunode_{name}", signature) for name, signature in PROTOTYPES.items()}
array_of, matrix_data = _functions["N_VGetArrayPointer_Serial"], _functions["SUNDenseMatrix_Data"]
reinit, set_tolerances = _functions["CVodeReInit"], _functions["CVodeSStolerances"]
set_scales, sens_reinit = _functions["CVodeSetSensParams"], _functions["CVodeSensReInit"]
step, interpolate = _functions["CVode"], _functions["CVodeGetDky"]
interpolate_sens = _functions["CVodeGetSensDky"]

SIMULTANEOUS = 1


def bind(addresses: Mapping[str, int]) -> None:
    """Give the names in compiled code their addresses; before anything here is compiled or read from a cache."""
    for name, address in addresses.items():
        register(f"sunode_{name}", address)


def _rhs(t: float, y_vector: int, dy_vector: int, data: int) -> int:
    return derivative(t, array_of(y_vector), array_of(dy_vector), data)


def _jacobian(
    t: float, y_vector: int, dy_vector: int, matrix: int, data: int, tmp1: int, tmp2: int, tmp3: int
) -> int:
    return jacobian(t, array_of(y_vector), matrix_data(matrix), data)


def _sensitivity_rhs(
    n_sens: int,
    t: float,
    y_vector: int,
    dy_vector: int,
    s_vectors: int,
    ds_vectors: int,
    data: int,
    tmp1: int,
    tmp2: int,
) -> int:
    """dS/dt = (df/dy) S + df/dp for the parameters, then the entries of y0, one vector each."""
    head = integers(data, N_HEAD)
    n, n_dp = head[N], head[N_DP]
    derivatives(t, array_of(y_vector), head[DY], data)
    jy, jp = floats(head[JY], n * n), floats(head[JP], n * n_dp)
    fine = True
    for j in range(n_sens):
        s, ds = floats(array_of(longs(s_vectors)[j]), n), floats(array_of(longs(ds_vectors)[j]), n)
        for i in range(n):
            total = jp[i * n_dp + j] if j < n_dp else 0.0
            for k in range(n):
                total += jy[i * n + k] * s[k]
            ds[i] = total
        fine = fine and finite(ds)
    return 0 if fine else 1


_CALLBACKS: tuple[tuple[Callable[..., int], Signature], ...] = (
    (_rhs, sun.integer(sun.real, *[sun.handle] * 3)),
    (_jacobian, sun.integer(sun.real, *[sun.handle] * 7)),
    (_sensitivity_rhs, sun.integer(sun.integer, sun.real, *[sun.handle] * 7)),
)


class _Subject(NamedTuple):
    """What is solved: sorted times, start, parameters, and the places of differentiable entries in y0."""

    t_rows: np.ndarray
    t0: float
    y0: np.ndarray
    p: np.ndarray
    y0_index: np.ndarray


class _Results(NamedTuple):
    """Where the rows go (rows, n), or for a gradient their products with the cotangent g (rows, n), summed."""

    gradient: bool
    out: np.ndarray
    g: np.ndarray
    total: np.ndarray


@inner
def _reached(flag: int) -> int:
    """SolverStatus of a flag of CVODES: those of CVODE, and -41 to -44 when the sensitivities' derivative refused."""
    return st.NON_FINITE if -44 <= flag <= -41 else _status(flag)


@inner
def _start(place: np.ndarray, table: np.ndarray, subject: _Subject, gradient: bool) -> int:
    """Put a subject into the solver: values, tolerances, and where it has sensitivities their start and scale."""
    y0, p, y0_index = subject.y0, subject.p, subject.y0_index
    n, n_dp = y0.size, table[tt.N_DP]
    solver, tolerances = place[SOLVER], floats(table[tt.TOLERANCES], 2)
    state, parameters = floats(place[STATE], n), floats(place[PARAMETERS], p.size)
    for i in range(n):
        state[i] = y0[i]
    for j in range(p.size):
        parameters[j] = p[j]
    flag = reinit(solver, subject.t0, place[VECTOR])
    flag = min(flag, set_tolerances(solver, tolerances[0], tolerances[1]))
    if gradient:
        # A derivative is as accurate as the state by a relative change of its parameter.
        scale = np.ones(n_dp + y0_index.size)
        for j in range(scale.size):
            value = p[j] if j < n_dp else y0[y0_index[j - n_dp]]
            if np.isfinite(value):
                scale[j] = max(1.0, abs(value))
            column = floats(longs(place[SENS])[j], n)
            for i in range(n):
                column[i] = 1.0 if j >= n_dp and y0_index[j - n_dp] == i else 0.0
        flag = min(flag, set_scales(solver, 0, scale.ctypes.data, 0))
        flag = min(flag, sens_reinit(solver, SIMULTANEOUS, place[SENS_VECTORS]))
        scale[0] += 0.0  # a use after the call: Numba frees an array after its last use
    return flag


@inner
def _advance(
    place: np.ndarray,
    t_now: float,
    t: float,
    t_first: float,
    n_steps: int,
    max_steps: int,
    gradient: bool,
) -> tuple[int, float, int]:
    """Step until `t` is passed, then interpolate; status, time reached, steps so far.

    One step per call, so that `max_steps` counts the whole solve.
    """
    solver, cell = place[SOLVER], np.zeros(1)
    while t_now < t:
        if n_steps >= max_steps:
            return st.MAX_STEPS, t_now, n_steps
        flag = step(solver, t_first, place[VECTOR], cell.ctypes.data, sun.CV_ONE_STEP)
        n_steps += 1
        if flag < 0:
            return _reached(flag), t_now, n_steps
        if not cell[0] > t_now:
            return st.STEP_TOO_SMALL, t_now, n_steps
        t_now = cell[0]
    flag = interpolate(solver, t, 0, place[VECTOR])
    if gradient:
        flag = min(flag, interpolate_sens(solver, t, 0, place[SENS_VECTORS]))
    return _reached(flag), t_now, n_steps


@inner
def _record(place: np.ndarray, r: int, n: int, results: _Results) -> None:
    """The row of the solution, or its share of the gradient."""
    state, total = floats(place[STATE], n), results.total
    for i in range(n):
        if not results.gradient:
            results.out[r, i] = state[i]
            continue
        for j in range(total.size):
            total[j] += results.g[r, i] * floats(longs(place[SENS])[j], n)[i]


@inner
def _solve(place: np.ndarray, table: np.ndarray, subject: _Subject, results: _Results) -> int:
    t_rows, gradient = subject.t_rows, results.gradient
    first = _first_after(t_rows, subject.t0)
    if first < 0:
        return st.BAD_TIMES
    status, t_now, n_steps = _reached(_start(place, table, subject, gradient)), subject.t0, 0
    for r in range(t_rows.size):
        if status == st.SUCCESS and r >= first and (r == first or t_rows[r] != t_rows[r - 1]):
            status, t_now, n_steps = _advance(
                place, t_now, t_rows[r], t_rows[first], n_steps, table[tt.MAX_STEPS], gradient
            )
        if status == st.SUCCESS:
            _record(place, r, subject.y0.size, results)
    return status


@inner
def _one(place: np.ndarray, table: np.ndarray, task: int, gradient: bool) -> None:
    replicate, i = task // table[tt.N_SUBJECTS], task % table[tt.N_SUBJECTS]
    first, last, t0, y0, p = tt.read_subject(table, task)
    t_rows = floats(table[tt.TIMES] + 8 * first, last - first)
    n_dy0, n_dp = table[tt.N_DY0], table[tt.N_DP]
    subject = _Subject(t_rows, t0, y0, p, integers(table[tt.Y0_INDEX], n_dy0))
    out = np.empty((last - first, y0.size))
    if not gradient:
        status = _solve(place, table, subject, _Results(False, out, out, np.empty(0)))
        tt.write_solution(table, replicate, i, first, out, status)
        return
    g, total = tt.read_cotangent(table, replicate, first, last - first), np.zeros(n_dp + n_dy0)
    status = _solve(place, table, subject, _Results(True, out, g, total))
    result = np.empty(total.size)  # entries of y0 first
    for j in range(total.size):
        result[j] = total[n_dp + j] if j < n_dy0 else total[j - n_dy0]
    tt.write_gradient(table, replicate, i, result, status)


@inner
def _free_place(memory: int) -> int:
    """Address of a place that no other thread uses; there is one for each thread that Numba may have."""
    k, n = 0, longs(memory)[0]
    while True:
        place = memory + 8 * (1 + PLACE_SIZE * k)
        if _swap(place + 8 * BUSY, 0, 1):
            return place
        k = (k + 1) % n
        _pause()


def _task(begin: int, end: int, table_address: int) -> int:
    table = integers(table_address, tt.TABLE_SIZE)
    address = _free_place(table[tt.RHS])
    place = integers(address, PLACE_SIZE)
    for k in range(begin, end):
        _one(place, table, k, tt.n_sens(table) > 0)
    _write(address + 8 * BUSY, 0)
    return 0


@cache
def callbacks() -> tuple[CFunc, ...]:
    """The C functions for right-hand side, Jacobian and sensitivities; `bind` comes first."""
    return tuple(kept_cfunc(signature, function) for function, signature in _CALLBACKS)


@cache
def _compiled() -> CFunc:
    return compile_task(_task)


def task(gradient: bool) -> CFunc:
    """The compiled task of all systems; `bind` comes first."""
    return _compiled()
