"""Chains in separate processes, which report to this one while they run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from queue import Empty
from time import perf_counter, sleep

import cloudpickle

from pymc_saem.saem.snapshot import Snapshot

#: Seconds between two reports of a process on its progress.
_EVERY = 0.25

_line = None  # of a working process: reports to the parent, and whether it wants an end


def run_in_processes(
    run_chain: Callable, payload: bytes, rngs, cores: int, watch: Callable, keep: Callable | None
) -> list:
    """``run_chain`` for each generator in at most ``cores`` processes; arguments as in ``run.run_chains``.

    Ctrl-C is this process's affair: it asks the others to stop after their iteration, and takes what they have. While all of
    them compile, they have nothing, and are left at once.
    """
    # spawn: a forked child would inherit the threads of the parent's solver, but not their state
    context = multiprocessing.get_context("spawn")
    reports, stop, abandoned = context.Queue(), context.Event(), context.Event()
    schedule = None if keep is None else keep.schedule
    with ProcessPoolExecutor(min(cores, len(rngs)), context, _begin, (reports, stop, abandoned)) as pool:
        try:
            futures = [pool.submit(_work, run_chain, payload, c, rng, schedule) for c, rng in enumerate(rngs)]
            _listen(futures, reports, stop, watch, keep)
        except BaseException:
            abandoned.set()  # or leaving this block would wait until they are done
            raise
    # A chain that was asked to stop before its first iteration has nothing to give.
        done = [future.result() for future in futures]
    chains = [chain for chain in done if chain is not None]
    if not chains:
        raise KeyboardInterrupt
    return chains


def _listen(futures, reports, stop, watch: Callable, keep: Callable | None) -> None:
    """Pass on what the chains report, until all are done."""
    has_begun = False
    while True:
        try:
            while not all(future.done() for future in futures):
                try:
                    kind, *report = reports.get(timeout=0.2)
                except Empty:
                    continue
                has_begun = True
                if kind == "watch":
                    watch(*report)
                elif keep is not None:
                    keep(report[0], Snapshot.from_bytes(report[1]))
            return
        except KeyboardInterrupt:
            stop.set()
            if not has_begun:
                raise


def _begin(reports, stop, abandoned) -> None:
    global _line
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes
    _line = reports, stop
    leave_with_parent(abandoned)


def leave_with_parent(abandoned=None) -> None:
    """End this process when the one that started it is gone, or has ``abandoned`` it: nobody takes what it would find."""
    parent = multiprocessing.parent_process()
    sentinel = None if parent is None else parent.sentinel  # a process of joblib has none
    threading.Thread(target=_leave_with_parent, args=(os.getppid(), sentinel, abandoned), daemon=True).start()


def _leave_with_parent(pid: int, sentinel, abandoned) -> None:
    is_alone = False
    while not is_alone and not (abandoned is not None and abandoned.is_set()):
        if sentinel is None:
            sleep(0.2)
            is_alone = os.getppid() != pid
        else:
            is_alone = bool(wait([sentinel], 0.2))
    os._exit(1)  # from a thread, whatever the others are doing


class _NoIteration(BaseException):
    """The end was wanted before the first iteration was done."""


def _work(run_chain: Callable, payload: bytes, number: int, rng, schedule):
    reports, stop = _line
    last = [0.0]

    def watch(chain: int, iteration: int, *seen) -> None:
        if stop.is_set():
            raise KeyboardInterrupt if iteration else _NoIteration
        if perf_counter() - last[0] > _EVERY:
            last[0] = perf_counter()
            reports.put(("watch", chain, iteration, *seen))

    if stop.is_set():
        return None
    try:
        return run_chain(cloudpickle.loads(payload), number, rng, watch, None if schedule is None else _Keep(schedule))
    except (KeyboardInterrupt, _NoIteration):
        return None


class _Keep:
    """A checkpoint writer's stand-in here: snapshots go to the parent, which writes them."""

    def __init__(self, schedule):
        self.clock = schedule.clock()

    def is_due(self, iteration: int) -> bool:
        return self.clock.is_due(iteration)

    def __call__(self, number: int, snapshot: Snapshot) -> None:
        _line[0].put(("keep", number, snapshot.to_bytes()))
