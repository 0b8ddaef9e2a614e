"""plot_fits: the lines equal predictions computed here."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group
from tests.support.made_up_fit import made_up_fit
from tests.support.models import theophylline


def line(ax, label):
    (found,) = [found for found in ax.get_lines() if found.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def band(ax):
    """Lower and upper edge, shape (2, grid)."""
    (polygon,) = ax.collections
    points = polygon.get_paths()[0].vertices
    n = (len(points) - 3) // 2
    return np.stack([points[1 : n + 1, 1], points[n + 2 : 2 * n + 2, 1][::-1]])


def concentration(t, dose, ka, V, CL):
    """One compartment, first-order absorption."""
    k = CL / V
    return dose * ka / (V * (ka - k)) * (np.exp(-k * t) - np.exp(-ka * t))


def effects(idata, which, subject):
    individual = get_group(idata, "individual")
    return [individual[f"{name}_{which}"].values[subject] for name in ("ka", "V", "CL")]


def check_curves(axes, subjects, idata, data, rtol):
    doses = data.groupby("subject", sort=False)["dose"].first().to_numpy()
    ids = data["subject"].unique()
    for ax, subject in zip(axes, subjects, strict=True):
        for label, which in (("individual", "mode"), ("population", "population")):
            t, y = line(ax, label)
            expected = concentration(t, doses[subject], *effects(idata, which, subject))
            np.testing.assert_allclose(y, expected, rtol=rtol, atol=rtol)
        t, _ = line(ax, "individual")
        own = data[data["subject"] == ids[subject]]
        assert t.size == 150 and t[0] == 0 and t[-1] == own["time"].max()
        np.testing.assert_array_equal(
            np.c_[line(ax, "data")], np.c_[own["time"].to_numpy(), own["conc"].to_numpy()]
        )


def test_formula_all_subjects(model, idata, data):
    axes = ps.plot_fits(model, idata, x=data["time"])
    assert [ax.get_title() for ax in axes] == [f"subject {k}" for k in range(1, 13)]
    check_curves(axes, range(12), idata, data, 1e-10)
    figure = axes[0].figure
    assert figure.get_supxlabel() == "time [h]" and figure.get_supylabel() == "conc [mg/L]"
    assert len(figure.legends) == 1


@pytest.mark.parametrize("subjects", [[2], [9, 1]])
def test_ode_is_solved_tightly_whatever_the_model_says(idata, data, subjects):
    coarse = theophylline(ode=True, rtol=1e-2, atol=1e-2)  # the same parameters as the formula
    axes = ps.plot_fits(coarse, idata, subjects=subjects)
    check_curves(axes, [s - 1 for s in subjects], idata, data, 1e-6)


def test_ode_and_formula_agree_on_the_band(model, idata, data):
    (one,) = ps.plot_fits(model, idata, subjects=3, x=data["time"])
    (other,) = ps.plot_fits(theophylline(ode=True), idata, subjects=3, x=data["time"])
    np.testing.assert_allclose(band(one), band(other), atol=1e-4)


def test_band_has_the_quantiles_of_the_draws(model, idata, data):
    (ax,) = ps.plot_fits(model, idata, subjects=[5], x=data["time"], ci_prob=0.5, n_draws=1000)
    posterior = get_group(idata, "posterior")
    draws = [posterior[name].values[..., 4].reshape(-1, 1) for name in ("ka", "V", "CL")]
    t, _ = line(ax, "individual")
    curves = concentration(t, data["dose"][data["subject"] == 5].iloc[0], *draws)
    np.testing.assert_allclose(
        band(ax), np.quantile(curves, [0.25, 0.75], axis=0), rtol=1e-9, atol=1e-12
    )
    assert "50 % band" in ax.figure.legends[0].get_texts()[3].get_text()


def test_a_fit_from_a_file(model, idata, data, tmp_path):
    idata.to_netcdf(tmp_path / "fit.nc")
    loaded = az.from_netcdf(tmp_path / "fit.nc")
    axes = ps.plot_fits(model, loaded, subjects=[1, 2], x=data["time"])
    check_curves(axes, [0, 1], idata, data, 1e-10)
    assert len(ps.plot_convergence(loaded)) == 10
    ps.plot_observation_distribution(model, loaded, subject=1)


def test_labels_and_axes_of_the_caller(model, idata, data):
    _, own = plt.subplots(2)
    axes = ps.plot_fits(
        model, idata, [1, "2"], x=data["time"].to_numpy(), xlabel="hours", n_grid=20, ax=own
    )
    assert list(axes) == list(own)
    assert [ax.get_xlabel() for ax in axes] == ["hours"] * 2 and axes[1].get_ylabel() == "conc"
    assert axes[0].get_legend() is not None and line(axes[0], "individual")[0].size == 20


def test_pages(model, idata, data):
    axes = ps.plot_fits(model, idata, x=data["time"], per_page=5, ncols=3, n_grid=10)
    figures = [ax.figure for ax in axes]
    assert [figures.count(f) for f in dict.fromkeys(figures)] == [5, 5, 2]
    assert all(f.get_supxlabel() == "time [h]" and len(f.legends) == 1 for f in set(figures))
    assert len({ax.get_ylim() for ax in axes}) == 1 and len({ax.get_xlim() for ax in axes}) == 1
    assert axes[0].get_subplotspec().get_gridspec().ncols == 3
    free = ps.plot_fits(model, idata, x=data["time"], sharey=False, n_grid=10)
    assert len({ax.get_ylim() for ax in free}) == 12 and len({ax.get_xlim() for ax in free}) == 1
    with pytest.raises(ValueError, match="per_page must be at least 1, got 0"):
        ps.plot_fits(model, idata, x=data["time"], per_page=0)


@pytest.fixture(scope="module")
def two_outcomes():
    """A drug at four times and its effect at two; subject "c" has no effect measured."""
    t, subject = np.tile([0.5, 1.0, 2.0, 4.0], 3), np.repeat([0, 1, 2], 4)
    later, who = np.tile([1.0, 3.0], 2), np.repeat([0, 1], 2)
    with pm.Model(coords={"subject": ["a", "b", "c"]}) as model:
        b = pm.LogNormal("b", 1, 0.5, dims="subject")
        pm.Normal(
            "drug", b[subject] * pm.math.exp(-0.4 * pm.Data("t", t)), 0.3, observed=np.ones(12)
        )
        law = pm.Normal.dist(10 * b[who] * pm.Data("later", later), 3.0)
        pm.Censored("effect", law, lower=None, upper=50.0, observed=[20.0, 50.0, 30.0, 50.0])
    fit = made_up_fit(model, {"b": np.array([2.0, 3.0, 4.0])}, {}, {"drug": subject, "effect": who})
    return model, fit, {"drug": t, "effect": later}


def test_several_outcomes_side_by_side(two_outcomes):
    model, fit, x = two_outcomes
    axes = ps.plot_fits(model, fit, outcome=["drug", "effect"], x=x, n_grid=5)
    assert axes.shape == (3, 2)
    assert [ax.get_title() for ax in axes[1]] == ["subject b"] * 2
    assert [ax.get_ylabel() for ax in axes[1]] == ["drug", "effect"] and axes[
        0, 0
    ].figure.get_supxlabel() == "time"
    for ax, mode in zip(axes[:, 0], [2.0, 3.0, 4.0], strict=True):
        t, y = line(ax, "individual")
        np.testing.assert_allclose(y, mode * np.exp(-0.4 * t), rtol=1e-10)
    t, y = line(axes[1, 1], "individual")
    np.testing.assert_allclose(y, 30 * t, rtol=1e-10)
    assert (
        len(line(axes[2, 1], "individual")[0]) == 0 and axes[2, 1].texts[0].get_text() == "no rows"
    )
    limits = [{ax.get_ylim() for ax in column} for column in axes.T]
    assert [len(each) for each in limits] == [1, 1] and limits[0] != limits[1]
    assert len({ax.get_xlim() for ax in axes.ravel()}) == 1
    assert [text.get_text() for text in axes[0, 0].figure.legends[0].texts][:2] == [
        "data",
        "above its limit",
    ]


def test_several_outcomes_on_pages_and_on_axes_of_the_caller(two_outcomes):
    model, fit, x = two_outcomes
    axes = ps.plot_fits(
        model,
        fit,
        outcome=["effect", "drug"],
        x=x,
        n_grid=5,
        per_page=3,
        ylabel=["E [%]", "C [mg/L]"],
    )
    assert len({ax.figure for ax in axes[:, 0]}) == 3  # subjects are not torn apart
    assert all(len({ax.figure for ax in row}) == 1 for row in axes)
    assert [len({ax.get_ylim() for ax in column}) for column in axes.T] == [1, 1]
    assert axes[2, 1].get_ylabel() == "C [mg/L]"
    _, mine = plt.subplots(2, 2)
    given = ps.plot_fits(model, fit, "b", outcome=["effect", "drug"], x=x, ax=mine[1], n_grid=5)
    assert (
        given[0, 0] is mine[1, 0]
        and not mine[0, 0].has_data()
        and given[0, 1].get_xlabel() == "time"
    )
    with pytest.raises(
        ValueError, match="ncols must be a multiple of 2, the number of outcomes, got 3"
    ):
        ps.plot_fits(model, fit, outcome=["effect", "drug"], x=x, ncols=3)
    with pytest.raises(ValueError, match="ylabel has 1 labels, but there are 2 outcomes"):
        ps.plot_fits(model, fit, outcome=["effect", "drug"], x=x, ylabel="both")
    with pytest.raises(ValueError, match="outcome is an empty sequence"):
        ps.plot_fits(model, fit, outcome=[], x=x)
    with pytest.raises(ValueError, match="The times of outcome 'effect'"):
        ps.plot_fits(model, fit, outcome=["drug", "effect"], x={"drug": x["drug"]})


def test_log_axis_is_not_stretched_by_zeros(model, idata, data):
    axes = ps.plot_fits(model, idata, x=data["time"], log=True)
    # plain numbers, as in the other figures
    assert axes[0].yaxis.get_major_formatter()(10.0, 0) == "10"
    positive = data["conc"][data["conc"] > 0].min()
    assert all(
        ax.get_yscale() == "log" and ax.get_ylim()[0] == pytest.approx(positive / 2) for ax in axes
    )


def test_censored_rows_are_marked():
    t, subject = np.tile([0.5, 1.0, 2.0], 2), np.repeat([0, 1], 3)
    observed = np.array([3.5, 2.0, 1.0, 3.5, 3.0, 1.0])
    with pm.Model(coords={"subject": ["a", "b"]}) as model:
        b = pm.LogNormal("b", 1, 0.5, dims="subject")
        law = pm.Normal.dist(b[subject] * pm.math.exp(-0.4 * pm.Data("t", t)), 0.3)
        pm.Censored(
            "y", law, lower=1.0, upper=np.array([3.5, 3.5, 3.5, 3.5, 3.0, 3.5]), observed=observed
        )
    fit = made_up_fit(model, {"b": np.array([3.0, 5.0])}, {}, {"y": subject})
    a, b = ps.plot_fits(model, fit, x=t)
    np.testing.assert_array_equal(np.c_[line(a, "data")], [[1.0, 2.0]])
    np.testing.assert_array_equal(np.c_[line(a, "below its limit")], [[2.0, 1.0]])
    np.testing.assert_array_equal(np.c_[line(b, "above its limit")], [[0.5, 3.5], [1.0, 3.0]])
    x, y = line(a, "individual")
    # of the distribution before it was cut off
    np.testing.assert_allclose(y, 3.0 * np.exp(-0.4 * x), rtol=1e-10)


@pytest.mark.filterwarnings("ignore:Data in y contains missing values")
def test_missing_rows_are_left_out():
    t, subject = np.tile([0.5, 1.0, 2.0], 2), np.repeat([0, 1], 3)
    with pm.Model(coords={"subject": ["a", "b"]}) as model:
        b = pm.LogNormal("b", 1, 0.5, dims="subject")
        pm.Normal(
            "y", b[subject] * np.exp(-0.4 * t), 0.3, observed=[3.0, np.nan, 1.0, 3.0, 2.0, np.nan]
        )
    keep = np.array([0, 2, 3, 4])
    fit = made_up_fit(model, {"b": np.array([3.0, 5.0])}, {}, {"y_observed": subject[keep]})
    # PyMC has cut the times in the graph
    with pytest.warns(UserWarning, match="connected from row to row"):
        a, b = ps.plot_fits(model, fit, x=t[keep])
    np.testing.assert_array_equal(np.c_[line(a, "data")], [[0.5, 3.0], [2.0, 1.0]])
    np.testing.assert_allclose(
        line(b, "individual")[1], 5.0 * np.exp(-0.4 * t[keep[2:]]), rtol=1e-10
    )
    # times of all rows, as residuals and vpc take them
    with pytest.warns(UserWarning, match="connected from row to row"):
        again, _ = ps.plot_fits(model, fit, outcome="y", x=t)
    np.testing.assert_array_equal(line(again, "data"), line(a, "data"))
    ps.plot_observation_distribution(model, fit, subject="a", row=1, x=t)


def test_errors(model, idata, data):
    with pytest.raises(
        TypeError,
        match="model is of type .*; it must be a pymc.Model. The model comes first, then its fit",
    ):
        ps.plot_fits(idata, model)
    with pytest.raises(TypeError, match="model is {}; it must be a pymc.Model"):
        ps.plot_fits({}, idata)
    with pytest.raises(ValueError, match="There is no subject 13; there are 1, 2, 3, .*12"):
        ps.plot_fits(model, idata, subjects=[1, 13], x=data["time"])
    with pytest.raises(
        ValueError, match="The times of outcome 'conc' are unknown; give one per row with x="
    ):
        ps.plot_fits(model, idata)
    with pytest.raises(
        ValueError, match=r"one number per row of 'conc', shape \(132,\); got shape \(5,\)"
    ):
        ps.plot_fits(model, idata, x=np.arange(5.0))
    with pytest.raises(ValueError, match="x is of type list; it must be an array of numbers"):
        ps.plot_fits(model, idata, x=["monday"] * 132)
    with pytest.raises(ValueError, match="x must be finite; row 3"):
        ps.plot_fits(model, idata, x=np.where(np.arange(132) == 3, np.nan, data["time"]))
    with pytest.raises(ValueError, match="no outcome 'cp'; it has conc"):
        ps.plot_fits(model, idata, outcome="cp", x=data["time"])
    with pytest.raises(ValueError, match="ci_prob must lie between 0 and 1"):
        ps.plot_fits(model, idata, ci_prob=90, x=data["time"])
    with pytest.raises(
        ValueError,
        match="an ODE solution has this row at 0.25: x must be the time given to solve_ivp",
    ):
        ps.plot_fits(theophylline(ode=True), idata, x=data["time"] / 24)
