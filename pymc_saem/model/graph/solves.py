"""The nodes of a graph that solve differential equations, and the same graph with other solves."""

from __future__ import annotations

from collections.abc import Sequence

import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable


def ode_nodes(graphs: Sequence[Variable]) -> list[Apply]:
    """Nodes that solve differential equations, found by their protocol: this layer does not import ``ode``."""
    # in the order of the graph
    nodes = dict.fromkeys(v.owner for v in ancestors(graphs) if v.owner is not None)
    return [node for node in nodes if getattr(node.op, "is_ode_solution", False)]


def solved_to(graphs: Sequence[TensorVariable], largest: float) -> list[TensorVariable]:
    """The graphs with differential equations solved to this tolerance at least."""
    tight: dict[Variable, Variable] = {}
    for node in ode_nodes(graphs):
        rtol, atol = (min(tolerance, largest) for tolerance in (node.op.rtol, node.op.atol))
        if (rtol, atol) == (node.op.rtol, node.op.atol):
            continue
        tight |= zip(node.outputs, node.op.with_tolerances(rtol, atol)(*node.inputs), strict=True)
    return _with(graphs, tight)


def solved_once(graphs: Sequence[TensorVariable]) -> list[TensorVariable]:
    """The graphs with operations whose gradient needs no second solve, where there are such."""
    nodes = [node for node in ode_nodes(graphs) if hasattr(node.op, "with_derivatives")]
    once = {node: node.op.with_derivatives()(*node.inputs) for node in nodes}
    return _with(
        graphs,
        {old: new for node in nodes for old, new in zip(node.outputs, once[node], strict=False)},
    )


def _with(
    graphs: Sequence[TensorVariable], solves: dict[Variable, Variable]
) -> list[TensorVariable]:
    if not solves:
        return list(graphs)
    return [pt.as_tensor_variable(graph) for graph in clone_replace(graphs, solves)]
