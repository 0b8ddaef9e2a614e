"""Right-hand sides written in many ways, against SciPy's solution of the same formula, and its derivative by differences."""

import math

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from scipy import integrate, special

from pymc_saem.ode import solve_ivp
from robustness.judge import Input

TIMES = np.array([0.5, 1.0, 2.0, 4.0])
K, C0 = 0.7, 2.0

# Derivative of c as it is written, and as NumPy: of t, c and k.
FORMULAS = {
    "decay": (lambda t, y, p: -p.k * y.c, lambda t, c, k: -k * c),
    "by item": (lambda t, y, p: -p.k * y["c"], lambda t, c, k: -k * c),
    "parameter by item": (lambda t, y, p: -p["k"] * y.c, lambda t, c, k: -k * c),
    "gammaln": (lambda t, y, p: -p.k * pt.gammaln(y.c + 3), lambda t, c, k: -k * special.gammaln(c + 3)),
    "digamma": (lambda t, y, p: -p.k * pt.digamma(y.c + 2), lambda t, c, k: -k * special.digamma(c + 2)),
    "erf": (lambda t, y, p: -pt.erf(p.k * y.c), lambda t, c, k: -special.erf(k * c)),
    "erfc": (lambda t, y, p: -pt.erfc(p.k * y.c), lambda t, c, k: -special.erfc(k * c)),
    "expit": (lambda t, y, p: -pm.math.sigmoid(p.k * y.c), lambda t, c, k: -special.expit(k * c)),
    "softplus": (lambda t, y, p: -pt.softplus(p.k * y.c), lambda t, c, k: -np.logaddexp(0, k * c)),
    "log1p, expm1": (lambda t, y, p: pt.log1p(y.c) - pt.expm1(p.k * y.c), lambda t, c, k: np.log1p(c) - np.expm1(k * c)),
    "log2, log10": (lambda t, y, p: -pt.log2(1 + y.c) * pt.log10(1 + p.k), lambda t, c, k: -np.log2(1 + c) * np.log10(1 + k)),
    "sine of time": (lambda t, y, p: pt.sin(p.k * t) - y.c, lambda t, c, k: np.sin(k * t) - c),
    "hyperbolic": (lambda t, y, p: pt.cosh(p.k) - pt.sinh(y.c) + pt.tanh(t), lambda t, c, k: np.cosh(k) - np.sinh(c) + np.tanh(t)),
    "inverse functions": (lambda t, y, p: -pt.arctan(p.k * y.c) - pt.arcsinh(y.c), lambda t, c, k: -np.arctan(k * c) - np.arcsinh(c)),
    "power": (lambda t, y, p: -(y.c**p.k), lambda t, c, k: -(c**k)),
    "whole powers": (lambda t, y, p: -p.k * y.c**3 + y.c ** (-1), lambda t, c, k: -k * c**3 + 1 / c),
    "square root": (lambda t, y, p: -p.k * pt.sqrt(y.c + 1), lambda t, c, k: -k * np.sqrt(c + 1)),
    "Hill": (lambda t, y, p: -(y.c**4) / (p.k**4 + y.c**4), lambda t, c, k: -(c**4) / (k**4 + c**4)),
    "switch in time": (lambda t, y, p: pm.math.switch(t > 1.5, -p.k * y.c, 0.0), lambda t, c, k: np.where(t > 1.5, -k * c, 0.0)),
    "switch in the state": (lambda t, y, p: pm.math.switch(y.c > 1.2, -p.k, -p.k * y.c), lambda t, c, k: np.where(c > 1.2, -k, -k * c)),
    "maximum": (lambda t, y, p: -p.k * pm.math.maximum(y.c - 1, 0.1), lambda t, c, k: -k * np.maximum(c - 1, 0.1)),
    "clip": (lambda t, y, p: -p.k * pt.clip(y.c, 0.5, 1.5), lambda t, c, k: -k * np.clip(c, 0.5, 1.5)),
    "absolute value and sign": (lambda t, y, p: -pt.sgn(y.c) * abs(p.k * y.c), lambda t, c, k: -np.sign(c) * abs(k * c)),
    "floor division and remainder": (lambda t, y, p: -p.k * y.c * (1 + t % 1.0), lambda t, c, k: -k * c * (1 + t % 1.0)),
    "NumPy's ufuncs": (lambda t, y, p: -np.exp(-p.k * y.c), lambda t, c, k: -np.exp(-k * c)),
    "Python's numbers": (lambda t, y, p: -p.k * y.c * 2 / float(3) + True * 0, lambda t, c, k: -k * c * 2 / 3),
    "a vector inside": (lambda t, y, p: -(pt.stack([p.k, y.c]) * np.array([1.0, 0.5])).sum(), lambda t, c, k: -k - 0.5 * c),
    "a product of matrices": (lambda t, y, p: -(pt.stack([p.k, y.c])[None] @ np.ones((2, 1)))[0, 0], lambda t, c, k: -k - c),
    "a constant": (lambda t, y, p: -p.k * 0 - 0.5, lambda t, c, k: -0.5 + 0 * c),
    "exp that overflows elsewhere": (lambda t, y, p: -p.k * y.c / (1 + pt.exp(-1000 * (y.c + 1))), lambda t, c, k: -k * c),
    "logaddexp": (lambda t, y, p: -pt.logaddexp(p.k, y.c), lambda t, c, k: -np.logaddexp(k, c)),
    "Bessel functions": (lambda t, y, p: -pt.j0(p.k * y.c), lambda t, c, k: -special.j0(k * c)),
}  # fmt: skip


