"""Where a visual predictive check looks: bins, or windows that move over the times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pymc_saem.arguments import check_count, shown
from pymc_saem.diagnose.windows import tricube

#: Most bins that are made unasked, and how many rows each should have.
_MOST_BINS, _ENOUGH_ROWS = 20, 8
#: Places of moving windows.
_N_GRID = 40


@dataclass(frozen=True)
class Place:
    """A bin or a window: its number, the time that it stands for, its ends, its rows, and their weights (None: all alike)."""

    number: int
    x: float
    left: float
    right: float
    own: np.ndarray
    weights: np.ndarray | None = None


class Bins:
    """Disjoint bins of rows, the same for all strata."""

    def __init__(
        self, x: np.ndarray, bins: str | int | Sequence[float], subject: np.ndarray
    ) -> None:
        self.x, self.edges = x, bin_edges(x, bins, subject)
        self.number = bin_of(x, self.edges)

    def places(self, rows: np.ndarray) -> Iterator[Place]:
        """Bins that have some of these rows (a mask)."""
        for k in np.unique(self.number[rows]):
            own = np.flatnonzero(rows & (self.number == k))
            yield Place(
                int(k),
                float(np.median(self.x[own])),
                float(self.edges[k]),
                float(self.edges[k + 1]),
                own,
            )

    def around_rows(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Place]]:
        """Rows, and the place that they are in."""
        for place in self.places(rows):
            yield place.own, place


class Windows:
    """Windows with tricube weights that move over the times; each has about twice the rows of an automatic bin."""

    def __init__(self, x: np.ndarray, subject: np.ndarray) -> None:
        self.x = x
        self.span = min(1.0, 2.0 / _n_bins(x, subject))

    def places(self, rows: np.ndarray, at: np.ndarray | None = None) -> Iterator[Place]:
        """Windows over these rows (a mask); by default, where there are rows: in a gap, curves would be steps."""
        own = np.flatnonzero(rows)
        at = (
            np.unique(np.quantile(self.x[own], np.linspace(0, 1, _N_GRID), method="nearest"))
            if at is None
            else at
        )
        for k, x in enumerate(at):  # one at a time: there may be as many as rows
            (weights,), (reach,) = tricube(self.x[own], at[k : k + 1], self.span)
            inside = weights > 0
            yield Place(
                k, float(x), float(x - reach), float(x + reach), own[inside], weights[inside]
            )

    def around_rows(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Place]]:
        """Rows, and the window around them."""
        times = np.unique(self.x[rows])
        for time, place in zip(times, self.places(rows, times), strict=True):
            yield np.flatnonzero(rows & (self.x == time)), place


def is_smooth(bins: str | int | Sequence[float]) -> bool:
    """Whether windows are asked for; edges may come as an array, which is not a text to compare."""
    return isinstance(bins, str) and bins == "smooth"


def bin_edges(x: np.ndarray, bins: str | int | Sequence[float], subject: np.ndarray) -> np.ndarray:
    """Edges of bins, shape (bin + 1,); a bin has its left edge, the last one has both.

    Parameters
    ----------
    x : ndarray, shape (row,)
    bins : {"auto", "unique"}, int, or sequence of float
        "unique": one for each value of x. A number: this many bins with about as many rows each, as
        far as equal values allow. A sequence: the edges. "auto": "unique" where subjects share
        their times, else as many as a typical subject has rows.
    subject : ndarray of int, shape (row,)

    Raises
    ------
    ValueError
        When bins is none of these, or the edges do not increase, or leave a row out.
    """
    values = np.unique(x)
    if isinstance(bins, str):
        if bins not in ("auto", "unique"):
            raise ValueError(
                f"bins is {shown(bins)}; it must be 'auto', 'unique', 'smooth', a number of bins, or their edges."
            )
        shared = values.size <= min(1.5 * np.bincount(subject).max(), _MOST_BINS, x.size / 3)
        if bins == "unique" or shared:
            return _around(values)
        return _equal_counts(x, _n_bins(x, subject))
    if np.ndim(bins) == 0:
        check_count("bins", bins, 1)
        return _equal_counts(x, int(np.asarray(bins)))
    edges = np.asarray(bins, dtype=float)
    if edges.size < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(
            f"The edges of bins must be two or more increasing numbers, got {np.ravel(bins).tolist()}."
        )
    outside = int(((x < edges[0]) | (x > edges[-1])).sum())
    if outside:
        raise ValueError(
            f"{outside} rows lie outside of the bins, which reach from {edges[0]:g} to {edges[-1]:g}; x reaches from "
            f"{x.min():g} to {x.max():g}."
        )
    return edges


def bin_of(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number of the bin of each row, (row,)."""
    return np.searchsorted(edges[1:-1], x, side="right")


def _n_bins(x: np.ndarray, subject: np.ndarray) -> int:
    """The number of rows of a typical subject."""
    counts = np.bincount(subject)
    return int(
        np.clip(min(int(np.median(counts[counts > 0])), x.size // _ENOUGH_ROWS), 1, _MOST_BINS)
    )


def _around(values: np.ndarray) -> np.ndarray:
    """Edges half-way between values."""
    return np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])


def _equal_counts(x: np.ndarray, n_bins: int) -> np.ndarray:
    ordered = np.sort(x)
    cuts = np.round(np.arange(1, n_bins) * x.size / n_bins).astype(int)
    # A cut between equal values moves to the next place where values differ.
    steps = np.flatnonzero(np.diff(ordered) > 0) + 1
    where = np.searchsorted(steps, cuts)
    cuts = np.unique(steps[where[where < steps.size]])
    return np.concatenate([ordered[:1], (ordered[cuts] + ordered[cuts - 1]) / 2, ordered[-1:]])
