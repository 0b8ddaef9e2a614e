"""Recognizers: which closed form a parameter gets, and why another has none."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import pymc_saem as ps
from pymc_saem.model.read import read_model
from pymc_saem.saem import UnsupportedModelError
from pymc_saem.saem.mstep.recognize import recognize
from tests.support.models import random_intercept, random_intercept_data, slopes, slopes_data

Y, SUBJECT = random_intercept_data()
X = np.linspace(-1, 1, 12)


def rules_of(model):
    return recognize(read_model(model))


def one_effect(build):
    """A random-intercept model whose effect and outcome ``build`` writes."""
    with pm.Model(coords={"subject": range(12), "k": range(2)}) as model:
        build()
    return model


def test_intercept_model():
    mixed = read_model(random_intercept())
    rules = recognize(mixed)
    assert rules.mean.design.shape == (1, 1, 1) and rules.mean.design.item() == 1.0
    (omega,), (residual,) = rules.omegas, rules.residuals
    assert (omega.kind, omega.power, omega.base.item()) == ("scalar", 1.0, 1.0)
    assert (residual.parameter.name, residual.power, residual.count(mixed)) == ("sigma", 1.0, 36)


def test_full_covariance_and_covariate():
    data = slopes_data()
    rules = rules_of(slopes(data))
    assert [p.name for p in rules.mean.parameters] == ["beta", "gamma"]
    assert np.allclose(rules.mean.design[:, 0, 2], data["x"]) and np.allclose(
        rules.mean.design[:, 1, 2], 0.0
    )
    assert [r.kind for r in rules.omegas] == ["full"]


@pytest.mark.parametrize(
    "write, kind, power",
    [
        (lambda o: pm.Normal("b", 0.0, o, dims=("subject", "k")), "scalar", 1.0),
        (lambda o: pm.Normal("b", 0.0, pt.sqrt(o), dims=("subject", "k")), "scalar", 0.5),
        (
            lambda o: pm.MvNormal(
                "b", np.zeros(2), o * np.array([[2.0, 1.0], [1.0, 3.0]]), dims=("subject", "k")
            ),
            "scalar",
            0.5,
        ),
    ],
)
def test_scalar_covariances(write, kind, power):
    def build():
        b = write(pm.HalfNormal("o"))
        pm.Normal("y", b[SUBJECT, 0] + b[SUBJECT, 1], pm.HalfNormal("sigma"), observed=Y)

    (rule,) = rules_of(one_effect(build)).omegas
    assert (rule.kind, rule.power) == (kind, power)


@pytest.mark.parametrize("as_variance", [False, True])
def test_diagonal_covariances(as_variance):
    def build():
        o = pm.HalfNormal("o", dims="k")
        b = pm.MvNormal(
            "b", np.zeros(2), pt.diag(o if as_variance else o**2), dims=("subject", "k")
        )
        pm.Normal("y", b[SUBJECT, 0] + b[SUBJECT, 1], pm.HalfNormal("sigma"), observed=Y)

    (rule,) = rules_of(one_effect(build)).omegas
    assert (rule.kind, rule.power) == ("diagonal", 0.5 if as_variance else 1.0)


def test_a_variance_shared_by_two_effects_pools_both():
    def build():
        o = pm.HalfNormal("o")
        b, c = pm.Normal("b", 0.0, o, dims="subject"), pm.Normal("c", 0.0, 2 * o, dims="subject")
        pm.Normal("y", b[SUBJECT] + c[SUBJECT], pm.HalfNormal("sigma"), observed=Y)

    (rule,) = rules_of(one_effect(build)).omegas
    assert np.allclose(rule.base, np.diag([1.0, 4.0])) and np.array_equal(rule.columns, [0, 1])


def test_means_are_affine_on_the_gaussian_scale():
    """A positive typical value is affine in its logarithm, PyMC's unconstrained value."""

    def build():
        typical = pm.HalfFlat("typical", initval=1.0)
        slope = pm.Flat("slope")
        b = pm.LogNormal("b", pt.log(typical) + slope * X, 0.5, dims="subject")
        pm.Normal("y", b[SUBJECT], pm.HalfNormal("sigma"), observed=Y)

    rules = rules_of(one_effect(build))
    assert np.allclose(rules.mean.design[:, 0, 0], 1.0) and np.allclose(
        rules.mean.design[:, 0, 1], X
    )


def test_logit_normal_effects_are_gaussian_on_the_logit_scale():
    def build():
        b = pm.LogitNormal("b", pm.Flat("m"), pm.HalfFlat("o", initval=1.0), dims="subject")
        pm.Normal("y", b[SUBJECT], pm.HalfNormal("sigma"), observed=Y)

    model = one_effect(build)
    mixed = read_model(model)
    assert mixed.random_effects[0].link == "logit" and not mixed.random_effects[0].value_is_phi
    assert recognize(mixed).omegas[0].kind == "scalar"


def test_proportional_and_variance_residuals():
    def build():
        b = pm.Normal("b", pm.Flat("m", initval=1.0), 1.0, dims="subject")
        s = pm.HalfNormal("s")
        pm.Normal("y", b[SUBJECT], s * pt.abs(b[SUBJECT] + 3), observed=Y)
        pm.Normal("z", b[SUBJECT], pt.sqrt(pm.HalfNormal("v")), observed=Y)

    powers = {r.parameter.name: r.power for r in rules_of(one_effect(build)).residuals}
    assert powers == {"s": 1.0, "v": 0.5}


def refused(build, match):
    with pytest.raises(UnsupportedModelError, match=match):
        rules_of(one_effect(build))


def reasons_of(build):
    return {
        rule.parameter.name: (rule.kind, rule.reason) for rule in rules_of(one_effect(build)).scores
    }


