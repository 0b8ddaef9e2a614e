"""Derivatives of every row times the cotangent of the solution, summed by subject: the gradient of ``OdeDerivatives``."""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import grad_not_implemented
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.link.numba.dispatch import numba_funcify

from pymc_saem.ode.inputs.rows import Rows

__all__ = ["NO_SECOND", "PullBack"]

NO_SECOND = "second derivatives of an ODE solution are not implemented"


class PullBack(Op):
    """Cotangent of the subjects' values: derivatives of the rows times the cotangent of the solution, summed by subject.

    Inputs: derivatives (..., rows, n_states, n_x) and cotangent (..., rows, n_states), with the
    same batch dimensions. Output: (..., n_subjects, n_x).
    """

    __props__ = ("rows",)

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def make_node(self, *inputs: Any) -> Apply:
        derivatives, g = (pt.as_tensor_variable(v).astype("float64") for v in inputs)
        if g.type.ndim + 1 != derivatives.type.ndim:  # a cotangent that all replicates share
            g = pt.broadcast_to(g, derivatives.shape[:-1])
        shape = (*derivatives.type.shape[:-3], self.rows.n_subjects, derivatives.type.shape[-1])
        return Apply(self, [derivatives, g], [pt.tensor(dtype="float64", shape=shape)])

    def perform(
        self, node: Apply, inputs: Sequence[np.ndarray], output_storage: list[list[Any]]
    ) -> None:
        derivatives, g = inputs
        by_row = np.einsum("...sx,...s->...x", derivatives, g)
        out = np.zeros((*by_row.shape[:-2], self.rows.n_subjects, by_row.shape[-1]))
        place: Any = (..., self.rows.subject, slice(None))
        np.add.at(out, place, by_row)
        output_storage[0][0] = out

    def infer_shape(self, *arguments: Any) -> list[tuple[Any, ...]]:
        shape = arguments[-1][0]  # PyTensor 2.38 passes a graph before the shapes, 3.3 does not
        return [(*shape[:-3], pt.constant(self.rows.n_subjects), shape[-1])]

    def L_op(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        return [grad_not_implemented(self, i, x, NO_SECOND) for i, x in enumerate(inputs)]

    pullback = L_op


@_vectorize_node.register(PullBack)
def _vectorize(op: PullBack, node: Apply, derivatives: Variable, g: Variable) -> Apply:
    return op.make_node(derivatives, g)


@numba_funcify.register(PullBack)
def _pull_back(
    op: PullBack, node: Apply, **kwargs: Any
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    subject, n_subjects = np.asarray(op.rows.subject, dtype=np.int64), op.rows.n_subjects

    @numba.njit
    def batch(derivatives: np.ndarray, g: np.ndarray) -> np.ndarray:
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
    def single(derivatives: np.ndarray, g: np.ndarray) -> np.ndarray:
        return batch(derivatives.reshape((1, *derivatives.shape)), g.reshape((1, *g.shape)))[0]

    @numba.njit
    def many(derivatives: np.ndarray, g: np.ndarray) -> np.ndarray:
        lead = derivatives.shape[:-3]
        flat = batch(
            derivatives.reshape((-1, *derivatives.shape[-3:])),
            np.ascontiguousarray(g).reshape((-1, *g.shape[-2:])),
        )
        return flat.reshape((*lead, *flat.shape[1:]))

    return {3: single, 4: batch}.get(node.inputs[0].type.ndim, many)
