"""Lower a small tensor graph of known shapes to PyTensor scalars, and differentiate it there.

A traced right-hand side is a graph of tiny tensors. Run as tensors, each operation costs an
allocation; as straight-line scalar code the whole thing costs about as much as its tanh and exp.
Every tensor becomes a NumPy object array of scalar variables, and every operation acts on those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from pytensor.compile.builders import OpFromGraph
from pytensor.gradient import DisconnectedType, NullType
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op
from pytensor.graph.traversal import toposort
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar import Exp, Log, Log1p, as_scalar, softplus
from pytensor.scalar.basic import (
    Add,
    BinaryScalarOp,
    Composite,
    Mul,
    ScalarConstant,
    ScalarOp,
    add,
    exp,
    log,
    maximum,
    true_div,
)
from pytensor.tensor import subtensor as sub
from pytensor.tensor.basic import (
    Alloc,
    ExtractDiag,
    Join,
    MakeVector,
    ScalarFromTensor,
    Split,
    TensorFromScalar,
    as_tensor_variable,
)
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.math import Dot
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.special import LogSoftmax, Softmax

__all__ = ["UnsupportedOperation", "apply_scalar", "differentiate", "lower", "perform", "value_in"]


#: A scalar variable: arithmetic of scalars gives scalars, which their own annotations do not say.
Scalar: TypeAlias = Any


def _subtensors(*names: str) -> tuple[Any, ...]:
    # PyTensor 3.3 has dropped some of these classes.
    return tuple(getattr(sub, name) for name in names if hasattr(sub, name))


# Operations that only move elements: run on element numbers instead of elements.
MOVES = (
    Alloc,
    DimShuffle,
    ExtractDiag,
    Join,
    MakeVector,
    Reshape,
    Split,
    *_subtensors("Subtensor", "AdvancedSubtensor", "AdvancedSubtensor1"),
)
SAME = (CheckAndRaise, ScalarFromTensor, SpecifyShape, TensorFromScalar)
SETS = _subtensors("IncSubtensor", "AdvancedIncSubtensor", "AdvancedIncSubtensor1")


class UnsupportedOperation(NotImplementedError):
    """A right-hand side uses an operation that has no scalar form."""

    def __init__(self, op: Op | str) -> None:
        super().__init__(
            f"The right-hand side uses {op}, which solve_ivp cannot compile. Write it with "
            "elementwise functions, sums, dot products, indexing, concatenation and pt.switch; "
            "replace loops over known lengths (scan) by Python loops."
        )


def lower(outputs: Sequence[Variable], inputs: Mapping[Variable, Any]) -> list[np.ndarray]:
    """Scalar variables that compute ``outputs`` from the elements of ``inputs``.

    Parameters
    ----------
    outputs : list of TensorVariable
    inputs : dict of Variable to ndarray of object
        The scalar variable of each element, in the shape of the tensor.

    Returns
    -------
    list of ndarray of object
        One scalar variable per element of each output.
    """
    values = dict(inputs)
    for node in toposort(outputs, blockers=list(inputs)):
        args = [value_in(values, v) for v in node.inputs]
        values.update(zip(node.outputs, _lower_node(node, args), strict=True))
    return [value_in(values, v) for v in outputs]


def value_in(values: Mapping[Variable, Any], variable: Variable) -> Any:
    """Its value, or that of a constant."""
    if variable in values:
        return values[variable]
    if isinstance(variable, Constant):
        data = variable.data
        return np.asarray(data) if isinstance(data, int | float | np.generic | np.ndarray) else data
    raise KeyError(variable)


def _is_constant(x: Any) -> bool:
    return not (isinstance(x, np.ndarray) and x.dtype == object)


def _lower_node(node: Apply, args: list[Any]) -> list[np.ndarray]:
    op = node.op
    known = known_without_computing(op, args)
    if known is not None:
        return known
    if isinstance(op, OpFromGraph):
        return lower(op.inner_outputs, dict(zip(op.inner_inputs, args, strict=True)))
    if all(_is_constant(a) for a in args):
        return perform(node, args)
    if isinstance(op, Elemwise):
        return _elemwise(op.scalar_op, args)
    if isinstance(op, CAReduce):
        return [_reduce(op.scalar_op, args[0], op.axis)]
    if isinstance(op, MOVES) or (isinstance(op, SETS) and op.set_instead_of_inc):
        return _move(node, args)
    if isinstance(op, Dot):
        return [_objects(np.dot(*map(_objects, args)))]
    if isinstance(op, Softmax | LogSoftmax):
        return [_softmax(op, _objects(args[0]))]
    if isinstance(op, Blockwise):
        return _blockwise(op, node, args)
    raise UnsupportedOperation(op)


def known_without_computing(op: Op, args: Sequence[Any]) -> list[Any] | None:
    """Outputs of an operation that returns a shape or its input; None for any other."""
    if isinstance(op, Shape):
        return [np.asarray(args[0].shape)]
    if isinstance(op, Shape_i):
        return [np.asarray(args[0].shape[op.i])]
    return [args[0]] if isinstance(op, SAME) else None


def perform(node: Apply, args: Sequence[Any]) -> list[np.ndarray]:
    """Outputs of an operation on constants."""
    storage = [[None] for _ in node.outputs]
    arrays = [
        np.asarray(a, dtype=v.type.dtype) if hasattr(v.type, "dtype") else a
        for a, v in zip(args, node.inputs, strict=True)
    ]
    try:
        node.op.perform(node, arrays, storage)
    except (NotImplementedError, AttributeError) as error:
        raise UnsupportedOperation(node.op) from error
    return [np.asarray(s[0]) for s in storage]


def _objects(array: Any) -> np.ndarray:
    """The array with every constant element as a scalar constant."""
    out = np.empty(np.shape(array), dtype=object)
    for index, element in np.ndenumerate(np.asarray(array)):
        out[index] = as_scalar(element) if not hasattr(element, "type") else element
    return out


def _elemwise(scalar_op: ScalarOp, args: Sequence[Any]) -> list[np.ndarray]:
    arrays = np.broadcast_arrays(*map(_objects, args))
    outs = [np.empty(arrays[0].shape, dtype=object) for _ in range(scalar_op.nout)]
    for index in np.ndindex(arrays[0].shape):
        for out, value in zip(
            outs, apply_scalar(scalar_op, [a[index] for a in arrays]), strict=True
        ):
            out[index] = value
    return outs


def apply_scalar(scalar_op: ScalarOp, xs: Sequence[Scalar]) -> list[Scalar]:
    """One scalar operation; overflowing forms of softplus become softplus."""
    if isinstance(scalar_op, Composite):
        inner = dict(zip(scalar_op.inputs, xs, strict=True))
        for node in toposort(scalar_op.outputs, blockers=scalar_op.inputs):
            args = [inner.get(v, v) for v in node.inputs]
            inner.update(zip(node.outputs, apply_scalar(node.op, args), strict=True))
        return [inner.get(v, v) for v in scalar_op.outputs]
    owner = xs[0].owner
    if isinstance(scalar_op, Log1p) and owner and isinstance(owner.op, Exp):
        return [softplus(owner.inputs[0])]
    exponents = _exponents(xs[0]) if isinstance(scalar_op, Log) else []
    if len(exponents) > 1:
        total, *rest = exponents
        for x in rest:
            total = softplus(total) if _is_number(x, 0) else x + softplus(total - x)
        return [total]
    return scalar_op.make_node(*xs).outputs


def _exponents(total: Scalar) -> list[Scalar]:
    """The x of a sum of exp(x), that of 1 last; empty for any other expression."""
    if _is_number(total, 1):
        return [as_scalar(0.0)]
    owner = total.owner
    if owner and isinstance(owner.op, Exp):
        return [owner.inputs[0]]
    if not (owner and isinstance(owner.op, Add)):
        return []
    parts = [_exponents(x) for x in owner.inputs]
    return sorted(sum(parts, []), key=lambda x: _is_number(x, 0)) if all(parts) else []


def _is_number(variable: Variable, number: float) -> bool:
    return isinstance(variable, ScalarConstant) and variable.data == number


def _reduce(
    scalar_op: BinaryScalarOp | Add | Mul, array: Any, axis: Sequence[int] | None
) -> np.ndarray:
    array = _objects(array)
    axes = tuple(range(array.ndim)) if axis is None else tuple(axis)
    kept = [a for a in range(array.ndim) if a not in axes]
    shape = tuple(array.shape[a] for a in kept)
    flat = array.transpose(kept + list(axes)).reshape((*shape, -1))
    out = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        total, *rest = flat[index] if flat.shape[-1] else [as_scalar(scalar_op.identity)]
        for x in rest:
            total = apply_scalar(scalar_op, [total, x])[0]
        out[index] = total
    return out


def _move(node: Apply, args: list[Any]) -> list[np.ndarray]:
    """Move element numbers through the operation, then put the elements back."""
    pool, numbered = [as_scalar(0.0)], []
    for a, variable in zip(args, node.inputs, strict=True):
        # Indices, shapes and axes are constants, and steer the operation.
        if _is_constant(a) and not getattr(variable.type, "dtype", "int").startswith("float"):
            numbered.append(a)
        else:
            a = _objects(a)
            numbered.append(
                np.arange(len(pool), len(pool) + a.size, dtype="float64").reshape(a.shape)
            )
            pool.extend(a.ravel())
    storage = [[None] for _ in node.outputs]
    node.op.perform(node, numbered, storage)
    elements = np.empty(len(pool), dtype=object)
    elements[:] = pool
    return [_objects(elements[np.asarray(s[0]).astype(int)]) for s in storage]


def _softmax(op: Softmax | LogSoftmax, x: np.ndarray) -> np.ndarray:
    axis = tuple(range(x.ndim)) if op.axis is None else (op.axis % x.ndim,)
    keep = tuple(1 if a in axis else n for a, n in enumerate(x.shape))
    shifted = x - _reduce(maximum, x, axis).reshape(keep)
    powers = _elemwise(exp, [shifted])[0]
    total = _reduce(add, powers, axis).reshape(keep)
    if isinstance(op, LogSoftmax):
        return _objects(shifted - _elemwise(log, [total])[0])
    return _elemwise(true_div, [powers, total])[0]


def _blockwise(op: Blockwise, node: Apply, args: list[Any]) -> list[np.ndarray]:
    """Loop over the batch dimensions, lowering the core operation for each."""
    core_ndims = [len(s) for s in op.inputs_sig]
    batch = np.broadcast_shapes(
        *(a.shape[: a.ndim - n] for a, n in zip(args, core_ndims, strict=True))
    )
    args = [
        np.broadcast_to(a, batch + a.shape[a.ndim - n :])
        for a, n in zip(args, core_ndims, strict=True)
    ]
    core_node = op._create_dummy_core_node([as_tensor_variable(v) for v in node.inputs])
    outs: list[Any] = [None] * len(node.outputs)
    for index in np.ndindex(batch):
        for k, result in enumerate(_lower_node(core_node, [a[index] for a in args])):
            if outs[k] is None:
                outs[k] = np.empty(batch + result.shape, dtype=object)
            outs[k][index] = _objects(result) if result.ndim else _objects(result).item()
    return outs


def differentiate(output: Variable, wrt: Sequence[Variable]) -> list[Variable | None]:
    """Derivatives of one scalar variable by reverse mode.

    Returns a list with one scalar variable per entry of ``wrt``, None where it is zero.
    """
    sums = {output: as_scalar(1.0)}
    for node in reversed(list(toposort([output]))):
        cotangents = [sums.get(v) for v in node.outputs]
        if all(c is None for c in cotangents):
            continue
        cotangents = [
            v.zeros_like("float64") if c is None else c
            for v, c in zip(node.outputs, cotangents, strict=True)
        ]
        pullback = getattr(node.op, "pullback", None) or node.op.L_op
        for x, term in zip(
            node.inputs, pullback(node.inputs, node.outputs, cotangents), strict=True
        ):
            if isinstance(x, Constant) or isinstance(term.type, DisconnectedType):
                continue
            if isinstance(term.type, NullType):
                raise UnsupportedOperation(f"the derivative of {node.op}")
            if not _is_number(term, 0):
                sums[x] = sums[x] + term if x in sums else term
    return [sums.get(v) for v in wrt]
