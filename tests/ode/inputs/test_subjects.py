"""Whose rows and whose doses: labels are matched, codes are places, and what could be either is refused."""

import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr

from pymc_saem.ode import interpolate, solve_ivp

RATE = 0.1
# Three people, in the order of a file; the last one took nothing.
FILE = pd.DataFrame({
    "ID": [1, 1, 2, 2, 3], "TIME": [0.0, 1.0, 0.0, 2.0, 1.0], "AMT": [100.0, np.nan, 50.0, np.nan, np.nan],
    "EVID": [1, 0, 1, 0, 0],
})  # fmt: skip
EXPECTED = np.array([100.0 * np.exp(-RATE), 50.0 * np.exp(-2 * RATE), 0.0])
NAMES = {1: "ann", 2: "bob", 3: "cem"}


def solved(subject, events=None, t=None, rate=None, params=None, y0=0.0):
    rate = np.full(3, RATE) if rate is None else rate
    solution = solve_ivp(
        lambda t, y, p: {"c": -p.k * y.c}, {"c": y0}, {"k": rate} | (params or {}),
        t=FILE.TIME[FILE.EVID == 0].to_numpy() if t is None else t, subject=subject, events=events,
    )  # fmt: skip
    return solution


def labelled(kind):
    """The file, and the labels of its observations, in many spellings."""
    table = FILE.copy()
    if kind == "strings":
        table["ID"] = table["ID"].map(NAMES)
    elif kind == "floats":
        table["ID"] = table["ID"].astype(float)
    elif kind == "large":
        table["ID"] = table["ID"] * 10**9
    elif kind == "dates":
        table["ID"] = pd.to_datetime("2020-01-01") + pd.to_timedelta(table["ID"], unit="D")
    elif kind == "pairs":
        table["ID"] = [(label, label) for label in table["ID"]]
        return table, pd.MultiIndex.from_tuples(table["ID"][table["EVID"] == 0])
    elif kind == "nullable":
        table["ID"] = table["ID"].astype("Int64")
    elif kind in ("category", "categories"):
        table["ID"] = pd.Categorical(table["ID"].map(NAMES))
    of_rows = table["ID"][table["EVID"] == 0]
    shown = {
        "array": of_rows.to_numpy(), "list": of_rows.tolist(), "index": pd.Index(of_rows), "categories": of_rows.values,
    }  # fmt: skip
    return table, shown.get(kind, of_rows)


@pytest.mark.parametrize(
    "kind",
    [
        "series",
        "array",
        "list",
        "index",
        "strings",
        "floats",
        "large",
        "dates",
        "nullable",
        "category",
        "categories",
        "pairs",
    ],
)
@pytest.mark.parametrize("which", ["whole file", "doses only"])
def test_labels_are_matched_in_every_spelling(kind, which):
    table, subject = labelled(kind)
    events = (
        table
        if which == "whole file"
        else table[table["EVID"] == 1].sample(frac=1.0, random_state=2)
    )
    solution = solved(subject, events)
    np.testing.assert_allclose(solution.c.eval(), EXPECTED, rtol=1e-6)
    np.testing.assert_allclose(
        solution.at([2.0, 1.0], list(subject)[1::-1]).c.eval(), EXPECTED[1::-1], rtol=1e-6
    )
    np.testing.assert_allclose(solved(subject, events, rate=RATE).c.eval(), EXPECTED, rtol=1e-6)


def test_a_file_tells_who_its_rows_with_codes_are():
    codes = FILE.ID[FILE.EVID == 0].factorize()[0]
    np.testing.assert_allclose(solved(codes, FILE).c.eval(), EXPECTED, rtol=1e-6)
    # Without its observations, the same table may hold codes or labels.
    with pytest.raises(
        ValueError,
        match=r"subject is 1, 2 beside rows with the codes 0..2.*Pass labels in both places",
    ):
        solved(codes, FILE[FILE.EVID == 1])
    with pytest.raises(ValueError, match="row 2: subject is 3; it must be one of the codes 0..2"):
        solved(codes, pd.DataFrame({"ID": [1, 2, 3], "TIME": 0.0, "AMT": 1.0}))
    # In another order of the rows, the table does not tell it.
    with pytest.raises(ValueError, match="Pass labels in both places"):
        solved([0, 0, 1], FILE[::-1], t=[1.0, 2.0, 1.0])


