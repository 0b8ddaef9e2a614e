"""Run the tasks of a call, one per subject and replicate, in threads or one after the other.

Every task writes to places of its own, so the result does not depend on the number of threads.
"""

import os
import time

import numba

from pymc_saem.ode.pool import prepare, run_in_threads, run_serially

__all__ = ["Pace", "run"]

# Below this number of tasks, and this duration, starting threads costs more than it saves.
_MIN_TASKS = 4
_MIN_SECONDS = 50e-6
# Tasks that one thread takes at a time, at most: a solver may hold memory for each of them.
_MAX_RANGE = 256
_forked = False


def _after_fork():
    # Forked processes belong to samplers that already use every core, so they solve serially.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Pace:
    """Chooses between threads and no threads by which was faster lately.

    On a busy machine, waiting for a thread that is not scheduled can cost a hundred times the solve.
    The results are the same either way, so the choice may depend on time. The slower way is tried again
    when that costs at most a twentieth of the time.
    """

    def __init__(self):
        self.seconds = {False: None, True: None}
        self.since_trial = 0.0

    def parallel(self):
        """Whether the next call shall use threads."""
        serial, threads = self.seconds[False], self.seconds[True]
        if serial is None or serial < _MIN_SECONDS:
            return False
        if threads is None:
            return True
        best = threads < serial
        if self.since_trial > 20.0 * self.seconds[not best]:
            self.since_trial = 0.0
            return not best
        return best

    def record(self, parallel, seconds):
        """Take the duration of a call into account."""
        before = self.seconds[parallel]
        # One interruption by another program may last as long as a hundred calls: it counts as two.
        self.seconds[parallel] = seconds if before is None else 0.8 * before + 0.2 * min(seconds, 2.0 * before)
        self.since_trial += seconds


def run(task_address, table_address, n_tasks, n_threads=None, pace=None):
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
    limit = numba.get_num_threads() if n_threads is None else min(n_threads, numba.config.NUMBA_NUM_THREADS)
    parallel = limit > 1 and n_tasks >= _MIN_TASKS and not _forked
    if n_threads is None and parallel and pace is not None:
        parallel = pace.parallel()
    prepare(parallel)
    start = time.perf_counter()
    if not (parallel and run_in_threads(task_address, table_address, n_tasks, _n_ranges(n_tasks, limit), limit)):
        parallel = False
        run_serially(task_address, table_address, n_tasks, _n_ranges(n_tasks, 1))
    if pace is not None:
        pace.record(parallel, time.perf_counter() - start)


def _n_ranges(n_tasks, n_threads):
    """Equal ranges, as few as possible: a solver keeps its lanes full until a range ends."""
    rounds = -(-n_tasks // (_MAX_RANGE * n_threads))
    return min(n_tasks, n_threads * rounds)
