"""rates and plot_rates: curves against a forward pass written here, the covered range against solutions of SciPy."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import integrate

import pymc_saem as ps
from pymc_saem.compat import get_group
from tests.support.made_up_fit import made_up_fit

N, T = 3, np.array([0.5, 1.0, 4.0, 0.5, 2.0, 1.0, 3.0])
SUBJECT = np.array([0, 0, 0, 1, 1, 2, 2])
DOSE = np.array([1.0, 2.0, 3.0])
NET = ps.nn.MLP(in_size=1, out_size=1, width_size=2, depth=1, activation="tanh")
RNG = np.random.default_rng(3)
MODES = {"w_in": RNG.normal(0, 0.7, (N, 7)), "w_out": RNG.normal(0, 0.7, (N, 7))}


def forward(w, x):
    """A network with two tanh units, weight by weight."""
    w = np.moveaxis(np.asarray(w), -1, 0)[..., None]
    return w[4] * np.tanh(w[0] * x + w[2]) + w[5] * np.tanh(w[1] * x + w[3]) + w[6]


def softplus(x):
    return np.log1p(np.exp(x))


def right_hand_side(t, y, p):
    inflow = ps.nn.softplus(NET(p.w_in, t / 24))
    outflow = 0.5 * pm.math.exp(NET(p.w_out, y.a / p.volume))
    return {"a": p.dose * inflow - outflow * y.a}


@pytest.fixture(scope="module")
def neural():
    with pm.Model(coords={"subject": ["u", "v", "w"], "weight": NET.weight_names}) as model:
        w = {}
        for name in ("in", "out"):
            z = ps.nn.weights(f"z_{name}", NET)
            w[f"w_{name}"] = pm.MvNormal(f"w_{name}", z, np.eye(7), dims=("subject", "weight"))
        solution = ps.ode.solve_ivp(
            right_hand_side,
            {"a": 1.0},
            w | {"dose": DOSE, "volume": 2.0},
            t=T,
            subject=SUBJECT,
            rtol=1e-2,
            atol=1e-2,
        )
        pm.Normal("y", solution.a, 1.0, observed=np.ones(7))
    parameters = {"z_in": np.zeros(7), "z_out": np.zeros(7)}
    return model, made_up_fit(model, MODES, parameters, {"y": SUBJECT}, draws=20)


def solution_of(subject, t):
    def slope(t, y):
        inflow = softplus(forward(MODES["w_in"][subject], t / 24))[0]
        outflow = 0.5 * np.exp(forward(MODES["w_out"][subject], y[0] / 2.0))[0]
        return [DOSE[subject] * inflow - outflow * y[0]]

    return integrate.solve_ivp(slope, (0, t[-1]), [1.0], t_eval=t, rtol=1e-10, atol=1e-10).y[0]


def part(table, network, subject):
    return table[(table["network"] == network) & (table["subject"] == subject)]


def test_values_are_forward_passes(neural):
    table = ps.rates(*neural)
    assert list(table["network"].unique()) == ["w_in", "w_out"]
    assert set(table["subject"]) == {"population", "u", "v", "w"}
    for k, name in enumerate("uvw"):
        time = part(table, "w_in", name)
        assert set(time["variable"]) == {"t"}
        expected = softplus(forward(MODES["w_in"][k], time["x"].to_numpy() / 24))
        np.testing.assert_allclose(time["value"], expected, rtol=1e-12)
        # the input depends on a parameter, so x is the input itself
        state = part(table, "w_out", name)
        assert set(state["variable"]) == {"a / volume"}
        expected = 0.5 * np.exp(forward(MODES["w_out"][k], state["x"].to_numpy()))
        np.testing.assert_allclose(state["value"], expected, rtol=1e-12)
    population = get_group(neural[1], "individual")["w_in_population"].values[0]
    typical = part(table, "w_in", "population")
    np.testing.assert_allclose(
        typical["value"], softplus(forward(population, typical["x"].to_numpy() / 24)), rtol=1e-12
    )
    assert typical["lower"].isna().all()


def test_intervals_are_quantiles_of_the_draws(neural):
    table = part(ps.rates(*neural, "w_in", ci_prob=0.5), "w_in", "v")
    draws = get_group(neural[1], "posterior")["w_in"].values[0, :, 1]
    curves = softplus(forward(draws, table["x"].to_numpy() / 24))
    np.testing.assert_allclose(
        table[["lower", "upper"]].T, np.quantile(curves, [0.25, 0.75], axis=0), rtol=1e-12
    )


def test_covered_is_where_the_trajectory_goes(neural):
    table = ps.rates(*neural, n_grid=400)
    for k, name in enumerate("uvw"):
        last = T[SUBJECT == k].max()
        time = part(table, "w_in", name)
        np.testing.assert_array_equal(time["is_covered"], time["x"] <= last)
        a = solution_of(k, np.linspace(0, last, 500)) / 2.0
        state = part(table, "w_out", name)
        inside = state["x"][state["is_covered"]]
        step = np.diff(state["x"])[0]
        assert abs(inside.min() - a.min()) < 1.5 * step and abs(inside.max() - a.max()) < 1.5 * step


def test_the_input_itself_and_the_network_alone(neural):
    table = part(ps.rates(*neural, "w_in", "w", along="input", raw=True), "w_in", "w")
    assert set(table["variable"]) == {"t / 24"} and table["x"].max() == pytest.approx(
        1.15 * 4 / 24, rel=1e-6
    )
    np.testing.assert_allclose(
        table["value"], forward(MODES["w_in"][2], table["x"].to_numpy()), rtol=1e-12
    )


def lines(ax, label):
    (found,) = [found for found in ax.get_lines() if found.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def test_the_figure_draws_the_table(neural):
    table = ps.rates(*neural)
    axes = ps.plot_rates(
        *neural, labels={"w_in": "inflow", "t": "time"}, units={"t": "h", "w_out": "1/h"}
    )
    assert [ax.get_title() for ax in axes] == ["inflow", "w_out"]
    assert [ax.get_xlabel() for ax in axes] == ["time [h]", "a / volume"]
    assert [ax.get_ylabel() for ax in axes] == ["softplus(net)", "0.5 * exp(net) [1/h]"]
    for ax, network in zip(axes, ("w_in", "w_out"), strict=True):
        own = part(table, network, "v")
        x, y = lines(ax, "subject v")
        np.testing.assert_array_equal(x, own["x"])
        np.testing.assert_array_equal(y, own["value"].where(own["is_covered"]))
        np.testing.assert_array_equal(
            lines(ax, "population")[1], part(table, network, "population")["value"]
        )
    grey = [p for p in axes[0].patches if p.get_label() == "outside the fitted trajectories"]
    # time begins at zero, and data end at 4
    assert len(grey) == 1 and grey[0].get_x() == pytest.approx(4.0)
    np.testing.assert_array_equal(np.sort(lines(axes[0], "rows of the data")[0]), np.unique(T))


def test_axes_scale_and_ranges_of_the_caller(neural):
    _, own = plt.subplots(2)
    axes = ps.plot_rates(*neural, subjects="u", ax=own, log=True, ranges={"w_in": (0, 8)})
    assert (
        list(axes) == list(own) and axes[0].get_xlim() == (0, 8) and axes[0].get_yscale() == "log"
    )
    assert lines(axes[0], "subject u")[0].size == 100


def test_many_subjects_share_a_band():
    n = 200
    modes = np.random.default_rng(1).normal(0, 0.5, (n, 7))
    subject, t = np.repeat(np.arange(n), 2), np.tile([0.3, 1.0], n)
    with pm.Model(coords={"subject": np.arange(n), "weight": NET.weight_names}) as model:
        z = ps.nn.weights("z", NET)
        w = pm.Normal("w", z, 1.0, dims=("subject", "weight"))
        # a formula, no differential equation
        pm.Normal("y", NET(w[subject], t) ** 2, 1.0, observed=np.ones(2 * n))
    fit = made_up_fit(model, {"w": modes}, {"z": np.zeros(7)}, {"y": subject}, draws=20)
    (ax,) = ps.plot_rates(model, fit)
    assert ax.get_ylabel() == "net ** 2" and ax.get_xlabel() == "input"
    x, y = lines(ax, "subjects")
    expected = forward(modes[0], x) ** 2
    np.testing.assert_allclose(y[np.isfinite(y)], expected[np.isfinite(y)], rtol=1e-12)
    assert np.isfinite(y).sum() == ((x >= 0.3) & (x <= 1.0)).sum()
    draws = get_group(fit, "posterior")["w"].values[0]
    band = np.quantile((forward(draws, x) ** 2).reshape(-1, x.size), [0.05, 0.95], axis=0)
    (polygon,) = [c for c in ax.collections if c.get_label().startswith("90 %")]
    heights = polygon.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(band[0].min()) and heights.max() == pytest.approx(
        band[1].max()
    )
    (legend,) = ax.figure.legends  # fewer columns than for several panels, as the figure is narrow
    assert (
        0 <= legend.get_window_extent().x0 and legend.get_window_extent().x1 <= ax.figure.bbox.width
    )


def test_inputs_that_are_random_effects_stay_each_subjects_own():
    """A shared network of time and an effect: it is drawn along time only."""
    net = ps.nn.MLP(in_size=2, out_size=1, width_size=3, depth=1, output_activation="softplus")
    weights, b = np.random.default_rng(2).normal(size=net.n_weights), np.array([-1.0, 0.0, 2.0])

    def slope(t, y, p):
        return {"a": -net(p.w, [t, p.b]) * y.a}

    with pm.Model(coords={"subject": ["u", "v", "w"]}) as model:
        w = ps.nn.weights("z", net)
        effect = pm.Normal("b", 0, pm.HalfFlat("omega", initval=1.0), dims="subject")
        shared = pm.math.stack([w] * N)
        solution = ps.ode.solve_ivp(
            slope, {"a": 1.0}, {"w": shared, "b": effect}, t=T, subject=SUBJECT
        )
        pm.Normal("y", solution.a, 1.0, observed=np.ones(7))
    fit = made_up_fit(model, {"b": b}, {"z": weights, "omega": 1.0}, {"y": SUBJECT}, draws=5)
    table = ps.rates(model, fit)
    assert set(table["variable"]) == {"t"}
    for name, value in [("u", -1.0), ("w", 2.0), ("population", 0.0)]:
        own = part(table, "w", name)
        x = np.column_stack([own["x"], np.full(len(own), value)])
        hidden = np.tanh(x @ weights[:6].reshape(3, 2).T + weights[6:9])
        np.testing.assert_allclose(
            own["value"], softplus(hidden @ weights[9:12] + weights[12]), rtol=1e-12
        )


def test_covariates_that_change_along_the_path():
    """The range of a network's input, where this is a covariate of the differential equation."""
    table = pd.DataFrame(
        {"subject": [0, 0, 1, 2], "time": [0.0, 2.0, 0.0, 0.0], "light": [1.0, 5.0, 2.0, 3.0]}
    )
    with pm.Model(coords={"subject": ["u", "v", "w"], "weight": NET.weight_names}) as model:
        w = pm.MvNormal("w", ps.nn.weights("z", NET), np.eye(7), dims=("subject", "weight"))
        solution = ps.ode.solve_ivp(
            lambda t, y, p: {"a": ps.nn.softplus(NET(p.w, p.light(t)))},
            {"a": 0.0}, {"w": w, "light": ps.ode.interpolate(table)}, t=T, subject=SUBJECT,
        )  # fmt: skip
        pm.Normal("y", solution.a, 1.0, observed=np.ones(7))
    fit = made_up_fit(model, {"w": MODES["w_in"]}, {"z": np.zeros(7)}, {"y": SUBJECT}, draws=5)
    found = ps.rates(model, fit, ranges={"w": (0.0, 6.0)}, n_grid=601)
    assert set(found["variable"]) == {"light"}
    inside = part(found, "w", "u")["x"][part(found, "w", "u")["is_covered"]]
    assert inside.min() == pytest.approx(1.0) and inside.max() == pytest.approx(5.0)
    assert part(found, "w", "w")["is_covered"].sum() == 1  # constant at 3


def test_errors(model, idata, neural):
    with pytest.raises(ValueError, match="The model has no networks that were called in its graph"):
        ps.rates(model, idata)
    with pytest.raises(ValueError, match="There is no network 'w_x'; there are w_in, w_out"):
        ps.plot_rates(*neural, "w_x")
    with pytest.raises(ValueError, match="There is no subject 'x'; there are u, v, w"):
        ps.rates(*neural, subjects=["u", "x"])
    with pytest.raises(ValueError, match="along must be 'variable' or 'input', got 'time'"):
        ps.rates(*neural, along="time")
    with pytest.raises(ValueError, match=r"ranges\['w_in'\] must be \(low, high\) with low < high"):
        ps.rates(*neural, ranges={"w_in": (3, 1)})
    with pytest.raises(
        ValueError, match="ranges has 'w', which is not a network; the networks are w_in, w_out"
    ):
        ps.rates(*neural, ranges={"w": (1, 3)})
