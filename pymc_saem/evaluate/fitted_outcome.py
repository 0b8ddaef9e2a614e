"""Puts a model and its fit together: the rows of an outcome, their subjects, and values for every free variable."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pymc as pm
from pytensor.tensor.variable import TensorVariable

from pymc_saem.arguments import shown
from pymc_saem.compat import InferenceData
from pymc_saem.model.outcomes import (
    Outcome,
    choose_outcome,
    missing_parts,
    read_outcomes,
    subject_of_values,
)
from pymc_saem.results.fit import Fit

#: Axis ``sample`` of :func:`sample_values`: population, then conditional mode, then draws.
POPULATION_SAMPLE, MODE_SAMPLE, DRAWS = 0, 1, slice(2, None)


@dataclass(frozen=True)
class FittedOutcome:
    """One observed variable of a fitted model, its rows flattened."""

    name: str
    rv: TensorVariable = field(repr=False)
    shape: tuple[int, ...]  # of the observed variable
    observed: np.ndarray = field(repr=False)  # (row,)
    row_subject: np.ndarray = field(repr=False)  # (row,)
    subject_dim: str
    subjects: np.ndarray  # labels, (subject,)
    # (row,), among all rows, where some are missing
    places: np.ndarray | None = field(default=None, repr=False)
    n_all: int | None = None  # rows with the missing ones

    def rows_of(self, subject: int) -> np.ndarray:
        """Row numbers of one subject, in the order of the data."""
        return np.flatnonzero(self.row_subject == subject)


def read_outcome(
    model: pm.Model, idata: InferenceData, outcome: str | None = None
) -> FittedOutcome:
    """The outcome that a figure is about.

    Parameters
    ----------
    model : pymc.Model
    idata : arviz.InferenceData or xarray.DataTree
    outcome : str, optional
        Needed when the model has several.

    Raises
    ------
    ValueError
        When the outcome does not exist, is not unique, or the fit belongs to a different model.
    """
    outcomes = read_outcomes(model)
    # as PyMC calls one with missing rows
    by_part: dict[str | None, str | None] = {o.observed_name: o.name for o in outcomes}
    chosen = choose_outcome(outcomes, by_part.get(outcome, outcome))
    name = chosen.observed_name
    fit = Fit(idata)
    observed, constant = fit.observed, fit.constant
    rv = model[name]
    if (
        name not in observed
        or f"{name}_subject" not in constant
        or not _fits(observed[name].shape, rv.type.shape)
    ):
        raise ValueError(
            f"This is not a fit of this model: it has no outcome {name!r} of shape {rv.type.shape}."
        )
    _compare(chosen, np.ravel(observed[name].values))
    return FittedOutcome(
        name=name,
        rv=rv,
        shape=observed[name].shape,
        observed=np.ravel(observed[name].values),
        row_subject=subject_of_values(constant[f"{name}_subject"].values, observed[name].size),
        subject_dim=fit.subject_dim,
        subjects=fit.subjects,
        places=chosen.parts[0].rows if len(chosen.parts) > 1 else None,
        n_all=chosen.n_rows,
    )


def _compare(outcome: Outcome, fitted: np.ndarray) -> None:
    """The rows of the model must be those of the fit, which pm.set_data may have exchanged since."""
    here = outcome.observed[outcome.is_observed]
    if here.size != fitted.size:
        raise ValueError(
            f"The model has {here.size} observed values of '{outcome.name}', and had {fitted.size} when it was fitted. Set the data of "
            "the fit again with pm.set_data; ps.predict gives predictions for other rows."
        )
    other = np.flatnonzero(~np.isclose(here, fitted.astype(float), rtol=1e-12, atol=0.0))
    if other.size:
        row = int(other[0])
        warnings.warn(
            f"The observed values of '{outcome.name}' in the model are not those of the fit: {other.size} of {here.size} differ, such as "
            f"row {row}, which is {here[row]:g} in the model and was {fitted[row]:g}. The figure shows those of the fit.",
            UserWarning,
            stacklevel=4,
        )


def _fits(shape: tuple[int, ...], static: tuple[int | None, ...]) -> bool:
    """Whether a shape agrees with a static one, in which None is open."""
    return len(shape) == len(static) and all(
        b in (a, None) for a, b in zip(shape, static, strict=True)
    )


class HasSubjects(Protocol):
    """The rows of an outcome, whose subjects have labels."""

    @property
    def subject_dim(self) -> str: ...

    @property
    def subjects(self) -> np.ndarray: ...


def find_subjects(
    outcome: HasSubjects, labels: Hashable | Sequence[Hashable] | None = None
) -> list[int]:
    """Subject numbers of labels; all subjects by default, and one label may stand alone.

    Raises
    ------
    ValueError
        When a label does not exist, with those that do.
    """
    if labels is None:
        return list(range(outcome.subjects.size))
    if isinstance(labels, str) or not np.iterable(labels):
        labels = [labels]
    by_text = {str(label): k for k, label in enumerate(outcome.subjects)}
    found = []
    for label in labels:
        if str(label) not in by_text:
            raise ValueError(
                f"There is no {outcome.subject_dim} {shown(label)}; there are {_listed(by_text)}."
            )
        found.append(by_text[str(label)])
    if not found:
        raise ValueError(f"No {outcome.subject_dim} was asked for.")
    return found


def _listed(names: Iterable[str], limit: int = 30) -> str:
    names = list(names)
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def sample_values(model: pm.Model, idata: InferenceData, n_draws: int) -> dict[str, np.ndarray]:
    """Natural values of every free variable under which curves are drawn.

    Parameters
    ----------
    model : pymc.Model
    idata : arviz.InferenceData or xarray.DataTree
    n_draws : int
        At most this many draws of the posterior, evenly spaced.

    Returns
    -------
    dict of str to ndarray, shape (sample, ...)
        Sample 0 has the random effects at their population value, sample 1 at the conditional mode,
        both with the parameters at their estimate; the others are draws.
    """
    fit, values, missing = Fit(idata), {}, missing_parts(model)
    keep = np.unique(np.linspace(0, fit.n_draws - 1, min(n_draws, fit.n_draws)).round().astype(int))
    for name in (rv.name for rv in model.free_RVs):
        if name in missing:  # rows, which a fit leaves out
            continue
        if name in fit.effects:
            pair = fit.typical_and_mode(name)
        else:
            estimate = fit.estimate(name)
            if estimate is None:
                raise ValueError(f"This is not a fit of this model: it has no parameter {name!r}.")
            pair = [estimate, estimate]
        values[name] = np.stack(pair)
        if "posterior" in fit:
            values[name] = np.concatenate([values[name], fit.draws(name, keep)])
    return values
