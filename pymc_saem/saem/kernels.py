"""E-step kernels: Markov moves that leave p(phi_i | y_i, theta) invariant for all subjects at once.

Every proposal costs one density evaluation of all subjects and replicates, and is accepted or
rejected per subject and replicate. A kernel's scale adapts while exploring and is frozen after.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pymc.step_methods.arraystep import ArrayStepShared
from pymc.step_methods.compound import StepMethodState
from pymc.step_methods.metropolis import Metropolis, NormalProposal
from pymc.step_methods.state import dataclass_state

from pymc_saem.saem.population import Population

#: Acceptance of a random walk that is near the best efficiency between 1 dimension (0.44) and many (0.23).
TARGET_ACCEPTANCE = 0.4


@dataclass
class Ensemble:
    """Current states of all Markov chains of the E-step, and their densities."""

    phi: np.ndarray  # (replicate, subject, phi)
    loglik: np.ndarray  # (replicate, subject)
    logprior: np.ndarray  # (replicate, subject)
    residual: np.ndarray  # (replicate, subject, residual)

    def accept(self, accepted: np.ndarray, phi, loglik, logprior, residual) -> None:
        """Take over the proposals where ``accepted`` (replicate, subject) is true, in place."""
        np.copyto(self.loglik, loglik, where=accepted)
        np.copyto(self.logprior, logprior, where=accepted)
        accepted = accepted[..., None]
        np.copyto(self.phi, phi, where=accepted)
        np.copyto(self.residual, residual, where=accepted)


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


def metropolis_accept(log_ratio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Accept with probability min(1, exp(log_ratio)), entry by entry; NaN is rejected."""
    return -rng.standard_exponential(log_ratio.shape) < log_ratio


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
        self.proposal_dist = NormalProposal(1.0)
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
        raise TypeError("SubjectMetropolis moves the replicates of the SAEM E-step; pass pymc_saem.SAEM() to pm.sample.")

    def astep(self, q0: Ensemble, target: Target):
        """One transition of every subject and replicate, in place.

        Returns
        -------
        Ensemble
            ``q0``, moved.
        list of dict
            PyMC's Metropolis statistics, averaged over subjects and replicates.
        """
        which, delta = self._propose(q0.phi.shape)
        phi = q0.phi + delta
        loglik, residual = target.evaluate(phi)
        logprior = target.population.log_density(phi)
        log_ratio = (loglik - q0.loglik) + (logprior - q0.logprior)
        accepted = metropolis_accept(log_ratio, self.rng)
        q0.accept(accepted, phi, loglik, logprior, residual)
        rate = accepted.mean()
        self.proposed[which] += 1
        self.accepted_sum[which] += rate
        return q0, [{"accept": rate, "accepted": rate, "scaling": self.scaling[which]}]

    def _propose(self, shape):
        d = shape[-1]
        if self.move == "coordinate":
            if not self.queue.size:
                self.queue = self.rng.permutation(d)
            which, self.queue = int(self.queue[0]), self.queue[1:]
            delta = np.zeros(shape)
            delta[..., which] = self._normal(shape[:-1]) * (self.scaling[which] * self.shape[which, which])
            return which, delta
        size = int(self.rng.integers(min(2, d), d + 1))
        columns = self.rng.permutation(d)[:size]
        z = self._normal((*shape[:-1], size))
        return size - 1, (z @ self.shape[:, columns].T) * self.scaling[size - 1]

    def _normal(self, shape):
        self.proposal_dist.s = np.ones(shape)
        return self.proposal_dist(rng=self.rng)

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
            rate = np.divide(self.accepted_sum, self.proposed, out=np.full_like(self.scaling, TARGET_ACCEPTANCE), where=seen)
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

    def astep(self, q0: Ensemble, target: Target):
        """One transition of every subject and replicate, in place; see :class:`SubjectMetropolis`."""
        block = self.blocks[int(self.rng.integers(len(self.blocks)))]
        fresh = target.population.draw(self.rng, q0.phi.shape[0])
        phi = q0.phi.copy()
        phi[..., block] = fresh[..., block]
        loglik, residual = target.evaluate(phi)
        accepted = metropolis_accept(loglik - q0.loglik, self.rng)
        q0.accept(accepted, phi, loglik, target.population.log_density(phi), residual)
        rate = accepted.mean()
        return q0, [{"accept": rate, "accepted": rate}]
