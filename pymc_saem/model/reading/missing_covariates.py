"""Covariates with missing values: which one, and of which row and subject, where a model cannot be evaluated because of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.densities import NO_CHECKS
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.model.reading.levels import parents_of


def refuse_missing_covariates(model: pm.Model, point: Mapping[str, np.ndarray]) -> None:
    """Name the first row, or random effect, whose density is NaN because an array of the model is, and the subject.

    NaN in entries that the model does not use is ignored.

    Parameters
    ----------
    model : pymc.Model
    point : dict
        A PyMC point.
    """
    effects = sorted(
        (rv.name for rv in model.free_RVs if rv.type.ndim),
        key=lambda name: not parents_of(model, name),
    )
    observed, laws = (
        observed_variables(model),
        [model[name] for name in effects if parents_of(model, name)],
    )
    free = [model.rvs_to_values[rv] for rv in model.free_RVs]
    above = ancestors([i for rv in (*observed, *laws) for i in rv.owner.inputs])
    arrays = {v: data for v in above if (data := _with_nan(v)) is not None}
    if not arrays:
        return
    rows = [row.ravel() for row in model.logp(vars=[*observed, *laws], sum=False)]
    inputs = [point[v.name] for v in free]
    broken = _compiled(free, rows)(*inputs)
    complete = _compiled(free, _filled_in(rows, arrays))
    filled = complete(*inputs)
    for array, data in arrays.items():
        others = {v: values for v, values in arrays.items() if v is not array}
        alone = _compiled(free, _filled_in(rows, others) if others else rows)(*inputs)
        for j, rv in enumerate((*observed, *laws)):
            lost = np.flatnonzero(np.isnan(broken[j]) & np.isnan(alone[j]) & ~np.isnan(filled[j]))
            if not lost.size:
                continue
            if rv in observed:
                where = f"row {lost[0]} of '{rv.name}'"
                of_whom = _subject_of_row(model, point, effects, free, complete, j, int(lost[0]))
            else:
                where = f"the distribution of '{rv.name}'"
                of_whom = _label(
                    model,
                    point,
                    rv.name,
                    int(lost[0]) * len(point[_value(model, rv)]) // broken[j].size,
                )
            name = (
                f"The covariate '{array.name}'"
                if array.name
                else f"A covariate (an array of shape {data.shape})"
            )
            entry = ", ".join(str(int(k)) for k in np.argwhere(np.isnan(data))[0])
            raise UnsupportedModelError(
                f"{name} is NaN in entry {entry}, so that {where}{of_whom} has no density (as {lost.size} of {broken[j].size} in all). "
                "Give it a value, or drop these rows from the data."
            )


def _data(variable: Variable) -> np.ndarray | None:
    """What a constant or shared variable holds; None for others."""
    if hasattr(variable, "data"):
        return np.asarray(variable.data)
    return np.asarray(variable.get_value(borrow=True)) if hasattr(variable, "get_value") else None


def _with_nan(variable: Variable) -> np.ndarray | None:
    """What an array with NaN holds; None for others."""
    if not hasattr(variable.type, "dtype") or not str(variable.type.dtype).startswith("float"):
        return None
    data = _data(variable)
    return data if data is not None and data.ndim > 0 and np.isnan(data).any() else None


def _filled_in(rows: Sequence[Variable], arrays: Mapping[Variable, np.ndarray]) -> list[Variable]:
    """The rows with another value in place of each NaN of these arrays."""
    filled: dict[Variable, Variable] = {}
    for variable, data in arrays.items():
        middle = np.nanmean(data) if np.isfinite(data).any() else 1.0
        values = np.where(np.isnan(data), middle, data).astype(data.dtype)
        filled[variable] = pt.constant(values).astype(variable.type.dtype)
    return list(graph_replace(rows, filled, strict=False))


def _compiled(
    inputs: list[TensorVariable], graphs: Sequence[Variable]
) -> Callable[..., list[np.ndarray]]:
    f = pytensor.function(
        inputs, graphs, mode=INTERPRETED.including(NO_CHECKS), on_unused_input="ignore"
    )
    return lambda *values: [np.asarray(out) for out in f(*values)]


def _value(model: pm.Model, rv: TensorVariable) -> str:
    return str(model.rvs_to_values[rv].name)


def _label(model: pm.Model, point: Mapping[str, np.ndarray], name: str, number: int) -> str:
    """``, subject 'a',`` of an entry of the first axis of a random effect."""
    dim = (model.named_vars_to_dims.get(name) or ("subject",))[0]
    labels = model.coords.get(dim) or range(len(point[_value(model, model[name])]))
    return f", {dim} {str(labels[number])!r},"


def _subject_of_row(
    model: pm.Model,
    point: Mapping[str, np.ndarray],
    effects: list[str],
    free: list[TensorVariable],
    density: Callable[..., list[np.ndarray]],
    outcome: int,
    row: int,
) -> str:
    """The subject whose random effect, set to NaN, makes the density of the row NaN; empty unless it is exactly one."""
    for name in effects:
        value = model.rvs_to_values[model[name]]
        found = []
        start = point[_value(model, model[name])]
        for k in range(len(np.atleast_1d(start))):
            moved = np.array(start, dtype=float)
            moved[k] = np.nan
            inputs = [moved if v is value else point[str(v.name)] for v in free]
            if np.isnan(density(*inputs)[outcome][row]):
                found.append(k)
        if len(found) == 1:
            return _label(model, point, name, found[0])
    return ""
