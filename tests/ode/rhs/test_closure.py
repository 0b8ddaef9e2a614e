"""Every operation that a right-hand side may use has a value and a derivative that compile and are right.

The table of operations is read from the printer, so that a new one without a case here fails.
"""

import numba
import numpy as np
import pytensor
import pytensor.scalar as ps
import pytensor.scalar.math
import pytensor.tensor as pt
import pytest
from pytensor.tensor.elemwise import Elemwise
from scipy import special

from pymc_saem.ode import solve_ivp
from pymc_saem.ode.rhs.compiled import python_function
from pymc_saem.ode.rhs.lower import differentiate, lower
from pymc_saem.ode.rhs.scalar_source import (
    _CALLS,
    _TEMPLATES,
    SourcePrinter,
    interleaved,
    number_text,
)
from pymc_saem.ode.runtime.native import FLOATING

PRINTED = {
    name.removeprefix("_print_") for name in vars(SourcePrinter) if name.startswith("_print_")
}
# Arguments of all cases, where no function here has a jump or a kink: inside (-1, 1), above 1, and
# between.
X = np.array([[0.3, 1.7, 0.8], [-0.6, 2.6, 0.55], [0.85, 1.2, 0.45]])


def _names(table):
    return {name.lower() for name in table}


def instances():
    """Operations of PyTensor on scalars by the name of their class, those that the printer knows."""
    found = {}
    for module in (ps.basic, ps.math):
        for op in vars(module).values():
            kind = type(op).__name__
            if (
                isinstance(op, ps.basic.ScalarOp)
                and kind.lower() in _names(_CALLS) | _names(_TEMPLATES) | PRINTED
            ):
                found.setdefault(kind, op)
    return found


# By class: which columns of X are the arguments, and the function by NumPy or SciPy.
UNARY = {
    "Abs": np.abs, "ArcCos": np.arccos, "ArcSin": np.arcsin, "ArcSinh": np.arcsinh, "ArcTan": np.arctan, "ArcTanh": np.arctanh,
    "Ceil": np.ceil, "Cos": np.cos, "Cosh": np.cosh, "Erf": special.erf, "Erfc": special.erfc, "Exp": np.exp, "Exp2": np.exp2,
    "Expm1": np.expm1, "Floor": np.floor, "Identity": lambda a: a, "IsInf": np.isinf, "IsNan": np.isnan, "Neg": np.negative,
    "RoundHalfToEven": np.round, "Sigmoid": special.expit, "Sign": np.sign, "Sin": np.sin, "Sinh": np.sinh,
    "Softplus": lambda a: np.logaddexp(0.0, a), "Sqr": np.square, "Tan": np.tan, "Tanh": np.tanh, "Trunc": np.trunc,
}  # fmt: skip
OF_LARGE = {
    "ArcCosh": np.arccosh, "Gamma": special.gamma, "GammaLn": special.gammaln, "Log": np.log, "Log10": np.log10, "Log1p": np.log1p,
    "Log2": np.log2, "Psi": special.psi, "Reciprocal": lambda a: 1.0 / a, "Sqrt": np.sqrt,
    "TriGamma": lambda a: special.polygamma(1, a), "Log1mexp": lambda a: np.log1p(-np.exp(-a)),
}  # fmt: skip
BINARY = {
    "Add": np.add, "ArcTan2": np.arctan2, "EQ": np.equal, "GE": np.greater_equal, "GT": np.greater, "IntDiv": np.floor_divide,
    "LE": np.less_equal, "LT": np.less, "Maximum": np.maximum, "Minimum": np.minimum, "Mod": np.mod, "Mul": np.multiply,
    "NEQ": np.not_equal, "Sub": np.subtract, "TrueDiv": np.true_divide,
}  # fmt: skip
LOGICAL = {
    "AND": np.logical_and,
    "OR": np.logical_or,
    "XOR": np.logical_xor,
    "Invert": np.logical_not,
}
CASES = {k: ([0], f) for k, f in UNARY.items()} | {k: ([1], f) for k, f in OF_LARGE.items()}
CASES |= {k: ([0, 1], f) for k, f in BINARY.items()} | {k: ([0, 2], f) for k, f in LOGICAL.items()}
CASES |= {
    "Pow": ([1, 0], np.power),
    "Clip": ([0, 2, 1], lambda a, low, high: np.clip(a, low, high)),
    "Switch": ([0, 1, 2], lambda c, a, b: np.where(c > 0.4, a, b)),
    "PolyGamma": ([1], lambda a: special.polygamma(2, a)),
    "Cast": ([1], np.trunc),
    "Second": ([0, 1], lambda a, b: b),
}


