"""Reads a PyMC model: finds its random effects, population parameters, and the subject of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pymc as pm
from pymc.logprob.transforms import LogOddsTransform, LogTransform
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import observed_variables
from pymc_saem.saem.densities import row_density, row_logps
from pymc_saem.saem.interpreted import has_python_only_ops
from pymc_saem.saem.model import MixedModel, Outcome, Parameter, RandomEffect, UnsupportedModelError
from pymc_saem.saem.point import PointMap, initial_point
from pymc_saem.saem.rows import find_finite_start, subjects_of_rows


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
        When no random effect is found, when a random effect lacks the subject axis, when a row
        depends on two subjects, when a parameter influences nothing, or when data are missing.
    """
    _refuse_what_is_not_read(model)
    point = initial_point(model)
    names = _find_random_effects(model, point, random_effects)
    _refuse_unused(model)
    dim, n_subjects, labels = _subject_axis(model, point, names)
    effects = _lay_out_effects(model, point, names, n_subjects)
    parameters = _lay_out_parameters(model, point, names)
    mixed = MixedModel(model, dim, labels, effects, parameters, ())
    return replace(mixed, outcomes=_find_rows(mixed, rng or np.random.default_rng(0)))


def _find_rows(mixed: MixedModel, rng) -> tuple[Outcome, ...]:
    density = row_density(mixed)
    points = PointMap(mixed)
    names = [rv.name for rv in observed_variables(mixed.model)]
    theta, phi = find_finite_start(
        density, points.theta_of(points.template), points.phi_of(points.template), names, rng
    )
    noise = _SHARED_STEPS if has_python_only_ops(row_logps(mixed)) else 0.0
    rows = subjects_of_rows(density, theta, phi, names, rng, noise)
    return tuple(Outcome(name, row_subject) for name, row_subject in zip(names, rows, strict=True))


def _refuse_what_is_not_read(model: pm.Model) -> None:
    if not observed_variables(model):
        raise UnsupportedModelError(
            "The model has no observed variable. SAEM needs data: give one variable observed=..."
        )
    if model.potentials:
        raise UnsupportedModelError(
            f"pm.Potential terms ({', '.join(p.name for p in model.potentials)}) cannot be assigned to a subject. "
            "Write them as a distribution, or remove them."
        )
    if model.discrete_value_vars:
        names = ", ".join(model.values_to_rvs[v].name for v in model.discrete_value_vars)
        raise UnsupportedModelError(f"Free discrete variables ({names}) are not supported. Marginalize them out.")
    for rv in model.free_RVs:
        if type(rv.owner.op).__name__ == "PartialObservedRV" or rv.name.endswith("_unobserved"):
            name = rv.name.removesuffix("_unobserved")
            raise UnsupportedModelError(
                f"The observed data of '{name}' have missing values (NaN or masked), which PyMC turned into the "
                f"free variable '{rv.name}'. Drop those rows from the data before building the model."
            )
    for rv in observed_variables(model):
        data = model.rvs_to_values[rv]
        values = getattr(data, "data", None)
        values = data.get_value() if values is None and hasattr(data, "get_value") else values
        if values is not None and not np.all(np.isfinite(np.asarray(values, dtype=float))):
            row = int(np.flatnonzero(~np.isfinite(np.asarray(values, dtype=float).ravel()))[0])
            raise UnsupportedModelError(
                f"The observed data of '{rv.name}' are not finite in row {row}. Drop missing rows before building the model."
            )


def parents_of(model: pm.Model, rv: Variable) -> set[str]:
    """Names of the free variables that the distribution of ``rv`` depends on."""
    free = set(model.free_RVs)
    return {v.name for v in ancestors(rv.owner.inputs) if v in free}


def _find_random_effects(model, point, chosen) -> list[str]:
    free = {rv.name: rv for rv in model.free_RVs}
    if chosen is not None:
        chosen = [chosen] if isinstance(chosen, str) else list(chosen)
        unknown = [name for name in chosen if name not in free]
        if unknown:
            raise UnsupportedModelError(f"random_effects names {unknown}, but the free variables are {sorted(free)}.")
        if not chosen:
            raise UnsupportedModelError("random_effects is empty. Name at least one free variable, or leave it out.")
        return [name for name in free if name in chosen]
    parents = {name: parents_of(model, rv) for name, rv in free.items()}
    has_children = set().union(*parents.values()) if parents else set()
    leaves = [name for name in free if name not in has_children]
    candidates = [name for name in leaves if parents[name]] or leaves
    axes = {_first_axis(model, free[name], point) for name in candidates}
    axes = {axis for axis in axes if axis is not None}
    if not axes:
        raise UnsupportedModelError(
            "No random effect was found: no free variable has one entry per subject and a distribution that depends on "
            f"population parameters. The free variables are {_shapes(model, point)}. Give the random effect "
            'dims=("subject", ...), or name it in random_effects=[...].'
        )
    if len(axes) > 1:
        named = sorted(str(axis) for axis in axes)
        raise UnsupportedModelError(
            f"More than one grouping axis was found: {', '.join(named)}. Name the random effects of one level in random_effects=[...]."
        )
    (axis,) = axes
    effects = [name for name in leaves if _first_axis(model, free[name], point) == axis]
    return [name for name in free if name in effects]


