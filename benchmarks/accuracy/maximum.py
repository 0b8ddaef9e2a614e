"""Exact maximum likelihood of the models of the simulation study: adaptive Gauss-Hermite quadrature, NumPy only.

For given nodes the marginal log-likelihood is a smooth function of the parameters with an analytic
gradient, and the nodes fit the conditional distributions at one value of them. Both take turns
until neither moves. The search starts at the truth, so that of several maxima it finds the one that
is meant.
"""

import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.cases.quadrature import gauss_hermite, log_normal_density, modes  # noqa: E402

N_NODES = 9  # per dimension; with 7, 50 subjects with proportional error miss 0.03
N_TURNS = 30
#: A standard deviation stops at this fraction of the truth; the maximum may be at zero.
SMALLEST = 0.05
H = 1e-4  # of the logarithm of a structural parameter


@dataclass(frozen=True)
class Maximum:
    """The maximum of one data set.

    Attributes
    ----------
    estimate : dict
        Natural values by name.
    error : dict
        Standard errors from the curvature.
    loglik : float
    at_bound : tuple of str
        Standard deviations that stopped at ``SMALLEST``.
    """

    estimate: dict
    error: dict
    loglik: float
    at_bound: tuple


class Marginal:
    """Marginal log-likelihood of one data set, (subject, row)."""

    def __init__(self, study, y: np.ndarray):
        self.study, self.y = study, y
        self.names = [*study.means, *study.sds, *study.structural, "sigma"]
        self.is_log = np.array([name not in study.means for name in self.names])
        self.phi = self.log_weights = None
        self._kept = None

    # -- parameters ---------------------------------------------------------------------------

    def to_free(self, values) -> np.ndarray:
        return np.array(
            [
                np.log(values[n]) if is_log else values[n]
                for n, is_log in zip(self.names, self.is_log, strict=True)
            ]
        )

    def from_free(self, free) -> dict:
        return {
            n: np.exp(x) if is_log else x
            for n, x, is_log in zip(self.names, free, self.is_log, strict=True)
        }

    # -- densities ----------------------------------------------------------------------------

    def residuals(self, values, phi):
        """Sum of squares (..., subject) of residuals divided by the shape of their scale, and sum of its logarithms."""
        predicted = self.study.predict(values, phi)
        if not self.study.is_proportional:
            return np.sum((self.y - predicted) ** 2, axis=-1), 0.0
        return np.sum((self.y / predicted - 1.0) ** 2, axis=-1), np.sum(np.log(predicted), axis=-1)

    def outcome(self, values, squares, log_shape):
        sigma = values["sigma"]
        return (
            -0.5 * squares / sigma**2
            - log_shape
            - self.y.shape[1] * (np.log(sigma) + 0.5 * np.log(2 * np.pi))
        )

    def law(self, values):
        return (
            np.array([values[name] for name in names])
            for names in (self.study.means, self.study.sds)
        )

    def joint(self, values, phi):
        mean, sd = self.law(values)
        with np.errstate(all="ignore"):
            outcome = self.outcome(values, *self.residuals(values, phi))
        return outcome + log_normal_density(phi, mean, sd).sum(axis=-1)

    def loglik(self, values, n_nodes: int = N_NODES) -> float:
        """With nodes of its own."""
        start = np.broadcast_to(next(self.law(values)), (len(self.y), len(self.study.means)))
        return float(gauss_hermite(lambda phi: self.joint(values, phi), start, n_nodes).sum())

    # -- with fixed nodes ---------------------------------------------------------------------

    def place(self, values) -> None:
        """Fit the nodes to the conditional distributions."""
        mean = np.broadcast_to(next(self.law(values)), (len(self.y), len(self.study.means)))
        # the middle node is the mode
        start = mean if self.phi is None else self.phi[self.phi.shape[0] // 2]
        mode, covariance = modes(lambda phi: self.joint(values, phi), start)
        x, w = np.polynomial.hermite.hermgauss(N_NODES)
        d = mode.shape[1]
        nodes = np.array(list(product(x, repeat=d)))
        log_weights = np.array(list(product(np.log(w) + x**2, repeat=d))).sum(axis=1)
        factor = np.sqrt(2) * np.linalg.cholesky(covariance)
        volume = np.log(np.abs(np.diagonal(factor, axis1=1, axis2=2))).sum(axis=1)
        self.phi = mode + np.einsum("sij,nj->nsi", factor, nodes)
        self.log_weights = log_weights[:, None] + volume
        self._kept = None

    def _residuals_at_nodes(self, values):
        if self.study.structural:
            return self.residuals(values, self.phi)
        if self._kept is None:  # the predictions depend on phi alone
            self._kept = self.residuals(values, self.phi)
        return self._kept

    def __call__(self, free):
        """Minus the log-likelihood at fixed nodes, and its gradient: E[d log p(y, phi) / d theta | y]."""
        values = self.from_free(free)
        mean, sd = self.law(values)
        with np.errstate(all="ignore"):
            squares, log_shape = self._residuals_at_nodes(values)
            z = (self.phi - mean) / sd
            logs = self.outcome(values, squares, log_shape) + self.log_weights
            logs = (
                logs
                - 0.5 * np.sum(z**2, axis=-1)
                - np.log(sd).sum()
                - 0.5 * sd.size * np.log(2 * np.pi)
            )
            logs = np.where(np.isfinite(logs), logs, -np.inf)
        per_subject = logsumexp(logs, axis=0)
        share = np.exp(logs - per_subject)
        slopes = [
            np.einsum("ns,nsd->d", share, z) / sd,
            np.einsum("ns,nsd->d", share, z**2) - len(self.y),
        ]
        for name in self.study.structural:
            up, down = (
                self.outcome(
                    values, *self.residuals(values | {name: values[name] * np.exp(h)}, self.phi)
                )
                for h in (H, -H)
            )
            slopes.append([np.sum(share * (up - down)) / (2 * H)])
        slopes.append([np.sum(share * squares) / values["sigma"] ** 2 - self.y.size])
        return -per_subject.sum(), -np.concatenate(slopes)

    def maximize(self) -> Maximum:
        free = self.to_free(self.study.truth)
        n_means, n_sds = len(self.study.means), len(self.study.sds)
        bounds = [(None, None)] * free.size
        for k in range(n_means, n_means + n_sds):
            bounds[k] = (free[k] + np.log(SMALLEST), None)
        for _ in range(N_TURNS):
            self.place(self.from_free(free))
            options = {"gtol": 1e-6, "ftol": 1e-13, "maxiter": 40}
            new = minimize(
                self, free, jac=True, method="L-BFGS-B", bounds=bounds, options=options
            ).x
            moved, free = np.abs(new - free).max(), new
            if moved < 1e-4:
                break
        self.place(self.from_free(free))
        values = self.from_free(free)
        at_bound = tuple(
            self.names[k]
            for k, b in enumerate(bounds)
            if b[0] is not None and free[k] < b[0] + 1e-6
        )
        return Maximum(values, self._errors(free, at_bound), -float(self(free)[0]), at_bound)

    def _errors(self, free, at_bound) -> dict:
        """Standard errors on the natural scale; NaN at a bound."""
        inner = np.array([name not in at_bound for name in self.names])
        steps = 1e-4 * np.eye(free.size)[inner]
        hessian = np.array([(self(free + h)[1] - self(free - h)[1])[inner] / 2e-4 for h in steps])
        error = np.full(free.size, np.nan)
        with np.errstate(invalid="ignore"):
            error[inner] = np.sqrt(np.diag(np.linalg.inv(0.5 * (hessian + hessian.T))))
        slope = np.where(self.is_log, np.array(list(self.from_free(free).values())), 1.0)
        return dict(zip(self.names, error * slope, strict=True))
