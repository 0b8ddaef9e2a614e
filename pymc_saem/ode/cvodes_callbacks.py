"""What CVODE calls back: right-hand sides, Jacobian, error weights, and the corrector of the sensitivities.

Every function here returns 0, or 1 for "not like this, try a smaller step". All of them read one array of doubles,
the user data: head cells, parameters, scratch. Scratch is there so that no callback allocates.

Augmented state: y (n), then S by state: row i holds dy_i/d(n_dp parameters, chosen y0), contiguous. So every loop
below runs along a row, over all sensitivities at once.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from numba import carray

from pymc_saem.ode import sundials as sun
from pymc_saem.ode.native import inner

# Head cells of the user data. CVodeGetNonlinearSystemData fills 8: t, ypred, y, f, gamma, rl1, zn1, user data.
MEM, N_SENS, RTOL, ATOL, CELLS, N_HEAD = 0, 1, 2, 3, 4, 12
PREDICTED, GAMMA, RL1, ZN1 = CELLS + 1, CELLS + 4, CELLS + 5, CELLS + 6

CORRECTOR_TOLERANCE = 0.03  # in units of the local error tolerance; CVODE's own is 0.1 to 0.5
CORRECTOR_ITERATIONS = 5


def layout(compiled):
    """Offsets in the user data; constants of the compiled code."""
    n, n_p, n_dp = compiled.n_states, compiled.n_p, compiled.n_dp
    sizes = {"p": n_p, "scale": n_dp + n, "dy": n, "delta": n, "y": n, "jy": n * n, "lu": n * n, "jp": n * n_dp}
    ends = N_HEAD + np.cumsum(list(sizes.values()))
    starts = {name: int(end) - size for (name, size), end in zip(sizes.items(), ends, strict=True)}
    return SimpleNamespace(n=n, n_p=n_p, n_dp=n_dp, size=int(ends[-1]), **starts)


@inner
def _finite(values):
    total = 0.0
    for i in range(values.size):
        total += values[i] * 0.0
    return total == 0.0


@inner
def _factor(a, row):
    """LU of `a` in place with row exchanges, recorded in `row`; False if singular (or not finite)."""
    n = a.shape[0]
    for i in range(n):
        row[i] = i
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(a[i, k]) > abs(a[pivot, k]):
                pivot = i
        if not abs(a[pivot, k]) > 0.0:
            return False
        if pivot != k:
            row[k], row[pivot] = row[pivot], row[k]
            for j in range(n):
                a[k, j], a[pivot, j] = a[pivot, j], a[k, j]
        for i in range(k + 1, n):
            a[i, k] /= a[k, k]
            for j in range(k + 1, n):
                a[i, j] -= a[i, k] * a[k, j]
    return True


@inner
def _substitute(lu, b):
    """Solve L U x = b in place; `b` (n, m) has its rows already exchanged."""
    n, m = b.shape
    for i in range(n):
        for k in range(i):
            factor = lu[i, k]
            for j in range(m):
                b[i, j] -= factor * b[k, j]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            factor = lu[i, k]
            for j in range(m):
                b[i, j] -= factor * b[k, j]
        inverse = 1.0 / lu[i, i]
        for j in range(m):
            b[i, j] *= inverse


def forward_rhs(compiled):
    rhs, n, n_p = compiled.rhs, compiled.n_states, compiled.n_p
    at_p, size = layout(compiled).p, layout(compiled).size

    @inner
    def callback(t, y_vector, dy_vector, user_data):
        p = carray(user_data, (size,), np.float64)[at_p : at_p + n_p]
        y = carray(sun.N_VGetArrayPointer(y_vector), (n,))
        dy = carray(sun.N_VGetArrayPointer(dy_vector), (n,))
        rhs(t, y, p, dy)
        return 0 if _finite(dy) else 1

    return callback


def _evaluate_jac(compiled):
    """`jac` on the scratch of the user data; returns views of dy, jy, jp."""
    jac, n, n_p, n_dp = compiled.jac, compiled.n_states, compiled.n_p, compiled.n_dp
    at = layout(compiled)
    at_p, at_dy, at_jy, at_jp = at.p, at.dy, at.jy, at.jp

    @inner
    def evaluate(t, y, work):
        dy = work[at_dy : at_dy + n]
        jy = work[at_jy : at_jy + n * n].reshape(n, n)
        jp = work[at_jp : at_jp + n * n_dp].reshape(n, n_dp)
        jac(t, y, work[at_p : at_p + n_p], dy, jy, jp)
        return dy, jy, jp

    return evaluate


def forward_jacobian(compiled):
    n, size = compiled.n_states, layout(compiled).size
    evaluate = _evaluate_jac(compiled)

    @inner
    def callback(t, y_vector, dy_vector, matrix, user_data, tmp1, tmp2, tmp3):
        y = carray(sun.N_VGetArrayPointer(y_vector), (n,))
        _, jy, _ = evaluate(t, y, carray(user_data, (size,), np.float64))
        columns = carray(sun.SUNDenseMatrix_Data(matrix), (n, n))  # SUNDIALS is column-major
        finite = True
        for i in range(n):
            finite = finite and _finite(jy[i])
            for k in range(n):
                columns[k, i] = jy[i, k]
        return 0 if finite else 1

    return callback


def augmented_rhs(compiled):
    n, n_dp, size = compiled.n_states, compiled.n_dp, layout(compiled).size
    evaluate = _evaluate_jac(compiled)

    @inner
    def callback(t, y_vector, dy_vector, user_data):
        work = carray(user_data, (size,), np.float64)
        n_sens = carray(user_data, (size,), np.int64)[N_SENS]
        state = carray(sun.N_VGetArrayPointer(y_vector), (n + n * n_sens,))
        change = carray(sun.N_VGetArrayPointer(dy_vector), (n + n * n_sens,))
        dy, jy, jp = evaluate(t, state[:n], work)
        change[:n] = dy
        s, ds = state[n:].reshape(n, n_sens), change[n:].reshape(n, n_sens)
        for i in range(n):
            for j in range(n_dp):
                ds[i, j] = jp[i, j]
            for j in range(n_dp, n_sens):
                ds[i, j] = 0.0
            for k in range(n):
                slope = jy[i, k]
                for j in range(n_sens):
                    ds[i, j] += slope * s[k, j]
        return 0 if _finite(change) else 1

    return callback


def error_weights(compiled):
    """Weights of the error norm, a mean over all n (1 + n_sens) entries.

    y gets the factor sqrt(1 + n_sens), or the mean would dilute its error: so y is at least as accurate as without
    sensitivities. The absolute tolerance of dy/dp is atol / max(1, |p|): units of y per relative change of p.
    """
    n, at_scale, size = compiled.n_states, layout(compiled).scale, layout(compiled).size

    @inner
    def callback(y_vector, weight_vector, user_data):
        work = carray(user_data, (size,), np.float64)
        n_sens = carray(user_data, (size,), np.int64)[N_SENS]
        state = carray(sun.N_VGetArrayPointer(y_vector), (n + n * n_sens,))
        weight = carray(sun.N_VGetArrayPointer(weight_vector), (n + n * n_sens,))
        rtol, atol = work[RTOL], work[ATOL]
        factor = np.sqrt(1.0 + n_sens)
        for i in range(n):
            weight[i] = factor / (rtol * abs(state[i]) + atol)
        s, w = state[n:].reshape(n, n_sens), weight[n:].reshape(n, n_sens)
        for i in range(n):
            for j in range(n_sens):
                w[i, j] = 1.0 / (rtol * abs(s[i, j]) + work[at_scale + j] * atol)
        return 0

    return callback


def _newton_on_states(compiled):
    """Solve y - ypred - gamma f(y) + rl1 zn1 = 0 for the n states; leaves jy, jp and the last LU in the scratch."""
    n, at = compiled.n_states, layout(compiled)
    at_y, at_delta, at_lu = at.y, at.delta, at.lu
    evaluate = _evaluate_jac(compiled)

    @inner
    def newton(t, gamma, rl1, predicted, zn1, row, work):
        y, delta = work[at_y : at_y + n], work[at_delta : at_delta + n]
        lu = work[at_lu : at_lu + n * n].reshape(n, n)
        y[:] = predicted[:n]
        last = np.inf
        for _ in range(CORRECTOR_ITERATIONS):
            dy, jy, jp = evaluate(t, y, work)
            for i in range(n):
                for k in range(n):
                    lu[i, k] = (1.0 if i == k else 0.0) - gamma * jy[i, k]
            if not _factor(lu, row):
                return False
            for i in range(n):
                k = row[i]
                delta[i] = predicted[k] - y[k] + gamma * dy[k] - rl1 * zn1[k]
            _substitute(lu, delta.reshape(n, 1))
            total = 0.0
            for i in range(n):
                total += (delta[i] / (work[RTOL] * abs(y[i]) + work[ATOL])) ** 2
                y[i] += delta[i]
            size = np.sqrt(total / n)
            if size <= CORRECTOR_TOLERANCE:
                return True
            if not size <= 2.0 * last:  # diverges, or NaN
                return False
            last = size
        return False

    return newton


def corrector(compiled):
    """The corrector equation of y and S, solved; disguised as a right-hand side for CVODE's fixed-point iteration.

    CVODE iterates c <- rl1 (h f(ypred + c) - zn1), with gamma = rl1 h, to find the correction c. Given the wanted
    correction c, this returns f = (c + rl1 zn1) / gamma, so that one iteration delivers c. For S the equation is
    linear: (I - gamma jy) S = Spred + gamma jp - rl1 zn1.
    """
    n, n_dp = compiled.n_states, compiled.n_dp
    at_y, at_lu, size = layout(compiled).y, layout(compiled).lu, layout(compiled).size
    at_jp = layout(compiled).jp
    newton = _newton_on_states(compiled)

    @inner
    def callback(t, y_vector, f_vector, user_data):
        work = carray(user_data, (size,), np.float64)
        cell = carray(user_data, (size,), np.int64)
        a = work.ctypes.data + 8 * CELLS
        sun.CVodeGetNonlinearSystemData(cell[MEM], a, a + 8, a + 16, a + 24, a + 32, a + 40, a + 48, a + 56)
        n_sens, gamma, rl1 = cell[N_SENS], work[GAMMA], work[RL1]
        n_all = n + n * n_sens
        predicted = carray(sun.N_VGetArrayPointer(cell[PREDICTED]), (n_all,))
        zn1 = carray(sun.N_VGetArrayPointer(cell[ZN1]), (n_all,))
        f = carray(sun.N_VGetArrayPointer(f_vector), (n_all,))
        row = np.empty(n, np.int64)
        if not newton(t, gamma, rl1, predicted, zn1, row, work):
            return 1
        for i in range(n):
            f[i] = (work[at_y + i] - predicted[i] + rl1 * zn1[i]) / gamma
        jp = work[at_jp : at_jp + n * n_dp].reshape(n, n_dp)
        s = f[n:].reshape(n, n_sens)
        s_predicted, s_zn1 = predicted[n:].reshape(n, n_sens), zn1[n:].reshape(n, n_sens)
        for i in range(n):
            k = row[i]
            for j in range(n_sens):
                s[i, j] = s_predicted[k, j] - rl1 * s_zn1[k, j]
            for j in range(n_dp):
                s[i, j] += gamma * jp[k, j]
        _substitute(work[at_lu : at_lu + n * n].reshape(n, n), s)
        for i in range(n, n_all):
            f[i] = (f[i] - predicted[i] + rl1 * zn1[i]) / gamma
        return 0 if _finite(f) else 1

    return callback
