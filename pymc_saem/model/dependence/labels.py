"""Labels of the entries of an array: which entries of a random effect each of them is computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: Above every label, and exact as a float, which some operations make of labels.
NOBODY = 2**52


@dataclass(frozen=True)
class Reach:
    """The smallest and the largest of the labels that each entry is computed from; NOBODY and -1 where there is none."""

    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of_labels(cls, labels: np.ndarray) -> Reach:
        """Entries with one label each; -1 for none."""
        labels = np.asarray(labels, dtype=np.int64)
        return cls(np.where(labels < 0, NOBODY, labels), labels)

    @classmethod
    def nobody(cls, shape: tuple[int, ...]) -> Reach:
        return cls.of_labels(np.full(shape, -1))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.last.shape

    @property
    def is_none(self) -> np.ndarray:
        return self.last < 0

    @property
    def is_many(self) -> np.ndarray:
        return (self.last >= 0) & (self.first != self.last)

    def labels(self) -> np.ndarray:
        """The one label of each entry: -1 for none, -2 for several."""
        return np.where(self.is_many, -2, self.last)

    def map(self, f: Callable) -> Reach:
        return Reach(np.asarray(f(self.first)), np.asarray(f(self.last)))

    def over(self, axes: int | tuple[int, ...]) -> Reach:
        """Labels joined over some axes."""
        return Reach(
            self.first.min(axis=axes, initial=NOBODY), self.last.max(axis=axes, initial=-1)
        )

    def with_axes(self, ndim: int) -> Reach:
        """These labels with axes of length 1 at the end."""
        return self.map(lambda v: v.reshape(*v.shape, *(1,) * (ndim - v.ndim)))

    def or_else(self, other: Reach) -> Reach:
        """The labels of another Reach where this one has none."""
        return Reach(
            np.where(self.is_none, other.first, self.first),
            np.where(self.is_none, other.last, self.last),
        )

    def only(self, where: np.ndarray) -> Reach:
        """Nobody elsewhere."""
        return Reach(np.where(where, self.first, NOBODY), np.where(where, self.last, -1))


def join(reaches: Sequence[Reach]) -> Reach:
    """Labels of what is computed entry by entry from several arrays."""
    first = np.broadcast_arrays(*(r.first for r in reaches))
    last = np.broadcast_arrays(*(r.last for r in reaches))
    return Reach(np.minimum.reduce(first), np.maximum.reduce(last))


class Values(tuple):
    """Values of a variable at several points; a single one where all are equal."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self[0])

    def always(self, test: Callable) -> np.ndarray:
        """Whether a test holds at every point, entry by entry."""
        return np.logical_and.reduce([test(np.asarray(value)) for value in self])
