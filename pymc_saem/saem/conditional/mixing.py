"""Whether conditional draws are enough: R-hat and effective sample sizes of every subject, and the verdict on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pymc_saem.compat import rhat_and_ess
from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.results.thresholds import LARGEST_RHAT, LEAST_ESS

#: Draws per chain below which R-hat means nothing: the chains are split, and each half has a
#: variance.
FEWEST_DRAWS = 8


@dataclass(frozen=True)
class Convergence:
    """Convergence of the conditional draws (Vehtari et al. 2021); NaN where data reach nothing, or draws are too few.

    Single weights of networks mean little, as other weights may make the same curve, and mix
    slowly. So a subject with such weights is judged by its log-likelihood, that is by its
    predictions; other effects are judged by their own draws.

    Attributes
    ----------
    rhat, ess, ess_sd : ndarray, shape (subject, phi)
        Rank-normalized split R-hat, effective sample size (bulk), and that of the standard
        deviation.
    loglik_rhat, loglik_ess : ndarray, shape (subject,)
        The same of log p(y_i | phi_i).
    worst_rhat, worst_ess : ndarray, shape (subject,)
        Of all that a subject is judged by. R-hat is NaN where a chain did not move at all.
    """

    rhat: np.ndarray
    ess: np.ndarray
    ess_sd: np.ndarray
    loglik_rhat: np.ndarray
    loglik_ess: np.ndarray
    worst_rhat: np.ndarray
    worst_ess: np.ndarray

    @property
    def is_enough(self) -> np.ndarray:
        """Subjects whose draws suffice, (subject,)."""
        return (self.worst_rhat < LARGEST_RHAT) & (self.worst_ess >= LEAST_ESS)


def judged_effects(mixed: MixedModel) -> np.ndarray:
    """Entries of phi that are judged one by one, (subject, phi): those that data reach, but for weights of networks."""
    judged = mixed.is_used.copy()
    for effect in mixed.random_effects:
        if effect.is_network:
            judged[:, effect.columns] = False
    return judged


def assess_draws(
    mixed: MixedModel,
    draws: np.ndarray,
    loglik: np.ndarray,
    subjects: np.ndarray | slice = slice(None),
) -> Convergence:
    """Convergence of draws (chain, draw, subject, phi) and their log-likelihoods (chain, draw, subject).

    ``subjects`` picks those that are assessed; the results have these only.
    """
    draws, loglik = draws[:, :, subjects], loglik[:, :, subjects]
    used, judged = mixed.is_used[subjects], judged_effects(mixed)[subjects]
    values = np.concatenate([draws, loglik[..., None]], axis=-1)
    known = np.isfinite(values).all(axis=(0, 1)) & np.column_stack([used, np.ones(len(used), bool)])
    rhat, ess, ess_sd = (np.full(known.shape, np.nan) for _ in range(3))
    if draws.shape[1] >= FEWEST_DRAWS and known.any():
        rhat[known], ess[known], ess_sd[known] = rhat_and_ess(values[:, :, known])
    by_loglik = np.repeat(any(effect.is_network for effect in mixed.random_effects), len(used))
    judged = np.column_stack([judged, by_loglik])
    worst_rhat = np.where(judged, rhat, -np.inf).max(axis=1)
    worst_ess = np.where(judged, np.minimum(ess, ess_sd), np.inf).min(axis=1)
    return Convergence(
        rhat[:, :-1], ess[:, :-1], ess_sd[:, :-1], rhat[:, -1], ess[:, -1], worst_rhat, worst_ess
    )
