"""Which entries of a random effect each entry of a graph is computed from, read from the graph and not found by experiment.

A change of a random effect may not change a row, near one point or everywhere but at a few: before
a change point, at time zero, times a coefficient that is 0. The graph still shows what a row is
computed from. Each operation is run on labels in place of values: what moves entries moves their
labels, what computes entry by entry joins them. What does not depend on the random effect is
evaluated, at several points, so that an index is an index, and what is zero at all of them takes no
part in a product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import numpy as np
import pytensor
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.traversal import io_toposort

from pymc_saem.compat import inner_graph
from pymc_saem.model.dependence.label_rules import Found, follow, is_product_or_switch, perform
from pymc_saem.model.dependence.labels import Reach, Values
from pymc_saem.model.graph.interpreted import INTERPRETED


class Tracer:
    """Follows the labels of some variables through graphs.

    Parameters
    ----------
    seeds : dict
        Labels of variables: variable -> Reach.
    points : list of dict
        Values of all other inputs, variable -> array, at several generic points.
    ask : callable
        ``ask(outputs)`` gives the Reach of each output of a node without a rule, by experiment.
    through_zeros : bool, default False
        Follow factors of zeros too, and both branches of each switch: what a row would be computed
        from with other data.
    """

    def __init__(
        self,
        seeds: Mapping[Variable, Found],
        points: Sequence[Mapping[Variable, np.ndarray]],
        ask: Callable[[Sequence[Variable]], Sequence[Found]],
        through_zeros: bool = False,
    ) -> None:
        self.known, self.points, self.ask, self.through_zeros = (
            dict(seeds),
            points,
            ask,
            through_zeros,
        )

    def __call__(self, graphs: Sequence[Variable]) -> list[Reach]:
        for node in io_toposort(list(self.known), graphs):
            if all(out in self.known for out in node.outputs):
                continue
            inputs = [self._find(v) for v in node.inputs]
            values = [i for i in inputs if isinstance(i, Values)]
            if len(values) < len(inputs):
                outputs = self._follow(node, inputs) or self.ask(node.outputs)
            else:
                outputs = _evaluate(node, values)
            self.known.update(zip(node.outputs, outputs, strict=True))
        found = [self._find(graph) for graph in graphs]
        return [f if isinstance(f, Reach) else Reach.nobody(f.shape) for f in found]

    def _follow(self, node: Apply, inputs: Sequence[Found]) -> Sequence[Found] | None:
        """Labels of the outputs of a node; None where they are not known."""
        if not isinstance(node.op, OpFromGraph) or getattr(node.op, "is_ode_solution", False):
            if self.through_zeros and is_product_or_switch(node):
                inputs = [i if isinstance(i, Reach) else Reach.nobody(i.shape) for i in inputs]
            return follow(node, inputs)
        variables, outputs = inner_graph(node.op)
        try:
            return Tracer(
                dict(zip(variables, inputs, strict=True)), [], not_known, self.through_zeros
            )(outputs)
        except NotKnown:
            return None

    def _find(self, variable: Variable) -> Found:
        if variable not in self.known:
            if isinstance(variable, Constant):
                found = Values([variable.data])
            elif isinstance(variable, SharedVariable):
                found = Values([variable.get_value(borrow=True)])
            else:
                found = Values([point[variable] for point in self.points])
            self.known[variable] = found
        return self.known[variable]


def _evaluate(node: Apply, inputs: Sequence[Values]) -> list[Values]:
    n = max((len(i) for i in inputs), default=1)
    at = [[i[k if len(i) > 1 else 0] for i in inputs] for k in range(n)]
    try:
        found = [perform(node, values) for values in at]
    except (
        NotImplementedError,
        AttributeError,
        TypeError,
    ):  # such as a Scan, which must be compiled to run
        fresh = [i.type() for i in node.inputs]
        f = pytensor.function(
            fresh, node.op.make_node(*fresh).outputs, mode=INTERPRETED, on_unused_input="ignore"
        )
        found = [f(*values) for values in at]
    return [Values(out) for out in zip(*found, strict=True)]


class NotKnown(Exception):
    """An operation has no rule."""


def not_known(outputs: Sequence[Variable]) -> NoReturn:
    """For tracers that make no experiments."""
    raise NotKnown
