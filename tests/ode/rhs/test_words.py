"""Errors say values as the user would write them, and what to do."""

import numpy as np
import pandas as pd
import pytest

from pymc_saem.ode import SolverStatus, interpolate, solve_ivp


def solved(events=None, **options):
    return solve_ivp(
        lambda t, y, p: {"a": -p.k * y.a},
        {"a": 0.0},
        {"k": 1.0},
        [1.0, 2.0],
        events=events,
        **options,
    )


TABLES = {
    "cmt": ({"cmt": [0]}, r"cmt is 0; it must be one of 1 'a'\.$"),
    "cmt that is no whole number": ({"cmt": [1.5]}, r"cmt is 1\.5; it must be one of 1 'a'\.$"),
    "cmt that is a text": ({"cmt": np.array(["x"])}, r"cmt is 'x'; it must be one of"),
    "amt that is missing": ({"amt": ["."]}, r"amt must be a number, got '\.'\. For files of NONMEM: pd\.read_csv\(file, na_values='\.'\)"),
    "evid with a flag": ({"evid": [101]}, r"evid is 101; it must be .* Without NONMEM's flag of 100 .*: evid % 100\.$"),
    "evid": ({"evid": [5]}, r"4 \(reset and dose\)\.$"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_events(case):
    columns, text = TABLES[case]
    with pytest.raises((TypeError, ValueError), match=text):
        solved(pd.DataFrame({"time": [0.0], "amt": [1.0]} | columns))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"rtol": np.float64(-1.0)}, r"got -1\.0\.$"),
        ({"max_steps": np.int64(-1)}, r"got -1\.$"),
        ({"max_steps": np.float64(1.5)}, r"max_steps is 1\.5;"),
        ({"t0": np.float64(np.nan)}, r"got nan\.$"),
        ({"solver": np.str_("x")}, "Unknown solver 'x';"),
    ],
)
def test_numpy_scalars_are_shown_as_numbers(options, text):
    with pytest.raises((TypeError, ValueError), match=text):
        solved(**options)


def test_labels_are_shown_as_numbers():
    with pytest.raises(ValueError, match=r"row 1 of subject 5: time nan"):
        interpolate(pd.DataFrame({"id": [5, 5], "time": [0.0, np.nan], "w": [1.0, 2.0]}))


def test_only_what_steps_may_mend_speaks_of_steps():
    speaks = {
        status.name
        for status in SolverStatus
        if "more steps than solutions" in status.gradient_advice
    }
    assert speaks == {"MAX_STEPS", "STEP_TOO_SMALL", "SOLVER_FAILURE", "STIFF"}
