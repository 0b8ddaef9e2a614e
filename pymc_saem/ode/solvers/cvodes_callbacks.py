"""What CVODE calls back: right-hand sides, Jacobian, error weights, and the corrector of the sensitivities.

Every function returns 0, or 1 for "not like this, try a smaller step". All read one array, the user
data: head cells (64 bits), parameters, scratch. Scratch is there so that no callback allocates. The
model comes in as two addresses in the head, so these functions are compiled once per machine, not
once per model.

Augmented state: y (n), then S by state: row i holds dy_i/d(n_dp parameters, chosen y0), contiguous.
So every inner loop below runs along a row, over all sensitivities at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pymc_saem.ode.runtime.native import call_lanes, copy_values, floats, inner, integers
from pymc_saem.ode.solvers import sundials as sun

# Head cells. Integers:
MEMORY, RHS, JAC, N, N_P, N_DP, N_SENS = range(7)
# floats:
RTOL, ATOL = 7, 8
# what CVodeGetNonlinearSystemData fills in: t, ypred, y, f, gamma, rl1, zn1, user data
SYSTEM, PREDICTED, GAMMA, RL1, ZN1 = 9, 10, 13, 14, 15
# addresses of what follows the head: p, scale of the absolute tolerance, scratch
P, SCALE, DY, DELTA, Y, ROW, JY, LU, JP = range(17, 26)
# the time at which the right-hand side is wanted: it takes all by address
T, N_HEAD = 26, 27

CORRECTOR_TOLERANCE = 0.03  # in units of the local error tolerance; CVODE's own is 0.1 to 0.5
CORRECTOR_ITERATIONS = 5


@inner
def user_data(problem: Any) -> np.ndarray:
    """The array of a problem; without sensitivities n_y0 is 0, but jp must still fit."""
    n, n_p, n_dp, n_y0 = problem.n, problem.n_p, problem.n_dp, problem.n_y0
    y0, p, y0_index = (
        floats(problem.y0, n),
        floats(problem.p, n_p),
        integers(problem.y0_index, n_y0),
    )
    sizes = (n_p, n_dp + n, n, n, n, n, n * n, n * n, n * n_dp)
    total = N_HEAD
    for size in sizes:
        total += size
    data = np.zeros(total)
    head = data.view(np.int64)
    place = data.ctypes.data + 8 * N_HEAD
    for k, size in enumerate(sizes):
        head[P + k] = place
        place += 8 * size
    head[RHS], head[JAC], head[N], head[N_P], head[N_DP] = problem.rhs, problem.jac, n, n_p, n_dp
    head[N_SENS] = n_dp + n_y0
    data[RTOL], data[ATOL] = problem.rtol, problem.atol
    copy_values(floats(head[P], n_p), p, n_p)
    scale = floats(head[SCALE], n_dp + n)
    for j in range(n_dp):
        scale[j] = 1.0 / max(1.0, abs(p[j]))
    for j in range(n_y0):
        scale[n_dp + j] = 1.0 / max(1.0, abs(y0[y0_index[j]]))
    return data


@inner
def finite(values: np.ndarray) -> bool:
    total = 0.0
    for i in range(values.size):
        total += values[i] * 0.0
    return total == 0.0


@inner
def _factor(a: np.ndarray, n: int, row: np.ndarray) -> bool:
    """LU of the n x n matrix `a` in place, row exchanges recorded in `row`; False if singular (or NaN)."""
    for i in range(n):
        row[i] = i
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(a[i * n + k]) > abs(a[pivot * n + k]):
                pivot = i
        if not abs(a[pivot * n + k]) > 0.0:
            return False
        if pivot != k:
            row[k], row[pivot] = row[pivot], row[k]
            for j in range(n):
                a[k * n + j], a[pivot * n + j] = a[pivot * n + j], a[k * n + j]
        for i in range(k + 1, n):
            a[i * n + k] /= a[k * n + k]
            for j in range(k + 1, n):
                a[i * n + j] -= a[i * n + k] * a[k * n + j]
    return True


@inner
def _substitute(lu: np.ndarray, n: int, b: np.ndarray, m: int) -> None:
    """Solve L U x = b in place; `b` (n, m) has its rows already exchanged."""
    for i in range(n):
        for k in range(i):
            factor = lu[i * n + k]
            for j in range(m):
                b[i * m + j] -= factor * b[k * m + j]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            factor = lu[i * n + k]
            for j in range(m):
                b[i * m + j] -= factor * b[k * m + j]
        inverse = 1.0 / lu[i * n + i]
        for j in range(m):
            b[i * m + j] *= inverse


@inner
def derivative(t: float, y: int, dy: int, data: int) -> int:
    """The right-hand side; arrays by address."""
    head, cell = integers(data, N_HEAD), floats(data, N_HEAD)
    cell[T] = t
    call_lanes(head[RHS], 1, data + 8 * T, y, head[P], dy, 0, 0)
    return 0 if finite(floats(dy, head[N])) else 1


@inner
def derivatives(t: float, y: int, dy: int, data: int) -> None:
    """The right-hand side, and its Jacobians in the scratch."""
    head, cell = integers(data, N_HEAD), floats(data, N_HEAD)
    cell[T] = t
    call_lanes(head[JAC], 1, data + 8 * T, y, head[P], dy, head[JY], head[JP])


@inner
def jacobian(t: float, y: int, columns: int, data: int) -> int:
    """The Jacobian of the states into memory of SUNDIALS, which is column-major."""
    head = integers(data, N_HEAD)
    n = head[N]
    derivatives(t, y, head[DY], data)
    jy, transposed = floats(head[JY], n * n), floats(columns, n * n)
    for i in range(n):
        for k in range(n):
            transposed[k * n + i] = jy[i * n + k]
    return 0 if finite(jy) else 1


@inner
def forward_rhs(t: float, y_vector: int, dy_vector: int, data: int) -> int:
    return derivative(t, sun.N_VGetArrayPointer(y_vector), sun.N_VGetArrayPointer(dy_vector), data)


@inner
def forward_jacobian(
    t: float, y_vector: int, dy_vector: int, matrix: int, data: int, tmp1: int, tmp2: int, tmp3: int
) -> int:
    return jacobian(t, sun.N_VGetArrayPointer(y_vector), sun.SUNDenseMatrix_Data(matrix), data)


@inner
def augmented_rhs(t: float, y_vector: int, dy_vector: int, data: int) -> int:
    head = integers(data, N_HEAD)
    n, n_dp, n_sens = head[N], head[N_DP], head[N_SENS]
    n_all = n + n * n_sens
    y, dy = sun.N_VGetArrayPointer(y_vector), sun.N_VGetArrayPointer(dy_vector)
    derivatives(t, y, dy, data)
    s, ds = floats(y + 8 * n, n * n_sens), floats(dy + 8 * n, n * n_sens)
    jy, jp = floats(head[JY], n * n), floats(head[JP], n * n_dp)
    for i in range(n):
        for j in range(n_dp):
            ds[i * n_sens + j] = jp[i * n_dp + j]
        for j in range(n_dp, n_sens):
            ds[i * n_sens + j] = 0.0
        for k in range(n):
            slope = jy[i * n + k]
            for j in range(n_sens):
                ds[i * n_sens + j] += slope * s[k * n_sens + j]
    return 0 if finite(floats(dy, n_all)) else 1


@inner
def error_weights(y_vector: int, weight_vector: int, data: int) -> int:
    """Weights of the error norm, a mean over all n (1 + n_sens) entries.

    y gets the factor sqrt(1 + n_sens), or the mean would dilute its error: so y is at least as
    accurate as without sensitivities. The absolute tolerance of dy/dp is atol / max(1, |p|): units
    of y per relative change of p.
    """
    head, cell = integers(data, N_HEAD), floats(data, N_HEAD)
    n, n_sens, rtol, atol = head[N], head[N_SENS], cell[RTOL], cell[ATOL]
    n_all = n + n * n_sens
    state = floats(sun.N_VGetArrayPointer(y_vector), n_all)
    weight = floats(sun.N_VGetArrayPointer(weight_vector), n_all)
    scale = floats(head[SCALE], n_sens)
    factor = math.sqrt(1.0 + n_sens)
    for i in range(n):
        weight[i] = factor / (rtol * abs(state[i]) + atol)
        first = n + i * n_sens
        for j in range(n_sens):
            weight[first + j] = 1.0 / (rtol * abs(state[first + j]) + atol * scale[j])
    return 0


@inner
def _newton(t: float, data: int, predicted: np.ndarray, zn1: np.ndarray) -> bool:
    """Solve y - ypred - gamma f(y) + rl1 zn1 = 0 for the states; leaves jy, jp and the LU in the scratch."""
    head, cell = integers(data, N_HEAD), floats(data, N_HEAD)
    n, gamma, rl1, rtol, atol = head[N], cell[GAMMA], cell[RL1], cell[RTOL], cell[ATOL]
    y, dy, delta = floats(head[Y], n), floats(head[DY], n), floats(head[DELTA], n)
    jy, lu, row = floats(head[JY], n * n), floats(head[LU], n * n), integers(head[ROW], n)
    for i in range(n):
        y[i] = predicted[i]
    last = np.inf
    for _ in range(CORRECTOR_ITERATIONS):
        derivatives(t, head[Y], head[DY], data)
        for i in range(n * n):
            lu[i] = -gamma * jy[i]
        for i in range(n):
            lu[i * n + i] += 1.0
        if not _factor(lu, n, row):
            return False
        for i in range(n):
            k = row[i]
            delta[i] = predicted[k] - y[k] + gamma * dy[k] - rl1 * zn1[k]
        _substitute(lu, n, delta, 1)
        total = 0.0
        for i in range(n):
            total += (delta[i] / (rtol * abs(y[i]) + atol)) ** 2
            y[i] += delta[i]
        size = math.sqrt(total / n)
        if size <= CORRECTOR_TOLERANCE:
            return True
        if not size <= 2.0 * last:  # diverges, or NaN
            return False
        last = size
    return False


@inner
def corrector(t: float, y_vector: int, f_vector: int, data: int) -> int:
    """Solve the corrector equation of y and S, disguised as right-hand side of CVODE's fixed point.

    CVODE iterates c <- rl1 (h f(ypred + c) - zn1), with gamma = rl1 h, to find the correction c.
    Given the wanted correction c, this returns f = (c + rl1 zn1) / gamma, so that one iteration
    delivers c. For S the equation is linear: (I - gamma jy) S = Spred + gamma jp - rl1 zn1.
    """
    head, cell, a = integers(data, N_HEAD), floats(data, N_HEAD), data + 8 * SYSTEM
    sun.CVodeGetNonlinearSystemData(
        head[MEMORY], a, a + 8, a + 16, a + 24, a + 32, a + 40, a + 48, a + 56
    )
    n, n_dp, n_sens, gamma, rl1 = head[N], head[N_DP], head[N_SENS], cell[GAMMA], cell[RL1]
    n_all = n + n * n_sens
    predicted = floats(sun.N_VGetArrayPointer(head[PREDICTED]), n_all)
    zn1 = floats(sun.N_VGetArrayPointer(head[ZN1]), n_all)
    f_address = sun.N_VGetArrayPointer(f_vector)
    if not _newton(t, data, predicted, zn1):
        return 1
    f, s, y = floats(f_address, n_all), floats(f_address + 8 * n, n * n_sens), floats(head[Y], n)
    jp, row = floats(head[JP], n * n_dp), integers(head[ROW], n)
    for i in range(n):
        f[i] = y[i]
        first = n + row[i] * n_sens
        for j in range(n_sens):
            s[i * n_sens + j] = predicted[first + j] - rl1 * zn1[first + j]
        for j in range(n_dp):
            s[i * n_sens + j] += gamma * jp[row[i] * n_dp + j]
    _substitute(floats(head[LU], n * n), n, s, n_sens)
    inverse = 1.0 / gamma
    for i in range(n_all):
        f[i] = (f[i] - predicted[i] + rl1 * zn1[i]) * inverse
    return 0 if finite(f) else 1
