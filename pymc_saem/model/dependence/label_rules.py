"""How labels pass through each operation of PyTensor: what moves entries moves their labels, what computes joins them."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from pytensor.compile.ops import DeepCopyOp, ViewOp
from pytensor.graph.basic import Apply
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor import basic, special, subtensor
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.extra_ops import CumOp, Repeat
from pytensor.tensor.math import Argmax, Dot
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape

from pymc_saem.model.dependence.labels import NOBODY, Reach, Values, join

#: Labels of a variable, or its values where labels do not reach it.
Found: TypeAlias = Reach | Values


def _those_there(module: ModuleType, *names: str) -> tuple:
    """The operations of these names that the installed PyTensor has."""
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


#: They move entries and compute nothing, so they move labels as they are.
_MOVES = (
    *_those_there(subtensor, "Subtensor", "AdvancedSubtensor", "AdvancedSubtensor1"),
    *_those_there(
        basic,
        "Alloc",
        "Join",
        "Split",
        "MakeVector",
        "ExtractDiag",
        "TensorFromScalar",
        "ScalarFromTensor",
    ),
    *(Reshape, SpecifyShape, DimShuffle, Repeat, ViewOp, DeepCopyOp),
)
_SETS = _those_there(subtensor, "IncSubtensor", "AdvancedIncSubtensor", "AdvancedIncSubtensor1")
_SOFTMAX = _those_there(special, "Softmax", "LogSoftmax")


def follow(node: Apply, inputs: Sequence[Found]) -> Sequence[Found] | None:
    """Labels of the outputs of a node, or their values where labels do not reach them; None where they are not known."""
    if getattr(node.op, "is_ode_solution", False):
        return _ode(node.op, inputs)
    return next((rule(node, inputs) for kinds, rule in _RULES if isinstance(node.op, kinds)), None)


def is_product_or_switch(node: Apply) -> bool:
    """Whether a constant of the operation may keep a labelled input out."""
    op = getattr(node.op, "core_op", node.op)
    return isinstance(op, Dot) or type(getattr(op, "scalar_op", op)).__name__ in ("Mul", "Switch")


def perform(node: Apply, values: Sequence[Any]) -> list[Any]:
    storage = [[None] for _ in node.outputs]
    node.op.perform(node, values, storage)
    return [s[0] for s in storage]


def _reach(found: Found) -> Reach:
    return found if isinstance(found, Reach) else Reach.nobody(found.shape)


def _elemwise(node: Apply, inputs: Sequence[Found]) -> list[Reach]:
    name = type(node.op.scalar_op).__name__
    if name == "Second":  # the first gives its shape only
        return [join([Reach.nobody(inputs[0].shape), _reach(inputs[1])])] * len(node.outputs)
    reaches = [_reach(i) for i in inputs]
    fixed = [(k, i) for k, i in enumerate(inputs) if isinstance(i, Values)]
    if name == "Mul":
        for k, value in fixed:
            takes_part = ~value.always(lambda v: v == 0)
            for j in range(len(reaches)):
                if j != k:
                    reaches[j] = join([reaches[j], Reach.nobody(value.shape)]).only(
                        np.broadcast_to(
                            takes_part, np.broadcast_shapes(reaches[j].shape, value.shape)
                        )
                    )
    if name == "Switch" and fixed and fixed[0][0] == 0:
        condition, (a, b) = fixed[0][1], reaches[1:]
        whole = Reach.nobody(np.broadcast_shapes(condition.shape, a.shape, b.shape))
        a, b = join([a, whole]), join([b, whole])
        reaches = [
            a.only(~condition.always(np.logical_not)),
            b.only(~condition.always(lambda c: c.astype(bool))),
        ]
    return [join(reaches)] * len(node.outputs)


def _check(node: Apply, inputs: Sequence[Found]) -> list[Reach]:
    return [_reach(inputs[0])]  # what is checked does not take part


def _shape(node: Apply, inputs: Sequence[Found]) -> list[Values]:
    dims = np.array(inputs[0].shape, dtype=np.int64)
    return [Values([dims if node.outputs[0].type.ndim else np.array(dims[node.op.i])])]


def _move(node: Apply, inputs: Sequence[Found]) -> list[Reach] | None:
    """Run the operation on labels; indices and shapes must not depend on labels themselves."""
    op = node.op
    if isinstance(op, basic.Join):  # PyTensor 2 has the axis as its first input
        data = slice(len(inputs) - _n_joined(node), None)
    else:
        data = slice(0, len(inputs) if isinstance(op, basic.MakeVector) else 1)
    if any(
        isinstance(i, Reach)
        for i in [*inputs[: data.start], *(inputs[data.stop :] if data.stop else [])]
    ):
        return None
    n = max([len(i) for i in inputs if isinstance(i, Values)], default=1)
    reaches = [_reach(i) for i in inputs[data]]
    outputs = []
    for k in range(n):
        values = [None if isinstance(i, Reach) else i[k if len(i) > 1 else 0] for i in inputs]
        both = []
        for side in ("first", "last"):
            values[data] = [getattr(r, side) for r in reaches]
            both.append([np.asarray(out).astype(np.int64) for out in perform(node, values)])
        outputs.append([Reach(a, b) for a, b in zip(*both, strict=True)])
    if len({tuple(r.shape for r in reaches) for reaches in outputs}) > 1:
        return None
    return [join(list(parts)) for parts in zip(*outputs, strict=True)]


def _n_joined(node: Apply) -> int:
    return len(node.inputs) - (0 if hasattr(node.op, "axis") else 1)


def _set(node: Apply, inputs: Sequence[Found]) -> list[Reach] | None:
    fixed = [i for i in inputs[2:] if isinstance(i, Values) and len(i) == 1]
    if len(fixed) < len(inputs[2:]):
        return None
    if not node.op.set_instead_of_inc and not isinstance(node.op, subtensor.IncSubtensor):
        return None  # the same entry may be met more than once
    x, y = (_reach(i) for i in inputs[:2])
    indices = [i[0] for i in fixed]
    if node.op.set_instead_of_inc:
        return [
            Reach(
                *(
                    perform(node, [getattr(x, s).copy(), getattr(y, s), *indices])[0]
                    for s in ("first", "last")
                )
            )
        ]
    # Labels from 1, added to zeros elsewhere.
    placed = [
        perform(
            node,
            [np.zeros_like(x.last), np.where(y.is_none, 0, getattr(y, s)) + ~y.is_none, *indices],
        )[0]
        - 1
        for s in ("first", "last")
    ]
    return [join([x, Reach(np.where(placed[0] < 0, NOBODY, placed[0]), placed[1])])]


def _reduce(node: Apply, inputs: Sequence[Found]) -> list[Reach]:
    axes = node.op.axis
    axes = tuple(range(len(inputs[0].shape))) if axes is None else tuple(axes)
    return [_reach(inputs[0]).over(axes)] * len(node.outputs)


def _cumulate(node: Apply, inputs: Sequence[Found]) -> list[Reach]:
    x, axis = _reach(inputs[0]), node.op.axis
    if axis is None:
        x, axis = x.map(np.ravel), 0
    return [
        Reach(np.minimum.accumulate(x.first, axis=axis), np.maximum.accumulate(x.last, axis=axis))
    ]


def _along(node: Apply, inputs: Sequence[Found]) -> list[Reach]:
    """A softmax: each entry depends on all along its axes."""
    x, axis = _reach(inputs[0]), node.op.axis
    axes = tuple(range(len(x.shape))) if axis is None else axis
    joined = x.over(axes)
    whole = joined.map(lambda a: np.expand_dims(a, axes))
    return [join([whole, Reach.nobody(x.shape)])]


def _contract(x: Found, y: Found) -> Reach:
    """Labels of the matrix product of (..., m, k) and (..., k, n); a zero of a constant factor takes no part."""
    takes_part = [
        ~i.always(lambda v: v == 0) if isinstance(i, Values) else np.ones(i.shape, bool)
        for i in (x, y)
    ]
    a = _reach(x).map(lambda v: v[..., :, :, None])
    b = _reach(y).map(lambda v: v[..., None, :, :])
    part = takes_part[0][..., :, :, None] & takes_part[1][..., None, :, :]
    whole = Reach.nobody(part.shape)
    return join([join([a, whole]).only(part), join([b, whole]).only(part)]).over((-2,))


#: A product with more terms than this is not followed one by one.
_MOST_TERMS = 20_000_000


def _dot(node: Apply, inputs: Sequence[Found]) -> list[Reach] | None:
    x, y = ((_expand(i, 0) if len(i.shape) == 1 else i) for i in inputs)
    y = _transpose(y) if len(inputs[1].shape) == 1 else y
    if x.shape[-2] * x.shape[-1] * y.shape[-1] > _MOST_TERMS:
        return None
    out = _contract(x, y)
    if len(inputs[1].shape) == 1:
        out = out.map(lambda v: v[..., 0])
    if len(inputs[0].shape) == 1:
        out = out.map(lambda v: v[0])
    return [out]


def _expand(found: Found, axis: int) -> Found:
    if isinstance(found, Reach):
        return found.map(lambda v: np.expand_dims(v, axis))
    return Values(np.expand_dims(v, axis) for v in found)


def _transpose(found: Found) -> Found:
    return (
        found.map(np.transpose)
        if isinstance(found, Reach)
        else Values(np.transpose(v) for v in found)
    )


def _ode(op: Any, inputs: Sequence[Found]) -> list[Reach]:
    """A solution's rows depend on the values of their own subject, and on their own times."""
    t, x, c = (_reach(i) for i in inputs)
    subject = join([x.over(-1), c.over(-1)])
    rows = join([subject.map(lambda v: v[..., op.subject]), t])
    return [rows.map(lambda v: np.repeat(v[..., None], len(op.state_names), axis=-1)), subject]


