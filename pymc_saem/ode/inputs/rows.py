"""Which subject each row belongs to, and the order in which a solver visits the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Rows"]


class Rows:
    """Subject of each row and start time of each subject; compares and hashes by content.

    Parameters
    ----------
    subject : ndarray of int, shape (rows,)
    t0 : ndarray of float, shape (n_subjects,)
    """

    def __init__(self, subject: ArrayLike, t0: ArrayLike) -> None:
        self.subject = np.ascontiguousarray(subject, dtype=np.int64)
        self.t0 = np.ascontiguousarray(t0, dtype=np.float64)
        self.subject.setflags(write=False)
        self.t0.setflags(write=False)
        self.n_rows = self.subject.size
        self.n_subjects = self.t0.size
        self.starts = np.concatenate(
            [[0], np.cumsum(np.bincount(self.subject, minlength=self.n_subjects))]
        )
        self._key = (self.subject.tobytes(), self.t0.tobytes())

    def __eq__(self, other: object) -> bool:
        return type(other) is Rows and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Rows(n_rows={self.n_rows}, n_subjects={self.n_subjects})"

    def __reduce__(self) -> tuple[type[Rows], tuple[np.ndarray, np.ndarray]]:
        return Rows, (self.subject, self.t0)

    def order(self, t: np.ndarray) -> np.ndarray:
        """Row numbers by subject, then time; NaN times last."""
        return np.lexsort((t, self.subject)).astype(np.int64)
