"""Free variables with a normal distribution that no parameter moves, such as ``Normal("z", 0, 1)``: candidates for effects in another parameterization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.model.graph.interpreted import INTERPRETED


@dataclass(frozen=True, eq=False)
class Latent:
    """A free variable with a constant normal distribution, independent over the entries of one of its axes.

    Attributes
    ----------
    rv : Variable
    shape : tuple of int
    axis : int
        That of the units.
    mean : ndarray, shape (unit, size)
    root : ndarray, shape (unit, size) or (size, size)
        Standard deviations, or a factor of the covariance of a unit.
    """

    rv: TensorVariable
    shape: tuple[int, ...]
    axis: int
    mean: np.ndarray
    root: np.ndarray
    is_matrix: bool

    @property
    def n_units(self) -> int:
        return self.shape[self.axis]

    @property
    def size(self) -> int:
        """Entries of a unit."""
        return int(np.prod(self.shape, dtype=int)) // self.n_units

    @overload
    def value(self, standard: np.ndarray) -> np.ndarray: ...

    @overload
    def value(self, standard: TensorVariable) -> TensorVariable: ...

    def value(self, standard: np.ndarray | TensorVariable) -> np.ndarray | TensorVariable:
        """Values in the shape of the variable, where independent standard normal ones (unit, size) take these.

        Of graphs a graph, of arrays (..., unit, size) an array (..., *shape).
        """
        own = standard @ self.root.T if self.is_matrix else standard * self.root
        values, rest = self.mean + own, np.delete(self.shape, self.axis)
        if isinstance(values, np.ndarray):
            lead = values.shape[:-2]
            return np.moveaxis(
                values.reshape(*lead, self.n_units, *rest), len(lead), len(lead) + self.axis
            )
        return pt.moveaxis(values.reshape((self.n_units, *rest)), 0, self.axis)

    def standard(self, values: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`value` for arrays (..., *shape): (..., unit, size)."""
        n_lead = values.ndim - len(self.shape)
        values = np.moveaxis(values, n_lead + self.axis, n_lead)
        gap = values.reshape(*values.shape[:n_lead], self.n_units, self.size) - self.mean
        return (
            np.linalg.solve(self.root, gap[..., None])[..., 0]
            if self.is_matrix
            else gap / self.root
        )


def latent_of(model: pm.Model, name: str, shape: tuple[int, ...], axis: int) -> Latent | None:
    """A free variable as a latent one; None where its distribution is another, or moves with parameters."""
    rv = model[name]
    kind = type(rv.owner.op).__name__
    if kind not in ("NormalRV", "MvNormalRV") or model.rvs_to_transforms.get(rv) is not None:
        return None
    parameters = rv.owner.op.dist_params(rv.owner)
    if set(model.free_RVs) & set(ancestors(rv.owner.inputs)):
        return None
    location, scale = pytensor.function([], list(parameters), mode=INTERPRETED)()
    n_units, is_matrix = shape[axis], kind == "MvNormalRV"
    mean = np.moveaxis(np.broadcast_to(location, shape), axis, 0).reshape(n_units, -1)
    if not is_matrix:
        root = np.moveaxis(np.broadcast_to(scale, shape), axis, 0).reshape(n_units, -1)
    elif (
        axis == 0 and len(shape) == 2 and scale.size == shape[1] ** 2
    ):  # one covariance for all units
        root = np.linalg.cholesky(scale.reshape(shape[1], shape[1]))
    else:
        return None
    return Latent(rv, tuple(shape), axis, mean.astype(float), root.astype(float), is_matrix)
