"""Names that a fit has itself, and a model may not have; refused before the first iteration, as they would be lost or overwritten."""

from __future__ import annotations

from collections.abc import Iterable

from pymc_saem.arguments import shown
from pymc_saem.compat import observed_variables
from pymc_saem.model.mixed_model import MixedModel, UnsupportedModelError
from pymc_saem.saem.report.groups import (
    INDIVIDUAL,
    OF_EFFECT,
    OWN_DIMS,
    apart,
    dims_of,
    dims_of_effect,
    owners,
)

#: Variables of a model by name, with their dims.
Named = dict[str, tuple[str, ...]]


def own_names(mixed: MixedModel, stats: Iterable[str]) -> dict[str, set[str]]:
    """Variables and dims of each group that a fit adds to those of the model, from where the groups are built.

    Parameters
    ----------
    stats : iterable of str
        Statistics of iterations.
    """
    sampled, ours = {"chain", "draw"}, owners(mixed)
    return {
        "posterior": sampled,
        "saem_trace": {"chain", "iteration", *stats},
        "individual": {"effect", *INDIVIDUAL},
        "observed_data": set(),
        "constant_data": {
            *ours,
            *(dim for name, x in ours.items() for dim in _named(name, x.dims, x.values.ndim)),
        },
    }


def names_of_model(mixed: MixedModel) -> dict[str, Named]:
    """Variables of the model in each group."""
    model, of_dims = mixed.model, mixed.model.named_vars_to_dims
    outcomes = {
        rv.name: _named(rv.name, of_dims.get(rv.name) or (), rv.type.ndim)
        for rv in observed_variables(model)
    }
    parameters = {
        p.name: _named(p.name, dims_of(p), len(p.natural_shape)) for p in mixed.parameters
    }
    effects = {
        e.name: _named(e.name, dims_of_effect(mixed, e), len(e.shape)) for e in mixed.random_effects
    }
    computed = {
        d.name: _named(d.name, of_dims.get(d.name) or (), d.type.ndim) for d in model.deterministics
    }
    data = {v.name: _named(v.name, of_dims.get(v.name) or (), v.type.ndim) for v in model.data_vars}
    return {
        "posterior": parameters | effects | computed,
        "saem_trace": {name: apart(name, dims) for name, dims in parameters.items()},
        "individual": {
            f"{name}_{what}": apart(name, dims)
            for name, dims in effects.items()
            for what in OF_EFFECT
        },
        "observed_data": outcomes,
        "constant_data": {name: dims for name, dims in data.items() if name not in outcomes},
    }


def _named(name: str, dims: Iterable[str | None], ndim: int) -> tuple[str, ...]:
    """Dims as a group has them: those without a name get the variable's."""
    dims = (tuple(dims) + (None,) * ndim)[:ndim]
    return tuple(dim or f"{name}_dim_{axis}" for axis, dim in enumerate(dims))


def refuse_names(mixed: MixedModel, stats: Iterable[str]) -> None:
    """Refuse a model whose names, or labels of subjects, a fit could not keep apart from its own or from each other.

    Raises
    ------
    UnsupportedModelError
        Names what collides, and with what.
    """
    own, of_model = own_names(mixed, stats), names_of_model(mixed)
    for group, named in of_model.items():
        dims = {dim for of_one in named.values() for dim in of_one}
        for name in named:
            _refuse_unstorable(name)
            if name in own[group]:
                _refuse(
                    name,
                    f"a fit already has a variable or dim of that name, in its group '{group}'",
                )
            if name in dims:
                _refuse(
                    name,
                    f"'{name}' is a dim of the model as well, and the group '{group}' of a fit has both",
                )
        for dim in dims:
            _refuse_unstorable(dim)
            if dim in own[group]:
                _refuse(
                    dim,
                    f"it is a dim of the model, and a fit already uses this name, in its group '{group}'",
                )
    if mixed.subject_dim in own["individual"] | set(OWN_DIMS):
        _refuse(
            mixed.subject_dim,
            "it is the dim of the subjects, and a fit already uses this name, in its group 'individual'",
        )
    _refuse_equal_labels(mixed)
    _refuse_unstorable_labels(
        mixed, {dim for named in of_model.values() for dims in named.values() for dim in dims}
    )


def _refuse(name: str, why: str) -> None:
    raise UnsupportedModelError(
        f"The name '{name}' cannot be used: {why}. Rename it in the model, such as 'my_{name}'."
    )


def _refuse_unstorable(name: str) -> None:
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise UnsupportedModelError(
            f"The name {name!r} cannot be used: xarray and netCDF take '/' for a path, and store no empty name and no name of dots alone. "
            "Rename it in the model, such as 'CL_F' for 'CL/F'."
        )


def _refuse_equal_labels(mixed: MixedModel) -> None:
    seen: dict[str, object] = {}
    for label in mixed.subjects:
        if str(label) in seen:
            raise UnsupportedModelError(
                f"Two of the labels of '{mixed.subject_dim}' are identical as text: {seen[str(label)]!r} and {shown(label)}. Tables and figures could "
                "not distinguish these subjects; give each a unique label."
            )
        seen[str(label)] = label


def _refuse_unstorable_labels(mixed: MixedModel, dims: Iterable[str]) -> None:
    coords = {dim: mixed.model.coords.get(dim) or () for dim in dims} | {
        mixed.subject_dim: mixed.subjects
    }
    for dim, labels in coords.items():
        for label in labels:
            if "\0" in str(label):
                raise UnsupportedModelError(
                    f"The label {label!r} of '{dim}' holds a NUL character, which no netCDF file can store. Take it out of the label."
                )