def _as_if(t, y, p):
    return -p.k * y.c if t > 2 else 0.0


# What is no formula of PyTensor: how it is written, and a word that helps.
REFUSED = [
    ("if t > 2", _as_if, ("switch",)),
    ("max of Python", lambda t, y, p: -max(p.k * y.c, 0.0), ("maximum", "switch")),
    ("min of Python", lambda t, y, p: -min(p.k * y.c, 1.0), ("minimum", "switch")),
    ("math.exp", lambda t, y, p: -math.exp(p.k), ("exp",)),
    ("math.sqrt", lambda t, y, p: -math.sqrt(y.c), ("sqrt",)),
    ("np.maximum", lambda t, y, p: -np.maximum(y.c, 0.0), ("maximum",)),
    ("np.where", lambda t, y, p: np.where(t > 1, -p.k * y.c, 0.0), ("switch", "where")),
    ("float of a state", lambda t, y, p: -float(y.c), ("float", "'c'", "pm.math")),
    ("and, or", lambda t, y, p: (t > 1 and y.c > 1) * -p.k, ("and", "switch")),
    ("a state that is not there", lambda t, y, p: -p.k * y.d, ("y.d",)),
    ("a parameter that is not there", lambda t, y, p: -p.q * y.c, ("p.q",)),
    ("text", lambda t, y, p: "fast", ("'c'", "text", "str")),
    ("None", lambda t, y, p: None, ("'c'", "None")),
    ("a vector", lambda t, y, p: pt.stack([y.c, y.c]), ("'c'", "scalar")),
    ("noise", lambda t, y, p: -p.k * y.c + pm.Normal.dist(0, 1), ("random", "normal")),
    ("complex", lambda t, y, p: -p.k * y.c * 1j, ("complex", "'c'")),
    ("Python's ==", lambda t, y, p: (t == 1) * -p.k * y.c, ("==", "eq")),
]
COUNT = len(FORMULAS) + len(REFUSED)
BUNCH = 25


def _solved(rhs):
    """Values at K, and the derivative of their sum by k."""
    k = pt.dscalar("k")
    solution = solve_ivp(
        lambda t, y, p: {"c": rhs(t, y, p)}, {"c": C0}, {"k": k}, TIMES, rtol=1e-9, atol=1e-9
    )
    outputs = [solution.c, pt.grad(solution.c.sum(), k)]
    return pytensor.function([k], outputs, mode="FAST_COMPILE", on_unused_input="ignore")(K)


def _right(formula, k):
    return integrate.solve_ivp(
        lambda t, c: formula(t, c, k),
        (0, 4),
        [C0],
        t_eval=TIMES,
        rtol=1e-10,
        atol=1e-12,
        max_step=0.01,
        method="LSODA",
    ).y[0]


def make(seed):
    k = seed % COUNT
    if k >= len(FORMULAS):
        text, rhs, names = REFUSED[k - len(FORMULAS)]
        return Input(text, lambda: _solved(rhs), None, names)
    text, (rhs, formula) = [*FORMULAS.items()][k]

    def wrong(found):
        values, slope = found
        right = _right(formula, K)
        if not np.allclose(values, right, rtol=1e-4, atol=1e-5):
            return f"{values}, right {right}"
        difference = (_right(formula, K + 1e-4).sum() - _right(formula, K - 1e-4).sum()) / 2e-4
        return (
            None
            if abs(slope - difference) < 5e-3 * (1 + abs(difference))
            else f"derivative {slope}, right {difference}"
        )

    return Input(text, lambda: _solved(rhs), wrong, ("j0", "mod", "jump"))
