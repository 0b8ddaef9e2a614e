"""Every plot function on fits that come from a file: one subject and 200, two outcomes, a network in the equation."""

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest

import pymc_saem as ps
from tests.support.made_up_fit import made_up_fit

NET = ps.nn.MLP(in_size=1, out_size=1, width_size=2, depth=1, activation="tanh")
TIMES = np.array([0.5, 1.0, 2.0, 4.0])


def simulated(n_subjects):
    rng = np.random.default_rng(n_subjects)
    rate = 0.4 * np.exp(0.3 * rng.normal(size=n_subjects))
    amount = np.exp(-rate[:, None] * TIMES)
    data = pd.DataFrame(
        {
            "subject": np.repeat(np.arange(n_subjects) + 1, TIMES.size),
            "time": np.tile(TIMES, n_subjects),
        }
    )
    data["drug"] = (amount + 0.05 * rng.normal(size=amount.shape)).ravel()
    data["effect"] = (1 - amount + 0.05 * rng.normal(size=amount.shape)).ravel()
    return data.assign(sex=np.where(data["subject"] % 2, "f", "m"))


def program(data):
    subject, ids = data["subject"].factorize()
    with pm.Model(coords={"subject": ids, "weight": NET.weight_names}) as model:
        center = ps.nn.weights("center", NET, input_range=(0, 1), typical_output=-1.0)
        w = pm.Normal("w", center, 0.1, dims=("subject", "weight"))
        solution = ps.ode.solve_ivp(
            lambda t, y, p: {"drug": -y.drug * ps.nn.softplus(NET(p.w, y.drug))}, {"drug": 1.0}, {"w": w},
            t=data["time"], subject=subject, rtol=1e-3, atol=1e-3, solver="tsit5",
        )  # fmt: skip
        pm.Normal("drug", solution.drug, pm.HalfNormal("sigma", 1.0), observed=data["drug"])
        pm.Normal("effect", 1 - solution.drug, pm.HalfNormal("tau", 1.0), observed=data["effect"])
    return model


@pytest.fixture(scope="module", params=[1, 200])
def stored(request, tmp_path_factory):
    data = simulated(request.param)
    model = program(data)
    rng = np.random.default_rng(1)
    center = rng.normal(0.0, 0.5, NET.n_weights)
    weights = center + 0.1 * rng.normal(size=(request.param, NET.n_weights))
    rows = data["subject"].to_numpy() - 1
    fit = made_up_fit(
        model,
        {"w": weights},
        {"center": center, "sigma": 0.05, "tau": 0.05},
        {"drug": rows, "effect": rows},
    )
    path = tmp_path_factory.mktemp("fit") / "fit.nc"
    fit.to_netcdf(path, engine="h5netcdf")
    return data, model, ps.load(path)


#: Arguments that mean the same in every figure that has them.
SHARED = {"ax", "figsize", "ncols", "log", "xlabel", "ylabel", "units", "ci_prob", "sharex"}
#: Figures whose grid follows from what they draw.
FIXED_GRIDS = {"plot_predictions", "plot_residuals", "plot_vpc"}


def test_one_keyword_for_one_thing():
    plots = {
        name: inspect.signature(getattr(ps, name)).parameters
        for name in ps.__all__
        if name.startswith("plot_")
    }
    for name, parameters in plots.items():
        assert {"ax", "figsize"} <= set(parameters), name
        assert ("ncols" in parameters) == (name not in FIXED_GRIDS), name
        assert not {"axes", "axis", "columns", "yscale", "logy", "unit", "size", "n_columns"} & set(
            parameters
        ), name
        assert all(
            parameters[one].kind is inspect.Parameter.KEYWORD_ONLY
            for one in SHARED & set(parameters)
        ), name
    for one in SHARED:
        defaults = {parameters[one].default for parameters in plots.values() if one in parameters}
        assert len(defaults) == 1, f"{one}: {defaults}"


CALLS = {
    "plot_comparison": lambda data, model, idata: ps.plot_comparison({"one": idata, "two": idata}),
    "plot_convergence": lambda data, model, idata: ps.plot_convergence(idata),
    "plot_data": lambda data, model, idata: ps.plot_data(data, "time", "effect", by="sex"),
    "plot_fits": lambda data, model, idata: ps.plot_fits(model, idata, outcome="effect", n_grid=20),
    "plot_observation_distribution": lambda data, model, idata: ps.plot_observation_distribution(
        model, idata, subject=1, row=[0, 2], outcome="effect", x=data["time"]
    ),
    "plot_predictions": lambda data, model, idata: ps.plot_predictions(
        model, idata, outcome="effect"
    ),
    "plot_random_effects": lambda data, model, idata: ps.plot_random_effects(model, idata),
    "plot_rates": lambda data, model, idata: ps.plot_rates(model, idata),
    "plot_residuals": lambda data, model, idata: ps.plot_residuals(
        model, idata, outcome="effect", n_simulations=100, random_seed=1
    ),
    "plot_vpc": lambda data, model, idata: ps.plot_vpc(
        model, idata, outcome="drug", x=data["time"], n_simulations=20, random_seed=1
    ),
}


def test_no_plot_function_is_missing():
    assert set(CALLS) == {name for name in dir(ps) if name.startswith("plot_")}


@pytest.mark.parametrize("name", CALLS)
def test_it_draws(stored, name):
    drawn = np.ravel(CALLS[name](*stored))
    assert all(ax.has_data() for ax in drawn)
    drawn[0].figure.canvas.draw()  # layout and text: what only drawing finds
    plt.close("all")


def labels(drawn):
    """Labels of all axes of a figure, and of the figure."""
    figure = np.ravel(drawn)[0].figure
    texts = [figure.get_supxlabel(), figure.get_supylabel()]
    return {text for ax in np.ravel(drawn) for text in (ax.get_xlabel(), ax.get_ylabel())} | set(
        texts
    )


FEW = {"outcome": "effect", "n_simulations": 20, "random_seed": 1}


@pytest.mark.parametrize("given", [True, False])
def test_units_of_the_data_reach_the_axes(given):
    """From the times that a figure is given, or from those that the ODE solution was given."""
    data = simulated(3)
    data.attrs["units"] = {"time": "h", "effect": "IU"}
    model = program(
        data
        if not given
        else pd.DataFrame({name: column.to_numpy() for name, column in data.items()})
    )
    rng, rows = np.random.default_rng(1), data["subject"].to_numpy() - 1
    center = rng.normal(0.0, 0.5, NET.n_weights)
    weights = center + 0.1 * rng.normal(size=(3, NET.n_weights))
    idata = made_up_fit(
        model,
        {"w": weights},
        {"center": center, "sigma": 0.05, "tau": 0.05},
        {"drug": rows, "effect": rows},
    )
    x = data["time"] if given else None
    assert {"time [h]", "effect [IU]"} <= labels(
        ps.plot_fits(model, idata, outcome="effect", x=x, n_grid=10)
    )
    assert {"time [h]", "effect [IU]"} <= labels(ps.plot_vpc(model, idata, x=x, bins=2, **FEW))
    assert {"population prediction [IU]", "observed effect [IU]"} <= labels(
        ps.plot_predictions(model, idata, outcome="effect", x=x)
    )
    assert {"time [h]", "individual prediction [IU]"} <= labels(
        ps.plot_residuals(model, idata, x=x, **FEW)
    )
    assert {"effect [IU]"} <= labels(
        ps.plot_observation_distribution(model, idata, subject=1, outcome="effect", x=x)
    )
    assert {"time [h]", "effect [IU]"} <= labels(ps.plot_data(data, "time", "effect"))
