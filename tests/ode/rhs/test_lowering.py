"""Generated source against PyTensor's own evaluation, values and derivatives."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

import pymc_saem as ps
from pymc_saem.ode.rhs.compiled import python_function
from pymc_saem.ode.rhs.system import trace

CASES = {
    "softplus": lambda w: ps.nn.softplus(w[0]),
    "log1pexp": lambda w: pt.log1p(pt.exp(w[0])) + pt.log(1 + pt.exp(w[1])),
    "sigmoid": lambda w: pt.sigmoid(w[0]) * w[1],
    "logaddexp": lambda w: pt.logaddexp(w[0], w[1]),
    "activations": lambda w: pt.sum(pt.tanh(w) + pt.maximum(w, 0) + w * pt.sigmoid(w)),
    "gelu": lambda w: 0.5 * w[0] * (1 + pt.erf(w[0] / np.sqrt(2))),
    "dot": lambda w: pt.dot(w[:4].reshape((2, 2)), w[4:6]).sum() + pt.dot(w[:3], w[3:]),
    "matmul": lambda w: (w.reshape((2, 3)) @ w.reshape((3, 2)))[1, 0],
    "join": lambda w: pt.concatenate([w[:2], pt.stack([w[5], 1.5])])[::-1][1:].prod(),
    "reduce": lambda w: w.reshape((2, 3)).max(axis=1).sum() - w.min() + w.mean(),
    "switch": lambda w: pt.switch(pt.gt(w[0], 0) & pt.lt(w[1], 1), w[2], -(w[3] ** 2)),
    "clip": lambda w: pt.clip(w[0], -0.5, 0.5) + pt.abs(w[1]) + pt.sign(w[2]),
    "powers": lambda w: (
        w[0] ** 2 + w[1] ** 3 + pt.exp(w[2] / 100) ** 1.5 + 1 / (1 + w[3] ** 2) ** 2
    ),
    "softmax": lambda w: (pm.math.softmax(w) * np.arange(6)).sum(),
    "logsumexp": lambda w: pt.logsumexp(w),
    "set": lambda w: pt.set_subtensor(w[1:3], w[3:5] * 2).sum() + w[np.array([0, 5, 0])].sum(),
    "trigonometric": lambda w: (
        pt.sin(w[0]) * pt.cos(w[1]) + pt.arctan(w[2]) + pt.sqrt(pt.sqr(w[3]) + 1)
    ),
    "rounding": lambda w: (
        pt.floor(w[0]) + pt.ceil(w[1]) + pt.cast(w[2], "int64") * w[3] + w[4] % 3.0
    ),
    "constant": lambda w: pt.as_tensor(np.eye(2))[0, 0] * 3.0,
}


def compare(expression, values):
    shapes = {"w": (6,)}
    system = trace(lambda t, y, p: {"y": expression(p.w) + 0.0 * t + y.y}, ["y"], shapes)
    assert system == trace(lambda t, y, p: {"y": expression(p.w) + 0.0 * t + y.y}, ["y"], shapes)
    jac = python_function("jac", "t, y, p, dy, jy, jp", _numpy_math(system.jac_source))
    w = pt.vector("w", shape=(6,))
    out = expression(w)
    gradient = pt.grad(out, w, disconnected_inputs="ignore")
    reference = pytensor.function(
        [w], [out, gradient], on_unused_input="ignore", mode="FAST_COMPILE"
    )
    for x in values:
        dy, jy, jp = np.empty(1), np.empty((1, 1)), np.empty((1, 6))
        with np.errstate(all="ignore"):
            jac(0.0, [0.0], x.tolist(), dy, jy, jp)
            value, slope = reference(x)
        assert dy[0] == pytest.approx(float(value), rel=1e-12, abs=1e-14)
        np.testing.assert_allclose(jp[0], slope, rtol=1e-10, atol=1e-13)
        assert jy[0, 0] == 1.0


def _numpy_math(source):
    """Numba's math returns inf where Python's raises: read it with NumPy's functions."""
    return "    import numpy\n" + source.replace("math.exp(", "numpy.exp(").replace(
        "math.expm1(", "numpy.expm1("
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_operation(name, rng):
    compare(CASES[name], rng.normal(size=(5, 6)))


@pytest.mark.parametrize(
    "name", ["softplus", "log1pexp", "sigmoid", "logaddexp", "activations", "logsumexp", "softmax"]
)
def test_extreme_values_stay_finite(name):
    for x in (np.full(6, 800.0), np.full(6, -800.0), np.array([1e3, -1e3, 0.0, 40.0, -40.0, 1e-9])):
        system = trace(lambda t, y, p: {"y": CASES[name](p.w)}, ["y"], {"w": (6,)})
        jac = python_function("jac", "t, y, p, dy, jy, jp", _numpy_math(system.jac_source))
        dy, jp = np.empty(1), np.empty((1, 6))
        with np.errstate(all="ignore"):
            jac(0.0, np.zeros(1), x, dy, np.empty((1, 1)), jp)
        assert np.isfinite(dy).all() and np.isfinite(jp).all()


def test_text_is_deterministic_and_shares_expressions():
    def rhs(t, y, p):
        return {"a": pt.erf(p.k * y.a), "b": -pt.erf(p.k * y.a) * y.b}

    first, second = (trace(rhs, ["a", "b"], {"k": ()}) for _ in range(2))
    assert first == second and hash(first) == hash(second)
    assert first.jac_source.count("math.erf(") == 1


def test_unsupported_operation_is_named():
    with pytest.raises(NotImplementedError, match="Sort.*scan"):
        trace(lambda t, y, p: {"y": pt.sort(p.w)[0]}, ["y"], {"w": (3,)})
