"""Print a tensor graph as loops that Numba compiles: for right-hand sides too wide to write out number by number.

Straight-line code has a statement per number, and compiling it takes longer than linear time. Here
the code has a loop per tensor operation, whatever the width. Every tensor is a view of memory in
which element m of lane l stands at ``m * lanes + l``: of the states ``y``, the parameters ``p``,
the times ``ts``, or scratch ``s``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.graph.traversal import toposort
from pytensor.scalar import as_scalar, float64
from pytensor.scalar.basic import Add, ScalarOp
from pytensor.tensor.basic import Join, MakeVector, as_tensor_variable
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, Elemwise
from pytensor.tensor.math import Dot

from pymc_saem.ode.rhs.lower import (
    MOVES,
    SETS,
    UnsupportedOperation,
    apply_scalar,
    known_without_computing,
    perform,
    value_in,
)
from pymc_saem.ode.rhs.scalar_source import SourcePrinter, interleaved, number_text

__all__ = ["LoopPrinter", "View", "contiguous"]

_MOST_CONSTANTS = 256  # numbers of a constant tensor, which are written out


@dataclass(frozen=True)
class View:
    """A tensor in memory: element ``(i, j)`` is number ``offset + i * strides[0] + j * strides[1]`` of ``base``."""

    base: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def at(self, indices: Sequence[str]) -> str:
        """Source text of an element, the indices being texts; axes of length 1 have none."""
        terms = [str(self.offset)] * (self.offset != 0)
        for index, stride, n in zip(indices, self.strides, self.shape, strict=True):
            if stride and n != 1:
                terms.append(index if stride == 1 else f"{index} * {stride}")
        if not terms:
            return f"{self.base}[lane]"
        return f"{self.base}[({' + '.join(terms)}) * lanes + lane]"

    def broadcast(self, shape: Sequence[int]) -> View:
        """This view with repeated axes."""
        strides = (0,) * (len(shape) - len(self.shape)) + tuple(
            0 if n == 1 else s for n, s in zip(self.shape, self.strides, strict=True)
        )
        return View(self.base, self.offset, tuple(shape), strides)

    @property
    def numbers(self) -> np.ndarray:
        """ndarray of int: the number of each element."""
        out = np.full(self.shape, self.offset)
        for axis, (n, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            out += (np.arange(n) * stride).reshape((-1,) + (1,) * (len(self.shape) - axis - 1))
        return out


#: A tensor in memory, or a constant.
Value: TypeAlias = View | np.ndarray


def contiguous(base: str, offset: int, shape: Sequence[int]) -> View:
    """View of a row-major tensor."""
    strides = (
        0 if n == 1 else int(np.prod(shape[axis + 1 :], dtype=int)) for axis, n in enumerate(shape)
    )
    return View(base, offset, tuple(shape), tuple(strides))


class LoopPrinter:
    """Collects the loops that compute tensors.

    Parameters
    ----------
    leaves : dict of Variable to View
        Where the inputs stand.
    """

    def __init__(self, leaves: Mapping[Variable, View]) -> None:
        self.values: dict[Variable, Value] = dict(leaves)
        self.lines: list[str] = []
        self.size = 0  # of the scratch
        self.work = 0  # numbers computed by operations on tensors, products counted one by one
        #: Operation and operands -> results, so that equal expressions are computed once.
        self.known: dict[Hashable, Any] = {}
        #: The open loop of elementwise operations: its shape, what it reads and what it computes.
        self.group: tuple[tuple[int, ...], dict[View, Variable], dict[View, Variable]] | None = None
        #: Results of set operations that are built in the place of the output.
        self.places: dict[Variable, View] = {}
        #: Views that a set operation made and nothing else reads.
        self.owned: set[View] = set()

    def store(self, pairs: Sequence[tuple[Variable, View]]) -> None:
        """Print what computes outputs; each comes with the View in which to store it."""
        outputs = list({v: None for v, _ in pairs})
        _, clients = self._nodes(outputs)
        for variable, place in pairs:
            for v in _chain_of_sets(variable, clients):
                self.places.setdefault(v, place)
        self._run(outputs)
        for variable, place in pairs:
            value = value_in(self.values, variable)
            if not isinstance(value, View) or value != place:
                self._copy(place, value)
        self._close()

    def source(self) -> str:
        """Text of the body, indented once."""
        # A loop of known length would be unrolled, and the code as long as without loops.
        head, tail = ["one = min(lanes, 1)"], []
        if self.size:
            head += [f"memory = np.empty({self.size} * lanes)", "s = doubles(memory.ctypes.data)"]
            tail = ["memory[0] = 0.0"]  # Numba frees an array after its last use
        return "".join(f"    {line}\n" for line in (*head, *self.lines, *tail))

    def _nodes(self, outputs: Sequence[Variable]) -> tuple[list[Apply], dict[Variable, int]]:
        """The nodes that compute outputs, in order, and the number of uses of each variable."""
        nodes, clients = (
            list(toposort(outputs, blockers=list(self.values))),
            dict.fromkeys(outputs, 1),
        )
        for v in (v for node in nodes for v in node.inputs):
            clients[v] = clients.get(v, 0) + 1
        return nodes, clients

    def _run(self, outputs: Sequence[Variable]) -> None:
        nodes, clients = self._nodes(outputs)
        for node in nodes:
            args = [value_in(self.values, v) for v in node.inputs]
            if isinstance(node.op, SETS):
                results: Sequence[Value] = [self._set(node, args, clients[node.inputs[0]] == 1)]
            else:
                results = self._node(node, args)
            self.values |= zip(node.outputs, results, strict=True)

    def _node(self, node: Apply, args: Sequence[Value]) -> Sequence[Value]:
        op = node.op
        known = known_without_computing(op, args)
        if known is not None:
            return known
        if isinstance(op, OpFromGraph):
            # the outer graph may use the inputs, so none is changed in place
            outer = (
                self.values,
                self.owned,
            )
            self.values, self.owned = dict(zip(op.inner_inputs, args, strict=True)), set()
            self._run(op.inner_outputs)
            results = [value_in(self.values, v) for v in op.inner_outputs]
            self.values, self.owned = outer
            return results
        if not any(isinstance(a, View) for a in args):
            return perform(node, args)
        key = (op, *(a if isinstance(a, View) else _key(a) for a in args))
        if key not in self.known:
            self.known[key] = self._compute(node, args)
        return self.known[key]

    def _compute(self, node: Apply, args: Sequence[Value]) -> Sequence[Value]:
        op = node.op
        if isinstance(op, Elemwise):
            return self._elemwise(op.scalar_op, args)
        if isinstance(op, CAReduce) and isinstance(op.scalar_op, Add):
            return [self._sum(op, self._view(args[0]))]
        if isinstance(op, Dot):
            return [self._dot(*map(self._view, args))]
        if isinstance(op, Join | MakeVector):
            return [self._join(op, args)]
        if isinstance(op, MOVES):
            return self._move(node, args)
        if isinstance(op, Blockwise) and not op.batch_ndim(node):
            return self._compute(
                op._create_dummy_core_node([as_tensor_variable(v) for v in node.inputs]), args
            )
        raise UnsupportedOperation(op)

    def _new(self, shape: Sequence[int]) -> View:
        view = contiguous("s", self.size, shape)
        self.size += int(np.prod(shape, dtype=int))
        return view

    def _view(self, value: Value) -> View:
        """The value; a constant is written into the scratch."""
        if isinstance(value, View):
            return value
        if value.size > _MOST_CONSTANTS:
            raise UnsupportedOperation(f"a constant of {value.size} numbers")
        if _key(value) not in self.known:
            self._close()
            view = self.known[_key(value)] = self._new(value.shape)
            texts = [
                f"s[{view.offset + m} * lanes + lane] = {number_text(float(x))}"
                for m, x in enumerate(value.flat)
            ]
            self.lines += ["for lane in range(lanes):", *("    " + text for text in texts)]
        return self.known[_key(value)]

    def _close(self) -> None:
        """Print the open loop."""
        group, self.group = self.group, None
        if group is not None:
            shape, leaves, values = group

            def statements(*texts: str) -> list[str]:
                printer = SourcePrinter(dict(zip(leaves.values(), texts, strict=False)))
                results = [number_text(printer.value(x)) for x in values.values()]
                stores = zip(texts[len(leaves) :], results, strict=True)
                return [
                    *interleaved(printer.lines),
                    *(f"{place} = {text}" for place, text in stores),
                ]

            self._loop(shape, [*leaves, *values], statements)

    def _loop(
        self, shape: Sequence[int], views: Sequence[View], statements: Callable[..., list[str]]
    ) -> None:
        """Print statements for all elements and lanes of views, given the texts of their elements."""
        views = [v.broadcast(shape) for v in views]
        if all(v == contiguous(v.base, v.offset, shape) for v in views):
            self.lines.append(f"for m in range({int(np.prod(shape, dtype=int))} * lanes):")
            depth, texts = 1, [f"{v.base}[{v.offset} * lanes + m]" for v in views]
        else:
            indices, depth = _indices(shape), 0
            for index, n in zip(indices, shape, strict=True):
                if n != 1:
                    self.lines.append("    " * depth + f"for {index} in range({n} * one):")
                    depth += 1
            self.lines.append("    " * depth + "for lane in range(lanes):")
            depth, texts = depth + 1, [v.at(indices) for v in views]
        self.lines += ("    " * depth + statement for statement in statements(*texts))

    def _elemwise(self, scalar_op: ScalarOp, args: Sequence[Value]) -> Sequence[Value]:
        shape = np.broadcast_shapes(*(a.shape for a in args))
        operands = [self._operand(a, shape) for a in args]
        reads = [v for v in operands if isinstance(v, View)]
        if (
            self.group is None
            or self.group[0] != shape
            or any(_meets(v, self.group[2]) for v in reads)
        ):
            self._close()
            self.group = shape, {}, {}
        _, leaves, values = self.group
        xs: list[Variable] = []
        for v in operands:
            if isinstance(v, View):
                xs.append(values[v] if v in values else leaves.setdefault(v, float64()))
            else:
                xs.append(as_scalar(v.item()))
        self.work += np.prod(shape, dtype=int) if shape else 0
        results = [self._new(shape) for _ in range(scalar_op.nout)]
        values.update(zip(results, apply_scalar(scalar_op, xs), strict=True))
        return results

    def _operand(self, value: Value, shape: Sequence[int]) -> Value:
        """A view in the shape of the result; a single number as it is, to be written out."""
        if not isinstance(value, View) and value.size == 1:
            return value
        return self._view(value).broadcast(shape)

    def _sum(self, op: CAReduce, x: View) -> View:
        axes = tuple(range(len(x.shape))) if op.axis is None else tuple(op.axis)
        out = self._new([n for axis, n in enumerate(x.shape) if axis not in axes])
        self._copy(out, np.zeros(()))
        strides = [
            0 if axis in axes else out.strides[axis - sum(other < axis for other in axes)]
            for axis in range(len(x.shape))
        ]
        self._loop(
            x.shape,
            [View("s", out.offset, x.shape, tuple(strides)), x],
            lambda total, part: [f"{total} += {part}"],
        )
        return out

    def _dot(self, a: View, b: View) -> View:
        """Matrix product; a vector is a matrix with one row or column."""
        self._close()
        shape = (*a.shape[:-1], *b.shape[1:])
        if len(a.shape) == 1:
            a = View(a.base, a.offset, (1, *a.shape), (0, *a.strides))
        if len(b.shape) == 1:
            b = View(b.base, b.offset, (*b.shape, 1), (*b.strides, 0))
        out = self._new(shape)
        self.work += a.shape[0] * a.shape[1] * b.shape[1]
        numbers = (a.shape[0], *b.shape, *a.strides, *b.strides)
        places = ", ".join(f"{v.base}, {v.offset}" for v in (out, a, b))
        self.lines.append(f"multiply({places}, {', '.join(map(str, numbers))}, lanes)")
        return out

    def _copy(self, target: View, source: Value, sign: str = "=") -> None:
        if 0 in target.shape:
            return
        if isinstance(source, View) or not (source == source.flat[0]).all():
            source = self._view(source)
        self._close()
        if isinstance(source, View):
            self._loop(target.shape, [target, source], lambda to, part: [f"{to} {sign} {part}"])
        else:
            number = number_text(float(source.flat[0]))
            self._loop(target.shape, [target], lambda to: [f"{to} {sign} {number}"])

    def _join(self, op: Join | MakeVector, args: Sequence[Value]) -> View:
        axis: Any = getattr(op, "axis", 0)
        # in PyTensor 2.38 it is the first input
        if isinstance(op, Join) and not hasattr(op, "axis"):
            axis, *args = args
        parts = [self._view(part) for part in args]
        if isinstance(op, MakeVector):
            parts = [View(part.base, part.offset, (1,), (0,)) for part in parts]
        axis, shape, begin = int(axis) % len(parts[0].shape), list(parts[0].shape), 0
        shape[axis] = sum(part.shape[axis] for part in parts)
        out = self._new(shape)
        for part in parts:
            self._copy(
                View("s", out.offset + begin * out.strides[axis], part.shape, out.strides), part
            )
            begin += part.shape[axis]
        return out

    def _move(self, node: Apply, args: Sequence[Value]) -> Sequence[Value]:
        """Run the operation on the numbers of the elements: it stays a view if those are at regular distances."""
        (source,) = (a for a in args if isinstance(a, View))
        storage = [[None] for _ in node.outputs]
        node.op.perform(
            node, [a.numbers.astype("float64") if a is source else a for a in args], storage
        )
        return [_as_view(source.base, np.asarray(s[0]).astype(int), node.op) for s in storage]

    def _set(self, node: Apply, args: Sequence[Value], is_last_use: bool) -> View:
        """Set a part of a tensor, or add to it; in place if nobody else uses the tensor."""
        x, y, *_ = args
        numbers = np.arange(int(np.prod(y.shape, dtype=int)), dtype="float64").reshape(y.shape)
        storage: list[list[Any]] = [[None]]
        # In zeros, the operation leaves the number of the element that it puts there, plus 1.
        node.op.perform(node, [np.zeros(x.shape), numbers + 1.0, *args[2:]], storage)
        changed = storage[0][0]
        where = np.flatnonzero(changed)
        where = where[np.argsort(changed.flat[where], kind="stable")]
        if not np.array_equal(changed.flat[where], numbers.ravel() + 1.0) and y.shape != ():
            raise UnsupportedOperation(f"{node.op} with repeated elements")
        if isinstance(x, View) and x in self.owned and is_last_use:
            out = x
        else:
            out = self.places.get(node.outputs[0]) or self._new(x.shape)
            self._copy(out, x)
            self.owned.add(out)
        region = out.numbers.flat[where]
        target = _as_view(out.base, region if y.shape == () else region.reshape(y.shape), node.op)
        self._copy(target, y, "=" if node.op.set_instead_of_inc else "+=")
        return out


def _chain_of_sets(variable: Variable, clients: Mapping[Variable, int]) -> list[Variable]:
    """The variable, and the tensors that become it by set operations in place, if it is made by such."""
    chain = []
    while (
        variable.owner is not None
        and isinstance(variable.owner.op, SETS)
        and clients[variable] == 1
    ):
        chain.append(variable)
        variable = variable.owner.inputs[0]
    return chain


def _as_view(base: str, numbers: np.ndarray, op: Op) -> View:
    """The view whose elements have these numbers, which must be at regular distances."""
    strides = []
    for axis, n in enumerate(numbers.shape):
        second = tuple(int(other == axis and n > 1) for other in range(numbers.ndim))
        strides.append(int(numbers[second] - numbers.flat[0]) if numbers.size else 0)
    view = View(base, int(numbers.flat[0]) if numbers.size else 0, numbers.shape, tuple(strides))
    if not np.array_equal(view.numbers, numbers):
        raise UnsupportedOperation(f"{op} with elements at irregular distances")
    return view


def _meets(view: View, values: Iterable[View]) -> bool:
    """Whether a view reads what the open loop computes, in another order than the loop."""
    if view.base != "s" or view in values:
        return False
    first, last = view.numbers.min(), view.numbers.max()
    return any(
        first < v.offset + max(1, int(np.prod(v.shape))) and v.offset <= last for v in values
    )


def _indices(shape: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"i{axis}" for axis in range(len(shape)))


def _key(value: Any) -> Hashable:
    return (
        (value.shape, str(value.dtype), value.tobytes())
        if isinstance(value, np.ndarray)
        else str(value)
    )
