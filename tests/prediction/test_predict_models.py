"""Predictions of models of many kinds: solutions, occasions, spellings, outcomes."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group, group_names, make_datatree
from tests.support.made_up_fit import made_up_fit


def with_variables(idata, group, variables):
    """A fit with more variables in a group, in either container of ArviZ."""
    groups = {name: get_group(idata, name) for name in group_names(idata)}
    groups[group] = groups[group].assign({n: v for n, v in variables.items() if n != "occasion"})
    if "occasion" in variables:
        groups[group] = groups[group].assign_coords(occasion=variables["occasion"])
    return make_datatree(groups, dict(idata.attrs))


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

    data = pd.DataFrame(
        {"subject": [1, 1, 2, 2], "time": [0.0, 1.0, 0.0, 1.0], "conc": [10.0, 8.0, 9.0, 5.0]}
    )
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
    """c ~ Normal(b, omega), or b + c; a later occasion of a known subject follows the distribution around its b."""

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
    found = ps.predict(
        later, idata, subjects="match", parameters="estimate", n_draws=4000, random_seed=1
    )
    new = 5.0 * fraction
    expected = np.array([6.0, new, -new, -new]) + (1 - fraction) * np.array([5.0, 5.0, -5.0, -5.0])
    np.testing.assert_allclose(found["prediction"], expected)
    assert list(found["source"]) == ["fit"] * 4
    spread = np.hypot(0.3, 0.25)  # of made-up draws of b: 5 % of 5
    np.testing.assert_allclose(
        (found["upper"] - found["lower"])[1:3], 2 * 1.645 * spread, rtol=0.15
    )


@pytest.mark.filterwarnings("ignore:The ")  # of so few iterations
@pytest.mark.slow
def test_a_fit_of_occasions_knows_whose_they_are():
    rng = np.random.default_rng(1)
    subject_of = np.repeat(np.arange(6), 2)
    with pm.Model(coords={"subject": np.arange(6), "occasion": np.arange(12)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("tau", initval=1.0), dims="subject")
        c = pm.Normal("c", 0.0, pm.HalfFlat("omega", initval=1.0), dims="occasion")
        occasion = np.repeat(np.arange(12), 3)
        y = (
            rng.normal(size=6)[subject_of][occasion]
            + rng.normal(size=12)[occasion]
            + 0.1 * rng.normal(size=36)
        )
        pm.Normal("y", b[subject_of][occasion] + c[occasion], 0.1, observed=y)
    idata = ps.fit_saem(
        model, n_explore=10, n_smooth=5, draws=10, likelihood=None, standard_errors=None, tolerance=0, progressbar=False, random_seed=1
    )  # fmt: skip
    np.testing.assert_array_equal(idata["constant_data"]["c_subject"], subject_of)
    found = ps.predict(model, idata, random_seed=1)
    modes = idata["individual"]["b_mode"].values[subject_of] + idata["individual"]["c_mode"].values
    np.testing.assert_allclose(found["prediction"], modes[occasion], rtol=1e-9)


def test_standard_normal_effects_do_not_move_with_draws_of_the_parameters():
    """phi = a + omega * eta was drawn; other draws of a and omega must not shift it."""
    with pm.Model(coords={"subject": ["u", "v"]}) as model:
        a, omega = pm.Flat("a"), pm.HalfFlat("omega")
        eta = pm.Normal("eta", 0, 1, dims="subject")
        pm.Normal("y", (a + omega * eta)[np.array([0, 0, 1])], 0.1, observed=np.zeros(3))
    idata = made_up_fit(
        model, {"eta": [1.0, -1.0]}, {"a": 3.0, "omega": 2.0}, {"y": [0, 0, 1]}, draws=400
    )
    rng = np.random.default_rng(1)
    moved = {
        "a": (("chain", "draw"), 3 + rng.normal(size=(1, 400))),
        "omega": (("chain", "draw"), 2 * np.exp(rng.normal(size=(1, 400)))),
    }
    found = ps.predict(model, with_variables(idata, "posterior", moved), n_draws=400, random_seed=1)
    phi = 3 + 2 * idata["posterior"]["eta"].values[0]
    np.testing.assert_allclose(found["lower"][[0, 2]], np.quantile(phi, 0.05, axis=0))
    np.testing.assert_allclose(found["prediction"], [5.0, 5.0, 1.0])


@pytest.mark.slow
def test_outcomes_of_other_kinds_have_a_location():
    subject = np.array([0, 1])
    with pm.Model(coords={"subject": [1, 2]}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        law = pm.Normal.dist(b[subject], 0.5)
        pm.Censored("censored", law, lower=0.0, upper=None, observed=np.ones(2))
        pm.Truncated("truncated", law, lower=0.0, upper=None, observed=np.ones(2))
        pm.Truncated("cut", pm.Gamma.dist(4.0, pm.math.exp(-b)), lower=0.5, observed=np.ones(2))
        pm.OrderedLogistic(
            "grade", eta=b, cutpoints=[-1.0, 1.0], observed=np.zeros(2, dtype=int), compute_p=False
        )
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
        ValueError,
        match="several outcomes; choose one with outcome=: censored, truncated, cut, grade, count",
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


def test_missing_rows_of_a_law_that_pymc_cannot_split():
    def limited(data):
        subject, ids = data["subject"].factorize()
        with pm.Model(coords={"subject": ids}) as model:
            b = pm.Normal("b", pm.Flat("a"), 0.8, dims="subject")
            y = data["y"].to_numpy()
            pm.Censored("y", pm.Normal.dist(b[subject], 0.3), lower=0.0, upper=None, observed=y)
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


def test_one_new_subject_of_a_model_with_a_covariate():
    """One subject does not tell intercept and slope apart; nobody asks for them. Its mode is exact."""

    def build(data):
        subject, ids = data["subject"].factorize()
        x = data.groupby("subject", sort=False)["x"].first().to_numpy()
        with pm.Model(coords={"subject": ids}) as model:
            b = pm.Normal(
                "b", pm.Flat("b0") + pm.Flat("b1") * x, pm.HalfFlat("omega"), dims="subject"
            )
            pm.Normal("y", b[subject], 0.5, observed=data["y"].to_numpy())
        return model

    data = pd.DataFrame(
        {"subject": [1, 1, 2, 2], "x": [0.0, 0.0, 1.0, 1.0], "y": [1.0, 2.0, 3.0, 4.0]}
    )
    values = {"b0": 1.5, "b1": 2.0, "omega": 0.8}
    idata = made_up_fit(build(data), {"b": np.array([1.5, 3.5])}, values, {"y": [0, 0, 1, 1]})
    new = pd.DataFrame({"subject": [9, 9], "x": [-1.0, -1.0], "y": [0.5, 0.1]})
    found = ps.predict(build, idata, new, random_seed=1)
    precision = 1 / 0.8**2 + 2 / 0.5**2
    mode = (-0.5 / 0.8**2 + 0.6 / 0.5**2) / precision
    assert set(found["source"]) == {"own data"}
    np.testing.assert_allclose(found["prediction"], mode, atol=1e-5)


def test_rows_before_a_change_point_are_rows_of_their_subject():
    """The switch is flat there: no experiment moves them."""
    subject, time = np.repeat([0, 1, 2], 3), np.tile([0.0, 2.0, 4.0], 3)
    with pm.Model(coords={"subject": [0, 1, 2]}) as model:
        change = pm.Normal("change", pm.Flat("mu"), 0.1, dims="subject")[subject]
        pm.Normal("y", pm.math.switch(time > change, time - change, 0.0), 1.0, observed=np.zeros(9))
    change = np.array([3.0, 3.1, 3.2])
    idata = made_up_fit(model, {"change": change}, {"mu": 3.0}, {"y": subject})
    found = ps.predict(model, idata, random_seed=1)
    np.testing.assert_array_equal(found["subject"], subject)
    np.testing.assert_allclose(found["prediction"], np.maximum(time - change[subject], 0.0))
