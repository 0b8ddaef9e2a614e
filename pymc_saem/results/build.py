"""Builds the groups of a fit (posterior, saem_trace, population, individual, ...) from plain arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from pymc_saem.compat import InferenceData, make_datatree
from pymc_saem.results.labels import as_labels

#: Names of the axes of an array; None for one without a name.
Dims = tuple[str | None, ...]
#: ``attempt(stage, work)`` returns ``work()``, or None if that fails.
Attempt = Callable[[str, Callable[[], Any]], Any]


@dataclass(frozen=True)
class Variable:
    """An array with the names of its dims, before the leading chain, draw or iteration axes."""

    dims: Dims
    values: np.ndarray


@dataclass
class FitResult:
    """A finished fit as plain data: what :func:`build_datatree` turns into ArviZ groups."""

    coords: Mapping[str, Any]  # of the model's dims
    trace: Mapping[str, Variable]  # values (chain, iteration, ...)
    # columns of the table of parameters, and matrices (parameter, parameter)
    population: Mapping[str, np.ndarray]
    observed: Mapping[str, Variable]
    constant: Mapping[str, Variable]
    posterior: Mapping[str, Variable] | None = None  # values (chain, draw, ...)
    sample_stats: Mapping[str, Variable] | None = None
    individual: Mapping[str, Variable] | None = None
    # of dims of this group alone
    individual_coords: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, bytes] | None = None  # the state for a later run
    attrs: dict[str, Any] = field(default_factory=dict)
    group_attrs: dict[str, dict[str, Any]] = field(default_factory=dict)


#: Without these, there is no fit.
ESSENTIAL = ("saem_trace", "population")


def _just_do(stage: str, work: Callable[[], Any]) -> Any:
    return work()


def build_datatree(result: FitResult, attempt: Attempt = _just_do) -> InferenceData:
    """``arviz.InferenceData`` (ArviZ below 1) or ``xarray.DataTree`` with the groups of a fit.

    Parameters
    ----------
    result : FitResult
    attempt : callable
        ``attempt(stage, work)`` returns ``work()``, or None if that fails and the failure is noted
        elsewhere; then the stage is done in a simpler way, or left out. By default, failures are
        raised.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Groups posterior, sample_stats, saem_trace, population, individual, observed_data,
        constant_data and saem_state, as far as the result has them.
    """
    sampled, coords = ("chain", "draw"), result.coords
    variables: dict[
        str, tuple[Mapping[str, Variable] | None, tuple[str, ...], Mapping[str, Any]]
    ] = {
        "posterior": (result.posterior, sampled, coords),
        "sample_stats": (result.sample_stats, sampled, coords),
        "saem_trace": (result.trace, ("chain", "iteration"), coords),
        "population": (
            _columns(result.population),
            (),
            dict.fromkeys(("parameter", "parameter_bis"), result.population["parameter"]),
        ),
        "individual": (result.individual, (), {**coords, **result.individual_coords}),
        "observed_data": (result.observed, (), coords),
        "constant_data": (result.constant, (), coords),
    }
    found = {name: _group(name, *arguments, attempt) for name, arguments in variables.items()}
    found["saem_state"] = attempt("The group 'saem_state'", lambda: _bytes(result.state))
    groups = {name: group for name, group in found.items() if group is not None}
    for name, attrs in result.group_attrs.items():
        if name in groups:
            attempt(f"Attributes of '{name}'", partial(_describe, groups[name], attrs))
    return _container(groups, result.attrs, attempt)


def storable(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that netCDF can hold: None, bools, dicts and lists become JSON text."""
    out = {}
    for name, value in attrs.items():
        keep = isinstance(value, str | int | float | np.number) and not isinstance(value, bool)
        out[name] = value if keep else json.dumps(value)
    return out


def _describe(group: xr.Dataset, attrs: Mapping[str, Any]) -> None:
    group.attrs.update(storable(attrs))


