"""A right-hand side that treats symbols as numbers is told what to write; and how it may name its arguments."""

import math

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
from pytensor.graph.traversal import ancestors

import pymc_saem as ps
from pymc_saem.ode import interpolate, solve_ivp


def solved(rhs, k=0.1):
    return solve_ivp(
        rhs,
        {"c": 1.0},
        {"k": k, "flag": 1.0, "v": np.ones(2)},
        [2.0, 4.0],
        solver="tsit5",
        rtol=1e-9,
        atol=1e-9,
    )


def by_if(t, y, p):
    rate = p.k
    if t > 2:
        rate = 2 * p.k
    return {"c": -rate * y.c}


REFUSED = {
    "if": (by_if, "pm.math.switch"),
    "if of a parameter": (lambda t, y, p: {"c": -p.k * y.c if p.flag else 0.0}, "pm.math.switch"),
    "and": (lambda t, y, p: {"c": -p.k * y.c * (t > 2 and t < 3)}, "pm.math.and_"),
    "or": (lambda t, y, p: {"c": -p.k * y.c * (t < 2 or t > 3)}, "pm.math.or_"),
    "not": (lambda t, y, p: {"c": -p.k * y.c * (not t > 2)}, "pm.math.invert"),
    "chain": (lambda t, y, p: {"c": -p.k * y.c * (2 < t < 3)}, "pm.math.and_"),
    "==": (lambda t, y, p: {"c": -p.k * pm.math.switch(p.flag == 1, y.c, 0.0)}, "pm.math.eq"),
    "== of two": (lambda t, y, p: {"c": -p.k * pm.math.switch(p.flag == p.k, y.c, 0.0)}, "pm.math.eq"),
    "== of a remainder": (lambda t, y, p: {"c": -p.k * pm.math.switch(t % 24 == 0, y.c, 0.0)}, "pm.math.eq"),
    "!= of a part": (lambda t, y, p: {"c": -p.k * pm.math.switch(p.v[0] != 1, y.c, 0.0)}, "pm.math.neq"),
    "in": (lambda t, y, p: {"c": -p.k * y.c * (p.flag in [1, 2])}, "pm.math.eq"),
    "max": (lambda t, y, p: {"c": -p.k * max(y.c, 0)}, "pm.math.maximum"),
    "min": (lambda t, y, p: {"c": -p.k * min(pm.math.exp(y.c), 0)}, "pm.math.minimum"),
    "np.maximum": (lambda t, y, p: {"c": -p.k * np.maximum(y.c, 0)}, "pm.math.maximum"),
    "np.clip": (lambda t, y, p: {"c": -p.k * np.clip(y.c, 0, 1)}, "pm.math.clip"),
    "np.where": (lambda t, y, p: {"c": -p.k * np.where(t > 2, y.c, 0)}, "pm.math.switch"),
    "np.logaddexp": (lambda t, y, p: {"c": -p.k * np.logaddexp(y.c, 0)}, "pm.math.exp"),
    "math.exp": (lambda t, y, p: {"c": -p.k * math.exp(y.c)}, "pm.math.exp"),
    "math.exp of a function": (lambda t, y, p: {"c": -p.k * math.exp(pm.math.exp(y.c))}, "pm.math.exp"),
    "float": (lambda t, y, p: {"c": -p.k * float(y.c)}, "not numbers"),
    "round": (lambda t, y, p: {"c": -p.k * round(y.c)}, "not numbers"),
    "the states as a number": (lambda t, y, p: {"c": -p.k * max(y, 0)}, "pm.math.maximum"),
    "np.interp": (lambda t, y, p: {"c": -np.interp(t, [0.0, 1.0], [1.0, 2.0]) * y.c}, "interpolate"),
    "index of a list": (lambda t, y, p: {"c": -[0.1, 0.2][p.flag] * y.c}, "not numbers"),
    "index of an array": (lambda t, y, p: {"c": -np.array([0.1, 0.2])[p.flag] * y.c}, "not numbers"),
    "key of a dict": (lambda t, y, p: {"c": -{0: 0.1, 1: 0.2}[p.flag] * y.c}, "pm.math.switch"),
    "np.array": (lambda t, y, p: {"c": -np.array([p.k, 1.0]) * y.c}, "pm.math.stack"),
    "format": (lambda t, y, p: {"c": -float(f"{p.k:.2f}") * y.c}, "not numbers"),
    "len": (lambda t, y, p: {"c": -len(p.v) * y.c}, "not numbers"),
    "time as an index": (lambda t, y, p: {"c": -p.v[t] * y.c}, "interpolate"),
    "a parameter that is called": (lambda t, y, p: {"c": -p.k(t) * y.c}, "without .t.; only a covariate of interpolate"),
    "a state that is called": (lambda t, y, p: {"c": -p.k * y.c(t)}, "A state is y.name"),
    "a value": (lambda t, y, p: {"c": -p.k.eval() * y.c}, "not numbers"),
    "an attribute": (lambda t, y, p: {"c": -p.k.item() * y.c}, "has no attribute 'item'"),
    "text": (lambda t, y, p: {"c": "a" * y.c}, "Cannot convert 'a'"),
    "range": (lambda t, y, p: {"c": -sum(p.k for _ in range(p.flag)) * y.c}, "not numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_symbols_are_no_numbers(case):
    rhs, advice = REFUSED[case]
    with pytest.raises(
        TypeError, match=f"in line [0-9]+ of .*test_right_hand_side.py, `.*{advice}"
    ):
        solved(rhs)


def test_what_python_can_do_stays_as_it_is():
    def rhs(t, y, p):
        assert "c" in y and list(p) == ["k", "flag", "v"] and y.c is y["c"]
        inside = pm.math.and_(t > 1, t <= 3)
        return {
            "c": -p["k"]
            * abs(y["c"])
            * pm.math.switch(inside, np.exp(0 * t), p.v[1] - np.tanh(0.0))
            + 0.0 * sum([t, p.flag])
        }

    solution = solved(rhs)
    np.testing.assert_allclose(solution.c.eval(), np.exp([-0.2, -0.4]), rtol=1e-7)
    kinds = {type(v).__name__ for v in ancestors(solution._op.system.graph.outputs)}
    # the graph is PyTensor's own again
    assert kinds <= {
        "TensorVariable",
        "TensorConstant",
        "ScalarConstant",
    }
    with pytest.raises(KeyError, match=r"uses y\['d'\], but the states are c\."):
        solved(lambda t, y, p: {"c": y["d"]})
    # an error that has nothing to do with it
    with pytest.raises(TypeError, match="^can only concatenate str"):
        solved(lambda t, y, p: {"c": "a" + 1})


def test_states_have_names_and_no_places():
    with pytest.raises(
        KeyError,
        match=r"uses y\[0\], but the states are c\. They have names, not places: write y\.c\.",
    ):
        solved(lambda t, y, p: {"c": y[0]})
    with pytest.raises(
        KeyError, match=r"uses p\[slice\(None, 1, None\)\], but the params are k, flag, v\."
    ):
        solved(lambda t, y, p: {"c": p[:1]})
    with pytest.raises(TypeError, match=r"Write pm.math.stack for np.array"):
        solved(lambda t, y, p: {"c": np.array([y.c])})
    np.testing.assert_allclose(
        solved(lambda t, y, p: {"c": -len(y) * p.k * y.c}).c.eval(), np.exp([-0.2, -0.4]), rtol=1e-7
    )


WITHOUT_TIME = {
    "number": (lambda t, y, p: p.w, "to be written p.w.t."),
    "product": (lambda t, y, p: p.w * y.c, "write p.w.t."),
    "product from the right": (lambda t, y, p: y.c * p.w, "write p.w.t."),
    "negative": (lambda t, y, p: -p.w, "write p.w.t."),
    "comparison": (lambda t, y, p: pm.math.switch(p.w == 1, y.c, 0.0), "write p.w.t."),
    "pm.math": (lambda t, y, p: pm.math.exp(p.w), "to be written p.w.t."),
    "NumPy": (lambda t, y, p: np.exp(p.w), "write p.w.t."),
    "if": (lambda t, y, p: y.c if p.w else 0.0, "write p.w.t."),
    "attribute": (lambda t, y, p: p.w.mean(), "write p.w.t."),
    "two arguments": (lambda t, y, p: p.w(t, 1), "takes the time t and nothing else"),
    "no argument": (lambda t, y, p: p.w(), "takes the time t and nothing else"),
    "another time": (lambda t, y, p: p.w(t - 1.0), "only the value at the current time is known"),
    "a number as time": (lambda t, y, p: p.w(3.0), "only the value at the current time is known"),
}


@pytest.mark.parametrize("case", WITHOUT_TIME)
def test_a_covariate_is_called_with_the_time(case):
    """Another time would be read off the current piece of the curve, which is not there."""
    value, advice = WITHOUT_TIME[case]
    curve = interpolate(pd.DataFrame({"time": [0.0, 1.0, 2.0], "w": [1.0, 5.0, 2.0]}))
    with pytest.raises(TypeError, match=advice):
        solve_ivp(lambda t, y, p: {"c": value(t, y, p)}, {"c": 1.0}, {"w": curve}, [2.0, 4.0])
    with pytest.raises(AttributeError, match=r"the params are w\."):  # not the pieces of the curve
        solve_ivp(lambda t, y, p: {"c": p.v}, {"c": 1.0}, {"w": curve}, [2.0, 4.0])


def test_softplus_has_a_name_of_its_own():
    x = pt.dvector()
    out = ps.nn.softplus(x).eval({x: [-800.0, -1.0, 0.0, 800.0]})
    np.testing.assert_allclose(out, np.logaddexp(0.0, [-800.0, -1.0, 0.0, 800.0]), rtol=1e-12)
    solution = solved(lambda t, y, p: {"c": -ps.nn.softplus(p.k) * y.c})
    np.testing.assert_allclose(
        solution.c.eval(), np.exp(-np.logaddexp(0.0, 0.1) * np.array([2.0, 4.0])), rtol=1e-7
    )


@pytest.mark.skipif(hasattr(pm.math, "softplus"), reason="this PyMC has it")
def test_where_pymc_has_no_softplus_the_error_names_ours():
    with pytest.raises(AttributeError, match="pymc_saem.nn.softplus is the same"):
        solved(lambda t, y, p: {"c": -pm.math.softplus(p.k) * y.c})
