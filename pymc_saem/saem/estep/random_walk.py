"""Random walks: the kernels that need no derivatives and no Gaussian effects, PyMC's Metropolis with an accept step per subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

import numpy as np
import pymc as pm
from pymc.step_methods.arraystep import ArrayStepShared
from pymc.step_methods.compound import StepMethodState
from pymc.step_methods.metropolis import Metropolis, NormalProposal
from pymc.step_methods.state import dataclass_state

from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.estep.ensemble import Moves
from pymc_saem.saem.estep.kernel import ADAPT, DrawnAhead

#: Acceptance of a random walk that is near the best efficiency between 1 dimension (0.44) and many
#: (0.23).
TARGET_ACCEPTANCE = 0.4


class ReplicateProposal(NormalProposal):
    """PyMC's normal proposal for an array of any shape, with one call of the generator."""

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...] = ()) -> np.ndarray:
        return rng.standard_normal(shape) * self.s


@dataclass_state
class SubjectMetropolisState(StepMethodState):
    scaling: np.ndarray
    tune: bool
    proposed: np.ndarray
    accepted_sum: np.ndarray
    shape: np.ndarray
    queue: np.ndarray
    n_learned: float


class SubjectMetropolis(DrawnAhead, Metropolis):
    """PyMC's random-walk Metropolis with an accept step per subject.

    Stock ``pm.Metropolis`` evaluates the whole model once per scalar; here one evaluation serves a
    proposal in every subject and replicate. The proposal distribution, the scaling, the tuning
    flag, the generator and the stored state are PyMC's. Proposals do not depend on the states, so
    those of a whole E-step are drawn ahead, and :meth:`Ensemble.walk` accepts or rejects them. A
    subclass proposes, and records which of its scales it used.

    Parameters
    ----------
    vars : list of pytensor variables
        Value variables of the random effects.
    sd : ndarray, shape (phi,)
        Initial standard deviations of the proposals, on the scale of phi.
    """

    advice = ADAPT
    learned = ("scaling", "shape", "queue", "n_learned")
    default_blocked = True
    _state_class = SubjectMetropolisState

    def __init__(
        self,
        vars: Sequence[Any],
        *,
        sd: np.ndarray,
        model: pm.Model | None = None,
        rng: np.random.Generator | None = None,
        blocked: bool = True,
    ):
        # Metropolis.__init__ would compile the scalar log density of the whole model for nothing
        ArrayStepShared.__init__(self, vars, {}, blocked=blocked, rng=rng)
        self.proposal_dist = ReplicateProposal(1.0)
        self.shape = np.diag(np.asarray(sd, dtype=float))  # proposals are z @ shape.T * scaling
        d = self.shape.shape[0]
        self.scaling = self.first_scaling(d)
        self.tune = True
        self.queue = np.zeros(0, dtype=int)
        self.n_learned = 0.0
        self.proposed = np.zeros(d)
        self.accepted_sum = np.zeros(d)
        self._untuned_settings = {"scaling": self.scaling, "shape": self.shape, "n_learned": 0.0}

    @classmethod
    def build(cls, mixed: MixedModel, sd: np.ndarray, rng: np.random.Generator) -> Self:
        values = [mixed.model.rvs_to_values[mixed.model[e.name]] for e in mixed.random_effects]
        return cls(values, sd=sd, model=mixed.model, rng=rng)

    @staticmethod
    def first_scaling(d: int) -> np.ndarray:
        """Factors of the proposals before anything was learned, (phi,)."""
        return np.ones(d)

    def reset_tuning(self) -> None:
        super().reset_tuning()
        self.proposed = np.zeros_like(self.proposed)
        self.accepted_sum = np.zeros_like(self.accepted_sum)

    def step(self, point: dict) -> NoReturn:
        raise TypeError(
            "SubjectMetropolis moves the replicates of the SAEM E-step; pass pymc_saem.SAEM() to pm.sample."
        )

    def record(self, which: np.ndarray, rates: np.ndarray) -> None:
        """Count how many subjects and replicates accepted each proposal."""
        np.add.at(self.proposed, which, 1.0)
        np.add.at(self.accepted_sum, which, rates)

    def learn(self, within: np.ndarray | None) -> None:
        """Adapt the scales (Robbins-Monro on the log scale), unless tuning has stopped."""
        if self.tune:
            self.n_learned += 1.0
            gain = 2.0 / np.sqrt(self.n_learned + 3.0)
            seen = self.proposed > 0
            rate = np.divide(
                self.accepted_sum,
                self.proposed,
                out=np.full_like(self.scaling, TARGET_ACCEPTANCE),
                where=seen,
            )
            self.scaling = self.scaling * np.exp(gain * (rate - TARGET_ACCEPTANCE))
        self.proposed = np.zeros_like(self.proposed)
        self.accepted_sum = np.zeros_like(self.accepted_sum)

    def state(self) -> dict[str, Any]:
        return {name: np.array(getattr(self, name)) for name in self.learned}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name in self.learned:
            value = state[name]
            setattr(self, name, np.array(value) if value.ndim else float(value))


class Coordinate(SubjectMetropolis):
    """One column of phi at a time, in random order."""

    name = "coordinate"
    share = 0.35

    def propose(self, moves: Moves, at: np.ndarray, population: Population) -> np.ndarray:
        n, shape = len(at), moves.step.shape[1:]
        while self.queue.size < n:
            self.queue = np.concatenate([self.queue, self.rng.permutation(shape[-1])])
        which, self.queue = self.queue[:n], self.queue[n:]
        sizes = (self.scaling * np.diag(self.shape))[which]
        moves.step[at] = 0.0
        along = self.proposal_dist(self.rng, (n, *shape[:-1])) * sizes[:, None, None]
        moves.step[at, :, :, which] = along
        return which


class Block(SubjectMetropolis):
    """A random subset of columns, along the correlations found so far."""

    name = "block"
    share = 0.5

    @staticmethod
    def first_scaling(d: int) -> np.ndarray:
        return 1.0 / np.sqrt(np.arange(1.0, d + 1.0))

    @property
    def within_root(self) -> np.ndarray:
        return self.shape

    def propose(self, moves: Moves, at: np.ndarray, population: Population) -> np.ndarray:
        n, shape = len(at), moves.step.shape[1:]
        d = shape[-1]
        which = self.rng.integers(min(2, d), d + 1, n) - 1
        order = self.rng.random((n, d)).argsort(axis=1)
        for k in range(n):
            columns = order[k, : which[k] + 1]
            z = self.proposal_dist(self.rng, (shape[0] * shape[1], columns.size))
            moves.step[at[k]] = (z @ (self.shape[:, columns].T * self.scaling[which[k]])).reshape(
                shape
            )
        return which

    def learn(self, within: np.ndarray | None) -> None:
        super().learn(within)
        if within is not None:
            self.shape = np.linalg.cholesky(within)
