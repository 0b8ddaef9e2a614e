"""Smooth curves of an outcome: a fine grid of times, covered by the rows of the data in several passes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from pymc_saem.evaluate.row_function import RowFunction


@dataclass(frozen=True)
class Curve:
    """Predictions of one subject; its occasions stand behind each other, with NaN between them."""

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
        One per subject; without points for a subject without rows. Where the model gives no
        continuous curve, the points are the rows of the data.

    Warns
    -----
    UserWarning
        When the predictions could not be evaluated between the rows.
    """
    with_rows = [s for s in subjects if rows.outcome.rows_of(s).size]
    nothing = Curve(np.empty(0), np.empty((rows.n_samples, 0)))
    found = dict(zip(with_rows, _curves(rows, with_rows, n_grid), strict=True)) if with_rows else {}
    return [found.get(s, nothing) for s in subjects]


def _curves(rows: RowFunction, subjects: list[int], n_grid: int) -> list[Curve]:
    course, exchangeable, reason = _find_courses(rows)
    if course is None:
        warnings.warn(reason, UserWarning, stacklevel=5)  # at the call of the figure
        return _at_rows(rows, subjects)
    owners, of_courses = _rows_of_courses(rows, course, subjects)
    grids = [np.linspace(_start(rows, own), rows.times[own].max(), n_grid) for own in of_courses]
    users = [
        _row_of_each(rows, own, grid, exchangeable)
        for own, grid in zip(of_courses, grids, strict=True)
    ]
    if rows.is_aligned:
        values = _many_times_a_pass(rows, grids, users)
    else:
        values = _one_time_a_pass(rows, owners, grids, users)
    curves = [Curve(grid, y) for grid, y in zip(grids, values, strict=True)]
    return [
        _joined([curve for owner, curve in zip(owners, curves, strict=True) if owner == s])
        for s in subjects
    ]


def _rows_of_courses(
    rows: RowFunction, course: np.ndarray, subjects: list[int]
) -> tuple[list[int], list[np.ndarray]]:
    """Subject and rows of each course of some subjects."""
    owners, of_courses = [], []
    for subject in subjects:
        own = rows.outcome.rows_of(subject)
        for c in dict.fromkeys(course[own]):
            owners.append(subject)
            of_courses.append(own[course[own] == c])
    return owners, of_courses


def _joined(curves: list[Curve]) -> Curve:
    """The courses of one subject, with a point that is not a number between them, where a line breaks."""
    x, y = [curves[0].x], [curves[0].y]
    for curve in curves[1:]:
        x += [np.array([np.nan]), curve.x]
        y += [np.full((len(curve.y), 1), np.nan), curve.y]
    return Curve(np.concatenate(x), np.concatenate(y, axis=1))


def _find_courses(rows: RowFunction) -> tuple[np.ndarray | None, bool, str]:
    """Course of each row, whether any row of a course may stand for any time, and why there are none: predictions at rows only."""
    if rows.has_other_units:
        return None, False, _why_units_are_unknown(rows)
    values = _at_one_time(rows)
    first = np.unique(rows.course, return_index=True)[1]
    if _are_equal(values, values[:, first[rows.course]]).all():
        return rows.course, True, ""
    if rows.has_ode:
        return rows.course, False, ""
    return _runs_of_equal_rows(rows, values), True, _why_not_between_rows(rows)


def _why_units_are_unknown(rows: RowFunction) -> str:
    return (
        f"An ODE solution under outcome '{rows.outcome.name}' has rows that differ from those of the outcome and units that are not subjects, so its "
        "rows cannot be assigned to subjects and predictions are connected from row to row. For smooth curves give "
        "solve_ivp the rows of the outcome."
    )


def _why_not_between_rows(rows: RowFunction) -> str:
    name = rows.outcome.name
    if rows.knows_time:
        return (
            f"Outcome '{name}' depends on more than x that changes from row to row (a covariate, or times in another "
            "form), so predictions are connected from row to row."
        )
    return (
        f"The graph of outcome '{name}' does not contain x itself, so predictions are connected from row to row. For "
        "smooth curves use the same numbers in the model and in x."
    )


def _at_rows(rows: RowFunction, subjects: list[int]) -> list[Curve]:
    (values,) = rows.at_rows()
    curves = []
    for subject in subjects:
        own = rows.outcome.rows_of(subject)
        own = own[np.argsort(rows.times[own], kind="stable")]
        curves.append(Curve(rows.times[own], values[:, own]))
    return curves


