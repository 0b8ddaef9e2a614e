"""The rows of one outcome that were observed, and the fitted model that predicts and simulates them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from numpy.typing import ArrayLike
from pymc.distributions.censored import CensoredRV
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import io_toposort
from pytensor.tensor.random.basic import LogNormalRV

from pymc_saem.compat import InferenceData
from pymc_saem.evaluate.drawing import refuse_undrawable
from pymc_saem.evaluate.generator import Generator, Laws
from pymc_saem.evaluate.row_function import (
    INTERPRETED,
    TIGHT,
    are_of_rows,
    before_censoring,
    times_of_rows,
)
from pymc_saem.model.graph.rebuild import rebuild
from pymc_saem.model.outcomes import Outcome, choose_outcome, data_value
from pymc_saem.prediction.simulate import warn_of_failures
from pymc_saem.prediction.values import fitted_values
from pymc_saem.results.fit import Fit

#: Entries of :attr:`Rows.predicted`.
POPULATION, INDIVIDUAL = 0, 1


@dataclass(frozen=True)
class Rows:
    """The observed rows of one outcome.

    Attributes
    ----------
    number : ndarray of int, shape (row,)
        Place in the flattened outcome, in which rows may be missing.
    subject : ndarray of int, shape (row,)
    observed : ndarray, shape (row,)
        A censored row has its bound.
    lower, upper : ndarray, shape (row,)
        Bounds of a ``Censored`` outcome; infinite where there is none.
    predicted : ndarray, shape (2, row), or None
        With the random effects at their population value and at the conditional mode; None where
        PyMC has no mean.
    x : ndarray, shape (row,), or None
        Time, where it is known.
    """

    outcome: Outcome = field(repr=False)
    subject_dim: str
    subjects: np.ndarray = field(repr=False)
    number: np.ndarray = field(repr=False)
    subject: np.ndarray = field(repr=False)
    observed: np.ndarray = field(repr=False)
    lower: np.ndarray = field(repr=False)
    upper: np.ndarray = field(repr=False)
    predicted: np.ndarray | None = field(repr=False)
    x: np.ndarray | None = field(repr=False)
    is_log: bool
    is_discrete: bool

    @property
    def is_censored(self) -> bool:
        """Whether the outcome has bounds."""
        return bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    @property
    def below(self) -> np.ndarray:
        """Which rows are censored from below, (row,)."""
        return self.observed <= self.lower

    @property
    def above(self) -> np.ndarray:
        """Which rows are censored from above, (row,)."""
        return self.observed >= self.upper


class FittedRows:
    """A model and its fit, about one outcome: everything that is compiled.

    Parameters
    ----------
    model : pymc.Model
    idata : arviz.InferenceData or xarray.DataTree
    outcome : str, optional
    x : array_like, optional

    Attributes
    ----------
    rows : Rows
    generator : Generator
    values : dict of str to ndarray
        The estimates.
    at_modes : Laws
        Of all outcomes, for the random effects at population value and conditional mode (n is 2).
    """

    def __init__(
        self,
        model: pm.Model,
        idata: InferenceData,
        outcome: str | None = None,
        x: ArrayLike | None = None,
    ) -> None:
        fit = Fit(idata)
        fit.require("individual")
        self.generator = Generator(model, fit.effects, uncensored=True, axes=fit.unit_axes)
        self.values = fitted_values(model, self.generator.parameters, fit)
        self.modes = _effects_of(fit, self.generator)
        self.at_modes = self.generator.laws(self.values, self.modes, 2)
        # as PyMC calls one with missing rows
        by_part: dict[str | None, str | None] = {
            o.observed_name: o.name for o in self.generator.outcomes
        }
        chosen = choose_outcome(self.generator.outcomes, by_part.get(outcome, outcome))
        refuse_undrawable([chosen])
        self.rows = self._read(fit, chosen, x)

    def simulate(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n data sets with new random effects, before censoring, shape (n, row)."""
        generated = self.generator.draw(self.values, n, rng)
        warn_of_failures(self.generator, generated, stacklevel=4)
        return self._observed_rows(generated.outcomes)

    def simulate_given_modes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n data sets with the random effects at their conditional mode, before censoring, shape (n, row)."""
        arguments = [np.repeat(a[INDIVIDUAL:], n, axis=0) for a in self.at_modes.arguments]
        return self._observed_rows(self.generator.draw_outcomes(Laws(n, {}, arguments), rng))

    def at_mode(self, graphs: Sequence[Variable]) -> list[np.ndarray]:
        """Graphs of the model at the estimates and the conditional modes."""
        given = {name: np.asarray(value) for name, value in self.values.items()}
        given |= {name: value[INDIVIDUAL] for name, value in self.modes.items()}
        model = self.generator.model
        known = {
            model[n]: pt.constant(v.astype(model[n].type.dtype), dtype=model[n].type.dtype)
            for n, v in given.items()
        }
        graphs = rebuild(graphs, known, tolerance=TIGHT)
        return pytensor.function([], graphs, mode=INTERPRETED)()

    def _observed_rows(self, outcomes: Mapping[str, np.ndarray]) -> np.ndarray:
        values = outcomes[self.rows.outcome.name]
        return values.reshape(len(values), -1)[:, self.rows.number]

    def _read(self, fit: Fit, outcome: Outcome, x: ArrayLike | None) -> Rows:
        number = np.flatnonzero(outcome.is_observed)
        subject = _subject_of_rows(fit, outcome, number.size)
        _warn_of_other_data(fit, outcome, number)
        locations = self.at_modes.locations[outcome.name]
        rv = outcome.parts[0].rv
        base = before_censoring(rv)
        return Rows(
            outcome=outcome,
            subject_dim=fit.subject_dim,
            subjects=fit.subjects,
            number=number,
            subject=subject,
            observed=outcome.observed[number],
            lower=self._bound(outcome, 1, -np.inf)[number],
            upper=self._bound(outcome, 2, np.inf)[number],
            predicted=None if locations is None else locations.reshape(2, -1)[:, number],
            x=_times(outcome, number, subject, x, self.generator.model[outcome.name]),
            is_log=isinstance(base.owner.op, LogNormalRV),
            is_discrete=not rv.dtype.startswith("float"),
        )

    def _bound(self, outcome: Outcome, place: int, default: float) -> np.ndarray:
        """Bounds of all rows, (row of the whole outcome,)."""
        parts = [part.rv for part in outcome.parts]
        if not isinstance(parts[0].owner.op, CensoredRV):
            return np.full(outcome.n_rows, default)
        found = self.at_mode([rv.owner.inputs[place] for rv in parts])
        if len(parts) == 1:
            return np.broadcast_to(found[0], outcome.shape).astype(float).ravel()
        found = [
            np.broadcast_to(b, part.rows.shape)
            for b, part in zip(found, outcome.parts, strict=True)
        ]
        return outcome.join([b[None] for b in found], 1).astype(float).ravel()


def _effects_of(fit: Fit, generator: Generator) -> dict[str, np.ndarray]:
    found = {}
    for name in generator.effects:
        pair = fit.typical_and_mode(name)
        shape = generator.model[name].type.shape
        if len(shape) != pair[0].ndim or any(
            b not in (None, a) for a, b in zip(pair[0].shape, shape, strict=True)
        ):
            raise ValueError(
                f"This is not a fit of this model: random effect {name!r} has shape {pair[0].shape} in the fit and {shape} "
                "in the model."
            )
        found[name] = np.stack(pair)
    return found


def _subject_of_rows(fit: Fit, outcome: Outcome, n_rows: int) -> np.ndarray:
    constant, key = fit.constant, f"{outcome.observed_name}_subject"
    if key not in constant:
        raise ValueError(f"This is not a fit of this model: it has no outcome {outcome.name!r}.")
    subject = np.asarray(constant[key].values, dtype=int)
    if subject.size and n_rows % subject.size == 0:
        # of a vector per row: each of its numbers
        return np.repeat(subject, n_rows // subject.size)
    raise ValueError(
        f"This is not a fit of this model: outcome {outcome.name!r} had {subject.size} rows when it was fitted, and has "
        f"{n_rows} in the model."
    )


def _warn_of_other_data(fit: Fit, outcome: Outcome, number: np.ndarray) -> None:
    here = outcome.observed[number]
    there = np.ravel(fit.observed[outcome.observed_name].values).astype(float)
    if here.size != there.size:
        return
    other = np.flatnonzero(~np.isclose(here, there, rtol=1e-12, atol=0.0))
    if other.size:
        row = other[0]
        warnings.warn(
            f"The observed values of '{outcome.name}' in the model are not those of the fit: {other.size} of {here.size} rows differ, "
            f"such as row {number[row]}, which is {here[row]:g} in the model and was {there[row]:g}. Rows are compared with what was "
            "predicted from those of the fit.",
            UserWarning,
            stacklevel=5,
        )


def _times(
    outcome: Outcome,
    number: np.ndarray,
    subject: np.ndarray,
    x: ArrayLike | None,
    variable: Variable,
) -> np.ndarray | None:
    """Time of each observed row: from the user, else from a differential equation that has these rows."""
    if x is not None:
        if np.size(x) == number.size < outcome.n_rows:
            return times_of_rows(x, outcome.name, number.shape)
        return times_of_rows(x, outcome.name, outcome.shape)[number]
    for node in io_toposort([], [variable]):
        if not getattr(node.op, "is_ode_solution", False) or not _is_data(node.inputs[0]):
            continue
        times, of = data_value(node.inputs[0]).astype(float), np.asarray(node.op.subject)
        if of.size == outcome.n_rows and are_of_rows(of[number], subject):
            return times[number]
        if are_of_rows(of, subject):
            return times
    return None


def _is_data(variable: Variable) -> bool:
    """Whether a variable depends on nothing random."""
    nodes = io_toposort([], [variable])
    return not any("Random" in type(v.type).__name__ for node in nodes for v in node.inputs)
