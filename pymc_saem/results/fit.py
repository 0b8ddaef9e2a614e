"""The only reader of a fit: its groups by name, and what follows from several of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from pymc_saem.compat import InferenceData, get_group, group_names
from pymc_saem.results.build import ESSENTIAL

#: Words by which a note of a fit is recognized that explains why there are no conditional
#: distributions.
_OF_INDIVIDUALS = ("individual", "conditional", "random effects")


class MissingGroupError(KeyError, ValueError):
    """A fit lacks a group; either of the bases catches it."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class Fit:
    """What ``fit_saem`` returned, or the same read from a file; nothing is read before it is asked for.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree

    Raises
    ------
    TypeError
        When ``idata`` has no groups.
    MissingGroupError
        From every attribute whose group is missing; the message gives the reason where the fit
        holds one.
    """

    def __init__(self, idata: InferenceData) -> None:
        self.names = tuple(group_names(idata))
        self._idata = idata

    def __contains__(self, group: str) -> bool:
        return group in self.names

    # -- groups -----------------------------------------------------------------------------------

    def group(self, name: str) -> xr.Dataset:
        """One group of the fit."""
        self.require(name)
        return get_group(self._idata, name)

    def require(self, *groups: str) -> None:
        """Refuse a fit that lacks one of these groups, before anything is computed from it."""
        for name in groups:
            if name not in self:
                raise MissingGroupError(self._why_missing(name))

    def _why_missing(self, name: str) -> str:
        if name != "individual" or "saem_trace" not in self:
            strange = " It is not a result of fit_saem." if name in ESSENTIAL else ""
            return (
                f"The fit has no group '{name}'; it has {', '.join(self.names) or 'none'}.{strange}"
            )
        about = [
            note for note in self.notes if any(words in note.lower() for words in _OF_INDIVIDUALS)
        ]
        reason = (
            " ".join(about or self.notes) or "It was run without them (draws=0), or did not finish."
        )
        return f"The fit has no group 'individual', so no conditional distributions of random effects. {reason}"

    @cached_property
    def population(self) -> xr.Dataset:
        """The table of parameters, by ``parameter``."""
        return self.group("population")

    @cached_property
    def trace(self) -> xr.Dataset:
        """The iterates, by ``chain`` and ``iteration``; its attributes describe the run."""
        return self.group("saem_trace")

    @cached_property
    def individual(self) -> xr.Dataset:
        """Conditional distributions of the random effects."""
        return self.group("individual")

    @cached_property
    def posterior(self) -> xr.Dataset:
        """Draws by ``chain`` and ``draw``."""
        return self.group("posterior")

    @cached_property
    def observed(self) -> xr.Dataset:
        """Observed values of the outcomes."""
        return self.group("observed_data")

    @cached_property
    def constant(self) -> xr.Dataset:
        """Other data of the model, and the subjects of the rows and units."""
        return self.group("constant_data")

    # -- the run ----------------------------------------------------------------------------------

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes of the fit as a whole."""
        return self._idata.attrs

    @property
    def notes(self) -> list[str]:
        """What could not be computed, and why."""
        return stored(self.attrs, "notes", [])

    @property
    def options(self) -> dict[str, Any]:
        """Options of ``fit_saem`` by name; empty in a fit that does not store them."""
        return stored(self.group("saem_state").attrs, "options", {}) if "saem_state" in self else {}

    @property
    def seconds(self) -> dict[str, float]:
        """Time of each part of the run."""
        return stored(self.trace.attrs, "seconds", {})

    @property
    def n_chains(self) -> int:
        return self.trace.sizes["chain"]

    @property
    def best_chain(self) -> int:
        """Number of the chain that the estimates are of."""
        return int(self.trace.attrs.get("best_chain", 0))

    # -- estimates --------------------------------------------------------------------------------

    @property
    def labels(self) -> list[str]:
        """Labels of the entries of all parameters, such as ``beta[slope]``."""
        return [str(label) for label in self.population["parameter"].values]

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters."""
        return list(dict.fromkeys(label.split("[")[0] for label in self.labels))

    def column(self, name: str) -> np.ndarray:
        """A column of numbers of the table of parameters, (entry,); NaN where there is none."""
        if name not in self.population:
            return np.full(self.population.sizes["parameter"], np.nan)
        return np.asarray(self.population[name].values, dtype=float)

    @property
    def is_fixed(self) -> np.ndarray:
        """Which entries of the parameters were held constant, (entry,)."""
        return self.population["m_step"].values == "fixed"

    def estimate(self, name: str) -> np.ndarray | None:
        """Natural estimate of a parameter in its shape; None where there is no such parameter."""
        entries = [
            k
            for k, label in enumerate(self.labels)
            if label == name or label.startswith(f"{name}[")
        ]
        if not entries:
            return None
        return self.population["estimate"].values[entries].reshape(self.trace[name].shape[2:])

    def end_of_chain(self, chain: int) -> dict[str, np.ndarray]:
        """Natural values of all parameters, by name, where a chain ended."""
        return {
            name: np.asarray(self.trace[name].values[chain, -1], dtype=float)
            for name in self.parameters
        }

    # -- random effects ---------------------------------------------------------------------------

    @property
    def subject_dim(self) -> str:
        """Name of the dim of the subjects."""
        return str(self.attrs.get("subject_dim", "subject"))

    @cached_property
    def subjects(self) -> np.ndarray:
        """Labels of the subjects, (subject,)."""
        return self.individual[self.subject_dim].values

    @property
    def has_effects(self) -> bool:
        """Whether the fit names its random effects; files of old versions without individuals do not."""
        return "individual" in self or bool(stored(self.attrs, "unit_axes", {}))

    @cached_property
    def effects(self) -> tuple[str, ...]:
        """Names of the random effects; known also where there are no conditional distributions."""
        axes = stored(self.attrs, "unit_axes", {})
        if "individual" not in self and axes:
            return tuple(axes)
        names = [str(name) for name in self.individual.data_vars]
        stems = (n.removesuffix("_mode") for n in names if n.endswith("_mode"))
        # not conditional_mode and natural_mode
        return tuple(stem for stem in stems if f"{stem}_population" in names)

    @cached_property
    def unit_axes(self) -> dict[str, int]:
        """Axis of the subjects or units of each random effect."""
        return dict.fromkeys(self.effects, 0) | stored(self.attrs, "unit_axes", {})

    def is_of_subjects(self, effect: str) -> bool:
        """Whether a random effect has one entry per subject, and not per unit of a lower level."""
        return self.individual[f"{effect}_mode"].dims[self.unit_axes[effect]] == self.subject_dim

    def typical_and_mode(self, effect: str) -> list[np.ndarray]:
        """Population value and conditional mode of a random effect, each in its shape."""
        return [self.individual[f"{effect}_{what}"].values for what in ("population", "mode")]

    # -- draws ------------------------------------------------------------------------------------

    @cached_property
    def n_draws(self) -> int:
        """Draws of all chains; 0 without a posterior."""
        return (
            self.posterior.sizes["chain"] * self.posterior.sizes["draw"]
            if "posterior" in self
            else 0
        )

    def draws(self, name: str, which: Any = slice(None)) -> np.ndarray:
        """Draws of a variable, all or some of them, (draw, ...)."""
        values = self.posterior[name].transpose("chain", "draw", ...).values
        return values.reshape(-1, *values.shape[2:])[which]


def stored(attrs: Mapping[str, Any], name: str, default: Any) -> Any:
    """An attribute that is JSON in files."""
    value = attrs.get(name, default)
    return json.loads(value) if isinstance(value, str) else value
