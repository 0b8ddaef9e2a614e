"""The PyTensor operations: solution of a system, its vector-Jacobian product, and solution with derivatives.

All take any number of leading batch dimensions on the subjects' values, so a vectorized graph
(replicates, chains) solves everything in one parallel call.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type, grad_not_implemented
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.link.numba.dispatch import numba_funcify

from pymc_saem.ode.events.doses import EventTable
from pymc_saem.ode.inputs.rows import Rows
from pymc_saem.ode.ops import numba_dispatch
from pymc_saem.ode.ops.call import call, silenced
from pymc_saem.ode.ops.pull_back import NO_SECOND, PullBack
from pymc_saem.ode.ops.shapes import batch_shape, check_times, float_tensor, symbolic_batch
from pymc_saem.ode.rhs.right_hand_side import OdeSystem
from pymc_saem.ode.runtime.driver import compiled_calls
from pymc_saem.ode.runtime.status import SolverStatus
from pymc_saem.ode.solvers.registry import SOLVERS

__all__ = ["OdeDerivatives", "OdeGradient", "OdeSolution"]

_NO_TIME_GRADIENT = "the gradient of an ODE solution with respect to the observation times is not implemented; pass times as data"
_NO_CONSTANT_GRADIENT = (
    "this y0 or parameter was data when solve_ivp was called, so no sensitivities are computed for "
    "it; pass a random variable or a symbolic tensor to solve_ivp to get its gradient"
)


class _OdeOp(Op):
    """What all operations share: the frozen description and its use."""

    __props__ = (
        "system",
        "rows",
        "y0_index",
        "solver",
        "rtol",
        "atol",
        "max_steps",
        "n_threads",
        "events",
    )

    def __init__(
        self,
        system: OdeSystem,
        rows: Rows,
        y0_index: Sequence[int],
        solver: str,
        rtol: float,
        atol: float,
        max_steps: int,
        n_threads: int | None,
        events: EventTable | None = None,
    ) -> None:
        self.system = system
        self.rows = rows
        self.y0_index = tuple(y0_index)
        self.solver = solver
        self.rtol = float(rtol)
        self.atol = float(atol)
        self.max_steps = int(max_steps)
        self.n_threads = n_threads
        self.events = events

    #: Whether the derivatives of all rows are outputs.
    has_derivatives: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__props__}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        _OdeOp.__init__(self, **state)

    @property
    def n_x(self) -> int:
        """int: differentiable values per subject, entries of y0 first."""
        return len(self.y0_index) + self.system.n_dp

    @property
    def n_c(self) -> int:
        """int: constant values per subject, entries of y0 first."""
        return self.system.n_states + self.system.n_p - self.n_x

    def compiled_calls(self, n_tasks: int, n_calls: int) -> AbstractContextManager[None]:
        """Context in which compiled graphs solve without Python, with threads if those were faster lately.

        It expects ``n_calls`` calls with ``n_tasks`` subjects and replicates each, and that their
        caller releases the global interpreter lock.
        """
        return compiled_calls(self, n_tasks, n_calls)

    def compute(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Outputs as arrays."""
        return call(self, *inputs)

    def perform(
        self, node: Apply, inputs: Sequence[np.ndarray], output_storage: list[list[Any]]
    ) -> None:
        for storage, value in zip(output_storage, self.compute(*inputs), strict=True):
            storage[0] = value


