"""E-step kernels: Markov moves that leave p(phi_i | y_i, theta) invariant for all subjects at once.

Every proposal costs one density evaluation of all subjects and replicates, and is accepted or
rejected per subject and replicate. A kernel's scale adapts while exploring and is frozen after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from pymc.step_methods.arraystep import ArrayStepShared
from pymc.step_methods.compound import StepMethodState
from pymc.step_methods.metropolis import Metropolis, NormalProposal
from pymc.step_methods.state import dataclass_state

from pymc_saem.saem.algorithm import Statistics
from pymc_saem.saem.fused import add_all, decide, propose
from pymc_saem.saem.population import Population

#: Acceptance of a random walk that is near the best efficiency between 1 dimension (0.44) and many (0.23).
TARGET_ACCEPTANCE = 0.4


class Move(NamedTuple):
    """One proposal for every subject and replicate: ``keep * phi + step``."""

    keep: np.ndarray  # (phi,): 1, or 0 for what is drawn anew
    step: np.ndarray  # (replicate, subject, phi)
    which: int  # the scale that made it


@dataclass
class Ensemble:
    """Current states of all Markov chains of the E-step, their densities, and sums over the states visited."""

    phi: np.ndarray  # (replicate, subject, phi)
    loglik: np.ndarray  # (replicate, subject)
    logprior: np.ndarray  # (replicate, subject)
    residual: np.ndarray  # (replicate, subject, residual)

    def __post_init__(self):
        self.n_visited = 0
        self.held = np.zeros(self.loglik.shape, dtype=np.int64)
        self.sums = np.zeros_like(self.phi), np.zeros((self.phi.shape[-1],) * 2), np.zeros_like(self.residual)
        self.proposal, self.proposal_logprior = np.empty_like(self.phi), np.empty_like(self.loglik)

    def move(self, target: Target, move: Move, log_uniform: np.ndarray, prior_cancels: bool = False) -> float:
        """Propose, and accept or reject per subject and replicate, in place; the share accepted.

        Parameters
        ----------
        log_uniform : ndarray, shape (replicate, subject)
            Logarithms of uniform random numbers.
        prior_cancels : bool
            The proposal is a draw from the prior, so that only the likelihood decides.
        """
        new, new_logprior = self.proposal, self.proposal_logprior
        propose(self.phi, move.keep, move.step, *target.population.law, new, new_logprior)
        loglik, residual = target.evaluate(new)
        self.n_visited += 1
        return decide(
            self.phi, self.loglik, self.logprior, self.residual, new, loglik, new_logprior, residual,
            log_uniform, prior_cancels, self.held, *self.sums,
        )  # fmt: skip

    def statistics(self) -> Statistics:
        """Sufficient statistics averaged over the visited states and replicates."""
        add_all(self.phi, self.residual, self.held, *self.sums)
        phi, square, residual = self.sums
        per_replicate = self.n_visited * self.phi.shape[0]
        return Statistics(
            first=phi.mean(axis=0) / self.n_visited,
            second=(square + np.tril(square, -1).T) / per_replicate,
            residual=residual.sum(axis=(0, 1)) / per_replicate,
        )


@dataclass
class Target:
    """p(phi | y, theta) of all subjects, up to a constant, for one theta."""

    densities: object  # has likelihood(phi, theta)
    population: Population
    theta: np.ndarray
    failures: dict[int, np.ndarray] = field(default_factory=dict)  # status code -> count per subject
    n_evaluations: int = 0

    def ensemble(self, phi: np.ndarray) -> Ensemble:
        """Evaluate a set of states; a state without a density may be left by any finite proposal."""
        loglik, residual = self.evaluate(phi)
        loglik = np.where(np.isnan(loglik), -np.inf, loglik)
        return Ensemble(phi.copy(), loglik, self.population.log_density(phi), np.array(residual))

    def evaluate(self, phi: np.ndarray):
        """Log likelihood (replicate, subject) and residual statistics of proposals."""
        loglik, residual, status = self.densities.likelihood(phi, self.theta)
        self.n_evaluations += 1
        for codes in status:
            if codes.any():
                for code in np.unique(codes[codes != 0]):
                    count = (codes == code).sum(axis=0)
                    self.failures[int(code)] = self.failures.get(int(code), 0) + count
        return loglik, residual


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
    generator and the statistics are PyMC's.

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
    stats_dtypes_shapes = {
        "accept": (np.float64, []),
        "accepted": (np.float64, []),
        "scaling": (np.float64, []),
    }
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

    def propose(self, n: int, shape: tuple[int, ...], population: Population) -> Iterator[Move]:
        """The next ``n`` proposals; they do not depend on the states.

        Parameters
        ----------
        n : int
        shape : tuple of int
            (replicate, subject, phi)
        population : Population
            Not used: a random walk moves relative to the state.
        """
        d, keep = shape[-1], np.ones(shape[-1])
        if self.move == "coordinate":
            while self.queue.size < n:
                self.queue = np.concatenate([self.queue, self.rng.permutation(d)])
            which, self.queue = self.queue[:n], self.queue[n:]
            sizes = (self.scaling * np.diag(self.shape))[which]
            along = self.proposal_dist(self.rng, (n, *shape[:-1])) * sizes[:, None, None]
            for k in range(n):
                step = np.zeros(shape)
                step[..., which[k]] = along[k]
                yield Move(keep, step, int(which[k]))
            return
        sizes = self.rng.integers(min(2, d), d + 1, n)
        order = self.rng.random((n, d)).argsort(axis=1)
        for k in range(n):
            columns, which = order[k, : sizes[k]], int(sizes[k]) - 1
            z = self.proposal_dist(self.rng, (shape[0] * shape[1], sizes[k]))
            step = z @ (self.shape[:, columns].T * self.scaling[which])
            yield Move(keep, step.reshape(shape), which)

    def astep(self, q0: Ensemble, target: Target, move: Move, log_uniform: np.ndarray):
        """One transition of every subject and replicate, in place.

        Returns
        -------
        Ensemble
            ``q0``, moved.
        list of dict
            PyMC's Metropolis statistics, averaged over subjects and replicates.
        """
        rate = q0.move(target, move, log_uniform)
        self.proposed[move.which] += 1
        self.accepted_sum[move.which] += rate
        return q0, [{"accept": rate, "accepted": rate, "scaling": self.scaling[move.which]}]

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
    """Independent proposals of one or all random effects from p(phi | theta); the prior cancels."""

    def __init__(self, blocks: list[slice], rng: np.random.Generator):
        d = blocks[-1].stop
        self.blocks = [slice(0, d), *blocks] if len(blocks) > 1 else [slice(0, d)]
        self.rng = rng

    def propose(self, n: int, shape: tuple[int, ...], population: Population) -> Iterator[Move]:
        """The next ``n`` proposals; see :meth:`SubjectMetropolis.propose`."""
        which = self.rng.integers(len(self.blocks), size=n)
        fresh = population.draw(self.rng, n * shape[0]).reshape(n, *shape)
        for k in range(n):
            keep = np.ones(shape[-1])
            keep[self.blocks[which[k]]] = 0.0
            yield Move(keep, fresh[k] * (1.0 - keep), int(which[k]))

    def astep(self, q0: Ensemble, target: Target, move: Move, log_uniform: np.ndarray):
        """One transition of every subject and replicate, in place; see :meth:`SubjectMetropolis.astep`."""
        rate = q0.move(target, move, log_uniform, prior_cancels=True)
        return q0, [{"accept": rate, "accepted": rate}]
