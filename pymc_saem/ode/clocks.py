"""The clock of a table: numbers, no dates, and one that goes on.

A file of a crossover study often begins each period at time 0 again. Sorted by time, the periods would lie on each other.
Which rows of ``t`` belong to which period nobody says, so such a table is refused.
"""

import datetime

import numpy as np
import pandas as pd

__all__ = ["check_clock", "period_columns", "refuse_dates"]

#: Columns, in small letters, that divide the rows of a subject into periods.
_PERIODS = ("occ", "occasion", "period", "visit", "cycle", "day", "date", "dat1", "dat2", "dat3")
_GO_ON = (
    "Write time that goes on from one period to the next, in this table and in t, for example time + 168 * (period - 1)"
)
_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64, pd.Period)


def refuse_dates(values, what):
    """Dates and durations would become nanoseconds, or microseconds."""
    dtype = getattr(values, "dtype", None)
    array = np.asarray(values)
    found = array.dtype.kind in "mM"
    if array.dtype == object:
        found = any(isinstance(x, _DATES) for x in array.ravel())
    if found:
        raise TypeError(
            f"{what} must hold numbers, got {array.dtype if dtype is None else dtype}; take the time since a start in a unit of your "
            "choice, for example (t - t.min()) / np.timedelta64(1, 'h')."
        )


def period_columns(table):
    """Columns of a table that divide the rows of a subject into periods."""
    return [column for column in table.columns if str(column).lower() in _PERIODS]


def check_clock(what, subject, time, periods, evid=None):
    """Refuse times that begin anew.

    Parameters
    ----------
    what : str
        What to call the table in a message.
    subject : array_like, shape (rows,)
        What the subjects are called.
    time : ndarray of float, shape (rows,)
    periods : pandas.DataFrame
        Columns that divide the rows of a subject into periods.
    evid : ndarray of float, shape (rows,), optional
        0 for observations and all that does nothing.
    """
    for label, rows in pd.Series(range(len(time))).groupby(np.asarray(subject, dtype=object), sort=False):
        rows = rows.to_numpy()
        if evid is not None:
            _check_order(what, label, rows, time[rows], evid[rows])
        for column in periods:
            _check_periods(what, label, rows, time[rows], periods[column].to_numpy()[rows], column)


def _check_order(what, label, rows, time, evid):
    """With resets, or observations among the doses, the rows of a subject have an order, which time must follow."""
    back = np.flatnonzero(np.diff(time) < 0) + 1
    if not (evid >= 3).any():
        # Observations that stand below all doses are in order among themselves.
        back = back[evid[back] != 0] if (evid == 0).any() else back[:0]
    if back.size:
        k = int(back[0])
        why = "that has resets (evid 3 or 4)" if (evid >= 3).any() else "with doses and observations"
        raise ValueError(
            f"{what} row {rows[k]}: time {time[k]:g} of subject {label!r} goes back, after {time[k - 1]:g} in the row before, in a "
            f"table {why}. If the clock begins anew in each period: {_GO_ON}. If it goes on, sort the table by subject and time."
        )
    for k in np.flatnonzero(evid >= 3):
        before = np.flatnonzero(np.isin(evid[:k], (1, 4)) & (time[:k] == time[k]))
        if before.size:
            raise ValueError(
                f"{what} row {rows[k]}: the reset of subject {label!r} at time {time[k]:g} would take away the dose of row "
                f"{rows[before[0]]}, at the same time. If the clock begins anew in each period: {_GO_ON}. Else leave one out."
            )


def _check_periods(what, label, rows, time, period, column):
    """Periods must follow each other."""
    spans = pd.DataFrame({"time": time, "row": rows}).groupby(pd.Series(period, dtype=object), sort=False)
    spans = spans.agg(first=("time", "min"), last=("time", "max"), row=("row", "first")).sort_values("first", kind="stable")
    first, last = spans["first"].to_numpy(), spans["last"].to_numpy()
    for k in range(1, len(spans)):
        if first[k] < last[:k].max() or first[k] == first[k - 1]:
            raise ValueError(
                f"{what} row {spans['row'].iloc[k]}: {column} {spans.index[k]} of subject {label!r} begins at time {first[k]:g}, but "
                f"{column} {spans.index[k - 1]} lasts from {first[k - 1]:g} to {last[k - 1]:g}. {_GO_ON}; if {column} means "
                "something else, leave that column out."
            )
