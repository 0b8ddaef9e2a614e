"""Predictions against closed forms: linear Gaussian models, exact solutions."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from made_up_fit import made_up_fit
from models import random_intercept
from pymc.exceptions import ImputationWarning
from scipy.stats import norm

import pymc_saem as ps

A, OMEGA, SIGMA = 0.5, 0.8, 0.3
VALUES = {"a": A, "gamma": 2.0, "omega": OMEGA, "sigma": SIGMA}
COLUMNS = ["subject", "row", "observed", "prediction", "lower", "upper", "lower_new", "upper_new", "source"]


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
    y = A + 2.0 * x + np.repeat(rng.normal(0, OMEGA, len(subjects)), n) + rng.normal(0, SIGMA, subject.size)
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
    return data, model, made_up_fit(model, {"b": modes}, VALUES, {"y": data["subject"].factorize()[0]})


def near(found, expected, sd, tolerance=0.15):
    """Quantiles of draws differ from exact ones by a few of their standard errors."""
    np.testing.assert_array_less(np.abs(found - expected), tolerance * sd)


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
    found = ps.predict(model, idata, level=["population", "marginal"], n_draws=4000, ci_prob=0.8, random_seed=1)
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
    mode, draws = idata["individual"]["b_mode"].values, idata["posterior"]["b"].values.reshape(-1, 3)
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


def test_nothing_leaks_from_one_subject_into_another(fitted):
    _, _, idata = fitted
    data = table(seed=5, subjects=("A", "D", "E"))
    other = data.copy()
    other.loc[other["subject"] == "E", "y"] += 30.0
    one, two = (ps.predict(build, idata, d, subjects="match", n_draws=2000, random_seed=1) for d in (data, other))
    keep = one["subject"] != "E"
    np.testing.assert_allclose(one["prediction"][keep], two["prediction"][keep], atol=1e-6)
    mean, sd = conditional(data)
    for found in (one, two):
        near(found["upper"][4:8], (mean + norm.ppf(0.95) * sd)[4:8], sd[4:8])
    pd.testing.assert_frame_equal(one[:4], two[:4])
    assert (two["prediction"][8:] > one["prediction"][8:] + 10).all()


def test_the_same_label_may_be_another_person(fitted):
    data, model, idata = fitted
    other = table(seed=9, subjects=("A", "B", "Z"))
    with pytest.warns(UserWarning, match="The fit knows subject A, B, but their observed values .* subjects='new'"):
        found = ps.predict(build, idata, other, random_seed=1)
    assert list(found["source"][::4]) == ["fit", "fit", "own data"]
    quiet = ps.predict(build, idata, other, subjects="match", random_seed=1)
    pd.testing.assert_frame_equal(found, quiet)
    found = ps.predict(build, idata, other, subjects="new", random_seed=1)
    assert set(found["source"]) == {"own data"}
    np.testing.assert_allclose(found["prediction"], conditional(other)[0], atol=1e-5)
    # fewer rows of the fit, or more than it has, are no contradiction
    more = pd.concat([data, pd.DataFrame({"subject": ["A"], "x": [-1.0], "y": [4.0]})], ignore_index=True)
    for same in (data.iloc[:-1], more):
        assert set(ps.predict(build, idata, same, random_seed=1)["source"]) == {"fit"}


def test_a_fit_from_a_file(fit):
    model, idata, loaded = fit
    levels = ["individual", "population", "marginal"]
    one, two = (ps.predict(model, f, level=levels, n_draws=200, random_seed=3) for f in (idata, loaded))
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
        np.testing.assert_allclose(new[column], old[column], atol=0.06)  # of a conditional sd of 0.17


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


def test_times_of_a_differential_equation_and_a_forecast():
    def decay(data):
        subject, ids = data["subject"].factorize()
        with pm.Model(coords={"patient": ids}) as model:
            k = pm.LogNormal("k", pm.Flat("mu"), 0.4, dims="patient")
            y = ps.ode.solve_ivp(
                lambda t, y, p: {"drug": -p.k * y.drug}, {"drug": 10.0}, {"k": k}, t=data["time"], subject=subject,
                rtol=1e-2, atol=1e-2, solver="tsit5",
            ).drug  # fmt: skip
            pm.LogNormal("conc", pm.math.log(y), 0.1, observed=data["conc"].to_numpy())
        return model

    data = pd.DataFrame({"subject": [1, 1, 2, 2], "time": [0.0, 1.0, 0.0, 1.0], "conc": [10.0, 8.0, 9.0, 5.0]})
    rates = np.array([0.2, 0.6])
    idata = made_up_fit(decay(data), {"k": rates}, {"mu": -1.0}, {"conc": [0, 0, 1, 1]})
    later = pd.concat([data, pd.DataFrame({"subject": [1, 2, 3], "time": [5.0, 4.0, 4.0]})])
    found = ps.predict(decay, idata, later, level=("individual", "population"), random_seed=1)
    np.testing.assert_array_equal(found["time"], [*later["time"]] * 2)
    np.testing.assert_array_equal(found["observed"], [*later["conc"]] * 2)
    assert list(found["source"][:7]) == ["fit"] * 6 + ["population"]
    k = np.array([0.2, 0.2, 0.6, 0.6, 0.2, 0.6, np.exp(-1.0)])
    exact = 10 * np.exp(-np.r_[k, np.full(7, np.exp(-1.0))] * found["time"])
    np.testing.assert_allclose(found["prediction"], exact, rtol=1e-6)  # the model asks for 1e-2


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_occasions_of_subjects_and_later_ones(fraction):
    """c ~ Normal(b, omega), or b + c; a later occasion of a known subject follows the law around its b."""

    def occasions(subject_of, labels, occasion):
        with pm.Model(coords={"subject": ["u", "v"], "occasion": labels}) as model:
            b = pm.Normal("b", pm.Flat("a"), 2.0, dims="subject")
            c = pm.Normal("c", fraction * b[subject_of], pm.HalfFlat("omega"), dims="occasion")
            mu = c[occasion] + (1 - fraction) * b[subject_of][occasion]
            pm.Normal("y", mu, 0.1, observed=np.full(occasion.size, 1.0))
        return model

    model = occasions(np.array([0, 1]), ["u1", "v1"], np.array([0, 0, 1]))
    parameters = {"a": 1.0, "omega": 0.3}
    idata = made_up_fit(model, {"b": [5.0, -5.0]}, parameters, {"y": [0, 0, 1]})
    for group in ("posterior", "individual"):
        extra = {f"c{end}": ("occasion", [6.0, -6.0]) for end in ("_mode", "_population")}
        if group == "posterior":
            extra = {"c": (("chain", "draw", "occasion"), np.tile([6.0, -6.0], (1, 30, 1)))}
        idata = with_variables(idata, group, extra | {"occasion": ("occasion", ["u1", "v1"])})
    idata = with_variables(idata, "constant_data", {"c_subject": ("c_dim_0", [0, 1])})
    # u has a second occasion with a label that v had, and v two new ones
    later = occasions(np.array([0, 0, 1, 1]), ["u1", "v1", "v2", "v3"], np.array([0, 1, 2, 3]))
    found = ps.predict(later, idata, subjects="match", parameters="estimate", n_draws=4000, random_seed=1)
    new = 5.0 * fraction
    expected = np.array([6.0, new, -new, -new]) + (1 - fraction) * np.array([5.0, 5.0, -5.0, -5.0])
    np.testing.assert_allclose(found["prediction"], expected)
    assert list(found["source"]) == ["fit"] * 4
    spread = np.hypot(0.3, 0.25)  # of made-up draws of b: 5 % of 5
    np.testing.assert_allclose((found["upper"] - found["lower"])[1:3], 2 * 1.645 * spread, rtol=0.15)


@pytest.mark.filterwarnings("ignore:The ")  # of so few iterations
def test_a_fit_of_occasions_knows_whose_they_are():
    rng = np.random.default_rng(1)
    subject_of = np.repeat(np.arange(6), 2)
    with pm.Model(coords={"subject": np.arange(6), "occasion": np.arange(12)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("tau", initval=1.0), dims="subject")
        c = pm.Normal("c", 0.0, pm.HalfFlat("omega", initval=1.0), dims="occasion")
        occasion = np.repeat(np.arange(12), 3)
        y = rng.normal(size=6)[subject_of][occasion] + rng.normal(size=12)[occasion] + 0.1 * rng.normal(size=36)
        pm.Normal("y", b[subject_of][occasion] + c[occasion], 0.1, observed=y)
    idata = ps.fit_saem(
        model, n_explore=10, n_smooth=5, draws=10, likelihood=None, standard_errors=None, tolerance=0, progressbar=False, random_seed=1
    )  # fmt: skip
    np.testing.assert_array_equal(idata["constant_data"]["c_subject"], subject_of)
    found = ps.predict(model, idata, random_seed=1)
    modes = idata["individual"]["b_mode"].values[subject_of] + idata["individual"]["c_mode"].values
    np.testing.assert_allclose(found["prediction"], modes[occasion], rtol=1e-9)


def with_variables(idata, group, variables):
    """A fit with more variables in a group, in either container of ArviZ."""
    from pymc_saem.compat import get_group, group_names, make_datatree

    groups = {name: get_group(idata, name) for name in group_names(idata)}
    groups[group] = groups[group].assign({n: v for n, v in variables.items() if n != "occasion"})
    if "occasion" in variables:
        groups[group] = groups[group].assign_coords(occasion=variables["occasion"])
    return make_datatree(groups, dict(idata.attrs))


def test_standard_normal_effects_do_not_move_with_draws_of_the_parameters():
    """phi = a + omega * eta was drawn; other draws of a and omega must not shift it."""
    with pm.Model(coords={"subject": ["u", "v"]}) as model:
        a, omega = pm.Flat("a"), pm.HalfFlat("omega")
        eta = pm.Normal("eta", 0, 1, dims="subject")
        pm.Normal("y", (a + omega * eta)[np.array([0, 0, 1])], 0.1, observed=np.zeros(3))
    idata = made_up_fit(model, {"eta": [1.0, -1.0]}, {"a": 3.0, "omega": 2.0}, {"y": [0, 0, 1]}, draws=400)
    rng = np.random.default_rng(1)
    moved = {
        "a": (("chain", "draw"), 3 + rng.normal(size=(1, 400))),
        "omega": (("chain", "draw"), 2 * np.exp(rng.normal(size=(1, 400)))),
    }
    found = ps.predict(model, with_variables(idata, "posterior", moved), n_draws=400, random_seed=1)
    phi = 3 + 2 * idata["posterior"]["eta"].values[0]
    np.testing.assert_allclose(found["lower"][[0, 2]], np.quantile(phi, 0.05, axis=0))
    np.testing.assert_allclose(found["prediction"], [5.0, 5.0, 1.0])


def test_outcomes_of_other_kinds_have_a_location():
    subject = np.array([0, 1])
    with pm.Model(coords={"subject": [1, 2]}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        law = pm.Normal.dist(b[subject], 0.5)
        pm.Censored("censored", law, lower=0.0, upper=None, observed=np.ones(2))
        pm.Truncated("truncated", law, lower=0.0, upper=None, observed=np.ones(2))
        pm.Truncated("cut", pm.Gamma.dist(4.0, pm.math.exp(-b)), lower=0.5, observed=np.ones(2))
        pm.OrderedLogistic("grade", eta=b, cutpoints=[-1.0, 1.0], observed=np.zeros(2, dtype=int), compute_p=False)
        pm.Poisson("count", pm.math.exp(b), observed=np.ones(2, dtype=int))
    rows = {rv.name: subject for rv in model.observed_RVs}
    idata = made_up_fit(model, {"b": [-1.0, 2.0]}, {"a": 0.0}, rows)
    b, logistic = np.array([-1.0, 2.0]), lambda x: 1 / (1 + np.exp(-x))
    expected = {
        "censored": b,
        "truncated": b,
        "cut": 4 * np.exp(b),
        "grade": logistic(b + 1) + logistic(b - 1),
        "count": np.exp(b),
    }
    for name, location in expected.items():
        found = ps.predict(model, idata, outcome=name, parameters="estimate", random_seed=1)
        np.testing.assert_allclose(found["prediction"], location, rtol=1e-12)
    found = ps.predict(model, idata, outcome="censored", random_seed=1)
    assert found["lower_new"][0] == 0.0 and found["lower"][0] < -1.0
    with pytest.raises(
        ValueError, match="several outcomes; choose one with outcome=: censored, truncated, cut, grade, count"
    ):
        ps.predict(model, idata)


def test_outcomes_without_a_mean_are_simulated_and_not_predicted():
    with pm.Model(coords={"subject": [1, 2]}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        pm.Cauchy("y", b, 0.5, observed=np.ones(2))
    idata = made_up_fit(model, {"b": [-1.0, 2.0]}, {"a": 0.0}, {"y": [0, 1]})
    assert np.isfinite(ps.simulate(model, idata, n=3, random_seed=1)["y"]).all()
    with pytest.raises(NotImplementedError, match="no mean for outcome 'y'"):
        ps.predict(model, idata)


def test_missing_rows_of_a_law_that_pymc_cannot_split(fitted):
    def limited(data):
        subject, ids = data["subject"].factorize()
        with pm.Model(coords={"subject": ids}) as model:
            b = pm.Normal("b", pm.Flat("a"), OMEGA, dims="subject")
            y = data["y"].to_numpy()
            pm.Censored("y", pm.Normal.dist(b[subject], SIGMA), lower=0.0, upper=None, observed=y)
        return model

    data = pd.DataFrame({"subject": ["A", "A", "B"], "y": [1.0, 0.0, 2.0]})
    idata = made_up_fit(limited(data), {"b": [0.5, 1.5]}, {"a": 1.0}, {"y": [0, 0, 1]})
    data["y"] = [1.0, np.nan, np.nan]
    found = ps.predict(limited, idata, data, random_seed=1)
    np.testing.assert_array_equal(found["observed"], data["y"])
    np.testing.assert_allclose(found["prediction"], [0.5, 0.5, 1.5])
    assert (found["lower_new"] >= 0).all()


def test_a_subject_without_a_solution_is_named():
    with pm.Model(coords={"patient": ["A", "B"]}) as model:
        k = pm.LogNormal("k", pm.Flat("mu"), 0.1, dims="patient")
        y = ps.ode.solve_ivp(
            lambda t, y, p: {"y": p.k * y.y**2}, {"y": 1.0}, {"k": k}, t=[0.5, 1.0, 0.5, 1.0],
            subject=np.array([0, 0, 1, 1]), solver="tsit5",
        ).y  # fmt: skip
        pm.Normal("z", y, 0.1, observed=np.ones(4))
    idata = made_up_fit(model, {"k": [0.5, 2.0]}, {"mu": -2.0}, {"z": [0, 0, 1, 1]})
    with pytest.warns(UserWarning, match="Predictions of subject B are not finite"):
        found = ps.predict(model, idata, random_seed=1)
    np.testing.assert_allclose(found["prediction"][:2], [1 / 0.75, 2.0], rtol=1e-6)
    assert found["prediction"][2:].isna().all()


def test_what_is_wrong_with_arguments(fitted):
    data, model, idata = fitted
    for text, options in (
        ("level is 'typical'; it must be 'individual' or 'population' or 'marginal'", {"level": "typical"}),
        ("each once", {"level": ["marginal", "marginal"]}),
        ("subjects is 'old'", {"subjects": "old"}),
        ("parameters is 'none'", {"parameters": "none"}),
        ("ci_prob must lie between 0 and 1, got 90", {"ci_prob": 90}),
        ("n_draws is 1; it must be a whole number, at least 2", {"n_draws": 1}),
        ("no outcome 'z'; it has y", {"outcome": "z"}),
    ):
        with pytest.raises(ValueError, match=text):
            ps.predict(model, idata, **options)
    for wrong, options, text in (
        (3, {}, "model must be a pm.Model, or a function"),
        (lambda data: None, {"data": data}, "must return a pm.Model; it returned None"),
        (model, {"data": data}, "data is a DataFrame; with a pm.Model it must be a mapping"),
    ):
        with pytest.raises(TypeError, match=text):
            ps.predict(wrong, idata, **options)
    with pytest.raises(TypeError, match="Expected what fit_saem returned"):
        ps.predict(model, 3)
    with pytest.raises(ValueError, match="has no parameter 'gamma'"):
        ps.predict(
            model,
            made_up_fit(random_intercept(), {"b": np.zeros(12)}, {"a": 0, "omega": 1, "sigma": 1}, {"y": [0] * 36}),
        )


def test_building_with_missing_rows_warns_only_when_the_user_builds(fitted):
    data = fitted[0].assign(y=np.nan)
    with pytest.warns(ImputationWarning):
        model = build(data)
    found = ps.predict(model, fitted[2], random_seed=1)
    assert found["observed"].isna().all() and set(found["source"]) == {"fit"}
