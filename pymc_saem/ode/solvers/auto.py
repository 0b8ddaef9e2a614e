"""The `auto` solver: `lanes`, which hands a subject over to `cvodes` when it finds that the problem is stiff.

Each solve, and each gradient, begins explicit and decides for itself, by its own steps alone. So
results depend neither on earlier solves nor on threads.

`cvodes` and the Jacobian are compiled, or read from disk, when the first subject is stiff: most
models never need them, and they take seconds. Compiled code finds the task for stiff subjects
through a cell of memory. At first the cell leads to Python, which compiles the task, puts its
address there, and does the subject; from then on, no Python is involved.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache

import numpy as np
from numba.core.ccallback import CFunc

from pymc_saem.ode.rhs.compiled import compile_system
from pymc_saem.ode.rhs.right_hand_side import OdeSystem
from pymc_saem.ode.solvers.lanes import task

__all__ = ["cell", "task"]

_TASK = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)
_lock = threading.RLock()


class _Cell:
    """Memory that holds the addresses of the task for stiff subjects, and of the Jacobian of the system."""

    def __init__(self, system: OdeSystem, gradient: bool) -> None:
        self.system, self.gradient = system, gradient
        self.task: CFunc | None = None
        self.prepare = _TASK(self._prepare_and_run)
        self.memory = np.zeros(2, dtype=np.int64)
        self.address = self.memory.ctypes.data
        self.forget()

    def forget(self) -> None:
        """Return to the state before the first stiff subject."""
        self.task = None
        self.memory[:] = ctypes.cast(self.prepare, ctypes.c_void_p).value or 0, 0

    def _prepare_and_run(self, begin: int, end: int, table: int) -> int:
        # Several threads may come here at once, all of which have let go of Python's lock while
        # they solved.
        with _lock:
            if self.task is None:
                try:
                    from pymc_saem.ode.solvers import cvodes

                    task = cvodes.task(self.gradient)
                except ImportError:  # no SUNDIALS: the status of the subject says so
                    self.memory[0] = 0
                    return 0
                self.memory[1] = compile_system(self.system).lanes_jac_address
                self.memory[0], self.task = task.address, task
        return _TASK(self.task.address)(begin, end, table)


@cache
def cell(system: OdeSystem, gradient: bool) -> _Cell:
    """The cell of a system's solutions or gradients; it stays, so its address may stand in tables."""
    return _Cell(system, gradient)
