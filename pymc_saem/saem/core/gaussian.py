"""The Gaussian distribution of phi for given parameters, and its log density."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from pymc_saem.kept import keep_function

_LOG_2PI = float(np.log(2.0 * np.pi))


@partial(keep_function, nogil=True)
def log_density(
    phi: np.ndarray,
    mean: np.ndarray,
    whitener: np.ndarray,
    diagonal: bool,
    log_normalizer: float,
    out: np.ndarray,
) -> None:
    """log N(phi; mean, omega) of (replicate, subject, phi); ``whitener`` is upper triangular, or even ``diagonal``."""
    n_replicates, n_subjects, n_phi = phi.shape
    eta = np.empty(n_phi)
    z = np.empty(n_phi)
    for r in range(n_replicates):
        for i in range(n_subjects):
            for k in range(n_phi):
                eta[k] = phi[r, i, k] - mean[i, k]
                z[k] = eta[k] * whitener[k, k]
            if not diagonal:
                for j in range(n_phi):
                    for k in range(j + 1, n_phi):
                        z[k] += eta[j] * whitener[j, k]
            total = 0.0
            for k in range(n_phi):
                total += z[k] * z[k]
            out[r, i] = log_normalizer - 0.5 * total


@dataclass(frozen=True)
class Population:
    """phi_i ~ N(mean_i, omega), independent over subjects.

    Attributes
    ----------
    mean : ndarray, shape (subject, phi)
        Of columns that are not Gaussian: a typical value.
    omega : ndarray, shape (phi, phi)
        Covariance; block diagonal over the random effects. Of columns that are not Gaussian: a
        rough scale.
    gaussian : ndarray of bool, shape (phi,), optional
        Columns with this distribution; the density of the others is part of the likelihood, and
        counts as 1 here. All by default.
    """

    mean: np.ndarray
    omega: np.ndarray
    gaussian: np.ndarray | None = None

    @cached_property
    def root(self) -> np.ndarray:
        """Lower Cholesky factor of omega, (phi, phi)."""
        return np.linalg.cholesky(self.omega)

    @cached_property
    def whitener(self) -> np.ndarray:
        """W with ``eta @ W`` standard normal, (phi, phi); zero where phi is not Gaussian."""
        whitener = np.ascontiguousarray(np.linalg.inv(self.root).T)
        return (
            whitener if self.gaussian is None else whitener * np.outer(self.gaussian, self.gaussian)
        )

    @cached_property
    def precision(self) -> np.ndarray:
        return self.whitener @ self.whitener.T

    @cached_property
    def sd(self) -> np.ndarray:
        """Standard deviations omega_sd, (phi,)."""
        return np.sqrt(np.diag(self.omega))

    @cached_property
    def log_normalizer(self) -> float:
        diagonal = (
            np.diag(self.root) if self.gaussian is None else np.diag(self.root)[self.gaussian]
        )
        return -float(np.log(diagonal).sum()) - 0.5 * diagonal.size * _LOG_2PI

    @cached_property
    def law(self) -> tuple:
        """``(mean, whitener, diagonal, log_normalizer)`` for the compiled functions of the E-step."""
        diagonal = not np.any(self.whitener - np.diag(np.diag(self.whitener)))
        return np.ascontiguousarray(self.mean), self.whitener, diagonal, self.log_normalizer

    def log_density(self, phi: np.ndarray) -> np.ndarray:
        """log p(phi_i | theta), shape (..., subject), for phi of shape (..., subject, phi)."""
        shape = phi.shape
        phi = np.ascontiguousarray(phi, dtype=float).reshape(-1, *shape[-2:])
        out = np.empty(phi.shape[:-1])
        log_density(phi, *self.law, out)
        return out.reshape(shape[:-1])

    def gradient(self, phi: np.ndarray) -> np.ndarray:
        """Derivative of the log density with respect to phi, shape of phi."""
        return -(phi - self.mean) @ self.precision

    def draw(self, rng: np.random.Generator, n_replicates: int) -> np.ndarray:
        """Draws of phi, shape (replicate, subject, phi)."""
        z = rng.standard_normal((n_replicates, *self.mean.shape))
        mean, _, diagonal, _ = self.law
        return mean + (z * np.diag(self.root) if diagonal else z @ self.root.T)
