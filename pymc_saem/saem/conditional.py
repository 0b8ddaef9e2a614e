"""p(phi_i | y_i, theta_hat) after the estimate: draws, means, standard deviations, modes, shrinkage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pymc_saem.saem.population import Population
from pymc_saem.saem.simulate import Simulator

#: Starts of each subject's mode search: the population mean, the conditional mean, and draws.
N_MODE_STARTS = 5
#: A mode is found when a step gains less log density than this.
MODE_TOLERANCE = 1e-7
#: Chains of conditional draws; with fewer, R-hat could not tell whether they agree.
N_CHAINS = 4


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
        log p(y_i, phi_i; theta) at the mode.
    shrinkage : ndarray, shape (phi,)
        1 - var(mode - mean_i) / omega: 0 where the data determine phi, 1 where they say nothing.
    """

    draws: np.ndarray
    logp: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    mode: np.ndarray
    mode_logp: np.ndarray
    shrinkage: np.ndarray


def describe_individuals(simulator: Simulator, population: Population, theta, phi, n_draws: int) -> Conditional:
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
        Draws per chain.
    """
    draws, logp = draw(simulator, population, theta, phi, n_draws)
    mean = draws.mean(axis=(0, 1))
    sd = draws.std(axis=(0, 1), ddof=1)
    picks = np.linspace(0, draws.shape[1] - 1, N_MODE_STARTS - 2, dtype=int)
    starts = np.concatenate([population.mean[None], mean[None], draws[0, picks]])
    mode, mode_logp = find_modes(simulator.densities, population, theta, starts)
    eta = mode - population.mean
    used = simulator.mixed.is_used
    shrinkage = 1.0 - np.sum(eta**2 * used, axis=0) / used.sum(axis=0) / np.diag(population.omega)
    shrinkage[~simulator.mixed.is_gaussian] = np.nan  # their rough scale is no standard deviation
    return Conditional(draws, logp, mean, sd, mode, mode_logp, shrinkage)


def draw(simulator: Simulator, population: Population, theta, phi, n_draws: int):
    """Draws (chain, draw, subject, phi) and their complete log density (chain, draw)."""
    n_chains = max(N_CHAINS, phi.shape[0])
    phi = phi[np.arange(n_chains) % phi.shape[0]]
    kept, logp = [], []
    phi, _, _ = simulator(population, theta, phi)  # leave the last theta of the run behind
    thin = max(10, simulator.n_transitions // 8)
    for _ in range(n_draws):
        phi, _, report = simulator(population, theta, phi, thin)
        kept.append(phi)
        logp.append(report["replicate_logp"])
    return np.stack(kept, axis=1), np.stack(logp, axis=1)


def find_modes(densities, population: Population, theta, starts: np.ndarray, max_evaluations: int = 300):
    """Best mode of each subject over several starts, by BFGS of all subjects and starts at once.

    A library optimizer would need one call per subject, each of which solves all subjects. Here
    one evaluation serves one trial point of every subject and start; each has its own step length.

    Parameters
    ----------
    starts : ndarray, shape (start, subject, phi)

    Returns
    -------
    mode : ndarray, shape (subject, phi)
    logp : ndarray, shape (subject,)
        log p(y_i, phi_i; theta) there; -inf where no start had a finite density.
    """

    def evaluate(x):
        loglik, d_phi, _ = densities.gradient(np.ascontiguousarray(x), theta)
        value = -(loglik + population.log_density(x))
        gradient = -(d_phi + population.gradient(x))
        bad = ~(np.isfinite(value) & np.isfinite(gradient).all(axis=-1))
        return np.where(bad, np.inf, value), np.where(bad[..., None], 0.0, gradient)

    def evaluate_active(x):
        """Only what still moves: the active starts of each subject first, as many as one of them has."""
        order = np.argsort(~active, axis=0, kind="stable")[: active.sum(axis=0).max()]
        place = order, np.arange(x.shape[1])
        f_new, g_new = f.copy(), g.copy()
        f_new[place], g_new[place] = evaluate(x[place])
        return f_new, g_new

    x = starts.copy()
    f, g = evaluate(x)
    inverse = np.broadcast_to(population.omega, (*x.shape, x.shape[-1])).copy()
    step = np.ones(x.shape[:-1])
    active = np.isfinite(f)
    for _ in range(max_evaluations):
        direction = -np.einsum("...ij,...j->...i", inverse, g)
        slope = np.einsum("...i,...i->...", g, direction)
        active &= (-slope > 1e-9) & (step > 1e-12)
        if not active.any():
            break
        move = np.where(active[..., None], step[..., None] * direction, 0.0)
        f_new, g_new = evaluate_active(x + move)
        better = active & (f_new <= f + 1e-4 * step * slope)
        _bfgs_update(inverse, move, g_new - g, better)
        # A full step that gains nothing: what is left is the noise of the solver.
        active &= ~(better & (step == 1.0) & (f - f_new < MODE_TOLERANCE))
        x = np.where(better[..., None], x + move, x)
        g = np.where(better[..., None], g_new, g)
        f = np.where(better, f_new, f)
        step = np.where(better, 1.0, 0.4 * step)
    best = np.argmin(f, axis=0)
    subjects = np.arange(x.shape[1])
    return x[best, subjects], -f[best, subjects]


def _bfgs_update(inverse, s, y, where) -> None:
    """Inverse-Hessian update (Nocedal & Wright 2006, eq. 6.17) of the selected chains, in place."""
    with np.errstate(all="ignore"):  # a wild trial point may have gradients near 1e160
        sy = np.einsum("...i,...i->...", s, y)
        hy = np.einsum("...ij,...j->...i", inverse, y)
        yhy = np.einsum("...i,...i->...", y, hy)
        where = where & (sy > 1e-12) & np.isfinite(yhy / sy**2)
    y, hy = np.where(where[..., None], y, 0.0), np.where(where[..., None], hy, 0.0)
    yhy = np.where(where, yhy, 0.0)
    rho = np.where(where, 1.0 / np.where(where, sy, 1.0), 0.0)
    ss = np.einsum("...i,...j->...ij", s, s)
    sh = np.einsum("...i,...j->...ij", s, hy)
    update = (rho + rho**2 * yhy)[..., None, None] * ss - rho[..., None, None] * (sh + np.swapaxes(sh, -1, -2))
    inverse += np.where(where[..., None, None], update, 0.0)
