"""Predictions at each level: typical subjects, subjects with their data, and all subjects that may come."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from pymc_saem.arguments import first_of
from pymc_saem.evaluate.drawing import refuse_undrawable
from pymc_saem.evaluate.generator import Generator, Laws
from pymc_saem.model.outcomes import Outcome
from pymc_saem.prediction.design import Design
from pymc_saem.prediction.match import OWN_DATA, Matched, fitted_effects
from pymc_saem.prediction.spelled import keep_images
from pymc_saem.prediction.values import choose_draws
from pymc_saem.results.fit import Fit
from pymc_saem.saem.report.new_subjects import describe_new_subjects

LEVELS = ("individual", "population", "marginal")


@dataclass(frozen=True)
class Predicted:
    """Predictions of the rows of one outcome: (row,), and (2, row) for intervals."""

    prediction: np.ndarray
    interval: np.ndarray
    interval_new: np.ndarray


@dataclass
class Levels:
    """What the levels of a prediction share.

    Attributes
    ----------
    estimate : dict of str to ndarray
        Natural estimates of the parameters of the model.
    parameters : {"draws", "estimate"}
        What intervals are made with.
    """

    generator: Generator
    design: Design
    fit: Fit
    matched: Matched
    estimate: dict[str, np.ndarray]
    parameters: str
    n_draws: int
    outcome: Outcome

    def predict(self, level: str, rng: np.random.Generator, ci_prob: float) -> Predicted:
        """Predictions of one level; each draws from its own generator, so that it does not depend on the others."""
        which = choose_draws(self.fit.n_draws, self.n_draws, rng) if self.fit.n_draws else None
        values = self._values(which)
        if level == "individual":
            mode, effects = self._individual(which, values, rng)
        else:
            mode = self._typical
            effects = (
                self.generator.typical_effects(values, self.n_draws)
                if level == "population"
                else self.generator.draw_effects(values, self.n_draws, rng)
            )
        refuse_undrawable([self.outcome])
        laws = self.generator.laws(values, effects, self.n_draws)
        curves, new = (
            self._location(laws),
            self.generator.draw_outcomes(laws, rng)[self.outcome.name],
        )
        new = new.reshape(self.n_draws, -1)
        tails = [0.5 - ci_prob / 2, 0.5 + ci_prob / 2]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # rows for which every draw failed
            if level == "marginal":
                prediction = np.nanmean(new, axis=0)
            else:
                prediction = self._location(self.generator.laws(self.estimate, mode, 1))[0]
            return Predicted(
                prediction,
                np.nanquantile(curves, tails, axis=0),
                np.nanquantile(new, tails, axis=0),
            )

    @cached_property
    def _typical(self) -> dict[str, np.ndarray]:
        return self.generator.typical_effects(self.estimate, 1)

    def _values(self, which: np.ndarray | None) -> dict[str, np.ndarray]:
        if self.parameters == "estimate" or which is None:
            return self.estimate
        return {name: self.fit.draws(name, which) for name in self.generator.parameters}

    def _location(self, laws: Laws) -> np.ndarray:
        location = laws.locations[self.outcome.name]
        if location is None:
            raise NotImplementedError(
                f"PyMC has no mean for outcome '{self.outcome.name}' ({self.outcome.parts[0].rv.owner.op}), so there is nothing to "
                "predict; simulate() draws new outcomes."
            )
        return location.reshape(laws.n, -1)

    def _individual(
        self, which: np.ndarray | None, values: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> tuple[dict, dict]:
        """Random effects at the conditional mode (1, ...), and draws of them (draw, ...)."""
        if which is None:
            raise ValueError(
                "The fit has no draws of the random effects, so there is no information about its subjects."
            )
        shapes = {name: typical.shape[1:] for name, typical in self._typical.items()}
        modes, draws, is_given = fitted_effects(
            self.generator, self.design, self.fit, self.matched, shapes, which
        )
        new = self.matched.source == OWN_DATA
        if new.any():
            self._add_new(new, modes, draws, is_given, rng)
        if values is not self.estimate:
            draws = keep_images(self.generator, draws, self.estimate, values)
        mode = self.generator.typical_effects(self.estimate, 1, modes, is_given)
        return mode, self.generator.draw_effects(values, self.n_draws, rng, draws, is_given)

    def _add_new(
        self,
        new: np.ndarray,
        modes: Mapping[str, np.ndarray],
        draws: Mapping[str, np.ndarray],
        is_given: dict[str, np.ndarray],
        rng: np.random.Generator,
    ) -> None:
        """The random effects of subjects that the fit does not know, from their own rows."""
        found = describe_new_subjects(
            self.generator.model, self.generator.effects, self.estimate, new, self.n_draws, rng
        )
        for name in self.generator.effects:
            owner = self.design.subject_of(name)
            own = (owner >= 0) & new[owner]
            by_unit = partial(self.generator.by_unit, name)
            by_unit(modes[name])[:, own] = by_unit(found.mode[name][None])[:, own]
            by_unit(draws[name])[:, own] = by_unit(found.draws[name])[:, own]
            is_given[name] = is_given[name] | own
        if not found.is_enough.all():
            listed = first_of(self.design.subjects[s] for s in np.flatnonzero(~found.is_enough))
            warnings.warn(
                f"The chains of conditional draws of the new {self.fit.subject_dim} {listed} disagree or are too short: their "
                "intervals are approximate. Their data may allow several curves.",
                UserWarning,
                stacklevel=5,
            )
