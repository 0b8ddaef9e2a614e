"""What a step method remembers between two iterations, for PyMC and for resumed runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import numpy as np
from pymc.step_methods.compound import StepMethodState
from pymc.step_methods.state import dataclass_state
from pymc.util import get_state_from_generator, random_generator_from_state

from pymc_saem.saem.core.algorithm import State
from pymc_saem.saem.core.schedule import Schedule
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.estep.mixture import Simulator


@dataclass_state
class SAEMState(StepMethodState):
    """What PyMC stores and restores between chains, and after an interruption."""

    tune: bool
    iter_count: int
    n_smoothed: int
    n_explore: int
    state: Any
    adapted: Any
    failures: Any
    at_floor: Any
    start_scores: Any
    objective: str = field(metadata={"frozen": True})


class Interruptible:
    """The memory of :class:`step.SAEM`: what it has forgotten after an interruption can be put back, bit by bit."""

    engine: Engine
    schedule: Schedule
    simulator: Simulator | None
    rng: np.random.Generator
    tune: bool
    iter_count: int
    n_smoothed: int
    _state: State | None
    _adapted: dict[str, Any] | None
    _failures: dict[int, np.ndarray]
    _evaluations_before: float

    def _forget(self) -> None:
        raise NotImplementedError

    def ready(self, point: dict) -> Simulator:
        """The simulator of the chain, which the first step sets up."""
        raise NotImplementedError

    def bookmark(self) -> dict[str, Any]:
        """All that the next iteration needs, without copies of arrays that are never changed in place."""
        floor = self.at_floor
        return {
            "tune": self.tune,
            "iter_count": self.iter_count,
            "n_smoothed": self.n_smoothed,
            "n_explore": self.n_explore,
            "state": self.state,
            "adapted": self.adapted,
            "failures": dict(self.failures),
            "at_floor": {"start": dict(floor["start"]), "reached": set(floor["reached"])},
            "n_evaluations": self.n_evaluations,
            "rng": get_state_from_generator(self.rng),
        }

    def return_to(self, bookmark: Mapping[str, Any]) -> None:
        """Go on as if nothing had happened since the bookmark; it may be of another process."""
        self._forget()
        self._evaluations_before = bookmark["n_evaluations"]
        self.rng = random_generator_from_state(bookmark["rng"])
        for name in ("tune", "iter_count", "n_smoothed", "n_explore", "state", "adapted"):
            setattr(self, name, bookmark[name])
        floor = bookmark["at_floor"]
        self.at_floor = {"start": dict(floor["start"]), "reached": set(floor["reached"])}
        self.failures = dict(bookmark["failures"])
        self.engine.densities.warm_up(self.reached.phi, self.reached.theta)
        self.ready({})

    @property
    def n_evaluations(self) -> float:
        """Evaluations of all subjects and replicates, so far."""
        moves = 0.0 if self.simulator is None else self.simulator.n_evaluations
        return self._evaluations_before + moves + self.engine.climber.n_evaluations

    @property
    def n_explore(self) -> int:
        """Planned exploratory iterations, which annealing covers."""
        return self.schedule.n_explore

    @n_explore.setter
    def n_explore(self, value: int) -> None:
        self.schedule.n_explore = value

    @property
    def state(self) -> State | None:
        """theta, phi, statistics and iteration; None before the first step."""
        return self._state

    @state.setter
    def state(self, value: State | None) -> None:
        self._state, self.simulator = value, None

    @property
    def reached(self) -> State:
        """The state after at least one step."""
        if self._state is None:
            raise RuntimeError("SAEM has no state before its first step.")
        return self._state

    @property
    def adapted(self) -> dict | None:
        """Scales of the kernels."""
        return self._adapted if self.simulator is None else self.simulator.adapted

    @adapted.setter
    def adapted(self, value: dict | None) -> None:
        self._adapted = value

    @property
    def failures(self) -> dict[int, np.ndarray]:
        """Failed solves of proposals: status code -> count per subject."""
        return self._failures if self.simulator is None else self.simulator.failures

    @failures.setter
    def failures(self, value: dict[int, np.ndarray]) -> None:
        self._failures = value

    @property
    def at_floor(self) -> dict:
        """State of the variance floor: start values, and the parameters at it."""
        return self.engine.maximizer.floor_state

    @at_floor.setter
    def at_floor(self, value: dict) -> None:
        self.engine.maximizer.floor_state = value
