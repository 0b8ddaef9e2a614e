"""Smooth curves of an outcome: a fine grid of times, covered by the rows of the data in several passes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from pymc_saem.evaluate.row_function import RowFunction


@dataclass(frozen=True)
class Curve:
    """Predictions of one subject."""

    x: np.ndarray  # (grid,)
    y: np.ndarray  # (sample, grid)


def draw_curves(rows: RowFunction, subjects: list[int], n_grid: int) -> list[Curve]:
    """Predictions on a grid from the start of each subject to its last row.

    Parameters
    ----------
    rows : RowFunction
        Of one graph; its ``x`` is known.
    subjects : list of int
    n_grid : int
        Points of each curve.

    Returns
    -------
    list of Curve
        One per subject; without points for a subject without rows. Where the model gives no continuous curve, the
        points are the rows of the data.

    Warns
    -----
    UserWarning
        When the predictions could not be evaluated between the rows.
    """
    with_rows = [s for s in subjects if rows.outcome.rows_of(s).size]
    nothing = Curve(np.empty(0), np.empty((rows.n_samples, 0)))
    found = dict(zip(with_rows, _curves(rows, with_rows, n_grid), strict=True)) if with_rows else {}
    return [found.get(s, nothing) for s in subjects]


def _curves(rows, subjects, n_grid):
    outcome = rows.outcome
    reason = _why_not_between_rows(rows)
    if reason:
        warnings.warn(reason, UserWarning, stacklevel=5)  # at the call of the figure
        return _at_rows(rows, subjects)
    exchangeable = _rows_are_exchangeable(rows)
    grids = [np.linspace(_start(rows, s), rows.x[outcome.rows_of(s)].max(), n_grid) for s in subjects]
    users = [_row_of_each(rows, s, grid, exchangeable) for s, grid in zip(subjects, grids, strict=True)]
    if rows.is_aligned:
        values = _many_times_a_pass(rows, grids, users)
    else:
        values = _one_time_a_pass(rows, subjects, grids, users)
    return [Curve(grid, y) for grid, y in zip(grids, values, strict=True)]


def _why_not_between_rows(rows) -> str:
    """Why predictions exist at the rows only; empty when they exist at all times."""
    name = rows.outcome.name
    if rows.has_ode or _rows_are_exchangeable(rows):
        return ""
    if rows.knows_time:
        return (
            f"Outcome '{name}' depends on more than x that changes from row to row (a covariate, or times in another "
            "form), so predictions are connected from row to row."
        )
    return (
        f"The graph of outcome '{name}' does not contain x as it is, so predictions are connected from row to row. For "
        "smooth curves let the model use the very numbers given as x."
    )


def _at_rows(rows, subjects):
    (values,) = rows.at_rows()
    curves = []
    for subject in subjects:
        own = rows.outcome.rows_of(subject)
        own = own[np.argsort(rows.x[own], kind="stable")]
        curves.append(Curve(rows.x[own], values[:, own]))
    return curves


def _start(rows, subject):
    first = rows.x[rows.outcome.rows_of(subject)].min()
    return first if rows.t0 is None else min(first, rows.t0[subject])


def _rows_are_exchangeable(rows) -> bool:
    """Whether all rows of a subject predict the same at the same time: then any row may stand for any time."""
    outcome = rows.outcome
    first = np.zeros(outcome.subjects.size) if rows.t0 is None else rows.t0
    last = first.copy()
    np.maximum.at(last, outcome.row_subject, rows.x)
    (values,) = rows.at_subject_times(0.3 * first + 0.7 * last)
    one = np.array([outcome.rows_of(s)[0] if (outcome.row_subject == s).any() else 0 for s in range(last.size)])
    return np.allclose(values, values[:, one[outcome.row_subject]], rtol=1e-9, atol=0.0, equal_nan=True)


def _row_of_each(rows, subject, grid, exchangeable):
    """Row that stands for each point of the grid, shape (grid,)."""
    own = rows.outcome.rows_of(subject)
    if exchangeable:
        return own[np.arange(grid.size) % own.size]
    own = own[np.argsort(rows.x[own], kind="stable")]
    last_before = np.searchsorted(rows.x[own], grid, side="right") - 1
    return own[np.maximum(last_before, 0)]  # covariates of a row hold until the next one


def _many_times_a_pass(rows, grids, users):
    """Every row takes one point of its subject's grid in each pass."""
    values = [np.empty((rows.n_samples, grid.size)) for grid in grids]
    turns = [_turns(user) for user in users]
    # Rows without a point wait where a solution costs nothing.
    idle = rows.x if rows.t0 is None else rows.t0[rows.outcome.row_subject]
    for turn in range(1 + max(int(t.max()) for t in turns)):
        times = idle.copy()
        for grid, user, own in zip(grids, users, turns, strict=True):
            times[user[own == turn]] = grid[own == turn]
        (y,) = rows.at_row_times(times)
        for k, (user, own) in enumerate(zip(users, turns, strict=True)):
            values[k][:, own == turn] = y[:, user[own == turn]]
    return values


def _turns(user):
    """How many earlier points of the grid the same row has, shape (grid,)."""
    turns = np.zeros(user.size, dtype=int)
    for row in np.unique(user):
        mine = user == row
        turns[mine] = np.arange(mine.sum())
    return turns


def _one_time_a_pass(rows, subjects, grids, users):
    """All rows of a subject take the same point in each pass: for solutions with rows of their own."""
    values = [np.empty((rows.n_samples, grid.size)) for grid in grids]
    for g in range(grids[0].size):
        times = np.array(rows.t0)
        for subject, grid in zip(subjects, grids, strict=True):
            times[subject] = grid[g]
        (y,) = rows.at_subject_times(times)
        for k, user in enumerate(users):
            values[k][:, g] = y[:, user[g]]
    return values