def _container(
    groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any], attempt: Attempt
) -> InferenceData:
    """All groups together; where that fails, those that can be together, the essential ones first."""
    whole = attempt("The groups together", lambda: make_datatree(groups, storable(attrs)))
    if whole is not None:
        return whole
    kept: dict[str, xr.Dataset] = {}
    for name in sorted(groups, key=lambda name: name not in ESSENTIAL):
        more = kept | {name: groups[name]}
        if attempt(f"The group '{name}'", partial(make_datatree, more, {})) is not None:
            kept = more
    return make_datatree(
        kept, {name: value for name, value in attrs.items() if isinstance(value, str)}
    )


def _group(
    name: str,
    variables: Mapping[str, Variable] | None,
    leading: tuple[str, ...],
    coords: Mapping[str, Any],
    attempt: Attempt,
) -> xr.Dataset | None:
    """A group; where its variables do not go together, as many of them as do, without labels where these are the reason."""
    if not variables:
        return None
    whole = attempt(f"The group '{name}'", lambda: _dataset(variables, leading, coords))
    if whole is not None:
        return whole
    found = xr.Dataset()
    for key, variable in variables.items():
        for what, given in (
            (f"'{key}' in '{name}'", coords),
            (f"'{key}' in '{name}' without labels", None),
        ):
            more = attempt(what, partial(_joined, found, {key: variable}, leading, given))
            if more is not None:
                found = more
                break
    return found if found.data_vars else None


def _joined(
    found: xr.Dataset,
    variables: Mapping[str, Variable],
    leading: tuple[str, ...],
    coords: Mapping[str, Any] | None,
) -> xr.Dataset:
    return found.merge(_dataset(variables, leading, coords), compat="no_conflicts", join="exact")


def _dataset(
    variables: Mapping[str, Variable], leading: tuple[str, ...], coords: Mapping[str, Any] | None
) -> xr.Dataset:
    """Variables on their dims; without ``coords``, dims other than the leading ones have no names and no labels either."""
    arrays: dict[str, tuple[list[str], np.ndarray]] = {}
    used: dict[str, np.ndarray] = {}
    for name, variable in variables.items():
        values = np.asarray(variable.values)
        given = variable.dims if coords is not None else ()
        dims = [*leading, *_name_dims(name, given, values.ndim - len(leading))]
        for axis, (dim, length) in enumerate(zip(dims, values.shape, strict=True)):
            # twice, or of another length elsewhere
            if dims.index(dim) < axis or dim in used and len(used[dim]) != length:
                dims[axis] = dim = f"{name}_dim_{axis - len(leading)}"
            if dim not in used:
                known = (coords or {}).get(dim)
                if known is not None and len(known) == length and dim not in leading:
                    used[dim] = as_labels(known)
                else:
                    used[dim] = np.arange(length)
        arrays[name] = (dims, values)
    return xr.Dataset(arrays, coords=used)


def _columns(columns: Mapping[str, np.ndarray]) -> dict[str, Variable]:
    """Columns of the table of parameters, and matrices whose columns are parameters too."""
    both = ("parameter", "parameter_bis")
    arrays = {name: np.asarray(values) for name, values in columns.items() if name != "parameter"}
    return {name: Variable(both[: values.ndim], values) for name, values in arrays.items()}


def _bytes(data: Mapping[str, bytes] | None) -> xr.Dataset | None:
    if not data:
        return None
    return xr.Dataset(
        {name: (f"{name}_byte", np.frombuffer(x, dtype=np.uint8)) for name, x in data.items()}
    )


def _name_dims(name: str, dims: Dims, ndim: int) -> list[str]:
    """PyMC's habit for axes without a name: ``x_dim_0``."""
    dims = (tuple(dims) + (None,) * ndim)[:ndim]
    return [dim or f"{name}_dim_{axis}" for axis, dim in enumerate(dims)]
