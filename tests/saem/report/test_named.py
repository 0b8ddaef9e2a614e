"""Errors and tables name what they are about: the covariate, row and subject, the variable, the outcome."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from pytensor.graph.op import Op

import pymc_saem as ps
from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.model.reading.observed_values import observed_values
from pymc_saem.saem.likelihood.marginal import information_criteria
from pymc_saem.saem.run.explain import explained
from pymc_saem.saem.start.pooled import default_starts
from tests.support.engines import engine_of

S = np.repeat(np.arange(4), 3)
Y = np.random.default_rng(3).normal(size=12)


def intercepts(row=0.0, subject=0.0, observed=Y):
    with pm.Model(coords={"subject": list("abcd")}) as model:
        b = pm.Normal(
            "b",
            pm.Flat("a") + pm.Flat("g") * subject,
            pm.HalfFlat("omega", initval=1.0),
            dims="subject",
        )
        pm.Normal(
            "y", b[S] + pm.Flat("beta") * row, pm.HalfFlat("sigma", initval=1.0), observed=observed
        )
    return model


def with_nan(values, at):
    values = np.array(values, dtype=float)
    values[at] = np.nan
    return values


def test_a_missing_covariate_is_named_with_its_row_and_subject():
    with pytest.raises(
        UnsupportedModelError,
        match=r"shape \(12,\)\) is NaN in entry 7, so that row 7 of 'y', subject 'c', has no",
    ):
        ps.summarize(intercepts(row=with_nan(np.arange(12), 7), subject=np.arange(4.0)))
    with pytest.raises(
        UnsupportedModelError,
        match=r"shape \(4,\)\) is NaN in entry 1, so that the distribution of 'b', subject 'b', has no",
    ):
        ps.summarize(intercepts(row=np.arange(12.0), subject=with_nan(np.arange(4), 1)))


def test_a_covariate_that_is_not_used_where_it_is_missing_is_nobodys_business():
    known = pt.constant(with_nan(np.arange(4), 1))
    model = intercepts(row=np.arange(12.0), subject=pt.switch(pt.isnan(known), 1.5, known))
    assert ps.summarize(model).n_subjects == 4


def test_text_among_observed_values_is_named(monkeypatch):
    """PyMC refuses it in its own words where it can; what it lets through has ours."""
    model = intercepts(row=np.arange(12.0), subject=np.arange(4.0))

    class Data:
        data = np.array([*Y[:5], "BLQ", *Y[6:]], dtype=object)

    monkeypatch.setitem(model.rvs_to_values, model["y"], Data)
    with pytest.raises(
        UnsupportedModelError, match="The observed values of 'y' must be numbers; row 5 is 'BLQ'"
    ):
        observed_values(model, model["y"])


@pytest.mark.parametrize(
    ("initvals", "words"),
    [
        (
            {"b": np.zeros(3)},
            r"initvals\['b'\] has shape \(3,\), but the variable has shape \(4,\)",
        ),
        ({"b": 0.0}, r"initvals\['b'\] has shape \(\), but the variable has shape \(4,\)"),
        (
            {"sigma": [1.0, 2.0]},
            r"initvals\['sigma'\] has shape \(2,\), but the variable has shape \(\)",
        ),
        ({"sigma": {}}, r"initvals\['sigma'\] is {}; it must hold numbers of shape \(\)"),
        (
            {"sigma": "small"},
            r"initvals\['sigma'\] is 'small'; a text must be 'support_point' or 'prior'",
        ),
        ({"b": [0, 0, 0, np.nan]}, "initvals give b = .* not finite"),
    ],
)
def test_starting_values_of_a_wrong_shape(initvals, words):
    with pytest.raises(ValueError, match=words):
        ps.fit_saem(
            intercepts(row=np.arange(12.0), subject=np.arange(4.0)),
            initvals=initvals,
            progressbar=False,
        )


def test_a_parameter_of_one_state_enters_the_outcome_of_that_state():
    t = np.tile([1.0, 2.0, 3.0], 4)
    with pm.Model(coords={"subject": list("abcd")}) as model:
        k, m, both = (
            pm.Flat("k", initval=0.1),
            pm.Flat("m", initval=0.2),
            pm.Flat("both", initval=0.3),
        )
        c = pm.LogNormal(
            "c", pm.Flat("mean", initval=1.0), pm.HalfFlat("omega", initval=0.3), dims="subject"
        )
        solution = ps.ode.solve_ivp(
            lambda t, y, p: {"u": -p.k * p.both * y.u, "v": -p.m * p.both * y.v}, {"u": c, "v": c}, {"k": k, "m": m, "both": both},
            t=t, subject=S, solver="tsit5",
        )  # fmt: skip
        for name in ("u", "v"):
            pm.Normal(
                f"seen_{name}",
                solution[name],
                pm.HalfFlat(f"sigma_{name}", initval=1.0),
                observed=Y + 2.0,
            )
    role = ps.summarize(model).parameters["role"]
    assert role["k"] == "enters the prediction of 'seen_u' directly"
    assert role["m"] == "enters the prediction of 'seen_v' directly"
    assert role["both"] == "enters the prediction of 'seen_u' and 'seen_v' directly"


def vectors(kind, n=6, size=4):
    rng = np.random.default_rng(1)
    with pm.Model(coords={"subject": range(n)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims=("subject",))
        shared = b[:, None] + np.arange(size)
        if kind == "MvNormal":
            pm.MvNormal("y", shared, cov=np.eye(size), observed=rng.normal(size=(n, size)))
        elif kind == "Multinomial":
            pm.Multinomial(
                "y",
                10,
                pm.math.softmax(shared * np.linspace(0.0, 0.1, size), axis=-1),
                observed=rng.multinomial(10, np.ones(size) / size, n),
            )
        else:
            alpha = pm.math.exp(0.1 * shared)
            pm.DirichletMultinomial(
                "y", 10, alpha, observed=rng.multinomial(10, np.ones(size) / size, n)
            )
    return model


@pytest.mark.parametrize("kind", ["MvNormal", "Multinomial", "DirichletMultinomial"])
def test_entries_of_vectors_are_observations(kind):
    """One density for each vector, and four numbers."""
    engine = engine_of(vectors(kind))
    assert engine.mixed.n_rows == 6 and engine.mixed.n_values == 24
    assert default_starts(engine.mixed) > 0  # one random effect, four numbers a subject
    found = information_criteria(engine, 0.0)
    assert found.bicc == pytest.approx(2 * np.log(6))  # both parameters are of random effects
    with_weights = vectors(kind)
    assert ps.summarize(with_weights).data.loc["y", "rows"] == 6


def test_more_effects_than_vectors_but_fewer_than_numbers():
    """Two random effects and one vector of four a subject: a gradient fit finds the region."""
    with pm.Model(coords={"subject": range(6)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        c = pm.Normal("c", pm.Flat("d"), pm.HalfFlat("tau", initval=1.0), dims="subject")
        pm.MvNormal(
            "y",
            b[:, None] + c[:, None] * np.arange(4.0),
            cov=np.eye(4),
            observed=np.random.default_rng(1).normal(size=(6, 4)),
        )
    assert default_starts(engine_of(model).mixed) > 0


def test_errors_of_algebra_are_explained():
    with pytest.raises(np.linalg.LinAlgError) as caught:
        np.linalg.cholesky(-np.eye(2))
    text = explained(caught.value)
    assert "LinAlgError" not in text and "a variance is 0, infinite or not a number" in text
    assert explained(KeyError("a")) == "KeyError: 'a'"


@pytest.mark.filterwarnings("ignore:Numba will use object mode")
def test_an_operation_without_gradient_is_said_to_have_none():
    class Half(Op):
        itypes = otypes = (pt.dvector,)

        def perform(self, node, inputs, outputs):
            outputs[0][0] = 0.5 * inputs[0]

    with pm.Model(coords={"subject": range(4)}) as model:
        b = pm.Normal("b", pm.Normal("mu", 0, 10), pm.HalfNormal("omega", 1), dims="subject")
        pm.Normal("y", Half()(b)[np.repeat(np.arange(4), 3)], 0.1, observed=np.arange(12.0))
    with pytest.raises(
        ValueError, match=r"an operation of this model has none .*Half.* fit_saem\(n_starts=0\)"
    ):
        ps.fit_saem(model, n_explore=2, n_smooth=2, n_starts=1, progressbar=False)
