"""Proposals from the distribution of the random effects."""

from __future__ import annotations

from typing import Self

import numpy as np

from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.estep.ensemble import Moves
from pymc_saem.saem.estep.kernel import DrawnAhead


class PriorProposal(DrawnAhead):
    """Independent proposals of one or all Gaussian random effects from p(phi | theta); the prior cancels."""

    name = "prior"
    share = (
        0.15  # without advice: rarely accepted proposals only mean that the data are informative
    )

    def __init__(self, blocks: list[slice], rng: np.random.Generator):
        together = np.concatenate(
            [np.arange(block.start, block.stop) for block in blocks] or [np.zeros(0, int)]
        )
        self.blocks = [together, *blocks] if len(blocks) > 1 else [together]
        self.rng = rng

    @classmethod
    def build(cls, mixed: MixedModel, sd: np.ndarray, rng: np.random.Generator) -> Self:
        return cls([e.columns for e in mixed.random_effects if e.is_gaussian], rng)

    @classmethod
    def lacks(cls, mixed: MixedModel) -> str:
        return (
            ""
            if any(e.is_gaussian for e in mixed.random_effects)
            else "no random effect is Gaussian"
        )

    def propose(self, moves: Moves, at: np.ndarray, population: Population) -> np.ndarray:
        n, shape = len(at), moves.step.shape[1:]
        which = self.rng.integers(len(self.blocks), size=n)
        fresh = population.draw(self.rng, n * shape[0]).reshape(n, *shape)
        for k in range(n):
            moves.keep[at[k], self.blocks[which[k]]] = 0.0
        moves.step[at] = fresh * (1.0 - moves.keep[at])[:, None, None, :]
        moves.prior_cancels[at] = True
        return which

    def learn(self, within: np.ndarray | None) -> None:
        """Nothing to learn: the proposals have no scale."""
