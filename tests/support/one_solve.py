"""One solve by the cvodes engine, of a system written in NumPy: what tests of the engine call."""

import numpy as np
from numba import types

from pymc_saem.ode.runtime.native import floats, inner
from pymc_saem.ode.runtime.status import SUCCESS
from pymc_saem.ode.solvers import sundials as sun
from pymc_saem.ode.solvers.cvodes_engine import ADAMS, BDF, PROBLEM, engine, forward, sensitivities

METHODS = {"bdf": BDF, "adams": ADAMS}

address_of = sun.c_address(types.int64(*[sun.address] * 7))


def _by_address(system):
    """`system.rhs` and `system.jac` as the engine calls them: one lane, no sensitivities, arrays by address."""
    rhs, jac, n, n_p, n_dp = system.rhs, system.jac, system.n_states, system.n_p, system.n_dp

    @inner
    def rhs_by_address(lanes, t, y, p, dy, jy, jp):
        rhs(floats(t, 1)[0], floats(y, n), floats(p, n_p), floats(dy, n))
        return 0

    @inner
    def jac_by_address(lanes, t, y, p, dy, jy, jp):
        jacobians = floats(jy, n * n).reshape((n, n)), floats(jp, n * n_dp).reshape((n, n_dp))
        jac(floats(t, 1)[0], floats(y, n), floats(p, n_p), floats(dy, n), *jacobians)
        return 0

    return rhs_by_address, jac_by_address, n, n_p, n_dp


def _make_problem(system, method):
    """njit `problem(t_rows, t0, y0, p, rtol, atol, max_steps, n_steps)`: the record that the engine is given."""
    (rhs, jac, n, n_p, n_dp), method = _by_address(system), METHODS[method]

    @inner
    def make_problem(t_rows, t0, y0, p, rtol, atol, max_steps, n_steps):
        problem = np.zeros(1, PROBLEM)
        own = problem[0]
        own.method, own.rhs, own.jac, own.n, own.n_p, own.n_dp = (
            method,
            address_of(rhs),
            address_of(jac),
            n,
            n_p,
            n_dp,
        )
        own.n_rows, own.times, own.t0 = t_rows.size, t_rows.ctypes.data, t0
        own.y0, own.p, own.steps = y0.ctypes.data, p.ctypes.data, n_steps.ctypes.data
        own.rtol, own.atol, own.max_steps = rtol, atol, max_steps
        return problem

    return make_problem


def make_solve_one(system, method="bdf"):
    """njit `solve_one(t_rows, t0, y0, p, rtol, atol, max_steps, out) -> (status, n_steps)`.

    `t_rows` ascends, may repeat and may contain t0. `out` is NaN after a failure. All arrays are
    C-contiguous.
    """
    engine(gradient=False)
    make_problem, n = _make_problem(system, method), system.n_states

    @inner
    def solve_one(t_rows, t0, y0, p, rtol, atol, max_steps, out):
        n_steps = np.zeros(1, np.int64)
        problem = make_problem(t_rows, t0, y0, p, rtol, atol, max_steps, n_steps)
        problem[0].out = out.ctypes.data
        status = forward(problem.ctypes.data)
        problem[0].out = 0  # a use after the call: Numba frees an array after its last one
        for r in range(t_rows.size if status != SUCCESS else 0):
            for i in range(n):
                out[r, i] = np.nan
        return status, n_steps[0]

    return solve_one


def make_sens_one(system, method="bdf"):
    """njit `sens_one(t_rows, t0, y0, p, y0_index, rtol, atol, max_steps, g, out_gy0, out_gp)`.

    Returns `(status, n_steps)`. out_gp[j] = sum over rows and states of g[r, s] dy_s(t_r)/dp_j, for
    the first n_dp parameters; out_gy0 likewise for the entries of y0 in `y0_index`. Both are NaN
    after a failure.
    """
    engine(gradient=True)
    make_problem, n_dp = _make_problem(system, method), system.n_dp

    @inner
    def sens_one(t_rows, t0, y0, p, y0_index, rtol, atol, max_steps, g, out_gy0, out_gp):
        n_y0, n_steps = y0_index.size, np.zeros(1, np.int64)
        total = np.zeros(n_dp + n_y0)
        problem = make_problem(t_rows, t0, y0, p, rtol, atol, max_steps, n_steps)
        own = problem[0]
        own.n_y0, own.y0_index, own.g, own.total = (
            n_y0,
            y0_index.ctypes.data,
            g.ctypes.data,
            total.ctypes.data,
        )
        status = sensitivities(problem.ctypes.data)
        problem[0].g = 0  # as above
        for j in range(n_dp):
            out_gp[j] = total[j] if status == SUCCESS else np.nan
        for j in range(n_y0):
            out_gy0[j] = total[n_dp + j] if status == SUCCESS else np.nan
        return status, n_steps[0]

    return sens_one
