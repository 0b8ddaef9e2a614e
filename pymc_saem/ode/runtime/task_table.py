"""The table that describes one call of a solver to its tasks: its places, and how tasks read and write through it."""

from __future__ import annotations

import numpy as np

from pymc_saem.ode.runtime.native import (
    Doubles,
    Longs,
    doubles,
    floats,
    inner,
    innermost,
    integers,
    longs,
)

# Places in the int64 table that describes one call: addresses of row-major arrays, then sizes.
TIMES, ORDER, STARTS, T0, X, C, Y0_INDEX, Y0_CONSTANT, TOLERANCES = range(9)
OUT, STATUS, G, GX, RHS, JAC = range(9, 15)
N_SUBJECTS, N_ROWS, N_STATES, N_DY0, N_DP, N_P = range(15, 21)
X_STRIDE, C_STRIDE, G_STRIDE, MAX_STEPS = range(21, 25)
# Of a piece between two events: where each subject starts and ends, states and sensitivities; when
# it ends. Zero without events.
Z0, Z1, T_END = range(25, 28)
# The solver of the pieces, and the events.
SOLVER, EVENT_STARTS, EVENT_NUMBERS, EVENT_PLACES = range(28, 32)
# Where the addresses of the task for stiff subjects and of its Jacobian stand (``auto``); 0: not
# asked for.
STIFF = 32
# Of the adjoint: the vector-Jacobian product; where `lanes` records its steps, an address, then
# their number by task.
VJP, TAPE = 33, 34
# Where the derivatives of every row go if no gradient is asked for but the derivatives themselves;
# no tolerance controls their errors.
SENS = 35
# Of the events: the parameters that are rates of infusions, among the parameters of a subject, and
# their number.
INFUSIONS, N_INFUSIONS = 36, 37
TABLE_SIZE = 38


@innermost
def n_sens(table: Longs) -> int:
    """Sensitivities that a task carries with each state: all for gradients and derivatives, none for values.

    This is the width of every array of states. Other cells of the table do not show it: the
    Jacobian is set for values too.
    """
    return table[N_DY0] + table[N_DP] if table[GX] != 0 or table[SENS] != 0 else 0


@innermost
def values_of(table: Longs, replicate: int, i: int) -> tuple[int, int]:
    """Addresses of the differentiable and of the constant values of a subject, in both the entries of y0 first."""
    n_x = table[N_DY0] + table[N_DP]
    n_c = table[N_STATES] + table[N_P] - n_x
    x = table[X] + 8 * (replicate * table[X_STRIDE] + i * n_x)
    return x, table[C] + 8 * (replicate * table[C_STRIDE] + i * n_c)


