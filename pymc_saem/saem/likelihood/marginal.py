"""Marginal log-likelihood log p(y_i; theta) of each subject after the estimate, and the information criteria.

Up to three random effects: adaptive Gauss-Hermite quadrature, if weighted points confirm it.
Otherwise: importance sampling from a t distribution with the conditional moments. Where its weights
show that a t does not cover the conditional distributions: from a mixture of t distributions, which
learns from weighted points. For more random effects than points can show, as with network weights:
annealed importance sampling, which needs no such resemblance and costs more.

On the neural theophylline model (28 weights a subject) annealing from p(phi | theta) gives -217.7
+- 0.5 with 4 million solves, and -219.0 +- 1.2 with 1.7 million, what "auto" takes. Annealing from
a Gaussian with the conditional moments does not save the rest: -224.7 +- 0.8, as it misses the
tails.

"laplace" and "linearization" are approximations without an error: for the sake of their speed, and
of comparisons with programs that use them. "auto" never takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pymc_saem.saem.conditional.draws import Conditional
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.likelihood.annealed import marginal_loglik
from pymc_saem.saem.likelihood.importance import (
    LARGEST_K,
    MAX_POINTS,
    N_LEARNING,
    ImportanceSample,
    importance_sample,
    learned,
)
from pymc_saem.saem.likelihood.joint import Joint, WeightedPoints
from pymc_saem.saem.likelihood.linearize import Linearized, scale_of
from pymc_saem.saem.likelihood.proposals import TMixture
from pymc_saem.saem.likelihood.quadrature import RULES, integrate

METHODS = ("auto", "importance", "quadrature", "annealed", "laplace", "linearization")
#: Wanted Monte-Carlo error of the total: 0.1 of -2 log-likelihood.
ERROR = 0.05
#: The largest error with which importance sampling is taken before annealing is tried.
LARGEST_ERROR = 0.5
#: Random effects of a subject, at most, for which mixtures are learned: a few points cannot show
#: where more dimensions are empty.
LARGEST_D = 8
#: Two means of a conditional distribution, by draws and by quadrature, may differ by this many
#: standard deviations.
SAME_MEAN = 0.5
#: The value of a quadrature and that of a few hundred weighted points, in standard errors of the
#: latter.
SAME_VALUE = 4.0


@dataclass(frozen=True)
class Likelihood:
    """log p(y_i; theta_hat).

    Attributes
    ----------
    loglik, error : ndarray, shape (subject,)
        The error is a Monte-Carlo standard error, or for quadrature the difference of its last two
        rules; NaN for "laplace" and "linearization", which have no estimate of theirs.
    method : str
        "quadrature", "importance", "annealed", "laplace" or "linearization".
    n_solves : int
    ess, pareto_k : ndarray, shape (subject,), optional
        Of importance sampling; k at most 0.7 where weights are bounded and many count, so that
        their tail is short.
    points : WeightedPoints, optional
        Nodes of a quadrature, from which standard errors may be computed.
    warning : str
        For the user; empty without one.
    """

    loglik: np.ndarray
    error: np.ndarray
    method: str
    n_solves: int
    ess: np.ndarray | None = None
    pareto_k: np.ndarray | None = None
    points: WeightedPoints | None = None
    warning: str = ""

    @property
    def total(self) -> float:
        return float(self.loglik.sum())

    @property
    def total_error(self) -> float:
        """Errors of quadrature have signs that are not known; Monte-Carlo errors are independent."""
        if self.method == "quadrature":
            return float(self.error.sum())
        return float(np.sqrt(np.sum(self.error**2)))


def marginal_likelihood(
    engine: Engine,
    theta: np.ndarray,
    conditional: Conditional,
    rng: np.random.Generator,
    method: str = "auto",
    error: float = ERROR,
    max_solves: float = np.inf,
) -> Likelihood:
    """Marginal log-likelihood of every subject.

    Parameters
    ----------
    engine : Engine
    theta : ndarray, shape (theta,)
    conditional : Conditional
        Modes and draws at this theta.
    rng : numpy.random.Generator
    method : {"auto", "importance", "quadrature", "annealed", "laplace", "linearization"}
        "auto" takes the first of quadrature, importance and annealed that is reliable; importance
        sampling with a large error only if annealing has a larger one.
    error : float
        Wanted Monte-Carlo error of the total, of importance sampling.
    max_solves : float
        Where importance sampling ends if the error does not become so small. A mixture that is
        learned because one t distribution does not suffice may cost as much again, and "auto" may
        spend about twice that on annealing.
    """
    population = engine.maximizer.population(theta)
    joint = Joint(engine.densities, population, theta)
    if method in ("laplace", "linearization"):
        return _approximate(engine, joint, theta, conditional, method)
    draws = WeightedPoints.of_draws(conditional.draws)
    d = population.mean.shape[1]
    if method == "quadrature" and d not in RULES:
        raise ValueError(
            f"likelihood is 'quadrature', and a subject has {d} random effects; a grid is feasible for at most "
            f"{max(RULES)}. Use 'importance' or 'auto'."
        )
    if method == "quadrature" or method == "auto" and d in RULES:
        found, nodes = _quadrature(joint, conditional, draws, max_solves)
        if (
            method == "quadrature"
            or found.total_error <= error
            and _is_confirmed(found, nodes, joint, draws, rng)
        ):
            return replace(found, n_solves=joint.n_solves)
    sampled = None
    if method in ("auto", "importance"):
        sampled = _by_importance(joint, draws, rng, error, max_solves, engine.mixed.subjects)
        if method == "importance" or not sampled.warning and sampled.total_error <= LARGEST_ERROR:
            return sampled
    effort = {} if method == "annealed" else _affordable(2.0 * max_solves / engine.mixed.n_subjects)
    annealed = marginal_loglik(engine.densities, population, theta, rng, **effort)
    n_solves = joint.n_solves + annealed.n_solves
    if sampled is not None and not sampled.warning:
        if not annealed.total_error < sampled.total_error:
            return replace(sampled, n_solves=n_solves)
    return Likelihood(annealed.loglik, annealed.error, "annealed", n_solves)


def _is_confirmed(
    found: Likelihood,
    nodes: WeightedPoints,
    joint: Joint,
    draws: WeightedPoints,
    rng: np.random.Generator,
) -> bool:
    """Whether the grid around the mode covers the conditional distributions, as far as draws and a few weighted points show.

    It does not where there are other modes, or where a narrow mode stands on a broad shoulder.
    """
    mean, covariance = draws.mean(), draws.covariance()
    sd = np.sqrt(np.einsum("sii->si", covariance))
    if np.any(np.abs(nodes.mean() - mean) > SAME_MEAN * sd):
        return False
    simple = TMixture.of_moments(mean, covariance, joint.population)
    sample = importance_sample(joint, simple, rng, np.inf, 0.0)
    return bool(
        np.all(
            np.abs(sample.loglik - found.loglik) <= SAME_VALUE * sample.error + found.error + 1e-6
        )
    )


def _by_importance(
    joint: Joint,
    draws: WeightedPoints,
    rng: np.random.Generator,
    error: float,
    max_solves: float,
    subjects: Sequence[Any],
) -> Likelihood:
    """From one t distribution a subject, and if it does not cover the conditional distributions, from a mixture."""
    simple = TMixture.of_moments(draws.mean(), draws.covariance(), joint.population)
    sample = importance_sample(joint, simple, rng, error, max_solves)
    if sample.unreliable.any() and draws.phi.shape[-1] <= LARGEST_D:
        limit = joint.n_solves + max_solves
        proposal = learned(joint, draws.equally_weighted(N_LEARNING), rng, limit)
        mixed = importance_sample(joint, proposal, rng, error, limit, patience=MAX_POINTS)
        if mixed.unreliable.sum() < sample.unreliable.sum():
            sample = mixed
    return _of_sample(sample, joint.n_solves, subjects)


def _approximate(
    engine: Engine, joint: Joint, theta: np.ndarray, conditional: Conditional, method: str
) -> Likelihood:
    """Without integration: around the modes, by the curvature of the density, or of the squared residuals alone."""
    if method == "laplace":
        covariance = joint.covariance_at(conditional.mode, scale_of(conditional, joint.population))
        with np.errstate(invalid="ignore"):
            log_volume = np.linalg.slogdet(2.0 * np.pi * covariance)[1]
        loglik, n_solves = conditional.mode_logp + 0.5 * log_volume, joint.n_solves
    else:
        linearized = Linearized(engine, conditional.mode, scale_of(conditional, joint.population))
        loglik, n_solves = linearized.loglik(theta), linearized.n_solves
    unknown, warning = np.flatnonzero(~np.isfinite(loglik)), ""
    if unknown.size:
        labels = ", ".join(str(engine.mixed.subjects[i]) for i in unknown[:3])
        why = (
            "the density has no curvature of a maximum there"
            if method == "laplace"
            else "a prediction failed there"
        )
        warning = (
            f"The marginal log-likelihood by {method} is not known for {unknown.size} of {loglik.size} subjects ({labels}): no mode was "
            f'found, or {why}. Use likelihood="importance" or "annealed".'
        )
    return Likelihood(loglik, np.full(loglik.shape, np.nan), method, n_solves, warning=warning)


def _quadrature(
    joint: Joint, conditional: Conditional, draws: WeightedPoints, max_solves: float
) -> tuple[Likelihood, WeightedPoints]:
    """The likelihood, and the nodes of its last rule."""
    covariance = joint.covariance_at(conditional.mode, scale_of(conditional, joint.population))
    no_maximum = ~np.isfinite(covariance).all(axis=(1, 2))
    covariance[no_maximum] = draws.covariance()[no_maximum]
    loglik, error, points = integrate(joint, conditional.mode, covariance, max_solves)
    return Likelihood(loglik, error, "quadrature", joint.n_solves, points=points), points


def _of_sample(sample: ImportanceSample, n_solves: int, subjects: Sequence[Any]) -> Likelihood:
    warning = ""
    if sample.unreliable.any():
        which = np.flatnonzero(sample.unreliable)
        k = np.where(np.isnan(sample.pareto_k[which]), np.inf, sample.pareto_k[which])
        worst = [str(subjects[i]) for i in which[np.argsort(-k)[:3]]]
        warning = (
            f"The marginal log-likelihood by importance sampling is unreliable for {int(sample.unreliable.sum())} of "
            f"{len(subjects)} subjects (Pareto k above {LARGEST_K}; the largest: {', '.join(worst)}). "
            'Use likelihood="annealed".'
        )
    shape = np.where(sample.unreliable, sample.pareto_k, np.fmin(sample.pareto_k, LARGEST_K))
    return Likelihood(
        sample.loglik, sample.error, "importance", n_solves, sample.ess, shape, warning=warning
    )


def _affordable(solves_per_subject: float) -> dict:
    """Options of ``annealed.marginal_loglik`` for about this many solves: 100,000 go to its pilot run of some 25 stages."""
    n_particles = int(np.clip((solves_per_subject - 100_000) / 800, 10, 50))
    return {"n_groups": 8, "n_particles": n_particles, "n_steps": 2, "n_moves": 2}


@dataclass(frozen=True)
class Criteria:
    """Information criteria of a fit.

    Attributes
    ----------
    aic : float
        -2 log p + 2 p for p estimated parameters.
    bic : float
        -2 log p + p log(number of subjects), as in Monolix and saemix.
    bicc : float
        Corrected BIC (Delattre, Lavielle & Poursat 2014): log(number of subjects) for the
        parameters of random effects, log(number of observations) for the others; each entry of a
        vector is an observation.
    """

    n_parameters: int
    n_of_random_effects: int
    aic: float
    bic: float
    bicc: float


def information_criteria(engine: Engine, loglik: float) -> Criteria:
    """Criteria at a total marginal log-likelihood; entries of parameters that are fixed do not count."""
    mixed, rules = engine.mixed, engine.rules
    of_effects = {p.name for p in rules.mean.parameters} | {
        rule.parameter.name for rule in rules.omegas
    }
    of_effects |= {score.parameter.name for score in rules.scores if score.effects}
    of_effects |= {scale.parameter.name for scale in rules.effect_scales}
    free = ~engine.maximizer.held
    p = int(free.sum())
    p_effects = sum(int(free[q.columns].sum()) for q in mixed.parameters if q.name in of_effects)
    deviance, n, rows = -2.0 * loglik, np.log(mixed.n_subjects), np.log(mixed.n_values)
    return Criteria(
        p,
        p_effects,
        deviance + 2.0 * p,
        deviance + p * n,
        deviance + p_effects * n + (p - p_effects) * rows,
    )
