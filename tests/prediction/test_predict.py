"""Predictions against closed forms: linear Gaussian models, exact solutions."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from pymc.exceptions import ImputationWarning
from scipy.stats import norm

import pymc_saem as ps
from tests.support.made_up_fit import made_up_fit
from tests.support.models import random_intercept

A, OMEGA, SIGMA = 0.5, 0.8, 0.3
VALUES = {"a": A, "gamma": 2.0, "omega": OMEGA, "sigma": SIGMA}
COLUMNS = [
    "subject",
    "row",
    "observed",
    "prediction",
    "lower",
    "upper",
    "lower_new",
    "upper_new",
    "source",
]


def build(data):
    """A random intercept, and a covariate of subjects; ``data`` has subject, x, y."""
    subject, ids = data["subject"].factorize()
    x = data.groupby("subject", sort=False)["x"].first().to_numpy()
    with pm.Model(coords={"subject": ids}) as model:
        a, gamma = pm.Flat("a"), pm.Flat("gamma")
        omega, sigma = pm.HalfFlat("omega"), pm.HalfFlat("sigma")
        b = pm.Normal("b", a + gamma * x, omega, dims="subject")
        pm.Normal("y", b[subject], sigma, observed=data["y"].to_numpy())
    return model


def table(seed=1, subjects=("A", "B", "C"), n=4):
    rng = np.random.default_rng(seed)
    subject = np.repeat(subjects, n)
    x = np.repeat(np.linspace(-1.0, 1.0, len(subjects)), n)
    y = (
        A
        + 2.0 * x
        + np.repeat(rng.normal(0, OMEGA, len(subjects)), n)
        + rng.normal(0, SIGMA, subject.size)
    )
    return pd.DataFrame({"subject": subject, "x": x, "y": y})


def conditional(data):
    """Exact mean and sd of b of each row's subject given its rows, from Gaussian algebra with the whole covariance."""
    mean, sd = np.empty(len(data)), np.empty(len(data))
    for label in data["subject"].unique():
        rows = (data["subject"] == label).to_numpy()
        y, prior = data["y"][rows].dropna().to_numpy(), A + 2.0 * data["x"][rows].iloc[0]
        cov = OMEGA**2 + SIGMA**2 * np.eye(y.size)
        gain = np.linalg.solve(cov, np.full(y.size, OMEGA**2)) if y.size else np.zeros(0)
        mean[rows] = prior + gain @ (y - prior)
        sd[rows] = np.sqrt(OMEGA**2 - gain.sum() * OMEGA**2)
    return mean, sd


@pytest.fixture(scope="module")
def fitted():
    """The data of A, B and C, and what a fit says of them."""
    data = table()
    model = build(data)
    modes = conditional(data)[0][::4]
    return (
        data,
        model,
        made_up_fit(model, {"b": modes}, VALUES, {"y": data["subject"].factorize()[0]}),
    )


def near(found, expected, sd, tolerance=0.15):
    """Quantiles of draws differ from exact ones by a few of their standard errors."""
    np.testing.assert_array_less(np.abs(found - expected), tolerance * sd)


@pytest.mark.slow
def test_new_subjects_have_their_exact_conditional_law(fitted):
    _, _, idata = fitted
    data = table(seed=5, subjects=("D", "E", "F", "G"), n=3)
    data.loc[data["subject"] == "G", "y"] = np.nan
    data.loc[2, "y"] = np.nan  # a row of D
    found = ps.predict(build, idata, data, n_draws=4000, random_seed=1)
    assert list(found.columns) == COLUMNS
    assert list(found["source"]) == ["own data"] * 9 + ["population"] * 3
    assert list(found["subject"]) == list(data["subject"])
    np.testing.assert_array_equal(found["observed"], data["y"])
    mean, sd = conditional(data)
    np.testing.assert_allclose(found["prediction"], mean, atol=1e-5)
    new = np.sqrt(sd**2 + SIGMA**2)
    for column, scale, p in (
        ("lower", sd, 0.05),
        ("upper", sd, 0.95),
        ("lower_new", new, 0.05),
        ("upper_new", new, 0.95),
    ):
        near(found[column], mean + norm.ppf(p) * scale, scale)


