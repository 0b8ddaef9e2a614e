"""Limits of a censored outcome, row by row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import ArrayLike
from pymc.distributions.censored import CensoredRV
from pytensor.tensor.variable import TensorVariable

from pymc_saem.evaluate.fitted_outcome import MODE_SAMPLE, FittedOutcome
from pymc_saem.evaluate.row_function import RowFunction


def base_of(rv: TensorVariable) -> TensorVariable:
    """The variable that a censored outcome would be without its limits; other outcomes are their own."""
    return rv.owner.inputs[0] if isinstance(rv.owner.op, CensoredRV) else rv


def limit_graphs(rv: TensorVariable) -> list:
    """Graphs of the lower and the upper limit; infinite for outcomes without."""
    if isinstance(rv.owner.op, CensoredRV):
        return [pt.as_tensor_variable(v).astype("float64") for v in rv.owner.inputs[1:3]]
    return [pt.constant(-np.inf), pt.constant(np.inf)]


def censored_rows(
    model: pm.Model,
    fitted: FittedOutcome,
    samples: Mapping[str, np.ndarray],
    x: ArrayLike | None = None,
) -> np.ndarray:
    """-1 in rows observed at the lower limit, 1 at the upper one, else 0; (row,)."""
    side = np.zeros(fitted.observed.size, dtype=int)
    if isinstance(fitted.rv.owner.op, CensoredRV):
        lower, upper = (
            v[MODE_SAMPLE]
            for v in RowFunction(model, limit_graphs(fitted.rv), fitted, samples, x).at_rows()
        )
        side[fitted.observed >= upper] = 1
        side[fitted.observed <= lower] = -1
    return side
