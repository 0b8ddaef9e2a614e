"""The Gaussian law of phi for given parameters, and its log density."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pymc_saem.saem.fused import log_density

_LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class Population:
    """phi_i ~ N(mean_i, omega), independent over subjects.

    Attributes
    ----------
    mean : ndarray, shape (subject, phi)
    omega : ndarray, shape (phi, phi)
        Covariance; block diagonal over the random effects.
    """

    mean: np.ndarray
    omega: np.ndarray

    @cached_property
    def root(self) -> np.ndarray:
        """Lower Cholesky factor of omega, (phi, phi)."""
        return np.linalg.cholesky(self.omega)

    @cached_property
    def whitener(self) -> np.ndarray:
        """W with ``eta @ W`` standard normal, (phi, phi)."""
        return np.ascontiguousarray(np.linalg.inv(self.root).T)

    @cached_property
    def precision(self) -> np.ndarray:
        return self.whitener @ self.whitener.T

    @cached_property
    def sd(self) -> np.ndarray:
        """Standard deviations omega_sd, (phi,)."""
        return np.sqrt(np.diag(self.omega))

    @cached_property
    def log_normalizer(self) -> float:
        return -float(np.log(np.diag(self.root)).sum()) - 0.5 * self.omega.shape[0] * _LOG_2PI

    def log_density(self, phi: np.ndarray) -> np.ndarray:
        """log p(phi_i | theta), shape (..., subject), for phi of shape (..., subject, phi)."""
        shape = phi.shape
        phi = np.ascontiguousarray(phi, dtype=float).reshape(-1, *shape[-2:])
        return log_density(phi, self._mean, self.whitener, self.log_normalizer).reshape(shape[:-1])

    @cached_property
    def _mean(self) -> np.ndarray:
        return np.ascontiguousarray(self.mean)

    def gradient(self, phi: np.ndarray) -> np.ndarray:
        """Derivative of the log density with respect to phi, shape of phi."""
        return -(phi - self.mean) @ self.precision

    def draw(self, rng: np.random.Generator, n_replicates: int) -> np.ndarray:
        """Draws of phi, shape (replicate, subject, phi)."""
        z = rng.standard_normal((n_replicates, *self.mean.shape))
        return self.mean + z @ self.root.T