def test_the_population_and_new_subjects_of_the_same_design(fitted):
    data, model, idata = fitted
    found = ps.predict(
        model, idata, level=["population", "marginal"], n_draws=4000, ci_prob=0.8, random_seed=1
    )
    assert list(found.columns) == [*COLUMNS[:2], "level", *COLUMNS[2:]]
    assert set(found["source"]) == {"population"}
    typical = A + 2.0 * data["x"].to_numpy()
    for level, between in (("population", 0.0), ("marginal", OMEGA)):
        one = found[found["level"] == level]
        total = np.hypot(between, SIGMA)
        near(one["prediction"], typical, 1.0, 1e-12 if level == "population" else 0.05)
        near(one["lower"], typical + norm.ppf(0.1) * between, 1.0, 0.06)
        near(one["upper_new"], typical + norm.ppf(0.9) * total, 1.0, 0.06)


def test_subjects_of_the_fit_keep_what_the_fit_says(fitted):
    data, model, idata = fitted
    mode, draws = (
        idata["individual"]["b_mode"].values,
        idata["posterior"]["b"].values.reshape(-1, 3),
    )
    subject = data["subject"].factorize()[0]
    found = ps.predict(model, idata, n_draws=30, random_seed=1)
    np.testing.assert_allclose(found["prediction"], mode[subject])
    np.testing.assert_allclose(found["lower"], np.quantile(draws, 0.05, axis=0)[subject])
    assert set(found["source"]) == {"fit"}
    # other rows of C and A, in another order, and a new subject between them
    later = pd.DataFrame({"subject": ["C", "N", "A"], "x": [1.0, 0.0, -1.0], "y": [np.nan] * 3})
    found = ps.predict(build, idata, later, n_draws=30, random_seed=1)
    np.testing.assert_allclose(found["prediction"], [mode[2], A, mode[0]])
    assert list(found["source"]) == ["fit", "population", "fit"]


@pytest.mark.slow
def test_nothing_leaks_from_one_subject_into_another(fitted):
    _, _, idata = fitted
    data = table(seed=5, subjects=("A", "D", "E"))
    other = data.copy()
    other.loc[other["subject"] == "E", "y"] += 30.0
    one, two = (
        ps.predict(build, idata, d, subjects="match", n_draws=2000, random_seed=1)
        for d in (data, other)
    )
    keep = one["subject"] != "E"
    np.testing.assert_allclose(one["prediction"][keep], two["prediction"][keep], atol=1e-6)
    mean, sd = conditional(data)
    for found in (one, two):
        near(found["upper"][4:8], (mean + norm.ppf(0.95) * sd)[4:8], sd[4:8])
    pd.testing.assert_frame_equal(one[:4], two[:4])
    assert (two["prediction"][8:] > one["prediction"][8:] + 10).all()


@pytest.mark.slow
def test_the_same_label_may_be_another_person(fitted):
    data, model, idata = fitted
    other = table(seed=9, subjects=("A", "B", "Z"))
    with pytest.warns(
        UserWarning,
        match="The fit contains subject A, B, but their observed values .* subjects='new'",
    ):
        found = ps.predict(build, idata, other, random_seed=1)
    assert list(found["source"][::4]) == ["fit", "fit", "own data"]
    quiet = ps.predict(build, idata, other, subjects="match", random_seed=1)
    pd.testing.assert_frame_equal(found, quiet)
    found = ps.predict(build, idata, other, subjects="new", random_seed=1)
    assert set(found["source"]) == {"own data"}
    np.testing.assert_allclose(found["prediction"], conditional(other)[0], atol=1e-5)
    # fewer rows of the fit, or more than it has, are no contradiction
    more = pd.concat(
        [data, pd.DataFrame({"subject": ["A"], "x": [-1.0], "y": [4.0]})], ignore_index=True
    )
    for same in (data.iloc[:-1], more):
        assert set(ps.predict(build, idata, same, random_seed=1)["source"]) == {"fit"}


def test_a_fit_from_a_file(fit):
    model, idata, loaded = fit
    levels = ["individual", "population", "marginal"]
    one, two = (
        ps.predict(model, f, level=levels, n_draws=200, random_seed=3) for f in (idata, loaded)
    )
    pd.testing.assert_frame_equal(one, two)
    assert list(one["subject"][:36:3]) == list(range(1, 13))
    alone = ps.predict(model, loaded, level="marginal", n_draws=200, random_seed=3)
    pd.testing.assert_frame_equal(alone, one[72:].drop(columns="level").reset_index(drop=True))
    # the uncertainty of the parameters is that of the draws, and there is none without it
    a = np.quantile(idata["posterior"]["a"], [0.05, 0.95])
    everything = ps.predict(model, idata, level="population", n_draws=1250, random_seed=1)
    np.testing.assert_allclose(everything[["lower", "upper"]].iloc[0], a)
    none = ps.predict(model, idata, level="population", parameters="estimate", random_seed=1)
    np.testing.assert_allclose(none["lower"], none["prediction"])


