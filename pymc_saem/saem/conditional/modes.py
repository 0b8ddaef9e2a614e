"""Conditional modes: the phi that maximizes p(y_i, phi_i; theta), from several starts for every subject at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pymc_saem.model.density.densities import Densities
from pymc_saem.saem.core.gaussian import Population

#: A mode is found when a step gains less log density than this.
MODE_TOLERANCE = 1e-7
#: Searches that end within this log density of each other found modes of the same height.
SAME_HEIGHT = 1e-5
#: Searches that end within this share of the conditional standard deviations of each other found
#: the same mode.
SAME_PLACE = 0.1


@dataclass(frozen=True)
class Modes:
    """The mode of each subject, and how the searches agree.

    Attributes
    ----------
    mode : ndarray, shape (subject, phi)
        The highest one that a search found; of several equally high ones that of the earliest
        start; the first start where no search had a finite density.
    logp : ndarray, shape (subject,)
        log p(y_i, phi_i; theta) there; -inf where no search had a finite density.
    agreement : ndarray, shape (subject,)
        Share of the searches that ended there; those whose start had no finite density do not
        count. 0 where none had one.
    """

    mode: np.ndarray
    logp: np.ndarray
    agreement: np.ndarray


def best_modes(
    densities: Densities,
    population: Population,
    theta: np.ndarray,
    starts: np.ndarray,
    sd: np.ndarray,
) -> Modes:
    """Search from ``starts`` (start, subject, phi); ``sd`` (subject, phi) are conditional standard deviations, a measure of distance."""
    ends, logp = climb_from(densities, population, theta, starts)
    top = logp.max(axis=0)
    possible = np.isfinite(logp)
    subjects = np.arange(ends.shape[1])
    earliest = np.argmax(possible & (logp >= top - SAME_HEIGHT), axis=0)
    scale = np.where(sd > 0, sd, population.sd)

    def near(place: np.ndarray) -> np.ndarray:
        return possible & np.all(
            np.abs(ends - ends[place, subjects]) <= SAME_PLACE * scale, axis=-1
        )

    best = np.where(near(earliest), logp, -np.inf).argmax(axis=0)
    agreement = near(best).sum(axis=0) / np.maximum(possible.sum(axis=0), 1)
    return Modes(ends[best, subjects], logp[best, subjects], agreement)


def find_modes(
    densities: Densities,
    population: Population,
    theta: np.ndarray,
    starts: np.ndarray,
    max_evaluations: int = 300,
) -> tuple[np.ndarray, np.ndarray]:
    """Best mode (subject, phi) over the starts (start, subject, phi), and log p(y_i, phi_i; theta) there, (subject,).

    -inf, and the first start, where no start had a finite density.
    """
    ends, logp = climb_from(densities, population, theta, starts, max_evaluations)
    best, subjects = logp.argmax(axis=0), np.arange(ends.shape[1])
    return ends[best, subjects], logp[best, subjects]


def climb_from(
    densities: Densities,
    population: Population,
    theta: np.ndarray,
    starts: np.ndarray,
    max_evaluations: int = 300,
) -> tuple[np.ndarray, np.ndarray]:
    """Where BFGS ends from each start of each subject, all of them at once.

    A library optimizer would need one call per subject, each of which solves all subjects. Here
    one evaluation serves one trial point of every subject and start; each has its own step length.

    Parameters
    ----------
    starts : ndarray, shape (start, subject, phi)

    Returns
    -------
    ends : ndarray, shape (start, subject, phi)
    logp : ndarray, shape (start, subject)
        log p(y_i, phi_i; theta) there; -inf where the start had no finite density.
    """

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loglik, d_phi, _ = densities.gradient(np.ascontiguousarray(x), theta)
        value = -(loglik + population.log_density(x))
        gradient = -(d_phi + population.gradient(x))
        bad = ~(np.isfinite(value) & np.isfinite(gradient).all(axis=-1))
        return np.where(bad, np.inf, value), np.where(bad[..., None], 0.0, gradient)

    def evaluate_active(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
        active &= ~(better & (step == 1.0) & (f_new > f - MODE_TOLERANCE))
        x = np.where(better[..., None], x + move, x)
        g = np.where(better[..., None], g_new, g)
        f = np.where(better, f_new, f)
        step = np.where(better, 1.0, 0.4 * step)
    return x, -f


def _bfgs_update(inverse: np.ndarray, s: np.ndarray, y: np.ndarray, where: np.ndarray) -> None:
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
    update = (rho + rho**2 * yhy)[..., None, None] * ss - rho[..., None, None] * (
        sh + np.swapaxes(sh, -1, -2)
    )
    inverse += np.where(where[..., None, None], update, 0.0)
