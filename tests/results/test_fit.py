"""The reader of a fit: what it says where a fit lacks something."""

import json

import numpy as np
import pymc as pm
import pytest
import xarray as xr

import pymc_saem as ps
from pymc_saem.compat import make_datatree
from pymc_saem.results.fit import Fit, MissingGroupError

TRACE = xr.Dataset({"a": (("chain", "iteration"), [[0.0, 1.0], [2.0, 3.0]])})
TABLE = xr.Dataset({"estimate": ("parameter", [3.0])}, coords={"parameter": ["a"]})


def without_individuals(**attrs):
    attrs = {name: json.dumps(value) for name, value in attrs.items()}
    return make_datatree({"saem_trace": TRACE, "population": TABLE}, attrs)


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        (
            ["The file: full.", "Conditional draws: no gradients."],
            "Conditional draws: no gradients.",
        ),
        (["The file: full."], "The file: full."),
        ([], "It was run without them (draws=0), or did not finish."),
    ],
)
def test_the_reason_why_there_are_no_individuals(notes, reason):
    with pytest.raises(MissingGroupError) as found:
        _ = Fit(without_individuals(notes=notes)).individual
    text = f"The fit has no group 'individual', so no conditional distributions of random effects. {reason}"
    assert str(found.value) == text
    assert isinstance(found.value, KeyError) and isinstance(found.value, ValueError)


def test_all_functions_give_that_reason():
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("a"), 1.0, observed=[0.0, 1.0])
    idata = without_individuals(notes=["Conditional draws: no gradients."], unit_axes={"b": 0})
    for work in (
        ps.individuals,
        lambda fit: ps.predict(model, fit),
        lambda fit: ps.residuals(model, fit),
    ):
        with pytest.raises((KeyError, ValueError), match="Conditional draws: no gradients"):
            work(idata)


def test_random_effects_are_known_without_conditional_distributions():
    fit = Fit(without_individuals(unit_axes={"b": 1, "c": 0}))
    assert fit.effects == ("b", "c") and fit.unit_axes == {"b": 1, "c": 0}


def test_what_is_not_a_fit():
    fit = Fit(make_datatree({"posterior": TRACE}, {}))
    with pytest.raises(
        MissingGroupError,
        match="no group 'saem_trace'; it has posterior. It is not a result of fit_saem.",
    ):
        _ = fit.trace
    with pytest.raises(MissingGroupError, match="no group 'individual'; it has posterior"):
        _ = fit.effects
    with pytest.raises(TypeError, match="Expected what fit_saem returned"):
        Fit(3)


def test_estimates_and_ends_of_chains():
    fit = Fit(without_individuals())
    assert fit.labels == fit.parameters == ["a"] and fit.n_chains == 2 and fit.n_draws == 0
    assert fit.estimate("a") == 3.0 and fit.estimate("b") is None
    assert [fit.end_of_chain(chain)["a"] for chain in (0, 1)] == [1.0, 3.0]
    assert np.isnan(fit.column("se")).all() and fit.options == {}
