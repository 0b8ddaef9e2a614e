"""What a finished fit contains: estimates, constants and options, from which other fits of its kind are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pymc as pm

from pymc_saem.arguments import shown
from pymc_saem.compat import get_group, group_names
from pymc_saem.refit.refitter import Refitter
from pymc_saem.saem.likelihood.marginal import METHODS
from pymc_saem.saem.report.assessment import check_assessment

#: Iterations of a fit that starts at an estimate. The data sets of a bootstrap move the optimum by a standard error or two; on
#: theophylline (7 parameters, 12 subjects) the estimates of refits then differ by 0.01 to 0.05 standard errors from those of 1600
#: iterations, which adds less than 1 % to a variance; with 20 + 60 by up to 0.10, with 200 + 350 by 0.02
#: (benchmarks/accuracy/refits.py).
N_EXPLORE, N_SMOOTH = 50, 150

#: Arguments of fit_saem that a refit may be given, as they are called by SAEM.
OPTIONS = {
    "random_effects": "random_effects",
    "objective": "objective",
    "n_transitions": "n_transitions",
    "n_replicates": "n_replicates",
    "kernel": "kernel",
    "fixed": "fixed",
    "step_size_exponent": "step_size_exponent",
    "annealing": "annealing",
    "minibatch": "minibatch",
    "compile_kwargs": "compile_kwargs",
}


@dataclass(frozen=True)
class Fitted:
    """A finished fit.

    Attributes
    ----------
    estimates : dict of str to ndarray
        Natural values by name.
    table : xarray.Dataset
        The group ``population``.
    options : dict
        Of :class:`pymc_saem.SAEM`.
    """

    estimates: dict[str, np.ndarray]
    table: object
    options: dict

    def column(self, name: str) -> np.ndarray:
        """A column of the table (entry,); NaN where there is none."""
        n = self.table.sizes["parameter"]
        return np.asarray(self.table[name].values, dtype=float) if name in self.table else np.full(n, np.nan)

    @property
    def values(self) -> np.ndarray:
        """Estimates (entry,)."""
        return self.column("estimate")


def read_fit(idata, given: Mapping | None = None) -> Fitted:
    """Read a fit.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, also if it was read from a file.
    given : mapping, optional
        Options of ``fit_saem`` that override those stored in the fit.

    Raises
    ------
    ValueError
        When ``idata`` is not such a fit, or an option is unknown.
    """
    try:
        trace, table = get_group(idata, "saem_trace"), get_group(idata, "population")
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"idata is not a result of fit_saem ({error.args[0] if error.args else error}).") from error
    best = int(trace.attrs.get("best_chain", 0))
    names = list(dict.fromkeys(label.split("[")[0] for label in table["parameter"].values.tolist()))
    estimates = {name: np.asarray(trace[name].values[best, -1], dtype=float) for name in names}
    stored = {}
    if "saem_state" in group_names(idata):
        stored = json.loads(get_group(idata, "saem_state").attrs["options"])
    options = {new: stored[name] for name, new in OPTIONS.items() if stored.get(name) is not None}
    options |= {name: _plain(trace.attrs[name]) for name in ("objective", "n_transitions", "n_replicates")}
    options["fixed"] = _constants(table, estimates)
    return Fitted(estimates, table, {**_without_auto(options), **check_options(given)})


def check_options(given: Mapping | None) -> dict:
    """Options of ``fit_saem`` as those of ``SAEM``; unknown ones are refused."""
    unknown = sorted(set(given or {}) - set(OPTIONS))
    if unknown:
        raise ValueError(f"{unknown} are not options of a refit; the choices are {sorted(OPTIONS)}.")
    return _without_auto({OPTIONS[name]: value for name, value in (given or {}).items()})


def make_refitter(model: pm.Model, fitted: Fitted, n_explore=N_EXPLORE, n_smooth=N_SMOOTH, **more) -> Refitter:
    """A refitter of the fit's kind.

    Raises
    ------
    ValueError
        When the parameters of the model are not those of the fit.
    """
    refitter = Refitter(model, n_explore=n_explore, n_smooth=n_smooth, tolerance=0.0, **more, **fitted.options)
    labels = fitted.table["parameter"].values.tolist()
    if refitter.labels != labels:
        raise ValueError(
            f"The fit belongs to a different model: its parameters are {labels}, those of this model {refitter.labels}."
        )
    return refitter


def check_likelihood(refitter: Refitter, method: str) -> None:
    """Refuse methods that do not exist, or not for this model."""
    if method not in METHODS:
        raise ValueError(f"likelihood is {shown(method)}; it must be one of {', '.join(map(repr, METHODS))}.")
    check_assessment(refitter.engine, method, None)


def _constants(table, estimates: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters that the fit held constant, NaN in entries that were estimated."""
    labels, held = table["parameter"].values.tolist(), table["m_step"].values == "fixed"
    constants = {}
    for name, value in estimates.items():
        own = held[[label.split("[")[0] == name for label in labels]]
        if own.any() and own.size == value.size:
            constants[name] = np.where(own.reshape(value.shape), value, np.nan)
    return constants


def _without_auto(options: dict) -> dict:
    return {name: value for name, value in options.items() if not (isinstance(value, str) and value == "auto")}


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value
