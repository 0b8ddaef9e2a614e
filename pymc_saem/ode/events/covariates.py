"""Covariates that change with time, for use in a right-hand side."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from pymc_saem.arguments import check_types, shown
from pymc_saem.ode.events.described import as_html, as_text
from pymc_saem.ode.events.doses import Record, set_records
from pymc_saem.ode.inputs.clocks import check_clock, period_columns, refuse_no_numbers
from pymc_saem.ode.inputs.subjects import Subjects, as_column

__all__ = ["Interpolation", "interpolate"]

_KINDS = ("constant", "linear", "cubic")


def interpolate(
    table: pd.DataFrame,
    kind: Literal["constant", "linear", "cubic"] = "linear",
    *,
    value: str | None = None,
) -> Interpolation:
    """A covariate that changes with time, as an entry of ``solve_ivp``'s ``params``.

    In the right-hand side, ``p.name(t)`` is its value. The solver stops where one piece of the
    curve meets the next, so jumps and kinks cost no accuracy.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``subject`` or ``id`` (labels or codes, as ``solve_ivp`` gets them as ``subject``;
        not needed for a single system), ``time``, and the value; in any order of rows. Columns that
        divide the rows into periods, such as ``occ``, are not values, but time must continue from
        one period to the next.
    kind : {"linear", "constant", "cubic"}
        "constant" keeps each value until the next; "linear" connects them; "cubic" is the natural
        cubic spline. Before the first time and after the last one the value stays as it is there.
    value : str, optional
        The column of values, if the table has more than one further column.

    Returns
    -------
    Interpolation
        An entry of ``params``.

    Raises
    ------
    TypeError, ValueError
        If the table lacks a column, or has values that are missing, not finite, or twice at one
        time.

    See Also
    --------
    pymc_saem.ode.solve_ivp : Takes it as an entry of ``params``.
    pymc_saem.ode.Doses : Events of the same subjects.

    Examples
    --------
    >>> import pandas as pd
    >>> from pymc_saem.ode import interpolate, solve_ivp
    >>> inflow = pd.DataFrame({"time": [0.0, 2.0, 4.0], "inflow": [0.0, 1.0, 0.0]})
    >>> solution = solve_ivp(
    ...     lambda t, y, p: {"volume": p.inflow(t)},
    ...     y0={"volume": 0.0},
    ...     params={"inflow": interpolate(inflow)},
    ...     t=[1.0, 4.0, 9.0],
    ... )
    >>> solution.volume.eval().round(3)
    array([0.25, 2.  , 2.  ])
    """
    check_types("ode.interpolate", locals())
    if kind not in _KINDS:
        raise ValueError(
            f"kind is {shown(kind)}; it must be one of {', '.join(map(repr, _KINDS))}."
        )
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"interpolate needs a pandas.DataFrame, got {type(table).__name__}.")
    columns = _columns(table)
    periods = period_columns(table)
    chosen = _value_column(table, value, {*columns.values(), *periods}, "time" in columns)
    subject = np.zeros(len(table), dtype=np.int64)
    if "subject" in columns:
        subject, _ = as_column(table[columns["subject"]], "interpolate: subject")
    time, values = (_numbers(table[c], c) for c in (columns["time"], chosen))
    bad = ~(np.isfinite(time) & np.isfinite(values))
    if bad.any():
        row = int(bad.argmax())
        whose = f" of subject {shown(subject[row])}" if "subject" in columns else ""
        raise ValueError(
            f"interpolate row {row}{whose}: time {time[row]} and {chosen} {values[row]} must be finite."
        )
    labels = np.asarray(subject, dtype=object)
    evid = next((_numbers(table[c], c) for c in table.columns if str(c).lower() == "evid"), None)
    check_clock("interpolate", labels, time, table[[c for c in periods if c != chosen]], evid)
    codes, found = pd.factorize(labels)
    order = np.lexsort((time, codes))
    codes, time, values = codes[order], time[order], values[order]
    same = np.flatnonzero((codes[1:] == codes[:-1]) & (time[1:] == time[:-1]))
    if same.size:
        raise ValueError(
            f"interpolate: subject {shown(found[codes[same[0]]])} has two values at time {time[same[0]]}. If the clock restarts in each "
            "period, write time that continues."
        )
    return Interpolation(kind, found[codes], time, values, columns | {"value": chosen})


def _columns(table: pd.DataFrame) -> dict[str, Hashable]:
    """The columns of subject and time, in any case; ``subject`` may be called ``id``."""
    columns: dict[str, Hashable] = {}
    for column in table.columns:
        name = str(column).lower()
        if name in ("subject", "id", "time"):
            if name in columns:
                raise ValueError(
                    f"interpolate: the table has the columns {columns[name]!r} and {column!r}; keep only one of them."
                )
            columns[name] = column
    if "subject" not in columns and "id" in columns:
        columns["subject"] = columns.pop("id")
    return columns


def _value_column(
    table: pd.DataFrame, value: str | None, taken: set[Hashable], has_time: bool
) -> Hashable:
    """The column of values: the one that was asked for, or the only one that is not taken."""
    others = [c for c in table.columns if c not in taken]
    if not has_time or not (others or value is not None):
        raise ValueError(
            f"interpolate needs the columns 'time' and a value; the table has {list(table.columns)}."
        )
    if value is None and len(others) > 1:
        raise ValueError(f"interpolate found the columns {others}; choose one with value=...")
    found = others[0] if value is None else value
    if found not in table:
        raise ValueError(
            f"value is {shown(found)}, which is not a column of the table; it has {list(table.columns)}."
        )
    return found


def _numbers(column: pd.Series, name: Hashable) -> np.ndarray:
    refuse_no_numbers(column, f"interpolate: {name}")
    try:
        return column.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise TypeError(f"interpolate: {name!r} must be numeric.") from error


class Interpolation:
    """Pieces of a covariate's curve; made by :func:`interpolate`. ``subject`` has labels or codes, as the table had them."""

    def __init__(
        self,
        kind: str,
        subject: np.ndarray,
        time: np.ndarray,
        values: np.ndarray,
        columns: Mapping[str, Hashable],
    ) -> None:
        self.kind, self.subject, self.time, self.values = kind, subject, time, values
        self.columns = columns
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __repr__(self) -> str:
        return as_text("Interpolation", self._contents())

    def _repr_html_(self) -> str:
        return as_html("Interpolation", self._contents())

    def _contents(self) -> dict[str, Any]:
        found = {"kind": self.kind, **self.columns, "rows": self.time.size}
        return found | (
            {"subjects": pd.unique(self.subject).size} if "subject" in self.columns else {}
        )

    def of(self, name: str, subjects: Subjects) -> Interpolation:
        """The same with places of a solution's subjects in place of labels; every subject needs a value."""
        places = subjects.places(self.subject, f"params[{name!r}]")
        missing = np.setdiff1d(np.arange(subjects.n), places)
        if missing.size:
            raise ValueError(
                f"params[{name!r}]: subject {subjects.name(missing[0])} has no row in the interpolated table."
            )
        order = np.argsort(places, kind="stable")
        return Interpolation(
            self.kind, places[order], self.time[order], self.values[order], self.columns
        )

    def function(self, coefficients: TensorVariable) -> Callable[[Variable], TensorVariable]:
        """The covariate as a function of time, from the coefficients of the current piece."""
        if self.kind == "constant":
            return lambda t: coefficients[0]
        return lambda t: sum(
            coefficients[k + 1] * (t - coefficients[0]) ** k
            for k in range(coefficients.type.shape[0] - 1)
        )

    @staticmethod
    def value(coefficients: np.ndarray, time: float) -> float:
        """The covariate at a time, from the coefficients of its piece, which are numbers."""
        return sum(c * (time - coefficients[0]) ** k for k, c in enumerate(coefficients[1:]))

    def at_time(self, i: int, time: float) -> np.ndarray:
        """Coefficients of one subject from one time on."""
        times, pieces = self._pieces(i)
        return pieces[np.searchsorted(times, time, side="right")]

    def at(self, t0: np.ndarray) -> np.ndarray:
        """Coefficients at the start of each subject, (n_subjects, k)."""
        return np.array([self.at_time(i, start) for i, start in enumerate(t0)])

    def records(self, place: int, t0: np.ndarray) -> list[Record]:
        """Events that set the coefficients, from place ``place`` of the parameters on, at the times after the start."""
        out = []
        for i, start in enumerate(t0):
            times, pieces = self._pieces(i)
            for time, piece in zip(times, pieces[1:], strict=True):
                if time > start:
                    out += set_records(i, time, place, piece)
        return out

    def _pieces(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Times of change, and the coefficients before the first and after each of them."""
        if i not in self._known:
            self._known[i] = self._computed_pieces(i)
        return self._known[i]

    def _computed_pieces(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        own = self.subject == i
        time, values = self.time[own], self.values[own]
        if self.kind == "constant":
            return time, np.concatenate([values[:1], values])[:, None]
        if time.size == 1:
            coefficients = np.zeros((0, 1))
        elif self.kind == "linear":
            coefficients = np.column_stack([values[:-1], np.diff(values) / np.diff(time)])
        else:
            from scipy.interpolate import CubicSpline

            coefficients = CubicSpline(time, values, bc_type="natural").c[::-1].T
        width = {"linear": 2, "cubic": 4}[self.kind]
        flat = np.zeros((2, width))
        flat[:, 0] = values[0], values[-1]
        inner = np.zeros((time.size - 1, width))
        inner[:, : coefficients.shape[1]] = coefficients
        starts = np.concatenate([time[:1], time[:-1], time[-1:]])
        return time, np.column_stack([starts, np.vstack([flat[:1], inner, flat[1:]])])
