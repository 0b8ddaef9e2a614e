"""Doses that are in y0 too, and states below the absolute tolerance."""

import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest

from pymc_saem.ode import Doses, solve_ivp

DOSES = pd.DataFrame({"id": ["ann", "bob"], "time": [0.0, 2.0], "amt": [320.0, 310.0]})


def linear(t, y, p):
    return {"c": -0.1 * y.c, "d": 0.1 * y.c - 0.2 * y.d}


def nonlinear(t, y, p):
    return {"c": -p.k * y.c / (1.0 + y.c), "d": p.k * y.c / (1.0 + y.c)}


def solved(y0, events=DOSES, rhs=linear, t0=0.0, who=("ann", "bob"), **options):
    return solve_ivp(
        rhs, {"c": y0, "d": 0.0}, {"k": 0.1}, [3.0, 3.0], list(who), t0=t0, events=events, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("y0", "t0", "events", "who"),
    [
        (320.0, 0.0, DOSES, "'ann' is 320, and events row 0"),
        (np.array([0.0, 310.0]), [0.0, 2.0], DOSES, "'bob' is 310, and events row 1"),
        (pt.constant(320.0), 0.0, DOSES.assign(rate=10.0), "'ann'"),
    ],
)
def test_a_dose_twice(y0, t0, events, who):
    with pytest.warns(UserWarning, match=f"y0.'c'. of subject {who} .*gets it twice.*y0="):
        solved(y0, events, t0=t0)


def test_subjects_that_are_codes_are_cautioned_too():
    table = DOSES.assign(id=[0, 1])
    with pytest.warns(
        UserWarning, match="y0.'c'. of subject 0 is 320, and events row 0 .*gets it twice"
    ):
        solved(320.0, table, who=(0, 1))
    with pytest.warns(
        UserWarning, match="State 'c' starts, and is dosed, with at most .*Set atol="
    ):
        solved(1e-12, None, rhs=nonlinear, who=(0, 1))


@pytest.mark.parametrize(
    ("y0", "events"),
    [
        (0.0, DOSES),
        (310.0, DOSES),  # the table gives it later
        (5.0, DOSES),
        (320.0, DOSES.assign(cmt="d")),
        (320.0, DOSES.assign(evid=4)),  # which takes away what is there
        (pm.Normal.dist(320.0, 1.0), DOSES),
    ],
)
def test_a_dose_once(y0, events):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved(y0, events)


@pytest.mark.parametrize(
    ("y0", "amount"), [(1e-12, None), (0.0, 1e-9), (np.array([0.0, 3e-6]), None)]
)
def test_states_below_the_tolerance(y0, amount):
    events = None if amount is None else Doses(DOSES.assign(amt=amount))
    with pytest.warns(
        UserWarning, match="State 'c' starts, and is dosed, with at most .*atol = 1e-06.*Set atol="
    ):
        solved(y0, events, rhs=nonlinear)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved(y0, events, rhs=nonlinear, atol=1e-18)
        solved(y0, events)  # exact, as it is linear
        solved(y0, DOSES, rhs=nonlinear)


def test_with_the_tolerance_that_the_warning_says_the_number_is_right():
    def fast(t, y, p):
        return {"c": -y.c / (1.0 + y.c), "d": 0.0}

    with pytest.warns(UserWarning, match="Set atol=1e-18"):
        coarse = solved(1e-12, None, rhs=fast, t0=-9.0).c.eval()
    fine = solved(1e-12, None, rhs=fast, t0=-9.0, atol=1e-18).c.eval()
    expected = 1e-12 * np.exp(-12.0)
    np.testing.assert_allclose(fine, expected, rtol=5e-2)
    assert (np.abs(coarse / expected - 1.0) > 1.0).all()


def test_periods_that_lie_on_each_other():
    def crossover(times, t):
        table = pd.DataFrame({"id": "ann", "time": times, "amt": [100.0, 50.0]})
        return solve_ivp(linear, {"c": 0.0, "d": 0.0}, {}, t, ["ann"] * len(t), events=table)

    with pytest.warns(
        UserWarning,
        match="Subject 'ann' has a second dose at time 0 in events row 1, and time goes back to 1 in row 2 of t",
    ):
        crossover([0.0, 0.0], [1.0, 24.0, 1.0, 24.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crossover([0.0, 168.0], [1.0, 24.0, 169.0, 192.0])
        crossover([0.0, 168.0], [1.0, 169.0, 24.0, 192.0])
        crossover([0.0, 0.0], [1.0, 24.0])