class OdeSolution(_OdeOp):
    """Solution of every subject at its rows.

    Inputs: times ``t`` (rows,), differentiable values ``x`` (..., n_subjects, n_x) and constant
    values ``c`` (..., n_subjects, n_c) of the subjects, in both the entries of y0 first, then
    parameters. Outputs: solution (..., rows, n_states) and status (..., n_subjects).
    """

    is_ode_solution = True

    @property
    def subject(self) -> np.ndarray:
        """ndarray of int, shape (rows,): the subject of each row."""
        return self.rows.subject

    @property
    def n_subjects(self) -> int:
        """int: number of subjects."""
        return self.rows.n_subjects

    @property
    def state_names(self) -> tuple[str, ...]:
        """tuple of str: order of the last axis of the solution."""
        return self.system.state_names

    def with_tolerances(self, rtol: float, atol: float) -> OdeSolution:
        """The same operation at other tolerances."""
        return type(self)(**(self.__getstate__() | {"rtol": rtol, "atol": atol}))

    def with_rows(self, subject: np.ndarray) -> OdeSolution:
        """The same operation for rows of other subjects (row,), whose times it gets as its first input."""
        return type(self)(
            **(self.__getstate__() | {"rows": type(self.rows)(subject, self.rows.t0)})
        )

    def parameters(self, x: np.ndarray, c: np.ndarray) -> dict[str, np.ndarray] | None:
        """Parameters by name, (..., n_subjects, *shape), from the inputs (..., n_subjects, n_x) and (..., n_subjects, n_c).

        None where the graph of the right-hand side is not known, as after unpickling.
        """
        graph, n_free = self.system.graph, len(self.y0_index)
        if graph is None:
            return None
        lead = np.broadcast_shapes(x.shape[:-1], c.shape[:-1])
        parts = x[..., n_free:], c[..., self.system.n_states - n_free :]
        flat = np.concatenate([np.broadcast_to(a, (*lead, a.shape[-1])) for a in parts], axis=-1)
        found = {}
        for name, place in graph.places.items():
            shape = graph.params[name].type.shape
            found[name] = flat[..., place : place + math.prod(shape)].reshape(*lead, *shape)
        return found

    def with_derivatives(self) -> OdeSolution:
        """An operation with the same solution whose gradient needs no second solve, or this one where there is none."""
        return (
            OdeDerivatives(**self.__getstate__()) if _has_derivatives_in_one_solve(self) else self
        )

    def status_text(self, code: int) -> str:
        """What a status code means and what to do about it."""
        return SolverStatus(int(code)).advice

    def make_node(self, *inputs: Any) -> Apply:
        t, x, c = map(float_tensor, inputs)
        check_times(t)
        batch = batch_shape((x, 2), (c, 2))
        n_rows, n_states = self.rows.n_rows, self.system.n_states
        solution = pt.tensor(dtype="float64", shape=(*batch, n_rows, n_states))
        status = pt.tensor(dtype="int64", shape=(*batch, self.n_subjects))
        return Apply(self, [t, x, c], [solution, status])

    def infer_shape(self, *arguments: Any) -> list[tuple[Any, ...]]:
        input_shapes = arguments[-1]  # PyTensor 2.38 passes a graph before them, 3.3 does not
        batch = symbolic_batch(input_shapes[1:3], (2, 2))
        rows = (pt.constant(self.rows.n_rows), pt.constant(self.system.n_states))
        return [(*batch, *rows), (*batch, pt.constant(self.n_subjects))]

    def caution_of_jumps(self) -> None:
        """Warn that the gradient is not right, if the right-hand side jumps where states or parameters say so."""
        if self.system.jump:
            warnings.warn(
                f"The right-hand side jumps at {self.system.jump}. Its solution is correct, but its gradient is not, because it ignores that "
                "the jump moves. Make it continuous (pm.math.sigmoid of the difference, or pm.math.maximum); a delayed dose is "
                "Doses(table, lag_time=...).",
                UserWarning,
                stacklevel=2,
            )

    def L_op(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        if isinstance(output_grads[0].type, DisconnectedType):
            return [disconnected_type() for _ in inputs]
        self.caution_of_jumps()
        gradient = OdeGradient(**self.__getstate__())(*inputs, output_grads[0])
        return [
            grad_not_implemented(self, 0, inputs[0], _NO_TIME_GRADIENT),
            gradient,
            grad_not_implemented(self, 2, inputs[2], _NO_CONSTANT_GRADIENT),
        ]

    pullback = L_op

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        # The status is a count of failures, not a function with derivatives.
        return [[True, False]] * len(node.inputs)


class OdeGradient(_OdeOp):
    """Cotangent of the differentiable values ``x``, given the cotangent of the solution.

    Inputs are those of :class:`OdeSolution` and ``g`` (..., rows, n_states).
    """

    def make_node(self, *inputs: Any) -> Apply:
        t, x, c, g = map(float_tensor, inputs)
        check_times(t)
        batch = batch_shape((x, 2), (c, 2), (g, 2))
        return Apply(
            self,
            [t, x, c, g],
            [pt.tensor(dtype="float64", shape=(*batch, self.rows.n_subjects, self.n_x))],
        )

    def silenced(self) -> AbstractContextManager[None]:
        """Context in which gradients that are NaN are not reported, because the caller looks for them."""
        return silenced()

    def infer_shape(self, *arguments: Any) -> list[tuple[Any, ...]]:
        input_shapes = arguments[-1]
        batch = symbolic_batch(input_shapes[1:], (2, 2, 2))
        return [(*batch, pt.constant(self.rows.n_subjects), pt.constant(self.n_x))]

    def L_op(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        return [grad_not_implemented(self, i, x, NO_SECOND) for i, x in enumerate(inputs)]

    pullback = L_op


def _has_derivatives_in_one_solve(op: _OdeOp) -> bool:
    """Whether one solve gives both, and there is something to derive by."""
    return op.n_x > 0 and SOLVERS[op.solver].gives_derivatives(op.system, op.events is not None)


class OdeDerivatives(OdeSolution):
    """:class:`OdeSolution` with a third output: derivatives (..., rows, n_states, n_x) with respect to ``x``.

    They are zero where the solve failed, or where a subject was too stiff for the explicit solver,
    which ``auto`` hands over for the solution only.

    For kernels that want a density and its gradient at once. The gradient of a density needs the
    solution first: its cotangent is made of residuals. :class:`OdeGradient` therefore solves again.
    Here the forward sensitivities are returned, and the gradient contracts them.

    Only the states take part in the error control, so its steps are those of :class:`OdeSolution`:
    densities from both operations are equal up to rounding, and kernels of either kind leave the
    same distribution invariant. The derivatives are those of the numerical solution at fixed steps,
    which is the derivative of what is being accepted or rejected; for a search for an optimum use
    :class:`OdeGradient` with its own tolerances.
    """

    has_derivatives = True

    def make_node(self, *inputs: Any) -> Apply:
        node = super().make_node(*inputs)
        derivatives = pt.tensor(dtype="float64", shape=(*node.outputs[0].type.shape, self.n_x))
        return Apply(self, node.inputs, [*(v.type() for v in node.outputs), derivatives])

    def infer_shape(self, *arguments: Any) -> list[tuple[Any, ...]]:
        solution, status = super().infer_shape(*arguments)
        return [solution, status, (*solution, pt.constant(self.n_x))]

    def L_op(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        if isinstance(output_grads[0].type, DisconnectedType):
            return [disconnected_type() for _ in inputs]
        self.caution_of_jumps()
        return [
            grad_not_implemented(self, 0, inputs[0], _NO_TIME_GRADIENT),
            PullBack(self.rows)(outputs[2], output_grads[0]),
            grad_not_implemented(self, 2, inputs[2], _NO_CONSTANT_GRADIENT),
        ]

    pullback = L_op

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True, False, False]] * len(node.inputs)


@_vectorize_node.register(_OdeOp)
def _vectorize(op: _OdeOp, node: Apply, *batched_inputs: Variable) -> Apply:
    return op.make_node(*batched_inputs)


# Here, because unpickling may import the operations without anything else.
numba_funcify.register(OdeGradient)(numba_dispatch.gradient_form)
numba_funcify.register(OdeSolution)(numba_dispatch.solution_form)
