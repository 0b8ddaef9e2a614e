"""E-step kernels: Markov moves that leave p(phi_i | y_i, theta) invariant for all subjects at once.

Every proposal costs one density evaluation of all subjects and replicates, and is accepted or
rejected per subject and replicate. A kernel's scale adapts while exploring and is frozen after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from pymc.step_methods.arraystep import ArrayStepShared
from pymc.step_methods.compound import StepMethodState
from pymc.step_methods.metropolis import Metropolis, NormalProposal
from pymc.step_methods.state import dataclass_state

from pymc_saem.saem.core.algorithm import Statistics
from pymc_saem.saem.core.closed_form import weighted
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.estep.walk import add_all, count_failures, walk

#: Acceptance of a random walk that is near the best efficiency between 1 dimension (0.44) and many (0.23).
TARGET_ACCEPTANCE = 0.4


@dataclass
class Moves:
    """Proposals for every subject and replicate, one after the other: ``keep * phi + step``."""

    keep: np.ndarray  # (move, phi): 1, or 0 for what is drawn again
    step: np.ndarray  # (move, replicate, subject, phi)
    prior_cancels: np.ndarray  # (move,): drawn from the prior, so that only the likelihood decides
    log_proposal: np.ndarray  # (move, replicate, subject): log density of a proposal that ignores the state; else 0
    log_uniform: np.ndarray  # (move, replicate, subject): logarithms of uniform random numbers

    @classmethod
    def empty(cls, n: int, shape: tuple[int, int, int], rng: np.random.Generator) -> Moves:
        log_uniform = -rng.standard_exponential((n, *shape[:2]))
        zeros = np.zeros((n, *shape[:2]))
        return cls(np.ones((n, shape[-1])), np.empty((n, *shape)), np.zeros(n, dtype=bool), zeros, log_uniform)


@dataclass
class Ensemble:
    """Current states of all Markov chains of the E-step, their densities, and sums over the states visited."""

    phi: np.ndarray  # (replicate, subject, phi)
    loglik: np.ndarray  # (replicate, subject)
    logprior: np.ndarray  # (replicate, subject)
    residual: np.ndarray  # (replicate, subject, residual)

    def __post_init__(self):
        self.n_visited = 0
        self.still = np.zeros(
            self.loglik.shape[1], dtype=bool
        )  # (subject,): not part of the minibatch, or of weight zero, so they do not move
        self.weight = np.ones(self.loglik.shape[1])  # (subject,): of subjects in the sums over them
        self.bookkeeping = (
            np.zeros(self.loglik.shape, dtype=np.int64),  # transitions for which each state was held
            self.weight,
            np.zeros_like(self.phi),
            np.zeros((self.phi.shape[-1],) * 2),
            np.zeros_like(self.residual),
        )

    def walk(self, target: Target, moves: Moves) -> np.ndarray:
        """Propose, and accept or reject per subject and replicate, in place; the share accepted of each move."""
        n = len(moves.keep)
        moves.step[:, :, self.still] = np.nan  # without a density, and a solver returns at once
        moves.log_uniform[:, :, self.still] = np.inf  # a subject without rows has a density even there
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

    densities: object  # has likelihood(phi, theta)
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


class ReplicateProposal(NormalProposal):
    """PyMC's normal proposal for an array of any shape, with one call of the generator."""

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...] = ()):
        return rng.standard_normal(shape) * self.s


@dataclass_state
class SubjectMetropolisState(StepMethodState):
    scaling: np.ndarray
    tune: bool
    proposed: np.ndarray
    accepted_sum: np.ndarray
    shape: np.ndarray
    queue: np.ndarray
    n_learned: float


