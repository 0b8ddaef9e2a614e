"""Compiled inner pieces of an E-step transition.

Each replaces half a dozen NumPy calls on small arrays, which together cost more than the solves of
a small model. Compiled once per machine and kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from pymc_saem.kept import keep_function
from pymc_saem.saem.core.gaussian import log_density


def _compile(function: Callable) -> Any:
    return keep_function(function, nogil=True)


@_compile
def propose(
    phi: np.ndarray,
    keep: np.ndarray,
    move: np.ndarray,
    mean: np.ndarray,
    whitener: np.ndarray,
    diagonal: bool,
    log_normalizer: float,
    new_phi: np.ndarray,
    new_logprior: np.ndarray,
) -> None:
    """``new_phi = keep * phi + move``, and its log N(mean, omega); shapes as in ``Ensemble``."""
    n_replicates, n_subjects, n_phi = phi.shape
    for r in range(n_replicates):
        for i in range(n_subjects):
            for k in range(n_phi):
                new_phi[r, i, k] = keep[k] * phi[r, i, k] + move[r, i, k]
    log_density(new_phi, mean, whitener, diagonal, log_normalizer, new_logprior)


@_compile
def _add(
    phi: np.ndarray,
    residual: np.ndarray,
    held: np.ndarray,
    weight: np.ndarray,
    r: int,
    i: int,
    sum_phi: np.ndarray,
    sum_square: np.ndarray,
    sum_residual: np.ndarray,
) -> None:
    n = held[r, i]
    held[r, i] = 0
    if n == 0:
        return
    for k in range(phi.shape[2]):
        times = n * phi[r, i, k]
        sum_phi[r, i, k] += times
        weighted = weight[i] * times
        for j in range(k + 1):
            sum_square[k, j] += weighted * phi[r, i, j]
    for k in range(residual.shape[2]):
        sum_residual[r, i, k] += n * residual[r, i, k]


@_compile
def add_all(
    phi: np.ndarray,
    residual: np.ndarray,
    held: np.ndarray,
    weight: np.ndarray,
    sum_phi: np.ndarray,
    sum_square: np.ndarray,
    sum_residual: np.ndarray,
) -> None:
    """Add the states that are still held; ``sum_square`` is a lower triangle, over subjects by their ``weight``."""
    for r in range(phi.shape[0]):
        for i in range(phi.shape[1]):
            _add(phi, residual, held, weight, r, i, sum_phi, sum_square, sum_residual)


@_compile
def decide(
    phi: np.ndarray,
    loglik: np.ndarray,
    logprior: np.ndarray,
    residual: np.ndarray,
    new_phi: np.ndarray,
    new_loglik: np.ndarray,
    new_logprior: np.ndarray,
    new_residual: np.ndarray,
    log_uniform: np.ndarray,
    prior_cancels: bool,
    held: np.ndarray,
    weight: np.ndarray,
    sum_phi: np.ndarray,
    sum_square: np.ndarray,
    sum_residual: np.ndarray,
) -> float:
    """Metropolis rule for every subject and replicate, in place; the share accepted.

    A proposal without a density (NaN, after a failed solve) is rejected. A state enters the sums
    when it is left, as many times as the transitions that it was ``held``.
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
                _add(phi, residual, held, weight, r, i, sum_phi, sum_square, sum_residual)
                loglik[r, i] = new_loglik[r, i]
                logprior[r, i] = new_logprior[r, i]
                for k in range(n_phi):
                    phi[r, i, k] = new_phi[r, i, k]
                for k in range(residual.shape[2]):
                    residual[r, i, k] = new_residual[r, i, k]
            held[r, i] += 1
    return accepted / (n_replicates * n_subjects)


@_compile
def _count(status: np.ndarray, codes: np.ndarray) -> None:
    for r in range(status.shape[0]):
        for i in range(status.shape[1]):
            if status[r, i] != 0:
                codes[status[r, i], i] += 1


def count_failures(statuses: Sequence[np.ndarray], codes: np.ndarray) -> None:
    """Add the failures in a tuple of statuses, each (replicate, subject), to ``codes`` (code, subject)."""
    for status in statuses:
        _count(status, codes)


# Numba wants the same names and annotations in an overload and in what it returns.
@overload(count_failures)
def _count_failures(statuses: Any, codes: Any) -> Callable[[Any, Any], None]:
    def count_none(statuses: Any, codes: Any) -> None:
        pass

    def count_each(statuses: Any, codes: Any) -> None:
        for status in statuses:
            _count(status, codes)

    return count_each if len(statuses) else count_none  # Numba cannot loop over an empty tuple


@numba.njit(nogil=True)
def walk(
    likelihood: Callable,
    others: tuple,
    theta: np.ndarray,
    law: tuple,
    keep: np.ndarray,
    step: np.ndarray,
    prior_cancels: np.ndarray,
    log_proposal: np.ndarray,
    log_uniform: np.ndarray,
    phi: np.ndarray,
    loglik: np.ndarray,
    logprior: np.ndarray,
    residual: np.ndarray,
    new_phi: np.ndarray,
    new_logprior: np.ndarray,
    bookkeeping: tuple,
    rates: np.ndarray,
    codes: np.ndarray,
) -> None:
    """All proposals of an E-step, one after the other, without Python in between.

    Not kept on disk: each model's compiled ``likelihood(phi, theta, *others)`` becomes a part of
    it. ``codes[c, i]`` counts the solves of subject i that ended with status c. Where the log
    density of a proposal is given, ``logprior`` holds the log prior minus it, of the states too.
    """
    for k in range(keep.shape[0]):
        propose(phi, keep[k], step[k], *law, new_phi, new_logprior)
        new_logprior -= log_proposal[k]
        result = likelihood(new_phi, theta, *others)
        count_failures(result[2:], codes)
        rates[k] = decide(
            phi, loglik, logprior, residual, new_phi, result[0], new_logprior, result[1],
            log_uniform[k], prior_cancels[k], *bookkeeping,
        )  # fmt: skip
