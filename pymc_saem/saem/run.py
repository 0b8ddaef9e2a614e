"""Runs whole chains of the SAEM step: one after the other, or in separate processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter

import cloudpickle
import numpy as np

from pymc_saem.saem.conditional import Conditional, describe_individuals
from pymc_saem.saem.schedule import FIRST_LOOK, Drift, StoppingRule
from pymc_saem.saem.step import SAEM


@dataclass
class Chain:
    """One finished (or interrupted) run."""

    theta: np.ndarray  # (iteration, theta)
    stats: dict[str, np.ndarray]  # each (iteration,)
    failures: dict[int, np.ndarray]  # status code -> count per subject
    n_solves: int
    at_floor: tuple[str, ...]
    start_scores: np.ndarray
    seconds: dict[str, float]
    interrupted: bool = False
    conditional: Conditional | None = None
    trouble: list[str] = field(default_factory=list)
    converged: bool = False  # whether the stopping rule ended the run
    drift: np.ndarray | None = None  # (theta,): in rough standard errors, over the last half of the smoothing phase
    scale: np.ndarray | None = None  # (theta,): these standard errors


@dataclass(frozen=True)
class Job:
    """What every chain of a fit shares."""

    step: SAEM
    point: dict
    n_explore: int
    n_smooth: int
    draws: int  # conditional draws per chain; 0: nothing after the estimate
    tolerance: float


def run_chains(job: Job, rngs, cores: int, watch: Callable) -> list[Chain]:
    """All chains; the results do not depend on ``cores``.

    Parameters
    ----------
    rngs : list of numpy.random.Generator
        One per chain.
    watch : callable
        ``watch(chain, iteration, theta, stats)`` after each iteration; only in this process.
    """
    if len(rngs) == 1:
        return [run_chain(job, 0, rngs[0], lambda *args: watch(0, *args))]
    payload = cloudpickle.dumps(job)
    if cores == 1:
        # The copy that other processes would get: PyTensor may order its terms otherwise than in the original, and a
        # difference in the last digit decides, after some hundred iterations, about a proposal.
        job, chains = cloudpickle.loads(payload), []
        for c, rng in enumerate(rngs):
            chains.append(run_chain(job, c, rng, lambda *args, c=c: watch(c, *args)))
            if chains[-1].interrupted:
                break
        return chains
    # spawn: a forked child would inherit the threads of the parent's solver, but not their state
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores, len(rngs)), mp_context=context) as pool:
        return list(pool.map(_run_pickled, [payload] * len(rngs), range(len(rngs)), rngs))


def _run_pickled(payload: bytes, number: int, rng: np.random.Generator) -> Chain:
    return run_chain(cloudpickle.loads(payload), number, rng, lambda *args: None)


def run_chain(job: Job, number: int, rng: np.random.Generator, watch: Callable) -> Chain:
    """One chain: start, iterations, conditional distributions. Ctrl-C keeps what there is.

    The first one (``number`` 0) starts from the given point, the others from dispersed ones.
    """
    step, point = job.step, job.point
    step.begin_chain(rng, job.n_explore, dispersed=number > 0)
    thetas, stats, seconds = [], [], {}
    is_over, converged = StoppingRule(job.tolerance), False
    interrupted, mark, compiled = False, perf_counter(), step.engine.densities.compile_seconds
    try:
        for k in range(job.n_explore + job.n_smooth):
            if k == job.n_explore:
                step.stop_tuning()
            point, (report,) = step.step(point)
            if k == 0:  # compilation and the search for a start are not iterations
                seconds["compile"] = step.engine.densities.compile_seconds - compiled
                seconds["start"] = perf_counter() - mark - seconds["compile"]
                mark = perf_counter()
            thetas.append(step.state.theta)
            stats.append(report)
            watch(k, step.state.theta, report)
            if k >= job.n_explore and is_over(thetas[job.n_explore :], lambda: _scales(step)):
                converged = True
                break
    except KeyboardInterrupt:
        interrupted = True
        if not thetas:
            raise
    seconds["iterate"] = perf_counter() - mark
    chain = Chain(
        theta=np.array(thetas),
        stats={name: np.array([s[name] for s in stats]) for name in stats[0]},
        failures=dict(step.failures),
        n_solves=round(
            (step.simulator.n_evaluations + step.engine.climber.n_evaluations) * step.state.phi[..., 0].size
        ),
        at_floor=tuple(sorted(step.engine.maximizer.floor_state["reached"])),
        start_scores=step.start_scores,
        seconds=seconds,
        interrupted=interrupted,
        converged=converged,
        scale=_scales(step),
    )
    if chain.theta.shape[0] >= job.n_explore + FIRST_LOOK:
        chain.drift = Drift.of(chain.theta[job.n_explore :], chain.scale).size
    _after(chain, job, step)
    return chain


def _scales(step: SAEM) -> np.ndarray:
    return step.engine.maximizer.scales(step.state.theta, step.state.curvature)


def _after(chain: Chain, job: Job, step: SAEM) -> None:
    """Conditional distributions; whatever goes wrong here is reported, and the estimate kept."""
    if not job.draws:
        return
    mark = perf_counter()
    step.stop_tuning()
    population = step.engine.maximizer.population(step.state.theta)
    try:
        chain.conditional = describe_individuals(
            step.simulator, population, step.state.theta, step.state.phi, job.draws
        )
    except KeyboardInterrupt:
        chain.trouble.append("The conditional distributions were interrupted; the estimate is complete.")
    except Exception as error:  # noqa: BLE001 - the estimate must survive any failure after it
        chain.trouble.append(
            f"The conditional distributions failed ({type(error).__name__}: {error}); the estimate is complete."
        )
    chain.seconds["after"] = perf_counter() - mark


def score(chain: Chain) -> float:
    """Ranks chains of one model: mean complete log density plus the Gaussian entropy of the draws.

    It equals the marginal log-likelihood when the conditional distributions are Gaussian.
    """
    if chain.conditional is None:
        return -np.inf
    draws = chain.conditional.draws
    flat = draws.reshape(-1, *draws.shape[2:])
    entropy = 0.0
    for i in range(flat.shape[1]):
        covariance = np.atleast_2d(np.cov(flat[:, i].T))
        entropy += 0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * covariance)[1]
    return float(chain.conditional.logp.mean() + entropy)
