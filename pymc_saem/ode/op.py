"""The PyTensor operations: solution of a system, and its vector-Jacobian product.

Both take any number of leading batch dimensions on the subjects' values, so a vectorized graph
(replicates, chains) solves everything in one parallel call.
"""

import math
import warnings

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type, grad_not_implemented
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node

from pymc_saem.ode.status import SolverStatus

__all__ = ["OdeGradient", "OdeSolution"]

_NO_TIME_GRADIENT = (
    "the gradient of an ODE solution with respect to the observation times is not implemented; pass times as data"
)
_NO_CONSTANT_GRADIENT = (
    "this y0 or parameter was data when solve_ivp was called, so no sensitivities are computed for "
    "it; pass a random variable or a symbolic tensor to solve_ivp to get its gradient"
)
_NO_SECOND = "second derivatives of an ODE solution are not implemented"


class _OdeOp(Op):
    """What both operations share: the frozen description and its use."""

    __props__ = ("system", "rows", "y0_index", "solver", "rtol", "atol", "max_steps", "n_threads", "events")

    def __init__(self, system, rows, y0_index, solver, rtol, atol, max_steps, n_threads, events=None):
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
    has_derivatives = False

    def __getstate__(self):
        return {name: getattr(self, name) for name in self.__props__}

    def __setstate__(self, state):
        self.__init__(**state)

    @property
    def n_x(self):
        """int: differentiable values per subject, entries of y0 first."""
        return len(self.y0_index) + self.system.n_dp

    @property
    def n_c(self):
        """int: constant values per subject, entries of y0 first."""
        return self.system.n_states + self.system.n_p - self.n_x

    def compiled_calls(self, n_tasks, n_calls):
        """Context in which compiled graphs solve without Python, with threads if those were faster lately.

        It expects ``n_calls`` calls with ``n_tasks`` subjects and replicates each, and that their caller releases the global
        interpreter lock.
        """
        from pymc_saem.ode.driver import compiled_calls

        return compiled_calls(self, n_tasks, n_calls)

    def _call(self, t, x, c, g=None):
        from pymc_saem.ode.kernels import call

        return call(self, t, x, c, g)

    def perform(self, node, inputs, output_storage):
        for storage, value in zip(output_storage, self.compute(*inputs), strict=True):
            storage[0] = value


class OdeSolution(_OdeOp):
    """Solution of every subject at its rows.

    Inputs: times ``t`` (rows,), differentiable values ``x`` (..., n_subjects, n_x) and constant values
    ``c`` (..., n_subjects, n_c) of the subjects, in both the entries of y0 first, then parameters.
    Outputs: solution (..., rows, n_states) and status (..., n_subjects).
    """

    is_ode_solution = True

    @property
    def subject(self):
        """ndarray of int, shape (rows,): the subject of each row."""
        return self.rows.subject

    @property
    def n_subjects(self):
        """int: number of subjects."""
        return self.rows.n_subjects

    @property
    def state_names(self):
        """tuple of str: order of the last axis of the solution."""
        return self.system.state_names

    def with_tolerances(self, rtol, atol):
        """The same operation at other tolerances."""
        return type(self)(**(self.__getstate__() | {"rtol": rtol, "atol": atol}))

    def with_rows(self, subject):
        """The same operation for rows of other subjects (row,), whose times it gets as its first input."""
        return type(self)(**(self.__getstate__() | {"rows": type(self.rows)(subject, self.rows.t0)}))

    def parameters(self, x, c):
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

    def with_derivatives(self):
        """An operation with the same solution whose gradient needs no second solve, or this one where there is none."""
        from pymc_saem.ode.derivatives import OdeDerivatives, is_possible

        return OdeDerivatives(**self.__getstate__()) if is_possible(self) else self

    def status_text(self, code):
        """What a status code means and what to do about it."""
        return SolverStatus(int(code)).advice

    def make_node(self, t, x, c):
        t, x, c = map(_float_tensor, (t, x, c))
        _check_times(t)
        batch = _batch_shape((x, 2), (c, 2))
        n_rows, n_states = self.rows.n_rows, self.system.n_states
        solution = pt.tensor(dtype="float64", shape=(*batch, n_rows, n_states))
        status = pt.tensor(dtype="int64", shape=(*batch, self.n_subjects))
        return Apply(self, [t, x, c], [solution, status])

    def compute(self, t, x, c):
        """Solution and status as arrays."""
        return self._call(t, x, c)

    def infer_shape(self, *arguments):
        input_shapes = arguments[-1]  # PyTensor 2.38 passes a graph before them, 3.3 does not
        batch = _symbolic_batch(input_shapes[1:3], (2, 2))
        rows = (pt.constant(self.rows.n_rows), pt.constant(self.system.n_states))
        return [(*batch, *rows), (*batch, pt.constant(self.n_subjects))]

    def caution_of_jumps(self):
        """Warn that the gradient is not right, if the right-hand side jumps where states or parameters say so."""
        if self.system.jump:
            warnings.warn(
                f"The right-hand side jumps at {self.system.jump}. Its solution is right, but not its gradient, which does not see that "
                "the jump moves. Make it continuous (pm.math.sigmoid of the difference, or pm.math.maximum); a delayed dose is "
                "Doses(table, lag_time=...).",
                UserWarning,
                stacklevel=2,
            )

    def pullback(self, inputs, outputs, cotangents):
        if isinstance(cotangents[0].type, DisconnectedType):
            return [disconnected_type() for _ in inputs]
        self.caution_of_jumps()
        gradient = OdeGradient(**self.__getstate__())(*inputs, cotangents[0])
        return [
            grad_not_implemented(self, 0, inputs[0], _NO_TIME_GRADIENT),
            gradient,
            grad_not_implemented(self, 2, inputs[2], _NO_CONSTANT_GRADIENT),
        ]

    L_op = pullback

    def connection_pattern(self, node):
        # The status is a count of failures, not a function with derivatives.
        return [[True, False]] * len(node.inputs)


