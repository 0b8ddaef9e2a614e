"""What a finished fit contains: estimates, constants and options, from which other fits of its kind are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm

from pymc_saem.arguments import shown
from pymc_saem.compat import InferenceData
from pymc_saem.refit.refitter import Refitter
from pymc_saem.results.fit import Fit
from pymc_saem.saem.likelihood.marginal import METHODS
from pymc_saem.saem.report.assessment import check_assessment

#: Iterations of a fit that starts at an estimate. The data sets of a bootstrap move the optimum by
#: a standard error or two; on theophylline (7 parameters, 12 subjects) the estimates of refits then
#: differ by 0.01 to 0.05 standard errors from those of 1600 iterations, which adds less than 1 % to
#: a variance; with 20 + 60 by up to 0.10, with 200 + 350 by 0.02 (benchmarks/accuracy/refits.py).
N_EXPLORE, N_SMOOTH = 50, 150

#: Arguments of fit_saem that a refit may be given; SAEM calls them the same.
OPTIONS = (
    "random_effects",
    "objective",
    "n_transitions",
    "n_replicates",
    "kernel",
    "fixed",
    "step_size_exponent",
    "annealing",
    "minibatch",
    "compile_kwargs",
)


class Fitted(Fit):
    """A fit that other fits are made from.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, also if it was read from a file.
    given : mapping, optional
        Options of ``fit_saem`` that override those stored in the fit.

    Attributes
    ----------
    estimates : dict of str to ndarray
        Natural values by name.
    refit_options : dict
        Of :class:`pymc_saem.SAEM`.

    Raises
    ------
    ValueError
        When ``idata`` is not such a fit, or an option is unknown.
    """

    def __init__(self, idata: InferenceData, given: Mapping[str, Any] | None = None) -> None:
        super().__init__(idata)
        self.require("saem_trace", "population")
        self.estimates = self.end_of_chain(self.best_chain)
        kept = {name: self.options[name] for name in OPTIONS if self.options.get(name) is not None}
        kept |= {
            name: _plain(self.trace.attrs[name])
            for name in ("objective", "n_transitions", "n_replicates")
        }
        kept["fixed"] = self._constants()
        self.refit_options = {**_without_auto(kept), **check_options(given)}

    def _constants(self) -> dict[str, np.ndarray]:
        """Parameters that the fit held constant, NaN in entries that were estimated."""
        names, held, found = (
            np.array([label.split("[")[0] for label in self.labels]),
            self.is_fixed,
            {},
        )
        for name, value in self.estimates.items():
            own = held[names == name]
            if own.any() and own.size == value.size:
                found[name] = np.where(own.reshape(value.shape), value, np.nan)
        return found


def check_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of ``fit_saem`` as those of ``SAEM``; unknown ones are refused."""
    unknown = sorted(set(given or {}) - set(OPTIONS))
    if unknown:
        raise ValueError(
            f"{unknown} are not options of a refit; the choices are {sorted(OPTIONS)}."
        )
    return _without_auto(given or {})


def make_refitter(
    model: pm.Model,
    fitted: Fitted,
    n_explore: int = N_EXPLORE,
    n_smooth: int = N_SMOOTH,
    **more: Any,
) -> Refitter:
    """A refitter of the fit's kind.

    Raises
    ------
    ValueError
        When the parameters of the model are not those of the fit.
    """
    refitter = Refitter(
        model, n_explore=n_explore, n_smooth=n_smooth, tolerance=0.0, **more, **fitted.refit_options
    )
    if refitter.labels != fitted.labels:
        raise ValueError(
            f"The fit belongs to a different model: its parameters are {fitted.labels}, those of this model {refitter.labels}."
        )
    return refitter


def check_likelihood(refitter: Refitter, method: str) -> None:
    """Refuse methods that do not exist, or not for this model."""
    if method not in METHODS:
        raise ValueError(
            f"likelihood is {shown(method)}; it must be one of {', '.join(map(repr, METHODS))}."
        )
    check_assessment(refitter.engine, method, None)


def _without_auto(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in options.items()
        if not (isinstance(value, str) and value == "auto")
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
