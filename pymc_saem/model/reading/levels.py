"""Finds the random effects of a model, and the level of each: subjects, or units nested in subjects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pymc as pm
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.model.dependence.axes import Axis, FirstAxes, unit_axis
from pymc_saem.model.dependence.dependence import Dependence
from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.model.normal.parametrization import form_of
from pymc_saem.model.normal.scaled import scaled_vectors

#: Names of the random effects of each axis.
Levels: TypeAlias = dict[Axis, list[str]]
#: Of each axis, the entry of each row of each observed variable; -1 for none.
RowsOfAxes: TypeAlias = dict[Axis, list[np.ndarray]]


def find_random_effects(
    dependence: Dependence | FirstAxes, chosen: Sequence[str] | str | None, left_out: set[str]
) -> list[str]:
    """Names of the random effects, in the model's order.

    By default the free variables without children whose distribution depends on other free
    variables, written as such or as a vector times an estimated scale, and those whose first axis
    is that of one of them; where there is none, all without children. And those that are the mean
    of another effect. ``dependence`` is the Dependence of the model.
    """
    model, point = dependence.model, dependence.template
    free = {rv.name: rv for rv in model.free_RVs if rv.name not in left_out}
    if chosen is not None:
        return _check_chosen(chosen, free)
    parents = {name: parents_of(model, name) for name in free}
    has_children = set().union(*parents.values()) if parents else set()
    leaves = [name for name in free if name not in has_children]
    candidates = [name for name in leaves if parents[name]]
    scaled = scaled_vectors(model, point, left_out, set(candidates))
    candidates = candidates + [name for name in scaled if name in leaves] or leaves
    axes = {unit_axis(dependence, name) for name in candidates} - {None}
    if not axes:
        _refuse_whole_vectors(model, [name for name in candidates if parents[name]])
        raise UnsupportedModelError(
            "No random effect was found: no free variable has one entry per subject and a distribution that depends on "
            f"population parameters. The free variables are {_shapes(model, point)}. If one of them varies between subjects, give it "
            'dims=("subject", ...) and a distribution with parameters. A model without random effects needs no SAEM: pm.find_MAP() has its '
            "maximum."
        )
    found = {name for name in leaves if unit_axis(dependence, name) in axes}
    # c ~ Normal(b[...], omega) with b ~ Normal(a, tau): b has a distribution with parameters, so it
    # is not a parameter itself.
    upper = {
        name
        for effect in found
        for name in parents[effect]
        if parents[name] and not is_scale(free[name])
    }
    upper = {name for name in upper | set(scaled) if unit_axis(dependence, name) is not None}
    return [name for name in free if name in found | upper]


def _refuse_whole_vectors(model: pm.Model, names: list[str]) -> None:
    """A vector that is one draw, such as a ZeroSumNormal, has no entries of single subjects."""
    for name in names:
        rv = model[name]
        if getattr(rv.owner.op, "ndim_supp", 0):
            raise UnsupportedModelError(
                f"No random effect was found: '{name}' is one draw of a {type(rv.owner.op).__name__.removesuffix('RV')}, whose entries depend on each "
                "other, so it is a random effect that is shared by all subjects. SAEM needs effects that are independent between subjects, "
                "such as a Normal with an entry per subject."
            )


def _check_chosen(chosen: Sequence[str] | str, free: Mapping[str, TensorVariable]) -> list[str]:
    chosen = [chosen] if isinstance(chosen, str) else list(chosen)
    unknown = [name for name in chosen if name not in free]
    if unknown:
        raise UnsupportedModelError(
            f"random_effects names {unknown}, but the free variables are {sorted(free)}."
        )
    if not chosen:
        raise UnsupportedModelError(
            "random_effects is empty. Name at least one free variable, or leave it out."
        )
    return [name for name in free if name in chosen]


def parents_of(model: pm.Model, name: str) -> set[str]:
    """Names of the free variables that the distribution of a variable depends on."""
    reached = set(ancestors(model[name].owner.inputs))
    return {rv.name for rv in model.free_RVs if rv in reached}


def is_scale(rv: TensorVariable) -> bool:
    """Whether a vector is one of standard deviations or correlations, whose prior has parameters."""
    kind = type(rv.owner.op).__name__
    return kind.startswith(("Half", "Exponential", "LKJ")) or "LKJ" in kind or "Cholesky" in kind


def _shapes(model: pm.Model, point: Mapping[str, np.ndarray]) -> str:
    return ", ".join(
        f"{rv.name}{point[model.rvs_to_values[rv].name].shape}" for rv in model.free_RVs
    )


def by_axis(dependence: Dependence, names: list[str]) -> Levels:
    """Names of the random effects of each axis of subjects or units, those with the fewest entries first.

    Units are nested in subjects, so there are at least as many of them.

    Raises
    ------
    UnsupportedModelError
        When a random effect has no axis of its own.
    """
    of_axis: Levels = {}
    for name in names:
        axis = unit_axis(dependence, name)
        if axis is None:
            shape = dependence.template[
                dependence.model.rvs_to_values[dependence.model[name]].name
            ].shape
            raise UnsupportedModelError(
                f"The random effect '{name}' has shape {shape} and no subject axis. Give it one entry per subject: "
                f'dims=("subject", ...).'
            )
        of_axis.setdefault(axis, []).append(name)
    for dim, length in [axis for axis in of_axis if axis[0] is None]:
        named = [axis for axis in of_axis if axis[0] is not None and axis[1] == length]
        if len(named) == 1:  # without dims, the length decides
            of_axis[named[0]] += of_axis.pop((dim, length))
    return dict(sorted(of_axis.items(), key=lambda item: item[0][1]))


def refuse_laws_across_levels(model: pm.Model, lower: Levels, names: list[str]) -> None:
    """A unit may depend on its subject by the mean of a normal distribution; phi is then the deviation from it."""
    for (dim, _), of_axis in lower.items():
        for name in of_axis:
            inside = sorted(parents_of(model, name) & set(names))
            if inside and form_of(model, name, names) != "deviation":
                raise UnsupportedModelError(
                    f"The distribution of '{name}' (one entry per {dim or 'unit'}) depends on the random effect '{inside[0]}', and not only "
                    f"through the mean of a Normal or LogNormal. Give '{name}' a distribution that does not depend on it, and join the two in "
                    "the prediction."
                )


def subject_axis(dependence: Dependence, names: list[str]) -> tuple[str, int, tuple]:
    """Dim, number and labels of the subjects, whose random effects are given."""
    axes = [axis for name in names if (axis := unit_axis(dependence, name)) is not None]
    dim = next((axis[0] for axis in axes if axis[0]), None)
    n_subjects = int(axes[0][1])
    coords = dependence.model.coords.get(dim) if dim else None
    labels = tuple(coords) if coords is not None else tuple(range(n_subjects))
    return dim or "subject", n_subjects, labels


def subjects_of_units(
    units: RowsOfAxes,
    subjects: list[np.ndarray],
    by_law: Mapping[Axis, np.ndarray],
    crossed: Callable[[Axis, int, int, int], UnsupportedModelError],
) -> dict[Axis, np.ndarray]:
    """Subject of each unit of the lower axes.

    Parameters
    ----------
    units : dict
        Of each axis: the unit of each row of each observed variable, -1 for none.
    subjects : list of ndarray
        Subject of each row of each observed variable, -1 where only the units determine it.
    by_law : dict
        Of each axis: subject on whose effects the distribution of a unit depends, (unit,), -1 for
        none.
    crossed : callable
        ``crossed(axis, unit, a, b)`` is the error where a unit has two subjects.

    Raises
    ------
    UnsupportedModelError
        When a unit has rows of two subjects, or no row.
    """
    found = {}
    for axis, rows_of_outcomes in units.items():
        unit, subject = (np.concatenate(parts) for parts in (rows_of_outcomes, subjects))
        known = (unit >= 0) & (subject >= 0)
        owned = np.flatnonzero(by_law[axis] >= 0)
        unit = np.concatenate([owned, unit[known]])
        subject = np.concatenate([by_law[axis][owned], subject[known]])
        unit_subject = np.full(axis[1], -1)
        unit_subject[unit] = subject
        if (wrong := np.flatnonzero(unit_subject[unit] != subject)).size:
            entry = int(unit[wrong].min())
            raise crossed(axis, entry, *np.unique(subject[unit == entry])[:2].tolist())
        if (unit_subject < 0).any():
            raise UnsupportedModelError(
                f"Entry {int(np.flatnonzero(unit_subject < 0)[0])} of the random effects per {axis[0] or 'unit'} has no row of data, and its "
                "distribution does not identify a subject. Remove such entries."
            )
        found[axis] = unit_subject
    return found


def fill_subjects(
    subjects: list[np.ndarray], units: RowsOfAxes, unit_subjects: Mapping[Axis, np.ndarray]
) -> list[np.ndarray]:
    """Subjects of the rows, where a row reaches its subject through a unit only."""
    filled = [subject.copy() for subject in subjects]
    for axis, rows_of_outcomes in units.items():
        for subject, rows in zip(filled, rows_of_outcomes, strict=True):
            missing = (subject < 0) & (rows >= 0)
            subject[missing] = unit_subjects[axis][rows[missing]]
    return filled
