"""Networks in a graph: where they are, which rate each belongs to, and what runs along their input.

A network is recognized by ``tag.network_call`` of its output, which has the attributes ``net``,
``weights`` and ``x``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.replace import clone_replace, vectorize_graph
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import ancestors, graph_inputs, io_toposort
from pytensor.scalar.basic import Neg
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.subtensor import Subtensor

from pymc_saem.evaluate.row_function import INTERPRETED
from pymc_saem.model.graph.rebuild import for_numpy, rebuild

#: How operations of one or two arguments are written.
_INFIX = {"add": " + ", "sub": " - ", "mul": " * ", "true_div": " / ", "pow": " ** "}


@dataclass(frozen=True)
class Call:
    """A network in a graph, with one output of it.

    Attributes
    ----------
    net : object
        Called with weights (..., n_weights) and inputs, it gives outputs.
    weights, x : Variable
    output : int
        Which one, where the network has several.
    rate : callable
        From the network's output to the expression that the model makes of it alone, such as its
        softplus.
    rate_text : str
        That expression, with "net" for the network.
    """

    net: Any
    weights: Any = field(repr=False)
    x: Any = field(repr=False)
    output: int
    rate: Callable = field(repr=False)
    rate_text: str


def find_calls(outputs: list) -> list[Call]:
    """All networks under some graphs, in the order of evaluation; one entry for each output of each."""
    nodes = io_toposort([], outputs)
    clients: dict = {}
    for node in nodes:
        for v in set(node.inputs):
            clients.setdefault(v, []).append(node)
    found = []
    for node in nodes:
        for v in node.outputs:
            call = getattr(v.tag, "network_call", None)
            if call is not None:
                found += [
                    _call(call, v, k, clients, set(outputs)) for k in range(call.net.out_size)
                ]
    return found


def _call(
    call: Any,
    h: Variable,
    output: int,
    clients: Mapping[Variable, list[Apply]],
    outputs: set[Variable],
) -> Call:
    start = _entry(h, output, clients) if call.net.out_size > 1 else h
    if start is None or (rate := _follow(start, clients, outputs)) is start:
        return Call(call.net, call.weights, call.x, output, lambda values: values, "net")
    return Call(
        call.net, call.weights, call.x, output, elementwise(rate, start), text(rate, {start: "net"})
    )


def _entry(h: Variable, output: int, clients: Mapping[Variable, list[Apply]]) -> Variable | None:
    """The variable that is one output of a network with several; None when the model does not take it out on its own."""
    trial = np.arange(float(h.type.shape[-1])).reshape((1,) * (h.type.ndim - 1) + (-1,))
    for node in clients.get(h, []):
        (v, *index), out = node.inputs, node.outputs[0]
        if (
            isinstance(node.op, Subtensor)
            and out.type.ndim == h.type.ndim - 1
            and all(map(is_constant, index))
        ):
            symbol = pt.tensor(dtype=v.type.dtype, shape=(None,) * v.type.ndim)
            graph = clone_replace(out, [(v, symbol)], rebuild_strict=False)
            found = pytensor.function([symbol], graph, mode=INTERPRETED)(trial)
            if found.size == 1 and found.item() == output:
                return out
    return None


def _follow(
    h: Variable, clients: Mapping[Variable, list[Apply]], outputs: set[Variable]
) -> Variable:
    """What the model makes of ``h`` entry by entry and with constants only, before it is used twice or meets something else.

    A minus at its end is left out: it says which side of the equation the rate is on.
    """
    start = h
    while h not in outputs:
        nodes = clients.get(h, [])
        if (
            len(nodes) != 1
            or not isinstance(nodes[0].op, Elemwise | DimShuffle)
            or len(nodes[0].outputs) != 1
        ):
            break
        if not all(v is h or is_constant(v) for v in nodes[0].inputs):
            break
        h = nodes[0].outputs[0]
    while (
        h is not start
        and isinstance(h.owner.op, Elemwise)
        and isinstance(h.owner.op.scalar_op, Neg)
    ):
        h = h.owner.inputs[0]
    return h


def is_constant(variable: Variable) -> bool:
    return all(isinstance(v, Constant) for v in graph_inputs([variable]))


def elementwise(graph: Variable, symbol: Variable) -> Callable:
    """``f(values)`` of a graph that depends on one variable entry by entry, for values of any shape."""
    batch = pt.dvector()
    (graph,) = rebuild([graph], {symbol: symbol}, replace=for_numpy)
    if symbol.type.ndim == 0:
        (new,) = vectorize_graph([graph], {symbol: batch.astype(symbol.type.dtype)})
    else:
        wide = batch.dimshuffle(*("x",) * (symbol.type.ndim - 1), 0)
        (new,) = clone_replace(
            [graph], {symbol: wide.astype(symbol.type.dtype)}, rebuild_strict=False
        )
    f = pytensor.function([batch], new, mode=INTERPRETED)
    return lambda values: np.broadcast_to(f(np.ravel(values)), (1, np.size(values))).reshape(
        np.shape(values)
    )


def over_batch(graphs: list, symbols: list) -> Callable:
    """``f(*values)`` of graphs of some variables, with a batch (n, ...) of each; lists arrays (n, ...)."""
    batched = {s: pt.tensor(dtype=s.dtype, shape=(None, *s.type.shape)) for s in symbols}
    new = rebuild(vectorize_graph(graphs, batched), {}, replace=for_numpy)
    f = pytensor.function([*batched.values()], new, mode=INTERPRETED, on_unused_input="ignore")

    def evaluate(*values: np.ndarray) -> list[np.ndarray]:
        n = len(values[0])
        found = zip(f(*values), graphs, strict=True)
        return [np.broadcast_to(v, (n, *v.shape[np.ndim(v) - g.type.ndim :])) for v, g in found]

    return evaluate


def components(call: Call) -> list:
    """The inputs of a network one by one, each without the feature axis."""
    if call.net.in_size == 1:
        return [call.x]
    # Simplified, an entry of a stack depends on what was put there alone. A copy, as rewriting
    # changes its graph in place.
    copies = clone_replace([call.x[..., k] for k in range(call.net.in_size)], {})
    rewritten = rewrite_graph(copies, include=("canonicalize",))
    return list(rewritten)  # type: ignore[arg-type]  # a list, as it was given one


def reached(graph: Variable, among: list) -> list:
    """Which variables a graph depends on."""
    below = set(ancestors([graph]))
    return [v for v in among if v in below]


def text(graph: Variable, names: Mapping[Variable, str] | None = None) -> str:
    """A short expression such as ``t / 24`` or ``softplus(depot)``; "..." for what is not short."""
    written = _text(graph, names or {})
    if written.startswith("(") and _closes_at_end(written):
        written = written[1:-1]
    return written if len(written) <= 40 else "..."


def _closes_at_end(written: str) -> bool:
    depth = 0
    for k, c in enumerate(written):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return k == len(written) - 1
    return False


def _text(v: Variable, names: Mapping[Variable, str]) -> str:
    if v in names:
        return names[v]
    if isinstance(v, Constant):
        return (
            f"{np.ravel(v.data)[0]:g}"
            if np.size(v.data) == 1 and v.type.dtype[0] in "fiu"
            else "..."
        )
    if v.name:
        return v.name
    if v.owner is None:
        return "..."
    op, inputs = v.owner.op, [_text(i, names) for i in v.owner.inputs]
    if isinstance(op, DimShuffle):
        return inputs[0]
    if not isinstance(op, Elemwise):
        return "..."
    name = str(op.scalar_op.name or type(op.scalar_op).__name__).lower()
    if name in _INFIX and len(inputs) > 1:
        return f"({_INFIX[name].join(inputs)})"
    if name == "neg":
        return f"-{inputs[0]}"
    return inputs[0] if name.startswith(("cast", "identity")) else f"{name}({', '.join(inputs)})"
