"""Runs whole chains of the SAEM step: one after the other, or in separate processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import cloudpickle
import numpy as np

from pymc_saem.saem.conditional.draws import SHARE, Conditional, describe_individuals
from pymc_saem.saem.run.chain import Chain, Course
from pymc_saem.saem.run.checkpoint import Keep
from pymc_saem.saem.run.explain import explained
from pymc_saem.saem.run.processes import lost, run_in_processes
from pymc_saem.saem.run.snapshot import Snapshot
from pymc_saem.saem.run.stages import CtrlC, Stages
from pymc_saem.saem.run.step import SAEM


@dataclass(frozen=True)
class Job:
    """What every chain of a fit shares.

    Attributes
    ----------
    begun : tuple of (Snapshot or None)
        For each chain the state from which it resumes; empty for a new fit.
    extend : int
        Iterations beyond those of the snapshots.
    """

    step: SAEM
    point: dict
    n_explore: int
    n_smooth: int
    draws: int  # conditional draws per chain; 0: nothing after the estimate
    tolerance: float
    begun: tuple[Snapshot | None, ...] = ()
    extend: int = 0


def run_chains(
    job: Job,
    rngs: Sequence[np.random.Generator],
    cores: int,
    watch: Callable,
    keep: Keep | None = None,
    ctrl_c: CtrlC | None = None,
    announce: Callable | None = None,
) -> list[Chain]:
    """All chains; the results do not depend on ``cores``. Chains that were lost are left out, which the others record.

    Parameters
    ----------
    rngs : list of numpy.random.Generator
        One per chain.
    watch : callable
        ``watch(chain, iteration, theta, stats)`` after each iteration; with several processes,
        after some of them.
    keep : Checkpoint writer, optional
        ``keep.is_due(iteration)`` whether a snapshot is wanted, ``keep(chain, snapshot)`` takes it.
    ctrl_c : CtrlC, optional
        Where Ctrl-C may come.
    announce : callable, optional
        ``announce(text)`` before each long piece of work that follows the iterations.
    """
    if len(rngs) == 1:
        return [run_chain(job, 0, rngs[0], watch, keep, ctrl_c, announce)]
    payload = cloudpickle.dumps(job)
    if cores > 1:
        return run_in_processes(run_chain, payload, rngs, cores, watch, keep, ctrl_c, announce)
    # The copy that other processes would get: PyTensor may order its terms otherwise than in the
    # original, and a difference in the last digit decides, after some hundred iterations, about a
    # proposal.
    job, chains = cloudpickle.loads(payload), []
    for number, rng in enumerate(rngs):
        try:
            chains.append(run_chain(job, number, rng, watch, keep, ctrl_c, announce))
        except KeyboardInterrupt:  # before its first iteration
            if not chains:
                raise
            break
        except Exception as error:  # noqa: BLE001 - the chains that are done must survive it
            if not chains:
                raise
            chains[0].trouble.append(lost(number, explained(error)))
            continue
        if chains[-1].interrupted:
            break
    return chains


@np.errstate(all="ignore")  # values that are not finite are checked and reported
def run_chain(
    job: Job,
    number: int,
    rng: np.random.Generator,
    watch: Callable,
    keep: Keep | None = None,
    ctrl_c: CtrlC | None = None,
    announce: Callable | None = None,
) -> Chain:
    """One chain: start, iterations, conditional distributions. Ctrl-C keeps what there is.

    The first one (``number`` 0) starts from the given point, the others from dispersed ones.
    """
    course = Course(job.step, job.point, job.n_explore, job.n_smooth, job.tolerance, job.extend)
    stages, interrupted = Stages(ctrl_c, announce), False
    try:
        stages.ctrl_c.during(partial(_iterate, course, job, number, rng, watch, keep))
    except KeyboardInterrupt:
        course.turn_back()
        interrupted = True
    chain = course.chain(number, interrupted, stages)
    if keep is not None and chain.snapshot is not None:
        # nothing that comes after the estimate may lose it
        stages.attempt("The checkpoint", partial(keep, number, chain.snapshot), is_long=True)
    if job.draws:
        mark = perf_counter()
        work = partial(_describe_individuals, job, chain)
        chain.conditional = stages.attempt("The conditional distributions", work, is_long=True)
        chain.seconds["after"] = perf_counter() - mark
    chain.notes += stages.notes
    return chain


def _iterate(
    course: Course,
    job: Job,
    number: int,
    rng: np.random.Generator,
    watch: Callable,
    keep: Keep | None,
) -> None:
    begun: Snapshot | None = job.begun[number] if job.begun else None
    if begun is None:
        course.begin(rng, dispersed=number > 0)
    else:
        course.go_on(begun)
    while not course.is_over:
        course.iterate()
        watch(number, len(course.thetas) - 1, course.thetas[-1], course.stats[-1])
        if keep is not None and keep.is_due(len(course.thetas)):
            keep(number, course.snapshot())


def _describe_individuals(job: Job, chain: Chain) -> Conditional:
    step = job.step
    step.stop_tuning()
    theta, phi = step.reached.theta, step.reached.phi
    population = step.engine.maximizer.population(theta)
    return describe_individuals(
        step.ready(job.point), population, theta, phi, job.draws, SHARE * chain.n_solves
    )


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
