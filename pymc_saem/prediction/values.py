"""Values of a model's parameters: from a fit, or as the user gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pymc as pm
from pymc.logprob.transforms import LogOddsTransform, LogTransform
from pytensor.tensor.variable import TensorVariable

from pymc_saem.arguments import shown
from pymc_saem.model.density.point_map import initial_point
from pymc_saem.model.dependence.axes import FirstAxes
from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.model.outcomes import missing_parts
from pymc_saem.model.read import read_model
from pymc_saem.model.reading.levels import find_random_effects
from pymc_saem.results.fit import Fit


def names_of_effects(
    model: pm.Model,
    values: Mapping[str, Any] | None = None,
    random_effects: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Names of the random effects of a model that was not fitted.

    Where the user gives a value for what looks like a random effect, the model is read in full,
    which distinguishes vectors of parameters from random effects.
    """
    missing = missing_parts(model)
    found = find_random_effects(FirstAxes(model, initial_point(model)), random_effects, missing)
    if random_effects is None and set(found) & set(values or {}):
        try:
            found = [effect.name for effect in read_model(model).random_effects]
        except UnsupportedModelError:  # such as data that are not there yet
            pass
    return tuple(found)


def check_values(
    model: pm.Model, parameters: tuple[str, ...], effects: tuple[str, ...], values: Mapping
) -> dict[str, np.ndarray]:
    """Natural values of all parameters of a model, checked.

    Raises
    ------
    ValueError
        When a value is missing, has another shape, or is not finite, or a name is not a parameter;
        the message names them.
    """
    _check_names(parameters, effects, values)
    checked = {}
    for name in parameters:
        rv = model[name]
        value = np.asarray(values[name])
        if not np.issubdtype(value.dtype, np.number) or not np.all(np.isfinite(value)):
            raise ValueError(
                f"The value of parameter '{name}' must be finite numbers, got {shown(values[name])}."
            )
        expected = _shape_of(model, rv)
        if value.shape != expected:
            raise ValueError(
                f"The value of parameter '{name}' has shape {value.shape}; the model needs {expected}."
            )
        _check_support(model, rv, value)
        checked[name] = value.astype(rv.dtype)
    return checked


def _check_support(model: pm.Model, rv: TensorVariable, value: np.ndarray) -> None:
    """Refuse what the prior excludes, where that is an interval whose ends are known."""
    transform, low, high = model.rvs_to_transforms.get(rv), -np.inf, np.inf
    if isinstance(transform, LogTransform):
        low = 0.0
    elif isinstance(transform, LogOddsTransform):
        low, high = 0.0, 1.0
    if np.any(value < low) or np.any(value > high):
        raise ValueError(
            f"The value of parameter '{rv.name}' is {value}, outside the support of its prior: {low:g} to {high:g}."
        )


def _check_names(parameters: tuple[str, ...], effects: tuple[str, ...], values: Mapping) -> None:
    drawn = [name for name in values if name in effects]
    if drawn:
        raise ValueError(
            f"{_listed(drawn)} cannot be given: random effects are drawn from their distribution. The parameters are "
            f"{_listed(parameters)}."
        )
    unknown = [name for name in values if name not in parameters]
    if unknown:
        raise ValueError(
            f"The model has no parameter {_listed(unknown)}; it has {_listed(parameters) or 'none'}."
        )
    lacking = [name for name in parameters if name not in values]
    if lacking:
        raise ValueError(
            f"Parameters without a value: {_listed(lacking)}. Give a natural value for each of them."
        )


def _shape_of(model: pm.Model, rv: TensorVariable) -> tuple[int, ...]:
    """Shape of a parameter on the natural scale."""
    dims = model.named_vars_to_dims.get(rv.name) or ()
    shape = []
    for axis, static in enumerate(rv.type.shape):
        dim = dims[axis] if axis < len(dims) else None
        coords = model.coords.get(dim) if dim is not None else None
        if static is None and coords is None:
            shape.append(initial_point(model)[model.rvs_to_values[rv].name].shape[axis])
        else:
            shape.append(static if coords is None else len(coords))
    return tuple(shape)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def fitted_values(model: pm.Model, parameters: tuple[str, ...], fit: Fit) -> dict[str, np.ndarray]:
    """Natural estimates of all parameters of a model, which may have other rows and subjects than the fitted one.

    Raises
    ------
    ValueError
        When the fit lacks a parameter of the model, or has it in another shape.
    """
    found = {name: fit.estimate(name) for name in parameters}
    values = {name: value for name, value in found.items() if value is not None}
    lacking = [name for name in parameters if name not in values]
    if lacking:
        raise ValueError(
            f"This is not a fit of this model: it has no parameter {_listed(lacking)}."
        )
    for name, value in values.items():
        expected = _shape_of(model, model[name])
        if value.shape != expected:
            raise ValueError(
                f"Parameter '{name}' has shape {value.shape} in the fit and {expected} in the model. The model must have the "
                "estimated parameters; its rows and subjects may differ."
            )
    return values


def choose_draws(n_available: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of n draws: each of them as often as the others, as far as possible, in random order."""
    rounds = -(-n // n_available)
    return np.concatenate([rng.permutation(n_available) for _ in range(rounds)])[:n]
