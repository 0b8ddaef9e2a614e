"""Tasks for the driver from a solver's functions for one subject."""

import numpy as np

from pymc_saem.ode.native import (
    MAX_STEPS,
    N_DP,
    N_DY0,
    N_STATES,
    N_SUBJECTS,
    T_END,
    TABLE_SIZE,
    TIMES,
    TOLERANCES,
    Y0_INDEX,
    Z0,
    Z1,
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


@inner
def _times(table, i, first, last):
    """Times of a subject's rows; in a piece between two events also its end."""
    rows = floats(table[TIMES] + 8 * first, last - first)
    if table[T_END] == 0:
        return rows
    times = np.empty(last - first + 1)
    times[:-1] = rows
    times[-1] = floats(table[T_END] + 8 * i, 1)[0]
    return times


def solve_task(solve_one):
    """Task from ``solve_one(times, t0, y0, p, rtol, atol, max_steps, out) -> (status, n_steps)``."""

    @inner
    def one(table, replicate, i):
        first, last, t0, y0, p = read_subject(table, replicate, i)
        times, tolerances, n, m = (
            _times(table, i, first, last),
            floats(table[TOLERANCES], 2),
            table[N_STATES],
            last - first,
        )
        if table[Z0] != 0:
            y0[:] = floats(table[Z0] + 8 * i * n, n)
        solution = np.empty((times.size, n))
        status, _ = solve_one(times, t0, y0, p, tolerances[0], tolerances[1], table[MAX_STEPS], solution)
        if table[Z1] != 0:
            floats(table[Z1] + 8 * i * n, n)[:] = solution[m]
        write_solution(table, replicate, i, first, solution[:m], status)

    return _one_by_one(one)


def sensitivity_task(sens_one):
    """Task from ``sens_one(times, t0, y0, p, y0_index, rtol, atol, max_steps, g, gy0, gp, z0, z1)``."""

    @inner
    def one(table, replicate, i):
        first, last, t0, y0, p = read_subject(table, replicate, i)
        times, tolerances = _times(table, i, first, last), floats(table[TOLERANCES], 2)
        y0_index, n = integers(table[Y0_INDEX], table[N_DY0]), table[N_STATES]
        g = np.zeros((times.size, n))
        g[: last - first] = read_cotangent(table, replicate, first, last - first)
        gradient = np.zeros(table[N_DY0] + table[N_DP])
        z0 = z1 = 0
        if table[Z0] != 0:
            size = 8 * n * (1 + gradient.size)
            z0, z1 = table[Z0] + i * size, table[Z1] + i * size
            y0[:] = floats(z0, n)
        status, _ = sens_one(
            times, t0, y0, p, y0_index, tolerances[0], tolerances[1], table[MAX_STEPS], g,
            gradient[: y0_index.size], gradient[y0_index.size :], z0, z1,
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
