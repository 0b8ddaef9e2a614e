"""Gradients of graphs, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable


def gradients(cost: TensorVariable, wrt: Sequence[TensorVariable]) -> list[TensorVariable]:
    """Derivatives of a number; zero in what it does not depend on."""
    # one for each, which its annotation leaves open
    found: Any = pt.grad(cost, list(wrt), disconnected_inputs="ignore")
    return [pt.as_tensor_variable(gradient) for gradient in found]
