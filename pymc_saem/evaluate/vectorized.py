"""Graphs as functions of many values at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import vectorize_graph

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

    def __init__(self, build: Callable, batched: list, others: list, is_drawn: bool):
        self.build, self.batched, self.others, self.is_drawn = build, batched, others, is_drawn
        self.f = None

    def compile(self, arrays, others=()) -> None:
        """For batches like these, of which only the shape counts."""
        if self.f is not None:
            return
        randomness = Randomness() if self.is_drawn else None
        graphs = self.build(randomness)
        if self.is_drawn and randomness.unknown:
            inputs = self._inputs(randomness)
            sizes = pytensor.function(
                inputs, [*randomness.unknown.values()], mode=INTERPRETED, on_unused_input="ignore"
            )
            rngs = [np.random.default_rng(0) for _ in randomness.generators]
            found = sizes(*(a[0] for a in arrays), 0.0, *others, *rngs)
            randomness = Randomness(dict(zip(randomness.unknown, found, strict=True)))
            graphs = self.build(randomness)
        self.n_generators = len(randomness.generators) if self.is_drawn else 0
        self.whole = is_vectorizable(graphs)
        inputs = self._inputs(randomness)
        if self.whole:
            n_batched = len(self.batched) + self.is_drawn
            batches = {s: pt.tensor(dtype=s.dtype, shape=(None, *s.type.shape)) for s in inputs[:n_batched]}
            new = vectorize_graph(graphs, batches)
            lead = next(iter(batches.values()))
            graphs = [with_batch(g, old, lead) for g, old in zip(new, graphs, strict=True)]
            inputs = [*batches.values(), *inputs[n_batched:]]
        self.f = pytensor.function(inputs, graphs, mode=INTERPRETED, on_unused_input="ignore")

    def _inputs(self, randomness) -> list:
        if randomness is None:
            return [*self.batched, *self.others]
        return [*self.batched, randomness.zero, *self.others, *randomness.generators]

    def __call__(self, n: int, rng, arrays, others=()) -> list[np.ndarray]:
        self.compile(arrays, others)
        if self.is_drawn:
            arrays = [*arrays, np.zeros(n)]
        if self.whole:
            return self.f(*arrays, *others, *self._generators(rng))
        rows = [self.f(*(a[k] for a in arrays), *others, *self._generators(rng)) for k in range(n)]
        return [np.stack(values) for values in zip(*rows, strict=True)]

    def _generators(self, rng) -> list:
        """New generators, not ``rng`` itself: operations draw from a copy, so that two of them would draw the same."""
        return [np.random.default_rng(rng.integers(2**63, size=4)) for _ in range(self.n_generators)]


def with_batch(graph, old, lead):
    """Give the batch axis of ``lead`` to the copy of a graph that does not depend on the batch."""
    if graph.type.ndim > old.type.ndim:
        return graph
    return pt.broadcast_to(graph, (lead.shape[0], *(graph.shape[i] for i in range(graph.type.ndim))))
