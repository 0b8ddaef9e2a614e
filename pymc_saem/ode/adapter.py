"""Tasks for the driver from a solver's functions for one subject."""

import numpy as np

from pymc_saem.ode.native import (
    MAX_STEPS,
    N_DP,
    N_DY0,
    N_STATES,
    N_SUBJECTS,
    TABLE_SIZE,
    TIMES,
    TOLERANCES,
    Y0_INDEX,
    compile_task,
    floats,
    inner,
    integers,
    read_cotangent,
    read_subject,
    write_gradient,
    write_solution,
)

__all__ = ["sensitivity_task", "solve_task"]


def solve_task(solve_one):
    """Task from ``solve_one(times, t0, y0, p, rtol, atol, max_steps, out) -> (status, n_steps)``."""

    @inner
    def one(table, replicate, i):
        first, last, t0, y0, p = read_subject(table, replicate, i)
        times, tolerances = floats(table[TIMES] + 8 * first, last - first), floats(table[TOLERANCES], 2)
        solution = np.empty((last - first, table[N_STATES]))
        status, _ = solve_one(times, t0, y0, p, tolerances[0], tolerances[1], table[MAX_STEPS], solution)
        write_solution(table, replicate, i, first, solution, status)

    return _one_by_one(one)


def sensitivity_task(sens_one):
    """Task from ``sens_one(times, t0, y0, p, y0_index, rtol, atol, max_steps, g, gy0, gp)``."""

    @inner
    def one(table, replicate, i):
        first, last, t0, y0, p = read_subject(table, replicate, i)
        times, tolerances = floats(table[TIMES] + 8 * first, last - first), floats(table[TOLERANCES], 2)
        y0_index = integers(table[Y0_INDEX], table[N_DY0])
        g = read_cotangent(table, replicate, first, last - first)
        gradient = np.zeros(table[N_DY0] + table[N_DP])
        status, _ = sens_one(
            times, t0, y0, p, y0_index, tolerances[0], tolerances[1], table[MAX_STEPS], g,
            gradient[: y0_index.size], gradient[y0_index.size :],
        )  # fmt: skip
        write_gradient(table, replicate, i, gradient, status)

    return _one_by_one(one)


def _one_by_one(one):
    def task(begin, end, table_address):
        table = integers(table_address, TABLE_SIZE)
        for k in range(begin, end):
            one(table, k // table[N_SUBJECTS], k % table[N_SUBJECTS])
        return 0

    return compile_task(task)
