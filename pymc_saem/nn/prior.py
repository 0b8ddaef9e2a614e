"""The random variables of network weights: flat and normal ones, with their own starting values.

The starting values are part of the variable and not PyMC's ``initval``, because PyMC cannot copy a
model that has an ``initval``, and ``pm.do``, ``pm.observe`` and ``model.copy`` are built on copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pymc.distributions.continuous import FlatRV
from pymc.distributions.distribution import _support_point
from pymc.logprob.abstract import _logprob
from pytensor.graph.basic import Apply, Variable
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.dispatch.random import numba_core_rv_funcify
from pytensor.tensor.random.basic import NormalRV
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.variable import TensorConstant, TensorVariable

from pymc_saem.sources import sources_hash

# Spread of the draws that stand in for those of a flat prior. A convention: visible, but the
# networks stay tame.
FORWARD_SD = 0.5


class FlatWeightsRV(FlatRV):
    """Flat for the density; draws, which a flat prior does not have, are normal around the starting values."""

    name = "flat_weights"
    is_network_weights = True
    signature = "(),()->()"
    _print_name = ("FlatWeights", "\\operatorname{FlatWeights}")

    @classmethod
    def rng_fn(
        cls, rng: np.random.Generator, start: np.ndarray, sd: np.ndarray, size: Sequence[int] | None
    ) -> np.ndarray:
        return rng.normal(start, sd, size)


@_logprob.register(FlatWeightsRV)
def _flat_logprob(
    op: FlatWeightsRV, values: Sequence[TensorVariable], *inputs: Variable, **kwargs: Any
) -> TensorVariable:
    return pt.zeros_like(values[0])


@_support_point.register(FlatWeightsRV)
def _flat_start(
    op: FlatWeightsRV,
    rv: TensorVariable,
    rng: Variable,
    size: Variable,
    start: TensorVariable,
    sd: TensorVariable,
) -> TensorVariable:
    return start


@numba_core_rv_funcify.register(FlatWeightsRV)
def _flat_draw_in_numba(op: FlatWeightsRV, node: Apply) -> tuple[Callable[..., float], int]:
    @numba_njit
    def draw(rng: np.random.Generator, start: float, sd: float) -> float:
        return start + sd * rng.standard_normal()

    # PyTensor keeps its machine code under this number
    return draw, int(sources_hash(__name__), 16)


class NormalWeightsRV(NormalRV):
    """PyMC's normal distribution with starting values that are not its mean."""

    __props__ = (*NormalRV.__props__, "start")  # type: ignore[assignment]  # declared with the length of the base
    is_network_weights = True

    def __init__(self, start: tuple[float, ...], **props: Any) -> None:
        self.start = start
        super().__init__(**props)


@_support_point.register(NormalWeightsRV)
def _normal_start(op: NormalWeightsRV, rv: TensorVariable, *inputs: Variable) -> TensorConstant:
    return pt.constant(np.array(op.start), dtype=rv.dtype)


def flat_weights(start: np.ndarray) -> TensorVariable:
    """An unnamed random vector with a flat density, starting at ``start``."""
    return _random_vector(FlatWeightsRV(), start, np.asarray(start), FORWARD_SD)


def normal_weights(sd: float, start: np.ndarray) -> TensorVariable:
    """An unnamed random vector of independent N(0, sd^2), starting at ``start``."""
    return _random_vector(NormalWeightsRV(tuple(start.tolist())), start, 0.0, sd)


def _random_vector(
    op: RandomVariable, start: np.ndarray, *parameters: np.ndarray | float
) -> TensorVariable:
    # `make_node`, because what calling the Op returns differs between PyTensor 2 and 3
    rng = pytensor.shared(np.random.default_rng())
    return op.make_node(rng, [len(start)], *parameters).outputs[1]
