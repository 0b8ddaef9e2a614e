"""Right-hand sides that jump: where that spoils gradients, and where it does not."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_saem.ode import solve_ivp
from pymc_saem.ode.rhs.system import trace

JUMPING = {
    "at a state": (
        lambda t, y, p: pm.math.switch(y.c > 1.2, -p.k, -p.k * y.c),
        "a comparison (>) with y.c",
    ),
    "at a lag": (
        lambda t, y, p: pm.math.switch(t >= p.lag, -p.k * y.c, 0.0),
        "a comparison (>=) with p.lag",
    ),
    "as a factor": (
        lambda t, y, p: pt.lt(t, p.lag) * 1.0 - p.k * y.c,
        "a comparison (<) with p.lag",
    ),
    "between two times": (
        lambda t, y, p: pm.math.switch(pm.math.and_(t > p.lag, t < 5.0), -p.k * y.c, 0.0),
        "a comparison (>) with p.lag",
    ),
    "by rounding": (lambda t, y, p: -p.k * pt.floor(t / p.lag) * y.c, "floor() with p.lag"),
    "by its sign": (lambda t, y, p: -p.k * pt.sign(y.c - p.lag), "sign() with y.c, p.lag"),
}
CONTINUOUS = {
    "hockey stick": lambda t, y, p: pm.math.switch(t > p.lag, t - p.lag, 0.0) - p.k * y.c,
    "maximum": lambda t, y, p: pm.math.maximum(t - p.lag, 0.0) - p.k * y.c,
    "a time that is data": lambda t, y, p: pm.math.switch(t > 3.0, -p.k * y.c, -p.lag * y.c),
    "steep": lambda t, y, p: -p.k * y.c**8 / (p.lag**8 + y.c**8),
    "a logarithm that is guarded": lambda t, y, p: pm.math.switch(
        y.c > 1e-8, -p.k * y.c * pm.math.log(y.c / p.lag), 0.0
    ),
    "no growth of nothing": lambda t, y, p: pm.math.switch(y.c > 0, -p.k * y.c + 0.0 * p.lag, 0.0),
}


def jump_of(slope):
    return trace(
        lambda t, y, p: {"none": 0.0, "c": slope(t, y, p)}, ["none", "c"], {"k": (), "lag": ()}
    ).jump


@pytest.mark.parametrize("slope, found", JUMPING.values(), ids=JUMPING)
def test_jumps_are_found(slope, found):
    assert jump_of(slope) == found


@pytest.mark.parametrize("slope", CONTINUOUS.values(), ids=CONTINUOUS)
def test_a_change_of_case_is_no_jump(slope):
    assert jump_of(slope) == ""


def test_a_gradient_across_a_jump_is_a_warning():
    """c = 1 until the lag, then exp(-k (t - lag)): the derivative by the lag is k c, and sensitivities give 0."""
    lag = pt.dscalar("lag")
    slope = JUMPING["at a lag"][0]
    solution = solve_ivp(
        lambda t, y, p: {"c": slope(t, y, p)}, {"c": 1.0}, {"k": 0.5, "lag": lag}, t=[3.0]
    )
    assert pytensor.function([lag], solution.c)(1.0)[0] == pytest.approx(np.exp(-1.0), rel=1e-4)
    with pytest.warns(
        UserWarning,
        match=r"jumps at a comparison \(>=\) with p.lag. Its solution is correct, but its",
    ):
        pt.grad(solution.c.sum(), lag)