def test_estimated_again_from_their_own_data_they_are_as_in_the_fit(fit):
    model, idata, _ = fit
    old = ps.predict(model, idata, parameters="estimate", random_seed=1)
    new = ps.predict(model, idata, parameters="estimate", subjects="new", random_seed=1)
    np.testing.assert_allclose(new["prediction"], old["prediction"], atol=1e-5)
    for column in ("lower", "upper"):
        # of a conditional sd of 0.17
        np.testing.assert_allclose(new[column], old[column], atol=0.06)


def test_data_of_the_model_are_put_back():
    with pm.Model(coords={"subject": [1, 2]}) as model:
        t = pm.Data("t", np.array([1.0, 2.0, 3.0]))
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        pm.Normal("y", b[np.array([0, 0, 1])] * t, 0.1, observed=np.ones(3))
    idata = made_up_fit(model, {"b": [1.0, 2.0]}, {"a": 1.5}, {"y": [0, 0, 1]})
    found = ps.predict(model, idata, {"t": np.array([10.0, 20.0, 30.0])}, random_seed=1)
    np.testing.assert_allclose(found["prediction"], [10.0, 20.0, 60.0])
    np.testing.assert_array_equal(model["t"].get_value(), [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="no outcome 'z'"):
        ps.predict(model, idata, {"t": np.zeros(3)}, outcome="z")
    np.testing.assert_array_equal(model["t"].get_value(), [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="data names 'time'; the pm.Data of the model are 't'"):
        ps.predict(model, idata, {"time": np.zeros(3)})
    with pytest.raises(ValueError, match=r"data\['t'\] is missing \(NaN\) at \[1\]"):
        ps.predict(model, idata, {"t": [1.0, np.nan, 2.0]})
    for wrong in (["a", "b", "c"], np.array(["2024-01-01"] * 3, "M8[D]"), [None, "x", 1.0]):
        with pytest.raises(TypeError, match=r"data\['t'\] must hold numbers"):
            ps.predict(model, idata, {"t": wrong})
    np.testing.assert_array_equal(model["t"].get_value(), [1.0, 2.0, 3.0])


def test_what_is_wrong_with_arguments(fitted):
    data, model, idata = fitted
    for text, options in (
        (
            "level is 'typical'; it must be 'individual' or 'population' or 'marginal'",
            {"level": "typical"},
        ),
        ("each once", {"level": ["marginal", "marginal"]}),
        ("subjects is 'old'", {"subjects": "old"}),
        ("parameters is 'none'", {"parameters": "none"}),
        ("ci_prob must lie between 0 and 1, got 90", {"ci_prob": 90}),
        ("n_draws is 1; it must be an integer of at least 2", {"n_draws": 1}),
        ("no outcome 'z'; it has y", {"outcome": "z"}),
    ):
        with pytest.raises(ValueError, match=text):
            ps.predict(model, idata, **options)
    for wrong, options, text in (
        (3, {}, "model is 3; it must be a pymc.Model or a function"),
        (lambda data: None, {"data": data}, "must return a pm.Model; it returned None"),
        (
            lambda: None,
            {"data": data},
            "model is a function that cannot be called with the data alone",
        ),
        (model, {"data": data}, "data is a DataFrame; with a pm.Model it must be a mapping"),
    ):
        with pytest.raises(TypeError, match=text):
            ps.predict(wrong, idata, **options)
    with pytest.raises(TypeError, match="idata is .*; it must be what fit_saem returned"):
        ps.predict(model, 3)
    with pytest.raises(ValueError, match="has no parameter 'gamma'"):
        ps.predict(
            model,
            made_up_fit(
                random_intercept(),
                {"b": np.zeros(12)},
                {"a": 0, "omega": 1, "sigma": 1},
                {"y": [0] * 36},
            ),
        )


def test_building_with_missing_rows_warns_only_when_the_user_builds(fitted):
    data = fitted[0].assign(y=np.nan)
    with pytest.warns(ImputationWarning):
        model = build(data)
    found = ps.predict(model, fitted[2], random_seed=1)
    assert found["observed"].isna().all() and set(found["source"]) == {"fit"}
