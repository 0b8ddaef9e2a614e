"""What a table of doses and a covariate print, in a line and in a notebook."""

import numpy as np
import pandas as pd
import pytest

from pymc_saem.ode import Doses, interpolate

TABLE = pd.DataFrame(
    {
        "ID": ["a", "a", "a", "b", "b"],
        "TIME": [0.0, 1.0, 24.0, 0.0, 5.0],
        "AMT": [100.0, ".", 50.0, 100.0, 0.0],
        "RATE": [0.0, 0.0, 25.0, 0.0, 0.0],
        "ADDL": [3, 0, 0, 0, 0],
        "II": [12.0, 0.0, 0.0, 0.0, 0.0],
        "EVID": [1, 0, 4, 1, 3],
        "CMT": ["gut", "blood", "blood", "gut", "gut"],
    }
)


def test_doses_are_counted():
    doses = Doses(TABLE, lag_time={"gut": "tlag"})
    assert repr(doses) == (
        "Doses(rows=5, subjects=2, doses=3, additional=3, infusions=1, resets=2, compartments=['gut', 'blood'], "
        "lag_time={'gut': 'tlag'})"
    )
    page = doses._repr_html_()
    assert (
        "<th>infusions</th><td>1</td>" in page
        and "<td>gut, blood</td>" in page
        and "<td>gut: tlag</td>" in page
    )


def test_doses_without_evid_are_the_rows_with_an_amount():
    table = pd.DataFrame(
        {
            "time": [0.0, 1.0, 2.0],
            "amt": [1.0, np.nan, 0.0],
            "rate": [0.0, 0.0, 2.0],
            "ss": [0, 0, 1],
        }
    )
    assert repr(Doses(table)) == "Doses(rows=3, doses=2, infusions=1, steady_states=1)"


@pytest.mark.parametrize(
    "table", [pd.DataFrame(), pd.DataFrame({"amt": [[1, 2], None], "AMT": ["x", "y"]}), None]
)
def test_tables_that_cannot_be_read_are_printed(table):
    assert repr(Doses(table)).startswith("Doses(")


def test_covariates_name_their_columns():
    table = pd.DataFrame({"id": [1, 1, 2], "Time": [0.0, 1.0, 0.0], "weight": [60.0, 61.0, 70.0]})
    curve = interpolate(table)
    assert (
        repr(curve)
        == "Interpolation(kind='linear', time='Time', subject='id', value='weight', rows=3, subjects=2)"
    )
    assert "<tr><th>value</th><td>weight</td></tr>" in curve._repr_html_()
    single = interpolate(pd.DataFrame({"time": [0.0, 1.0], "<b>": [1.0, 2.0]}), "constant")
    assert repr(single) == "Interpolation(kind='constant', time='time', value='<b>', rows=2)"
    assert "<td>&lt;b&gt;</td>" in single._repr_html_()
