"""What the kernels of the E-step move: the states of all Markov chains, the density that they leave invariant, and proposals.

Every proposal costs one density evaluation of all subjects and replicates, and is accepted or
rejected per subject and replicate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from pymc_saem.model.density.densities import Densities
from pymc_saem.saem.core.algorithm import Statistics
from pymc_saem.saem.core.closed_form import weighted
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.estep.walk import add_all, count_failures, walk


@dataclass
class Moves:
    """Proposals for every subject and replicate, one after the other: ``keep * phi + step``."""

    keep: np.ndarray  # (move, phi): 1, or 0 for what is drawn again
    step: np.ndarray  # (move, replicate, subject, phi)
    prior_cancels: np.ndarray  # (move,): drawn from the prior, so that only the likelihood decides
    # (move, replicate, subject): log density of a proposal that ignores the state; else 0
    log_proposal: np.ndarray
    log_uniform: np.ndarray  # (move, replicate, subject): logarithms of uniform random numbers

    @classmethod
    def empty(cls, n: int, shape: tuple[int, int, int], rng: np.random.Generator) -> Moves:
        log_uniform = -rng.standard_exponential((n, *shape[:2]))
        zeros = np.zeros((n, *shape[:2]))
        return cls(
            np.ones((n, shape[-1])),
            np.empty((n, *shape)),
            np.zeros(n, dtype=bool),
            zeros,
            log_uniform,
        )


@dataclass
class Ensemble:
    """Current states of all Markov chains of the E-step, their densities, and sums over the states visited."""

    phi: np.ndarray  # (replicate, subject, phi)
    loglik: np.ndarray  # (replicate, subject)
    logprior: np.ndarray  # (replicate, subject)
    residual: np.ndarray  # (replicate, subject, residual)

    def __post_init__(self) -> None:
        self.n_visited = 0
        # (subject,): not part of the minibatch, or of weight zero, so they do not move
        self.still = np.zeros(self.loglik.shape[1], dtype=bool)
        self.weight = np.ones(self.loglik.shape[1])  # (subject,): of subjects in the sums over them
        # transitions for which each state was held
        self.bookkeeping = (
            np.zeros(self.loglik.shape, dtype=np.int64),
            self.weight,
            np.zeros_like(self.phi),
            np.zeros((self.phi.shape[-1],) * 2),
            np.zeros_like(self.residual),
        )

    def walk(self, target: Target, moves: Moves) -> np.ndarray:
        """Propose, and accept or reject per subject and replicate, in place; the share accepted of each move."""
        n = len(moves.keep)
        moves.step[:, :, self.still] = np.nan  # without a density, and a solver returns at once
        # a subject without rows has a density even there
        moves.log_uniform[:, :, self.still] = np.inf
        rates, new, new_logprior = np.empty(n), np.empty_like(self.phi), np.empty_like(self.loglik)
        law, state = target.population.law, (self.phi, self.loglik, self.logprior, self.residual)
        run, likelihood, others, solves = target.densities.runner(walk, "likelihood", self.phi, n)
        with solves:
            for part in interruptible(n):
                run(
                    likelihood, others, target.theta, law, moves.keep[part], moves.step[part], moves.prior_cancels[part],
                    moves.log_proposal[part], moves.log_uniform[part], *state, new, new_logprior, self.bookkeeping,
                    rates[part], target.codes,
                )  # fmt: skip
        self.n_visited += n
        target.n_evaluations += n
        return rates / self.moving_share

    @property
    def moving_share(self) -> float:
        """Share of the subjects that may move."""
        return 1.0 - float(self.still.mean())

    def statistics(self) -> Statistics:
        """Sufficient statistics averaged over the visited states and replicates."""
        add_all(self.phi, self.residual, *self.bookkeeping)
        _, _, phi, square, residual = self.bookkeeping
        per_replicate = self.n_visited * self.phi.shape[0]
        return Statistics(
            first=phi.mean(axis=0) / self.n_visited,
            second=(square + np.tril(square, -1).T) / per_replicate,
            residual=weighted(self.weight[:, None], residual).sum(axis=(0, 1)) / per_replicate,
        )


def interruptible(n: int) -> Iterator[slice]:
    """Parts of ``range(n)`` that take about half a second each: Ctrl-C waits for the end of machine code."""
    begin, size = 0, max(1, n // 16)
    while begin < n:
        mark, end = perf_counter(), min(n, begin + size)
        yield slice(begin, end)
        each = (perf_counter() - mark) / (end - begin)
        begin, size = end, max(1, int(0.5 / max(each, 1e-9)))


@dataclass
class Target:
    """p(phi | y, theta) of all subjects, up to a constant, for one theta."""

    densities: Densities
    population: Population
    theta: np.ndarray
    codes: np.ndarray  # (status code, subject): how many solves ended so; successes are not counted
    n_evaluations: int = 0

    def ensemble(self, phi: np.ndarray) -> Ensemble:
        """Evaluate a set of states; a state without a density may be left by any finite proposal."""
        loglik, residual, status = self.densities.likelihood(phi, self.theta)
        self.n_evaluations += 1
        count_failures(status, self.codes)
        loglik = np.where(np.isnan(loglik), -np.inf, loglik)
        return Ensemble(phi.copy(), loglik, self.population.log_density(phi), np.array(residual))
