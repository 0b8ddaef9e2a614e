"""p(phi_i | y_i, theta_hat) after the estimate: draws until they suffice, means, standard deviations, modes, shrinkage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pymc_saem.model.density.densities import Densities
from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.results.thresholds import LEAST_ESS
from pymc_saem.saem.conditional.mixing import Convergence, assess_draws
from pymc_saem.saem.conditional.modes import Modes, best_modes
from pymc_saem.saem.core.closed_form import weighted
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.estep.mixture import Simulator

#: Chains of conditional draws; with fewer, R-hat could not show whether they agree.
N_CHAINS = 4
#: Drawing may continue for this share of the solves of the fit.
SHARE = 0.125
#: A chain holds at most this many draws, or twice those that were asked for; then every other one
#: goes, and the rest lie further apart.
MAX_DRAWS = 500
#: Starts of each subject's mode search besides the mean of the population and the conditional one:
#: the best draws of this many chains, and draws from the population, which may find a mode that no
#: chain has seen.
N_BEST_DRAWS, N_FROM_POPULATION = 4, 3
#: Draws at which the solves of the E-step are compared with tight ones.
N_COMPARED = 50


@dataclass(frozen=True)
class Conditional:
    """What is known of each subject's phi once theta is estimated; all on the scale of phi.

    Attributes
    ----------
    draws : ndarray, shape (chain, draw, subject, phi)
    logp : ndarray, shape (chain, draw)
        Complete-data log density of each draw.
    mean, sd, mode : ndarray, shape (subject, phi)
    mode_logp : ndarray, shape (subject,)
        log p(y_i, phi_i; theta) at the mode; -inf where no search for it had a finite density.
    shrinkage : ndarray, shape (phi,)
        1 - var(mode - mean_i) / omega: 0 where the data determine phi, 1 where they are
        uninformative.
    mode_agreement : ndarray, shape (subject,)
        Share of the searches that ended in the mode.
    convergence : Convergence
        R-hat and effective sample sizes.
    n_solves : int
        Of the draws.
    solver_error : ndarray, shape (subject,)
        How much log p(y_i | phi_i) changes with tighter tolerances of differential equations,
        median over draws; 0 without any.
    """

    draws: np.ndarray
    logp: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    mode: np.ndarray
    mode_logp: np.ndarray
    shrinkage: np.ndarray
    mode_agreement: np.ndarray
    convergence: Convergence
    n_solves: int
    solver_error: np.ndarray


def describe_individuals(
    simulator: Simulator,
    population: Population,
    theta: np.ndarray,
    phi: np.ndarray,
    n_draws: int,
    max_solves: float = 0.0,
) -> Conditional:
    """Draw from and maximize p(phi_i | y_i, theta) for every subject.

    Parameters
    ----------
    simulator : Simulator
        With frozen kernels.
    population : Population
    theta : ndarray, shape (theta,)
    phi : ndarray, shape (replicate, subject, phi)
        Where the E-step ended.
    n_draws : int
        Draws per chain, at least.
    max_solves : float
        Drawing ends here if the draws do not suffice before; the first ``n_draws`` are drawn
        anyway.
    """
    drawn = Draws(simulator, population, theta, phi)
    convergence = drawn.until_enough(n_draws, max_solves)
    draws = drawn.phi
    mean = draws.mean(axis=(0, 1))
    sd = draws.std(axis=(0, 1), ddof=1)
    found = best_modes(simulator.densities, population, theta, drawn.starts_of_modes(), sd)
    return Conditional(
        draws=draws,
        logp=weighted(simulator.weight, drawn.subject_logp).sum(axis=2),
        mean=mean,
        sd=sd,
        mode=found.mode,
        mode_logp=found.logp,
        shrinkage=_shrinkage(simulator.mixed, population, found),
        mode_agreement=found.agreement,
        convergence=convergence,
        n_solves=drawn.n_solves,
        solver_error=_solver_error(simulator.densities, theta, drawn),
    )


def _shrinkage(mixed: MixedModel, population: Population, found: Modes) -> np.ndarray:
    """Shrinkage over the subjects that have a mode, (phi,)."""
    used = mixed.is_used & np.isfinite(found.logp)[:, None]
    eta = found.mode - population.mean
    with np.errstate(invalid="ignore"):  # no subject has a mode
        shrinkage = 1.0 - np.sum(eta**2 * used, axis=0) / used.sum(axis=0) / np.diag(
            population.omega
        )
    shrinkage[~mixed.is_gaussian] = np.nan  # their rough scale is not a standard deviation
    return shrinkage


def _solver_error(densities: Densities, theta: np.ndarray, drawn: Draws) -> np.ndarray:
    """Median over some draws of the change of the log-likelihood (subject,) from the model's tolerances to tight ones.

    Where tolerances are coarse, the likelihood has peaks that are errors of the solver; chains find
    them, and stay there.
    """
    tight = densities.solved_tightly()
    if tight is densities:
        return np.zeros(drawn.phi.shape[2])
    phi, loglik = (x.reshape(-1, *x.shape[2:]) for x in (drawn.phi, drawn.loglik))
    some = np.linspace(0, len(phi) - 1, min(N_COMPARED, len(phi))).astype(int)
    with np.errstate(all="ignore"):
        change = np.abs(
            tight.outputs_quietly(np.ascontiguousarray(phi[some]), theta)[0] - loglik[some]
        )
    return np.median(np.where(np.isnan(change), np.inf, change), axis=0)


class Draws:
    """Chains of conditional draws that can be continued.

    When they are many, every other draw goes, and the next ones lie twice as far apart: a chain
    that mixes slowly needs to be long, not dense.

    Attributes
    ----------
    phi : ndarray, shape (chain, draw, subject, phi)
    subject_logp, loglik : ndarray, shape (chain, draw, subject)
        log p(y_i, phi_i; theta) and log p(y_i | phi_i; theta).
    spacing : int
        Transitions between two draws.
    """

    def __init__(
        self, simulator: Simulator, population: Population, theta: np.ndarray, phi: np.ndarray
    ):
        self.simulator, self.population, self.theta = simulator, population, theta
        n_chains = max(N_CHAINS, phi.shape[0])
        self.n_before = simulator.n_evaluations
        # leave the last theta of the run behind
        self.last, _, _ = simulator(population, theta, phi[np.arange(n_chains) % phi.shape[0]])
        # the transitions between two draws cost solves, and single transitions would give copies of
        # one state
        self.spacing = max(10, simulator.n_transitions // 8)
        self.phi = np.empty((n_chains, 0, *phi.shape[1:]))
        self.subject_logp = self.loglik = np.empty(self.phi.shape[:3])

    @property
    def n_draws(self) -> int:
        """Per chain."""
        return self.phi.shape[1]

    @property
    def n_solves(self) -> int:
        """Spent so far."""
        return round((self.simulator.n_evaluations - self.n_before) * self.last[..., 0].size)

    def until_enough(self, n_draws: int, max_solves: float) -> Convergence:
        """Make ``n_draws``, and continue until they suffice, ``max_solves`` are spent, or it is plain that these will not do.

        Each round doubles the length of the chains.
        """
        everybody = subjects = np.arange(self.simulator.mixed.n_subjects)
        self.extend(n_draws)
        found = self._assess(everybody)
        while True:
            missing = ~found.is_enough
            if missing.any():
                n_more, thins = self._next_round(max(2 * n_draws, MAX_DRAWS), max_solves)
                # not if the draws were too few to decide, which is NaN
                is_hopeless = np.all(
                    found.worst_ess[missing] * max_solves / self.n_solves < LEAST_ESS
                )
                if is_hopeless or not n_more:
                    break
                if thins:
                    self.thin()
                self.extend(n_more)
                # looking at everybody takes a second for a thousand effects
                subjects = subjects[missing]
            elif subjects.size == everybody.size:
                return found
            else:
                subjects = everybody
            found = self._assess(subjects)
        return found if subjects.size == everybody.size else self._assess(everybody)

    def _assess(self, subjects: np.ndarray) -> Convergence:
        return assess_draws(self.simulator.mixed, self.phi, self.loglik, subjects)

    def _next_round(self, most: int, max_solves: float) -> tuple[int, bool]:
        """Draws of the next round, which doubles the length of the chains, and whether they are thinned before.

        0 where the budget leaves less than a tenth of it.
        """
        thins = 2 * self.n_draws > most
        n_held = -(-self.n_draws // (1 + thins))
        per_draw = ((1 + thins) * self.spacing + 1) * self.last[..., 0].size
        n_more = min(n_held, int((max_solves - self.n_solves) // per_draw))
        return (n_more if n_more >= max(1, n_held // 10) else 0), thins

    def extend(self, n_draws: int) -> None:
        """This many more draws of each chain."""
        phi, logp, loglik = [], [], []
        for _ in range(n_draws):
            self.last, _, report = self.simulator(
                self.population, self.theta, self.last, self.spacing
            )
            phi.append(self.last)
            logp.append(report["subject_logp"])
            loglik.append(report["subject_loglik"])
        if n_draws:
            self.phi = np.concatenate([self.phi, np.stack(phi, axis=1)], axis=1)
            self.subject_logp = np.concatenate([self.subject_logp, np.stack(logp, axis=1)], axis=1)
            self.loglik = np.concatenate([self.loglik, np.stack(loglik, axis=1)], axis=1)

    def thin(self) -> None:
        """Every other draw, the last one among them; later ones will lie as far apart."""
        self.spacing *= 2
        first = (self.n_draws - 1) % 2
        self.phi, self.subject_logp, self.loglik = (
            x[:, first::2].copy() for x in (self.phi, self.subject_logp, self.loglik)
        )

    def starts_of_modes(self) -> np.ndarray:
        """Where searches for modes begin, (start, subject, phi): both means, the best draw of some chains, and new draws from the population."""
        more = self.population.draw(self.simulator.rng, N_FROM_POPULATION)
        means = np.stack([self.population.mean, self.phi.mean(axis=(0, 1))])
        return np.concatenate([means, self._best()[:N_BEST_DRAWS], more])

    def _best(self) -> np.ndarray:
        """For each chain and subject, the draw of highest density, (chain, subject, phi)."""
        at = np.where(np.isnan(self.subject_logp), -np.inf, self.subject_logp).argmax(axis=1)
        return np.take_along_axis(self.phi, at[:, None, :, None], axis=1)[:, 0]