def _start(rows: RowFunction, own: np.ndarray) -> float:
    first = rows.times[own].min()
    return first if rows.t0 is None else min(first, rows.t0[own[0]])


def _at_one_time(rows: RowFunction) -> np.ndarray:
    """Predictions with all rows of a course at one time between its first and its last, (sample, row)."""
    course = rows.course
    first = np.full(course.max() + 1, np.inf)
    np.minimum.at(first, course, rows.times if rows.t0 is None else rows.t0)
    last = first.copy()
    np.maximum.at(last, course, rows.times)
    times = 0.3 * first + 0.7 * last
    if rows.is_aligned:
        return rows.at_row_times(times[course])[0]
    of_subject = np.full(rows.outcome.subjects.size, -np.inf)
    of_subject[rows.outcome.row_subject] = times[course]
    return rows.at_subject_times(of_subject)[0]


def _are_equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which rows predict the same in all samples, (row,)."""
    return np.isclose(a, b, rtol=1e-9, atol=0.0, equal_nan=True).all(axis=0)


def _runs_of_equal_rows(rows: RowFunction, values: np.ndarray) -> np.ndarray | None:
    """Segments of rows found from predictions at one time, such as occasions in a closed form; None where rows differ in another way.

    The rows of a course follow each other in the data. A covariate that comes and goes makes no
    courses: what it is between two rows, nothing tells.
    """
    course, n = np.empty(rows.times.size, dtype=int), 0
    for subject in np.unique(rows.outcome.row_subject):
        own = rows.outcome.rows_of(subject)
        starts = np.r_[True, ~_are_equal(values[:, own[1:]], values[:, own[:-1]])]
        course[own] = n + np.cumsum(starts) - 1
        n += int(starts.sum())
        if n > course.size // 2:
            return None
        firsts = values[:, own[starts]]
        if any(
            _are_equal(firsts[:, :k], firsts[:, k : k + 1]).any() for k in range(1, firsts.shape[1])
        ):
            return None
    return course


def _row_of_each(
    rows: RowFunction, own: np.ndarray, grid: np.ndarray, exchangeable: bool
) -> np.ndarray:
    """Row of a course that stands for each point of its grid, shape (grid,)."""
    if exchangeable:
        return own[np.arange(grid.size) % own.size]
    own = own[np.argsort(rows.times[own], kind="stable")]
    last_before = np.searchsorted(rows.times[own], grid, side="right") - 1
    return own[np.maximum(last_before, 0)]  # covariates of a row hold until the next one


def _many_times_a_pass(
    rows: RowFunction, grids: list[np.ndarray], users: list[np.ndarray]
) -> list[np.ndarray]:
    """Every row takes one point of its course's grid in each pass."""
    values = [np.empty((rows.n_samples, grid.size)) for grid in grids]
    turns = [_turns(user) for user in users]
    # Rows without a point wait where a solution costs nothing.
    idle = rows.times if rows.t0 is None else rows.t0
    for turn in range(1 + max(int(t.max()) for t in turns)):
        times = idle.copy()
        for grid, user, own in zip(grids, users, turns, strict=True):
            times[user[own == turn]] = grid[own == turn]
        (y,) = rows.at_row_times(times)
        for k, (user, own) in enumerate(zip(users, turns, strict=True)):
            values[k][:, own == turn] = y[:, user[own == turn]]
    return values


def _turns(user: np.ndarray) -> np.ndarray:
    """How many earlier points of the grid the same row has, shape (grid,)."""
    turns = np.zeros(user.size, dtype=int)
    for row in np.unique(user):
        mine = user == row
        turns[mine] = np.arange(mine.sum())
    return turns


def _one_time_a_pass(
    rows: RowFunction, owners: list[int], grids: list[np.ndarray], users: list[np.ndarray]
) -> list[np.ndarray]:
    """All rows of a subject take the same point in each pass: for solutions with their own rows."""
    values = [np.empty((rows.n_samples, grid.size)) for grid in grids]
    for g in range(grids[0].size):
        times = np.full(rows.outcome.subjects.size, -np.inf)
        times[owners] = [grid[g] for grid in grids]
        (y,) = rows.at_subject_times(times)
        for k, user in enumerate(users):
            values[k][:, g] = y[:, user[g]]
    return values
