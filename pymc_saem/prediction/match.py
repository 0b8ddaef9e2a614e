"""Which subjects of a model the fit knows, and what it says about their random effects."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import xarray as xr

from pymc_saem.arguments import first_of
from pymc_saem.evaluate.generator import Generator
from pymc_saem.model.outcomes import Outcome, subject_of_values
from pymc_saem.prediction.design import Design
from pymc_saem.results.fit import Fit

#: Where the random effects of a subject come from.
FIT, OWN_DATA, POPULATION = "fit", "own data", "population"
CHOICES = ("auto", "match", "new")


@dataclass(frozen=True)
class Matched:
    """Where the random effects of each subject of a model come from.

    Attributes
    ----------
    source : ndarray of str, shape (subject,)
    place : ndarray of int, shape (subject,)
        Number of the subject in the fit; -1 for a new one.
    """

    source: np.ndarray
    place: np.ndarray = field(repr=False)


def match(generator: Generator, design: Design, fit: Fit, subjects: str) -> Matched:
    """Match subjects by their labels.

    Parameters
    ----------
    subjects : {"auto", "match", "new"}

    Warns
    -----
    UserWarning
        With "auto", when a label is known to the fit, but its observed values are not those of the
        fit.
    """
    known = {str(label): k for k, label in enumerate(fit.subjects)}
    place = np.array([known.get(str(label), -1) for label in design.subjects])
    if subjects == "new":
        place[:] = -1
    if subjects == "auto":
        _warn_of_other_data(generator, design, fit, place)
    source = np.where(design.has_rows(generator.outcomes), OWN_DATA, POPULATION)
    return Matched(np.where(place >= 0, FIT, source), place)


def _warn_of_other_data(generator: Generator, design: Design, fit: Fit, place: np.ndarray) -> None:
    names = []
    for s in np.flatnonzero(place >= 0).tolist():
        if any(_contradicts(outcome, design, fit, s, place[s]) for outcome in generator.outcomes):
            names.append(str(design.subjects[s]))
    if names:
        warnings.warn(
            f"The fit contains {fit.subject_dim} {first_of(names)}, but their observed values in the model differ from those of the fit. They are "
            "treated as the subjects that were fitted and predicted from the data of the fit alone. Use subjects='new' if they "
            "are different subjects or their new data should be used, and subjects='match' to confirm that they are the same.",
            UserWarning,
            stacklevel=4,
        )


def _contradicts(outcome: Outcome, design: Design, fit: Fit, subject: int, place: int) -> bool:
    """Whether a subject has observed values that the fit does not have, and the other way round."""
    observed, constant = fit.observed, fit.constant
    name = next(
        (
            n
            for n in (outcome.observed_name, outcome.name, f"{outcome.name}_observed")
            if n in observed
        ),
        None,
    )
    if name is None or f"{name}_subject" not in constant:
        return False
    values = np.ravel(observed[name].values)
    fitted = values[subject_of_values(constant[f"{name}_subject"].values, values.size) == place]
    rows = (design.row_subject[outcome.name] == subject) & outcome.is_observed
    here, there = Counter(outcome.observed[rows].tolist()), Counter(fitted.astype(float).tolist())
    return bool(here - there) and bool(there - here)


def fitted_effects(
    generator: Generator,
    design: Design,
    fit: Fit,
    matched: Matched,
    shapes: Mapping[str, tuple[int, ...]],
    which: np.ndarray,
) -> tuple[dict, dict, dict]:
    """Modes and draws of the random effects of the subjects that the fit knows.

    Parameters
    ----------
    shapes : dict of str to tuple
        Of each random effect in the model.
    which : ndarray of int, shape (draw,)
        Draws that are wanted.

    Returns
    -------
    modes : dict of str to ndarray, each (1, unit, ...)
    draws : dict of str to ndarray, each (draw, unit, ...)
    is_given : dict of str to ndarray of bool, each (unit,)
        Whose values these are; a unit that the fit does not know, such as a later occasion, has
        none.
    """
    individual, modes, draws, is_given = fit.individual, {}, {}, {}
    for name in generator.effects:
        mode = individual[f"{name}_mode"]
        place = _places(name, design, fit, matched, mode)
        given = place >= 0
        modes[name], draws[name] = (
            np.zeros((1, *shapes[name])),
            np.zeros((len(which), *shapes[name])),
        )
        by_unit = partial(generator.by_unit, name)
        by_unit(modes[name])[:, given] = by_unit(mode.values[None])[:, place[given]]
        if given.any():
            by_unit(draws[name])[:, given] = by_unit(fit.draws(name, which))[:, place[given]]
        is_given[name] = given
    return modes, draws, is_given


def _places(
    name: str, design: Design, fit: Fit, matched: Matched, mode: xr.DataArray
) -> np.ndarray:
    """Place in the fit of each unit of an effect; -1 for none."""
    if name not in design.units:
        return matched.place
    units = design.units[name]
    axis = fit.unit_axes[name]
    labels = (
        mode[mode.dims[axis]].values
        if mode.dims[axis] in mode.coords
        else np.arange(mode.shape[axis])
    )
    known = {str(label): k for k, label in enumerate(labels)}
    found = np.array([known.get(str(label), -1) for label in units.labels])
    owner = np.where(units.subject >= 0, matched.place[units.subject], -1)
    constant = fit.constant
    if f"{name}_subject" in constant:  # a unit of another subject has the same label by chance
        owner_in_fit = constant[f"{name}_subject"].values
        found = np.where((found >= 0) & (owner_in_fit[found] == owner), found, -1)
    return np.where(owner >= 0, found, -1)
