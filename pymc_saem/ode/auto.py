"""The `auto` solver: `lanes`, which hands a subject over to `cvodes` when it finds that the problem is stiff.

Each solve, and each gradient, begins explicit and decides for itself, by its own steps alone. So results depend
neither on earlier solves nor on threads.

`cvodes` is compiled, or read from disk, when the first subject is stiff: most models never need it, and it takes
seconds. Compiled code finds the task for stiff subjects through a cell of memory. At first the cell leads to
Python, which compiles the task, puts its address there, and does the subject; from then on, no Python is involved.
"""

import ctypes
import threading
from functools import cache, partial

import numpy as np

from pymc_saem.ode import lanes

__all__ = ["cell", "task"]

_TASK = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)
_lock = threading.RLock()


def task(gradient):
    """Compiled task of the explicit solver, which looks for stiffness if the table has the address of a cell."""
    return lanes.task(gradient)


class _Cell:
    """Memory that holds the address of the task for stiff subjects."""

    def __init__(self, gradient):
        self.gradient = gradient
        self.first = _TASK(partial(_compile_and_run, self))
        self.memory = np.array([ctypes.cast(self.first, ctypes.c_void_p).value], dtype=np.int64)
        self.address = self.memory.ctypes.data
        self.task = None


@cache
def cell(gradient):
    """The cell of solutions or of gradients; one each per process, whose address may stay in tables."""
    return _Cell(gradient)


def _compile_and_run(cell, begin, end, table):
    """What a cell leads to at first. May be called by several threads, all of which have let go of Python's lock."""
    with _lock:
        if cell.task is None:
            try:
                from pymc_saem.ode import cvodes

                cell.task = cvodes.task(cell.gradient)
            except ImportError:  # no SUNDIALS: the status of the subject says so
                cell.memory[0] = 0
                return 0
            cell.memory[0] = cell.task.address
    return _TASK(cell.task.address)(begin, end, table)
