"""Wires a mixed model for SAEM: densities, rules, start, simulator and maximizer of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pymc_saem.model.density.densities import Densities
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.saem.core.algorithm import State
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.core.schedule import Schedule
from pymc_saem.saem.estep.mixture import Simulator
from pymc_saem.saem.mstep.maximizer import Maximizer
from pymc_saem.saem.mstep.recognize import recognize
from pymc_saem.saem.mstep.rules import Rules
from pymc_saem.saem.mstep.score_step import Climber
from pymc_saem.saem.start.pooled import Start, default_starts, find_start
from pymc_saem.saem.start.scales import check_start, polished, settled
from pymc_saem.saem.start.small_effects import with_visible_effects


def default_replicates(n_subjects: int) -> int:
    """Replicates such that at least 50 Markov chains run in each E-step."""
    return max(1, -(-50 // n_subjects))


@dataclass
class Engine:
    """The parts of a SAEM run that do not change while it runs."""

    mixed: MixedModel
    rules: Rules
    points: PointMap
    densities: Densities
    maximizer: Maximizer
    climber: Climber
    n_transitions: int
    n_replicates: int
    kernel: Mapping[str, float] | str

    @classmethod
    def build(
        cls,
        mixed: MixedModel,
        schedule: Schedule,
        *,
        objective: str,
        fixed: dict[str, np.ndarray],
        n_transitions: int,
        n_replicates: int | str,
        kernel: Mapping[str, float] | str,
        mode: Any,
    ) -> Engine:
        rules = recognize(mixed)
        points = PointMap(mixed)
        densities = Densities(mixed, list(rules.residual_terms), mode)
        maximizer = Maximizer(mixed, rules, points, schedule, objective, fixed)
        copies = (
            default_replicates(mixed.n_subjects) if isinstance(n_replicates, str) else n_replicates
        )
        climber = Climber(densities, maximizer)
        return cls(
            mixed, rules, points, densities, maximizer, climber, n_transitions, copies, kernel
        )

    def begin(
        self, point: dict, rng: np.random.Generator, n_starts: int | str, dispersed: bool = False
    ) -> tuple[State, Simulator, Start]:
        """Find a start near a PyMC point (``n_starts=0``: at the point) and set up the simulator.

        ``dispersed`` moves the point first, by what would be three standard errors if phi were
        known.
        """
        n_fits = default_starts(self.mixed) if isinstance(n_starts, str) else n_starts
        theta = self.maximizer.apply_fixed(self.points.theta_of(point))
        if dispersed:
            theta = self.maximizer.apply_fixed(
                theta + self._dispersion(theta) * rng.standard_normal(theta.size)
            )
        # before anything asks, so that its compilation is timed separately
        self.densities.warm_up(self._at_means(theta), theta)
        theta = settled(self, theta)
        start = Start(theta, np.zeros(0))
        if n_fits:
            start = find_start(self.densities, self.climber, theta, rng, n_fits)
            start = replace(start, theta=polished(self, start.theta))
        start = replace(start, theta=with_visible_effects(self, start.theta))
        check_start(self, start.theta)
        population = self.maximizer.population(start.theta)
        return (
            State(start.theta, self._at_means(start.theta)),
            self.simulator(population, rng),
            start,
        )

    def _at_means(self, theta: np.ndarray) -> np.ndarray:
        """Every subject at its mean, (replicate, subject, phi)."""
        return np.repeat(self.maximizer.population(theta).mean[None], self.n_replicates, axis=0)

    def weigh(self, weight: np.ndarray | None) -> None:
        """Give every subject a weight (subject,) in the runs that begin after this: that of this many copies of it; None: 1.

        What comes after an estimate, likelihoods and standard errors, ignores weights.
        """
        if weight is not None:
            weight = np.asarray(weight, dtype=float)
            n = self.mixed.n_subjects
            if (
                weight.shape != (n,)
                or not np.all(np.isfinite(weight))
                or np.any(weight < 0)
                or not np.any(weight > 0)
            ):
                raise ValueError(
                    f"weights are {weight}; {n} numbers are needed, none negative, one for each subject."
                )
        self.maximizer.weight = weight

    def _dispersion(self, theta: np.ndarray) -> np.ndarray:
        spread = 3.0 * self.maximizer.scales(theta)
        for (
            p
        ) in self.mixed.parameters:  # large weights saturate a network, and it does not come back
            spread[p.columns] = np.minimum(spread[p.columns], 0.3 if p.is_network else np.inf)
        return np.where(self.maximizer.held, 0.0, spread)

    def simulator(self, population: Population, rng: np.random.Generator) -> Simulator:
        weight = self.maximizer.weight
        return Simulator(
            self.mixed, self.densities, population, self.n_transitions, rng, self.kernel, weight
        )
