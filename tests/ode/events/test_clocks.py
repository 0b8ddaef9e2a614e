"""Clocks that begin anew, dates, and missing or countless doses: refused, with subject and row."""

import numpy as np
import pandas as pd
import pytest

from pymc_saem.ode import solve_ivp


def solved(table, t=(1.0, 25.0), t0=0.0, who="ann"):
    return solve_ivp(
        lambda t, y, p: {"c": -0.1 * y.c}, {"c": 0.0}, {}, list(t), [who] * len(t), t0=t0,
        events=pd.DataFrame({"id": who, "cmt": 1} | table),
    ).c.eval()  # fmt: skip


def test_a_clock_that_goes_on():
    table = {
        "time": [0.0, 1.0, 24.0, 25.0],
        "evid": [1, 0, 4, 0],
        "amt": [100.0, np.nan, 50.0, np.nan],
    }
    expected = np.array([100.0, 50.0]) * np.exp(-0.1)
    np.testing.assert_allclose(solved(table), expected, rtol=1e-6)
    # rows in any order
    np.testing.assert_allclose(solved(table, t=[25.0, 1.0]), expected[::-1], rtol=1e-6)
    np.testing.assert_allclose(solved(table | {"OCC": [1, 1, 2, 2]}), expected, rtol=1e-6)
    # A reset, then a dose at the same time; doses of one drug in any order; observations below the
    # doses.
    np.testing.assert_allclose(
        solved({"time": [0.0, 0.0], "evid": [3, 1], "amt": [0.0, 100.0]}, [1.0]),
        expected[:1],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        solved({"time": [5.0, 0.0], "amt": [9.0, 100.0]}, [1.0]), expected[:1], rtol=1e-6
    )
    np.testing.assert_allclose(
        solved({"time": [0.0, 30.0, 1.0], "amt": [100.0, 9.0, 0.0], "evid": [1, 1, 0]}, [1.0]),
        expected[:1],
        rtol=1e-6,
    )


BEGIN_ANEW = {
    "reset": {"time": [0.0, 24.0, 0.0], "evid": [1, 0, 4], "amt": [100.0, np.nan, 50.0]},
    "reset without dose": {
        "time": [0.0, 24.0, 0.0],
        "evid": [1, 0, 3],
        "amt": [100.0, np.nan, np.nan],
    },
    "doses only": {"time": [0.0, 0.0], "evid": [1, 4], "amt": [100.0, 50.0]},
    "later doses": {"time": [0.0, 24.0, 0.5], "evid": [1, 1, 4], "amt": [100.0, 100.0, 50.0]},
    "no reset": {"time": [0.0, 24.0, 0.0], "evid": [1, 0, 1], "amt": [100.0, 0.0, 50.0]},
    "occasion": {"time": [0.0, 0.0], "amt": [100.0, 50.0], "OCC": [1, 2]},
    "period": {"time": [0.0, 12.0, 1.0], "amt": [100.0, 50.0, 10.0], "Period": ["A", "A", "B"]},
    "date": {"time": [8.0, 20.0, 9.0], "amt": [100.0, 50.0, 10.0], "date": ["1-1", "1-1", "1-2"]},
}


@pytest.mark.parametrize("who", ["ann", 0])
@pytest.mark.parametrize("case", BEGIN_ANEW)
def test_a_clock_that_begins_anew_is_refused(case, who):
    table = BEGIN_ANEW[case]
    row = len(table["time"]) - 1
    with pytest.raises(ValueError, match=rf"events row {row}: .*{who!r}.*time that continues"):
        solved(table, who=who)


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"time": pd.to_datetime(["2020-01-01"]), "amt": [1.0]}, TypeError, "time in events must hold numbers, got datetime64"),
        ({"time": pd.to_datetime(["2020-01-01"], utc=True), "amt": [1.0]}, TypeError, "time in events must hold numbers"),
        ({"time": pd.to_timedelta(["3h"]), "amt": [1.0]}, TypeError, "time in events must hold numbers, got timedelta64"),
        ({"time": [0.0, 1.0], "amt": [1.0, 1.0], "addl": [0, np.nan], "ii": [0.0, 24.0]}, ValueError, "events row 1: ii is 24 and addl is missing"),
        ({"time": [0.0, 1.0], "amt": [1.0, np.nan]}, ValueError, r"events row 1: amt is missing \(nan\)"),
        ({"time": [0.0, 1.0], "amt": [1.0, np.nan], "evid": [1, 1]}, ValueError, "events row 1: amt is missing"),
        ({"time": [0.0, 1.0], "amt": [1.0, np.nan], "DV": [np.nan, np.nan]}, ValueError, "events row 1: amt is missing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("who", ["ann", 0])
def test_bad_tables(table, error, message, who):
    with pytest.raises(error, match=message):
        solved(table, who=who)


@pytest.mark.parametrize("addl", [1e7, 1e300])
def test_a_regimen_may_be_longer_than_the_rows(addl):
    doses = np.exp(-0.1 * (20.5 - np.arange(21)))
    found = solved({"time": [0.0], "amt": [1.0], "addl": [addl], "ii": [1.0]}, [20.5])
    np.testing.assert_allclose(found, doses.sum(), rtol=1e-6)


def test_more_doses_than_a_solve_can_take():
    with pytest.raises(
        ValueError, match=r"addl is 1e\+09 at the interval ii = 1e-09, which makes 1e\+09 doses"
    ):
        solved({"time": [0.0], "amt": [1.0], "addl": [1e9], "ii": [1e-9]}, [1.0])


def test_observations_may_have_no_amount():
    doses = np.array([100.0 * np.exp(-0.1)])
    np.testing.assert_allclose(
        solved({"time": [0.0, 1.0], "amt": [100.0, np.nan], "DV": [np.nan, 3.0]}, [1.0]),
        doses,
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        solved({"time": [0.0, 1.0], "amt": [100.0, np.nan], "mdv": [1, 0]}, [1.0]), doses, rtol=1e-6
    )


@pytest.mark.parametrize(
    "dates",
    [
        pd.to_datetime(["2020-01-01"], utc=True),
        pd.to_timedelta(["1h"]),
        [pd.Timestamp("2020-01-01", tz="UTC")],
    ],
)
def test_dates_are_no_times(dates):
    with pytest.raises(TypeError, match="t must hold numbers"):
        solve_ivp(lambda t, y, p: {"c": -0.1 * y.c}, {"c": 0.0}, {}, dates)
    with pytest.raises(TypeError, match="k.* must hold numbers"):
        solve_ivp(lambda t, y, p: {"c": -0.1 * y.c}, {"c": 0.0}, {"k": dates}, [1.0], ["a"])
    with pytest.raises(TypeError, match="t0 .*number"):
        solve_ivp(lambda t, y, p: {"c": -0.1 * y.c}, {"c": 0.0}, {}, [1.0], ["a"], t0=dates)