class OdeGradient(_OdeOp):
    """Cotangent of the differentiable values ``x``, given the cotangent of the solution.

    Inputs are those of :class:`OdeSolution` and ``g`` (..., rows, n_states).
    """

    def make_node(self, t, x, c, g):
        t, x, c, g = map(_float_tensor, (t, x, c, g))
        _check_times(t)
        batch = _batch_shape((x, 2), (c, 2), (g, 2))
        return Apply(self, [t, x, c, g], [pt.tensor(dtype="float64", shape=(*batch, self.rows.n_subjects, self.n_x))])

    def silenced(self):
        """Context in which gradients that are NaN are not reported, because the caller looks for them."""
        from pymc_saem.ode.kernels import silenced

        return silenced()

    def compute(self, t, x, c, g):
        """Gradient as the only entry of a tuple."""
        return (self._call(t, x, c, g),)

    def infer_shape(self, *arguments):
        input_shapes = arguments[-1]
        batch = _symbolic_batch(input_shapes[1:], (2, 2, 2))
        return [(*batch, pt.constant(self.rows.n_subjects), pt.constant(self.n_x))]

    def pullback(self, inputs, outputs, cotangents):
        return [grad_not_implemented(self, i, x, _NO_SECOND) for i, x in enumerate(inputs)]

    L_op = pullback


def _float_tensor(x):
    return pt.as_tensor_variable(x).astype("float64")


def _check_times(t):
    if t.type.ndim != 1:
        raise ValueError(
            f"The times of an ODE solution must be one vector over rows; got {t.type.ndim} dimensions. "
            "Different times per replicate cannot be vectorized: build a second solution instead."
        )


def _batch_shape(*arguments):
    """Static batch shape; None where only the run tells."""
    shapes = [v.type.shape[: v.type.ndim - core] for v, core in arguments]
    n = max(map(len, shapes))
    shapes = [(1,) * (n - len(s)) + s for s in shapes]
    return tuple(_one_length(lengths) for lengths in zip(*shapes, strict=True))


def _one_length(lengths):
    known = {n for n in lengths if n is not None and n != 1}
    if known:
        return known.pop()
    return None if None in lengths else 1


def _symbolic_batch(shapes, cores):
    batches = [tuple(s[: len(s) - core]) for s, core in zip(shapes, cores, strict=True)]
    if not any(batches):
        return ()
    from pytensor.tensor.extra_ops import broadcast_shape

    return broadcast_shape(*batches, arrays_are_shapes=True)


@_vectorize_node.register(_OdeOp)
def _vectorize(op, node, *batched_inputs):
    return op.make_node(*batched_inputs)


# Registers the Numba form with the operations, which unpickling may import without anything else.
from pymc_saem.ode import numba_form  # noqa: E402, F401
