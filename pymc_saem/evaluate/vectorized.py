"""Graphs as functions of many values at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.replace import vectorize_graph
from pytensor.tensor.variable import TensorVariable

from pymc_saem.evaluate.row_function import INTERPRETED
from pymc_saem.model.graph.rebuild import Randomness, is_vectorizable


class Vectorized:
    """A graph as a function of batches, compiled at the first call; entry by entry where it has loops.

    Parameters
    ----------
    build : callable
        ``build(randomness)`` gives the graphs.
    batched, others : list of Variable
        Symbols in the graphs, with and without a batch.
    is_drawn : bool
        Whether the graphs draw.
    """

    def __init__(self, build: Callable, batched: list, others: list, is_drawn: bool) -> None:
        self.build, self.batched, self.others, self.is_drawn = build, batched, others, is_drawn
        self.f: Callable | None = None

    def compile(self, arrays: Sequence[np.ndarray], others: Sequence[np.ndarray] = ()) -> Callable:
        """The function for batches like these, of which only the shape counts."""
        if self.f is None:
            self.f = self._compiled(arrays, others)
        return self.f

    def _compiled(self, arrays: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> Callable:
        randomness = Randomness() if self.is_drawn else None
        graphs = self.build(randomness)
        if randomness is not None and randomness.unknown:
            inputs = self._inputs(randomness)
            sizes = pytensor.function(
                inputs, [*randomness.unknown.values()], mode=INTERPRETED, on_unused_input="ignore"
            )
            rngs = [np.random.default_rng(0) for _ in randomness.generators]
            found = sizes(*(a[0] for a in arrays), 0.0, *others, *rngs)
            randomness = Randomness(dict(zip(randomness.unknown, found, strict=True)))
            graphs = self.build(randomness)
        self.n_generators = 0 if randomness is None else len(randomness.generators)
        self.whole = is_vectorizable(graphs)
        inputs = self._inputs(randomness)
        if self.whole:
            n_batched = len(self.batched) + self.is_drawn
            batches = {
                s: pt.tensor(dtype=s.dtype, shape=(None, *s.type.shape)) for s in inputs[:n_batched]
            }
            new = vectorize_graph(graphs, batches)
            lead = next(iter(batches.values()))
            graphs = [with_batch(g, old, lead) for g, old in zip(new, graphs, strict=True)]
            inputs = [*batches.values(), *inputs[n_batched:]]
        return pytensor.function(inputs, graphs, mode=INTERPRETED, on_unused_input="ignore")

    def _inputs(self, randomness: Randomness | None) -> list:
        if randomness is None:
            return [*self.batched, *self.others]
        return [*self.batched, randomness.zero, *self.others, *randomness.generators]

    def __call__(
        self,
        n: int,
        rng: np.random.Generator | None,
        arrays: Sequence[np.ndarray],
        others: Sequence[np.ndarray] = (),
    ) -> list[np.ndarray]:
        f = self.compile(arrays, others)
        if self.is_drawn:
            arrays = [*arrays, np.zeros(n)]
        if self.whole:
            return f(*arrays, *others, *self._generators(rng))
        rows = [f(*(a[k] for a in arrays), *others, *self._generators(rng)) for k in range(n)]
        return [np.stack(values) for values in zip(*rows, strict=True)]

    def _generators(self, rng: np.random.Generator | None) -> list:
        """New generators, not ``rng`` itself: operations draw from a copy, so that two of them would draw the same."""
        if not self.n_generators:
            return []
        if rng is None:
            raise ValueError("A graph that draws needs a random generator.")
        return [
            np.random.default_rng(rng.integers(2**63, size=4)) for _ in range(self.n_generators)
        ]


def with_batch(graph: Variable, old: Variable, lead: TensorVariable) -> TensorVariable:
    """Give the batch axis of ``lead`` to the copy of a graph that does not depend on the batch."""
    graph = pt.as_tensor_variable(graph)
    if graph.type.ndim > old.type.ndim:
        return graph
    return pt.broadcast_to(
        graph, (lead.shape[0], *(graph.shape[i] for i in range(graph.type.ndim)))
    )
