"""Run the tasks of a call, one per subject and replicate, in threads or one after the other.

Every task writes to its own places, so the result does not depend on the number of threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numba

from pymc_saem.ode.runtime.threads import (
    SWITCH,
    memory_of_helpers,
    prepare,
    run_in_threads,
    run_serially,
)

__all__ = ["Pace", "compiled_calls", "run"]

# Below this number of tasks, and this duration, starting threads costs more than it saves.
_MIN_TASKS = 4
_MIN_SECONDS = 50e-6
_PACES: dict[tuple[Solvable, int], Pace] = {}
_forked = False


def _after_fork() -> None:
    # Forked processes belong to samplers that already use every core, so they solve serially.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Solvable(Protocol):
    """An operation that solves and whose calls are timed; equal operations share their pace."""

    n_threads: int | None


class Pace:
    """Chooses between threads and no threads by which was faster lately.

    On a busy machine, waiting for a thread that is not scheduled can cost a hundred times the
    solve. The results are the same either way, so the choice may depend on time. The slower way is
    tried again when that costs at most a twentieth of the time.
    """

    def __init__(self) -> None:
        self.seconds: dict[bool, float | None] = {False: None, True: None}
        self.since_trial = 0.0

    def parallel(self, calls: int = 1) -> bool:
        """Whether the next calls should use threads."""
        serial, threads = self.seconds[False], self.seconds[True]
        if serial is None or serial < _MIN_SECONDS:
            return False
        if threads is None:
            return True
        best = threads < serial
        if self.since_trial > 20.0 * calls * (serial if best else threads):
            self.since_trial = 0.0
            return not best
        return best

    def record(self, parallel: bool, seconds: float, calls: int = 1) -> None:
        """Take the duration of a call into account, or the mean of some calls."""
        before = self.seconds[parallel]
        # One interruption by another program may last as long as a hundred calls: it counts as two.
        seconds = seconds if before is None else min(seconds, 2.0 * before)
        self.seconds[parallel] = seconds if before is None else 0.8 * before + 0.2 * seconds
        self.since_trial += calls * seconds


def run(
    task_address: int,
    table_address: int,
    n_tasks: int,
    n_threads: int | None = None,
    pace: Pace | None = None,
) -> None:
    """Call ``task(begin, end, table)`` for ranges that cover ``range(n_tasks)``.

    Parameters
    ----------
    task_address, table_address : int
    n_tasks : int
    n_threads : int, optional
        By default all threads that Numba may use, when ``pace`` finds that they help.
    pace : Pace, optional
        What is known about the duration of this call.
    """
    n_used = _choose_threads(n_tasks, n_threads, pace)
    start = time.perf_counter()
    if n_used > 1:
        run_in_threads(task_address, table_address, n_tasks, n_used)
    else:
        run_serially(task_address, table_address, n_tasks)
    if pace is not None:
        pace.record(n_used > 1, time.perf_counter() - start)


def _choose_threads(n_tasks: int, wanted: int | None, pace: Pace | None, calls: int = 1) -> int:
    """Number of threads of the next calls; their code is compiled."""
    limit = 1
    if n_tasks >= _MIN_TASKS and not _forked:
        limit = (
            numba.get_num_threads()
            if wanted is None
            else min(wanted, numba.config.NUMBA_NUM_THREADS)
        )
    if wanted is None and limit > 1 and pace is not None and not pace.parallel(calls):
        limit = 1
    prepare(limit > 1)
    return limit


@contextmanager
def compiled_calls(op: Solvable, n_tasks: int, n_calls: int) -> Iterator[None]:
    """See :meth:`OdeSolution.compiled_calls`."""
    known = (op, n_tasks) in _PACES
    pace = _PACES.setdefault((op, n_tasks), Pace())
    n_used, before = _choose_threads(n_tasks, op.n_threads, pace, n_calls), SWITCH.copy()
    SWITCH[:] = n_used, memory_of_helpers(n_used) if n_used > 1 else 0
    start = time.perf_counter()
    try:
        yield
    finally:
        SWITCH[:] = before
        if n_calls and known:  # the first time, the graph may still have to be compiled
            pace.record(n_used > 1, (time.perf_counter() - start) / n_calls, n_calls)