def _blockwise(node: Apply, inputs: Sequence[Found]) -> list[Reach] | None:
    """A function of the last axes: all of an output's last axes depends on all of the inputs'."""
    core = node.op.core_op
    if isinstance(core, Dot) and all(len(i.shape) >= 2 for i in inputs):
        terms = np.prod(np.broadcast_shapes(*(i.shape[:-2] for i in inputs)), dtype=int)
        if terms * inputs[0].shape[-2] * inputs[0].shape[-1] * inputs[1].shape[-1] <= _MOST_TERMS:
            return [_contract(*inputs)]
    ins, outs = node.op.inputs_sig, node.op.outputs_sig
    sizes: dict[str, int] = {}
    joined = []
    for found, names in zip(inputs, ins, strict=True):
        n = len(names)
        sizes |= dict(zip(names, found.shape[len(found.shape) - n :], strict=True))
        joined.append(_reach(found).over(tuple(range(-n, 0))))
    if any(name not in sizes for names in outs for name in names):
        return None
    batch = join(joined)
    outputs = []
    for names in outs:
        core_shape = tuple(sizes[name] for name in names)
        outputs.append(
            join(
                [
                    batch.with_axes(len(batch.shape) + len(names)),
                    Reach.nobody((*batch.shape, *core_shape)),
                ]
            )
        )
    return outputs


