"""From an operation and its arrays to a call of the compiled solver.

What the table of a call holds depends on the solver, which ``ode/solvers/registry`` describes.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numba.core.ccallback import CFunc

from pymc_saem.ode.events.doses import EventTable
from pymc_saem.ode.inputs.rows import Rows
from pymc_saem.ode.rhs.compiled import compile_system
from pymc_saem.ode.rhs.right_hand_side import OdeSystem
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.driver import Pace, run
from pymc_saem.ode.runtime.status import SolverStatus
from pymc_saem.ode.solvers.registry import SOLVERS

__all__ = ["CallPlan", "Operation", "call", "plan_of", "silenced"]

_MAX_PLANS = 64
_log = logging.getLogger(__name__)
_plans: OrderedDict[tuple[Operation, bool, bytes], CallPlan] = OrderedDict()
_n_silenced = 0


class Operation(Protocol):
    """What a call reads of an operation."""

    system: OdeSystem
    rows: Rows
    y0_index: tuple[int, ...]
    solver: str
    rtol: float
    atol: float
    max_steps: int
    n_threads: int | None
    events: EventTable | None

    @property
    def has_derivatives(self) -> bool: ...

    @property
    def n_x(self) -> int: ...

    @property
    def n_c(self) -> int: ...

    def compute(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]: ...


def call(
    op: Operation, t: np.ndarray, x: np.ndarray, c: np.ndarray, g: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Solve every subject of every replicate, or pull the cotangent ``g`` back.

    Parameters
    ----------
    op : OdeSolution, OdeDerivatives or OdeGradient
    t : ndarray, shape (rows,)
    x, c : ndarray, shape (..., n_subjects, n_x) and (..., n_subjects, n_c)
    g : ndarray, shape (..., rows, n_states), optional

    Returns
    -------
    tuple of ndarray
        Solution (..., rows, n_states) and status (..., n_subjects), of OdeDerivatives derivatives
        (..., rows, n_states, n_x) too; with ``g`` the gradient (..., n_subjects, n_x) alone.
    """
    plan = plan_of(op, t, g is not None)
    rows, batch = op.rows, x.shape[:-2]
    if c.ndim > 2 or (g is not None and g.ndim > 2):
        others = [a.shape[:-2] for a in (c, g) if a is not None]
        batch = np.broadcast_shapes(batch, *others)
    table = plan.table.copy()
    x, table[tt.X_STRIDE] = _batched("the differentiable y0 and parameters", x, batch, plan.x_shape)
    c, table[tt.C_STRIDE] = _batched("the constant y0 and parameters", c, batch, plan.c_shape)
    table[tt.X], table[tt.C] = _address(x), _address(c)
    status = np.zeros((*batch, rows.n_subjects), dtype=np.int64)
    table[tt.STATUS] = _address(status)
    results: tuple[np.ndarray, ...]
    if g is None:
        out = np.empty((*batch, rows.n_rows, op.system.n_states))
        table[tt.OUT], results = _address(out), (out, status)
        if op.has_derivatives:
            results = (out, status, np.empty((*out.shape, op.n_x)))
            table[tt.SENS] = _address(results[2])
    else:
        g, table[tt.G_STRIDE] = _batched("the cotangent", g, batch, plan.g_shape)
        out = np.empty((*batch, *plan.x_shape))
        table[tt.G], table[tt.GX], results = _address(g), _address(out), (out,)
    if out.size == 0:  # nothing is differentiable, or there is no row
        return results
    n_tasks = math.prod(batch) * rows.n_subjects
    pace = plan.paces.get(n_tasks) or plan.paces.setdefault(n_tasks, Pace())
    run(plan.task.address, _address(table), n_tasks, op.n_threads, pace)
    if g is not None and status.any():
        _report(op, status)
    return results


@contextmanager
def silenced() -> Iterator[None]:
    """No reports of gradients that are NaN: the caller looks for them, as a search does that tries wild points."""
    global _n_silenced
    _n_silenced += 1
    try:
        yield
    finally:
        _n_silenced -= 1


def _report(op: Operation, status: np.ndarray) -> None:
    """Say once for each operation and code why a gradient is NaN; a solution has its status as an output."""
    if _n_silenced:
        return
    said = op.__dict__.setdefault("_said", set())
    for code in set(status[status != 0].tolist()) - said:
        said.add(code)
        n, text = int((status == code).sum()), SolverStatus(code)
        _log.warning(
            f"The gradient of an ODE solution is NaN for {n} of {status.size} solves: {text.name}. {text.gradient_advice} "
            "Later failures of this kind are not reported."
        )


