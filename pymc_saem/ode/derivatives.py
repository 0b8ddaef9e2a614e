"""Solution and derivatives of every row from one solve, for kernels that want a density and its gradient at once.

The gradient of a density needs the solution first: its cotangent is made of residuals. ``OdeGradient`` therefore
solves again. :class:`OdeDerivatives` returns the forward sensitivities themselves, and its gradient contracts them.

Its steps are those of :class:`OdeSolution`: only the states take part in the error control. So densities from
both operations are equal up to rounding, and kernels of either kind leave the same distribution invariant. The derivatives
are those of the numerical solution at fixed steps, which is the derivative of what is being accepted or rejected;
for a search for an optimum use ``OdeGradient`` with tolerances of its own.
"""

import numba
import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type, grad_not_implemented
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.link.numba.dispatch import numba_funcify

from pymc_saem.ode.op import _NO_CONSTANT_GRADIENT, _NO_SECOND, _NO_TIME_GRADIENT, OdeSolution

__all__ = ["OdeDerivatives", "PullBack", "is_possible"]


def is_possible(op):
    """Whether one solve gives both: explicit and linear solvers, no events, and not so many parameters that the adjoint is used."""
    wide = op.solver == "auto" and op.system.vjp_source
    return op.solver in ("auto", "tsit5", "linear") and op.events is None and not wide and op.n_x > 0


class OdeDerivatives(OdeSolution):
    """:class:`OdeSolution` with a third output: derivatives (..., rows, n_states, n_x) with respect to ``x``.

    They are zero where the solve failed, or where a subject was too stiff for the explicit solver, which ``auto``
    hands over for the solution only.
    """

    has_derivatives = True

    def make_node(self, t, x, c):
        node = super().make_node(t, x, c)
        derivatives = pt.tensor(dtype="float64", shape=(*node.outputs[0].type.shape, self.n_x))
        return Apply(self, node.inputs, [*(v.type() for v in node.outputs), derivatives])

    def infer_shape(self, *arguments):
        solution, status = super().infer_shape(*arguments)
        return [solution, status, (*solution, pt.constant(self.n_x))]

    def pullback(self, inputs, outputs, cotangents):
        if isinstance(cotangents[0].type, DisconnectedType):
            return [disconnected_type() for _ in inputs]
        self.caution_of_jumps()
        return [
            grad_not_implemented(self, 0, inputs[0], _NO_TIME_GRADIENT),
            PullBack(self.rows)(outputs[2], cotangents[0]),
            grad_not_implemented(self, 2, inputs[2], _NO_CONSTANT_GRADIENT),
        ]

    L_op = pullback

    def connection_pattern(self, node):
        return [[True, False, False]] * len(node.inputs)


class PullBack(Op):
    """Cotangent of the subjects' values: derivatives of the rows times the cotangent of the solution, summed by subject.

    Inputs: derivatives (..., rows, n_states, n_x) and cotangent (..., rows, n_states), with the same batch dimensions.
    Output: (..., n_subjects, n_x).
    """

    __props__ = ("rows",)

    def __init__(self, rows):
        self.rows = rows

    def make_node(self, derivatives, g):
        derivatives, g = (pt.as_tensor_variable(v).astype("float64") for v in (derivatives, g))
        if g.type.ndim + 1 != derivatives.type.ndim:  # a cotangent that all replicates share
            g = pt.broadcast_to(g, derivatives.shape[:-1])
        shape = (*derivatives.type.shape[:-3], self.rows.n_subjects, derivatives.type.shape[-1])
        return Apply(self, [derivatives, g], [pt.tensor(dtype="float64", shape=shape)])

    def perform(self, node, inputs, output_storage):
        derivatives, g = inputs
        by_row = np.einsum("...sx,...s->...x", derivatives, g)
        out = np.zeros((*by_row.shape[:-2], self.rows.n_subjects, by_row.shape[-1]))
        np.add.at(out, (..., self.rows.subject, slice(None)), by_row)
        output_storage[0][0] = out

    def infer_shape(self, *arguments):
        shape = arguments[-1][0]  # PyTensor 2.38 passes a graph before the shapes, 3.3 does not
        return [(*shape[:-3], pt.constant(self.rows.n_subjects), shape[-1])]

    def pullback(self, inputs, outputs, cotangents):
        return [grad_not_implemented(self, i, x, _NO_SECOND) for i, x in enumerate(inputs)]

    L_op = pullback


@_vectorize_node.register(PullBack)
def _vectorize(op, node, derivatives, g):
    return op.make_node(derivatives, g)


@numba_funcify.register(PullBack)
def _pull_back(op, node, **kwargs):
    subject, n_subjects = np.asarray(op.rows.subject, dtype=np.int64), op.rows.n_subjects

    @numba.njit
    def batch(derivatives, g):
        n_replicates, n_rows, n_states, n_x = derivatives.shape
        out = np.zeros((n_replicates, n_subjects, n_x))
        for r in range(n_replicates):
            for k in range(n_rows):
                i = subject[k]
                for s in range(n_states):
                    weight = g[r, k, s]
                    if weight == 0.0:  # a state that is not observed
                        continue
                    for j in range(n_x):
                        out[r, i, j] += weight * derivatives[r, k, s, j]
        return out

    @numba.njit
    def single(derivatives, g):
        return batch(derivatives.reshape((1, *derivatives.shape)), g.reshape((1, *g.shape)))[0]

    @numba.njit
    def many(derivatives, g):
        lead = derivatives.shape[:-3]
        flat = batch(
            derivatives.reshape((-1, *derivatives.shape[-3:])), np.ascontiguousarray(g).reshape((-1, *g.shape[-2:]))
        )
        return flat.reshape((*lead, *flat.shape[1:]))

    return {3: single, 4: batch}.get(node.inputs[0].type.ndim, many)
