"""Covariates with missing values: which one, and of which row and subject, where a model cannot be evaluated because of them."""

from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.densities import NO_CHECKS
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.model.reading.levels import parents_of


def refuse_missing_covariates(model, point: dict) -> None:
    """Name the first row, or random effect, whose density is NaN because an array of the model is, and the subject.

    Arrays with NaN that the model does not use where they are missing are nobody's business.

    Parameters
    ----------
    model : pymc.Model
    point : dict
        A PyMC point.
    """
    effects = sorted((rv.name for rv in model.free_RVs if rv.type.ndim), key=lambda name: not parents_of(model, name))
    observed, laws = observed_variables(model), [model[name] for name in effects if parents_of(model, name)]
    free = [model.rvs_to_values[rv] for rv in model.free_RVs]
    arrays = [v for v in ancestors([i for rv in (*observed, *laws) for i in rv.owner.inputs]) if _has_nan(v)]
    if not arrays:
        return
    rows = [row.ravel() for row in model.logp(vars=[*observed, *laws], sum=False)]
    inputs = [point[v.name] for v in free]
    broken = _compiled(free, rows)(*inputs)
    complete = _compiled(free, graph_replace(rows, {v: _filled(v) for v in arrays}, strict=False))
    filled = complete(*inputs)
    for number, array in enumerate(arrays):
        others = {v: _filled(v) for k, v in enumerate(arrays) if k != number}
        alone = _compiled(free, graph_replace(rows, others, strict=False) if others else rows)(*inputs)
        for j, rv in enumerate((*observed, *laws)):
            lost = np.flatnonzero(np.isnan(broken[j]) & np.isnan(alone[j]) & ~np.isnan(filled[j]))
            if not lost.size:
                continue
            if rv in observed:
                where = f"row {lost[0]} of '{rv.name}'"
                of_whom = _subject_of_row(model, point, effects, free, complete, j, int(lost[0]))
            else:
                where = f"the distribution of '{rv.name}'"
                of_whom = _label(model, point, rv.name, int(lost[0]) * len(point[_value(model, rv)]) // broken[j].size)
            data = _data(array)
            name = f"The covariate '{array.name}'" if array.name else f"A covariate (an array of shape {data.shape})"
            entry = ", ".join(str(int(k)) for k in np.argwhere(np.isnan(data))[0])
            raise UnsupportedModelError(
                f"{name} is NaN in entry {entry}, so that {where}{of_whom} has no density (as {lost.size} of {broken[j].size} in all). "
                "Give it a value, or drop these rows from the data."
            )


def _data(variable) -> np.ndarray | None:
    """What a constant or shared variable holds; None for others."""
    if hasattr(variable, "data"):
        return np.asarray(variable.data)
    return np.asarray(variable.get_value(borrow=True)) if hasattr(variable, "get_value") else None


def _has_nan(variable) -> bool:
    if not hasattr(variable.type, "dtype") or not str(variable.type.dtype).startswith("float"):
        return False
    data = _data(variable)
    return data is not None and data.ndim > 0 and bool(np.isnan(data).any())


def _filled(variable):
    data = _data(variable)
    middle = np.nanmean(data) if np.isfinite(data).any() else 1.0
    return pt.constant(np.where(np.isnan(data), middle, data).astype(data.dtype)).astype(variable.type.dtype)


def _compiled(inputs: list, graphs: list):
    f = pytensor.function(inputs, graphs, mode=INTERPRETED.including(NO_CHECKS), on_unused_input="ignore")
    return lambda *values: [np.asarray(out) for out in f(*values)]


def _value(model, rv) -> str:
    return model.rvs_to_values[rv].name


def _label(model, point, name: str, number: int) -> str:
    """``, subject 'a',`` of an entry of the first axis of a random effect."""
    dim = (model.named_vars_to_dims.get(name) or ("subject",))[0]
    labels = model.coords.get(dim) or range(len(point[_value(model, model[name])]))
    return f", {dim} {str(labels[number])!r},"


def _subject_of_row(model, point, effects, free, density, outcome: int, row: int) -> str:
    """The subject whose random effect takes the density of the row away when it is NaN; empty if that is not one."""
    for name in effects:
        value = model.rvs_to_values[model[name]]
        found = []
        for k in range(len(np.atleast_1d(point[value.name]))):
            moved = np.array(point[value.name], dtype=float)
            moved[k] = np.nan
            inputs = [moved if v is value else point[v.name] for v in free]
            if np.isnan(density(*inputs)[outcome][row]):
                found.append(k)
        if len(found) == 1:
            return _label(model, point, name, found[0])
    return ""
