"""Builds the groups of a fit (posterior, saem_trace, population, individual, ...) from plain arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from pymc_saem.compat import make_datatree


@dataclass(frozen=True)
class Variable:
    """An array with the names of its dims, before the leading chain, draw or iteration axes."""

    dims: tuple[str, ...]
    values: np.ndarray


@dataclass
class FitResult:
    """A finished fit as plain data: what :func:`build_datatree` turns into ArviZ groups."""

    coords: Mapping[str, Any]  # of the model's dims
    trace: Mapping[str, Variable]  # values (chain, iteration, ...)
    population: Mapping[str, np.ndarray]  # columns of the table of parameters, and matrices (parameter, parameter)
    observed: Mapping[str, Variable]
    constant: Mapping[str, Variable]
    posterior: Mapping[str, Variable] | None = None  # values (chain, draw, ...)
    sample_stats: Mapping[str, Variable] | None = None
    individual: Mapping[str, Variable] | None = None
    individual_coords: Mapping[str, Any] = field(default_factory=dict)  # of dims of this group alone
    state: Mapping[str, bytes] | None = None  # what a later run goes on from
    attrs: dict[str, Any] = field(default_factory=dict)
    group_attrs: dict[str, dict[str, Any]] = field(default_factory=dict)


def build_datatree(result: FitResult):
    """``arviz.InferenceData`` (ArviZ below 1) or ``xarray.DataTree`` with the groups of a fit.

    Parameters
    ----------
    result : FitResult

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Groups posterior, sample_stats, saem_trace, population, individual, observed_data,
        constant_data and saem_state, as far as the result has them.
    """
    groups = {
        "posterior": _dataset(result.posterior, ("chain", "draw"), result.coords),
        "sample_stats": _dataset(result.sample_stats, ("chain", "draw"), result.coords),
        "saem_trace": _dataset(result.trace, ("chain", "iteration"), result.coords),
        "population": _population(result.population),
        "individual": _dataset(result.individual, (), {**result.coords, **result.individual_coords}),
        "observed_data": _dataset(result.observed, (), result.coords),
        "constant_data": _dataset(result.constant, (), result.coords),
        "saem_state": _bytes(result.state),
    }
    groups = {name: group for name, group in groups.items() if group is not None}
    for name, attrs in result.group_attrs.items():
        if name in groups:
            groups[name].attrs.update(storable(attrs))
    return make_datatree(groups, storable(result.attrs))


def storable(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that netCDF can hold: None, bools, dicts and lists become JSON text."""
    out = {}
    for name, value in attrs.items():
        keep = isinstance(value, str | int | float | np.number) and not isinstance(value, bool)
        out[name] = value if keep else json.dumps(value)
    return out


def _dataset(variables: Mapping[str, Variable] | None, leading: tuple[str, ...], coords) -> xr.Dataset | None:
    if not variables:
        return None
    arrays, used = {}, {}
    for name, variable in variables.items():
        values = np.asarray(variable.values)
        dims = [*leading, *_name_dims(name, variable.dims, values.ndim - len(leading))]
        arrays[name] = (dims, values)
        for dim, length in zip(dims, values.shape, strict=True):
            known = coords.get(dim)
            if known is not None and len(known) == length and dim not in leading:
                used[dim] = list(known)
            else:
                used[dim] = np.arange(length)
    return xr.Dataset(arrays, coords=used)


def _bytes(data: Mapping[str, bytes] | None) -> xr.Dataset | None:
    if not data:
        return None
    return xr.Dataset({name: (f"{name}_byte", np.frombuffer(x, dtype=np.uint8)) for name, x in data.items()})


def _name_dims(name: str, dims, ndim: int) -> list[str]:
    """PyMC's habit for axes without a name: ``x_dim_0``."""
    dims = tuple(dims) + (None,) * (ndim - len(dims))
    return [dim or f"{name}_dim_{axis}" for axis, dim in enumerate(dims)]


def _population(columns: Mapping[str, np.ndarray]) -> xr.Dataset:
    columns = dict(columns)
    labels = list(columns.pop("parameter"))
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    both = ("parameter", "parameter_bis")
    data = {name: (both[: values.ndim], values) for name, values in arrays.items()}
    coords = {"parameter": labels}
    if any(values.ndim == 2 for values in arrays.values()):
        coords["parameter_bis"] = labels
    return xr.Dataset(data, coords=coords)
