"""Whether rows name their subjects by labels or by codes, and the order of the subjects."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from pytensor.graph.basic import Variable

from pymc_saem.arguments import shown
from pymc_saem.ode.inputs.subjects import Label, Subjects, as_column, in_order, listed, plain

__all__ = ["aligned", "read_subjects"]


def _names_in_model(values: Iterable[Any], n: int) -> list[Label] | None:
    """Labels of the leading axis of named variables, from the coords of the PyMC model in context; None if there are none.

    Parameters
    ----------
    values : iterable
        Entries of ``y0`` and ``params``.
    n : int
    """
    import pymc as pm

    try:
        model = pm.modelcontext(None)
    except TypeError:  # outside a model
        return None
    found = []
    for name in {
        v.name for v in values if isinstance(v, Variable) and v.name in model.named_vars_to_dims
    }:
        dims = model.named_vars_to_dims[name]
        coords = model.coords.get(dims[0]) if dims else None
        if coords is not None and len(coords) == n and len(set(coords)) == n:
            found.append(plain(list(coords)))
    return found[0] if found and all(names == found[0] for names in found) else None


def _expected_number(
    counts: tuple[int, ...], shapes: Mapping[tuple[str, str], tuple[int, ...]]
) -> int | None:
    """Number of subjects by the leading axes of ``y0`` and ``params``: one of ``counts`` if there is such an axis, else the
    most common one; None where no entry has an axis."""
    lengths = [shape[0] for shape in shapes.values() if shape]
    return next((n for n in counts if n in lengths), max(lengths, key=lengths.count, default=None))


def read_subjects(
    subject: ArrayLike,
    n_rows: int | None,
    shapes: Mapping[tuple[str, str], tuple[int, ...]],
    values: Iterable[Any],
) -> tuple[np.ndarray, Subjects]:
    """Codes of the rows, and the subjects.

    Parameters
    ----------
    subject : array_like, shape (rows,)
        Codes or labels.
    n_rows : int or None
    shapes : dict of (str, str) to tuple of int
        Shape by kind ("y0" or "params") and name.
    values : list
        Entries of ``y0`` and ``params``, which may be variables of a model with coords.

    Returns
    -------
    codes : ndarray of int, shape (rows,)
    subjects : Subjects
    """
    column, categories = as_column(subject, "subject", n_rows)
    index, found = pd.factorize(column)
    found = plain(found)
    is_whole = categories is None and all(isinstance(label, int) for label in found)
    if is_whole and found and min(found) < 0:
        row = int(np.flatnonzero(index == found.index(min(found)))[0])
        raise ValueError(
            f"subject codes start at 0; row {row} is {min(found)} (factorize marks missing values by -1)."
        )
    top = max(found, default=-1) + 1 if is_whole else len(found)
    n = _expected_number(
        (top, len(found)) if categories is None else (len(categories), len(found)), shapes
    )
    known = None if n is None else _names_in_model(values, n)
    if is_whole and _rows_have_codes(found, n, known):
        n = len(found) if n is None else n
        return np.asarray(found, dtype=np.int64)[index] if found else index, Subjects(n, known)
    names = _names(found, categories, n, known, row_of=lambda k: int(np.flatnonzero(index == k)[0]))
    place = {label: i for i, label in enumerate(names)}
    subjects = Subjects(
        len(names), names, by_name=True, is_ordered=categories is not None or names is known
    )
    return np.array([place[label] for label in found], dtype=np.int64)[index], subjects


def _rows_have_codes(found: list[int], n: int | None, known: list[Label] | None) -> bool:
    """Whether integers are codes; an error if they could also be labels."""
    if n is None or not found:
        return sorted(found) == list(range(len(found)))
    if max(found) >= n:
        return False
    if known is None:
        if 0 in found:
            return True
    elif not set(found) <= set(known) or all(known[label] == label for label in found):
        return True
    elif found == list(range(len(found))):  # as factorize gives them
        return True
    raise ValueError(
        f"subject is {listed(sorted(found))} for {n} subjects, which may be codes, places on the leading axis of y0 and "
        "params, or labels, with subjects that have no row. Say which: "
        "pd.Categorical(labels, categories=all_labels) for labels, in the order of the leading axis, or "
        f"pd.Categorical(codes, categories=range({n})) for codes."
    )


def _names(
    found: list[Label],
    categories: list[Label] | None,
    n: int | None,
    known: list[Label] | None,
    row_of: Callable[[int], int],
) -> list[Label]:
    """Labels of the subjects by place."""
    if categories is not None:
        used = [label for label in categories if label in set(found)]
        names = used if n == len(used) else categories
    elif known is not None and set(found) <= set(known):
        return known
    else:
        names = found
        if known not in (None, list(range(n or 0))) and not set(found).isdisjoint(known):
            stranger = next(label for label in found if label not in known)
            raise ValueError(
                f"subject {shown(stranger)} in row {row_of(found.index(stranger))} is not in the coords of the model, {listed(known)}, but "
                "other labels of subject are."
            )
    if n is None or len(names) == n:
        if known is not None and set(known) == set(names) and known != names:
            raise ValueError(
                f"subject has the categories {listed(names)}, in a different order from the coords of the model, "
                f"{listed(known)}. Give both in the order of y0 and params."
            )
        return names
    if all(isinstance(label, int) for label in found) and 0 in found:
        wrong = next((label for label in found if label >= n), None)
        if wrong is not None:
            raise ValueError(
                f"subject code {wrong} in row {row_of(found.index(wrong))} is outside 0..{n - 1}: y0 and params have {n} "
                f"subjects. As labels, they would be {len(found)} subjects."
            )
    raise ValueError(
        f"subject has {len(names)} labels, {listed(names)}, but y0 and params have {n} subjects. Subjects without rows need "
        "names too: subject=pd.Categorical(labels, categories=all_labels), in the order of the leading axis."
    )


def aligned(values: Any, subjects: Subjects) -> Any:
    """Entries of y0 or params; those indexed by labels are put in the order of the subjects.

    If the rows have codes, the labels are those of the model's coords. If labels first appear in
    unsorted order, an array that differs between subjects could be meant in either order, so a
    warning says which one is assumed.
    """
    if subjects.names is None or not isinstance(values, dict):
        return values
    out = dict(values)
    is_known = subjects.is_ordered or in_order(subjects.names) or not subjects.by_name
    for name, value in values.items():
        index = _index(value)
        if index is not None:
            labels = plain(index)
            # places, as the codes are
            is_counted = not subjects.by_name and index.equals(pd.RangeIndex(len(index)))
            if index.is_unique and not is_counted and set(labels) == set(subjects.names):
                order = [labels.index(label) for label in subjects.names]
                out[name] = (
                    value.isel({value.dims[0]: order})
                    if isinstance(value, xr.DataArray)
                    else value.iloc[order]
                )
                continue
            if subjects.by_name and len(labels) == subjects.n and _is_telling(index):
                raise ValueError(
                    f"{name!r} has the index {listed(labels)}, but the subjects of the rows are {listed(subjects.names)}. Give it their "
                    "labels as index; or pass its values alone, in that order, if its index has another meaning."
                )
        if (
            is_known
            or isinstance(value, Variable)
            or np.ndim(value) == 0
            or len(value) != subjects.n
        ):
            continue
        array = np.asarray(value)
        if (array != array[0]).any():
            warnings.warn(
                f"The labels of subject are not in sorted order: {listed(subjects.names)}. The leading axis of {name!r} is "
                "taken to be in that order, the order of first appearance, as factorize gives it. Pass a Series with the labels "
                "as index to be explicit.",
                UserWarning,
                stacklevel=3,
            )
            is_known = True  # once is enough
    return out


def _index(value: Any) -> pd.Index | None:
    """The index of the leading axis of a pandas or xarray object; None if there is none."""
    if isinstance(value, xr.DataArray):
        return value.indexes.get(value.dims[0]) if value.ndim else None
    return value.index if isinstance(value, pd.Series | pd.DataFrame) else None


def _is_telling(index: pd.Index) -> bool:
    """Whether an index holds names of subjects, and not just row numbers."""
    if isinstance(index, pd.MultiIndex) or index.equals(pd.RangeIndex(len(index))):
        return False
    return index.name is not None or not all(isinstance(label, int) for label in plain(index))
