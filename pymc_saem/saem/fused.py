"""Compiled inner pieces of an E-step transition.

Each replaces half a dozen NumPy calls on small arrays, which together cost more than the solves of a small
model. Compiled once per machine and kept on disk.
"""

from __future__ import annotations

import numba
import numpy as np


def _compile(function):
    """``numba.njit`` kept on disk, or in memory only where nothing may be written."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # Numba found no directory for its cache
        return numba.njit(nogil=True)(function)


@_compile
def decide(
    phi, loglik, logprior, residual, new_phi, new_loglik, new_logprior, new_residual,
    log_uniform, prior_cancels, sum_phi, sum_residual,
):  # fmt: skip
    """Metropolis rule for every subject and replicate, in place; then add the states to the sums.

    A proposal without a density (NaN, after a failed solve) is rejected. Returns the share accepted.
    """
    n_replicates, n_subjects, n_phi = phi.shape
    accepted = 0
    for r in range(n_replicates):
        for i in range(n_subjects):
            log_ratio = new_loglik[r, i] - loglik[r, i]
            if not prior_cancels:
                log_ratio += new_logprior[r, i] - logprior[r, i]
            if log_uniform[r, i] < log_ratio:
                accepted += 1
                loglik[r, i] = new_loglik[r, i]
                logprior[r, i] = new_logprior[r, i]
                for k in range(n_phi):
                    phi[r, i, k] = new_phi[r, i, k]
                for k in range(residual.shape[2]):
                    residual[r, i, k] = new_residual[r, i, k]
            for k in range(n_phi):
                sum_phi[r, i, k] += phi[r, i, k]
            for k in range(residual.shape[2]):
                sum_residual[r, i, k] += residual[r, i, k]
    return accepted / (n_replicates * n_subjects)


@_compile
def log_density(phi, mean, whitener, log_normalizer):
    """log N(phi; mean, omega) of (replicate, subject, phi); ``whitener`` is upper triangular."""
    n_replicates, n_subjects, n_phi = phi.shape
    out = np.empty((n_replicates, n_subjects))
    eta = np.empty(n_phi)
    z = np.empty(n_phi)
    for r in range(n_replicates):
        for i in range(n_subjects):
            for k in range(n_phi):
                eta[k] = phi[r, i, k] - mean[i, k]
                z[k] = 0.0
            for j in range(n_phi):
                for k in range(j, n_phi):
                    z[k] += eta[j] * whitener[j, k]
            total = 0.0
            for k in range(n_phi):
                total += z[k] * z[k]
            out[r, i] = log_normalizer - 0.5 * total
    return out