def _first_axis(model, rv, point) -> tuple | None:
    """The first axis of a free variable, by dim name or else by length; None for a scalar."""
    shape = point[model.rvs_to_values[rv].name].shape
    n_support = getattr(rv.owner.op, "ndim_supp", 0)
    if len(shape) - n_support < 1:
        return None
    dims = model.named_vars_to_dims.get(rv.name)
    return (dims[0], shape[0]) if dims else (None, shape[0])


def _shapes(model, point) -> str:
    return ", ".join(f"{rv.name}{point[model.rvs_to_values[rv].name].shape}" for rv in model.free_RVs)


def _subject_axis(model, point, names) -> tuple[str, int, tuple]:
    rvs = [model[name] for name in names]
    axes = [_first_axis(model, rv, point) for rv in rvs]
    for name, axis in zip(names, axes, strict=True):
        if axis is None:
            shape = point[model.rvs_to_values[model[name]].name].shape
            raise UnsupportedModelError(
                f"The random effect '{name}' has shape {shape} and no subject axis. Its first axis must be the subject: "
                f'give it dims=("subject", ...).'
            )
    if len({axis[1] for axis in axes}) > 1 or len({axis[0] for axis in axes if axis[0]}) > 1:
        listed = ", ".join(f"'{n}' has {a[0] or 'length'} {a[1]}" for n, a in zip(names, axes, strict=True))
        raise UnsupportedModelError(f"The random effects do not share one subject axis: {listed}.")
    dim = next((axis[0] for axis in axes if axis[0]), None)
    n_subjects = int(axes[0][1])
    coords = model.coords.get(dim) if dim else None
    labels = tuple(coords) if coords is not None else tuple(range(n_subjects))
    return dim or "subject", n_subjects, labels


#: A solver that takes all subjects as one system chooses its steps for all of them, so each row changes a little with
#: everybody's phi: by 4e-8 of its own subject's part at sunode's tolerances (four decays).
#: PyTensor's own operations have no such noise.
_SHARED_STEPS = 1e-4
_LINKS = {"NormalRV": "identity", "MvNormalRV": "identity", "LogNormalRV": "log", "LogitNormal": "logit"}


def _lay_out_effects(model, point, names, n_subjects) -> tuple[RandomEffect, ...]:
    effects, start = [], 0
    for name in names:
        rv = model[name]
        kind = type(rv.owner.op).__name__
        link = _LINKS.get(kind) or _LINKS.get(kind.removesuffix("RV"))
        if link is None:
            raise UnsupportedModelError(
                f"The random effect '{name}' is a {kind.removesuffix('RV')}; closed-form M-steps need Normal, MvNormal, "
                "LogNormal or LogitNormal random effects."
            )
        value = model.rvs_to_values[rv]
        transform = model.rvs_to_transforms.get(rv)
        expected = {"identity": type(None), "log": LogTransform, "logit": LogOddsTransform}[link]
        if not (transform is None or isinstance(transform, expected)):
            raise UnsupportedModelError(
                f"The random effect '{name}' has the transform {type(transform).__name__}; leave the transform at its default."
            )
        shape = point[value.name].shape
        size = int(np.prod(shape[1:], dtype=int))
        effects.append(
            RandomEffect(
                name=name,
                value_name=value.name,
                shape=shape,
                columns=slice(start, start + size),
                link=link,
                value_is_phi=isinstance(transform, expected),
                dims=tuple(model.named_vars_to_dims.get(name, (None,) * len(shape))),
            )
        )
        start += size
    return tuple(effects)


def _lay_out_parameters(model, point, effect_names) -> tuple[Parameter, ...]:
    parameters, start = [], 0
    for rv in model.free_RVs:
        if rv.name in effect_names:
            continue
        value = model.rvs_to_values[rv]
        shape = point[value.name].shape
        size = int(np.prod(shape, dtype=int))
        dims = tuple(model.named_vars_to_dims.get(rv.name, (None,) * len(shape)))
        parameters.append(Parameter(rv.name, value.name, shape, slice(start, start + size), dims))
        start += size
    return tuple(parameters)


def _refuse_unused(model) -> None:
    """A free variable that no data depend on has nothing to be estimated from."""
    needed = set(ancestors([i for rv in observed_variables(model) for i in rv.owner.inputs]))
    for rv in model.free_RVs:
        if rv not in needed:
            raise UnsupportedModelError(
                f"No observed variable depends on the free variable '{rv.name}', so the data cannot estimate it. "
                "Remove it from the model."
            )
