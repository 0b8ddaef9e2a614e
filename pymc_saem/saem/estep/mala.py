"""Preconditioned Metropolis-adjusted Langevin (MALA): proposals that go up the gradient of the log posterior.

Roberts & Tweedie (1996), with the scale of Roberts & Rosenthal (1998): acceptance 0.57 is near the
best in many dimensions.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.saem.estep.ensemble import Ensemble, Target, interruptible
from pymc_saem.saem.estep.kernel import ADAPT, RunApart
from pymc_saem.saem.estep.walk_mala import walk_langevin

TARGET_ACCEPTANCE = 0.57
#: Longest pull, in units of its size at equilibrium in preconditioned coordinates, the square root
#: of the dimension.
CAP = 5.0


class Langevin(RunApart):
    """MALA for all subjects and replicates, accepted per subject and replicate.

    ``phi' = phi + root (h^2 / 2 root' g + h z)``: g is the gradient of log p(y_i, phi_i; theta),
    root a Cholesky factor of the covariance within subjects, h a scale of each subject's own, and z
    standard normal. Its transitions run one after the other, so that the gradient of each state is
    available: a transition costs one solve with derivatives, and a run of them one more at its
    begin, as other kernels have moved the states since the last.

    It pays where gradients cost little more than densities and the conditional distribution is near
    a Gaussian: three to four times the effective draws per second of a random walk on a
    pharmacokinetic model with three parameters (benchmarks/kernels.py). It does not pay for
    networks with more weights than rows. There each subject's draws fill a thin curved sheet (in
    the neural theophylline model the mean square of the gradient is 1 along some directions and 1e8
    along others, which turn from place to place, while the covariance of the draws is near that of
    the prior), so h falls to 0.02. A metric from the data's own curvature at each state did no
    better there (h 0.02 too), nor did one per subject.

    Parameters
    ----------
    n_subjects, n_phi : int
    rng : numpy.random.Generator
    """

    name = "mala"
    turn = 2
    advice = ADAPT
    learned = ("scaling", "n_learned")

    def __init__(self, n_subjects: int, n_phi: int, rng: np.random.Generator):
        self.rng = rng
        self.scaling = np.full(n_subjects, 0.5 * n_phi ** (-1.0 / 6.0))
        self.cap = CAP * np.sqrt(n_phi)
        self.n_learned = 0.0
        self._forget()

    @classmethod
    def build(cls, mixed: MixedModel, sd: np.ndarray, rng: np.random.Generator) -> Self:
        return cls(mixed.n_subjects, mixed.n_phi, rng)

    def _forget(self) -> None:
        self.proposed, self.accepted = np.zeros_like(self.scaling), np.zeros_like(self.scaling)

    def walk(
        self, ensemble: Ensemble, target: Target, within_root: np.ndarray, n: int
    ) -> np.ndarray:
        """Make ``n`` transitions in place; the share accepted of each.

        Parameters
        ----------
        ensemble : Ensemble
        target : Target
        within_root : ndarray, shape (phi, phi) or (subject, phi, phi)
            Lower triangular.
        """
        shape, densities = ensemble.phi.shape, target.densities
        noise = self.rng.standard_normal((n, *shape))
        noise[:, :, ensemble.still] = np.nan  # without a density, and a solver returns at once
        log_uniform = -self.rng.standard_exponential((n, *shape[:2]))
        rates, root = (
            np.empty(n),
            np.ascontiguousarray(within_root.reshape(-1, *within_root.shape[-2:])),
        )
        root_t = np.ascontiguousarray(np.swapaxes(root, 1, 2))
        state = ensemble.phi, ensemble.loglik, ensemble.logprior, ensemble.residual
        pull, new_pull, new_phi = np.empty(shape), np.empty(shape), np.empty(shape)
        new_logprior = np.empty(shape[:2])
        run, derivative, others, solves = densities.runner(
            walk_langevin, "derivative", ensemble.phi, n + 1
        )
        with solves:
            for part in interruptible(n):
                run(
                    derivative, others, target.theta, target.population.law, root, root_t, self.scaling, self.cap,
                    noise[part], log_uniform[part], *state, pull, part.start > 0, new_phi, new_logprior, new_pull,
                    ensemble.bookkeeping, self.accepted, rates[part], target.codes,
                )  # fmt: skip
        ensemble.n_visited += n
        target.n_evaluations += n + 1
        self.proposed[~ensemble.still] += n * shape[0]
        return rates / ensemble.moving_share

    def learn(self, within: np.ndarray | None) -> None:
        """Adapt the scale of each subject on the log scale, unless tuning has stopped."""
        seen = self.proposed > 0
        if self.tune and seen.any():
            self.n_learned += 1.0
            gain = 2.0 / np.sqrt(self.n_learned + 3.0)
            rate = np.divide(
                self.accepted,
                self.proposed,
                out=np.full_like(self.scaling, TARGET_ACCEPTANCE),
                where=seen,
            )
            self.scaling = self.scaling * np.exp(gain * (rate - TARGET_ACCEPTANCE))
        self._forget()
