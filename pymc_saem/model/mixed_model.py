"""A PyMC model as SAEM sees it: its random effects, parameters and outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pymc as pm

if TYPE_CHECKING:
    from pymc_saem.model.normal.affine import AffineImage


class UnsupportedModelError(ValueError):
    """The model is valid PyMC, but SAEM cannot estimate it; the message names the part and the reason."""


@dataclass(frozen=True)
class RandomEffect:
    """One free variable with a slice per subject, or per unit nested in subjects, along one of its axes.

    ``link`` maps the natural scale to phi. Where it is "value", phi is PyMC's value variable.
    ``value_is_phi``: whether the value variable already is on the scale of phi (a LogNormal has a
    log transform, a LogitNormal has none). ``is_gaussian``: phi has a normal distribution with one
    covariance for all subjects, so that its distribution is a mean and a covariance; the density of
    any other block is part of the compiled likelihood.

    A block of a lower level, such as occasions, has a column for each unit of a subject; subjects
    with fewer units than others have columns that nothing depends on, and that follow the
    distribution of the block.
    """

    name: str
    value_name: str
    shape: tuple[int, ...]  # that of the user's variable
    columns: slice  # of the last axis of phi
    link: str  # "identity", "log", "logit", "value"
    value_is_phi: bool
    dims: tuple[str | None, ...]
    is_gaussian: bool = True
    # (unit,): subject of each unit of a lower level
    unit_subject: np.ndarray | None = field(default=None, repr=False)
    is_network: bool = (
        False  # weights of a network, which the data of a subject hardly determine one by one
    )
    form: str = "direct"  # "direct", "deviation", "standard"; see parametrization.py
    # the AffineImage that phi is, of the form "standard"
    image: AffineImage | None = field(default=None, repr=False, compare=False)
    axis: int = 0  # of the subjects or units, in ``shape``

    @property
    def size(self) -> int:
        return self.columns.stop - self.columns.start

    @property
    def n_units(self) -> int:
        return self.shape[self.axis]

    @property
    def unit_dim(self) -> str | None:
        return self.dims[self.axis]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of the slice of one unit."""
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]

    @property
    def event_dims(self) -> tuple[str | None, ...]:
        return self.dims[: self.axis] + self.dims[self.axis + 1 :]

    @property
    def is_nested(self) -> bool:
        return self.unit_subject is not None

    @cached_property
    def unit_slot(self) -> np.ndarray:
        """Number of each unit within its subject, (unit,)."""
        unit_subject = self.row_subject(self.n_units)
        slot = np.zeros(unit_subject.size, dtype=int)
        for subject in np.unique(unit_subject):
            units = np.flatnonzero(unit_subject == subject)
            slot[units] = np.arange(units.size)
        return slot

    @property
    def n_slots(self) -> int:
        """Most units of a subject; 1 for a block of the upper level."""
        return int(self.unit_slot.max()) + 1 if self.is_nested else 1

    def to_columns(self, values: np.ndarray, n_subjects: int) -> np.ndarray:
        """Values (..., *shape) as columns of phi (..., subject, size); columns without a unit are 0."""
        flat = self.by_unit(values)
        lead = flat.shape[:-2]
        if not self.is_nested:
            return flat
        block = np.zeros((*lead, n_subjects, self.n_slots, flat.shape[-1]))
        block[..., self.unit_subject, self.unit_slot, :] = flat
        return block.reshape(*lead, n_subjects, -1)

    def by_unit(self, values: np.ndarray) -> np.ndarray:
        """Values (..., *shape) as (..., unit, entry)."""
        lead = values.shape[: values.ndim - len(self.shape)]
        return np.moveaxis(values, len(lead) + self.axis, len(lead)).reshape(
            *lead, self.n_units, -1
        )

    def from_columns(self, block: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`to_columns`: (..., subject, size) to (..., *shape)."""
        lead = block.shape[:-2]
        if self.is_nested:
            block = block.reshape(*lead, block.shape[-2], self.n_slots, -1)[
                ..., self.unit_subject, self.unit_slot, :
            ]
        block = block.reshape(*lead, self.n_units, *self.event_shape)
        return np.moveaxis(block, len(lead), len(lead) + self.axis)

    def row_subject(self, n_subjects: int) -> np.ndarray:
        """Subject of each unit."""
        return np.arange(n_subjects) if self.unit_subject is None else self.unit_subject


@dataclass(frozen=True)
class Block:
    """Random effects that have one distribution together: one, or several that an affine image makes normal with one covariance."""

    effects: tuple[RandomEffect, ...]

    @property
    def name(self) -> str:
        return "', '".join(effect.name for effect in self.effects)

    @property
    def is_gaussian(self) -> bool:
        return self.effects[0].is_gaussian

    @cached_property
    def columns(self) -> np.ndarray:
        """Columns of phi."""
        return np.concatenate([np.arange(e.columns.start, e.columns.stop) for e in self.effects])

    @cached_property
    def columns_of_slots(self) -> np.ndarray:
        """Places in ``columns`` of the units of a subject, (slot, entry of a unit)."""
        starts = np.cumsum([0, *(effect.size for effect in self.effects)])
        return np.concatenate(
            [
                start + np.arange(effect.size).reshape(effect.n_slots, -1)
                for start, effect in zip(starts, self.effects, strict=False)
            ],
            axis=1,
        )


@dataclass(frozen=True)
class Parameter:
    """One population parameter: a free variable without a subject axis."""

    name: str
    value_name: str
    shape: tuple[int, ...]  # of the value variable
    columns: slice  # of theta
    dims: tuple[str | None, ...]
    # of the variable; another where a transform drops entries that follow from the others
    natural_shape: tuple[int, ...]
    is_network: bool = (
        False  # weights of a network, which data determine together and hardly one by one
    )

    @property
    def is_entrywise(self) -> bool:
        """Whether there are as many unconstrained values as natural ones."""
        return np.prod(self.natural_shape, dtype=int) == self.columns.stop - self.columns.start


@dataclass(frozen=True)
class Outcome:
    """One observed variable, its rows flattened, and the subject of each row.

    A row is what has one log density: of a vector outcome such as MvNormal, ``row_size`` numbers.
    """

    name: str
    row_subject: np.ndarray = field(repr=False)  # (row,)
    row_size: int = 1

    @property
    def n_rows(self) -> int:
        return self.row_subject.size

    @property
    def n_values(self) -> int:
        """Observed numbers."""
        return self.n_rows * self.row_size


@dataclass(frozen=True)
class MixedModel:
    """A PyMC model as SAEM sees it; everything here is plain data, except ``model`` itself."""

    model: pm.Model = field(repr=False)
    subject_dim: str
    subjects: tuple  # labels, one per subject
    random_effects: tuple[RandomEffect, ...]
    parameters: tuple[Parameter, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def n_subjects(self) -> int:
        return len(self.subjects)

    @property
    def n_phi(self) -> int:
        return self.random_effects[-1].columns.stop

    @property
    def n_theta(self) -> int:
        return self.parameters[-1].columns.stop if self.parameters else 0

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The random effects, those with a common distribution together."""
        found: dict[str | int, list[RandomEffect]] = {}
        for effect in self.random_effects:
            found.setdefault(effect.name if effect.image is None else id(effect.image), []).append(
                effect
            )
        return tuple(Block(tuple(effects)) for effects in found.values())

    @property
    def n_rows(self) -> int:
        return sum(outcome.n_rows for outcome in self.outcomes)

    @property
    def n_values(self) -> int:
        """Observed numbers of all outcomes, each entry of a vector counted."""
        return sum(outcome.n_values for outcome in self.outcomes)

    @property
    def values_of_subjects(self) -> np.ndarray:
        """Observed numbers of each subject, (subject,)."""
        counts = [
            np.bincount(o.row_subject, minlength=self.n_subjects) * o.row_size
            for o in self.outcomes
        ]
        return np.sum(counts, axis=0)

    def parameter(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)

    def phi_labels(self) -> list[str]:
        """Name of each column of phi, such as ``w_a1[W1[0,0]]`` or ``ka``."""
        labels = []
        for effect in self.random_effects:
            of_unit = element_labels(self.model, effect.name, effect.event_shape, effect.event_dims)
            if effect.is_nested:
                of_unit = [
                    f"{label} #{slot + 1}" for slot in range(effect.n_slots) for label in of_unit
                ]
            labels += of_unit
        return labels

    @cached_property
    def is_used(self) -> np.ndarray:
        """Which columns of which subjects data depend on, (subject, phi): not those of units that a subject lacks."""
        used = np.ones((self.n_subjects, self.n_phi), dtype=bool)
        for effect in self.random_effects:
            if effect.is_nested:
                used[:, effect.columns] = (
                    effect.to_columns(np.ones(effect.shape), self.n_subjects) > 0
                )
        return used

    @cached_property
    def is_gaussian(self) -> np.ndarray:
        """Which columns of phi have a Gaussian distribution, (phi,)."""
        gaussian = np.zeros(self.n_phi, dtype=bool)
        for effect in self.random_effects:
            gaussian[effect.columns] = effect.is_gaussian
        return gaussian


def parameter_labels(model: pm.Model, p: Parameter) -> list[str]:
    """Label the natural entries of a parameter."""
    return element_labels(model, p.name, p.natural_shape, p.dims)


def element_labels(
    model: pm.Model, name: str, shape: Sequence[int], dims: Sequence[str | None]
) -> list[str]:
    """Label the entries of an array variable by its coordinates: ``z[W1[0,0]]``."""
    if not shape:
        return [name]
    axes = []
    for length, dim in zip(shape, tuple(dims) + (None,) * len(shape), strict=False):
        coords = model.coords.get(dim) if dim is not None else None
        axes.append(
            [str(c) for c in coords] if coords is not None else [str(i) for i in range(length)]
        )
    return [
        f"{name}[{', '.join(axes[a][i] for a, i in enumerate(index))}]"
        for index in np.ndindex(*shape)
    ]
