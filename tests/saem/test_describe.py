"""The description of a model, in text and in notebooks."""

import numpy as np
import pymc as pm

import pymc_saem as ps


def test_a_description_shows_its_tables_without_print(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pm.Model(coords={"<tree>": ["a", "b", "c"]}) as model:
        b = pm.Normal("b", pm.Flat("mu"), pm.HalfFlat("omega", initval=1.0), dims="<tree>")
        pm.Normal("y", b, 0.5, observed=np.array([0.5, 1.0, 2.0]))
    read = ps.summarize(model)
    assert repr(read) == str(read)
    head, *lines = repr(read).splitlines()
    assert head == "3 subjects (dim '<tree>')"
    assert [line for line in lines if line in ("Random effects", "Parameters", "Data")] == [
        "Random effects",
        "Parameters",
        "Data",
    ]
    assert any(line.split()[:2] == ["b", "1"] and "mu" in line for line in lines)
    page = read._repr_html_()
    assert page.count("<table") == 3 and "<p>3 subjects (dim '&lt;tree&gt;')</p>" in page
