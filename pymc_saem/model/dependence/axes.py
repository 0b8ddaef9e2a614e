"""Along which axis of a variable the subjects or units run: the first one, unless an experiment shows another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pymc as pm
from pytensor.graph.traversal import ancestors

from pymc_saem.model.normal.scaled import scaled_vectors

if TYPE_CHECKING:
    from pymc_saem.model.dependence.dependence import Dependence

#: An axis of subjects or units: its dim, if it has one, and its length.
Axis: TypeAlias = tuple[str | None, int]


def unit_axes(dependence: Dependence, left_out: Collection[str] = frozenset()) -> dict[str, int]:
    """The axis of each free variable along which units may run; variables of a single entry have none.

    It is the first axis of which each row of data depends on one entry, and the very first one
    where there is none. Rows may depend on one entry of two axes, as with ``sd[outcome] *
    z[outcome, subject]``: an axis that parameters have and that is shorter cannot index units.

    Parameters
    ----------
    dependence : Dependence
    left_out : set of str
        Free variables that do not count.
    """
    axes: dict[str, int] = {}
    several: dict[str, list[int]] = {}
    for rv in dependence.model.free_RVs:
        if rv.name in left_out:
            continue
        shape = dependence.template[dependence.model.rvs_to_values[rv].name].shape
        possible = range(len(shape) - getattr(rv.owner.op, "ndim_supp", 0))
        long = [axis for axis in possible if shape[axis] > 1] or list(possible)[:1]
        if long:
            axes[rv.name] = long[0]
        if len(long) > 1:
            several[rv.name] = long
    if not several:
        return axes
    scaled = scaled_vectors(dependence.model, dependence.template, set(left_out), set())
    of_parameters = {
        _key(dependence, name, axes[name])
        for name in axes
        if name not in {*several, *scaled} and _is_plain(dependence, name)
    }
    of_effects = {
        _key(dependence, name, axes[name])
        for name in axes
        if name not in several and (name in scaled or not _is_plain(dependence, name))
    }
    for name, long in several.items():
        one = [axis for axis in long if _is_one(dependence, name, axis)]
        # With effects of subjects beside it, k[occasion, subject] is one of the same subjects.
        one = [axis for axis in one if _key(dependence, name, axis) in of_effects] or one
        units = [axis for axis in one if _key(dependence, name, axis) not in of_parameters]
        if (
            one
            and units
            and one[0] not in units
            and _length(dependence, name, units[0]) > _length(dependence, name, one[0])
        ):
            one = units
        axes[name] = (one or long)[0]
    return axes


class FirstAxes:
    """Stands in for a Dependence where a model has no data yet and no row can be traced: units run along first axes."""

    def __init__(self, model: pm.Model, point: Mapping[str, np.ndarray]) -> None:
        self.model, self.template = model, point
        of_value = {rv.name: point[model.rvs_to_values[rv].name].shape for rv in model.free_RVs}
        self.axes = {
            rv.name: 0
            for rv in model.free_RVs
            if len(of_value[rv.name]) > getattr(rv.owner.op, "ndim_supp", 0)
        }


def unit_axis(dependence: Dependence | FirstAxes, name: str) -> Axis | None:
    """Dim (or None) and length of the axis of units of a variable; None for a single entry."""
    return _key(dependence, name, dependence.axes[name]) if name in dependence.axes else None


def _key(dependence: Dependence | FirstAxes, name: str, axis: int) -> Axis:
    dims = dependence.model.named_vars_to_dims.get(name)
    return (dims[axis] if dims else None), _length(dependence, name, axis)


def _length(dependence: Dependence | FirstAxes, name: str, axis: int) -> int:
    return dependence.template[dependence.model.rvs_to_values[dependence.model[name]].name].shape[
        axis
    ]


def _is_plain(dependence: Dependence | FirstAxes, name: str) -> bool:
    """Whether the distribution of a variable depends on no other variable."""
    return not set(dependence.model.free_RVs) & set(ancestors(dependence.model[name].owner.inputs))


def _is_one(dependence: Dependence, name: str, axis: int) -> bool:
    """Whether each row depends on one entry of an axis at most, and some row on one."""
    rows = dependence.rows_on(name, axis)
    return not any(r.is_many.any() for r in rows) and not all(r.is_none.all() for r in rows)