def expression(kind, op, arguments):
    """The operation on tensors."""
    if kind == "Invert":
        return pt.invert(pt.gt(arguments[0], 0.5))
    if kind in LOGICAL:
        return Elemwise(op)(*(pt.gt(a, 0.5) for a in arguments))
    if kind == "Switch":
        return pt.switch(pt.gt(arguments[0], 0.4), *arguments[1:])
    if kind == "Cast":
        return pt.cast(arguments[0], "int64")
    if kind == "PolyGamma":
        return pt.polygamma(2, arguments[0])
    if kind == "Log1mexp":
        return pt.log1mexp(-arguments[0])
    return Elemwise(op)(*arguments)


def reference(kind, x):
    columns, function = CASES[kind]
    arguments = (
        [x[..., c] > 0.5 for c in columns] if kind in LOGICAL else [x[..., c] for c in columns]
    )
    return np.asarray(function(*arguments), dtype=float)


def test_every_operation_has_a_case():
    assert set(CASES) == set(instances()) | {"Second"}
    known = {name.lower() for name in instances()}
    assert _names(_CALLS) | _names(_TEMPLATES) | PRINTED <= known | {"second"}


@pytest.fixture(scope="module")
def computed():
    """Values and derivatives of all operations at X, from the text that is compiled for right-hand sides."""
    ops = instances() | {"Second": ps.basic.second}
    x = pt.vector("x", shape=(3,), dtype="float64")
    outputs = [expression(k, ops[k], [x[c] for c in CASES[k][0]]).astype("float64") for k in CASES]
    elements = np.array([ps.float64(f"x{c}") for c in range(3)], dtype=object)
    printer = SourcePrinter({v: f"x[{c}]" for c, v in enumerate(elements)})
    results = []
    for out in lower(outputs, {x: elements}):
        results += [out[()], *differentiate(out[()], list(elements))]
    texts = [number_text(0.0 if v is None else printer.value(v)) for v in results]
    lines = [*interleaved(printer.lines), *(f"out[{k}] = {text}" for k, text in enumerate(texts))]
    function = numba.njit(**FLOATING)(
        python_function("f", "x, out", "".join(f"    {line}\n" for line in lines))
    )
    out = np.empty((len(X), len(texts)))
    for point, row in zip(X, out, strict=True):
        function(point, row)
    return dict(zip(CASES, np.moveaxis(out.reshape(len(X), len(CASES), 4), 1, 0), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_value_and_derivative(kind, computed):
    value, gradient = computed[kind][:, 0], computed[kind][:, 1:]
    np.testing.assert_allclose(value, reference(kind, X), rtol=1e-11, atol=1e-14)
    h = 1e-6
    for column in range(3):
        step = h * np.eye(3)[column]
        differences = (reference(kind, X + step) - reference(kind, X - step)) / (2 * h)
        np.testing.assert_allclose(gradient[:, column], differences, rtol=1e-7, atol=1e-8)


def test_gamma_and_its_derivatives_everywhere(rng):
    from pymc_saem.ode.rhs.special import digamma, polygamma

    x = np.concatenate([rng.uniform(-20.5, 0.0, 100), rng.exponential(5.0, 100), [1e-8, 1e5, 1e10]])
    np.testing.assert_allclose([digamma(v) for v in x], special.psi(x), rtol=1e-12, atol=1e-13)
    positive = x[x > 0]
    for n in range(6):
        ours = [polygamma(float(n), v) for v in positive]
        np.testing.assert_allclose(ours, special.polygamma(n, positive), rtol=1e-12, atol=1e-13)
    assert np.isnan(
        [
            digamma(-3.0),
            polygamma(1.0, -3.0),
            polygamma(2.0, 0.0),
            polygamma(1.0, -1e9),
            digamma(np.nan),
        ]
    ).all()
    for v in (-0.3, -7.6):  # trigamma by reflection
        assert polygamma(1.0, v) == pytest.approx(
            (np.pi / np.sin(np.pi * v)) ** 2 - special.polygamma(1, 1.0 - v), rel=1e-12
        )


@pytest.mark.slow
def test_gamma_functions_can_be_fitted():
    functions = {"a": pt.gammaln, "b": pt.psi, "c": pt.tri_gamma, "d": lambda k: pt.polygamma(3, k)}
    k = pt.scalar("k")
    solution = solve_ivp(
        lambda t, y, p: {s: -f(p.k) * y[s] for s, f in functions.items()}, dict.fromkeys(functions, 1.0), {"k": k}, [0.5],
        solver="tsit5", rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    values = [solution[s][0] for s in functions]
    out = pytensor.function([k], [*values, *(pt.grad(v, k) for v in values)], mode="FAST_COMPILE")(
        2.3
    )
    for j, order in enumerate((None, 0, 1, 3)):
        rate = special.gammaln(2.3) if order is None else special.polygamma(order, 2.3)
        slope = special.polygamma(0 if order is None else order + 1, 2.3)
        assert out[j] == pytest.approx(np.exp(-0.5 * rate), rel=1e-7)
        assert out[4 + j] == pytest.approx(-0.5 * slope * np.exp(-0.5 * rate), rel=1e-6)
