"""The model that predictions are made with: the fitted one, one with other data, or one that is built for them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pymc as pm
from pymc.exceptions import ImputationWarning
from pytensor.graph.traversal import ancestors


@contextmanager
def model_with(model: pm.Model | Callable[[Any], pm.Model], data: Any) -> Iterator[pm.Model]:
    """The model with its data, while predictions are made; shared data are put back afterwards, also after an error.

    Raises
    ------
    TypeError
        When ``model`` is neither a model nor a function that returns one, or ``data`` does not go
        with it.
    ValueError
        When ``data`` names what is no ``pm.Data`` of the model.
    """
    if not isinstance(model, pm.Model):
        yield _built(model, data)
    elif data is None:
        yield model
    elif isinstance(data, Mapping):
        with _set_data(model, data):
            yield model
    else:
        raise TypeError(
            f"data is a {type(data).__name__}; with a pm.Model it must be a mapping of the names of its pm.Data to values. Other "
            "data need the function that builds the model: predict(build_model, idata, data)."
        )


def _built(build: Any, data: Any) -> pm.Model:
    if not callable(build):
        raise TypeError(
            f"model must be a pm.Model, or a function of the data that returns one; got {build!r}."
        )
    with warnings.catch_warnings():
        # rows without an observation are what is to be predicted
        warnings.simplefilter("ignore", ImputationWarning)
        _check_call(build, data)
        model = build(data)
    if not isinstance(model, pm.Model):
        raise TypeError(
            f"The function that builds the model must return a pm.Model; it returned {model!r}."
        )
    return model


def _check_call(build: Callable, data: Any) -> None:
    try:
        inspect.signature(build).bind(data)
    except TypeError as error:
        raise TypeError(
            f"model is a function that cannot be called with the data alone: {error}."
        ) from error
    except ValueError:  # one written in C, which does not say
        pass


def _checked(name: str, value: Any, known: np.ndarray, may_be_missing: bool) -> np.ndarray:
    """Numbers where the model has numbers; PyMC would fail in its own words, or a row without a covariate seem to be nobody's."""
    array = np.asarray(value)
    if known.dtype.kind in "fiu" and array.dtype.kind not in "fiub":
        numbers = _as_numbers(array)
        if numbers is None:
            raise TypeError(
                f"data[{name!r}] must hold numbers, as in the model; got {array.dtype}."
            )
        array = numbers
    if array.dtype.kind == "f" and not may_be_missing and np.isnan(array).any():
        place = [int(k) for k in np.argwhere(np.isnan(array))[0]]
        raise ValueError(
            f"data[{name!r}] is missing (NaN) at {place}; only outcomes may be missing."
        )
    return array


def _as_numbers(array: np.ndarray) -> np.ndarray | None:
    """Objects as numbers; None where they are none, or the array holds something else."""
    try:
        return array.astype(float) if array.dtype.kind == "O" else None
    except (TypeError, ValueError):
        return None


@contextmanager
def _set_data(model: pm.Model, data: Mapping) -> Iterator[None]:
    known = [v.name for v in model.data_vars]
    dims = [dim for dim in data if dim in model.coords and dim not in known]
    unknown = [name for name in data if name not in known and name not in dims]
    if unknown:
        raise ValueError(
            f"data names {', '.join(map(repr, unknown))}; the pm.Data of the model are {', '.join(map(repr, known)) or 'none'}. "
            "Everything else is a constant of the model: pass the function that builds the model instead."
        )
    names = [name for name in data if name in known]
    before = {name: np.array(model[name].get_value()) for name in names}
    coords = {dim: model.coords[dim] for dim in dims}
    outcomes = {v.name for v in ancestors([model.rvs_to_values[rv] for rv in model.observed_RVs])}
    new = {name: _checked(name, data[name], before[name], name in outcomes) for name in names}
    try:
        for name in names:
            model.set_data(name, new[name], coords=_coords_of(model, name, data, dims))
        yield
    finally:
        for name in names:
            model.set_data(name, before[name], coords=_coords_of(model, name, coords, dims))


def _coords_of(model: pm.Model, name: str, values: Mapping, dims: Collection[str]) -> dict:
    return {dim: values[dim] for dim in model.named_vars_to_dims.get(name, ()) if dim in dims}
