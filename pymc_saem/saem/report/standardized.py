"""Standardized residuals of each outcome at given random effects (IWRES), and their shrinkage."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.densities import GRADIENT_TOLERANCE
from pymc_saem.model.density.symbols import in_symbols, model_value, symbols
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.graph.solves import solved_to
from pymc_saem.model.mixed_model import MixedModel

#: Mean, standard deviation and scale.
Moments = tuple[TensorVariable, TensorVariable, TensorVariable]


def _of_student(nu: TensorVariable, mu: TensorVariable, sigma: TensorVariable) -> Moments:
    return mu, sigma * pt.sqrt(nu / (nu - 2.0)), sigma  # no variance, and NaN, for nu up to 2


#: Mean, standard deviation and scale of outcomes (of the logarithm of a LogNormal), as functions of
#: their parameters.
_MOMENTS: dict[str, Callable[..., Moments]] = {
    "NormalRV": lambda mu, sigma: (mu, sigma, sigma),
    "LogNormalRV": lambda mu, sigma: (mu, sigma, sigma),
    "StudentTRV": _of_student,
    "LaplaceRV": lambda mu, b: (mu, b * np.sqrt(2.0), b),
    "LogisticRV": lambda mu, s: (mu, s * np.pi / np.sqrt(3.0), s),
}


def standardized_residuals(
    mixed: MixedModel, phi: np.ndarray, theta: np.ndarray
) -> dict[str, np.ndarray]:
    """(y - mean) / sd of the rows (row,) of each outcome that has a mean and a scale; NaN where a solve failed.

    Parameters
    ----------
    mixed : MixedModel
    phi : ndarray, shape (subject, phi)
    theta : ndarray, shape (theta,)
    """
    phi_symbol, theta_symbol = symbols(mixed)
    names, graphs = [], []
    for rv, (mean, sd, _) in _moments(mixed):
        y = mixed.model.rvs_to_values[rv]
        y = pt.log(y) if type(rv.owner.op).__name__ == "LogNormalRV" else y
        mean, sd = in_symbols(mixed, [mean, sd], phi_symbol, theta_symbol)
        graphs.append((pt.zeros_like(y, dtype="float64") + (y - mean) / sd).ravel())
        names.append(str(rv.name))
    if not graphs:
        return {}
    graphs = solved_to(graphs, GRADIENT_TOLERANCE)
    f = pytensor.function(
        [phi_symbol, theta_symbol], graphs, mode=INTERPRETED, on_unused_input="ignore"
    )
    with np.errstate(all="ignore"):
        return dict(zip(names, (np.asarray(rows) for rows in f(phi, theta)), strict=True))


def residual_shrinkage(mixed: MixedModel, phi: np.ndarray, theta: np.ndarray) -> tuple[dict, dict]:
    """1 - sd(IWRES) at the conditional modes (Savic & Karlsson 2009): by outcome, and by parameter of residual scales.

    0 where the residuals are as large as the model predicts, near 1 where random effects fit every
    row. A parameter that scales several outcomes has that of all their rows.

    Parameters
    ----------
    mixed : MixedModel
    phi : ndarray, shape (subject, phi)
        Conditional modes.
    theta : ndarray, shape (theta,)
    """
    residuals = standardized_residuals(mixed, phi, theta)
    of_parameters = {
        name: _shrinkage(np.concatenate([residuals[outcome] for outcome in outcomes]))
        for name, outcomes in _scaled_by(mixed).items()
    }
    return {outcome: _shrinkage(rows) for outcome, rows in residuals.items()}, of_parameters


def _shrinkage(residuals: np.ndarray) -> float:
    known = residuals[np.isfinite(residuals)]
    return 1.0 - float(known.std(ddof=1)) if known.size > 1 else np.nan


def _moments(mixed: MixedModel) -> Iterator[tuple[TensorVariable, Moments]]:
    """Outcomes with their mean, standard deviation and scale."""
    for rv in observed_variables(mixed.model):
        moments = _MOMENTS.get(type(rv.owner.op).__name__)
        if moments is not None:
            yield rv, moments(*rv.owner.op.dist_params(rv.owner))


def _scaled_by(mixed: MixedModel) -> dict[str, list[str]]:
    """Parameters that enter the scales of outcomes and not their means, with the names of these outcomes."""
    phi, _ = symbols(mixed)
    found: dict[str, list[str]] = {}
    for rv, (mean, _, scale) in _moments(mixed):
        in_mean, in_scale = (
            set(ancestors(in_symbols(mixed, [graph], phi, None))) for graph in (mean, scale)
        )
        for p in mixed.parameters:
            value = model_value(mixed, p.name)
            if value in in_scale and value not in in_mean:
                found.setdefault(p.name, []).append(str(rv.name))
    return found
