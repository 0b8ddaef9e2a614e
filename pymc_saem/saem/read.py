"""Reads a PyMC model: finds its random effects, population parameters, and the subject of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import observed_variables
from pymc_saem.saem.densities import row_density, row_logps
from pymc_saem.saem.interpreted import INTERPRETED, has_python_only_ops
from pymc_saem.saem.layout import lay_out_effects, lay_out_parameters, with_general_laws, with_images
from pymc_saem.saem.levels import (
    by_axis,
    fill_subjects,
    find_random_effects,
    refuse_laws_across_levels,
    subject_axis,
    subjects_of_units,
)
from pymc_saem.saem.model import MixedModel, Outcome, UnsupportedModelError
from pymc_saem.saem.point import PointMap, initial_point
from pymc_saem.saem.rows import SharedRowError, find_finite_start, refuse_orphans, subjects_of_rows
from pymc_saem.saem.spelling import location_and_scale
from pymc_saem.saem.symbols import in_symbols, symbols

#: A solver that takes all subjects as one system chooses its steps for all of them, so each row changes a little with
#: everybody's phi: by 4e-8 of its own subject's part at sunode's tolerances (four decays).
#: PyTensor's own operations have no such noise.
SHARED_STEPS = 1e-4


def read_model(
    model: pm.Model, random_effects: Sequence[str] | None = None, *, rng: np.random.Generator | None = None
) -> MixedModel:
    """Read a PyMC model as a mixed-effects model.

    Parameters
    ----------
    model : pymc.Model
    random_effects : sequence of str, optional
        Names of the random effects, overriding the automatic choice. Their first axis must be the
        subject.
    rng : numpy.random.Generator, optional
        For the small perturbations that tell which rows belong to which subject.

    Raises
    ------
    UnsupportedModelError
        When no random effect is found, when a random effect lacks the subject axis, when a row depends on two
        subjects, when units are not nested in subjects, or when a parameter influences nothing.
    """
    _refuse_what_is_not_read(model)
    point = initial_point(model)
    missing = missing_rows(model)
    names = find_random_effects(model, point, random_effects, missing)
    _refuse_unused(model, missing)
    rng = rng or np.random.default_rng(0)
    levels, rows = _find_levels(model, point, by_axis(model, point, names), missing, random_effects is None, rng)
    top, *lower = levels
    mixed, subjects = _lay_out(model, point, levels[top], missing), rows[top]
    if lower:
        refuse_laws_across_levels(
            model, {axis: levels[axis] for axis in lower}, [n for of in levels.values() for n in of]
        )
        units = {axis: rows[axis] for axis in lower}
        by_mean = {axis: _subjects_in_means(mixed, levels[axis], rng) for axis in lower}
        unit_subjects = subjects_of_units(units, subjects, by_mean)
        subjects = fill_subjects(subjects, units, unit_subjects)
        of_name = {name: unit_subjects[axis] for axis in lower for name in levels[axis]}
        mixed = _lay_out(model, point, levels[top], missing, of_name)
    outcomes = []
    for rv, subject in zip(observed_variables(model), subjects, strict=True):
        refuse_orphans(rv.name, subject >= 0)
        outcomes.append(Outcome(rv.name, subject))
    return with_general_laws(with_images(replace(mixed, outcomes=tuple(outcomes)), point))


def _find_levels(model, point, of_axis: dict, missing, may_drop: bool, rng) -> tuple[dict, dict]:
    """The axes of subjects and units, with the entry of each row; the upper level first.

    Where the axes were not named by the user, one of which rows depend on several entries, such as the weights of a
    network, is none of them: its variables are parameters.
    """
    levels, rows, refusal = {}, {}, None
    for axis, names in of_axis.items():
        try:
            rows[axis] = _find_rows(_lay_out(model, point, names, missing), rng, orphans_allowed=len(of_axis) > 1)
            levels[axis] = names
        except SharedRowError as shared:
            refusal = refusal or shared
            if not may_drop:
                raise
    if not levels:
        raise refusal
    return levels, rows


def _lay_out(model, point, top: list[str], missing: set[str], unit_subjects: dict | None = None) -> MixedModel:
    dim, _, labels = subject_axis(model, point, top)
    unit_subjects = unit_subjects or {}
    chosen = {*top, *unit_subjects}
    effects = lay_out_effects(model, point, {rv.name: 0 for rv in model.free_RVs if rv.name in chosen}, unit_subjects)
    return MixedModel(model, dim, labels, effects, lay_out_parameters(model, point, chosen | missing), ())


def missing_rows(model: pm.Model) -> set[str]:
    """Free variables that PyMC made of missing rows: they integrate to 1, so SAEM leaves them out."""
    names = {rv.name.removesuffix("_observed") for rv in observed_variables(model) if rv.name.endswith("_observed")}
    return {f"{name}_unobserved" for name in names} & {rv.name for rv in model.free_RVs}


def _find_rows(mixed: MixedModel, rng, orphans_allowed: bool = False) -> list[np.ndarray]:
    """Subject of each row of each observed variable; with -1 for rows without one, where they are allowed."""
    density = row_density(mixed)
    points = PointMap(mixed)
    names = [rv.name for rv in observed_variables(mixed.model)]
    start = points.theta_of(points.template), points.phi_of(points.template)
    try:
        theta, phi = find_finite_start(density, *start, names, rng)
    except IndexError as error:
        raise UnsupportedModelError(
            f"The model cannot be evaluated: {str(error).splitlines()[0]}. Random effects are indexed by codes 0, 1, ..., not by "
            'labels: codes, ids = data["subject"].factorize().'
        ) from error
    noise = SHARED_STEPS if has_python_only_ops(row_logps(mixed)) else 0.0
    return subjects_of_rows(density, theta, phi, names, rng, noise, orphans_allowed)


def _subjects_in_means(mixed: MixedModel, names: list[str], rng) -> np.ndarray:
    """Subject on whose effects the mean of each unit depends, (unit,); -1 for none."""
    model, found = mixed.model, None
    points = PointMap(mixed)
    for name in names:
        rv = model[name]
        phi, theta = symbols(mixed)
        (mean,) = in_symbols(mixed, [location_and_scale(rv)[0] + pt.zeros_like(rv)], phi, theta)
        f = pytensor.function([phi, theta], mean, mode=INTERPRETED, on_unused_input="ignore")

        def density(phi, theta, f=f):
            values = np.asarray(f(phi, theta))
            return [values.reshape(values.shape[0], -1).sum(axis=1)]

        start = points.theta_of(points.template), points.phi_of(points.template)
        (subject,) = subjects_of_rows(density, *start, [f"the mean of {name}"], rng, 0.0, True)
        found = subject if found is None else np.where(found < 0, subject, found)
    return found


def _refuse_what_is_not_read(model: pm.Model) -> None:
    if model.potentials:
        raise UnsupportedModelError(
            f"pm.Potential terms ({', '.join(p.name for p in model.potentials)}) cannot be assigned to a subject. "
            "Write them as a distribution, or remove them."
        )
    if not observed_variables(model):
        raise UnsupportedModelError(
            "The model has no observed variable. SAEM needs data: give one variable observed=..."
        )
    if model.discrete_value_vars:
        names = ", ".join(model.values_to_rvs[v].name for v in model.discrete_value_vars)
        raise UnsupportedModelError(f"Free discrete variables ({names}) are not supported. Marginalize them out.")
    for rv in model.free_RVs:
        if type(rv.owner.op).__name__ == "PartialObservedRV":
            name = rv.name.removesuffix("_unobserved")
            raise UnsupportedModelError(
                f"The observed data of '{name}' have missing values (NaN or masked), and its rows are not independent, or PyMC "
                "cannot take its distribution apart, as with pm.Censored. Drop those rows from the data, times and subjects "
                "before building the model."
            )
    for rv in observed_variables(model):
        data = model.rvs_to_values[rv]
        values = getattr(data, "data", None)
        values = data.get_value() if values is None and hasattr(data, "get_value") else values
        if values is not None and np.size(values) == 0:
            raise UnsupportedModelError(
                f"The observed variable '{rv.name.removesuffix('_observed')}' has no observed value. Remove it, or give it data."
            )
        if values is not None and not np.all(np.isfinite(np.asarray(values, dtype=float))):
            row = int(np.flatnonzero(~np.isfinite(np.asarray(values, dtype=float).ravel()))[0])
            raise UnsupportedModelError(
                f"The observed data of '{rv.name}' are not finite in row {row}. Drop missing rows before building the model."
            )


def _refuse_unused(model, missing: set[str]) -> None:
    """A free variable that no data depend on has nothing to be estimated from."""
    needed = set(ancestors([i for rv in observed_variables(model) for i in rv.owner.inputs]))
    for rv in model.free_RVs:
        if rv not in needed and rv.name not in missing:
            raise UnsupportedModelError(
                f"No observed variable depends on the free variable '{rv.name}', so the data cannot estimate it. "
                "Remove it from the model."
            )
