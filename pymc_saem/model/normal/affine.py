"""Finds, by experiment, the variables of the graph through which alone standard normal variables enter a model, affinely.

Such variables, one number per column of phi for each unit, are normal themselves, with mean A and
covariance B B', whatever the order of their axes and wherever an index stands: ``mu + omega * z``,
``mu + omega * z[index]``, ``mu + z @ chol.T``, ``(chol @ z).T``, two standard deviations and a
correlation by hand. phi are their values, so that parameters in A and B leave the predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.tensor.variable import TensorVariable
from scipy.optimize import linear_sum_assignment

from pymc_saem.model.normal.entry_by_unit import Entries, Region
from pymc_saem.model.normal.latents import Latent

#: A matrix B whose determinant is smaller than this share of the product of its rows' lengths has
#: no inverse.
SINGULAR = 1e-8


@dataclass(frozen=True)
class Cut:
    """A variable of the graph that holds nothing but entries of phi: of this unit and this column.

    ``whole`` is the same variable with an entry per unit and one column, where an index could be
    taken out of it.
    """

    variable: TensorVariable
    unit: np.ndarray  # in the shape of the variable
    column: np.ndarray
    whole: TensorVariable | None = None

    @cached_property
    def symbol(self) -> TensorVariable:
        """Stands for the variable in graphs that are made without it."""
        return self.variable.type()

    @property
    def source(self) -> tuple[TensorVariable, np.ndarray, np.ndarray]:
        """What the columns are computed from: graph, and unit and column of each of its entries, flat."""
        if self.whole is None:
            return self.variable.ravel(), self.unit.ravel(), self.column.ravel()
        n = self.whole.type.shape[0]
        return self.whole, np.arange(n), np.full(n, self.column.flat[0])

    def of_columns(self, columns: TensorVariable) -> TensorVariable:
        """The variable as a graph of the columns (unit, column)."""
        n_units, n_columns = columns.type.shape
        # without an index, where it is the same
        for axis in np.flatnonzero(np.array(self.unit.shape) == n_units):
            rest = np.delete(self.unit.shape, axis)
            units = np.moveaxis(self.unit, axis, 0).reshape(n_units, -1)
            numbers = np.moveaxis(self.column, axis, 0).reshape(n_units, -1)
            if np.all(units == np.arange(n_units)[:, None]) and np.all(numbers == numbers[0]):
                own = (
                    columns
                    if np.array_equal(numbers[0], np.arange(n_columns))
                    else columns[:, numbers[0]]
                )
                return pt.moveaxis(own.reshape((n_units, *rest)), 0, int(axis))
        return columns[self.unit, self.column]


@dataclass(frozen=True, eq=False)
class AffineImage:
    """phi of one or more standard normal variables, which enter the model through the cuts only.

    Attributes
    ----------
    latents : tuple of Latent
    cuts : tuple of Cut
    is_diagonal : bool
        Whether each column depends on its own entry of the variables only.
    """

    latents: tuple[Latent, ...]
    cuts: tuple[Cut, ...]
    is_diagonal: bool = field(default=True)

    @property
    def n_units(self) -> int:
        return self.latents[0].n_units

    @property
    def n_columns(self) -> int:
        return sum(latent.size for latent in self.latents)

    @cached_property
    def columns(self) -> TensorVariable:
        """The columns (unit, column) as a graph of the model's random variables."""
        place, start, parts = np.full((self.n_units, self.n_columns), -1), 0, []
        for cut in self.cuts:
            graph, unit, column = cut.source
            where = np.arange(start, start + unit.size)
            place[unit[::-1], column[::-1]] = where[::-1]  # the first entry of each
            parts.append(graph)
            start += unit.size
        if np.array_equal(place.ravel(), np.arange(start)) and len(parts) == 1:
            return pt.specify_shape(parts[0].reshape(place.shape), place.shape)
        return (pt.concatenate(parts) if len(parts) > 1 else parts[0])[place]

    def of_latent(self, rv: TensorVariable) -> TensorVariable:
        """The columns that stand beside one of the variables, in its shape."""
        start = 0
        for latent in self.latents:
            if latent.rv is rv:
                columns = self.columns[:, start : start + latent.size]
                rest = np.delete(latent.shape, latent.axis)
                return pt.moveaxis(columns.reshape((latent.n_units, *rest)), 0, latent.axis)
            start += latent.size
        raise KeyError(rv)

    def at(self, standard: np.ndarray) -> TensorVariable:
        """The columns where the variables take the values of standard normal ones (unit, column), as a graph."""
        replaced: dict[Variable, Variable] = {}
        start = 0
        for latent in self.latents:
            value = latent.value(standard[:, start : start + latent.size])
            replaced[latent.rv] = pt.constant(value.astype(latent.rv.dtype))
            start += latent.size
        # graph_replace, because clone_replace would copy the other random variables, and they could
        # not be found again
        return pt.as_tensor_variable(graph_replace(self.columns, replaced, strict=False))

    @cached_property
    def law(self) -> list[TensorVariable]:
        """Mean (unit, column), and the factor B: its diagonal (unit, column), or (unit, column, column)."""
        mean, shape = (
            self.at(np.zeros((self.n_units, self.n_columns))),
            (self.n_units, self.n_columns),
        )
        if self.is_diagonal:
            return [mean, self.at(np.ones(shape)) - mean]
        columns = [self.at(np.broadcast_to(row, shape)) - mean for row in np.eye(self.n_columns)]
        return [mean, pt.stack(columns, axis=-1)]

    def standard_of(
        self, columns: TensorVariable, law: Sequence[TensorVariable]
    ) -> list[TensorVariable]:
        """Values of the variables as graphs of the columns, at the graphs of the distribution."""
        mean, factor = law
        if self.is_diagonal:
            standard = (columns - mean) / factor
        else:
            standard = pt.linalg.solve(factor, (columns - mean)[..., None], b_ndim=2)[..., 0]
        starts = np.cumsum([0, *(latent.size for latent in self.latents)])
        parts = [standard[:, a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
        return [latent.value(part) for latent, part in zip(self.latents, parts, strict=True)]

    def log_volume(self, law: Sequence[TensorVariable]) -> TensorVariable:
        """Logarithm of |det B|: (unit, column) of a diagonal, else (unit, 1)."""
        factor = law[1]
        if self.is_diagonal:
            return pt.log(pt.abs(factor))
        return pt.log(pt.abs(pt.linalg.det(factor)))[:, None]


def find_images(
    model: pm.Model,
    point: Mapping[str, np.ndarray],
    latents: list[Latent],
    others: set[TensorVariable],
) -> list[AffineImage]:
    """The affine images of these variables, except those whose scale would stay in the predictions.

    Parameters
    ----------
    point : dict
        PyMC's initial point.
    latents : list of Latent
        Of one axis of units.
    others : set
        Other random effects, which an image may not hold.
    """
    if not latents:
        return []
    together = _find(Region(model, point, latents, others))
    if len(latents) == 1:
        return together[0]
    alone = [
        _find(Region(model, point, [latent], others | {x.rv for x in latents if x is not latent}))
        for latent in latents
    ]
    # Together they leave fewer parameters where one variable is made of several of them, as by a
    # correlation.
    left = set.intersection(*(of for _, of in alone))
    if together[0] and len(together[1]) < len(left):
        return together[0]
    return [image for images, _ in alone for image in images]


def _find(region: Region) -> tuple[list[AffineImage], set[TensorVariable]]:
    """Images, and the parameters that they leave in the predictions."""
    everything = region.left_by(region.start)
    inside = region.valid_inside()
    entries = None if inside is None else region.entries(inside)
    if inside is None or entries is None or len(left := region.left_by(inside)) >= len(everything):
        return [], everything
    found = _image_of(region, entries)
    return (_components(region, *found), left) if found is not None else ([], everything)


def _image_of(region: Region, entries: Sequence[Entries]) -> tuple[AffineImage, np.ndarray] | None:
    """The image with its matrices B (point, unit, column, column); None where one of them has no inverse."""
    image = AffineImage(tuple(region.latents), tuple(Cut(*cut) for cut in entries), False)
    factors = _factors(region, image)
    length = np.linalg.norm(factors, axis=-1).prod(axis=-1)
    if not np.all(np.isfinite(factors)) or not np.all(
        np.abs(np.linalg.det(factors)) > SINGULAR * length
    ):
        return None
    # Each column matched with the entry that it depends on; where several fit, in the order of the
    # user.
    n = image.n_columns
    depends = np.any(
        np.abs(factors) > 1e-12 * np.abs(factors).max(axis=(-1, -2), keepdims=True), axis=(0, 1)
    )
    gain = depends * (2.0 + np.eye(n) / n)
    _, order = linear_sum_assignment(-gain.T)
    place = np.argsort(order)
    cuts = tuple(replace(cut, column=place[cut.column]) for cut in image.cuts)
    return AffineImage(image.latents, cuts, False), depends[order]


def _factors(region: Region, image: AffineImage) -> np.ndarray:
    """B at two random points, (point, unit, column, column)."""
    f = region.function([image.columns])
    n, found = image.n_columns, []
    for theta in region.points:
        zero = f(theta, np.zeros((image.n_units, n)))[0]
        rows = [f(theta, np.broadcast_to(e, zero.shape))[0] - zero for e in np.eye(n)]
        found.append(np.stack(rows, axis=-1))
    return np.array(found)


def _components(region: Region, image: AffineImage, depends: np.ndarray) -> list[AffineImage]:
    """Images of variables that share no column, apart from each other."""
    starts = np.cumsum([0, *(latent.size for latent in image.latents)])
    blocks = [np.arange(a, b) for a, b in zip(starts[:-1], starts[1:], strict=True)]
    group = list(range(len(blocks)))
    for i in range(len(blocks)):
        for j in range(len(blocks)):
            if depends[np.ix_(blocks[i], blocks[j])].any():
                group = [group[i] if g == group[j] else g for g in group]
    found = []
    for g in dict.fromkeys(group):
        members = [k for k in range(len(blocks)) if group[k] == g]
        columns = np.concatenate([blocks[k] for k in members])
        number = np.full(depends.shape[0], -1)
        number[columns] = np.arange(columns.size)
        cuts = [
            replace(c, column=number[c.column]) for c in image.cuts if np.any(number[c.column] >= 0)
        ]
        if any((cut.column < 0).any() for cut in cuts):  # a variable with columns of several groups
            return [
                AffineImage(
                    image.latents,
                    image.cuts,
                    bool(np.all(depends == np.eye(len(depends), dtype=bool))),
                )
            ]
        own = depends[np.ix_(columns, columns)]
        is_diagonal = not np.any(own & ~np.eye(len(own), dtype=bool))
        found.append(
            AffineImage(tuple(image.latents[k] for k in members), tuple(cuts), is_diagonal)
        )
    return found
