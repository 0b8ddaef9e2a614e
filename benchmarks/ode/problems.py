"""The problems of the benchmark: one text of each right-hand side for all engines, inputs, and reference solutions.

A right-hand side is ``rates(t, y, p, c)``, made by ``factory(tanh, softplus)`` for the numbers of
one engine: PyTensor scalars, JAX tracers, floats in Numba, or complex numbers, whose imaginary
parts are the derivatives of the references.
"""

import math
from dataclasses import dataclass
from functools import cache

import numba
import numpy as np
from scipy.integrate import solve_ivp as scipy_solve_ivp

from pymc_saem.datasets import load_theophylline

#: Subjects whose solutions, and whose gradients, are compared with a reference.
N_EXACT, N_EXACT_GRADIENTS = 3, 1


@dataclass(frozen=True)
class Problem:
    """One system; ``p`` has derivatives, ``c`` has none, and atol is ``atol`` times the relative tolerance."""

    name: str
    title: str
    factory: object
    states: tuple
    inputs: object  # inputs(n_subjects) -> Inputs
    stiff: bool
    atol: float

    @property
    def reference_method(self):
        return "Radau" if self.stiff else "DOP853"


@dataclass(frozen=True)
class Inputs:
    """Of n subjects: y0 (n, states), p (n, n_p), c (n, n_c), t (n, times; the first is the start), g like the solution."""

    y0: np.ndarray
    p: np.ndarray
    c: np.ndarray
    t: np.ndarray
    g: np.ndarray


def _lotka_volterra(tanh, softplus):
    def rates(t, y, p, c):
        return p[0] * y[0] - p[1] * y[0] * y[1], p[2] * y[0] * y[1] - p[3] * y[1]

    return rates


def _robertson(tanh, softplus):
    def rates(t, y, p, c):
        first, second, third = p[0] * y[0], p[1] * y[1] * y[2], p[2] * y[1] * y[1]
        return second - first, first - second - third, third

    return rates


def _neural(factor):
    """The demo's model. With a factor, elimination is proportional to the concentration and that much faster."""
    proportional = factor > 0.0

    def factory(tanh, softplus):
        def net(p, k, x):
            first, second = tanh(p[k] * x + p[k + 2]), tanh(p[k + 1] * x + p[k + 3])
            return p[k + 4] * first + p[k + 5] * second + p[k + 6]

        net = numba.njit(net) if isinstance(tanh, numba.core.dispatcher.Dispatcher) else net

        def rates(t, y, p, c):
            into, over = softplus(net(p, 0, t / 24.0)), softplus(net(p, 7, softplus(y[0])))
            out, rest = softplus(net(p, 14, softplus(y[1]))), softplus(net(p, 21, t / 24.0))
            lost = factor * out * y[1] if proportional else out
            return -c[0] * into - over, c[0] * into + over - lost + c[0] * rest

        return rates

    return factory


def _spread(y0, p, times):
    """Subjects whose parameters differ by up to 3 percent."""

    def inputs(n):
        rng = np.random.default_rng(3)
        values = np.array(p) * (1.0 + 0.03 * rng.uniform(-1.0, 1.0, (n, len(p))))
        return _inputs(np.tile(y0, (n, 1)), values, np.zeros((n, 0)), np.tile(times, (n, 1)))

    return inputs


def _inputs(y0, p, c, t):
    g = np.random.default_rng(8).normal(size=(*t.shape, y0.shape[1]))
    return Inputs(*(np.ascontiguousarray(a, dtype=np.float64) for a in (y0, p, c, t, g)))


# The estimates of z_a1, z_a2, z_c1, z_c2 that `python -m pymc_saem.demo` printed: here inputs, not
# results.
_WEIGHTS = [
    -5.870, 6.214, -0.547, -0.970, 1.560, -3.695, -5.865, 0.878, 1.269, -0.857, -2.991, -2.010, -0.091, -7.494,
    1.807, 0.522, 0.176, -4.685, 3.479, 5.801, 1.175, 1.106, 4.494, 1.659, -0.731, -4.471, -5.067, -5.033,
]  # fmt: skip


def _theophylline(n):
    """Doses and times of the twelve people over and over; weights as the model draws them, N(estimate, I)."""
    data = load_theophylline()
    groups = [rows for _, rows in data.groupby("subject", sort=False)]
    of = np.arange(n) % len(groups)
    dose = np.array([rows["dose"].iloc[0] for rows in groups])[of, None]
    t = np.array([rows["time"] for rows in groups])[of]
    p = np.array(_WEIGHTS) + np.random.default_rng(5).normal(size=(n, 28))
    return _inputs(np.hstack([dose, np.zeros((n, 1))]), p, dose, t)


