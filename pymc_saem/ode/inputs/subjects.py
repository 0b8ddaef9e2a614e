"""Who the subjects are, and what tables call them.

Rows (:mod:`pymc_saem.ode.inputs.labels`) and tables name a subject by a code 0, 1, ..., the place
on the leading axis of ``y0`` and ``params``, or by a label. What could be read in two ways is
refused: a dose given to the wrong subject would be a wrong number in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pytensor.graph.basic import Variable

from pymc_saem.arguments import shown

__all__ = ["Label", "Subjects", "as_column", "in_order", "listed", "plain"]

#: What the user calls a subject: a number, a text, a tuple, anything that hashes.
Label: TypeAlias = Any
_SAY_LABELS = (
    "Pass labels in both places: subject=data['ID'] for the rows, and the same labels in the table"
)


class Subjects:
    """The subjects of a solution, by place on the leading axes.

    Parameters
    ----------
    n : int
    names : sequence, optional
        Labels of the places, where they are known.
    by_name : bool
        Whether the rows gave labels; else they gave codes.
    is_ordered : bool
        Whether the user gave the order of the labels, by categories or coords; else it is that of
        first appearance.
    """

    def __init__(
        self,
        n: int,
        names: Sequence[Label] | None = None,
        by_name: bool = False,
        is_ordered: bool = False,
    ) -> None:
        self.n, self.by_name = n, by_name
        self.names = None if names is None else list(names)
        self.is_ordered = is_ordered
        self.is_named_by_table = False  # whether the names come from a table of events
        self.is_doubtful = (
            False  # whether that table's numbers for the rows of t differ from their codes
        )
        #: Codes, times and index of the rows of t, where they are known.
        self.rows: tuple[np.ndarray, np.ndarray | None, pd.Index | None] | None = None
        self._place = {name: i for i, name in enumerate(self.names or ())}

    def name(self, place: int) -> Label:
        """What to call a subject in a message: its label, or its code."""
        return self.names[place] if self.by_name and self.names is not None else place

    def places(self, values: ArrayLike, what: str, has_names: bool = False) -> np.ndarray:
        """Places of the subjects that are named in the rows of a table or of a dense grid.

        Parameters
        ----------
        values : array_like
        what : str
            Name of the table in messages.
        has_names : bool
            Whether its subjects are labels for certain.

        Returns
        -------
        ndarray of int
        """
        column, _ = as_column(values, f"{what}: subject")
        index, found = pd.factorize(column)
        found = plain(found)
        if self.by_name or has_names or not self._are_codes(found, what):
            unknown = [label for label in found if label not in self._place]
            if unknown:
                row = int(np.flatnonzero(index == found.index(unknown[0]))[0])
                raise ValueError(
                    f"{what} row {row}: subject {shown(unknown[0])} has no row in t; the subjects of the rows are "
                    f"{listed([name for name in self.names or () if name is not None])}."
                )
            found = [self._place[label] for label in found]
        return np.asarray(found, dtype=np.int64)[index]

    def places_of_rows(self, values: ArrayLike, n_rows: int | None) -> np.ndarray:
        """The same for rows of t; if the rows of the solution have codes, integers are codes."""
        column, _ = as_column(values, "subject", n_rows)
        index, found = pd.factorize(column)
        found = plain(found)
        if not self.by_name and all(isinstance(label, int) for label in found):
            for k, label in enumerate(found):
                if not _is_code(label, self.n):
                    row = int(np.flatnonzero(index == k)[0])
                    raise ValueError(
                        f"subject code {label} in row {row} is outside 0..{self.n - 1}."
                    )
            return np.asarray(found, dtype=np.int64)[index]
        return self.places(column, "t")

    def _are_codes(self, found: list[Label], what: str) -> bool:
        """Whether a table holds codes, as the rows do; an error if they could also be labels."""
        in_range = all(_is_code(label, self.n) for label in found)
        named = bool(self._place) and all(label in self._place for label in found)
        if in_range and named and any(self._place[label] != label for label in found):
            raise ValueError(
                f"{what}: subject is {listed(found)}, which may be codes, places on the leading axis, or labels of the "
                f"subjects {listed(self.names or ())}. {_SAY_LABELS}."
            )
        if in_range and not named and found and 0 not in found and self.names is None:
            raise ValueError(
                f"{what}: subject is {listed(found)} beside rows with the codes 0..{self.n - 1}; that may be codes, or labels "
                f"that count from 1. {_SAY_LABELS}; or, if these are codes, add a row for subject 0, with evid 0 if it "
                "has no dose."
            )
        if in_range and self.is_doubtful:
            raise ValueError(
                f"{what}: subject is {listed(found)}; as codes, its observations would be rows of t that have other codes, at the same "
                f"times. {_SAY_LABELS}."
            )
        if not in_range and not named:
            wrong = next(label for label in found if not _is_code(label, self.n))
            raise ValueError(
                f"{what} row {found.index(wrong)}: subject is {shown(wrong)}; it must be one of the codes 0..{self.n - 1} that "
                f"solve_ivp gets as subject, because the rows have codes. {_SAY_LABELS}."
            )
        return in_range

    def named_by(self, labels: np.ndarray, times: np.ndarray, index: pd.Index) -> Subjects:
        """These subjects, with names if the table's observations are the rows of t with labels.

        Parameters
        ----------
        labels, times, index : array_like
            Labels, times and index of the table's observations.
        """
        if self.by_name or self.rows is None or not len(labels):
            return self
        codes, t, t_index = self.rows
        if t is None or not np.array_equal(times, t):
            return self
        pairs = pd.DataFrame({"label": plain(labels), "code": codes}).drop_duplicates()
        if pairs["label"].duplicated().any() or pairs["code"].duplicated().any():
            return self
        is_same_index = (
            t_index is not None and index.equals(t_index) and not isinstance(index, pd.RangeIndex)
        )
        if not (is_same_index or in_order(pairs["label"].tolist())):
            same = self.with_rows(*self.rows)
            same.is_doubtful = bool((pairs["label"] != pairs["code"]).any())
            return same
        names = [None] * self.n
        for label, code in zip(pairs["label"], pairs["code"], strict=True):
            names[code] = label
        for place, name in enumerate(names if self.names is not None else ()):
            if name is not None and name != self.names[place]:
                raise ValueError(
                    f"events: subject {place} of the rows is {name!r} in the table, and {self.names[place]!r} in the coords "
                    f"of the model. {_SAY_LABELS}."
                )
        named = Subjects(self.n, self.names or names)
        named._place.pop(None, None)
        named.rows, named.is_named_by_table = self.rows, True
        return named

    def with_rows(
        self, codes: np.ndarray, t: np.ndarray | None, index: pd.Index | None
    ) -> Subjects:
        """These subjects with known rows of t."""
        same = Subjects(self.n, self.names, self.by_name, self.is_ordered)
        same.rows = codes, t, index
        return same


def _is_code(label: Label, n: int) -> bool:
    return isinstance(label, int) and 0 <= label < n


def plain(values: Iterable[Label]) -> list[Label]:
    """A list of plain Python objects, whole floats as int, so that 1, 1.0 and NumPy's 1 are one label."""
    values = pd.Index(values).tolist() if not isinstance(values, list) else values
    return [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]


