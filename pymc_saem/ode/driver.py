"""Run the tasks of a call, one per subject and replicate, in threads or one after the other.

Every task writes to places of its own, so the result does not depend on the number of threads.
"""

import os
import threading

import numba

from pymc_saem.ode.native import cached, call_task

__all__ = ["run"]

# Below this number of tasks, starting threads costs more than it saves.
_MIN_TASKS = 4
# One launch at a time: Numba's simplest threading layer crashes when two threads launch at once.
_LAUNCHING = threading.Lock()
_forked = False


def _after_fork():
    # GNU OpenMP ends a forked child that starts threads after its parent did. Forked processes
    # belong to samplers that already use every core, so they solve serially.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _serial(address, table_address, n_tasks):
    for k in range(n_tasks):
        call_task(address, k, table_address)


def _parallel(address, table_address, n_tasks):
    for k in numba.prange(n_tasks):
        call_task(address, k, table_address)


_compiled = {}


def _driver(parallel):
    if parallel not in _compiled:
        function = _parallel if parallel else _serial
        _compiled[parallel] = cached(function, parallel=parallel, nogil=True)
    return _compiled[parallel]


def run(task_address, table, n_tasks, n_threads=None):
    """Call ``task(k, table)`` for k in ``range(n_tasks)``.

    Parameters
    ----------
    task_address : int
    table : ndarray of int64
    n_tasks : int
    n_threads : int, optional
        All threads that Numba may use by default.
    """
    address = table.ctypes.data
    wanted = numba.get_num_threads() if n_threads is None else min(n_threads, numba.config.NUMBA_NUM_THREADS)
    if wanted == 1 or n_tasks < _MIN_TASKS or _forked or not _LAUNCHING.acquire(blocking=False):
        _driver(False)(task_address, address, n_tasks)
        return
    try:
        before = numba.get_num_threads()
        if wanted != before:
            numba.set_num_threads(wanted)
        try:
            _driver(True)(task_address, address, n_tasks)
        finally:
            if wanted != before:
                numba.set_num_threads(before)
    finally:
        _LAUNCHING.release()
