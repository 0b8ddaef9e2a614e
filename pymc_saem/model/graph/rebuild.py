"""Copies of a model's graph with some variables replaced, and with randomness as an input.

PyTensor's own replacements do not continue inside what they put in, nor do they vectorize draws
that depend on nothing. Here the graph is rebuilt in one pass from inputs to outputs, so that a
replacement sees the ones before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.distribution import support_point
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.traversal import io_toposort
from pytensor.scalar.basic import Second
from pytensor.scalar.math import Softplus
from pytensor.scan.op import Scan
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.basic import LogNormalRV, NormalRV
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.random.type import RandomType, random_generator_type
from pytensor.tensor.shape import Shape, Shape_i
from pytensor.tensor.type import TensorType

from pymc_saem.compat import inner_graph


class Randomness:
    """Generators as inputs of a graph, one for each operation that draws.

    ``zero`` is a scalar that every draw is made to depend on. A batch of it gives a batch of draws,
    also where they depend on no parameter.

    Parameters
    ----------
    sizes : dict of int to ndarray, optional
        Shape of draws, by their number, where the graph computes it: a computed one would become a
        batch of shapes.

    Attributes
    ----------
    unknown : dict of int to Variable
        The shapes that the graph computes.
    """

    def __init__(self, sizes: Mapping[int, np.ndarray] | None = None) -> None:
        self.sizes = sizes or {}
        self.unknown: dict[int, Variable] = {}
        self.generators: list[Variable] = []
        self.zero = pt.scalar("zero", dtype="float64")

    def inputs(self, node: Apply, inputs: list[Variable]) -> list[Variable]:
        """Inputs of an operation that draws, with its own generator."""
        number = len(self.generators)
        inputs = [self._new() if isinstance(v.type, RandomType) else v for v in inputs]
        if isinstance(node.op, RandomVariable):
            first = node.inputs.index(node.op.dist_params(node)[0])
            inputs[first] = inputs[first] + self.zero.astype(inputs[first].type.dtype)
            size = node.inputs.index(node.op.size_param(node))
            if number in self.sizes:
                inputs[size] = pt.constant(np.asarray(self.sizes[number], dtype="int64"))
            elif not isinstance(inputs[size], Constant):
                self.unknown[number] = inputs[size]
        return inputs

    def _new(self) -> Variable:
        self.generators.append(random_generator_type())
        return self.generators[-1]


def rebuild(
    outputs: Sequence[Variable],
    known: Mapping[Variable, Variable],
    *,
    randomness: Randomness | None = None,
    replace: Callable[[Variable, Variable], Variable | None] | None = None,
    tolerance: float | None = None,
) -> list[Variable]:
    """The outputs as graphs of what is known.

    Parameters
    ----------
    outputs : list of Variable
    known : mapping of Variable to Variable
        What to put in the place of some variables; nothing above them is read.
    randomness : Randomness, optional
        Gives every operation that draws its own generator. Without it they keep theirs.
    replace : callable, optional
        ``replace(old, new)`` gives what to put in the place of a variable, of which ``new`` is the
        copy; or None.
    tolerance : float, optional
        Differential equations are solved to this tolerance instead of the model's.
    """
    memo = dict(known)
    for node in io_toposort(list(memo), outputs):
        inputs = [memo.get(v, v) for v in node.inputs]
        new = _node_outputs(node, inputs, randomness, tolerance)
        for old, out in zip(node.outputs, new, strict=True):
            if old not in memo:  # it may be known while another output of its operation is not
                put = replace(old, out) if replace is not None else None
                memo[old] = out if put is None else put
    return [memo.get(v, v) for v in outputs]


def _node_outputs(
    node: Apply, inputs: list[Variable], randomness: Randomness | None, tolerance: float | None
) -> list[Variable]:
    draws = any(isinstance(v.type, RandomType) for v in node.inputs)
    if randomness is not None and isinstance(node.op, OpFromGraph):
        # Composed distributions: as one operation each would be called for every simulation, and
        # hide its generators.
        symbols, graphs = inner_graph(node.op)
        return rebuild(
            graphs,
            dict(zip(symbols, inputs, strict=True)),
            randomness=randomness,
            tolerance=tolerance,
        )
    if getattr(node.op, "is_ode_solution", False) and tolerance is not None:
        return node.op.with_tolerances(tolerance, tolerance).make_node(*inputs).outputs
    if (
        isinstance(node.op, Shape | Shape_i)
        and (known := _known_length(node, inputs[0])) is not None
    ):
        return [known]  # a shape that is computed would become a batch of shapes
    if draws and randomness is not None:
        inputs = randomness.inputs(node, inputs)
    if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
        return node.outputs
    if isinstance(node.op, RandomVariable):  # shapes of parameters may have become less certain
        return node.op.make_node(*inputs).outputs
    return node.clone_with_new_inputs(inputs, strict=False).outputs


def _known_length(node: Apply, x: Variable) -> Variable | None:
    """The constant that a shape, or an entry of one, is known to be; else None."""
    if isinstance(node.op, Shape) and None not in x.type.shape:
        return pt.constant(np.array(x.type.shape, dtype="int64"))
    if isinstance(node.op, Shape_i) and x.type.shape[node.op.i] is not None:
        return pt.constant(np.int64(x.type.shape[node.op.i]))
    return None


def typical(new: Variable) -> Variable:
    """Graph of the typical value of a random effect: the median of a LogNormal, else PyMC's central point."""
    node = new.owner
    if isinstance(node.op, LogNormalRV):
        normal = NormalRV().make_node(*node.inputs).outputs[1]
        return pt.exp(support_point(normal))
    return support_point(new)


def arguments(rv: Variable, free: Sequence[Variable]) -> list[Variable]:
    """Variables from which a random variable is drawn, and that depend on the free variables of a model."""
    reached, random = set(free), set[Variable]()
    found: dict[Variable, None] = {}  # in the order of the graph
    for node in io_toposort(free, [rv]):
        if reached.intersection(node.inputs):
            reached.update(node.outputs)
        if random.intersection(node.inputs) or any(
            isinstance(v.type, RandomType) for v in node.inputs
        ):
            random.update(node.outputs)
            found |= {
                v: None
                for v in node.inputs
                if v in reached and v not in random and isinstance(v.type, TensorType)
            }
    return list(found)


def for_numpy(old: Variable, new: Variable) -> Variable | None:
    """Replacements for operations that the interpreter would compute entry by entry in Python, by ones that NumPy computes whole.

    For ``replace`` of :func:`rebuild`. A softplus took a microsecond per entry, and so did the
    shape that PyMC gives a mean.
    """
    if new.owner is None or not isinstance(new.owner.op, Elemwise):
        return None
    op, inputs = new.owner.op.scalar_op, new.owner.inputs
    if isinstance(op, Softplus):
        (x,) = inputs
        return pt.maximum(x, 0.0) + pt.log1p(pt.exp(-pt.abs(x)))
    if isinstance(op, Second):
        shape, value = inputs
        return pt.switch(pt.constant(True), value, shape).astype(new.type.dtype)
    return None


def is_vectorizable(graphs: Sequence[Variable]) -> bool:
    """Whether a graph has no loop, which could be called for a batch entry by entry only."""
    return not any(isinstance(node.op, Scan) for node in io_toposort([], graphs))
