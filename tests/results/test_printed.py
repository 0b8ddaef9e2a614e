"""Results that print as a table below a heading."""

import pandas as pd

from pymc_saem.refit.cross_validation import CrossValidation


def test_text_and_html_have_heading_and_table():
    table = pd.DataFrame({"fold": [0, 1], "score": [-1.23456, -2.0], "error": 0.0}, index=["ann", "<bob>"])
    found = CrossValidation(table, pd.DataFrame(), {1: "no solution"})
    head, lost, *rows = repr(found).splitlines()
    assert str(found) == repr(found)
    assert head.startswith("2 folds, 2 subjects: log score -3.23") and lost == "lost: fold 1, no solution"
    assert rows[1].split() == ["ann", "0", "-1.235", "0"]
    page = found._repr_html_()
    assert "<p>2 folds" in page and "<td>-1.235</td>" in page and "&lt;bob&gt;" in page
