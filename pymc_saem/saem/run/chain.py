"""A chain on its way: iterations until the schedule or the stopping rule ends them, and snapshots in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.saem.conditional.draws import Conditional
from pymc_saem.saem.core.schedule import FIRST_LOOK, Drift, StoppingRule
from pymc_saem.saem.run.explain import explained
from pymc_saem.saem.run.snapshot import Snapshot
from pymc_saem.saem.run.stages import Note, Stages
from pymc_saem.saem.run.step import SAEM


@dataclass
class Chain:
    """One finished (or interrupted) run."""

    theta: np.ndarray  # (iteration, theta)
    stats: dict[str, np.ndarray]  # each (iteration,)
    failures: dict[int, np.ndarray]  # status code -> count per subject
    n_solves: int
    at_floor: tuple[str, ...]
    start_scores: np.ndarray
    seconds: dict[str, float]
    # after the last iteration, from which the run can be resumed
    snapshot: Snapshot | None = field(repr=False)
    number: int = 0
    interrupted: bool = False
    conditional: Conditional | None = None
    trouble: list[str] = field(default_factory=list)  # of other chains
    notes: list[Note] = field(default_factory=list)  # of what failed after the iterations
    converged: bool = False  # whether the stopping rule ended the run
    drift: np.ndarray | None = (
        None  # (theta,): in approximate standard errors, over the last half of the smoothing phase
    )
    scale: np.ndarray | None = None  # (theta,): these standard errors

    @classmethod
    def of(cls, snapshot: Snapshot, number: int) -> Chain:
        """A run as a snapshot describes it."""
        names = ("theta", "stats", "n_solves", "at_floor", "start_scores", "converged")
        known = {name: getattr(snapshot, name) for name in names}
        failures, seconds = snapshot.bookmark["failures"], dict(snapshot.seconds)
        return cls(**known, failures=failures, seconds=seconds, snapshot=snapshot, number=number)


@dataclass
class Course:
    """The iterations of one chain.

    Parameters
    ----------
    step : SAEM
    point : dict
        PyMC point, where a new run starts.
    n_explore, n_smooth : int
    tolerance : float
        Of the stopping rule.
    extend : int
        Iterations beyond the last one of a snapshot; the stopping rule does not end these.
    """

    step: SAEM
    point: dict
    n_explore: int
    n_smooth: int
    tolerance: float
    extend: int = 0
    thetas: list[np.ndarray] = field(default_factory=list, init=False)
    stats: list[dict] = field(default_factory=list, init=False)
    seconds: dict[str, float] = field(default_factory=dict, init=False)
    converged: bool = field(default=False, init=False)
    # before the iteration that is being made
    _bookmark: tuple | None = field(default=None, init=False)
    _is_within: bool = field(default=False, init=False)  # an iteration
    _has_begun: bool = field(default=False, init=False)

    def begin(self, rng: np.random.Generator, dispersed: bool) -> None:
        """A new run."""
        self.step.begin_chain(rng, self.n_explore, dispersed=dispersed)
        self.rule, self.total = StoppingRule(self.tolerance), self.n_explore + self.n_smooth
        self._mark, self._compiled = perf_counter(), self.step.engine.densities.compile_seconds

    def go_on(self, snapshot: Snapshot) -> None:
        """The rest of a run that was stopped; every iteration as if it had not been."""
        self.begin(np.random.default_rng(0), dispersed=False)
        self.step.return_to(snapshot.bookmark)
        self.step.start_scores = snapshot.start_scores
        self.thetas = list(snapshot.theta)
        self.stats = [
            {name: values[k] for name, values in snapshot.stats.items()}
            for k in range(len(self.thetas))
        ]
        self.rule.passed, self.converged = snapshot.n_passed, snapshot.converged
        self.seconds = dict(snapshot.seconds)
        if self.extend:
            self.total = self.extend + (
                len(self.thetas) if len(self.thetas) >= self.n_explore else self.total
            )
            self.converged = False
        self._keep_time("compile")

    @property
    def is_over(self) -> bool:
        return self.converged or len(self.thetas) >= self.total

    def iterate(self) -> None:
        """One iteration."""
        k = len(self.thetas)
        self._has_begun = True
        self._bookmark, self._is_within = (
            (self.step.bookmark(), self.rule.passed) if k else None,
            True,
        )
        if k == self.n_explore:
            self.step.stop_tuning()
        try:
            self.point, (report,) = self.step.step(self.point)
        except np.linalg.LinAlgError as error:
            natural = self.step.engine.points.natural_theta(self.thetas[-1]) if k else {}
            before = (
                "; ".join(f"{name} {np.round(value, 6)}" for name, value in natural.items())
                or "none"
            )
            raise UnsupportedModelError(
                f"Iteration {k + 1} cannot be computed: {explained(error)}. Estimates before it: {before}."
            ) from error
        self.thetas.append(self.step.reached.theta)
        self.stats.append(report)
        if k == 0:  # compilation and the search for a start are not iterations
            self._keep_time("start")
        if k >= self.n_explore and self.rule(self.thetas[self.n_explore :], self.scales):
            self.converged = not self.extend
        self._is_within = False

    def turn_back(self) -> None:
        """After an interruption: to the end of the last whole iteration.

        Raises
        ------
        KeyboardInterrupt
            When there is none.
        """
        if self._has_begun and not self._is_within:
            return
        if self._bookmark is None:
            raise KeyboardInterrupt
        bookmark, self.rule.passed = self._bookmark
        self.step.return_to(bookmark)
        self.thetas, self.stats = (
            self.thetas[: bookmark["iter_count"]],
            self.stats[: bookmark["iter_count"]],
        )
        self.converged = False

    def snapshot(self) -> Snapshot:
        self._keep_time("iterate")
        return Snapshot(
            theta=np.array(self.thetas),
            stats={name: np.array([s[name] for s in self.stats]) for name in self.stats[0]},
            bookmark=self.step.bookmark(),
            n_passed=self.rule.passed,
            converged=self.converged,
            start_scores=self.step.start_scores,
            seconds=dict(self.seconds),
        )

    def chain(self, number: int, interrupted: bool, stages: Stages) -> Chain:
        """The run as it is, with how far it still drifted."""
        found = stages.attempt(
            "The state for a later run", lambda: Chain.of(self.snapshot(), number)
        )
        if found is None:
            found = self._bare_chain(number)
        found.interrupted, found.converged = (
            interrupted,
            bool(self.converged or self.rule.is_passed),
        )
        found.scale = stages.attempt("Rough standard errors", self.scales)
        if found.scale is not None and len(self.thetas) >= self.n_explore + FIRST_LOOK:
            found.drift = stages.attempt(
                "Drift of the estimates",
                lambda: Drift.of(found.theta[self.n_explore :], found.scale).size,
            )
        return found

    def _bare_chain(self, number: int) -> Chain:
        """Iterates and their statistics alone."""
        stats = {name: np.array([s[name] for s in self.stats]) for name in self.stats[0]}
        return Chain(
            np.array(self.thetas), stats, {}, 0, (), np.zeros(0), dict(self.seconds), None, number
        )

    def scales(self) -> np.ndarray:
        """Rough standard errors (theta,)."""
        return self.step.engine.maximizer.scales(
            self.step.reached.theta, self.step.reached.curvature
        )

    def _keep_time(self, part: str) -> None:
        """Add the time since the last call to a part, and what of it was compilation to another."""
        now, compiled = perf_counter(), self.step.engine.densities.compile_seconds
        for name, seconds in (
            ("compile", compiled - self._compiled),
            (part, now - self._mark - compiled + self._compiled),
        ):
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._mark, self._compiled = now, compiled