def _check(what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape[-len(shape) :] != shape:
        raise ValueError(
            f"solve_ivp was built for {what} of shape {shape} and got {array.shape}. The number of rows "
            "and subjects is fixed when solve_ivp is called: call it again for new ones."
        )


def _batched(
    what: str, array: np.ndarray, batch: tuple[int, ...], shape: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """Row-major array and its stride between replicates; zero when all share one."""
    _check(what, array, shape)
    if array.ndim == 2:
        return np.ascontiguousarray(array, dtype=np.float64), 0
    if array.shape[:-2] != batch:
        array = np.broadcast_to(array, batch + shape)
    return np.ascontiguousarray(array, dtype=np.float64), shape[0] * shape[1]


def _address(array: np.ndarray) -> int:
    buffer: Any = array  # which NumPy's annotations do not say before Python 3.12
    try:
        # a fifth of the time that NumPy takes to decide
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    except (TypeError, ValueError):  # read-only, or empty
        return array.__array_interface__["data"][0]


@dataclass
class CallPlan:
    """What calls of one operation at the same times share."""

    times: bytes
    gradient: bool
    task: CFunc
    table: np.ndarray
    kept: dict[int, Any]  # the arrays and objects whose addresses are in the table
    x_shape: tuple[int, int]
    c_shape: tuple[int, int]
    g_shape: tuple[int, int]
    paces: dict[int, Pace] = field(default_factory=dict)  # by number of tasks


def plan_of(op: Operation, t: np.ndarray, gradient: bool) -> CallPlan:
    """The plan of the last call if the times are the same, else one of the last few, or a new one."""
    times, last = t.tobytes(), op.__dict__.get("_last_plan")
    if last is not None and last.times == times and last.gradient == gradient:
        return last
    rows, key = op.rows, (op, gradient, times)
    _check("times", t, (rows.n_rows,))
    if key not in _plans:
        shapes = (
            (rows.n_subjects, op.n_x),
            (rows.n_subjects, op.n_c),
            (rows.n_rows, op.system.n_states),
        )
        _plans[key] = CallPlan(
            times, gradient, *_layout(op, np.asarray(t, dtype=np.float64), gradient), *shapes
        )
        if len(_plans) > _MAX_PLANS:
            _plans.popitem(last=False)
    op.__dict__["_last_plan"] = _plans[key]
    return _plans[key]


def _layout(
    op: Operation, t: np.ndarray, gradient: bool
) -> tuple[CFunc, np.ndarray, dict[int, Any]]:
    """The task of an operation at these times, the table of its calls, and the arrays and objects that the table leads to."""
    table, kept = _table(op, t)
    solver, compiled, has_events = (
        SOLVERS[op.solver],
        compile_system(op.system),
        op.events is not None,
    )
    module = solver.load()
    adjoint = solver.load_adjoint(op.system, has_events) if gradient else None
    if solver.hands_over:
        table[tt.STIFF] = module.cell(op.system, gradient).address
    if solver.has_memory:
        kept[tt.RHS] = module.memory(compiled, gradient, int(table[tt.N_DY0]))
        table[tt.RHS] = _address(kept[tt.RHS].cells)
    else:
        table[tt.RHS] = compiled.lanes_rhs_address
    if adjoint is not None:  # it lets the solver record the solution
        table[tt.VJP] = compiled.lanes_vjp_address
        task, recorder = adjoint.task(), module.task(False)
        kept[tt.SOLVER], table[tt.SOLVER] = recorder, recorder.address
        return task, table, kept
    if not solver.has_memory and (gradient or op.has_derivatives or solver.needs_jacobian):
        table[tt.JAC] = compiled.lanes_jac_address
    task = module.task(gradient)
    if not has_events:
        return task, table, kept
    from pymc_saem.ode.events import pieces

    kept[tt.SOLVER], table[tt.SOLVER] = task, task.address
    return pieces.task(), table, kept


def _table(op: Operation, t: np.ndarray) -> tuple[np.ndarray, dict[int, Any]]:
    """What the table of a call holds whatever the solver, and the arrays whose addresses are in it."""
    system, rows = op.system, op.rows
    order = rows.order(t)
    y0_index = np.array(op.y0_index, dtype=np.int64)
    constant = np.setdiff1d(np.arange(system.n_states), y0_index).astype(np.int64)
    kept: dict[int, Any] = {
        tt.TIMES: t[order],
        tt.ORDER: order,
        tt.STARTS: rows.starts,
        tt.T0: rows.t0,
        tt.Y0_INDEX: y0_index,
        tt.Y0_CONSTANT: constant,
        tt.TOLERANCES: np.array([op.rtol, op.atol]),
    }
    if op.events is not None:
        kept |= {
            tt.EVENT_STARTS: op.events.starts,
            tt.EVENT_NUMBERS: op.events.numbers,
            tt.EVENT_PLACES: op.events.places,
            tt.INFUSIONS: op.events.infusions,
        }
    table = np.zeros(tt.TABLE_SIZE, dtype=np.int64)
    table[list(kept)] = [_address(array) for array in kept.values()]
    table[tt.N_SUBJECTS], table[tt.N_ROWS], table[tt.N_STATES] = (
        rows.n_subjects,
        rows.n_rows,
        system.n_states,
    )
    table[tt.N_DY0], table[tt.N_DP], table[tt.N_P] = y0_index.size, system.n_dp, system.n_p
    table[tt.MAX_STEPS] = op.max_steps
    table[tt.N_INFUSIONS] = 0 if op.events is None else op.events.infusions.size
    return table, kept