def test_a_file_whose_numbers_are_not_the_codes():
    file = FILE.assign(ID=FILE.ID.map({1: 2, 2: 0, 3: 1}))
    rows = file[file.EVID == 0]
    codes = rows.ID.factorize()[0]
    by_index = solve_ivp(
        lambda t, y, p: {"c": -p.k * y.c},
        {"c": 0.0},
        {"k": np.full(3, RATE)},
        t=rows.TIME,
        subject=codes,
        events=file,
    )
    np.testing.assert_allclose(by_index.c.eval(), EXPECTED, rtol=1e-6)
    with pytest.raises(
        ValueError, match="would be rows of t that have other codes.*Pass labels in both places"
    ):
        solved(codes, file)
    # as codes, which are labels as well
    np.testing.assert_allclose(solved(rows.ID, file).c.eval(), EXPECTED, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["i8", ">i4", "u1"])
def test_codes_stay_codes(dtype):
    table = pd.DataFrame({"subject": np.array([2, 0], dtype), "time": 0.0, "amt": [50.0, 100.0]})
    solution = solved(np.array([2, 0, 1], dtype), table, t=[2.0, 1.0, 1.0])
    np.testing.assert_allclose(solution.c.eval(), EXPECTED[[1, 0, 2]], rtol=1e-6)
    np.testing.assert_allclose(solution.at([1.0], [0]).c.eval(), EXPECTED[:1], rtol=1e-6)
    with pytest.raises(ValueError, match="subject is 'ann'; it must be one of the codes 0..2"):
        solved([2, 0, 1], table.assign(subject=["ann", "bob"]))


def test_a_label_without_rows_is_refused_by_name():
    subject = FILE.ID[FILE.EVID == 0]
    stranger = pd.concat(
        [FILE, pd.DataFrame({"ID": [7], "TIME": [0.0], "AMT": [9.0], "EVID": [1]})]
    )
    with pytest.raises(
        ValueError,
        match="events row 5: subject 7 has no row in t; the subjects of the rows are 1, 2, 3",
    ):
        solved(subject, stranger)
    with pytest.raises(ValueError, match="subject '1' has no row in t"):
        solved(subject, FILE.assign(ID=FILE.ID.astype(str)))
    with pytest.raises(ValueError, match="subject 0 has no row in t"):
        solved(subject, FILE.assign(ID=FILE.ID - 1))
    with pytest.raises(ValueError, match="subject 4 has no row in t"):
        solved(subject).at([1.0], [4])
    solved(pd.Categorical(subject, categories=[7, 1, 2, 3]), stranger, rate=np.full(4, RATE))