@innermost
def load_parameters(table: Longs, task: int, lane: int, lanes: int, p: int) -> None:
    """Write the parameters of a task to address ``p``: number j of a lane at ``j * lanes + lane``."""
    n_dp, n_constant = table[N_DP], table[N_STATES] - table[N_DY0]
    x_address, c_address = values_of(table, task // table[N_SUBJECTS], task % table[N_SUBJECTS])
    x, c, target = doubles(x_address), doubles(c_address), doubles(p)
    for j in range(table[N_P]):
        target[j * lanes + lane] = x[table[N_DY0] + j] if j < n_dp else c[n_constant + j - n_dp]


@innermost
def load_start(
    table: Longs, task: int, lane: int, lanes: int, z: int, width: int, skip: int
) -> None:
    """Write where a task starts to address ``z``: its states, ``skip`` places left alone, ``width`` sensitivities of each.

    In a piece between two events this is where the last piece ended.
    """
    n, n_dy0, n_values = table[N_STATES], table[N_DY0], table[N_STATES] * (1 + width)
    x_address, c_address = values_of(table, task // table[N_SUBJECTS], task % table[N_SUBJECTS])
    x, c, target = doubles(x_address), doubles(c_address), doubles(z)
    if table[Z0] != 0:
        z0 = doubles(table[Z0] + 8 * task * n_values)
        for e in range(n_values):
            target[(e if e < n else e + skip) * lanes + lane] = z0[e]
        return
    for e in range(n, n_values):
        target[(e + skip) * lanes + lane] = 0.0
    for j in range(n):
        k = longs(table[Y0_INDEX])[j] if j < n_dy0 else longs(table[Y0_CONSTANT])[j - n_dy0]
        target[k * lanes + lane] = x[j] if j < n_dy0 else c[j - n_dy0]
        if j < n_dy0 and width > 0:
            target[(n + skip + k * width + j) * lanes + lane] = 1.0


@inner
def read_subject(table: Longs, task: int) -> tuple[int, int, float, np.ndarray, np.ndarray]:
    """``(first, last, t0, y0, p)`` of a task: its range of sorted rows, start and parameters."""
    i, n, width = task % table[N_SUBJECTS], table[N_STATES], n_sens(table)
    z, p = np.empty(n * (1 + width)), np.empty(table[N_P])
    load_parameters(table, task, 0, 1, p.ctypes.data)
    load_start(table, task, 0, 1, z.ctypes.data, width, 0)
    return longs(table[STARTS])[i], longs(table[STARTS])[i + 1], doubles(table[T0])[i], z[:n], p


@inner
def write_solution(
    table: Longs, replicate: int, i: int, first: int, solution: np.ndarray, status: int
) -> None:
    """Store the rows of a subject in the order of the input; NaN after a failure."""
    n, m = table[N_STATES], solution.shape[0]
    order = integers(table[ORDER] + 8 * first, m)
    base = table[OUT] + 8 * replicate * table[N_ROWS] * n
    for k in range(m):
        row = floats(base + 8 * order[k] * n, n)
        for s in range(n):
            row[s] = solution[k, s]
    write_status(table, replicate, i, status)


@innermost
def write_status(table: Longs, replicate: int, i: int, status: int) -> None:
    """Store the status of a subject, and NaN in its rows after a failure."""
    longs(table[STATUS])[replicate * table[N_SUBJECTS] + i] = status
    if status != 0 and table[OUT] != 0:
        n, starts, order, out = (
            table[N_STATES],
            longs(table[STARTS]),
            longs(table[ORDER]),
            doubles(table[OUT]),
        )
        for k in range(starts[i], starts[i + 1]):
            for s in range(n):
                out[(replicate * table[N_ROWS] + order[k]) * n + s] = np.nan


@innermost
def forget_derivatives(table: Longs, replicate: int, i: int) -> None:
    """Set the derivatives of all rows of a subject, which could not be computed, to zero."""
    starts, order, n = (
        longs(table[STARTS]),
        longs(table[ORDER]),
        table[N_STATES] * (table[N_DY0] + table[N_DP]),
    )
    for k in range(starts[i], starts[i + 1]):
        sens = doubles(table[SENS] + 8 * (replicate * table[N_ROWS] + order[k]) * n)
        for m in range(n):
            sens[m] = 0.0


@inner
def read_cotangent(table: Longs, replicate: int, first: int, m: int) -> np.ndarray:
    """Cotangent of the sorted rows of a subject, shape ``(m, n_states)``."""
    n = table[N_STATES]
    order = integers(table[ORDER] + 8 * first, m)
    g = np.empty((m, n))
    for k in range(m):
        row = floats(table[G] + 8 * (replicate * table[G_STRIDE] + order[k] * n), n)
        for s in range(n):
            g[k, s] = row[s]
    return g


@innermost
def write_gradient(table: Longs, replicate: int, i: int, gradient: Doubles, status: int) -> None:
    """Store the gradient of a subject, an array or a pointer; NaN after a failure. The status too, if there is room."""
    if table[STATUS] != 0:
        longs(table[STATUS])[replicate * table[N_SUBJECTS] + i] = status
    n_x = table[N_DY0] + table[N_DP]
    place = doubles(table[GX] + 8 * (replicate * table[N_SUBJECTS] + i) * n_x)
    for j in range(n_x):
        place[j] = gradient[j] if status == 0 else np.nan
