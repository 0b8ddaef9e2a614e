"""The `sunode` solver: sunode's CVODES solvers, with our compiled functions as their problem.

sunode takes any object that makes the functions CVODES calls back, so its symbolic part is not
used. It makes the solver memory, one per thread and operation; `sunode_engine` steps through it in
compiled code, because `sunode.solver.Solver.solve` steps in Python, reports failures as exceptions
and on the terminal, counts steps between rows instead of per solve, and takes every row at t0 for
the first.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numba.core.ccallback import CFunc

from pymc_saem.ode.rhs.compiled import CompiledRhs

__all__ = ["memory", "require", "task"]

INSTALL_HINT = (
    "solver='sunode' needs sunode, which is not installed and not on PyPI. Install it with "
    "`conda install -c conda-forge sunode`, or use solver='cvodes': the same method, from PyPI alone."
)


@cache
def require() -> ModuleType:
    """sunode, or the error that says how to get it."""
    try:
        import sunode
        import sunode.solver
    except ImportError as error:
        raise ImportError(f"{INSTALL_HINT} ({error})") from error
    return sunode


@cache
def _engine() -> ModuleType:
    """`sunode_engine` with the functions of sunode's SUNDIALS."""
    require()
    from sunode.basic import ffi, lib

    from pymc_saem.ode.solvers import sunode_engine as engine

    engine.bind({name: _address(ffi.addressof(lib, name)) for name in engine.PROTOTYPES})
    return engine


def _address(pointer: Any) -> int:
    from sunode.basic import ffi

    return int(ffi.cast("intptr_t", pointer))


def task(gradient: bool) -> CFunc:
    """The compiled task, the same for all systems."""
    return _engine().task(gradient)


class _Problem:
    """What sunode asks of a problem, for a compiled system."""

    def __init__(self, compiled: CompiledRhs, n_dy0: int) -> None:
        self.compiled = compiled
        self.n_states = compiled.n_states
        self.n_params = compiled.n_dp + n_dy0  # of which sunode wants sensitivities
        self.callbacks = _engine().callbacks()

    def make_user_data(self) -> np.ndarray:
        """A row of cells for one solver: the model, its sizes, parameters and scratch."""
        from pymc_saem.ode.solvers import cvodes_callbacks as layout

        compiled = self.compiled
        n, n_p, n_dp = compiled.n_states, compiled.n_p, compiled.n_dp
        sizes = {layout.P: n_p, layout.DY: n, layout.JY: n * n, layout.JP: n * n_dp}
        data = np.zeros(layout.N_HEAD + sum(sizes.values()))
        head, place = data.view(np.int64), data.ctypes.data + 8 * layout.N_HEAD
        for cell, size in sizes.items():
            head[cell] = place
            place += 8 * size
        head[layout.RHS], head[layout.JAC] = compiled.lanes_rhs_address, compiled.lanes_jac_address
        head[layout.N], head[layout.N_P], head[layout.N_DP] = n, n_p, n_dp
        return data

    def make_sundials_rhs(self) -> CFunc:
        return self.callbacks[0]

    def make_sundials_jac_dense(self) -> CFunc:
        return self.callbacks[1]

    def make_sundials_sensitivity_rhs(self) -> CFunc:
        return self.callbacks[2]


class _Memory:
    """Solvers of one system, one for each thread that may solve at the same time."""

    def __init__(self, compiled: CompiledRhs, gradient: bool, n_dy0: int) -> None:
        import numba
        from sunode.basic import ffi, lib
        from sunode.solver import Solver

        from pymc_saem.ode.solvers.cvodes_callbacks import P

        engine = _engine()
        problem = _Problem(compiled, n_dy0)
        with_sens = gradient and problem.n_params > 0
        n_places = numba.config.NUMBA_NUM_THREADS
        self.cells = np.zeros(1 + n_places * engine.PLACE_SIZE, np.int64)
        self.cells[0], places = n_places, self.cells[1:].reshape(n_places, engine.PLACE_SIZE)
        self.kept: list[object] = [problem]
        for place in places:
            solver = Solver(problem, sens_mode="simultaneous" if with_sens else None)
            lib.CVodeSetErrFile(solver._ode, ffi.NULL)  # or every failure is printed
            lib.CVodeSetMaxHnilWarns(solver._ode, -1)
            place[engine.SOLVER] = _address(solver._ode)
            place[engine.VECTOR] = _address(solver._state_buffer.c_ptr)
            place[engine.STATE] = solver._state_buffer.data.ctypes.data
            place[engine.PARAMETERS] = solver._user_data.view(np.int64)[P]
            self.kept.append(solver)
            if with_sens:
                columns = np.array(
                    [column.data.ctypes.data for column in solver._sens_buffers], np.int64
                )
                place[engine.SENS_VECTORS] = _address(solver._sens_buffer_array)
                place[engine.SENS] = columns.ctypes.data
                self.kept.append(columns)


@cache
def memory(compiled: CompiledRhs, gradient: bool, n_dy0: int) -> _Memory:
    """Solvers of a system, whose ``cells`` the task reads; made once and kept, like its compiled functions."""
    return _Memory(compiled, gradient, n_dy0 if gradient else 0)
