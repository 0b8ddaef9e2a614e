"""Check what the user passes to ``solve_ivp`` and convert it to one form."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from numpy.typing import ArrayLike
from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import graph_inputs
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.variable import TensorVariable

from pymc_saem.arguments import shown
from pymc_saem.ode.inputs.clocks import refuse_no_numbers
from pymc_saem.ode.inputs.subjects import Subjects

__all__ = [
    "TimeLabels",
    "as_positive",
    "as_start",
    "as_tensors",
    "as_times",
    "check_axes",
    "folded",
    "is_constant",
    "labels_of_times",
    "shapes_of",
]


def as_tensors(values: Any, what: str) -> dict[str, TensorVariable]:
    """Dict of float64 tensors from numbers, arrays, Series and PyTensor variables."""
    if not isinstance(values, dict):
        raise TypeError(f"{what} must be a dict from names to values, got {type(values).__name__}.")
    out = {}
    for name, value in values.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(
                f"{what} has the name {name!r}; names must be Python identifiers, such as 'depot'."
            )
        if not isinstance(value, Variable):
            refuse_no_numbers(value, f"{what}[{name!r}]")
        try:
            tensor = (
                value
                if isinstance(value, Variable)
                else pt.as_tensor_variable(np.asarray(value, dtype="float64"))
            )
            out[name] = pt.as_tensor_variable(tensor).astype("float64")
        except (TypeError, ValueError) as error:
            raise TypeError(f"{what}[{name!r}] must be numeric, got {shown(value)}.") from error
    return out


def is_constant(tensor: Variable) -> bool:
    """Whether a tensor depends on data alone: no random draw and no symbolic input."""
    return all(
        isinstance(v, Constant)
        or (isinstance(v, SharedVariable) and not isinstance(v.type, RandomType))
        for v in graph_inputs([tensor])
    )


def folded(tensor: TensorVariable) -> TensorVariable:
    """One constant instead of a graph of constants; a graph with shared variables stays.

    PyTensor does not fold all of it, so that two copies of a solution might not merge, and be
    solved twice.
    """
    if not all(isinstance(v, Constant) for v in graph_inputs([tensor])):
        return tensor
    return pt.constant(tensor.eval(mode=Mode("py", "fast_compile")))


def shapes_of(tensors: Mapping[Any, TensorVariable]) -> dict[Any, tuple[int, ...]]:
    """Shapes as tuples of int, by graph inference where they are not static; draws nothing."""
    shapes = {name: v.type.shape for name, v in tensors.items()}
    open_names = [name for name, shape in shapes.items() if None in shape]
    if open_names:
        try:
            infer = pytensor.function(
                [],
                [tensors[n].shape for n in open_names],
                mode=Mode("py", "fast_compile"),
                on_unused_input="ignore",
            )
            shapes |= {
                n: tuple(int(k) for k in s) for n, s in zip(open_names, infer(), strict=True)
            }
        except pytensor.graph.utils.MissingInputError as error:
            raise ValueError(
                f"The shapes of {', '.join(map('{0[0]}[{0[1]!r}]'.format, open_names))} depend on values that are not known when "
                "solve_ivp is called. Give them a static shape with pt.specify_shape."
            ) from error
    return shapes


def as_times(t: ArrayLike | Variable) -> tuple[TensorVariable, np.ndarray | None]:
    """Observation times as a float64 vector; checked where the values are known."""
    if isinstance(t, Variable):
        tensor = pt.as_tensor_variable(t).astype("float64")
        values = getattr(t, "data", None) if isinstance(t, Constant) else None
        if isinstance(t, SharedVariable):
            values = t.get_value()
        if tensor.type.ndim != 1:
            raise ValueError(
                f"t must be a vector with one time per row, got {tensor.type.ndim} dimensions."
            )
    else:
        refuse_no_numbers(t, "t")
        raw = np.asarray(t)
        try:
            values = np.asarray(t, dtype="float64")
        except (TypeError, ValueError) as error:
            row, value = next(
                ((i, x) for i, x in enumerate(raw.ravel().tolist()) if not _is_number(x)), (0, t)
            )
            raise TypeError(f"t must hold numbers; row {row} is {shown(value)}.") from error
        if values.ndim != 1:
            raise ValueError(f"t must be a vector with one time per row, got shape {values.shape}.")
        tensor = pt.constant(values)
    if values is not None and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(
            f"t must be finite; row {row} is {values[row]}. Drop that row or give its time."
        )
    return tensor, values


@dataclass(frozen=True)
class TimeLabels:
    """Name and units of a column of times, for figures."""

    name: str | None
    attrs: dict[str, Any]


def labels_of_times(t: Any) -> TimeLabels | None:
    """Name and units that a pandas Series or an xarray array carries; None if it has neither."""
    name, attrs = getattr(t, "name", None), getattr(t, "attrs", None)
    if not isinstance(attrs, Mapping) or (name is None and not attrs):
        return None
    units = {key: attrs[key] for key in ("units", "unit") if key in attrs}
    return TimeLabels(None if name is None else str(name), units)


def _is_number(x: Any) -> bool:
    try:
        float(x)
    except (TypeError, ValueError):
        return False
    return True


def check_axes(shapes: Mapping[tuple[str, str], tuple[int, ...]], n_subjects: int) -> None:
    """Refuse entries of ``y0`` and ``params`` whose leading axis is not that of the subjects.

    Parameters
    ----------
    shapes : dict of (str, str) to tuple of int
        Shape by kind ("y0" or "params") and name.
    n_subjects : int
    """
    for (kind, name), shape in shapes.items():
        if shape and shape[0] != n_subjects:
            suggestion = (
                f"give it one value per subject, shape ({n_subjects},), or one number for all"
                if kind == "y0"
                else "a value that all subjects share needs the axis too: "
                f"pt.broadcast_to({name}, {(n_subjects, *shape)})"
            )
            raise ValueError(
                f"{kind}[{name!r}] has shape {shape}; its leading axis must be the {n_subjects} subjects: {suggestion}."
            )


def as_start(
    t0: ArrayLike, subjects: Subjects, subject: np.ndarray, times: np.ndarray | None
) -> np.ndarray:
    """Start time of each subject; no known row may lie before it."""
    n_subjects = subjects.n
    if isinstance(t0, Variable):
        raise TypeError(
            "t0 must be a number or an array with one time per subject, not a PyTensor variable."
        )
    refuse_no_numbers(t0, "t0")
    start = np.asarray(t0, dtype="float64")
    if start.shape not in ((), (n_subjects,)):
        raise ValueError(
            f"t0 must be a number or have shape ({n_subjects},), one per subject; got {start.shape}."
        )
    if not np.isfinite(start).all():
        raise ValueError(f"t0 must be finite, got {shown(t0)}.")
    start = np.broadcast_to(start, (n_subjects,)).copy()
    if times is not None and times.size == subject.size and (times < start[subject]).any():
        row = int(np.flatnonzero(times < start[subject])[0])
        raise ValueError(
            f"t is {times[row]} in row {row}, before t0 = {start[subject[row]]} of subject "
            f"{subjects.name(subject[row])}. "
            "Set t0 to the time at which y0 holds, or drop the row."
        )
    return start


def as_positive(value: Any, name: str, kind: type[Any] = numbers.Real) -> Any:
    """The number, if it is positive and finite."""
    if isinstance(value, bool) or not isinstance(value, kind) or not (0 < value < np.inf):
        whole = "integer" if kind is numbers.Integral else "number"
        raise ValueError(f"{name} must be a positive {whole}, got {shown(value)}.")
    return value
