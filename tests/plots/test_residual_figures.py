"""plot_residuals, plot_vpc, plot_predictions: what they draw are the numbers of ps.residuals and ps.vpc."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.plots.smooth import trend
from tests.support.made_up_fit import made_up_fit
from tests.support.models import theophylline

FEW = {"n_simulations": 60, "random_seed": 1}


def lines(ax, label):
    return [np.array(found.get_data()) for found in ax.get_lines() if found.get_label() == label]


def test_vpc_draws_the_table(model, idata, data):
    (ax,) = ps.plot_vpc(model, idata, x=data["time"], **FEW)
    table = ps.vpc(model, idata, x=data["time"], **FEW)
    outer = lines(ax, "observed 0.1, 0.9 quantile")
    for found, level in zip(
        [*outer, *lines(ax, "observed 0.5 quantile")], (0.1, 0.9, 0.5), strict=True
    ):
        np.testing.assert_array_equal(found, table[table["level"] == level][["x", "observed"]].T)
    np.testing.assert_array_equal(lines(ax, "data")[0], data[["time", "conc"]].T)
    out = table[(table["observed"] < table["lower"]) | (table["observed"] > table["upper"])]
    marked = np.concatenate(lines(ax, "outside of its interval"), axis=1)
    assert marked.shape[1] == len(out) and set(marked[1]) == set(out["observed"])
    bands = [np.unique(band.get_paths()[0].vertices[:, 1]) for band in ax.collections]
    assert len(bands) == 3
    for band, level in zip(bands, (0.1, 0.5, 0.9), strict=True):
        part = table[table["level"] == level]
        assert set(part["lower"]) | set(part["upper"]) <= set(band)
    assert ax.get_xlabel() == "time [h]" and ax.get_ylabel() == "conc [mg/L]"
    assert len(ax.figure.legends) == 1


def test_one_bin_has_lines(model, idata, data):
    (ax,) = ps.plot_vpc(model, idata, x=data["time"], bins=1, n_simulations=20, random_seed=1)
    lines = [
        line
        for line in ax.get_lines()
        if str(line.get_label()).startswith(("observed", "simulated"))
    ]
    assert lines and all(list(line.get_xdata()) == [0.0, data["time"].max()] for line in lines)


def test_smooth_vpc_draws_the_table(model, idata, data):
    (ax,) = ps.plot_vpc(model, idata, x=data["time"], bins="smooth", **FEW)
    table = ps.vpc(model, idata, x=data["time"], bins="smooth", **FEW)
    middle = table[table["level"] == 0.5]
    np.testing.assert_array_equal(
        lines(ax, "observed 0.5 quantile")[0], middle[["x", "observed"]].T
    )
    out = table[(table["observed"] < table["lower"]) | (table["observed"] > table["upper"])]
    marked = np.concatenate(lines(ax, "outside of its interval"), axis=1)
    assert np.isfinite(marked[1]).sum() == len(out) > 0


def test_vpc_strata_and_axes_of_the_caller(model, idata, data):
    weight = pd.Series(np.where(data["weight"] > 70, "above", "below"), name="weight")
    axes = ps.plot_vpc(
        model, idata, x=data["time"], stratify=weight, prediction_corrected=True, log=True, **FEW
    )
    assert [ax.get_title() for ax in axes] == ["weight above", "weight below"]
    assert (
        axes[0].figure.get_supylabel() == "conc [mg/L], prediction-corrected"
        and axes[0].get_yscale() == "log"
    )
    for first in ("a", "z"):  # whichever comes first, a log axis holds all strata
        late = pd.Series(np.where(data["time"] > 12, first, "m"), name="part")
        axes = ps.plot_vpc(model, idata, x=data["time"], stratify=late, log=True, **FEW)
        assert axes[0].get_ylim()[1] > data["conc"].max()
    _, own = plt.subplots()
    found = ps.plot_vpc(
        model,
        idata,
        None,
        data["time"],
        bins=1,
        xlabel="t",
        ylabel="c",
        show_data=False,
        ax=own,
        **FEW,
    )
    assert (
        list(found) == [own]
        and own.get_xlabel() == "t"
        and own.get_ylabel() == "c"
        and not lines(own, "data")
    )
    with pytest.raises(ValueError, match="ax holds 1 Axes; 2 are needed"):
        ps.plot_vpc(model, idata, x=data["time"], stratify=weight, ax=own, **FEW)


def test_residuals_draw_the_table(model, idata, data):
    table = ps.residuals(model, idata, x=data["time"], **FEW)
    kinds = ("time", "prediction", "qq", "histogram", "autocorrelation")
    grid = ps.plot_residuals(
        model, idata, x=data["time"], which=("iwres", "pit"), kinds=kinds, **FEW
    )
    assert grid.shape == (2, 5)
    for i, (name, prediction) in enumerate((("iwres", "individual"), ("pit", "population"))):
        np.testing.assert_array_equal(lines(grid[i, 0], "rows")[0], table[["x", name]].T)
        np.testing.assert_array_equal(lines(grid[i, 1], "rows")[0], table[[prediction, name]].T)
        qq = grid[i, 2].get_lines()[-1].get_data()
        np.testing.assert_array_equal(qq[1], np.sort(table[name]))
        np.testing.assert_allclose(np.median(qq[0]), {"iwres": 0.0, "pit": 0.5}[name], atol=0.01)
        heights = grid[i, 3].patches[0].get_data()
        np.testing.assert_allclose((heights.values * np.diff(heights.edges)).sum(), 1.0)
        centred = table[name] - (0.5 if name == "pit" else 0.0)
        products = []
        for subject in table["subject"].unique():
            own = centred[table["subject"] == subject].to_numpy()  # the rows are in order of time
            products.append(own[1:] * own[:-1])
        first = np.concatenate(products).mean() / np.mean(centred**2)
        np.testing.assert_allclose(grid[i, 4].get_lines()[0].get_ydata()[0], first)
    assert (
        grid[0, 0].get_xlabel() == "time [h]"
        and grid[0, 1].get_xlabel() == "individual prediction [mg/L]"
    )
    assert grid[0, 0].get_ylabel() == "IWRES"


def test_predictions(model, idata, data):
    axes = ps.plot_predictions(model, idata, x=data["time"])
    table = ps.residuals(model, idata, x=data["time"], **FEW)
    for ax, kind in zip(axes, ("population", "individual"), strict=True):
        np.testing.assert_array_equal(lines(ax, "data")[0], table[[kind, "observed"]].T)
        identity = lines(ax, "identity")[0]
        np.testing.assert_array_equal(identity[0], identity[1])
        assert ax.get_xlabel() == f"{kind} prediction [mg/L]" and lines(ax, "trend")
    _, own = plt.subplots()
    (ax,) = ps.plot_predictions(
        model, idata, kinds="individual", subjects=[3, "5"], log=True, smooth=False, ax=own
    )
    assert ax is own and not lines(ax, "trend") and ax.get_xscale() == ax.get_yscale() == "log"
    np.testing.assert_array_equal(
        lines(ax, "data")[0][1], data["conc"][data["subject"].isin([3, 5])]
    )


def test_a_fit_from_a_file_and_a_solution_that_knows_its_times(idata, data, tmp_path):
    idata.to_netcdf(tmp_path / "fit.nc")
    loaded = az.from_netcdf(tmp_path / "fit.nc")
    ode, formula = theophylline(ode=True, rtol=1e-2, atol=1e-2), theophylline()
    one = ps.residuals(ode, loaded, **FEW)
    other = ps.residuals(formula, loaded, x=data["time"], **FEW)
    pd.testing.assert_frame_equal(one, other, atol=1e-4)
    pd.testing.assert_frame_equal(
        ps.vpc(ode, loaded, **FEW), ps.vpc(formula, loaded, x=data["time"], **FEW), atol=1e-4
    )
    grid = ps.plot_residuals(ode, loaded, **FEW)
    assert grid.shape == (2, 4) and grid[0, 0].get_xlabel() == "time"
    ps.plot_vpc(ode, loaded, **FEW)
    ps.plot_predictions(ode, loaded)


@pytest.mark.parametrize("n", [1, 200])
@pytest.mark.slow
def test_one_subject_and_200_with_several_outcomes(n):
    rng = np.random.default_rng(1)
    subject, t = np.repeat(np.arange(n), 5), np.tile([0.5, 1.0, 2.0, 4.0, 8.0], n)
    b = np.exp(rng.normal(-1.0, 0.3, n))
    curve = 5 * np.exp(-b[subject] * t)
    with pm.Model(coords={"patient": [f"p{k}" for k in range(n)]}) as model:
        k = pm.LogNormal("k", pm.Flat("m"), pm.HalfFlat("w"), dims="patient")
        mean = 5 * pm.math.exp(-k[subject] * t)
        pm.Censored(
            "y", pm.Normal.dist(mean, 0.3), lower=0.5, observed=np.maximum(curve, 0.5), upper=None
        )
        pm.Poisson("count", mean, observed=rng.poisson(curve))
        pm.Bernoulli("flag", logit_p=mean - 2, observed=(curve > 2) * 1)
    fit = made_up_fit(
        model, {"k": b}, {"m": -1.0, "w": 0.3}, {name: subject for name in ("y", "count", "flag")}
    )
    with pytest.raises(
        ValueError, match="several outcomes; choose one with outcome=: y, count, flag"
    ):
        ps.plot_residuals(model, fit)
    assert ps.plot_vpc(model, fit, "y", t, log=True, **FEW).shape == (2, 1)
    for name in ("count", "flag"):
        assert ps.plot_vpc(model, fit, name, t, **FEW).shape == (1,)
    for name in ("y", "count", "flag"):
        kinds = ("time", "prediction", "qq", "histogram", "autocorrelation")
        grid = ps.plot_residuals(
            model, fit, name, t, which=("iwres", "pwres", "npde", "pit"), kinds=kinds, **FEW
        )
        grid[0, 0].figure.canvas.draw()
        ps.plot_predictions(model, fit, name)[0].figure.canvas.draw()
    (first, *_) = ps.plot_residuals(model, fit, "y", **FEW)[0]  # no times: no panel of them
    assert first.get_xlabel() == "individual prediction"
    cut = lines(first, "censored rows")[0]
    assert cut.shape == (2, (curve <= 0.5).sum())


def test_trend():
    x = np.linspace(0, 10, 40)
    found = trend(np.append(x, np.nan), np.append(3 - 2 * x, 1.0))
    np.testing.assert_allclose(found[1], 3 - 2 * found[0])  # of a line, the line
    assert found[0][0] == 0 and found[0][-1] == 10
    bent = trend(np.repeat(x, 5), np.repeat(np.sin(x), 5), span=0.2)
    np.testing.assert_allclose(bent[1], np.sin(bent[0]), atol=0.15)
    few = np.array([0.14, 0.64, 0.74, 2.5, 3.0, 4.66, 4.66, 4.66])
    assert trend(few, np.sin(few))[0].size == 0


def test_errors(model, idata, data):
    with pytest.raises(
        ValueError, match="The times of outcome 'conc' are unknown; give one per row with x="
    ):
        ps.plot_residuals(model, idata, kinds="time", **FEW)
    with pytest.raises(ValueError, match="kinds must be among 'time', .*, got \\('violin',\\)"):
        ps.plot_residuals(model, idata, kinds="violin", **FEW)
    with pytest.raises(ValueError, match="which must be among 'iwres', .*, got \\('cwres',\\)"):
        ps.plot_residuals(model, idata, which="cwres", **FEW)
    with pytest.raises(
        ValueError, match="kinds must be among 'population', 'individual', got \\('both',\\)"
    ):
        ps.plot_predictions(model, idata, kinds="both")
    with pytest.raises(ValueError, match="There is no subject 13"):
        ps.plot_predictions(model, idata, subjects=13)