def in_order(labels: Sequence[Label]) -> bool:
    try:
        return all(a <= b for a, b in zip(labels, labels[1:], strict=False))
    except TypeError:  # labels of several types have no order
        return True


def listed(names: Sequence[Label], most: int = 6) -> str:
    """The first names, for a message."""
    first = ", ".join(map(shown, names[:most]))
    return f"{first}, ... ({len(names)} in all)" if len(names) > most else first


def as_column(
    values: Any, what: str, n_rows: int | None = None
) -> tuple[pd.Series, list[Label] | None]:
    """A column of labels or codes as a Series, and its categories if it has any.

    Raises
    ------
    TypeError, ValueError
        If it is not a column, or if a row names no subject.
    """
    if isinstance(values, Variable):
        raise TypeError(
            f"{what} must be known when solve_ivp is called; pass the array itself, not {values}."
        )
    if isinstance(values, pd.MultiIndex):
        values = values.to_flat_index()
    elif isinstance(values, list | tuple) and any(isinstance(v, tuple) for v in values):
        values = pd.Index(list(values), tupleize_cols=False)  # pairs are labels
    if not isinstance(values, pd.Index) and np.ndim(values) != 1:
        raise ValueError(f"{what} must have one entry per row, got shape {np.shape(values)}.")
    column = pd.Series(values).reset_index(drop=True).infer_objects()
    # big-endian, from a file; pandas counts only its own order
    if isinstance(column.dtype, np.dtype) and not column.dtype.isnative:
        column = column.astype(column.dtype.newbyteorder("="))
    if n_rows is not None and len(column) != n_rows:
        raise ValueError(
            f"{what} must have one code per row of t: expected shape ({n_rows},), got {(len(column),)}."
        )
    if pd.api.types.is_bool_dtype(column.dtype):
        raise TypeError(f"{what} must name subjects by labels or codes, got {column.dtype}.")
    missing = column.isna().to_numpy()
    if missing.any():
        row = int(missing.argmax())
        raise ValueError(
            f"{what} of row {row} is missing ({list(values)[row]}). Drop that row or give its subject."
        )
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = plain(column.cat.categories)
        return pd.Series(plain(column.astype(object)), dtype=object), categories
    if pd.api.types.is_float_dtype(column.dtype) and (column % 1 == 0).all():
        column = column.astype(np.int64)
    return column, None