class SubjectMetropolis(Metropolis):
    """PyMC's random-walk Metropolis with an accept step per subject.

    Stock ``pm.Metropolis`` evaluates the whole model once per scalar; here one evaluation serves a
    proposal in every subject and replicate. The proposal distribution, the scaling, the tuning flag, the
    generator and the stored state are PyMC's. Proposals do not depend on the states, so those of a whole E-step are drawn
    ahead, and :meth:`Ensemble.walk` accepts or rejects them.

    Parameters
    ----------
    vars : list of pytensor variables
        Value variables of the random effects.
    move : {"coordinate", "block"}
        One column of phi at a time, in random order; or a random subset of columns along the
        correlations found so far.
    sd : ndarray, shape (phi,)
        Initial standard deviations of the proposals, on the scale of phi.
    """

    name = "subject_metropolis"
    default_blocked = True
    _state_class = SubjectMetropolisState

    def __init__(self, vars, *, move: str, sd: np.ndarray, model=None, rng=None, blocked=True):
        if move not in ("coordinate", "block"):
            raise ValueError(f"move is {move!r}; it must be 'coordinate' or 'block'.")
        # Metropolis.__init__ would compile the scalar log density of the whole model for nothing
        ArrayStepShared.__init__(self, vars, {}, blocked=blocked, rng=rng)
        self.move = move
        self.proposal_dist = ReplicateProposal(1.0)
        self.shape = np.diag(np.asarray(sd, dtype=float))  # proposals are z @ shape.T * scaling
        d = self.shape.shape[0]
        self.scaling = np.ones(d) if move == "coordinate" else 1.0 / np.sqrt(np.arange(1.0, d + 1.0))
        self.tune = True
        self.queue = np.zeros(0, dtype=int)
        self.n_learned = 0.0
        self.proposed = np.zeros(d)
        self.accepted_sum = np.zeros(d)
        self._untuned_settings = {"scaling": self.scaling, "shape": self.shape, "n_learned": 0.0}

    def reset_tuning(self):
        super().reset_tuning()
        self.proposed = np.zeros_like(self.proposed)
        self.accepted_sum = np.zeros_like(self.accepted_sum)

    def step(self, point):
        raise TypeError(
            "SubjectMetropolis moves the replicates of the SAEM E-step; pass pymc_saem.SAEM() to pm.sample."
        )

    def propose(self, moves: Moves, at: np.ndarray, population: Population) -> np.ndarray:
        """Fill in the moves at these places; they do not depend on the states.

        Parameters
        ----------
        moves : Moves
        at : ndarray of int, shape (proposal,)
        population : Population
            Not used: a random walk moves relative to the state.

        Returns
        -------
        ndarray of int, shape (proposal,)
            The scale that made each proposal.
        """
        n, shape = len(at), moves.step.shape[1:]
        d = shape[-1]
        if self.move == "coordinate":
            while self.queue.size < n:
                self.queue = np.concatenate([self.queue, self.rng.permutation(d)])
            which, self.queue = self.queue[:n], self.queue[n:]
            sizes = (self.scaling * np.diag(self.shape))[which]
            moves.step[at] = 0.0
            along = self.proposal_dist(self.rng, (n, *shape[:-1])) * sizes[:, None, None]
            moves.step[at, :, :, which] = along
            return which
        which = self.rng.integers(min(2, d), d + 1, n) - 1
        order = self.rng.random((n, d)).argsort(axis=1)
        for k in range(n):
            columns = order[k, : which[k] + 1]
            z = self.proposal_dist(self.rng, (shape[0] * shape[1], columns.size))
            moves.step[at[k]] = (z @ (self.shape[:, columns].T * self.scaling[which[k]])).reshape(shape)
        return which

    def record(self, which: np.ndarray, rates: np.ndarray) -> None:
        """Count how many subjects and replicates accepted each proposal."""
        np.add.at(self.proposed, which, 1.0)
        np.add.at(self.accepted_sum, which, rates)

    def learn(self, within: np.ndarray | None = None) -> None:
        """Adapt once an iteration (Robbins-Monro on the log scale), unless tuning has stopped.

        Parameters
        ----------
        within : ndarray, shape (phi, phi), optional
            Covariance of phi within subjects, for the "block" move.
        """
        if self.tune:
            self.n_learned += 1.0
            gain = 2.0 / np.sqrt(self.n_learned + 3.0)
            seen = self.proposed > 0
            rate = np.divide(
                self.accepted_sum, self.proposed, out=np.full_like(self.scaling, TARGET_ACCEPTANCE), where=seen
            )
            self.scaling = self.scaling * np.exp(gain * (rate - TARGET_ACCEPTANCE))
            if within is not None:
                self.shape = np.linalg.cholesky(within)
        self.proposed = np.zeros_like(self.proposed)
        self.accepted_sum = np.zeros_like(self.accepted_sum)


class PriorProposal:
    """Independent proposals of one or all Gaussian random effects from p(phi | theta); the prior cancels."""

    def __init__(self, blocks: list[slice], rng: np.random.Generator):
        together = np.concatenate([np.arange(block.start, block.stop) for block in blocks] or [np.zeros(0, int)])
        self.blocks = [together, *blocks] if len(blocks) > 1 else [together]
        self.rng = rng

    def propose(self, moves: Moves, at: np.ndarray, population: Population) -> np.ndarray:
        """Fill in the moves at these places; see :meth:`SubjectMetropolis.propose`."""
        n, shape = len(at), moves.step.shape[1:]
        which = self.rng.integers(len(self.blocks), size=n)
        fresh = population.draw(self.rng, n * shape[0]).reshape(n, *shape)
        for k in range(n):
            moves.keep[at[k], self.blocks[which[k]]] = 0.0
        moves.step[at] = fresh * (1.0 - moves.keep[at])[:, None, None, :]
        moves.prior_cancels[at] = True
        return which

    def record(self, which: np.ndarray, rates: np.ndarray) -> None:
        """Nothing to learn: the proposals have no scale."""
