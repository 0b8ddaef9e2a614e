"""Copies of graphs in which what is computed twice is one variable."""

from __future__ import annotations

from collections.abc import Sequence

from pytensor.graph.basic import Variable, clone
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import MergeOptimizer
from pytensor.graph.traversal import graph_inputs


def merged(graphs: Sequence[Variable]) -> list[Variable]:
    """The graphs rebuilt, with the same inputs, and equal computations in them only once."""
    inputs = list(dict.fromkeys(v for v in graph_inputs(graphs) if not hasattr(v, "data")))
    _, copies = clone(inputs, graphs, copy_inputs=False, copy_orphans=False)
    graph = FunctionGraph(inputs, copies, clone=False)
    MergeOptimizer().rewrite(graph)
    return list(graph.outputs)
