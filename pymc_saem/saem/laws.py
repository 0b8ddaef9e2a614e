"""The Gaussian law that a model gives its random effects, evaluated at trial parameters."""

from __future__ import annotations

import numpy as np
import pytensor

from pymc_saem.saem.densities import in_symbols, symbols
from pymc_saem.saem.interpreted import INTERPRETED
from pymc_saem.saem.model import MixedModel, RandomEffect, UnsupportedModelError


def location_and_scale(rv):
    """Location and scale graphs of a Normal or LogNormal variable."""
    return rv.owner.op.dist_params(rv.owner)[:2]


class LawOfPhi:
    """Evaluates the means and covariances of phi at trial values of theta."""

    def __init__(self, mixed: MixedModel, theta: np.ndarray):
        self.mixed, self.base, self.rng = mixed, theta, np.random.default_rng(0)
        phi, symbol = symbols(mixed)
        graphs = [g for e in mixed.random_effects for g in location_and_scale(mixed.model[e.name])]
        graphs = in_symbols(mixed, graphs, phi, symbol)
        self._f = pytensor.function([symbol], graphs, mode=INTERPRETED, on_unused_input="ignore")

    def roles(self, effect: RandomEffect, parameter) -> list[str]:
        """Which of "mean" and "covariance" of an effect change with a parameter.

        By value, not by the graph: PyMC broadcasts a mean against its covariance, so that each mean of an
        MvNormal is computed from the covariance too, and does not depend on it.
        """
        moved = self.base.copy()
        moved[parameter.columns] += self.rng.uniform(0.1, 0.5, size=moved[parameter.columns].shape)
        which = 2 * self.mixed.random_effects.index(effect)
        before, after = self._f(self.base)[which : which + 2], self._f(moved)[which : which + 2]
        same = [np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True)]
        return [role for role, equal in zip(("mean", "covariance"), same, strict=True) if not equal]

    def mean(self, theta: np.ndarray) -> np.ndarray:
        """Means of phi, (subject, phi)."""
        values = self._f(theta)[0::2]
        shapes = [e.shape for e in self.mixed.random_effects]
        blocks = [np.broadcast_to(v, s).reshape(s[0], -1) for v, s in zip(values, shapes, strict=True)]
        return np.concatenate(blocks, axis=1)

    def covariance(self, effect: RandomEffect, theta: np.ndarray) -> np.ndarray:
        """Covariance (k, k) of one random effect."""
        value = np.asarray(self._f(theta)[2 * self.mixed.random_effects.index(effect) + 1], dtype=float)
        if type(self.mixed.model[effect.name].owner.op).__name__ == "MvNormalRV":
            return _same_for_all(effect, value, value.ndim - 2, "covariance")
        sd = np.broadcast_to(value, effect.shape).reshape(effect.shape[0], -1)
        return np.diag(_same_for_all(effect, sd, 1, "standard deviation") ** 2)


def _same_for_all(effect, value, n_lead, what):
    value = value.reshape((-1, *value.shape[n_lead:])) if n_lead else value[None]
    if not np.allclose(value, value[0], rtol=1e-12, atol=0):
        raise UnsupportedModelError(
            f"The {what} of the random effect '{effect.name}' differs between subjects. It must be shared."
        )
    return value[0]
