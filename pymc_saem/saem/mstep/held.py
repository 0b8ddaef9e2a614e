"""Parameters that the user holds at a value."""

from __future__ import annotations

import numpy as np

from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.mixed_model import MixedModel, Parameter


class Held:
    """Entries of theta that are not estimated.

    Parameters
    ----------
    mixed : MixedModel
    points : PointMap
    fixed : dict
        Natural values: name -> flat value, NaN for entries that are estimated.

    Attributes
    ----------
    entries : ndarray of bool, shape (theta,)
        Which entries are held.
    """

    def __init__(self, mixed: MixedModel, points: PointMap, fixed: dict[str, np.ndarray]):
        self.mixed, self.points, self.fixed = mixed, points, fixed
        self.entries = np.zeros(mixed.n_theta, dtype=bool)
        for name, value in fixed.items():
            p, known = mixed.parameter(name), np.isfinite(value)
            self.entries[p.columns] = known if p.is_entrywise else known.all()

    def all_of(self, p: Parameter) -> bool:
        """Whether no entry of a parameter is estimated."""
        return bool(self.entries[p.columns].all()) and p.columns.stop > p.columns.start

    def apply(self, theta: np.ndarray) -> np.ndarray:
        """theta (theta,) with the user's constants in place."""
        theta = theta.copy()
        for name, value in self.fixed.items():
            p = self.mixed.parameter(name)
            known = np.isfinite(value)
            value = np.where(known, value, self.points.natural(p, theta[p.columns]))
            u = self.points.unconstrained(p, value)
            theta[p.columns] = np.where(known, u, theta[p.columns]) if p.is_entrywise else u
        return theta