PROBLEMS = (
    Problem("neural", "neural theophylline", _neural(0.0), ("depot", "center"), _theophylline, False, 1.0),
    Problem(
        "lotka", "Lotka-Volterra", _lotka_volterra, ("prey", "hunter"),
        _spread([10.0, 5.0], [1.1, 0.1, 0.05, 0.9], np.linspace(0.0, 20.0, 11)), False, 1.0,
    ),
    Problem("stiffneural", "neural, stiff", _neural(1e4), ("depot", "center"), _theophylline, True, 1e-4),
    Problem(
        "robertson", "Robertson", _robertson, ("a", "b", "c"),
        _spread([1.0, 0.0, 0.0], [0.04, 1e4, 3e7], np.r_[0.0, np.geomspace(0.4, 4e4, 6)]), True, 1e-6,
    ),
)  # fmt: skip


@cache
def numba_rates(problem, kind="float"):
    """Compiled ``rates`` for floats or complex numbers."""
    if kind == "float":

        def softplus(x):
            return max(x, 0.0) + math.log1p(math.exp(-abs(x)))

        def tanh(x):
            return math.tanh(x)

    else:

        def softplus(x):
            return x + np.log(1.0 + np.exp(-x)) if x.real > 0.0 else np.log(1.0 + np.exp(x))

        def tanh(x):
            # the one of the library overflows
            e = np.exp(-2.0 * x) if x.real > 0.0 else np.exp(2.0 * x)
            return (1.0 - e) / (1.0 + e) if x.real > 0.0 else (e - 1.0) / (e + 1.0)

    options = {"error_model": "numpy", "fastmath": {"contract"}}
    tanh, softplus = (numba.njit(**options)(f) for f in (tanh, softplus))
    return numba.njit(**options)(problem.factory(tanh, softplus))


@cache
def _array_rates(problem):
    rates, n = numba_rates(problem), len(problem.states)

    @numba.njit(error_model="numpy")
    def f(t, y, p, c):
        dy, out = rates(t, y, p, c), np.empty(n)
        for i in range(n):
            out[i] = dy[i]
        return out

    return f


def array_rates(problem):
    """Compiled ``f(t, y, p, c) -> array``, as SciPy wants it."""
    return _array_rates(problem)


@cache
def _sensitivity_rates(problem):
    """``f(t, z, p, c)`` of states and their derivatives by p (states, n_p), by an imaginary step in each direction."""
    rates, n, tiny = numba_rates(problem, "complex"), len(problem.states), 1e-30

    @numba.njit(error_model="numpy")
    def f(t, z, p, c):
        m, dz = p.size, np.empty(z.size)
        y, q = np.empty(n, np.complex128), p + 0j
        for j in range(m):
            for i in range(n):
                y[i] = complex(z[i], tiny * z[n + i * m + j])
            q[j] = complex(p[j], tiny)
            dy = rates(t, y, q, c)
            q[j] = complex(p[j], 0.0)
            for i in range(n):
                dz[i], dz[n + i * m + j] = dy[i].real, dy[i].imag / tiny
        return dz

    return f


def reference(problem, inputs, i):
    """Solution of one subject by SciPy at a relative tolerance of 1e-12, shape (times, states)."""
    return _exact(problem, array_rates(problem), inputs, i, inputs.y0[i], 1e-12)


def reference_gradient(problem, inputs, i):
    """Gradient of ``sum(g * solution)`` by the parameters of one subject, shape (n_p,), from the sensitivity equations."""
    n, m = len(problem.states), inputs.p.shape[1]
    start = np.r_[inputs.y0[i], np.zeros(n * m)]
    # Of parameters that are large, sensitivities are small: their absolute tolerance too.
    small = np.r_[np.ones(n), np.tile(1.0 / np.maximum(1.0, np.abs(inputs.p[i])), n)]
    z = _exact(problem, _sensitivity_rates(problem), inputs, i, start, 1e-12 * small)
    return np.einsum("ts,tsm->m", inputs.g[i], z[:, n:].reshape(-1, n, m))


def _exact(problem, f, inputs, i, start, atol):
    t, p, c = inputs.t[i], inputs.p[i], inputs.c[i]
    options = {"method": problem.reference_method, "rtol": 1e-12, "atol": atol * problem.atol}
    result = scipy_solve_ivp(lambda t, y: f(t, y, p, c), (t[0], t[-1]), start, t_eval=t, **options)
    if not result.success:
        raise RuntimeError(f"no reference for {problem.name}, subject {i}: {result.message}")
    return result.y.T


def exact(problem, inputs):
    """References of the first subjects: solutions (subjects, times, states) and gradients (subjects, n_p)."""
    n = len(inputs.y0)
    solutions = [reference(problem, inputs, i) for i in range(min(n, N_EXACT))]
    return np.array(solutions), np.array(
        [reference_gradient(problem, inputs, i) for i in range(min(n, N_EXACT_GRADIENTS))]
    )


def solution_error(values, truth):
    """Largest error relative to the largest value of each state of each subject."""
    return float(
        np.max(np.abs(values[: len(truth)] - truth) / np.abs(truth).max(axis=1, keepdims=True))
    )


def gradient_error(values, truth):
    """Largest error of a subject's gradient relative to its size; parameters are counted in relative units."""
    return float(
        np.max(np.abs(values[: len(truth)] - truth).max(axis=1) / np.abs(truth).max(axis=1))
    )
