"""The `cvodes` solver: SUNDIALS CVODE with BDF, for stiff systems, driven from compiled code.

Like `lanes`, its tasks are compiled once per machine, and a model adds only its right-hand side, by address: the same
machine code that `lanes` calls, here with one lane. Numba notices a change of this file only: after a change of
`native.py` or `sundials.py`, save this file too.
"""

from functools import lru_cache

import numpy as np

from pymc_saem.ode.cvodes_engine import BDF, engine, forward, sensitivities
from pymc_saem.ode.native import (
    JAC,
    MAX_STEPS,
    N_DP,
    N_DY0,
    N_P,
    N_STATES,
    N_SUBJECTS,
    RHS,
    STIFF,
    TABLE_SIZE,
    TIMES,
    TOLERANCES,
    Y0_INDEX,
    compile_task,
    floats,
    integers,
    read_cotangent,
    read_subject,
    write_gradient,
    write_solution,
)

__all__ = ["task"]


def _solve(begin, end, table_address):
    """Solve the tasks begin to end, one per subject and replicate."""
    table, n_steps = integers(table_address, TABLE_SIZE), np.zeros(1, np.int64)
    jac = table[JAC] if table[STIFF] == 0 else integers(table[STIFF], 2)[1]
    n, n_p, tolerances = table[N_STATES], table[N_P], floats(table[TOLERANCES], 2)
    for k in range(begin, end):
        replicate, i = k // table[N_SUBJECTS], k % table[N_SUBJECTS]
        first, last, t0, y0, p = read_subject(table, replicate, i)
        out = np.empty((last - first, n))
        status = forward(
            BDF, table[RHS], jac, n, n_p, table[N_DP], last - first, table[TIMES] + 8 * first,
            t0, y0.ctypes.data, p.ctypes.data, tolerances[0], tolerances[1], table[MAX_STEPS],
            out.ctypes.data, n_steps.ctypes.data,
        )  # fmt: skip
        write_solution(table, replicate, i, first, out, status)
        n_steps[0] = y0.size + p.size  # uses after the call: Numba frees an array after its last one
    return 0


def _pull_back(begin, end, table_address):
    """Gradients of the tasks begin to end."""
    table, n_steps = integers(table_address, TABLE_SIZE), np.zeros(1, np.int64)
    n, n_p, n_dp, n_dy0 = table[N_STATES], table[N_P], table[N_DP], table[N_DY0]
    tolerances, gradient = floats(table[TOLERANCES], 2), np.empty(n_dy0 + n_dp)
    for k in range(begin, end):
        replicate, i = k // table[N_SUBJECTS], k % table[N_SUBJECTS]
        first, last, t0, y0, p = read_subject(table, replicate, i)
        g, total = read_cotangent(table, replicate, first, last - first), np.zeros(n_dp + n_dy0)
        status = sensitivities(
            BDF, table[RHS], table[JAC], n, n_p, n_dp, last - first, table[TIMES] + 8 * first,
            t0, y0.ctypes.data, p.ctypes.data, n_dy0, table[Y0_INDEX], tolerances[0], tolerances[1],
            table[MAX_STEPS], g.ctypes.data, total.ctypes.data, n_steps.ctypes.data,
        )  # fmt: skip
        # The engine has the parameters first, the table the entries of y0.
        gradient[:n_dy0], gradient[n_dy0:] = total[n_dp:], total[:n_dp]
        write_gradient(table, replicate, i, gradient, status)
        n_steps[0] = y0.size + p.size + g.size
    return 0


@lru_cache
def task(gradient):
    """Compiled task of the solver; the same for every system, and kept on disk."""
    engine(gradient)
    return compile_task(_pull_back if gradient else _solve, cache=True)
