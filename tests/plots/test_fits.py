"""plot_fits: the lines equal predictions computed here."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest
from models import theophylline

import pymc_saem as ps
from pymc_saem.compat import get_group


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
        np.testing.assert_array_equal(np.c_[line(ax, "data")], np.c_[own["time"].to_numpy(), own["conc"].to_numpy()])


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
    np.testing.assert_allclose(band(ax), np.quantile(curves, [0.25, 0.75], axis=0), rtol=1e-9, atol=1e-12)
    assert "50 % band" in ax.figure.legends[0].get_texts()[3].get_text()


def test_a_fit_from_a_file(model, idata, data, tmp_path):
    idata.to_netcdf(tmp_path / "fit.nc")
    loaded = az.from_netcdf(tmp_path / "fit.nc")
    axes = ps.plot_fits(model, loaded, subjects=[1, 2], x=data["time"])
    check_curves(axes, [0, 1], idata, data, 1e-10)
    assert len(ps.plot_convergence(loaded)) == 9
    ps.plot_observation_distribution(model, loaded, subject=1)


def test_labels_and_axes_of_the_caller(model, idata, data):
    _, own = plt.subplots(2)
    axes = ps.plot_fits(model, idata, [1, "2"], x=data["time"].to_numpy(), xlabel="hours", n_grid=20, axes=own)
    assert list(axes) == list(own)
    assert [ax.get_xlabel() for ax in axes] == ["hours"] * 2 and axes[1].get_ylabel() == "conc"
    assert axes[0].get_legend() is not None and line(axes[0], "individual")[0].size == 20


def test_errors(model, idata, data):
    with pytest.raises(ValueError, match="There is no subject 13; there are 1, 2, 3, .*12"):
        ps.plot_fits(model, idata, subjects=[1, 13], x=data["time"])
    with pytest.raises(ValueError, match="Nothing tells the times of outcome 'conc'; give one per row as x="):
        ps.plot_fits(model, idata)
    with pytest.raises(ValueError, match=r"one number per row of 'conc', shape \(132,\); got shape \(5,\)"):
        ps.plot_fits(model, idata, x=np.arange(5.0))
    with pytest.raises(ValueError, match="x must hold numbers"):
        ps.plot_fits(model, idata, x=["monday"] * 132)
    with pytest.raises(ValueError, match="x must be finite; row 3"):
        ps.plot_fits(model, idata, x=np.where(np.arange(132) == 3, np.nan, data["time"]))
    with pytest.raises(ValueError, match="no outcome 'cp'; it has conc"):
        ps.plot_fits(model, idata, outcome="cp", x=data["time"])
    with pytest.raises(ValueError, match="ci_prob must lie between 0 and 1"):
        ps.plot_fits(model, idata, ci_prob=90, x=data["time"])
    with pytest.raises(ValueError, match="an ODE solution has this row at 0.25: x must be the time given to solve_ivp"):
        ps.plot_fits(theophylline(ode=True), idata, x=data["time"] / 24)
