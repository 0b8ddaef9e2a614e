"""The shipped data: shapes, units, known values, and independence of the copies."""

import numpy as np
import pytest

from pymc_saem.datasets import load_orange, load_theophylline


def test_theophylline_columns_and_types():
    data = load_theophylline()
    assert data.shape == (132, 5)
    assert list(data.columns) == ["subject", "time", "conc", "weight", "dose"]
    assert data["subject"].dtype.kind == "i"
    assert data.notna().all().all()
    assert data.attrs["units"] == {
        "subject": "",
        "time": "h",
        "conc": "mg/L",
        "weight": "kg",
        "dose": "mg",
    }


def test_theophylline_known_values():
    data = load_theophylline()
    assert data["subject"].drop_duplicates().to_list() == list(range(1, 13))
    assert (data.groupby("subject").size() == 11).all()
    assert data.iloc[0].to_dict() == pytest.approx(
        {"subject": 1, "time": 0, "conc": 0.74, "weight": 79.6, "dose": 79.6 * 4.02}
    )
    assert data["conc"].max() == 11.4
    assert data["time"].max() == 24.65


def test_theophylline_dose_is_total_milligrams_constant_within_subject():
    dose = load_theophylline().groupby("subject")["dose"]
    assert (dose.nunique() == 1).all()
    np.testing.assert_allclose(dose.first().drop(9), 320, rtol=0.005)
    assert dose.first()[9] == pytest.approx(86.4 * 3.10)


def test_theophylline_times_ascend_within_subject():
    data = load_theophylline()
    assert data.groupby("subject")["time"].is_monotonic_increasing.all()


def test_orange():
    data = load_orange()
    assert data.shape == (35, 3)
    assert list(data.columns) == ["tree", "age", "circumference"]
    assert data["tree"].drop_duplicates().to_list() == [1, 2, 3, 4, 5]
    assert sorted(set(data["age"])) == [118, 484, 664, 1004, 1231, 1372, 1582]
    assert data["circumference"].sum() == 4055
    assert data.attrs["units"] == {"tree": "", "age": "days", "circumference": "mm"}


@pytest.mark.parametrize("load", [load_theophylline, load_orange])
def test_every_call_gives_a_fresh_copy(load):
    first = load()
    first.iloc[:, 1] = -1
    first.attrs["units"].clear()
    second = load()
    assert (second.iloc[:, 1] >= 0).all()
    assert second.attrs["units"]
