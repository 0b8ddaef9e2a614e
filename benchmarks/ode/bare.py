"""A plain Numba loop, as one writes it by hand: Tsitouras' method for one subject after the other, in scalars.

The same tableau, error norm, step control, first step and interpolant as the package, but no lanes,
and the exp and tanh of the C library. It says what the package gains or loses by its machinery.
States are tuples; two or three of them.
"""

import math

import numba
import numpy as np
from problems import numba_rates

from pymc_saem.ode.solvers import tsit5 as method

_OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}}
_A = (
    (method.A21,), (method.A31, method.A32), (method.A41, method.A42, method.A43),
    (method.A51, method.A52, method.A53, method.A54),
    (method.A61, method.A62, method.A63, method.A64, method.A65),
    (method.B1, method.B2, method.B3, method.B4, method.B5, method.B6),
)  # fmt: skip
_E = method.E1, method.E2, method.E3, method.E4, method.E5, method.E6, method.E7
_C = method.C2, method.C3, method.C4, method.C5
_weights = numba.njit(**_OPTIONS)(method.weights.py_func)


def make(problem):
    """``solve(y0, p, c, t, rtol, atol, out, steps)`` for all subjects."""
    rates = numba_rates(problem)
    njit = numba.njit(**_OPTIONS)
    (
        (a21,),
        (a31, a32),
        (a41, a42, a43),
        (a51, a52, a53, a54),
        (a61, a62, a63, a64, a65),
        (b1, b2, b3, b4, b5, b6),
    ) = _A
    e1, e2, e3, e4, e5, e6, e7 = _E
    c2, c3, c4, c5 = _C
    weights = _weights

    @njit
    def first_step(y, k1, p, c, t, span, rtol, atol):
        n, d0, d1, d2 = len(y), 0.0, 0.0, 0.0
        for i in range(n):
            scale = atol + rtol * abs(y[i])
            d0, d1 = d0 + (y[i] / scale) ** 2, d1 + (k1[i] / scale) ** 2
        d0, d1 = math.sqrt(d0 / n), math.sqrt(d1 / n)
        h = min(1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1, span)
        probe = np.empty(n)
        for i in range(n):
            probe[i] = y[i] + h * k1[i]
        k2 = rates(t + h, probe, p, c)
        for i in range(n):
            d2 += ((k2[i] - k1[i]) / (atol + rtol * abs(y[i]))) ** 2
        steepest = max(d1, math.sqrt(d2 / n) / h)
        return min(
            100.0 * h, max(1e-6, 1e-3 * h) if steepest <= 1e-15 else (0.01 / steepest) ** 0.2, span
        )

    @njit
    def one(y0, p, c, times, rtol, atol, out, y, z):
        n, m, t, row, steps = y0.size, times.size, times[0], 0, 0
        for i in range(n):
            y[i] = y0[i]
        while row < m and times[row] == t:
            out[row] = y
            row += 1
        k1 = rates(t, y, p, c)
        h, last, rejected = first_step(y, k1, p, c, t, times[m - 1] - t, rtol, atol), 0.0, False
        while row < m and steps < 100_000:
            steps += 1
            near = t + 1.01 * h >= times[m - 1]
            t_new = times[m - 1] if near else t + h
            h = t_new - t
            for i in range(n):
                z[i] = y[i] + h * (a21 * k1[i])
            k2 = rates(t + c2 * h, z, p, c)
            for i in range(n):
                z[i] = y[i] + h * (a31 * k1[i] + a32 * k2[i])
            k3 = rates(t + c3 * h, z, p, c)
            for i in range(n):
                z[i] = y[i] + h * (a41 * k1[i] + a42 * k2[i] + a43 * k3[i])
            k4 = rates(t + c4 * h, z, p, c)
            for i in range(n):
                z[i] = y[i] + h * (a51 * k1[i] + a52 * k2[i] + a53 * k3[i] + a54 * k4[i])
            k5 = rates(t + c5 * h, z, p, c)
            for i in range(n):
                z[i] = y[i] + h * (
                    a61 * k1[i] + a62 * k2[i] + a63 * k3[i] + a64 * k4[i] + a65 * k5[i]
                )
            k6 = rates(t_new, z, p, c)
            for i in range(n):
                z[i] = y[i] + h * (
                    b1 * k1[i] + b2 * k2[i] + b3 * k3[i] + b4 * k4[i] + b5 * k5[i] + b6 * k6[i]
                )
            k7 = rates(t_new, z, p, c)
            norm = 0.0
            for i in range(n):
                e = (
                    e1 * k1[i]
                    + e2 * k2[i]
                    + e3 * k3[i]
                    + e4 * k4[i]
                    + e5 * k5[i]
                    + e6 * k6[i]
                    + e7 * k7[i]
                )
                norm += (h * e / (atol + rtol * max(abs(y[i]), abs(z[i])))) ** 2
            norm = math.sqrt(norm / n)
            if not norm <= 1.0:
                h, rejected = h * (max(0.2, 0.9 * norm**-0.2) if norm < math.inf else 0.1), True
                continue
            while row < m and times[row] <= t_new:
                w1, w2, w3, w4, w5, w6, w7 = weights((times[row] - t) / h)
                for i in range(n):
                    slope = (
                        w1 * k1[i]
                        + w2 * k2[i]
                        + w3 * k3[i]
                        + w4 * k4[i]
                        + w5 * k5[i]
                        + w6 * k6[i]
                        + w7 * k7[i]
                    )
                    out[row, i] = y[i] + h * slope
                row += 1
            now = math.log(max(norm, 1e-8))
            h *= min(1.0 if rejected else 10.0, max(0.2, 0.9 * math.exp(0.04 * last - 0.17 * now)))
            last, rejected, t, k1 = max(now, math.log(1e-4)), False, t_new, k7
            for i in range(n):
                y[i] = z[i]
        return steps

    @numba.njit
    def solve(y0, p, c, t, rtol, atol, out, steps):
        y, z = np.empty(y0.shape[1]), np.empty(y0.shape[1])
        for i in range(len(y0)):
            steps[i] = one(y0[i], p[i], c[i], t[i], rtol, atol, out[i], y, z)

    return solve


class Bare:
    """The loop as an engine of the benchmark."""

    def __init__(self, problem, inputs):
        self.problem, self.inputs = problem, inputs
        self.out, self.n_steps = (
            np.empty((*inputs.t.shape, len(problem.states))),
            np.empty(len(inputs.t), np.int64),
        )
        self.compiled = make(problem)

    def solver_call(self, rtol):
        x = self.inputs
        arguments = x.y0, x.p, x.c, x.t, rtol, rtol * self.problem.atol, self.out, self.n_steps
        return lambda: self.compiled(*arguments)

    def solve(self, rtol):
        self.solver_call(rtol)()
        return self.out.copy()

    def gradient_call(self, rtol):
        return None

    def steps(self, rtol):
        self.solve(rtol)
        return float(self.n_steps.mean())
