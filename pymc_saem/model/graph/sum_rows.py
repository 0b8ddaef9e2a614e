"""A PyTensor operation that sums rows of data by subject.

The same in tensor operations, ``inc_subtensor(zeros(n)[subject], rows)``, costs 8 s more compilation under Numba, most
of it for the error messages of shapes that cannot occur here.
"""

from __future__ import annotations

import numba
import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.link.numba.dispatch import numba_funcify


class SumRows(Op):
    """Sum of the rows of each subject.

    Inputs: rows (..., row) and the subject of each row (row,), integers. Output: (..., subject). The sum of a
    subject is NaN only if a row of its own is.
    """

    __props__ = ("n_subjects",)

    def __init__(self, n_subjects: int):
        self.n_subjects = int(n_subjects)

    def make_node(self, rows, subject):
        rows, subject = pt.as_tensor_variable(rows).astype("float64"), pt.as_tensor_variable(subject).astype("int64")
        return Apply(
            self, [rows, subject], [pt.tensor(dtype="float64", shape=(*rows.type.shape[:-1], self.n_subjects))]
        )

    def perform(self, node, inputs, output_storage):
        rows, subject = inputs
        out = np.zeros((*rows.shape[:-1], self.n_subjects))
        np.add.at(out, (..., subject), rows)
        output_storage[0][0] = out

    def infer_shape(self, *arguments):
        rows = arguments[-1][0]  # PyTensor 2.38 passes a graph before the shapes, 3.3 does not
        return [(*rows[:-1], pt.constant(self.n_subjects))]

    def pullback(self, inputs, outputs, cotangents):
        g = cotangents[0]
        connected = not isinstance(g.type, DisconnectedType)
        return [g[..., inputs[1]] if connected else disconnected_type(), disconnected_type()]

    L_op = pullback

    def connection_pattern(self, node):
        return [[True], [False]]


@_vectorize_node.register(SumRows)
def _vectorize(op, node, rows, subject):
    return op.make_node(rows, subject)


@numba_funcify.register(SumRows)
def _funcify(op, node, **kwargs):
    n_subjects, ndim = op.n_subjects, node.outputs[0].type.ndim

    @numba.njit
    def sum_vector(rows, subject):
        out = np.zeros(n_subjects)
        for k in range(subject.size):
            out[subject[k]] += rows[k]
        return out

    @numba.njit
    def sum_matrix(rows, subject):
        out = np.zeros((rows.shape[0], n_subjects))
        for r in range(rows.shape[0]):
            for k in range(subject.size):
                out[r, subject[k]] += rows[r, k]
        return out

    @numba.njit
    def sum_batch(rows, subject):
        flat = np.ascontiguousarray(rows).reshape((-1, rows.shape[-1]))
        return sum_matrix(flat, subject).reshape((*rows.shape[:-1], n_subjects))

    return {1: sum_vector, 2: sum_matrix}.get(ndim, sum_batch)
