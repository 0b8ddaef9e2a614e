"""random_effects and plot_random_effects: standardized values, densities and marks against SciPy."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import special, stats

import pymc_saem as ps
from pymc_saem.compat import get_group
from tests.support.made_up_fit import made_up_fit

N = 8
RNG = np.random.default_rng(5)
X = np.linspace(-1, 1, N)
MODES = {
    "a": np.exp(RNG.normal(0.4 * X, 0.5)),
    "g": RNG.gamma(2.0, 1.5, N),
    "p": special.expit(RNG.normal(0.3, 0.8, N)),
    "b": RNG.normal(size=(N, 2)) + [1.0, -1.0],
}
COV = np.array([[0.49, 0.28], [0.28, 0.64]])


@pytest.fixture(scope="module")
def fitted():
    """A log-normal effect with a covariate, a gamma one, a logit-normal one, and a pair with correlation 0.5."""
    with pm.Model(coords={"subject": np.arange(1, N + 1), "entry": ["base", "slope"]}) as model:
        beta = pm.Flat("beta", initval=0.0)
        omega = pm.HalfFlat("omega", initval=1.0)
        a = pm.LogNormal("a", beta * X, omega, dims="subject")
        g = pm.Gamma("g", alpha=2.0, beta=1 / 1.5, dims="subject")
        p = pm.LogitNormal("p", 0.3, 0.8, dims="subject")
        b = pm.MvNormal("b", np.array([1.0, -1.0]), COV, dims=("subject", "entry"))
        pm.Normal("y", a + g + p + b[:, 0] * b[:, 1], 1.0, observed=np.ones(N))
    return model, made_up_fit(
        model, MODES, {"beta": 0.4, "omega": 0.5}, {"y": np.arange(N)}, draws=30
    )


EXPECTED = {
    "a": (np.log(MODES["a"]) - 0.4 * X) / 0.5,
    "g": special.ndtri(stats.gamma(2.0, scale=1.5).cdf(MODES["g"])),
    "p": (special.logit(MODES["p"]) - 0.3) / 0.8,
    "b[base]": (MODES["b"][:, 0] - 1.0) / 0.7,
    "b[slope]": (MODES["b"][:, 1] + 1.0) / 0.8,
}
LAWS = {
    "a": lambda x: np.mean([stats.lognorm(0.5, scale=np.exp(0.4 * k)).pdf(x) for k in X], axis=0),
    "g": stats.gamma(2.0, scale=1.5).pdf,
    "p": lambda x: stats.norm(0.3, 0.8).pdf(special.logit(x)) / (x * (1 - x)),
    "b[base]": stats.norm(1.0, 0.7).pdf,
    "b[slope]": stats.norm(-1.0, 0.8).pdf,
}


def test_the_table_has_standardized_effects(fitted):
    table = ps.random_effects(*fitted, ci_prob=0.5)
    assert list(table["effect"].unique()) == list(EXPECTED)
    for label, expected in EXPECTED.items():
        own = table[table["effect"] == label]
        np.testing.assert_allclose(own["standardized"], expected, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(own["shrinkage"], 1 - np.mean(expected**2), rtol=1e-6)
        assert list(own["unit"]) == list(range(1, N + 1))
    draws = get_group(fitted[1], "posterior")["a"].values[0]
    own = table[table["effect"] == "a"]
    np.testing.assert_allclose(
        own[["lower", "upper"]].T, np.quantile(draws, [0.25, 0.75], axis=0), rtol=1e-12
    )


def test_shrinkage_is_that_of_the_fit(model, idata):
    table = ps.random_effects(model, idata)
    found = table.groupby("effect", sort=False)["shrinkage"].first()
    reported = get_group(idata, "individual")["shrinkage"]
    for effect in ("ka", "V", "CL"):
        assert found[effect] == pytest.approx(float(reported.sel(effect=effect)), abs=0.01)


def lines(ax, label):
    (found,) = [found for found in ax.get_lines() if found.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def test_marginals_have_the_density_of_the_population(fitted):
    axes = ps.plot_random_effects(*fitted, units={"a": "L"})
    assert [ax.get_title(loc="left") for ax in axes] == list(EXPECTED)
    assert axes[0].get_xlabel() == "a [L]"
    for ax, label in zip(axes, EXPECTED, strict=True):
        x, density = lines(ax, "population")
        inside = (x > 0) & (x < 1) if label == "p" else x > 0 if label in "ag" else x == x
        np.testing.assert_allclose(density[inside], LAWS[label](x[inside]), rtol=1e-5, atol=1e-12)
        assert (
            ax.get_title(loc="right")
            == f"shrinkage {100 * (1 - np.mean(EXPECTED[label] ** 2)):.0f} %"
        )
    np.testing.assert_array_equal(lines(axes[0], "conditional modes")[0], MODES["a"])
    (ax,) = ps.plot_random_effects(*fitted, "g", standardized=True)
    x, density = lines(ax, "population")
    np.testing.assert_allclose(density, stats.norm.pdf(x), rtol=1e-12)


def test_qq(fitted):
    (ax,) = ps.plot_random_effects(*fitted, "a", "qq")
    x, y = lines(ax, "conditional modes")
    np.testing.assert_allclose(y, np.sort(EXPECTED["a"]), rtol=1e-10)
    np.testing.assert_allclose(
        x, stats.norm.ppf((np.arange(1, N + 1) - 0.375) / (N + 0.25)), rtol=1e-12
    )
    # the grey band by simulation
    many = np.sort(np.random.default_rng(1).normal(size=(40000, N)), axis=1)
    (grey,) = [c for c in ax.collections if c.get_label() == "90 % of normal effects"]
    ends = grey.get_paths()[0].vertices[:, 1]
    assert ends.min() == pytest.approx(np.quantile(many[:, 0], 0.05), abs=0.03)
    assert ends.max() == pytest.approx(np.quantile(many[:, -1], 0.95), abs=0.03)


def test_pairs(fitted):
    axes = ps.plot_random_effects(*fitted, ["b"], "pairs").reshape(2, 2)
    x, y = lines(axes[1, 0], "conditional mode")
    np.testing.assert_allclose(x, EXPECTED["b[base]"])
    np.testing.assert_allclose(y, EXPECTED["b[slope]"])
    texts = [t.get_text() for t in axes[0, 1].texts]
    r = np.linalg.det(COV) and COV[0, 1] / np.sqrt(COV[0, 0] * COV[1, 1])
    assert texts[1] == f"population {r:.2f}"
    draws = get_group(fitted[1], "posterior")["b"].values[0]
    assert texts[0] == f"r = {np.mean([np.corrcoef(d.T)[0, 1] for d in draws]):.2f}"
    # half of a normal pair lies in the inner ellipse
    inner = axes[1, 0].patches[0]
    pairs = np.random.default_rng(2).multivariate_normal([0, 0], [[1, r], [r, 1]], size=20000)
    assert inner.get_path().transformed(inner.get_patch_transform()).contains_points(
        pairs
    ).mean() == pytest.approx(0.5, abs=0.015)


def test_covariates(fitted):
    sex = np.array(list("fmmfmfmf"))
    axes = ps.plot_random_effects(*fitted, ["a", "g"], covariates={"x": X, "sex": sex}).reshape(
        2, 2
    )
    x, y = lines(axes[0, 0], "conditional mode")
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, MODES["a"])
    assert axes[0, 0].get_title(loc="left") == f"r = {np.corrcoef(X, MODES['a'])[0, 1]:.2f}"
    assert [t.get_text() for t in axes[1, 1].get_xticklabels()] == ["f\n(n = 4)", "m\n(n = 4)"]
    medians = [
        line.get_ydata()[0] for line in axes[1, 1].get_lines() if line.get_linewidth() == 1.8
    ]
    np.testing.assert_allclose(medians, [np.median(MODES["g"][sex == s]) for s in "fm"])


def test_covariates_from_the_rows_of_the_data(model, idata, data):
    shuffled = data.sample(frac=1.0, random_state=1)
    shuffled.attrs = data.attrs
    # weight and dose; time and conc change
    axes = ps.plot_random_effects(model, idata, covariates=shuffled)
    assert (
        axes.size == 6
        and axes[4].get_xlabel() == "weight [kg]"
        and axes[5].get_xlabel() == "dose [mg]"
    )
    weight = data.groupby("subject", sort=False)["weight"].first()
    np.testing.assert_array_equal(lines(axes[0], "conditional mode")[0], weight)


def test_many_effects_share_panels():
    n, k = 200, 28
    modes = np.random.default_rng(3).normal(0, 0.3, (n, k))
    with pm.Model(coords={"subject": np.arange(n), "weight": [f"w{j}" for j in range(k)]}) as model:
        w = pm.Normal(
            "w", pm.Flat("z", initval=np.zeros(k), shape=k), 1.0, dims=("subject", "weight")
        )
        pm.Normal("y", w.sum(axis=1), 1.0, observed=np.ones(n))
    fit = made_up_fit(model, {"w": modes}, {"z": np.zeros(k)}, {"y": np.arange(n)}, draws=10)
    (ax,) = ps.plot_random_effects(model, fit)
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"w{j}" for j in range(k)]
    np.testing.assert_array_equal(lines(ax, "conditional modes")[0], modes[:, 0])
    assert f"{100 * (1 - np.mean(modes[:, 5] ** 2)):.0f} %" in [t.get_text() for t in ax.texts]
    (ax,) = ps.plot_random_effects(model, fit, kind="qq")
    assert len([found for found in ax.get_lines() if len(found.get_xdata()) == n]) == k + 1
    (ax,) = ps.plot_random_effects(model, fit, kind="pairs")
    image = np.asarray(ax.images[0].get_array())
    draws = get_group(fit, "posterior")["w"].values[0]
    assert image[3, 8] == pytest.approx(np.mean([np.corrcoef(d.T)[3, 8] for d in draws]))


def test_what_stands_above_a_panel_does_not_touch_the_next_title(model, idata):
    axes = ps.plot_random_effects(model, idata)
    axes[0].figure.canvas.draw()
    for left, right in zip(axes, axes[1:], strict=False):
        texts = [left.title, left._right_title, *left.texts]
        end = max(text.get_window_extent().x1 for text in texts if text.get_text())
        assert right._left_title.get_window_extent().x0 - end > 0.12 * axes[0].figure.dpi
    plt.close("all")


def test_given_axes_and_errors(model, idata):
    _, own = plt.subplots(3)
    assert list(ps.plot_random_effects(model, idata, ax=own)) == list(own)
    with pytest.raises(ValueError, match="There is no random effect 'k'; there are ka, V, CL"):
        ps.plot_random_effects(model, idata, "k")
    with pytest.raises(
        ValueError, match="kind must be one of 'marginals', 'qq', 'pairs', 'covariates', got 'box'"
    ):
        ps.plot_random_effects(model, idata, kind="box")
    with pytest.raises(ValueError, match="needs covariates="):
        ps.plot_random_effects(model, idata, kind="covariates")
    with pytest.raises(
        ValueError,
        match=r"covariate 'age' has shape \(3,\); it needs one value for each of the 12 subject",
    ):
        ps.plot_random_effects(model, idata, covariates={"age": [1, 2, 3]})
    with pytest.raises(ValueError, match="covariates has no row of the subject '2'"):
        ps.plot_random_effects(
            model, idata, covariates=pd.DataFrame({"subject": [1], "age": [3.0]})
        )
    with pytest.raises(ValueError, match="needs two effects of the same units; there is only ka"):
        ps.plot_random_effects(model, idata, "ka", "pairs")