def test_the_order_of_labels():
    rates, amounts = (
        {"c": 0.1, "a": 0.2, "b": 0.3},
        pd.DataFrame({"id": list("abc"), "time": 0.0, "amt": [1.0, 2.0, 3.0]}),
    )
    rows = ["c", "a", "b"]
    expected = np.array([3.0 * np.exp(-0.1), 1.0 * np.exp(-0.2), 2.0 * np.exp(-0.3)])
    t = np.ones(3)
    with pytest.warns(
        UserWarning, match="not in sorted order: 'c', 'a', 'b'.*order of first appearance"
    ):
        first = solved(rows, amounts, t, rate=np.array([0.1, 0.2, 0.3]))
    by_category = solved(pd.Categorical(rows), amounts, t, rate=np.array([0.2, 0.3, 0.1]))
    by_index = solved(rows, amounts, t, rate=pd.Series(rates).sort_index())
    with pm.Model(coords={"person": ["b", "a", "c", "d"]}):
        k = pm.Data("k", [0.3, 0.2, 0.1, 9.0], dims="person")
        by_coords = solved(rows, amounts, t, rate=k)
        with pytest.raises(ValueError, match="a different order from the coords"):
            solved(pd.Categorical(rows, categories=list("abcd")), amounts, t, rate=k)
    for solution in (first, by_category, by_index, by_coords):
        np.testing.assert_allclose(solution.c.eval(), expected, rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved(rows, amounts, t, rate=np.full(3, 0.1))  # the order makes no difference


@pytest.mark.parametrize("by_label", [True, False])
def test_an_index_of_labels_is_never_taken_for_places(by_label):
    rates, rows, t = pd.Series({"a": 0.1, "b": 0.2}), ["b", "a"], np.array([1.0, 2.0])
    array = xr.DataArray(rates.to_numpy(), dims="id", coords={"id": ["a", "b"]})
    with pm.Model(coords={"id": ["b", "a"]}):  # the coords name the places of codes
        params = {} if by_label else {"k": pm.Data("k", np.zeros(2), dims="id")}
        subject = rows if by_label else [0, 1]
        for rate in (rates, array, array.expand_dims(entry=1).transpose("id", "entry")):
            solution = solve_ivp(
                lambda t, y, p: {"c": -p.rate.sum() * y.c},
                {"c": 1.0},
                {"rate": rate, **params},
                t,
                subject,
            )
            np.testing.assert_allclose(solution.c.eval(), np.exp([-0.2, -0.2]), rtol=1e-6)
    if by_label:
        for index in (["a", "z"], pd.Index([4, 9], name="id")):
            with pytest.raises(
                ValueError, match="'k' has the index .* the subjects of the rows are 'a', 'b'"
            ):
                solved(["a", "b"], rate=pd.Series([0.1, 0.2], index=index), t=t)
        # rows of a file
        kept = solved(["a", "b"], rate=pd.Series([0.1, 0.2], index=[0, 11]), y0=1.0, t=t)
        np.testing.assert_allclose(kept.c.eval(), np.exp([-0.1, -0.4]), rtol=1e-6)


def test_codes_and_labels_in_a_model_with_coords():
    doses = pd.DataFrame({"id": [1, 2], "time": 0.0, "amt": [100.0, 50.0]})
    t = FILE.TIME[FILE.EVID == 0].to_numpy()
    with pm.Model(coords={"subject": ["ann", "bob", "cem"]}):
        k = pm.Data("k", np.full(3, RATE), dims="subject")
        codes = solved([0, 1, 2], doses.assign(id=["ann", "bob"]), t, rate=k)
        np.testing.assert_allclose(codes.c.eval(), EXPECTED, rtol=1e-6)
        solved([1, 1, 2], None, t, rate=k)  # codes without a doubt
        with pytest.raises(
            ValueError,
            match="subject 'cme' in row 2 is not in the coords of the model, 'ann', 'bob', 'cem'",
        ):
            solved(["ann", "bob", "cme"], None, t, rate=k)
    with pm.Model(coords={"subject": [1, 2, 3]}):
        k = pm.Data("k", np.full(3, RATE), dims="subject")
        with pytest.raises(
            ValueError,
            match="may be codes, places on the leading axis, or labels of the subjects 1, 2, 3",
        ):
            solved([0, 1, 2], doses, t, rate=k)
        np.testing.assert_allclose(
            solved([1, 2, 3], doses, t, rate=k).c.eval(), EXPECTED, rtol=1e-6
        )
        with pytest.raises(ValueError, match="Say which"):
            solved([1, 2, 2], doses, t, rate=k)
    with pm.Model(coords={"subject": [2, 0, 1]}):  # as factorize gives them
        k = pm.Data("k", np.full(3, RATE), dims="subject")
        solved([0, 1, 2], None, t, rate=k)
        with pytest.raises(ValueError, match="Say which"):
            solved([2, 0, 1], None, t, rate=k)


def test_covariates_find_their_subjects_by_label():
    table = pd.DataFrame({"ID": ["b", "a", "b"], "TIME": [0.0, 0.0, 1.0], "rate": [0.1, 0.2, 0.3]})
    solution = solve_ivp(
        lambda t, y, p: {"c": -p.k(t) * y.c}, {"c": 1.0}, {"k": interpolate(table, "constant")},
        t=[2.0, 2.0], subject=["a", "b"],
    )  # fmt: skip
    np.testing.assert_allclose(solution.c.eval(), np.exp([-0.4, -0.4]), rtol=1e-6)
    with pytest.raises(ValueError, match=r"params\['k'\]: subject c has no row"):
        solve_ivp(
            lambda t, y, p: {"c": -p.k(t) * y.c},
            {"c": 1.0},
            {"k": interpolate(table)},
            [1.0] * 3,
            list("abc"),
        )
    with pytest.raises(ValueError, match="subject 'b' has no row in t"):
        solve_ivp(
            lambda t, y, p: {"c": -p.k(t) * y.c},
            {"c": 1.0},
            {"k": interpolate(table)},
            [1.0],
            ["a"],
        )


def test_a_large_number_is_a_label():
    solution = solve_ivp(
        lambda t, y, p: {"c": -p.k * y.c}, {"c": 1.0}, {"k": RATE}, [1.0, 1.0], [10**9, 5]
    )
    assert solution.status.eval().shape == (2,)
    np.testing.assert_allclose(solution.c.eval(), np.exp(-RATE), rtol=1e-6)
