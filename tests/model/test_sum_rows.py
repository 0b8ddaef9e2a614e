"""Sums of rows by subject against NumPy, in both ways PyTensor may run them."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.gradient import verify_grad
from pytensor.graph.replace import vectorize_graph

from pymc_saem.model.graph.sum_rows import SumRows

SUBJECT = np.array([2, 0, 0, 3, 2, 2])


def expected(rows):
    return np.stack([rows[..., SUBJECT == i].sum(axis=-1) for i in range(4)], axis=-1)


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_sums(mode, batch, rng):
    """Also over replicates, as the E-step vectorizes the graph; subject 1 has no row."""
    row = pt.vector("row", shape=(6,))
    rows = pt.tensor("rows", shape=(*[None] * len(batch), 6))
    (total,) = vectorize_graph([SumRows(4)(row, SUBJECT)], {row: rows})
    x = rng.normal(size=(*batch, 6))
    np.testing.assert_allclose(
        pytensor.function([rows], total, mode=mode)(x), expected(x), rtol=1e-12
    )


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"])
def test_nan_stays_in_its_subject(mode):
    row = pt.vector("row")
    x = np.array([1.0, 2.0, np.nan, 3.0, 4.0, 5.0])
    found = pytensor.function([row], SumRows(4)(row, SUBJECT), mode=mode)(x)
    np.testing.assert_array_equal(found, [np.nan, 0.0, 10.0, 3.0])


def test_gradient(rng):
    verify_grad(
        lambda rows: SumRows(4)(rows, SUBJECT) ** 2,
        [rng.normal(size=(2, 6))],
        rng=rng,
        mode="FAST_COMPILE",
    )
