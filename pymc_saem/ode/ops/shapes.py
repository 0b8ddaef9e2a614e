"""Shapes of the inputs of the operations: any number of leading batch dimensions."""

from collections.abc import Sequence
from typing import Any

import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.tensor.extra_ops import broadcast_shape
from pytensor.tensor.variable import TensorVariable

__all__ = ["batch_shape", "check_times", "float_tensor", "symbolic_batch"]


def float_tensor(x: Any) -> TensorVariable:
    """Convert to a tensor of floats."""
    return pt.as_tensor_variable(x).astype("float64")


def check_times(t: Variable) -> None:
    """Refuse times that are no vector."""
    if t.type.ndim != 1:
        raise ValueError(
            f"The times of an ODE solution must be one vector over rows; got {t.type.ndim} dimensions. "
            "Different times per replicate cannot be vectorized: build a second solution instead."
        )


def batch_shape(*arguments: tuple[Variable, int]) -> tuple[int | None, ...]:
    """Static batch shape; None if it is only known at run time."""
    shapes = [v.type.shape[: v.type.ndim - core] for v, core in arguments]
    n = max(map(len, shapes))
    shapes = [(1,) * (n - len(s)) + s for s in shapes]
    return tuple(_one_length(lengths) for lengths in zip(*shapes, strict=True))


def _one_length(lengths: Sequence[int | None]) -> int | None:
    known = {n for n in lengths if n is not None and n != 1}
    if known:
        return known.pop()
    return None if None in lengths else 1


def symbolic_batch(shapes: Sequence[Sequence[Any]], cores: Sequence[int]) -> tuple[Any, ...]:
    """Symbolic batch shape of several inputs, of whose shapes the last ``cores`` entries are not batch."""
    batches = [tuple(s[: len(s) - core]) for s, core in zip(shapes, cores, strict=True)]
    if not any(batches):
        return ()
    return broadcast_shape(*batches, arrays_are_shapes=True)
