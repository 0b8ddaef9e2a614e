"""Copies of graphs in which what is computed twice is one variable."""

from __future__ import annotations

from pytensor.graph.basic import clone_get_equiv
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import MergeOptimizer
from pytensor.graph.traversal import graph_inputs


def merged(graphs: list) -> list:
    """The graphs rebuilt, with the same inputs, and equal computations in them only once."""
    inputs = list(dict.fromkeys(v for v in graph_inputs(graphs) if not hasattr(v, "data")))
    copies = clone_get_equiv(inputs, graphs, copy_inputs=False, copy_orphans=False)
    graph = FunctionGraph(inputs, [copies[v] for v in graphs], clone=False)
    MergeOptimizer().rewrite(graph)
    return list(graph.outputs)
