"""From an operation and its arrays to a call of the compiled solver.

A solver is a module with ``make_solve_one(compiled_rhs)`` and ``make_sens_one(compiled_rhs)``, two
compiled functions for one subject, or with ``task()``, which serves every system by address.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

import numpy as np

from pymc_saem.ode.problem import compile_system

__all__ = ["SOLVERS", "call"]

SOLVERS = {"auto": "lanes", "tsit5": "lanes", "cvodes": "cvodes"}
_MAX_PLANS = 64
# What write_addresses is given, in this order: x, c and out with the status, or x, c, g and gx.
_SOLVING = (4, 5, 9, 10)
_PULLING = (4, 5, 11, 12)
_plans = OrderedDict()


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
    from pymc_saem.ode.driver import Pace, run, write_addresses
    from pymc_saem.ode.native import C_STRIDE, G_STRIDE, X_STRIDE

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
    n_tasks = math.prod(batch) * rows.n_subjects
    plan = _plan(op, t, g is not None)
    table = plan.table.copy()
    table[X_STRIDE], table[C_STRIDE] = x_stride, c_stride
    pace = plan.paces.get(n_tasks) or plan.paces.setdefault(n_tasks, Pace())
    if g is None:
        out = np.empty((*batch, rows.n_rows, n_states))
        status = np.empty((*batch, rows.n_subjects), dtype=np.int64)
        write_addresses(table, _SOLVING, x.ravel(), c.ravel(), out.ravel(), status.ravel())
        run(plan.task.address, table, n_tasks, op.n_threads, pace)
        return out, status
    _check("the cotangent", g, (rows.n_rows, n_states))
    g, g_stride = _batched(g, batch)
    table[G_STRIDE] = g_stride
    gx = np.empty((*batch, rows.n_subjects, op.n_x))
    write_addresses(table, _PULLING, x.ravel(), c.ravel(), g.ravel(), gx.ravel())
    run(plan.task.address, table, n_tasks, op.n_threads, pace)
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


@dataclass
class _Plan:
    """What calls of one operation at the same times share."""

    times: np.ndarray
    task: object
    table: np.ndarray
    kept: dict  # the arrays whose addresses are in the table
    paces: dict = field(default_factory=dict)  # by number of tasks


def _plan(op, t, gradient):
    """The plan of the last call if the times are the same, else one of the last few, or a new one."""
    last = op.__dict__.get("_last_plan")
    if last is not None and np.array_equal(last.times, t):
        return last
    key = (op, gradient, t.tobytes())
    if key not in _plans:
        _plans[key] = _Plan(t.copy(), *_layout(op, np.asarray(t, dtype=np.float64), gradient))
        if len(_plans) > _MAX_PLANS:
            _plans.popitem(last=False)
    op.__dict__["_last_plan"] = _plans[key]
    return _plans[key]


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
        table[nt.RHS] = compiled.lanes_rhs_address
        table[nt.JAC] = compiled.lanes_jac_address if gradient else 0
    return _task(solver, compiled, gradient), table, kept


@cache
def _task(solver, compiled, gradient):
    if hasattr(solver, "task"):
        return solver.task()
    from pymc_saem.ode import adapter

    if gradient:
        return adapter.sensitivity_task(solver.make_sens_one(compiled))
    return adapter.solve_task(solver.make_solve_one(compiled))
