"""Results that print as a table below a heading."""

import numpy as np
import pandas as pd

import pymc_saem as ps
from pymc_saem.refit.cross_validation import CrossValidation
from pymc_saem.results.build import FitResult, Variable, build_datatree
from pymc_saem.results.tables.printed import fitted


def test_text_and_html_have_heading_and_table():
    table = pd.DataFrame(
        {"fold": [0, 1], "score": [-1.23456, -2.0], "error": 0.0}, index=["ann", "<bob>"]
    )
    found = CrossValidation(table, pd.DataFrame(), {1: "no solution"})
    head, lost, *rows = repr(found).splitlines()
    assert str(found) == repr(found)
    assert (
        head.startswith("2 folds, 2 subjects: log score -3.23")
        and lost == "lost: fold 1, no solution"
    )
    assert rows[1].split() == ["ann", "0", "-1.235", "0"]
    page = found._repr_html_()
    assert "<p>2 folds" in page and "<td>-1.235</td>" in page and "&lt;bob&gt;" in page


def fit_of_networks():
    """A fit with a scale and two networks, of which one has standard errors."""
    labels = [
        "sigma",
        *(f"{z}[{w}]" for z in ("z_a", "z_b") for w in ("W1[0,0]", "b1[0]", "b2[0]")),
    ]
    estimate = [0.4753, -10.79, 3.003, 1.114, 0.5, 0.25, 0.75]
    known = [0.1, *[np.nan] * 3, *[0.125] * 3]
    columns = {"parameter": np.array(labels), "estimate": np.array(estimate), "se": np.array(known)}
    columns |= {
        "lower": np.array(estimate) - known,
        "upper": np.array(estimate) + known,
        "rse": np.array(known),
    }
    columns |= {"m_step": np.full(7, "closed form"), "role": np.full(7, "mean of random effects")}
    columns |= {"note": np.full(7, ""), "effects": np.full(7, "[]")}
    result = FitResult(
        coords={}, trace={"sigma": Variable((), np.ones((1, 2)))}, population=columns, observed={}, constant={},
        group_attrs={"population": {"networks": ["z_a", "z_b"]}, "saem_trace": {}},
    )  # fmt: skip
    return build_datatree(result)


def test_weights_without_standard_errors_share_a_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    idata = fit_of_networks()
    lines = str(ps.summary(idata)).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "sigma", "z_a (3 weights)", "z_b[W1[0,0]]", "z_b[b1[0]]", "z_b[b2[0]]",
    ]  # fmt: skip
    assert "-10.79 to 3.003" in lines[3]
    whole = ps.summary(idata, weights=True)
    assert len(str(whole).splitlines()) == 9
    assert list(ps.summary(idata).index) == list(whole.index)  # only the printed table is folded
    assert (
        "z_a (3 weights)" in ps.summary(idata)._repr_html_() and "z_a[b1[0]]" in whole._repr_html_()
    )


def test_headers_say_percent_and_lines_fit(monkeypatch):
    idata = fit_of_networks()
    for columns in (60, 80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = str(ps.summary(idata))
        assert max(map(len, text.splitlines())) <= columns
        assert "rse %" in text and "95 % interval" in text and "0.3753 to 0.5753" in text
    assert "m_step" in text and "role" in text  # there is room for them in 100 columns


def test_a_table_without_room_prints_in_blocks(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    table = pd.DataFrame({f"column_{k}": [1.0] for k in range(10)})
    text = fitted(table, ("column_0",))
    assert max(map(len, text.splitlines())) <= 60 and "column_0" not in text and "column_9" in text
