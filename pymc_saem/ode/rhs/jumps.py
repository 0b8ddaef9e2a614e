"""Right-hand sides that jump at a value of a state or of an estimated parameter.

Their solutions are right, but not their derivatives: sensitivities follow the solution on either
side of a jump and do not see that the jump itself comes earlier or later. The gradient by a lag in
``switch(t > p.lag, ...)`` would be zero. A change of case alone is harmless: where both cases are
equal at the change, as in a hockey stick, the derivatives are right. So outputs are compared on
both sides of the change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import vectorize_graph
from pytensor.graph.traversal import ancestors, toposort
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.variable import TensorVariable

__all__ = ["find_jump"]

_COMPARISONS = {"GT": ">", "GE": ">=", "LT": "<", "LE": "<="}
_ROUNDINGS = {
    "Ceil": "ceil",
    "Floor": "floor",
    "IntDiv": "//",
    "Mod": "%",
    "RoundHalfToEven": "round",
    "Sign": "sign",
    "Trunc": "trunc",
}
#: Paths between two points that are tried, and the decades of their values: those of most models;
#: if no case changes there, all.
_N_WAYS, _DECADES = 400, ((-2.0, 3.0), (-8.0, 8.0))
_ENOUGH_WAYS = 10
#: Halvings of the path between two points, down to neighbouring numbers.
_HALVINGS = 60
#: A derivative jumps if it changes by more than this share of its size at the ends of one path in
#: five. A change at 1e-8 that only keeps a logarithm finite does not count.
_JUMP, _SHARE = 1e-3, 0.2


def find_jump(
    outputs: Sequence[TensorVariable], y: Sequence[Variable], free: Sequence[Variable]
) -> str:
    """The first case of a right-hand side at whose change it jumps, if states or parameters with derivatives decide it.

    Parameters
    ----------
    outputs : list of Variable
        Derivatives of the states.
    y, free : list of Variable
        States, and parameters with derivatives.

    Returns
    -------
    str
        Such as ``"a comparison (>) with p.lag"``; empty if there is none.
    """
    if not free:
        return ""
    names = {v: f"y.{v.name}" for v in y} | {v: f"p.{v.name}" for v in free}
    for node in toposort(outputs):
        kind = type(node.op.scalar_op).__name__ if isinstance(node.op, Elemwise) else ""
        if kind not in _COMPARISONS and kind not in _ROUNDINGS:
            continue
        behind = set(ancestors(node.inputs))
        deciding = [name for v, name in names.items() if v in behind]
        if deciding and _jumps(outputs, node):
            what = (
                f"a comparison ({_COMPARISONS[kind]})"
                if kind in _COMPARISONS
                else f"{_ROUNDINGS[kind]}()"
            )
            return f"{what} with {', '.join(deciding)}"
    return ""


def _jumps(outputs: Sequence[TensorVariable], node: Apply) -> bool:
    """Whether the outputs jump where the case changes, along paths between random points."""
    inputs = [v for v in ancestors(outputs) if v.owner is None and not hasattr(v, "data")]
    case = pt.as_tensor_variable(node.outputs[0]).astype("float64").ravel()
    batched = {v: pt.tensor(dtype="float64", shape=(None, *v.type.shape)) for v in inputs}
    graph = vectorize_graph([pt.stack(outputs), case], batched)
    evaluate = pytensor.function(
        list(batched.values()), graph, mode=Mode("py", "fast_compile"), on_unused_input="ignore"
    )
    rng = np.random.default_rng(0)
    shapes = [tuple(v.type.shape) for v in inputs]
    sizes = np.zeros(0)
    with np.errstate(all="ignore"):
        for decades in _DECADES:
            sizes = _jumps_between(evaluate, *(_points(rng, shapes, decades) for _ in range(2)))
            if sizes.size >= _ENOUGH_WAYS:
                break
    return bool((sizes > _JUMP).sum() > _SHARE * sizes.size)


def _points(
    rng: np.random.Generator, shapes: Sequence[tuple[int, ...]], decades: tuple[float, float]
) -> list[np.ndarray]:
    """Values of each input, (point, *shape); one in four is negative."""
    values = []
    for shape in shapes:
        size = 10.0 ** rng.uniform(*decades, (_N_WAYS, *shape))
        values.append(np.where(rng.uniform(size=size.shape) < 0.25, -size, size))
    return values


def _jumps_between(
    evaluate: Callable[..., Sequence[np.ndarray]], low: list[np.ndarray], high: list[np.ndarray]
) -> np.ndarray:
    """How much outputs change at the first change of case on the path from one point to another, (paths with a change,), in units
    of their size at the ends."""
    (first, start), (last, end) = evaluate(*low), evaluate(*high)
    changes = (end != start).any(axis=1)
    low, high, start = [v[changes] for v in low], [v[changes] for v in high], start[changes]
    size = (np.abs(first) + np.abs(last))[changes]
    for _ in range(_HALVINGS):
        middle = [a + 0.5 * (b - a) for a, b in zip(low, high, strict=True)]
        stays = (evaluate(*middle)[1] == start).all(axis=1)
        for a, b, m in zip(low, high, middle, strict=True):
            a[stays], b[~stays] = m[stays], m[~stays]
    step = np.abs(evaluate(*high)[0] - evaluate(*low)[0])
    known = np.isfinite(step + size).all(axis=1)
    step = np.divide(step, size, out=np.where(step > 0.0, np.inf, 0.0), where=size > 0.0)
    return step[known].max(axis=1)  # there is at least one output
