"""The observed values of a model in a place where other ones of the same shape can be put."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor
from numpy.typing import ArrayLike
from pytensor.graph.basic import Variable

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.densities import row_density
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import MixedModel


class ObservedValues:
    """A twin of a model whose observed values are shared variables, which compiled functions read at each call.

    The twin has the random variables of the model itself, so that nothing of its graph is copied;
    only what they are observed to be differs. The model of the user is not touched.

    Parameters
    ----------
    model : pymc.Model
    """

    def __init__(self, model: pm.Model) -> None:
        self.shared, of_rv = {}, {}
        for rv in observed_variables(model):
            value = _value(model.rvs_to_values[rv])
            of_rv[rv] = self.shared[rv.name] = pytensor.shared(
                value.copy(), name=f"{rv.name}_now", shape=value.shape
            )
        self.model = _twin(model, of_rv)
        self.original = {name: variable.get_value() for name, variable in self.shared.items()}
        self._rows: Callable[[np.ndarray, np.ndarray], list[np.ndarray]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": None}  # compiled functions do not travel between processes

    def put(
        self,
        values: Mapping[str, np.ndarray] | None,
        mixed: MixedModel | None = None,
        theta: np.ndarray | None = None,
        phi: np.ndarray | None = None,
    ) -> None:
        """Observe these values, and the model's own of outcomes that are not named.

        Parameters
        ----------
        values : mapping of str to ndarray, optional
            By name of the observed variable, in its shape.
        mixed : MixedModel, optional
            The twin as SAEM reads it; with it, theta and phi, outcomes outside their support are
            refused.
        theta : ndarray, shape (theta,), optional
        phi : ndarray, shape (subject, phi), optional
            Where the density of the rows is looked at.

        Raises
        ------
        ValueError
            For unknown names, other shapes, values that are not finite, and outcomes outside their
            support; the text names outcome, subject and row.
        """
        unknown = sorted(set(values or {}) - set(self.shared))
        if unknown:
            raise ValueError(f"observed names {unknown}; the outcomes are {sorted(self.shared)}.")
        for name, variable in self.shared.items():
            new = self.original[name] if values is None or name not in values else values[name]
            variable.set_value(self._checked(name, new, mixed))
        if values is not None and mixed is not None and theta is not None and phi is not None:
            self._refuse_outside(mixed, theta, phi)

    def _checked(self, name: str, given: ArrayLike, mixed: MixedModel | None) -> np.ndarray:
        new, old = np.asarray(given), self.original[name]
        if new.shape != old.shape:
            raise ValueError(
                f"observed['{name}'] has shape {new.shape}; the data of the model have shape {old.shape}."
            )
        bad = np.flatnonzero(~np.isfinite(new.astype(float).ravel()))
        if bad.size:
            where = _where(mixed, list(self.shared).index(name), bad[0])
            raise ValueError(
                f"observed['{name}'] is {new.ravel()[bad[0]]} in {where} ({bad.size} such rows in all); values must be finite."
            )
        cast = new.astype(old.dtype)
        changed = (
            np.flatnonzero((cast != new).ravel()) if old.dtype.kind in "iub" else np.zeros(0, int)
        )
        if changed.size:
            where = _where(mixed, list(self.shared).index(name), changed[0])
            raise ValueError(
                f"observed['{name}'] is {new.ravel()[changed[0]]} in {where}; the outcome takes whole numbers ({old.dtype})."
            )
        return np.ascontiguousarray(cast)

    def _refuse_outside(self, mixed: MixedModel, theta: np.ndarray, phi: np.ndarray) -> None:
        if self._rows is None:
            self._rows = row_density(mixed)
        now = {name: variable.get_value() for name, variable in self.shared.items()}
        with np.errstate(all="ignore"):
            densities = self._rows(phi, theta)
            if all(np.all(np.isfinite(rows)) for rows in densities):
                return
            for name, value in self.original.items():
                self.shared[name].set_value(value)
            before = self._rows(phi, theta)
        for name, value in now.items():
            self.shared[name].set_value(value)
        for j, (name, new, old) in enumerate(zip(self.shared, densities, before, strict=True)):
            bad = np.flatnonzero(~np.isfinite(new) & np.isfinite(old))
            if bad.size:
                raise ValueError(
                    f"observed['{name}'] is outside the support of its distribution in {_where(mixed, j, bad[0])} "
                    f"({bad.size} such rows in all)."
                )


def _where(mixed: MixedModel | None, outcome: int, row: int) -> str:
    if mixed is None:
        return f"row {row}"
    return f"row {row}, of subject {mixed.subjects[mixed.outcomes[outcome].row_subject[row]]}"


def _value(variable: Variable) -> np.ndarray:
    """What data hold: a constant, shared data, or a graph of such."""
    if hasattr(variable, "get_value"):
        return np.asarray(variable.get_value())
    if hasattr(variable, "data"):
        return np.asarray(variable.data)
    return np.asarray(pytensor.function([], variable, mode=INTERPRETED)())


def _twin(model: pm.Model, observed: Mapping[Variable, Variable]) -> pm.Model:
    """The model with other variables for what its random variables are observed to be.

    Not ``copy.copy``: PyMC 5 makes a clone of the graph of it, which takes seconds for large
    models, and fails for those with initial values.
    """
    twin = object.__new__(type(model))
    twin.__dict__.update(model.__dict__)
    twin.rvs_to_values = {**model.rvs_to_values, **observed}
    old = {model.rvs_to_values[rv] for rv in observed}
    kept = {value: rv for value, rv in model.values_to_rvs.items() if value not in old}
    twin.values_to_rvs = {**kept, **{value: rv for rv, value in observed.items()}}
    return twin