def _random(node: Apply, inputs: Sequence[Found]) -> Sequence[Found] | None:
    """Draws depend on the parameters of their distribution."""
    op = node.op
    ranks = list(op.ndims_params)
    params = [_reach(i) for i in inputs[len(inputs) - len(ranks) :]]
    batch = join([p.over(tuple(range(-n, 0))) for p, n in zip(params, ranks, strict=True)])
    size = inputs[1][0] if isinstance(inputs[1], Values) else None
    if size is not None:
        batch = join([batch, Reach.nobody(tuple(int(n) for n in np.ravel(size)))])
    core: tuple[int, ...] = ()
    if op.ndim_supp:
        of_rank = [p for p, n in zip(params, ranks, strict=True) if n == op.ndim_supp]
        if not of_rank:
            return None
        core = of_rank[0].shape[-op.ndim_supp :]
    whole = Reach.nobody((*batch.shape, *core))
    return [Values([None]), join([batch.with_axes(len(whole.shape)), whole])]


_RULES = (
    (RandomVariable, _random),
    (Blockwise, _blockwise),
    (Elemwise, _elemwise),
    (CheckAndRaise, _check),
    ((Shape, Shape_i), _shape),
    (_MOVES, _move),
    (_SETS, _set),
    ((CAReduce, Argmax), _reduce),
    (CumOp, _cumulate),
    (_SOFTMAX, _along),
    (Dot, _dot),
)
