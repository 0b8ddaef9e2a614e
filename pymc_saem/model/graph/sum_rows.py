"""A PyTensor operation that sums rows of data by subject.

The same in tensor operations, ``inc_subtensor(zeros(n)[subject], rows)``, costs 8 s more
compilation under Numba, most of it for the error messages of shapes that cannot occur here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.link.numba.dispatch import numba_funcify
from pytensor.tensor.variable import TensorVariable


class SumRows(Op):
    """Sum of the rows of each subject.

    Inputs: rows (..., row) and the subject of each row (row,), integers. Output: (..., subject).
    The sum of a subject is NaN only if one of its rows is.
    """

    __props__ = ("n_subjects",)

    def __init__(self, n_subjects: int) -> None:
        self.n_subjects = int(n_subjects)

    def make_node(self, *inputs: Variable) -> Apply:
        rows, subject = inputs
        rows, subject = (
            pt.as_tensor_variable(rows).astype("float64"),
            pt.as_tensor_variable(subject).astype("int64"),
        )
        return Apply(
            self,
            [rows, subject],
            [pt.tensor(dtype="float64", shape=(*rows.type.shape[:-1], self.n_subjects))],
        )

    def perform(
        self, node: Apply, inputs: Sequence[np.ndarray], output_storage: list[list[Any]]
    ) -> None:
        rows, subject = inputs
        out = np.zeros((*rows.shape[:-1], self.n_subjects))
        last: Any = (..., subject)  # NumPy's annotation has no such index
        np.add.at(out, last, rows)
        output_storage[0][0] = out

    def infer_shape(self, *arguments: Any) -> list[tuple[Variable, ...]]:
        rows = arguments[-1][0]  # PyTensor 2.38 passes a graph before the shapes, 3.3 does not
        return [(*rows[:-1], pt.constant(self.n_subjects))]

    def L_op(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        g = output_grads[0]
        if isinstance(g.type, DisconnectedType):
            return [disconnected_type(), disconnected_type()]
        return [pt.as_tensor_variable(g)[..., inputs[1]], disconnected_type()]

    pullback = L_op  # its name in PyTensor 3

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True], [False]]


def sum_rows(rows: TensorVariable, subject: np.ndarray, n_subjects: int) -> TensorVariable:
    """Rows (..., row) summed by subject (..., subject), as a graph."""
    return pt.as_tensor_variable(SumRows(n_subjects)(rows, subject))


@_vectorize_node.register(SumRows)
def _vectorize(op: SumRows, node: Apply, rows: Variable, subject: Variable) -> Apply:
    return op.make_node(rows, subject)


@numba_funcify.register(SumRows)
def _funcify(
    op: SumRows, node: Apply, **kwargs: Any
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    n_subjects, ndim = op.n_subjects, node.outputs[0].type.ndim

    @numba.njit
    def sum_vector(rows: np.ndarray, subject: np.ndarray) -> np.ndarray:
        out = np.zeros(n_subjects)
        for k in range(subject.size):
            out[subject[k]] += rows[k]
        return out

    @numba.njit
    def sum_matrix(rows: np.ndarray, subject: np.ndarray) -> np.ndarray:
        out = np.zeros((rows.shape[0], n_subjects))
        for r in range(rows.shape[0]):
            for k in range(subject.size):
                out[r, subject[k]] += rows[r, k]
        return out

    @numba.njit
    def sum_batch(rows: np.ndarray, subject: np.ndarray) -> np.ndarray:
        flat = np.ascontiguousarray(rows).reshape((-1, rows.shape[-1]))
        return sum_matrix(flat, subject).reshape((*rows.shape[:-1], n_subjects))

    return {1: sum_vector, 2: sum_matrix}.get(ndim, sum_batch)
