"""The compiled loop over Langevin transitions; the pieces are compiled once per machine, as in ``walk``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import numpy as np

from pymc_saem.saem.core.gaussian import log_density
from pymc_saem.saem.estep.walk import _add, _compile, count_failures


@_compile
def _add_prior(
    phi: np.ndarray, mean: np.ndarray, whitener: np.ndarray, diagonal: bool, gradient: np.ndarray
) -> None:
    """Add the gradient of log N(mean, omega) of one subject: ``-whitener (whitener' eta)``."""
    n_phi = phi.size
    z = np.zeros(n_phi)
    for j in range(n_phi):
        eta = phi[j] - mean[j]
        for k in range(j, j + 1 if diagonal else n_phi):
            z[k] += eta * whitener[j, k]
    for j in range(n_phi):
        total = 0.0
        for k in range(j, j + 1 if diagonal else n_phi):
            total += whitener[j, k] * z[k]
        gradient[j] -= total


@_compile
def pull_of(
    phi: np.ndarray,
    d_loglik: np.ndarray,
    mean: np.ndarray,
    whitener: np.ndarray,
    diagonal: bool,
    root: np.ndarray,
    cap: float,
    pull: np.ndarray,
) -> None:
    """Gradient of the log posterior in preconditioned coordinates: ``root' (d_loglik + d_logprior)``.

    ``root`` is lower triangular, one for all subjects or one each: (1 or subject, phi, phi). A pull
    longer than ``cap`` is cut to it, which keeps proposals near where the density is steep; one
    that is not finite becomes zero. Both are functions of the state alone, so the acceptance rule
    stays exact.
    """
    n_replicates, n_subjects, n_phi = phi.shape
    gradient, own_pull = np.empty(n_phi), np.empty(n_phi)
    for r in range(n_replicates):
        for i in range(n_subjects):
            for k in range(n_phi):
                gradient[k] = d_loglik[r, i, k]
                own_pull[k] = 0.0
            _add_prior(phi[r, i], mean[i], whitener, diagonal, gradient)
            own, total = root[i % root.shape[0]], 0.0
            for j in range(n_phi):
                for k in range(j + 1):
                    own_pull[k] += own[j, k] * gradient[j]
            for k in range(n_phi):
                total += own_pull[k] * own_pull[k]
            size = math.sqrt(total)
            factor = 0.0 if not math.isfinite(size) else cap / size if size > cap else 1.0
            for k in range(n_phi):
                pull[r, i, k] = own_pull[k] * factor if factor > 0.0 else 0.0


@_compile
def drift(
    phi: np.ndarray,
    pull: np.ndarray,
    noise: np.ndarray,
    root_t: np.ndarray,
    scaling: np.ndarray,
    new_phi: np.ndarray,
) -> None:
    """``new_phi = phi + root (scaling^2 / 2 pull + scaling noise)``, with a scaling per subject; ``root_t`` is transposed."""
    n_replicates, n_subjects, n_phi = phi.shape
    new = np.empty(n_phi)
    for r in range(n_replicates):
        for i in range(n_subjects):
            h, own = scaling[i], root_t[i % root_t.shape[0]]
            for k in range(n_phi):
                new[k] = phi[r, i, k]
            for k in range(n_phi):
                v = h * (0.5 * h * pull[r, i, k] + noise[r, i, k])
                for j in range(k, n_phi):
                    new[j] += own[k, j] * v
            for k in range(n_phi):
                new_phi[r, i, k] = new[k]


@_compile
def decide_langevin(
    phi: np.ndarray,
    loglik: np.ndarray,
    logprior: np.ndarray,
    residual: np.ndarray,
    pull: np.ndarray,
    new_phi: np.ndarray,
    new_loglik: np.ndarray,
    new_logprior: np.ndarray,
    new_residual: np.ndarray,
    new_pull: np.ndarray,
    noise: np.ndarray,
    scaling: np.ndarray,
    log_uniform: np.ndarray,
    held: np.ndarray,
    weight: np.ndarray,
    sum_phi: np.ndarray,
    sum_square: np.ndarray,
    sum_residual: np.ndarray,
    accepted: np.ndarray,
) -> float:
    """Metropolis-Hastings rule, in place; the share accepted. ``accepted`` (subject,) counts.

    The way back would need the noise ``-(noise + scaling / 2 (pull + new_pull))``.
    """
    n_replicates, n_subjects, n_phi = phi.shape
    count = 0
    for r in range(n_replicates):
        for i in range(n_subjects):
            log_ratio = new_loglik[r, i] - loglik[r, i] + new_logprior[r, i] - logprior[r, i]
            half = 0.5 * scaling[i]
            for k in range(n_phi):
                there = noise[r, i, k]
                back = there + half * (pull[r, i, k] + new_pull[r, i, k])
                log_ratio += 0.5 * (there * there - back * back)
            if log_uniform[r, i] < log_ratio:
                count += 1
                accepted[i] += 1.0
                _add(phi, residual, held, weight, r, i, sum_phi, sum_square, sum_residual)
                loglik[r, i] = new_loglik[r, i]
                logprior[r, i] = new_logprior[r, i]
                for k in range(n_phi):
                    phi[r, i, k] = new_phi[r, i, k]
                    pull[r, i, k] = new_pull[r, i, k]
                for k in range(residual.shape[2]):
                    residual[r, i, k] = new_residual[r, i, k]
            held[r, i] += 1
    return count / (n_replicates * n_subjects)


@numba.njit(nogil=True)
def walk_langevin(
    derivative: Callable,
    others: tuple,
    theta: np.ndarray,
    law: tuple,
    root: np.ndarray,
    root_t: np.ndarray,
    scaling: np.ndarray,
    cap: float,
    noise: np.ndarray,
    log_uniform: np.ndarray,
    phi: np.ndarray,
    loglik: np.ndarray,
    logprior: np.ndarray,
    residual: np.ndarray,
    pull: np.ndarray,
    has_pull: bool,
    new_phi: np.ndarray,
    new_logprior: np.ndarray,
    new_pull: np.ndarray,
    bookkeeping: tuple,
    accepted: np.ndarray,
    rates: np.ndarray,
    codes: np.ndarray,
) -> None:
    """Langevin transitions, one after the other; ``derivative`` returns log likelihood, residual statistics, its gradient, statuses.

    Without a ``pull`` of the states it is found first, which costs one evaluation more.
    """
    if not has_pull:
        result = derivative(phi, theta, *others)
        pull_of(phi, result[2], law[0], law[1], law[2], root, cap, pull)
    for k in range(noise.shape[0]):
        drift(phi, pull, noise[k], root_t, scaling, new_phi)
        log_density(new_phi, *law, new_logprior)
        result = derivative(new_phi, theta, *others)
        count_failures(result[3:], codes)
        pull_of(new_phi, result[2], law[0], law[1], law[2], root, cap, new_pull)
        rates[k] = decide_langevin(
            phi, loglik, logprior, residual, pull, new_phi, result[0], new_logprior, result[1], new_pull,
            noise[k], scaling, log_uniform[k], *bookkeeping, accepted,
        )  # fmt: skip
