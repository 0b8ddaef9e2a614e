"""log p(y_i, phi_i; theta) at many phi at once, and points with weights that stand for p(phi_i | y_i, theta)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp

from pymc_saem.model.density.densities import Densities
from pymc_saem.saem.core.gaussian import Population

#: Rows times points of one evaluation: what a processor's cache holds of a few such arrays.
MAX_ROWS = 300_000


@dataclass
class Joint:
    """Complete-data log density of each subject at fixed theta; differential equations solved to the tight tolerance.

    Parameters
    ----------
    densities : Densities
    population : Population
    theta : ndarray, shape (theta,)
    """

    densities: Densities
    population: Population
    theta: np.ndarray
    n_solves: int = field(default=0, init=False)

    @property
    def n_subjects(self) -> int:
        return self.densities.mixed.n_subjects

    def __call__(self, phi: np.ndarray) -> np.ndarray:
        """log p(y_i, phi_i), (point, subject), for phi (point, subject, phi); -inf where there is none."""
        loglik, _ = self.likelihood(phi)
        with np.errstate(all="ignore"):
            value = loglik + self.population.log_density(phi)
        return np.where(np.isnan(value), -np.inf, value)

    def likelihood(
        self, phi: np.ndarray, theta: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """log p(y_i | phi_i), (point, subject), and the residual statistics (point, subject, residual)."""
        tight, theta = self.densities.solved_tightly(), self.theta if theta is None else theta
        self.n_solves += phi[..., 0].size
        n_parts = -(-len(phi) * self.densities.mixed.n_rows // MAX_ROWS)
        parts = []
        with np.errstate(all="ignore"):
            for part in np.array_split(phi, max(1, min(n_parts, len(phi)))):
                parts.append(tight.outputs_quietly(np.ascontiguousarray(part), theta)[:2])
        loglik, residual = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return loglik, residual

    def covariance_at(self, mode: np.ndarray, sd: np.ndarray) -> np.ndarray:
        """Inverse of the curvature of -log p(y_i, phi_i) at phi = ``mode`` (subject, phi); (subject, phi, phi).

        By central differences of the gradient with steps of 0.02 ``sd`` (subject, phi); NaN where
        the curvature is not that of a maximum.
        """
        n_subjects, d = mode.shape
        step = 0.02 * sd
        moved = np.concatenate([mode + s * step * np.eye(d)[:, None, :] for s in (1.0, -1.0)])
        with np.errstate(all="ignore"):
            gradient = self.densities.gradient(np.ascontiguousarray(moved), self.theta)[1]
        gradient = gradient + self.population.gradient(moved)
        self.n_solves += moved[..., 0].size
        slope = (gradient[:d] - gradient[d:]) / (2.0 * step.T[..., None])  # (moved, subject, phi)
        curvature = -0.5 * (np.moveaxis(slope, 0, 1) + np.moveaxis(slope, 0, 2))
        covariance = np.full((n_subjects, d, d), np.nan)
        for i in range(n_subjects):
            unit = sd[i] * curvature[i] * sd[i][:, None]
            if np.all(np.isfinite(unit)) and np.linalg.eigvalsh(unit)[0] > 1e-6:
                covariance[i] = np.linalg.inv(unit) * np.outer(sd[i], sd[i])
        return covariance


@dataclass(frozen=True)
class WeightedPoints:
    """Points phi (point, subject, phi) with log weights (point, subject), whose exponentials sum to 1 over the points.

    ``are_draws``: the points are random, so that means over them have a Monte-Carlo error.
    """

    phi: np.ndarray
    log_weight: np.ndarray
    are_draws: bool

    @classmethod
    def of_draws(cls, draws: np.ndarray) -> WeightedPoints:
        """Conditional draws (chain, draw, subject, phi), all of the same weight."""
        phi = draws.reshape(-1, *draws.shape[2:])
        return cls(phi, np.full(phi.shape[:2], -np.log(len(phi))), True)

    @classmethod
    def of_nodes(cls, phi: np.ndarray, log_weight: np.ndarray) -> WeightedPoints:
        """Nodes of a quadrature, weights not normalized."""
        return cls(phi, log_weight - logsumexp(log_weight, axis=0), False)

    @property
    def weight(self) -> np.ndarray:
        return np.exp(self.log_weight)

    def mean(self) -> np.ndarray:
        """(subject, phi)"""
        return np.einsum("ks,ksd->sd", self.weight, self.phi)

    def covariance(self) -> np.ndarray:
        """(subject, phi, phi)"""
        centred = self.phi - self.mean()
        return np.einsum("ks,ksi,ksj->sij", self.weight, centred, centred)

    def equally_weighted(self, n_points: int) -> np.ndarray:
        """At most ``n_points`` points of equal weight, (point, subject, phi), by systematic resampling."""
        if np.ptp(self.log_weight) == 0.0:
            return self.phi[
                np.linspace(0, len(self.phi) - 1, min(n_points, len(self.phi))).round().astype(int)
            ]
        ladder = (np.arange(n_points) + 0.5) / n_points
        cumulated = np.cumsum(self.weight, axis=0)
        picks = [np.searchsorted(c / c[-1], ladder) for c in cumulated.T]
        return self.phi[np.stack(picks, axis=1), np.arange(self.phi.shape[1])]
