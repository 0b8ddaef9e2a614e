"""Independent proposals at each subject's conditional mode, with the curvature there: the kernel of f-SAEM.

Karimi, Lavielle & Moulines (Computational Statistics & Data Analysis 141, 2020).
"""

from __future__ import annotations

from typing import Self

import numpy as np

from pymc_saem.model.density.densities import Densities
from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.estep.ensemble import Ensemble, Moves, Target
from pymc_saem.saem.estep.kernel import RunApart

#: Exploratory iterations from one search for modes to the next, and Newton steps in each (more in
#: the first).
EVERY, N_STEPS, N_FIRST_STEPS = 10, 3, 12
#: Degrees of freedom of the proposals: heavier tails than a Gaussian, or states far out would be
#: held for long.
DF = 8.0
#: Differences of gradients over this many standard deviations within subjects: large enough that
#: the noise of coarse solves does not pass for curvature.
PROBE = 0.25
#: Proposals are at most this many times wider than the average subject's draws, in any direction.
WIDEST = 3.0
#: Lengths of a Newton step that are tried at once.
_LENGTHS = np.array([1.0, 0.5, 0.2, 0.05, 0.01])


class Independence(RunApart):
    """Student-t proposals of the whole phi of every subject, around its mode of p(phi_i | y_i, theta).

    It pays where the conditional distribution is near a Gaussian and has few dimensions: then most
    proposals are accepted, each is a fresh draw, and one transition does what six of a block random
    walk do (benchmarks/kernels.py). A pharmacokinetic model with three parameters and ten rows a
    subject is such a case: with a share of 0.3, 20 transitions an iteration give estimates as
    precise as 80 of the default mixture. It does not pay for networks: in 28 dimensions, with fewer
    rows than weights, no proposal is accepted. Nor where a subject has two modes, as only one of
    them is proposed.

    A search costs two solves with derivatives per dimension and Newton step; it takes place in
    every tenth exploratory iteration. In the smoothing phase modes and curvatures stay as they are,
    so the acceptance rule is exact.

    Parameters
    ----------
    rng : numpy.random.Generator
    """

    name = "independence"
    turn = 1
    advice = (
        "The conditional distributions are far from Gaussian: remove 'independence' from kernel."
    )
    learned = ("age", "mode", "root")

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.mode: np.ndarray | None = None  # (subject, phi)
        self.root: np.ndarray | None = None  # (subject, phi, phi)
        self.age = 0

    @classmethod
    def build(cls, mixed: MixedModel, sd: np.ndarray, rng: np.random.Generator) -> Self:
        return cls(rng)

    def walk(
        self, ensemble: Ensemble, target: Target, within_root: np.ndarray, n: int
    ) -> np.ndarray:
        """Make ``n`` transitions in place; the share accepted of each.

        Parameters
        ----------
        ensemble : Ensemble
        target : Target
        within_root : ndarray, shape (phi, phi)
            Lower Cholesky factor of the covariance of phi within subjects: the unit of differences
            and widths.
        """
        if self.mode is None or (self.tune and self.age >= EVERY):
            self.search(ensemble, target, within_root)
        self.age += 1
        moves = Moves.empty(n, ensemble.phi.shape, self.rng)
        moves.keep[:] = 0.0
        z = self.rng.standard_normal(moves.step.shape)
        z /= np.sqrt(self.rng.chisquare(DF, size=z.shape[:-1]) / DF)[..., None]
        mode, root = self.found
        moves.step[:] = mode + np.einsum("sij,...sj->...si", root, z)
        moves.log_proposal[:] = self.log_density(moves.step)
        ensemble.logprior -= self.log_density(ensemble.phi)
        rates = ensemble.walk(target, moves)
        ensemble.logprior[:] = target.population.log_density(ensemble.phi)
        return rates

    def learn(self, within: np.ndarray | None) -> None:
        """Nothing to learn here: :meth:`walk` searches for modes every few iterations."""

    @property
    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Mode (subject, phi) and root (subject, phi, phi) of the last search."""
        if self.mode is None or self.root is None:
            raise RuntimeError("The kernel has no modes before its first search.")
        return self.mode, self.root

    def log_density(self, phi: np.ndarray) -> np.ndarray:
        """Log density of the proposals (..., subject), up to a constant of each subject."""
        mode, root = self.found
        z = np.einsum("sij,...sj->...si", np.linalg.inv(root), phi - mode)
        return -0.5 * (DF + phi.shape[-1]) * np.log1p(np.square(z).sum(axis=-1) / DF)

    def search(self, ensemble: Ensemble, target: Target, within_root: np.ndarray) -> None:
        """Damped Newton steps from the last modes, or from the best replicates, and the curvature at the end."""
        posterior = _Posterior(target.densities, target.population, target.theta, within_root)
        best = np.argmax(ensemble.loglik + ensemble.logprior, axis=0)
        x, n_steps = ensemble.phi[best, np.arange(best.size)].copy(), N_FIRST_STEPS
        if self.mode is not None:
            old, new = (posterior.evaluate(y[None])[0][0] for y in (self.mode, x))
            x, n_steps = np.where((old >= new)[:, None], self.mode, x), N_STEPS
        for _ in range(n_steps):
            x = posterior.newton_step(x)
        self.mode, self.root, self.age = x, posterior.root(x), 0
        target.n_evaluations += posterior.n_evaluations // ensemble.phi.shape[0]


class _Posterior:
    """log p(phi_i | y_i, theta) of all subjects, with curvature by differences of gradients, in units of ``within_root``."""

    def __init__(
        self,
        densities: Densities,
        population: Population,
        theta: np.ndarray,
        within_root: np.ndarray,
    ):
        self.densities, self.population, self.theta, self.within_root = (
            densities,
            population,
            theta,
            within_root,
        )
        self.n_evaluations = 0  # of all subjects

    def evaluate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Value (..., subject), -inf if there is none, and gradient in units of ``within_root``, zero there."""
        loglik, _, d_phi, *_ = self.densities.derivative(np.ascontiguousarray(x), self.theta)
        self.n_evaluations += x.shape[0]
        value = loglik + self.population.log_density(x)
        gradient = (d_phi + self.population.gradient(x)) @ self.within_root
        bad = ~(np.isfinite(value) & np.isfinite(gradient).all(axis=-1))
        return np.where(bad, -np.inf, value), np.where(bad[..., None], 0.0, gradient)

    def curvature(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (subject, phi), bounded, and eigenvectors of minus the second derivative."""
        steps = PROBE * self.within_root.T[:, None, :]
        d = x.shape[1]
        _, gradient = self.evaluate(np.concatenate([x + steps, x - steps]))
        second = np.swapaxes(gradient[d:] - gradient[:d], 0, 1) / (2.0 * PROBE)
        values, vectors = np.linalg.eigh(0.5 * (second + np.swapaxes(second, -1, -2)))
        return np.clip(values, WIDEST**-2, 1e12), vectors

    def newton_step(self, x: np.ndarray) -> np.ndarray:
        """The best of several lengths of a Newton step, or none, for each subject."""
        value, gradient = self.evaluate(x[None])
        values, vectors = self.curvature(x)
        along = np.einsum("sik,si->sk", vectors, gradient[0]) / values
        direction = np.einsum("sik,sk->si", vectors, along) @ self.within_root.T
        trials = np.concatenate([x[None], x + _LENGTHS[:, None, None] * direction])
        found = np.concatenate([value, self.evaluate(trials[1:])[0]])
        return trials[np.argmax(found, axis=0), np.arange(x.shape[0])]

    def root(self, x: np.ndarray) -> np.ndarray:
        """Square root (subject, phi, phi) of the inverse curvature."""
        values, vectors = self.curvature(x)
        return np.einsum("ij,sjk->sik", self.within_root, vectors / np.sqrt(values)[:, None, :])
