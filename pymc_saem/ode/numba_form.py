"""The operations inside graphs that Numba compiles.

By default the compiled graph calls back into Python, and from there the compiled solver: about 30 us. Inside
``OdeSolution.compiled_calls`` it calls the solver itself.

Registered without a cache key, so PyTensor never keeps the addresses on disk.
"""

import numba
import numpy as np
from pytensor.graph.basic import Constant
from pytensor.link.numba.dispatch import numba_funcify

from pymc_saem.ode.op import OdeGradient, OdeSolution


@numba_funcify.register(OdeGradient)
def _gradient(op, node, **kwargs):
    gradient_type = _type(node.outputs[0])

    @numba.njit
    def gradient(t, x, c, g):
        with numba.objmode(gx=gradient_type):
            gx = op.compute(t, x, c, g)[0]
        return gx

    return gradient


@numba_funcify.register(OdeSolution)
def _solution(op, node, **kwargs):
    solution_type, status_type = map(_type, node.outputs)

    @numba.njit
    def through_python(t, x, c):
        with numba.objmode(y=solution_type, status=status_type):
            y, status = op.compute(t, x, c)
        return y, status

    t, x, c = node.inputs
    if isinstance(t, Constant) and (x.type.ndim, c.type.ndim) == (3, 2):
        return _compiled_solution(op, t.data, through_python)
    return through_python


def _type(variable):
    return numba.types.Array(numba.from_dtype(np.dtype(variable.type.dtype)), variable.type.ndim, "C")


def _compiled_solution(op, times, through_python):
    """Solution at fixed times of replicates (first axis of x) that share their constant values."""
    from pymc_saem.ode import task_table as tt
    from pymc_saem.ode.kernels import plan_of
    from pymc_saem.ode.pool import SWITCH, run_as_switched

    plan = plan_of(op, np.asarray(times), gradient=False)
    task, template, switch = plan.task.address, plan.table.ctypes.data, SWITCH.ctypes.data
    n_subjects, n_rows, n_states = op.rows.n_subjects, op.rows.n_rows, op.system.n_states
    x_shape, c_shape, size = plan.x_shape, plan.c_shape, tt.TABLE_SIZE
    X, C, OUT, STATUS, X_STRIDE, longs = tt.X, tt.C, tt.OUT, tt.STATUS, tt.X_STRIDE, tt.longs

    @numba.njit
    def solution(t, x, c):
        if longs(switch)[0] == 0 or x.shape[1:] != x_shape or c.shape != c_shape:
            return through_python(t, x, c)
        x, c = np.ascontiguousarray(x), np.ascontiguousarray(c)
        y = np.empty((x.shape[0], n_rows, n_states))
        status = np.empty((x.shape[0], n_subjects), np.int64)
        table = np.empty(size, np.int64)
        for k in range(size):
            table[k] = longs(template)[k]
        table[X], table[C], table[OUT], table[STATUS] = x.ctypes.data, c.ctypes.data, y.ctypes.data, status.ctypes.data
        table[X_STRIDE] = x_shape[0] * x_shape[1]
        # Literal or unsigned addresses would have functions compiled again that are known for int64.
        run_as_switched(np.int64(switch), np.int64(task), np.int64(table.ctypes.data), x.shape[0] * n_subjects)
        # Uses after the run: Numba frees an array after its last one.
        if table.size + x.size + c.size < 0:
            status[0, 0] = 1
        return y, status

    # The plan owns the memory and the code behind the addresses, so it shall live as long as the function.
    solution.plan = plan
    return solution
