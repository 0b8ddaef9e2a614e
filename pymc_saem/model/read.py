"""Reads a PyMC model: finds its random effects, population parameters, and the subject of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pymc as pm

from pymc_saem.model.density.point_map import initial_point
from pymc_saem.model.dependence.axes import Axis
from pymc_saem.model.dependence.dependence import Dependence
from pymc_saem.model.dependence.row_subjects import refuse_orphans
from pymc_saem.model.mixed_model import MixedModel, Outcome, UnsupportedModelError
from pymc_saem.model.normal.scaled import scaled_vectors
from pymc_saem.model.reading.crossed_levels import (
    add_units_of_constant_laws,
    crossed_levels,
    find_levels,
    refuse_latent_parameters,
)
from pymc_saem.model.reading.layout import (
    lay_out_effects,
    lay_out_parameters,
    with_general_laws,
    with_images,
)
from pymc_saem.model.reading.levels import (
    Levels,
    RowsOfAxes,
    by_axis,
    fill_subjects,
    find_random_effects,
    parents_of,
    refuse_laws_across_levels,
    subject_axis,
    subjects_of_units,
)
from pymc_saem.model.reading.missing_covariates import refuse_missing_covariates
from pymc_saem.model.reading.observed_values import row_size
from pymc_saem.model.reading.pairing import warn_of_unfounded_pairs
from pymc_saem.model.reading.refusals import (
    missing_rows,
    refuse_sparse_effects,
    refuse_unused,
    refuse_what_is_not_read,
)


@np.errstate(all="ignore")  # values that are not finite are checked and reported
def read_model(
    model: pm.Model,
    random_effects: Sequence[str] | None = None,
    *,
    rng: np.random.Generator | None = None,
) -> MixedModel:
    """Read a PyMC model as a mixed-effects model.

    Parameters
    ----------
    model : pymc.Model
    random_effects : sequence of str, optional
        Names of the random effects, overriding the automatic choice.
    rng : numpy.random.Generator, optional
        For the small perturbations that show which rows belong to which subject.

    Raises
    ------
    UnsupportedModelError
        When no random effect is found, when a random effect lacks the subject axis, when a row
        depends on two subjects, when units are not nested in subjects, or when a parameter
        influences nothing.
    """
    refuse_what_is_not_read(model)
    point = initial_point(model)
    missing = missing_rows(model)
    refuse_unused(model, missing)
    refuse_missing_covariates(model, point)
    dependence = Dependence(model, point, rng or np.random.default_rng(0))
    names = find_random_effects(dependence, random_effects, missing)
    scaled = scaled_vectors(model, point, missing, {n for n in names if parents_of(model, n)})
    may_drop = (
        ()
        if random_effects is not None
        else [n for n in names if n not in scaled and not parents_of(model, n)]
    )
    levels, rows = find_levels(dependence, by_axis(dependence, names), may_drop, scaled)
    if random_effects is None:
        levels, rows = add_units_of_constant_laws(dependence, levels, rows, missing)
    warn_of_unfounded_pairs(dependence, levels)
    refuse_latent_parameters(dependence, [n for of in levels.values() for n in of], missing)
    top, *lower = levels
    subjects, unit_subjects, of_axis = rows[top], {}, {}
    if lower:
        refuse_laws_across_levels(
            model, {axis: levels[axis] for axis in lower}, [n for of in levels.values() for n in of]
        )
        units = {axis: rows[axis] for axis in lower}
        of_axis = _subjects_of_units(dependence, levels, units, subjects, scaled)
        subjects = fill_subjects(subjects, units, of_axis)
        unit_subjects = {name: of_axis[axis] for axis in lower for name in levels[axis]}
    subjects = _fill_through_zeros(dependence, subjects, levels, of_axis)
    mixed = _lay_out(dependence, levels[top], missing, unit_subjects)
    refuse_sparse_effects(model, [e.name for e in mixed.random_effects])
    outcomes = []
    for rv, subject in zip(dependence.observed, subjects, strict=True):
        refuse_orphans(rv.name, subject >= 0)
        outcomes.append(Outcome(rv.name, subject, row_size(model, rv, subject.size)))
    return with_general_laws(with_images(replace(mixed, outcomes=tuple(outcomes)), point), point)


def _subjects_of_units(
    dependence: Dependence,
    levels: Levels,
    units: RowsOfAxes,
    subjects: list[np.ndarray],
    scaled: Mapping[str, str],
) -> dict[Axis, np.ndarray]:
    """Subject of each unit of the lower axes, by the rows of the unit and by its distribution."""
    (top, uppers), *lower = levels.items()
    by_law = {}
    for axis, names in lower:
        pairs = [(upper, name) for upper in uppers for name in names]
        by_law[axis] = np.max([dependence.entries_on(upper, name) for upper, name in pairs], axis=0)

    def crossed(axis: Axis, unit: int, a: int, b: int) -> UnsupportedModelError:
        names = uppers[0], levels[axis][0]
        return crossed_levels(dependence.model, names, (top[0], axis[0]), unit, (a, b), scaled)

    return subjects_of_units(units, subjects, by_law, crossed)


def _fill_through_zeros(
    dependence: Dependence,
    subjects: list[np.ndarray],
    levels: Levels,
    of_axis: Mapping[Axis, np.ndarray],
) -> list[np.ndarray]:
    """Subjects of rows that no random effect moves because it is multiplied by a zero of the data."""
    for axis, names in levels.items():
        for name in names if any((subject < 0).any() for subject in subjects) else ():
            entries = [np.where(r.is_many, -1, r.last) for r in dependence.rows_through_zeros(name)]
            owners = (
                [np.where(e < 0, -1, of_axis[axis][e]) for e in entries]
                if axis in of_axis
                else entries
            )
            subjects = [
                np.where(old < 0, new, old) for old, new in zip(subjects, owners, strict=True)
            ]
    return subjects


def _lay_out(
    dependence: Dependence,
    top: list[str],
    missing: set[str],
    unit_subjects: Mapping[str, np.ndarray],
) -> MixedModel:
    model, point = dependence.model, dependence.template
    dim, _, labels = subject_axis(dependence, top)
    chosen = {*top, *unit_subjects}
    axes = {rv.name: dependence.axes[rv.name] for rv in model.free_RVs if rv.name in chosen}
    effects = lay_out_effects(model, point, axes, unit_subjects)
    return MixedModel(
        model, dim, labels, effects, lay_out_parameters(model, point, chosen | missing), ()
    )
