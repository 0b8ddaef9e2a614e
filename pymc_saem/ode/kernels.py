"""From an operation and its arrays to a call of the compiled solver.

A solver is a module with ``make_solve_one(compiled_rhs)`` and ``make_sens_one(compiled_rhs)``, two
compiled functions for one subject, or with ``task()``, which serves every system by address.
"""

from collections import OrderedDict
from functools import lru_cache
from importlib import import_module

import numpy as np

from pymc_saem.ode.problem import compile_system

__all__ = ["SOLVERS", "call"]

SOLVERS = {"auto": "tsit5", "tsit5": "tsit5", "cvodes": "cvodes"}
_MAX_LAYOUTS = 64
_layouts = OrderedDict()


def call(op, t, x, c, g=None):
    """Solve every subject of every replicate, or pull the cotangent ``g`` back.

    Parameters
    ----------
    op : OdeSolution or OdeGradient
    t : ndarray, shape (rows,)
    x, c : ndarray, shape (..., n_subjects, n_x) and (..., n_subjects, n_c)
    g : ndarray, shape (..., rows, n_states), optional

    Returns
    -------
    tuple of ndarray or ndarray
        Solution (..., rows, n_states) and status (..., n_subjects); with ``g`` the gradient
        (..., n_subjects, n_x).
    """
    from pymc_saem.ode.driver import Pace, run
    from pymc_saem.ode.native import C, C_STRIDE, G, G_STRIDE, GX, OUT, STATUS, X, X_STRIDE

    rows, n_states = op.rows, op.system.n_states
    _check("times", t, (rows.n_rows,))
    _check("the differentiable y0 and parameters", x, (rows.n_subjects, op.n_x))
    _check("the constant y0 and parameters", c, (rows.n_subjects, op.n_c))
    batch = x.shape[:-2]
    if c.ndim > 2 or (g is not None and g.ndim > 2):
        others = [a.shape[:-2] for a in (c, g) if a is not None]
        batch = np.broadcast_shapes(batch, *others)
    x, x_stride = _batched(x, batch)
    c, c_stride = _batched(c, batch)
    n_replicates = int(np.prod(batch)) if batch else 1
    task, layout, _, paces = _prepare(op, t, g is not None)
    table = layout.copy()
    table[X], table[X_STRIDE] = _address(x), x_stride
    table[C], table[C_STRIDE] = _address(c), c_stride
    n_tasks = n_replicates * rows.n_subjects
    pace = paces.setdefault(n_tasks, Pace())
    if g is None:
        out = np.empty((*batch, rows.n_rows, n_states))
        status = np.empty((*batch, rows.n_subjects), dtype=np.int64)
        table[OUT], table[STATUS] = _address(out), _address(status)
        run(task.address, table, n_tasks, op.n_threads, pace)
        return out, status
    _check("the cotangent", g, (rows.n_rows, n_states))
    g, g_stride = _batched(g, batch)
    gx = np.empty((*batch, rows.n_subjects, op.n_x))
    table[G], table[G_STRIDE], table[GX] = _address(g), g_stride, _address(gx)
    run(task.address, table, n_tasks, op.n_threads, pace)
    return gx


def _check(what, array, shape):
    if array.shape[-len(shape) :] != shape:
        raise ValueError(
            f"solve_ivp was built for {what} of shape {shape} and got {array.shape}. The number of rows "
            "and subjects is fixed when solve_ivp is called: call it again for new ones."
        )


def _batched(array, batch):
    """Row-major array and its stride between replicates; zero when all share one."""
    if array.ndim == 2:
        return np.ascontiguousarray(array, dtype=np.float64), 0
    if array.shape[:-2] != batch:
        array = np.broadcast_to(array, batch + array.shape[-2:])
    return np.ascontiguousarray(array, dtype=np.float64), array.shape[-2] * array.shape[-1]


def _address(array):
    return array.__array_interface__["data"][0]


def _prepare(op, t, gradient):
    """Task, table, the arrays it points to, durations by number of tasks; kept for the last few operations and times."""
    key = (op, gradient, t.tobytes())
    if key not in _layouts:
        _layouts[key] = _layout(op, np.asarray(t, dtype=np.float64), gradient)
        if len(_layouts) > _MAX_LAYOUTS:
            _layouts.popitem(last=False)
    return _layouts[key]


def _layout(op, t, gradient):
    from pymc_saem.ode import native as nt

    system, rows = op.system, op.rows
    order = rows.order(t)
    y0_index = np.array(op.y0_index, dtype=np.int64)
    constant = np.setdiff1d(np.arange(system.n_states), y0_index).astype(np.int64)
    kept = {
        nt.TIMES: t[order],
        nt.ORDER: order,
        nt.STARTS: rows.starts,
        nt.T0: rows.t0,
        nt.Y0_INDEX: y0_index,
        nt.Y0_CONSTANT: constant,
        nt.TOLERANCES: np.array([op.rtol, op.atol]),
    }
    table = np.zeros(nt.TABLE_SIZE, dtype=np.int64)
    for place, array in kept.items():
        table[place] = _address(array)
    table[nt.N_SUBJECTS], table[nt.N_ROWS], table[nt.N_STATES] = rows.n_subjects, rows.n_rows, system.n_states
    table[nt.N_DY0], table[nt.N_DP], table[nt.N_P] = y0_index.size, system.n_dp, system.n_p
    table[nt.MAX_STEPS] = op.max_steps
    compiled = compile_system(system)
    solver = import_module(f"pymc_saem.ode.{SOLVERS[op.solver]}")
    if hasattr(solver, "task"):
        table[nt.RHS] = compiled.rhs_address
        table[nt.JAC] = compiled.jac_address if gradient else 0
    return _task(solver, compiled, gradient), table, kept, {}


@lru_cache(maxsize=None)
def _task(solver, compiled, gradient):
    if hasattr(solver, "task"):
        return solver.task()
    from pymc_saem.ode import adapter

    if gradient:
        return adapter.sensitivity_task(solver.make_sens_one(compiled))
    return adapter.solve_task(solver.make_solve_one(compiled))
