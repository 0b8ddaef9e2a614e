"""Whose rows a model has: the subjects of rows and of units nested in them, and the times of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors, io_toposort

from pymc_saem.evaluate.generator import Generator
from pymc_saem.evaluate.row_function import are_of_rows, constant_value
from pymc_saem.model.dependence.dependence import SHARED_STEPS
from pymc_saem.model.dependence.labels import Reach, Values
from pymc_saem.model.dependence.row_subjects import refuse_orphans, refuse_shared, subjects_of_rows
from pymc_saem.model.dependence.tracer import NotKnown, Tracer, not_known
from pymc_saem.model.graph.interpreted import has_python_only_ops
from pymc_saem.model.outcomes import Outcome
from pymc_saem.results.fit import Fit

#: ``read(effects)`` lists arrays of numbers that random effects (1, ...) by name lead to.
_Read = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Units:
    """What the axis of units of a random effect of a lower level stands for, such as occasions."""

    labels: list
    # (unit,); -1 for a unit that no row and no mean determines
    subject: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Design:
    """Subjects and rows of a model, which need not be those that were fitted.

    Attributes
    ----------
    subjects : list
        Labels, (subject,).
    row_subject : dict of str to ndarray, each (row,)
        Subject of each row of each outcome.
    units : dict of str to Units
        Of each random effect of a lower level.
    """

    subjects: list
    row_subject: dict[str, np.ndarray] = field(repr=False)
    units: dict[str, Units] = field(repr=False)

    @property
    def n_subjects(self) -> int:
        return len(self.subjects)

    def subject_of(self, effect: str) -> np.ndarray:
        """Subject of each unit of a random effect."""
        return self.units[effect].subject if effect in self.units else np.arange(self.n_subjects)

    def has_rows(self, outcomes: tuple[Outcome, ...]) -> np.ndarray:
        """Which subjects have an observed row, (subject,)."""
        has = np.zeros(self.n_subjects, dtype=bool)
        for outcome in outcomes:
            has[self.row_subject[outcome.name][outcome.is_observed]] = True
        return has


def read_design(
    generator: Generator, values: Mapping[str, np.ndarray], fit: Fit, rng: np.random.Generator
) -> Design:
    """Find out by experiment which subject each row belongs to: a prediction changes with the effects of its own only.

    Not by what is observed, which may be missing.

    Parameters
    ----------
    generator : Generator
    values : dict of str to ndarray
        Natural values of the parameters, at which predictions exist.
    fit : Fit
        Tells which random effects are those of subjects.
    rng : numpy.random.Generator

    Raises
    ------
    UnsupportedModelError
        When a row depends on no subject, or on two.
    """
    experiment = _Experiment(generator, values, rng)
    top = [name for name in generator.effects if fit.is_of_subjects(name)]
    lower = [name for name in generator.effects if name not in top]
    n_subjects = experiment.n_units(top[0])
    labels = generator.model.coords.get(fit.subject_dim)
    names = [outcome.name for outcome in generator.outcomes]
    rows = _with_graph(
        generator,
        values,
        experiment,
        top,
        experiment.owners(n_subjects, top, experiment.rows, names),
    )
    units = {}
    for name in lower:
        n_units = experiment.n_units(name)
        (subject,) = experiment.owners(
            n_subjects, top, experiment.sums_of(name), [f"the mean of '{name}'"]
        )
        unit_of_row = experiment.owners(n_units, [name], experiment.rows, names)
        for unit, of_row in zip(unit_of_row, rows, strict=True):
            at = (unit >= 0) & (subject[unit] < 0)
            subject[unit[at]] = of_row[at]
        dims = generator.model.named_vars_to_dims.get(name)
        coords = generator.model.coords.get(dims[generator.axes[name]]) if dims else None
        units[name] = Units(list(coords) if coords is not None else list(range(n_units)), subject)
    return Design(
        subjects=list(labels) if labels is not None else list(range(n_subjects)),
        row_subject=dict(zip(names, rows, strict=True)),
        units=units,
    )


def _with_graph(
    generator: Generator,
    values: Mapping[str, np.ndarray],
    experiment: _Experiment,
    top: list[str],
    rows: list[np.ndarray],
) -> list[np.ndarray]:
    """Subjects of rows that did not move, such as those before a change point, by the graph.

    Raises
    ------
    UnsupportedModelError
        When the graph does not identify a subject either.
    """
    if all((of_row >= 0).all() for of_row in rows):
        return rows
    model = generator.model
    known: dict[Variable, Reach | Values] = {
        model[name]: Values([values[name]]) for name in generator.parameters
    }
    for name in generator.effects:
        shape = experiment.typical[name].shape[1:]
        if name in top:
            known[model[name]] = Reach.of_labels(np.indices(shape)[generator.axes[name]])
        elif not {model[n] for n in top} & set(ancestors(model[name].owner.inputs)):
            known[model[name]] = Values([experiment.typical[name][0]])
    parts = [part for outcome in generator.outcomes for part in outcome.parts]
    try:
        found = iter(Tracer(known, [], not_known, through_zeros=True)([part.rv for part in parts]))
    except NotKnown:
        found = iter(())
    filled = []
    for outcome, of_row in zip(generator.outcomes, rows, strict=True):
        labels = of_row.copy()
        for part, reach in zip(outcome.parts, found, strict=False):
            own = np.broadcast_to(reach.labels().ravel(), part.rows.size)
            labels[part.rows] = np.where(labels[part.rows] < 0, own, labels[part.rows])
        refuse_shared(outcome.name, labels == -2)
        refuse_orphans(outcome.name, labels >= 0)
        filled.append(labels)
    return filled


class _Experiment:
    """Predictions when the random effects of some subjects move from their typical value towards a draw."""

    def __init__(
        self, generator: Generator, values: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> None:
        self.generator, self.values, self.rng = generator, values, rng
        self.typical = generator.typical_effects(values, 1)
        self.drawn = generator.draw_effects(values, 1, rng)
        rvs = [part.rv for outcome in generator.outcomes for part in outcome.parts]
        self.noise = SHARED_STEPS if has_python_only_ops(rvs) else 0.0

    def rows(self, effects: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """A number per row of each outcome, which changes with the distribution of the row."""
        return [
            marks[0] for marks in self.generator.marks(self.generator.laws(self.values, effects, 1))
        ]

    def owners(
        self, n: int, movable: list[str], read: _Read, names: Sequence[str]
    ) -> list[np.ndarray]:
        """Which of the n entries of ``movable`` effects each number belongs to that ``read(effects)`` lists; -1 for none."""

        def density(distance: np.ndarray, _: np.ndarray) -> list[np.ndarray]:
            share = 50.0 * np.abs(distance[:, 0])  # steps are about 0.015; NaN stays
            given = {}
            for name in movable:
                moved = self.typical[name].copy()
                new, old, drawn = (
                    self.generator.by_unit(name, x)
                    for x in (moved, self.typical[name], self.drawn[name])
                )
                new += share.reshape(1, -1, *(1,) * (old.ndim - 2)) * (drawn - old)
                given[name] = moved
            effects = self.generator.typical_effects(self.values, 1, given)
            return read(effects)

        return subjects_of_rows(density, np.zeros(0), np.zeros((n, 1)), names, self.rng, self.noise)

    def n_units(self, name: str) -> int:
        return self.generator.by_unit(name, self.typical[name]).shape[1]

    def sums_of(self, name: str) -> _Read:
        """``f(effects)`` that lists the sum of the values of each unit of an effect."""
        return lambda effects: [
            self.generator.by_unit(name, effects[name]).reshape(self.n_units(name), -1).sum(axis=1)
        ]


def row_times(generator: Generator, outcome: Outcome, row_subject: np.ndarray) -> np.ndarray | None:
    """Time of each row of an outcome, if a differential equation with these rows provides it."""
    graphs = [v for part in outcome.parts for v in part.rv.owner.inputs]
    for node in io_toposort([], graphs):
        if getattr(node.op, "is_ode_solution", False) and are_of_rows(node.op.subject, row_subject):
            times = constant_value(node.inputs[0])
            if times is not None:
                return times
    return None
