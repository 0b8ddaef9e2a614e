"""What SAEM knows of a PyMC model: its random effects, parameters and outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pymc as pm


class UnsupportedModelError(ValueError):
    """The model is valid PyMC, but SAEM cannot estimate it; the text says which part, and why."""


@dataclass(frozen=True)
class RandomEffect:
    """One block of random effects: a free variable with one slice per subject.

    ``link`` maps the natural scale to phi, on which the block is Gaussian. ``value_is_phi`` says
    whether PyMC's value variable already lives there (a LogNormal has a log transform, a
    LogitNormal has none).
    """

    name: str
    value_name: str
    shape: tuple[int, ...]  # (subject, ...)
    columns: slice  # of the last axis of phi
    link: str  # "identity", "log", "logit"
    value_is_phi: bool
    dims: tuple[str | None, ...]

    @property
    def size(self) -> int:
        return self.columns.stop - self.columns.start


@dataclass(frozen=True)
class Parameter:
    """One population parameter: a free variable without a subject axis."""

    name: str
    value_name: str
    shape: tuple[int, ...]  # of the value variable
    columns: slice  # of theta
    dims: tuple[str | None, ...]


@dataclass(frozen=True)
class Outcome:
    """One observed variable, its rows flattened, and the subject of each row."""

    name: str
    row_subject: np.ndarray = field(repr=False)  # (row,)

    @property
    def n_rows(self) -> int:
        return self.row_subject.size


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

    @property
    def n_rows(self) -> int:
        return sum(outcome.n_rows for outcome in self.outcomes)

    def parameter(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)

    def phi_labels(self) -> list[str]:
        """Name of each column of phi, such as ``w_a1[W1[0,0]]`` or ``ka``."""
        labels = []
        for effect in self.random_effects:
            labels += element_labels(self.model, effect.name, effect.shape[1:], effect.dims[1:])
        return labels


def element_labels(model, name: str, shape, dims) -> list[str]:
    """Label the entries of an array variable by its coordinates: ``z[W1[0,0]]``."""
    if not shape:
        return [name]
    axes = []
    for length, dim in zip(shape, tuple(dims) + (None,) * len(shape), strict=False):
        coords = model.coords.get(dim) if dim is not None else None
        axes.append([str(c) for c in coords] if coords is not None else [str(i) for i in range(length)])
    return [f"{name}[{', '.join(axes[a][i] for a, i in enumerate(index))}]" for index in np.ndindex(*shape)]
