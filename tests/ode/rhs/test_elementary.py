"""exp and log of the compiled right-hand sides against NumPy's."""

import numba
import numpy as np

from pymc_saem.ode.rhs.elementary import exp, exp_of_negative, log


def over(function):
    @numba.njit(error_model="numpy", fastmath={"contract"})
    def loop(x, out):
        for k in range(x.size):
            out[k] = function(x[k])

    def call(x):
        out = np.empty_like(x)
        loop(x, out)
        return out

    return loop, call


def ulps(ours, exact):
    return np.abs(ours - exact) / np.spacing(np.abs(exact))


def test_exp(rng):
    loop, call = over(exp)
    x = np.concatenate(
        [rng.uniform(-708, 709, 100_000), rng.uniform(-1, 1, 100_000), [0.0, -0.0, 709.0, -708.0]]
    )
    assert ulps(call(x), np.exp(x)).max() <= 2.0
    np.testing.assert_array_equal(
        call(np.array([0.0, -0.0, -np.inf, -800.0, np.inf, 800.0])), [1, 1, 0, 0, np.inf, np.inf]
    )
    assert np.isnan(call(np.array([np.nan]))).all()


def test_exp_of_negative(rng):
    loop, call = over(exp_of_negative)
    x = -np.concatenate([rng.uniform(0, 708, 100_000), rng.exponential(1.0, 100_000), [0.0]])
    assert ulps(call(x), np.exp(x)).max() <= 2.0
    low, missing = call(np.array([-1e5, np.nan]))
    assert 0.0 <= low < 1e-300 and np.isnan(missing)


def test_log(rng):
    loop, call = over(log)
    x = np.concatenate(
        [
            10.0 ** rng.uniform(-320, 308, 100_000),
            rng.uniform(0.5, 2.0, 100_000),
            [1.0, 5e-324, 1.7e308],
        ]
    )
    exact = np.log(x)
    assert call(np.array([1.0]))[0] == 0.0
    assert ulps(call(x[exact != 0]), exact[exact != 0]).max() <= 2.0
    np.testing.assert_array_equal(call(np.array([0.0, -0.0, np.inf])), [-np.inf, -np.inf, np.inf])
    assert np.isnan(call(np.array([np.nan, -1.0, -np.inf]))).all()


def test_loops_over_them_are_vectorized():
    for function in (exp, exp_of_negative, log):
        loop, call = over(function)
        call(np.ones(8))
        code = "".join(loop.inspect_llvm().values())
        assert "x double>" in code, f"{function.__name__} stops the vectorizer"
