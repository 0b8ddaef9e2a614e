"""Chains in separate processes, which report to this one while they run."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from queue import Empty
from time import perf_counter

import cloudpickle

from pymc_saem.saem.snapshot import Snapshot

#: Seconds between two reports of a process on its progress.
_EVERY = 0.25

_line = None  # of a working process: reports to the parent, and whether it wants an end


def run_in_processes(
    run_chain: Callable, payload: bytes, rngs, cores: int, watch: Callable, keep: Callable | None
) -> list:
    """``run_chain`` for each generator in at most ``cores`` processes; arguments as in ``run.run_chains``.

    Ctrl-C is this process's affair: it asks the others to stop after their iteration, and takes what they have.
    """
    # spawn: a forked child would inherit the threads of the parent's solver, but not their state
    context = multiprocessing.get_context("spawn")
    reports, stop = context.Queue(), context.Event()
    schedule = None if keep is None else keep.schedule
    with ProcessPoolExecutor(min(cores, len(rngs)), context, _begin, (reports, stop)) as pool:
        futures = [pool.submit(_work, run_chain, payload, c, rng, schedule) for c, rng in enumerate(rngs)]
        while not all(future.done() for future in futures):
            try:
                kind, *report = reports.get(timeout=0.2)
                if kind == "watch":
                    watch(*report)
                elif keep is not None:
                    keep(report[0], Snapshot.from_bytes(report[1]))
            except Empty:
                continue
            except KeyboardInterrupt:
                stop.set()
        # A chain that was asked to stop before its first iteration has nothing to give.
        done = [future.result() for future in futures]
    chains = [chain for chain in done if chain is not None]
    if not chains:
        raise KeyboardInterrupt
    return chains


def _begin(reports, stop) -> None:
    global _line
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes
    _line = reports, stop


def _work(run_chain: Callable, payload: bytes, number: int, rng, schedule):
    reports, stop = _line
    last = [0.0]

    def watch(*seen) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        if perf_counter() - last[0] > _EVERY:
            last[0] = perf_counter()
            reports.put(("watch", *seen))

    try:
        return run_chain(cloudpickle.loads(payload), number, rng, watch, None if schedule is None else _Keep(schedule))
    except KeyboardInterrupt:
        return None


class _Keep:
    """A checkpoint writer's stand-in here: snapshots go to the parent, which writes them."""

    def __init__(self, schedule):
        self.clock = schedule.clock()

    def is_due(self, iteration: int) -> bool:
        return self.clock.is_due(iteration)

    def __call__(self, number: int, snapshot: Snapshot) -> None:
        _line[0].put(("keep", number, snapshot.to_bytes()))
