"""The M-step of the parameters in which the means of phi are affine."""

from __future__ import annotations

from functools import partial

import numpy as np

from pymc_saem.model.density.priors import Prior
from pymc_saem.model.mixed_model import Parameter
from pymc_saem.saem.core import closed_form
from pymc_saem.saem.mstep.held import Held
from pymc_saem.saem.mstep.rules import MeanRule


class MeanStep:
    """Generalized least squares, with Gaussian priors; other priors are maximized numerically.

    Attributes
    ----------
    columns : ndarray of int, shape (beta,)
        Entries of theta that it moves.
    """

    def __init__(self, rule: MeanRule, priors: dict[str, Prior], held: Held):
        self.priors, self.held = priors, held.entries
        self.columns = rule.columns[~self.held[rule.columns]]
        # places in the rule, and those of constants
        self._free = np.searchsorted(rule.columns, self.columns)
        self._constant = np.setdiff1d(np.arange(rule.columns.size), self._free)
        size = self.columns.size
        self._precision, self._shift = np.zeros((size, size)), np.zeros(size)
        self._other_priors: list[tuple[np.ndarray, Parameter]] = []
        for p in rule.parameters:
            if p.name not in priors or held.all_of(p):
                continue
            where = np.flatnonzero(
                (self.columns >= p.columns.start) & (self.columns < p.columns.stop)
            )
            gaussian = priors[p.name].quadratic() if not self.held[p.columns].any() else None
            if gaussian is None:
                self._other_priors.append((where, p))
            else:
                self._precision[np.ix_(where, where)], self._shift[where] = gaussian

    def __call__(
        self,
        rule: MeanRule,
        first: np.ndarray,
        theta: np.ndarray,
        precision: np.ndarray,
        weight: np.ndarray | None,
    ) -> np.ndarray:
        """The coefficients (beta,) that fit the first moments (subject, phi) best.

        ``rule`` has design and offset at theta; ``precision`` (phi, phi) is that of the random
        effects.
        """
        constant, design = self._constant, rule.design[:, :, self._free]
        offset = rule.offset
        if constant.size:
            offset = offset + rule.design[:, :, constant] @ theta[rule.columns[constant]]
        equations = first, design, offset, precision, self._precision, self._shift, weight
        if not self._other_priors:
            return closed_form.gls_mean(*equations)
        left, right = closed_form.gls_normal_equations(*equations)
        return closed_form.penalized_mean(
            left, right, theta[self.columns], partial(self._log_prior, theta)
        )

    def _log_prior(self, theta: np.ndarray, beta: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density of the priors that are not Gaussian, and its gradient (beta,)."""
        value, gradient, full = 0.0, np.zeros_like(beta), theta.copy()
        full[self.columns] = beta
        for where, p in self._other_priors:
            density, slope = self.priors[p.name].unconstrained(full[p.columns])
            value, gradient[where] = value + density, slope[~self.held[p.columns]]
        return value, gradient
