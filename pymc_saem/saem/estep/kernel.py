"""What a kernel of the E-step is: a Markov move that leaves p(phi_i | y_i, theta) invariant for all subjects at once.

A kernel declares all that others know of it: its name and share, what it records, what to do when
its proposals are rarely accepted, and what it has learned. It adapts while exploring and is frozen
after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from typing import Any, ClassVar, Self

import numpy as np

from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.estep.ensemble import Ensemble, Moves, Target

#: Advice where scales adapt.
ADAPT = "Increase n_explore (so that the scales adapt) or n_transitions."


def acceptance_of(name: str) -> str:
    """Name of the statistic that every kernel records: the share accepted of its proposals."""
    return f"accept_{name}"


class Kernel(ABC):
    """A kernel is a :class:`DrawnAhead` or a :class:`RunApart`, and stands in the registry.

    Attributes
    ----------
    name : str
        In ``fit_saem(kernel={name: share})``, and in stored fits.
    share : float
        Of the transitions by default; 0: it takes part only where the user names it.
    advice : str
        What to do when its proposals are rarely accepted; empty where that is no reason to worry.
    learned : tuple of str
        Attributes that a stored run needs to resume.
    """

    name: ClassVar[str]
    share: ClassVar[float] = 0.0
    advice: ClassVar[str] = ""
    learned: ClassVar[tuple[str, ...]] = ()
    tune: bool = True
    rng: np.random.Generator

    @classmethod
    @abstractmethod
    def build(cls, mixed: MixedModel, sd: np.ndarray, rng: np.random.Generator) -> Self:
        """The kernel for a model; ``sd`` (phi,) is a first guess of standard deviations within subjects."""

    @classmethod
    def lacks(cls, mixed: MixedModel) -> str:
        """Why the kernel cannot take part in fits of this model; empty where it can."""
        return ""

    @classmethod
    def statistics(cls) -> dict[str, type]:
        """Types of what :meth:`report` returns, by name: statistics of each iteration, stored in the fit."""
        return {acceptance_of(cls.name): np.float64}

    def report(self, rates: np.ndarray) -> dict[str, float]:
        """Statistics of an iteration, from the share accepted of each of its transitions, which may be none."""
        return {acceptance_of(self.name): float(rates.mean()) if rates.size else np.nan}

    @property
    def within_root(self) -> np.ndarray | None:
        """Cholesky factor of the covariance of phi within subjects, of the one kernel that learns it; kernels that run apart use it."""
        return None

    def stop_tuning(self) -> None:
        """Freeze what was learned."""
        self.tune = False

    @abstractmethod
    def learn(self, within: np.ndarray | None) -> None:
        """Adapt at the end of an iteration, unless tuning has stopped.

        Parameters
        ----------
        within : ndarray, shape (phi, phi), or None
            Covariance of phi within subjects; None after tuning.
        """

    def state(self) -> dict[str, Any]:
        """Copies of what was learned, for storage."""
        return {name: copy(getattr(self, name)) for name in self.learned}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        for name in self.learned:
            setattr(self, name, copy(state[name]))


class DrawnAhead(Kernel):
    """Proposals that do not depend on the states: those of a whole E-step are drawn first, and those of all such kernels mixed."""

    @abstractmethod
    def propose(self, moves: Moves, at: np.ndarray, population: Population) -> np.ndarray:
        """Fill in the moves at these places.

        Parameters
        ----------
        moves : Moves
        at : ndarray of int, shape (proposal,)
        population : Population

        Returns
        -------
        ndarray of int, shape (proposal,)
            What :meth:`record` needs of each proposal, such as the scale that made it.
        """

    def record(self, which: np.ndarray, rates: np.ndarray) -> None:
        """Count how many subjects and replicates accepted each proposal; nothing where there is no scale to learn."""


class RunApart(Kernel):
    """Proposals that depend on the states, as with gradients: all transitions of a call are made in a row.

    Attributes
    ----------
    turn : int
        Place among the kernels that run apart, which follow the others in ascending order.
    """

    turn: ClassVar[int]

    @abstractmethod
    def walk(
        self, ensemble: Ensemble, target: Target, within_root: np.ndarray, n: int
    ) -> np.ndarray:
        """Make ``n`` transitions in place; the share accepted of each.

        Parameters
        ----------
        ensemble : Ensemble
        target : Target
        within_root : ndarray, shape (phi, phi)
            Lower Cholesky factor of the covariance of phi within subjects.
        n : int
        """
