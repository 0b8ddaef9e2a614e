"""The operations inside graphs that Numba compiles.

By default the compiled graph calls back into Python, and from there the compiled solver: about 30
us. Inside ``compiled_calls`` of an operation it calls the solver itself.

Registered without a cache key, so PyTensor never keeps the addresses on disk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from pytensor.graph.basic import Apply, Constant, Variable

from pymc_saem.ode.ops.call import CallPlan, Operation, plan_of
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.threads import SWITCH, run_as_switched

__all__ = ["gradient_form", "solution_form"]


def gradient_form(op: Operation, node: Apply, **kwargs: Any) -> Callable[..., Any]:
    """The form of ``OdeGradient``."""
    gradient_type = _type(node.outputs[0])

    @numba.njit
    def through_python(t: np.ndarray, x: np.ndarray, c: np.ndarray, g: np.ndarray) -> Any:
        with numba.objmode(gx=gradient_type):
            gx = op.compute(t, x, c, g)[0]
        return gx

    t, x, c, g = node.inputs
    if not (isinstance(t, Constant) and (x.type.ndim, c.type.ndim, g.type.ndim) == (3, 2, 3)):
        return through_python
    new_table, run, in_python, plan = _parts(op, t.data, gradient=True)
    G, GX, G_STRIDE, g_shape = tt.G, tt.GX, tt.G_STRIDE, plan.g_shape

    @numba.njit
    def gradient(t: np.ndarray, x: np.ndarray, c: np.ndarray, g: np.ndarray) -> np.ndarray:
        if in_python(x, c) or g.shape[0] != x.shape[0] or g.shape[1:] != g_shape:
            return through_python(t, x, c, g)
        x, c, g = np.ascontiguousarray(x), np.ascontiguousarray(c), np.ascontiguousarray(g)
        gx, table = np.empty(x.shape), new_table(x, c)
        table[G], table[GX], table[G_STRIDE] = (
            g.ctypes.data,
            gx.ctypes.data,
            g_shape[0] * g_shape[1],
        )
        run(table, x.shape[0])
        # uses after the run: Numba frees an array after its last one
        if x.size + c.size + g.size < 0:
            gx[0, 0, 0] = 1.0
        return gx

    gradient.plan = plan  # as below
    return gradient


def solution_form(op: Operation, node: Apply, **kwargs: Any) -> Callable[..., Any]:
    """The form of ``OdeSolution`` and ``OdeDerivatives``."""
    types = tuple(map(_type, node.outputs))
    through_python = (_three_through_python if op.has_derivatives else _two_through_python)(
        op, *types
    )
    t, x, c = node.inputs
    if not (isinstance(t, Constant) and (x.type.ndim, c.type.ndim) == (3, 2)):
        return through_python
    new_table, run, in_python, plan = _parts(op, t.data, gradient=False)
    n_subjects, n_rows, n_states, n_x = (
        op.rows.n_subjects,
        op.rows.n_rows,
        op.system.n_states,
        op.n_x,
    )
    OUT, STATUS, SENS = tt.OUT, tt.STATUS, tt.SENS

    @numba.njit
    def solution(t: np.ndarray, x: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if in_python(x, c):
            return through_python(t, x, c)
        x, c = np.ascontiguousarray(x), np.ascontiguousarray(c)
        y, table = np.empty((x.shape[0], n_rows, n_states)), new_table(x, c)
        status = np.empty((x.shape[0], n_subjects), np.int64)
        table[OUT], table[STATUS] = y.ctypes.data, status.ctypes.data
        run(table, x.shape[0])
        if x.size + c.size < 0:  # uses after the run: Numba frees an array after its last one
            status[0, 0] = 1
        return y, status

    @numba.njit
    def derivatives(
        t: np.ndarray, x: np.ndarray, c: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if in_python(x, c):
            return through_python(t, x, c)
        x, c = np.ascontiguousarray(x), np.ascontiguousarray(c)
        y, table = np.empty((x.shape[0], n_rows, n_states)), new_table(x, c)
        status = np.empty((x.shape[0], n_subjects), np.int64)
        dy = np.empty((x.shape[0], n_rows, n_states, n_x))
        table[OUT], table[STATUS], table[SENS] = y.ctypes.data, status.ctypes.data, dy.ctypes.data
        run(table, x.shape[0])
        if x.size + c.size < 0:  # as above
            status[0, 0] = 1
        return y, status, dy

    function = derivatives if op.has_derivatives else solution
    # The plan owns the memory and the code behind the addresses, so it shall live as long as the
    # function.
    function.plan = plan
    return function


def _type(variable: Variable) -> numba.types.Array:
    return numba.types.Array(
        numba.from_dtype(np.dtype(variable.type.dtype)), variable.type.ndim, "C"
    )


def _two_through_python(
    op: Operation, solution_type: numba.types.Array, status_type: numba.types.Array
) -> Callable[..., Any]:
    @numba.njit
    def through_python(t: np.ndarray, x: np.ndarray, c: np.ndarray) -> Any:
        with numba.objmode(y=solution_type, status=status_type):
            y, status = op.compute(t, x, c)
        return y, status

    return through_python


def _three_through_python(
    op: Operation,
    solution_type: numba.types.Array,
    status_type: numba.types.Array,
    derivatives_type: numba.types.Array,
) -> Callable[..., Any]:
    @numba.njit
    def through_python(t: np.ndarray, x: np.ndarray, c: np.ndarray) -> Any:
        with numba.objmode(y=solution_type, status=status_type, dy=derivatives_type):
            y, status, dy = op.compute(t, x, c)
        return y, status, dy

    return through_python


class _Parts(NamedTuple):
    """The solver at fixed times for replicates (first axis of x) that share their constant values."""

    # new_table(x, c): the table of a call, without places for results
    new_table: Callable[..., np.ndarray]
    run: Callable[..., None]  # run(table, n_replicates) solves
    in_python: Callable[..., bool]  # in_python(x, c): whether the call must go through Python
    plan: CallPlan  # owns the memory and the code behind the addresses


def _parts(op: Operation, times: np.ndarray, gradient: bool) -> _Parts:
    """The solver of an operation at fixed times."""
    plan = plan_of(op, np.asarray(times), gradient)
    task, template, switch = plan.task.address, plan.table.ctypes.data, SWITCH.ctypes.data
    x_shape, c_shape, size, n_subjects = (
        plan.x_shape,
        plan.c_shape,
        tt.TABLE_SIZE,
        op.rows.n_subjects,
    )
    X, C, X_STRIDE, longs = tt.X, tt.C, tt.X_STRIDE, tt.longs

    @numba.njit
    def in_python(x: np.ndarray, c: np.ndarray) -> bool:
        return longs(switch)[0] == 0 or x.shape[1:] != x_shape or c.shape != c_shape

    @numba.njit
    def new_table(x: np.ndarray, c: np.ndarray) -> np.ndarray:
        table = np.empty(size, np.int64)
        for k in range(size):
            table[k] = longs(template)[k]
        table[X], table[C], table[X_STRIDE] = x.ctypes.data, c.ctypes.data, x_shape[0] * x_shape[1]
        return table

    @numba.njit
    def run(table: np.ndarray, n_replicates: int) -> None:
        # Literal or unsigned addresses would have functions compiled again that are known for
        # int64.
        run_as_switched(
            np.int64(switch), np.int64(task), np.int64(table.ctypes.data), n_replicates * n_subjects
        )
        if table.size < 0:  # a use after the run, as above
            table[0] = 1

    return _Parts(new_table, run, in_python, plan)
