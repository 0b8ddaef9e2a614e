"""Takes the index out of a variable with an entry per row of data: the same variable with an entry per unit."""

from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.model.graph.interpreted import INTERPRETED


def without_index(
    variable: TensorVariable, unit: np.ndarray, n_units: int
) -> TensorVariable | None:
    """The graph of ``mu + omega * z`` for ``mu + omega * z[index]``; None where more than this index has an entry per row.

    Parameters
    ----------
    variable : Variable
        With one axis.
    unit : ndarray of int, shape (row,)
        Unit of each entry, by which the index is recognized.

    Units without a row have entries of the result too.
    """
    if unit.ndim != 1 or np.array_equal(unit, np.arange(n_units)):
        return None
    indices = [v for v in ancestors([variable]) if _is_index(v)]
    if not indices:
        return None
    values = pytensor.function([], indices, mode=INTERPRETED)()
    same = [
        v
        for v, value in zip(indices, values, strict=True)
        if np.array_equal(np.asarray(value), unit)
    ]
    if not same:
        return None
    every = pt.constant(np.arange(n_units))
    fresh = FunctionGraph(outputs=[variable], clone=False)
    nodes = [node for node in fresh.toposort()]
    known = dict.fromkeys(same, every)
    for node in nodes:
        inputs = [known.get(v, v) for v in node.inputs]
        if inputs == node.inputs:
            continue
        try:
            new = node.op(*inputs, return_list=True)
        except (TypeError, ValueError):  # rows beside units
            return None
        known |= dict(zip(node.outputs, new, strict=True))
    found = known.get(variable)
    return found if found is not None and found.type.ndim == 1 else None


def _is_index(v: Variable) -> bool:
    is_vector = getattr(v.type, "ndim", None) == 1 and getattr(v.type, "dtype", "").startswith(
        ("int", "uint")
    )
    return is_vector and all(
        i.owner is not None or hasattr(i, "data") or hasattr(i, "get_value") for i in ancestors([v])
    )
