"""Bins of a visual predictive check."""

from __future__ import annotations

import numpy as np

#: Most bins that are made unasked, and how many rows each should have.
_MOST_BINS, _ENOUGH_ROWS = 20, 8


def bin_edges(x: np.ndarray, bins, subject: np.ndarray) -> np.ndarray:
    """Edges of bins, shape (bin + 1,); a bin has its left edge, the last one has both.

    Parameters
    ----------
    x : ndarray, shape (row,)
    bins : {"auto", "unique"}, int, or sequence of float
        "unique": one for each value of x. A number: so many bins with about as many rows each, as far as equal values allow. A
        sequence: the edges. "auto": "unique" where subjects share their times, else as many as a typical subject has rows.
    subject : ndarray of int, shape (row,)

    Raises
    ------
    ValueError
        When bins is none of these, or the edges do not increase, or leave a row out.
    """
    values = np.unique(x)
    if isinstance(bins, str):
        if bins not in ("auto", "unique"):
            raise ValueError(f"bins is {bins!r}; it must be 'auto', 'unique', a number of bins, or their edges.")
        counts = np.bincount(subject)
        typical = int(np.median(counts[counts > 0]))
        shared = values.size <= min(1.5 * counts.max(), _MOST_BINS, x.size / 3)
        if bins == "unique" or shared:
            return _around(values)
        return _equal_counts(x, int(np.clip(min(typical, x.size // _ENOUGH_ROWS), 1, _MOST_BINS)))
    if np.ndim(bins) == 0:
        if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
            raise ValueError(f"bins is {bins!r}; a number of bins must be whole, and at least 1.")
        return _equal_counts(x, int(bins))
    edges = np.asarray(bins, dtype=float)
    if edges.size < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(f"The edges of bins must be two or more increasing numbers, got {list(bins)}.")
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


def _around(values):
    """Edges half-way between values."""
    return np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])


def _equal_counts(x, n_bins):
    ordered = np.sort(x)
    cuts = np.round(np.arange(1, n_bins) * x.size / n_bins).astype(int)
    # A cut between equal values moves to the next place where values differ.
    steps = np.flatnonzero(np.diff(ordered) > 0) + 1
    where = np.searchsorted(steps, cuts)
    cuts = np.unique(steps[where[where < steps.size]])
    return np.concatenate([ordered[:1], (ordered[cuts] + ordered[cuts - 1]) / 2, ordered[-1:]])
