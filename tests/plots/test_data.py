"""plot_data draws every row once, in the order of time, and says what is wrong with a table."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import pymc_saem as ps


@pytest.fixture
def table():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "subject": np.repeat(["a", "b", "c"], 4),
            "time": np.tile([3.0, 1.0, 2.0, 4.0], 3),
            "conc": rng.random(12) + 0.5,
        }
    )
    frame["dose"] = np.where(frame["subject"] == "c", 200, 100)
    frame.loc[5, "conc"] = np.nan
    frame.attrs["units"] = {"time": "h", "conc": "mg/L"}
    yield frame
    plt.close("all")


def drawn(ax):
    """(x, y) of all lines with points."""
    return [
        (line.get_xdata(), line.get_ydata())
        for line in ax.lines
        if line.get_marker() != "None" and len(line.get_xdata())
    ]


def test_spaghetti_has_a_line_per_subject(table):
    (ax,) = ps.plot_data(table, "time", "conc")
    lines = drawn(ax)
    assert len(lines) == 3 and ax.get_xlabel() == "time [h]" and ax.get_ylabel() == "conc [mg/L]"
    assert list(lines[0][0]) == [1.0, 2.0, 3.0, 4.0] and list(lines[0][1]) == list(
        table["conc"].to_numpy()[[1, 2, 0, 3]]
    )
    assert list(lines[1][0]) == [2.0, 3.0, 4.0]  # the row without an observation is left out


def test_panels_show_their_subject_before_the_others(table):
    axes = ps.plot_data(table, "time", "conc", kind="panels", subjects=["c", "a"], log=True)
    assert [ax.get_title() for ax in axes] == ["subject c", "subject a"]
    assert all(
        len(drawn(ax)) == 1 and len(ax.lines) == 3 and ax.get_yscale() == "log" for ax in axes
    )
    assert list(drawn(axes[0])[0][1]) == list(table["conc"].to_numpy()[[9, 10, 8, 11]])


def test_groups_have_colours(table):
    (ax,) = ps.plot_data(table, "time", "conc", by="dose")
    assert [text.get_text() for text in ax.figure.legends[0].texts] == ["dose 100", "dose 200"]
    colours = [line.get_color() for line in ax.lines if len(line.get_xdata())]
    assert colours[0] == colours[1] != colours[2]


def test_pages_and_given_axes(table):
    many = pd.concat([table.assign(subject=table["subject"] + str(k)) for k in range(4)])
    assert (
        len({ax.figure for ax in ps.plot_data(many, "time", "conc", kind="panels", per_page=5)})
        == 3
    )
    _, ax = plt.subplots()
    assert ps.plot_data(table, "time", "conc", ax=ax)[0] is ax


def test_errors(table):
    for change, options, words in (
        ({}, {"y": "level"}, "data has no column 'level'; it has subject, time, conc, dose"),
        ({}, {"kind": "box"}, "kind is 'box'"),
        ({}, {"subjects": ["z"]}, "There is no subject z; there are a, b, c"),
        ({"conc": "high"}, {}, "column 'conc' must hold numbers"),
        ({"conc": np.nan}, {}, "no row of data has both 'time' and 'conc'"),
        ({"dose": np.arange(12)}, {"by": "dose"}, "column 'dose' has 11 values; at most 7 colours"),
    ):
        with pytest.raises(ValueError, match=words):
            ps.plot_data(table.assign(**change), **{"x": "time", "y": "conc"} | options)
