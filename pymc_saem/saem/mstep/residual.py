"""Residual models: the statistic of each, the log density that it stands for, where that has its maximum, and how curved it is there.

To add one, write a class with the methods of :class:`ResidualScale` here, and what recognizes it in
``recognize_residual``; the M-step, the starts and the standard errors call these methods and repeat
no formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.replace import clone_replace
from pytensor.tensor.variable import TensorVariable

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.symbols import in_symbols
from pymc_saem.model.mixed_model import MixedModel, Parameter
from pymc_saem.model.normal.parametrization import location_and_scale
from pymc_saem.saem.core.power_scale import PowerScale


@dataclass(frozen=True)
class ResidualTerm:
    """Squared residuals of one outcome, each divided by its variance where the unconstrained parameter is 0, as a graph."""

    mixed: MixedModel
    outcome: int
    parameter: Parameter

    @property
    def row_subject(self) -> np.ndarray:
        return self.mixed.outcomes[self.outcome].row_subject

    def __call__(self, phi: TensorVariable, theta: TensorVariable) -> TensorVariable:
        """Rows (row,) as a function of the symbols phi (subject, phi) and theta (theta,)."""
        rv = observed_variables(self.mixed.model)[self.outcome]
        mean, scale = in_symbols(self.mixed, list(location_and_scale(rv)), phi, theta)
        y = self.mixed.model.rvs_to_values[rv]
        y = pt.log(y) if type(rv.owner.op).__name__ == "LogNormalRV" else y
        column = self.parameter.columns.start
        at_zero = pt.set_subtensor(theta[column], 0.0)
        (shape,) = clone_replace([scale], replace=[(theta, at_zero)], rebuild_strict=False)
        return (pt.zeros_like(y, dtype="float64") + pt.sqr((y - mean) / shape)).ravel()


@dataclass(frozen=True, kw_only=True)
class ResidualScale(PowerScale):
    """One residual scale: normal residuals of some outcomes, whose standard deviation is x^power times what does not depend on x.

    ``log_density``, ``maximum``, ``precision`` and ``variance`` of x are those of
    :class:`PowerScale`, of which the deviations are the residuals; ``unit`` is the natural value of
    the parameter where its unconstrained one is 0.
    """

    parameter: Parameter
    outcomes: tuple[int, ...]
    terms: tuple[int, ...]  # columns of the residual statistics, one for each outcome

    def statistics(self, mixed: MixedModel) -> list[ResidualTerm]:
        """What is summed over the rows of each outcome, in the order of ``terms``."""
        return [ResidualTerm(mixed, j, self.parameter) for j in self.outcomes]

    def squares(self, residual: np.ndarray) -> np.ndarray:
        """Sum of its own statistics (...,), of all residual statistics (..., residual)."""
        return residual[..., list(self.terms)].sum(axis=-1)

    def rows(self, mixed: MixedModel) -> np.ndarray:
        """Number of rows of each subject, (subject,)."""
        counts = [
            np.bincount(mixed.outcomes[j].row_subject, minlength=mixed.n_subjects)
            for j in self.outcomes
        ]
        return np.sum(counts, axis=0)

    def count(self, mixed: MixedModel, weight: np.ndarray | None = None) -> float:
        """Number of rows, or the sum of the weights (subject,) of their subjects."""
        if weight is None:
            return float(sum(mixed.outcomes[j].n_rows for j in self.outcomes))
        return float(sum(weight[mixed.outcomes[j].row_subject].sum() for j in self.outcomes))
