"""Marginal log-likelihood of each subject by annealed importance sampling, with resampling.

log p(y_i; theta) = log of the integral of p(y_i | phi_i, theta) p(phi_i | theta) over phi_i.
Particles start as draws from p(phi_i | theta) and are taken to p(phi_i | y_i, theta) along a ladder
of temperatures b from 0 to 1, by Metropolis moves that leave p(phi_i | theta) p(y_i | phi_i,
theta)^b invariant. The product of p(y_i | phi_i, theta)^(step in b) over the ladder is the weight
of a particle, and the mean of the weights is an unbiased estimate of p(y_i; theta), whatever the
moves (Neal 2001). Where the weights of a group of particles become unequal, its particles are
resampled by them, which keeps the estimate unbiased and saves most of its variance (Del Moral,
Doucet & Jasra 2006). Unlike importance sampling from a Gaussian or t fitted to conditional draws,
all this needs no resemblance of the conditional distribution with a Gaussian, which network weights
do not have.

A pilot run with few particles chooses the ladder, the shape and the size of the moves for every
subject. They are fixed before the particles that count are drawn, or the estimate would not be
unbiased. The moves solve differential equations at the tolerance of the model; the last factor of
the weights leads from there to a tight one, so the estimate is that of tight solves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pymc_saem.model.density.densities import Densities
from pymc_saem.saem.core.gaussian import Population

#: Share of the effective sample size that one stage of the pilot run may lose.
KEPT_ESS = 0.9
#: Moves of the pilot run per stage; with fewer, its particles lag behind the ladder, and the shapes
#: of the moves with them.
PILOT_MOVES = 20
N_PILOT = 200
#: A random walk in m directions of standard deviation 1 moves best with steps of about this /
#: sqrt(m). (Roberts & Rosenthal 2001)
STEP = 2.4
TARGET_ACCEPTANCE = 0.3
MAX_STAGES = 400


@dataclass(frozen=True)
class MarginalLikelihood:
    """Estimates of log p(y_i; theta) and their Monte-Carlo errors.

    Attributes
    ----------
    loglik : ndarray, shape (subject,)
    error : ndarray, shape (subject,)
        Standard error of each, by the delta method over the groups; NaN for a single group, and
        where ``loglik`` is -inf.
    groups : ndarray, shape (group, subject)
        The estimates of independent groups of particles, of which ``loglik`` is the average on the
        scale of p.
    n_solves : int
    """

    loglik: np.ndarray
    error: np.ndarray
    groups: np.ndarray
    n_solves: int

    @property
    def total(self) -> float:
        return float(self.loglik.sum())

    @property
    def total_error(self) -> float:
        """Standard error of the total: subjects are independent."""
        return float(np.sqrt(np.sum(self.error**2)))


@dataclass(frozen=True)
class _Guide:
    """What the pilot run found: the end of each stage, and the moves there."""

    beta: np.ndarray  # (stage, subject): temperature at the end of the stage; the last ones are 1
    axes: np.ndarray  # (stage, subject, phi, phi): columns are directions, for whitened phi
    scale: np.ndarray  # (stage, subject): factor of the steps


def marginal_loglik(
    densities: Densities,
    population: Population,
    theta: np.ndarray,
    rng: np.random.Generator,
    *,
    n_groups: int = 8,
    n_particles: int = 100,
    n_steps: int = 4,
    n_moves: int = 4,
) -> MarginalLikelihood:
    """Marginal log-likelihood of every subject by annealed importance sampling.

    Parameters
    ----------
    densities : Densities
    population : Population
        p(phi | theta).
    theta : ndarray, shape (theta,)
    rng : numpy.random.Generator
    n_groups : int
        Independent groups of particles; the error comes from their spread.
    n_particles : int
        Particles per subject and group; 1 is annealed importance sampling without resampling.
    n_steps : int
        Temperatures per stage of the pilot run; each stage loses about a tenth of the effective
        sample size.
    n_moves : int
        Moves of every particle per temperature.

    Returns
    -------
    MarginalLikelihood
    """
    pilot = _Particles(densities, population, theta, rng, (1, N_PILOT))
    guide = _explore(pilot)
    particles = _Particles(densities, population, theta, rng, (n_groups, n_particles))
    groups = _anneal(particles, guide, n_steps, n_moves)
    loglik = _log_mean(groups, axis=0)
    with np.errstate(invalid="ignore"):
        relative = np.exp(groups - loglik)  # mean 1
        error = (
            relative.std(axis=0, ddof=1) / np.sqrt(n_groups)
            if n_groups > 1
            else np.full_like(loglik, np.nan)
        )
    # The logarithm of an average lies below that of its expectation, by half its relative variance.
    loglik = loglik + 0.5 * np.where(np.isfinite(error), error, 0.0) ** 2
    return MarginalLikelihood(loglik, error, groups, pilot.n_solves + particles.n_solves)


class _Particles:
    """Independent groups of particles of every subject, as whitened deviations z.

    phi_i = mean_i + root z_i, and z ~ N(0, I) at first.
    """

    def __init__(
        self,
        densities: Densities,
        population: Population,
        theta: np.ndarray,
        rng: np.random.Generator,
        shape: tuple[int, int],
    ) -> None:
        self.densities, self.population, self.theta, self.rng = densities, population, theta, rng
        self.n_solves = 0
        # (group, particle, subject, phi)
        self.z = rng.standard_normal((*shape, *population.mean.shape))
        self.loglik = self.evaluate(self.z)  # (group, particle, subject)
        self.log_weights = np.zeros_like(self.loglik)
        # (group, subject): what the weights were worth before the last resampling
        self.found = np.zeros((shape[0], population.mean.shape[0]))

    def evaluate(self, z: np.ndarray, densities: Densities | None = None) -> np.ndarray:
        phi = self.population.mean + z @ self.population.root.T
        phi = np.ascontiguousarray(phi.reshape(-1, *phi.shape[2:]))
        self.n_solves += phi[..., 0].size
        densities = densities or self.densities
        with densities.compiled_solves(phi, 1):
            loglik = densities.outputs(phi, self.theta)[0]
        if self.population.gaussian is not None:  # what the particles were drawn from is rough
            loglik = loglik + self.population.log_density(phi) - self._log_drawn(z)
        # NaN: a failed solve
        return np.where(np.isnan(loglik), -np.inf, loglik).reshape(z.shape[:-1])

    def _log_drawn(self, z: np.ndarray) -> np.ndarray:
        """Log density of the phi of z where particles start, (point, subject)."""
        log_volume = np.log(np.diag(self.population.root)).sum()
        squares = np.sum(z.reshape(-1, *z.shape[2:]) ** 2, axis=-1)
        return -0.5 * (squares + z.shape[-1] * np.log(2.0 * np.pi)) - log_volume

    def move(self, beta: np.ndarray, axes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """One proposal of every particle, along a random number of the axes; the acceptance (subject,)."""
        n_subjects, d = self.z.shape[2:]
        chosen = self.rng.permutation(d)[: self.rng.integers(1, d + 1)]
        x = self.rng.standard_normal((n_subjects, self.z[:, :, 0, 0].size, chosen.size))
        along = (
            np.swapaxes(axes[:, :, chosen], 1, 2)
            * (STEP / np.sqrt(chosen.size) * scale)[:, None, None]
        )
        z = self.z + np.swapaxes(x @ along, 0, 1).reshape(self.z.shape)
        loglik = self.evaluate(z)
        log_ratio = (
            _times(beta, loglik)
            - _times(beta, self.loglik)
            + 0.5 * np.sum(self.z**2 - z**2, axis=-1)
        )
        accepted = -self.rng.standard_exponential(log_ratio.shape) < log_ratio
        self.z[accepted] = z[accepted]
        self.loglik = np.where(accepted, loglik, self.loglik)
        return accepted.mean(axis=(0, 1))

    def reweight(self, step: np.ndarray, least_ess: float = 0.5) -> None:
        """Take a step of the temperature; resample where the effective number of particles falls below this share."""
        self.log_weights += _times(step, self.loglik)
        n = self.z.shape[1]
        first, second = (_log_mean(c * self.log_weights, axis=1) for c in (1.0, 2.0))
        for g, i in np.argwhere(np.exp(2.0 * first - second) < least_ess):
            self.found[g, i] += first[g, i]
            cumulated = np.cumsum(np.exp(self.log_weights[g, :, i] - first[g, i]))
            picks = np.searchsorted(
                cumulated / cumulated[-1], (np.arange(n) + self.rng.random()) / n
            )
            self.z[g, :, i], self.loglik[g, :, i] = self.z[g, picks, i], self.loglik[g, picks, i]
            self.log_weights[g, :, i] = 0.0


def _times(beta: np.ndarray, loglik: np.ndarray) -> np.ndarray:
    """``beta * loglik``, and 0 for 0 * -inf; the worst likelihoods count as nearly impossible, so that differences exist."""
    return np.where(beta > 0, beta * np.maximum(loglik, -1e300), 0.0)


def _log_mean(x: np.ndarray, axis: int) -> np.ndarray:
    """Logarithm of the mean of exp(x); -inf where all x are."""
    largest = np.maximum(x.max(axis=axis, keepdims=True), -1e300)
    with np.errstate(divide="ignore"):
        return np.log(np.mean(np.exp(x - largest), axis=axis)) + largest.squeeze(axis)


def _explore(pilot: _Particles) -> _Guide:
    """The ladder and the moves of each stage, by a run with an adaptive ladder."""
    n_subjects = pilot.z.shape[2]
    beta, scale = np.zeros(n_subjects), np.ones(n_subjects)
    betas: list[np.ndarray] = []
    shapes, scales = [], []
    while np.any(beta < 1.0) and len(betas) < MAX_STAGES:
        new = np.array(
            [_next_temperature(pilot.loglik[0, :, i], beta[i]) for i in range(n_subjects)]
        )
        if len(betas) == MAX_STAGES - 1:
            new[:] = 1.0
        pilot.reweight(new - beta, least_ess=1.0)
        beta = new
        axes = _axes(pilot.z[0])
        for k in range(PILOT_MOVES):
            rate = pilot.move(beta, axes, scale)
            scale = scale * np.exp((rate - TARGET_ACCEPTANCE) / np.sqrt(k + 1.0))
        betas.append(beta)
        shapes.append(axes)
        scales.append(scale)
    return _Guide(np.array(betas), np.array(shapes), np.array(scales))


def _next_temperature(loglik: np.ndarray, beta: float) -> float:
    """The temperature at which reweighted particles keep ``KEPT_ESS`` of their effective number; 1 at most."""
    # Outright impossible particles die with the first step, however small.
    loglik = loglik[np.isfinite(loglik)]
    if not loglik.size:
        return 1.0
    loglik = loglik - loglik.max()

    def kept(step: float) -> float:
        w = np.exp(step * loglik)
        return w.mean() ** 2 / np.mean(w**2)

    low, high = 0.0, 1.0 - beta
    if kept(high) >= KEPT_ESS:
        return 1.0
    while high - low > 1e-3 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kept(middle) >= KEPT_ESS else (low, middle)
    return beta + high


def _axes(z: np.ndarray) -> np.ndarray:
    """Directions of moves, (subject, phi, phi), as columns: a Cholesky factor of the covariance of each subject's particles.

    Principal axes do no better, and their computation in threads took longer than all solves on a
    busy machine.
    """
    centred = z - z.mean(axis=0)
    covariance = np.einsum("psi,psj->sij", centred, centred) / len(z)
    return np.linalg.cholesky(covariance + 1e-6 * np.eye(z.shape[-1]))


def _anneal(particles: _Particles, guide: _Guide, n_steps: int, n_moves: int) -> np.ndarray:
    """Log estimates (group, subject) after the whole ladder."""
    beta = np.zeros(particles.loglik.shape[-1])
    for end, axes, scale in zip(guide.beta, guide.axes, guide.scale, strict=True):
        for new in np.linspace(beta, end, n_steps + 1)[1:]:
            particles.reweight(new - beta)
            beta = new
            for _ in range(n_moves):
                particles.move(beta, axes, scale)
    tight = particles.evaluate(particles.z, particles.densities.solved_tightly())
    log_weights = particles.log_weights + tight - np.maximum(particles.loglik, -1e300)
    return particles.found + _log_mean(log_weights, axis=1)
