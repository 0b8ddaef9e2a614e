"""The clock of a table: numbers, not dates, and increasing throughout.

Files of crossover studies often restart the clock at 0 in each period. Sorted by time, the periods
would overlap, and nothing says which rows of ``t`` belong to which period, so such a table is
refused.
"""

from __future__ import annotations

import datetime
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pymc_saem.arguments import shown

__all__ = ["check_clock", "period_columns", "refuse_no_numbers"]

#: Columns, in small letters, that divide the rows of a subject into periods.
_PERIODS = ("occ", "occasion", "period", "visit", "cycle", "day", "date", "dat1", "dat2", "dat3")
_GO_ON = "write time that continues from one period to the next, in this table and in t, for example time + 168 * (period - 1)"
_DATES = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    np.datetime64,
    np.timedelta64,
    pd.Period,
)


def refuse_no_numbers(values: Any, what: str) -> None:
    """Refuse what a conversion to float would accept: dates, complex numbers, and the values behind a mask."""
    dtype = getattr(values, "dtype", None)
    array = np.asarray(values)
    found = array.dtype.kind in "mM"
    if array.dtype == object:
        found = any(isinstance(x, _DATES) for x in array.ravel())
    if found:
        raise TypeError(
            f"{what} must hold numbers, got {array.dtype if dtype is None else dtype}; use the time since a start in any "
            "unit, for example (t - t.min()) / np.timedelta64(1, 'h')."
        )
    if array.dtype.kind == "c":
        raise TypeError(f"{what} must hold real numbers, got {array.dtype}.")
    if np.ma.is_masked(values):
        place = np.argwhere(np.ma.getmaskarray(values))[0].tolist()
        raise ValueError(
            f"{what} is masked at {place}. Leave those entries out, or give their values."
        )


def period_columns(table: pd.DataFrame) -> list[Hashable]:
    """Columns of a table that divide the rows of a subject into periods."""
    return [column for column in table.columns if str(column).lower() in _PERIODS]


def check_clock(
    what: str,
    subject: ArrayLike,
    time: np.ndarray,
    periods: pd.DataFrame,
    evid: np.ndarray | None = None,
) -> None:
    """Refuse times that restart.

    Parameters
    ----------
    what : str
        Name of the table in messages.
    subject : array_like, shape (rows,)
        Labels or codes.
    time : ndarray of float, shape (rows,)
    periods : pandas.DataFrame
        Columns that divide the rows of a subject into periods.
    evid : ndarray of float, shape (rows,), optional
        0 for observations and for rows that do nothing.
    """
    codes, labels = pd.factorize(np.asarray(subject, dtype=object))
    for column in periods:
        _check_periods(what, codes, labels, time, periods[column].to_numpy(), column)
    if evid is not None:
        order = np.argsort(codes, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
            if rows.size:
                _check_order(what, labels[codes[rows[0]]], rows, time[rows], evid[rows])


def _check_order(
    what: str, label: Hashable, rows: np.ndarray, time: np.ndarray, evid: np.ndarray
) -> None:
    """With resets, or observations among the doses, the rows of a subject have an order, which time must follow."""
    back = np.flatnonzero(np.diff(time) < 0) + 1
    if not (evid >= 3).any():
        # Observations may stand below all doses, so only a dose that goes back is an error.
        back = back[evid[back] != 0] if (evid == 0).any() else back[:0]
    if back.size:
        k = int(back[0])
        why = (
            "that has resets (evid 3 or 4)" if (evid >= 3).any() else "with doses and observations"
        )
        raise ValueError(
            f"{what} row {rows[k]}: time {time[k]:g} of subject {shown(label)} goes back, after {time[k - 1]:g} in the row before, in a "
            f"table {why}. If the clock restarts in each period: {_GO_ON}. If it continues, sort the table by subject and time."
        )
    for k in np.flatnonzero(evid >= 3).tolist():
        before = np.flatnonzero(np.isin(evid[:k], (1, 4)) & (time[:k] == time[k]))
        if before.size:
            raise ValueError(
                f"{what} row {rows[k]}: the reset of subject {shown(label)} at time {time[k]:g} would take away the dose of row "
                f"{rows[before[0]]}, at the same time. If the clock restarts in each period: {_GO_ON}. Otherwise, keep only one of the two rows."
            )


def _check_periods(
    what: str,
    codes: np.ndarray,
    labels: np.ndarray,
    time: np.ndarray,
    period: np.ndarray,
    column: Hashable,
) -> None:
    """Periods of a subject must follow each other."""
    rows = pd.DataFrame({"subject": codes, "period": period, "time": time, "row": range(len(time))})
    spans = rows.groupby(["subject", "period"], sort=False, observed=True).agg(
        first=("time", "min"), last=("time", "max"), row=("row", "first")
    )
    spans = spans.reset_index().sort_values(["subject", "first"], kind="stable", ignore_index=True)
    same = spans["subject"].diff() == 0
    latest = spans.groupby("subject")["last"].cummax().shift()
    wrong = same & ((spans["first"] < latest) | (spans["first"] == spans["first"].shift()))
    if wrong.any():
        k = int(wrong.idxmax())
        now, before = (next(spans.iloc[i : i + 1].itertuples()) for i in (k, k - 1))
        raise ValueError(
            f"{what} row {now.row}: {column} {now.period} of subject {labels[now.subject]!r} begins at time {now.first:g}, but "
            f"{column} {before.period} lasts from {before.first:g} to {before.last:g}: {_GO_ON}; if {column} means something else, "
            "leave that column out."
        )
