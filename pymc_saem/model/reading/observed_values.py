"""The observed values of a model, as arrays of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor
from pytensor.tensor.variable import TensorVariable

from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import UnsupportedModelError


def observed_values(model: pm.Model, rv: TensorVariable) -> np.ndarray:
    """Values of an observed variable in its shape; not by ``eval()``, which calls the C compiler for a second.

    Raises
    ------
    UnsupportedModelError
        When one of them is not a number; the message names it.
    """
    data = model.rvs_to_values[rv]
    if hasattr(data, "data"):
        values = np.asarray(data.data)
    elif hasattr(data, "get_value"):
        values = np.asarray(data.get_value(borrow=True))
    else:
        values = np.asarray(pytensor.function([], data, mode=INTERPRETED)())
    try:
        return values.astype(float)
    except (TypeError, ValueError):
        row, text = next((k, v) for k, v in enumerate(values.ravel()) if not _is_number(v))
        raise UnsupportedModelError(
            f"The observed values of '{str(rv.name).removesuffix('_observed')}' must be numbers; row {row} is {text!r}."
        ) from None


def row_size(model: pm.Model, rv: TensorVariable, n_rows: int) -> int:
    """Numbers in a row of an outcome: more than 1 for a vector such as MvNormal."""
    return max(1, observed_values(model, rv).size // max(n_rows, 1))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
