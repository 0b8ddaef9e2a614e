"""The outcomes of a model as its user wrote them: those that PyMC splits because rows are missing are joined again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from pymc_saem.compat import observed_variables
from pymc_saem.model.graph.rebuild import rebuild

_OBSERVED, _UNOBSERVED = "_observed", "_unobserved"


@dataclass(frozen=True)
class Part:
    """A random variable, and which rows of the outcome it holds."""

    rv: TensorVariable = field(repr=False)
    rows: np.ndarray = field(repr=False)  # (k,)


@dataclass(frozen=True)
class Outcome:
    """One outcome of a model, its rows flattened."""

    name: str
    parts: tuple[Part, ...]
    shape: tuple[int, ...]
    dims: tuple[str | None, ...]
    observed: np.ndarray = field(repr=False)  # (row,), NaN where missing
    observed_name: str  # of the observed variable, which is not ``name`` where rows are missing
    dtype: str

    @property
    def n_rows(self) -> int:
        return self.observed.size

    @property
    def is_observed(self) -> np.ndarray:
        """Which rows have a value, (row,)."""
        return ~np.isnan(self.observed)

    def join(self, values: Sequence[np.ndarray], n: int) -> np.ndarray:
        """Values of the parts, each (n, ...), as one array (n, *shape)."""
        if len(self.parts) == 1:
            return np.broadcast_to(values[0], (n, *self.shape))
        out = np.empty((n, self.n_rows), dtype=np.result_type(*values))
        for part, value in zip(self.parts, values, strict=True):
            out[:, part.rows] = np.reshape(value, (n, -1))  # of a single number: in all rows
        return out.reshape(n, *self.shape)


def read_outcomes(model: pm.Model) -> tuple[Outcome, ...]:
    """The outcomes of a model, in its order.

    A missing row (NaN) makes PyMC split an outcome ``y`` into ``y_observed`` and ``y_unobserved``;
    here it is ``y`` again.
    """
    return tuple(_read(model, rv) for rv in observed_variables(model))


def choose_outcome(outcomes: Sequence[Outcome], name: str | None) -> Outcome:
    """The outcome of a name; the only one by default.

    Raises
    ------
    ValueError
        When none has this name, or several could be meant.
    """
    names = [outcome.name for outcome in outcomes]
    if name is None and len(outcomes) > 1:
        raise ValueError(
            f"The model has several outcomes; choose one with outcome=: {', '.join(names)}."
        )
    for outcome in outcomes:
        if name in (None, outcome.name):
            return outcome
    raise ValueError(f"The model has no outcome {name!r}; it has {', '.join(names) or 'none'}.")


def subject_of_values(subject: np.ndarray, n_values: int) -> np.ndarray:
    """Subject of each observed number (n_values,), from that of each row: all numbers of a vector have the subject of its row."""
    return np.repeat(np.asarray(subject, dtype=int), n_values // max(np.size(subject), 1))


def missing_parts(model: pm.Model) -> set[str]:
    """Names of the free variables that stand for missing rows."""
    names = {
        rv.name.removesuffix(_OBSERVED)
        for rv in observed_variables(model)
        if rv.name.endswith(_OBSERVED)
    }
    return {name + _UNOBSERVED for name in names} & {rv.name for rv in model.free_RVs}


def data_value(variable: Variable) -> np.ndarray:
    """What data hold: a constant, shared data, or a cast of them."""
    if hasattr(variable, "data"):
        return np.asarray(variable.data)
    if hasattr(variable, "get_value"):
        return np.asarray(variable.get_value())
    return np.asarray(pytensor.function([], variable, mode="FAST_COMPILE")())


def _read(model: pm.Model, rv: TensorVariable) -> Outcome:
    values = data_value(model.rvs_to_values[rv])
    own = str(rv.name)
    name = own.removesuffix(_OBSERVED)
    if not own.endswith(_OBSERVED) or name + _UNOBSERVED not in missing_parts(model):
        dims = _dims(model, own, values.ndim)
        part = Part(rv, np.arange(values.size))
        return Outcome(own, (part,), values.shape, dims, _floats(values), own, rv.dtype)
    missing = model[name + _UNOBSERVED]
    place = _places(model[name], rv, missing, values.shape)
    at, gaps = np.flatnonzero(place >= 0), np.flatnonzero(place < 0)
    at = at[np.argsort(place.ravel()[at])]
    observed = np.full(place.size, np.nan)
    observed[at] = values.ravel()
    if rv.owner is missing.owner:  # PyMC could not split the distribution, and draws it whole
        parts = [Part(rv.owner.inputs[0], np.arange(place.size))]
    else:
        parts = [Part(rv, at), Part(missing, gaps)]
    return Outcome(
        name, tuple(parts), place.shape, _dims(model, name, place.ndim), observed, own, rv.dtype
    )


def _places(
    joined: Variable, rv: TensorVariable, missing: TensorVariable, shape: tuple[int, ...]
) -> np.ndarray:
    """Number of the observed value in each place of the whole outcome; -1 where it is missing."""
    numbers = pt.constant(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(rv.dtype))
    gaps = pt.constant(np.full((1,) * missing.type.ndim, -1).astype(missing.dtype))
    (graph,) = rebuild([joined], {rv: numbers, missing: gaps})
    return pytensor.function([], graph, mode="FAST_COMPILE")().astype(int)


def _dims(model: pm.Model, name: str, ndim: int) -> tuple[str | None, ...]:
    dims = tuple(model.named_vars_to_dims.get(name) or ())
    return dims + (None,) * (ndim - len(dims))


def _floats(values: np.ndarray) -> np.ndarray:
    return np.ravel(values).astype(float)
