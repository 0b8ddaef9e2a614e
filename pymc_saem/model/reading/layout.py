"""Lays the random effects out as columns of phi, and the parameters as entries of theta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pymc as pm
from pymc.logprob.transforms import LogOddsTransform, LogTransform
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.model.density.laws import LawOfPhi
from pymc_saem.model.density.point_map import PointMap, natural_shape
from pymc_saem.model.density.symbols import model_value
from pymc_saem.model.mixed_model import (
    Block,
    MixedModel,
    Parameter,
    RandomEffect,
    UnsupportedModelError,
)
from pymc_saem.model.normal.affine import AffineImage, find_images
from pymc_saem.model.normal.latents import Latent, latent_of
from pymc_saem.model.normal.parametrization import form_of, law_of

_LINKS = {
    "NormalRV": "identity",
    "MvNormalRV": "identity",
    "LogNormalRV": "log",
    "LogitNormal": "logit",
}
_TRANSFORMS = {"identity": type(None), "log": LogTransform, "logit": LogOddsTransform}


def lay_out_effects(
    model: pm.Model,
    point: Mapping[str, np.ndarray],
    axes: dict[str, int],
    unit_subjects: Mapping[str, np.ndarray],
) -> tuple[RandomEffect, ...]:
    """Blocks of random effects; those of a known family are Gaussian until :func:`with_general_laws` checks them.

    Parameters
    ----------
    axes : dict
        Name of each random effect, in the model's order: the axis of its subjects or units.
    unit_subjects : dict
        Name of each random effect of the lower level: subject of each of its units, (unit,).
    """
    effects, start = [], 0
    for name, axis in axes.items():
        rv = model[name]
        value, transform = model.rvs_to_values[rv], model.rvs_to_transforms.get(rv)
        kind = type(rv.owner.op).__name__
        link = _LINKS.get(kind) or _LINKS.get(kind.removesuffix("RV")) or "value"
        expected = _TRANSFORMS.get(link, ())
        is_gaussian = link != "value" and (transform is None or isinstance(transform, expected))
        shape = point[value.name].shape
        if not is_gaussian:
            link = "value"
            _refuse_shape(name, kind, rv, value, shape)
        effect = RandomEffect(
            name=name,
            value_name=value.name,
            shape=shape,
            columns=slice(start, start),
            link=link,
            value_is_phi=link == "value" or isinstance(transform, expected),
            dims=tuple(model.named_vars_to_dims.get(name, (None,) * len(shape))),
            is_gaussian=is_gaussian,
            unit_subject=unit_subjects.get(name),
            is_network=any(_is_network(v) for v in ancestors(rv.owner.inputs)),
            form=form_of(model, name, list(axes)) if is_gaussian else "direct",
            axis=axis,
        )
        size = int(np.prod(effect.event_shape, dtype=int)) * effect.n_slots
        effects.append(replace(effect, columns=slice(start, start + size)))
        start += size
    return tuple(effects)


def with_images(mixed: MixedModel, point: Mapping[str, np.ndarray]) -> MixedModel:
    """The layout with effects of the form "standard" found: standard normal ones that enter the model through affine images."""
    model, effects = mixed.model, mixed.random_effects
    latents: dict[int, list[Latent]] = {}
    image_of: dict[str | None, AffineImage] = {}
    for effect in effects:
        if effect.form == "direct" and (
            latent := latent_of(model, effect.name, effect.shape, effect.axis)
        ):
            latents.setdefault(effect.n_units, []).append(latent)
    others = {model[effect.name] for effect in effects}
    for of_axis in latents.values():
        for image in find_images(model, point, of_axis, others):
            image_of |= {latent.rv.name: image for latent in image.latents}
    found = [
        replace(e, form="standard", image=image_of[e.name]) if e.name in image_of else e
        for e in effects
    ]
    return replace(mixed, random_effects=tuple(found))


def _is_network(variable: Variable) -> bool:
    """Whether ``nn.weights`` made a variable; known by its protocol, as this layer does not import ``nn``."""
    return variable.owner is not None and getattr(variable.owner.op, "is_network_weights", False)


def _refuse_shape(
    name: str, kind: str, rv: TensorVariable, value: TensorVariable, shape: tuple[int, ...]
) -> None:
    if value.type.ndim != rv.type.ndim or any(
        None not in (a, b) and a != b for a, b in zip(value.type.shape, rv.type.shape, strict=True)
    ):
        raise UnsupportedModelError(
            f"The random effect '{name}' is a {kind.removesuffix('RV')}, whose unconstrained value has a different "
            f"shape ({shape}). Write it with a distribution of free entries, such as a Normal on a scale of your choice."
        )


def lay_out_parameters(
    model: pm.Model, point: Mapping[str, np.ndarray], left_out: set[str]
) -> tuple[Parameter, ...]:
    """Every free variable that is not left out, as a slice of theta."""
    parameters, start = [], 0
    for rv in model.free_RVs:
        if rv.name in left_out:
            continue
        value = model.rvs_to_values[rv]
        shape = point[value.name].shape
        size = int(np.prod(shape, dtype=int))
        natural = natural_shape(model, rv, point[value.name])
        dims = tuple(model.named_vars_to_dims.get(rv.name, (None,) * len(natural)))
        columns = slice(start, start + size)
        parameters.append(
            Parameter(rv.name, value.name, shape, columns, dims, natural, _is_network(rv))
        )
        start += size
    return tuple(parameters)


def with_general_laws(mixed: MixedModel, point: Mapping[str, np.ndarray]) -> MixedModel:
    """The layout with Gaussian blocks only where their distribution is one mean and one covariance without other random effects.

    The density of the others joins the compiled likelihood.
    """
    general = {
        e.name for b in mixed.blocks if _depends_on_other_effects(mixed, b) for e in b.effects
    }
    mixed = _with_general(mixed, general)
    law = LawOfPhi(mixed, PointMap(mixed).theta_of(point))
    mixed = _with_general(
        mixed, {e.name for b in law.blocks if not law.is_shared(b) for e in b.effects}
    )
    effects = mixed.random_effects
    for effect in effects:
        if effect.is_nested and not effect.is_gaussian:
            upper = next(e for e in effects if not e.is_nested)
            raise UnsupportedModelError(
                f"The random effect '{effect.name}' of the lower level ({effect.unit_dim or 'unit'}) must be Normal, LogNormal, "
                f"LogitNormal or MvNormal, with the same covariance for all units. If '{upper.name}' is a parameter, such as the mean of "
                f"a group, and not a random effect, declare the effects: random_effects=['{effect.name}']."
            )
    return mixed


def _with_general(mixed: MixedModel, names: set[str]) -> MixedModel:
    effects = [
        replace(e, is_gaussian=e.is_gaussian and e.name not in names) for e in mixed.random_effects
    ]
    return replace(mixed, random_effects=tuple(effects))


def _depends_on_other_effects(mixed: MixedModel, block: Block) -> bool:
    rv = mixed.model[block.effects[0].name]
    graphs = law_of(mixed.model, block) if block.is_gaussian else list(rv.owner.inputs)
    reached = set(ancestors(mixed.model.replace_rvs_by_values(graphs)))
    own = {effect.name for effect in block.effects}
    return any(
        model_value(mixed, e.name) in reached for e in mixed.random_effects if e.name not in own
    )