def test_a_structural_parameter_gets_score_steps_with_the_reason():
    data = ps.datasets.load_orange()
    subject = data["tree"].factorize()[0]

    with pm.Model(coords={"tree": range(5)}) as model:
        asym = pm.Normal(
            "asym", pm.Flat("mu", initval=190.0), pm.HalfFlat("o", initval=30.0), dims="tree"
        )
        xmid, scal = pm.Flat("xmid", initval=700.0), pm.Flat("scal", initval=350.0)
        curve = asym[subject] / (1 + pt.exp(-(data["age"].to_numpy() - xmid) / scal))
        pm.Normal("y", curve, pm.HalfFlat("sigma", initval=8.0), observed=data["circumference"])
    rules = rules_of(model)
    assert [(r.parameter.name, r.kind, r.reason) for r in rules.scores] == [
        ("xmid", "score", "enters the prediction of 'y' directly"),
        ("scal", "score", "enters the prediction of 'y' directly"),
    ]
    assert [p.name for p in rules.mean.parameters] == ["mu"] and rules.residuals[
        0
    ].parameter.name == "sigma"


def test_reasons_for_numeric_steps():
    def bent():
        b = pm.Normal("b", pm.HalfNormal("m") + pm.Flat("n") * X, 1.0, dims="subject")
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)

    assert reasons_of(bent) == {
        "m": ("numeric", "the mean of 'b' is not affine in its unconstrained value")
    }

    def product():
        b = pm.Normal(
            "b", pm.Flat("m", initval=1.0) * pm.Flat("n", initval=1.0) * X, 1.0, dims="subject"
        )
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)

    assert reasons_of(product) == dict.fromkeys(
        "mn", ("numeric", "the mean of 'b' is not affine in 'm', 'n' together")
    )

    def combined():
        b = pm.Normal("b", pm.Flat("m", initval=1.0), 1.0, dims="subject")
        pm.Normal("y", b[SUBJECT], pm.HalfNormal("s") + 0.1, observed=Y)

    assert reasons_of(combined) == {
        "s": ("numeric", "the residual scale of 'y' is not proportional to a power of it")
    }

    def two_variances():
        o, q = pm.HalfNormal("o"), pm.HalfNormal("q")
        b = pm.Normal("b", pm.Flat("m"), pt.sqrt(o**2 + q**2), dims="subject")
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)

    reason = "the covariance of 'b' depends on several parameters ('o', 'q') at once"
    assert reasons_of(two_variances) == {"o": ("numeric", reason), "q": ("numeric", reason)}

    def unequal():
        b = pm.Normal("b", pm.Flat("m"), pm.HalfNormal("o") * (2 + X), dims="subject")
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)

    reason = (
        "the Normal distribution of 'b' differs between subjects or depends on other random effects"
    )
    assert reasons_of(unequal) == {"m": ("numeric", reason)}

    def twice():
        m = pm.HalfNormal("m")
        b = pm.Normal("b", pt.log(m), m, dims="subject")
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)

    assert reasons_of(twice) == {"m": ("numeric", "is at once a mean and a covariance")}

    def heavy():
        b = pm.StudentT("b", nu=4, mu=pm.Flat("m"), sigma=pm.HalfNormal("o"), dims="subject")
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)

    reason = "the StudentT distribution of 'b' has no closed form"
    assert reasons_of(heavy) == {"m": ("numeric", reason), "o": ("numeric", reason)}


def test_one_standard_deviation_per_entry_as_separate_parameters():
    def build():
        sd = pt.stack([pm.HalfNormal("o"), pm.HalfNormal("q"), 0.5])
        b = pm.Normal("b", 0.0, sd, dims=("subject", "three"))
        pm.Normal("y", b[SUBJECT].sum(axis=1), pm.HalfNormal("sigma"), observed=Y)

    with pm.Model(coords={"subject": range(12), "three": range(3)}) as model:
        build()
    rules = rules_of(model)
    assert [(r.parameter.name, r.kind, list(r.columns)) for r in rules.omegas] == [
        ("o", "scalar", [0]),
        ("q", "scalar", [1]),
    ]
    assert np.allclose(rules.fixed_omega, np.diag([0, 0, 0.25])) and not rules.scores


def test_refusals():
    def hierarchy():
        m = pm.Normal("m", pm.Normal("top"), 1.0)
        b = pm.Normal("b", m, 1.0, dims="subject")
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)

    refused(hierarchy, "'top' enters only the prior of m")

    def collinear():
        b = pm.Normal("b", pm.Flat("m") + pm.Flat("n"), 1.0, dims="subject")
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)

    with pytest.raises(
        UnsupportedModelError,
        match="determine the parameters m, n: only 1 of 2 combinations .* or fix",
    ):
        ps.summarize(one_effect(collinear))
    with pytest.raises(UnsupportedModelError, match="determine the parameters m, n"):
        ps.SAEM(model=one_effect(collinear))
    ps.SAEM(model=one_effect(collinear), fixed={"n": 1.0})

    def covariate_is_missing():
        b = pm.Normal(
            "b", pm.Flat("m") * np.where(np.arange(12) == 1, np.nan, 1.0), 1.0, dims="subject"
        )
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)

    refused(
        covariate_is_missing,
        "NaN in entry 1, so that the distribution of 'b', subject '1', has no density",
    )


def test_summarize_prints_what_was_understood():
    text = str(ps.summarize(slopes(slopes_data())))
    assert "30 subjects" in text and "chol (full)" in text and "residual scale" in text
    table = ps.summarize(random_intercept()).parameters
    assert list(table["m_step"]) == ["closed form"] * 3
