"""plot_observation_distribution: densities, masses and quantiles against SciPy."""

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest
from matplotlib.colors import to_rgb
from scipy import integrate, stats

import pymc_saem as ps
from pymc_saem.compat import get_group
from tests.support.made_up_fit import made_up_fit

SUBJECT = np.array([0, 1, 0, 1, 0])  # rows of the subjects mixed
LEVEL = np.array([3.0, 8.0])


def fit_of(outcome):
    with pm.Model(coords={"subject": ["a", "b"]}) as model:
        s = pm.HalfFlat("s", initval=1.0)
        b = pm.LogNormal("b", 1, 0.5, dims="subject")
        outcome(b[SUBJECT], s)
    return model, made_up_fit(model, {"b": LEVEL}, {"s": 0.3}, {"y": SUBJECT}, draws=40)


def draws_of(fit, subject):
    return get_group(fit, "posterior")["b"].values[..., subject].reshape(-1, 1)


def lines(ax):
    return {
        found.get_label().split(":")[0]: (found.get_xdata(), found.get_ydata())
        for found in ax.get_lines()
    }


def quantile(ax):
    (label,) = [
        found.get_label() for found in ax.get_lines() if found.get_label().startswith("observed")
    ]
    return float(label.split("quantile ")[1])


@pytest.mark.parametrize(
    ("outcome", "law"),
    [
        (
            lambda b, s: pm.Normal("y", b, s, observed=np.arange(1.0, 6)),
            lambda b: stats.norm(b, 0.3),
        ),
        (
            lambda b, s: pm.LogNormal("y", np.log(b), s, observed=np.arange(1.0, 6)),
            lambda b: stats.lognorm(0.3, scale=b),
        ),
        (
            lambda b, s: pm.StudentT("y", nu=4, mu=b, sigma=s, observed=np.arange(1.0, 6)),
            lambda b: stats.t(4, b, 0.3),
        ),
    ],
    ids=["Normal", "LogNormal", "StudentT"],
)
def test_densities(outcome, law):
    model, fit = fit_of(outcome)
    ax = ps.plot_observation_distribution(model, fit, "a", row=1)  # the third row of the data: 3.0
    found = lines(ax)
    x, density = found["given the data"]
    draws = draws_of(fit, 0)
    np.testing.assert_allclose(density, law(draws).pdf(x).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["at conditional mode"][1], law(3.0).pdf(x), rtol=1e-6)
    assert integrate.trapezoid(density, x) == pytest.approx(1, abs=5e-3)
    assert found["observed"][0] == [3.0, 3.0]
    assert quantile(ax) == pytest.approx(law(draws).cdf(3.0).mean(), abs=0.005)
    assert (
        ax.get_title() == "subject a, row 1"
        and ax.get_xlabel() == "y"
        and ax.get_ylabel() == "density"
    )


def test_mass_of_counts():
    model, fit = fit_of(lambda b, s: pm.Poisson("y", b, observed=np.arange(5)))
    ax = ps.plot_observation_distribution(model, fit, subject="b", row=-1)  # the fourth row: 3
    heights = np.array([bar.get_height() for bar in ax.patches])
    counts = np.array([bar.get_x() + 0.4 for bar in ax.patches])
    assert counts[0] == 0 and set(np.diff(counts).round(9)) == {1.0}
    np.testing.assert_allclose(
        heights, stats.poisson(draws_of(fit, 1)).pmf(counts.round()).mean(axis=0), rtol=1e-6
    )
    assert heights.sum() == pytest.approx(1, abs=5e-3)
    assert quantile(ax) == pytest.approx(stats.poisson(draws_of(fit, 1)).cdf(3).mean(), abs=0.005)
    assert ax.get_title() == "subject b, row 1" and ax.get_ylabel() == "probability"


def test_an_observation_far_out_is_in_the_picture():
    model, fit = fit_of(lambda b, s: pm.Normal("y", b, s, observed=np.full(5, 50.0)))
    ax = ps.plot_observation_distribution(model, fit, "a")
    assert ax.get_xlim()[1] > 50 and quantile(ax) == 1


def test_theophylline(model, idata, data):
    _, own = plt.subplots()
    ax = ps.plot_observation_distribution(model, idata, 1, row=2, x=data["time"], ax=own)
    assert ax is own and ax.get_legend() is not None
    assert ax.get_title() == "subject 1, row 2, time 0.57 h" and ax.get_xlabel() == "conc [mg/L]"
    x, density = lines(ax)["given the data"]
    assert integrate.trapezoid(density, x) == pytest.approx(1, abs=5e-3)


def test_errors(model, idata):
    with pytest.raises(ValueError, match="There is no subject 'x'; there are 1, 2"):
        ps.plot_observation_distribution(model, idata, "x")
    with pytest.raises(
        IndexError, match="subject 1 has 11 rows of 'conc', numbered from 0; there is no row 11"
    ):
        ps.plot_observation_distribution(model, idata, 1, row=11)
    with pytest.raises(
        TypeError, match="row is 'first'; it must be an integer or .all. or a list of integers"
    ):
        ps.plot_observation_distribution(model, idata, 1, row="first")
    without = idata.copy()
    del without["posterior"]
    with pytest.raises(ValueError, match="no draws of the random effects"):
        ps.plot_observation_distribution(model, without, 1)


def test_several_rows_have_a_panel_each(model, idata, data):
    axes = ps.plot_observation_distribution(model, idata, 1, row="all", x=data["time"])
    assert axes.shape == (11,) and axes[2].get_title().startswith(
        "subject 1, row 2\ntime 0.57 h, quantile 0."
    )
    own = data[data["subject"] == 1]["conc"].to_numpy()
    single = ps.plot_observation_distribution(model, idata, 1, row=4, x=data["time"])
    np.testing.assert_array_equal(lines(axes[4])["given the data"], lines(single)["given the data"])
    assert [lines(ax)["observed"][0][0] for ax in axes] == list(own)
    pair = ps.plot_observation_distribution(model, idata, 1, row=[-1, 0])
    assert [ax.get_title().split("\n")[0] for ax in pair] == [
        "subject 1, row 10",
        "subject 1, row 0",
    ]
    with pytest.raises(ValueError, match="No row was asked for"):
        ps.plot_observation_distribution(model, idata, 1, row=[])


def test_a_censored_density_has_masses_at_its_limits():
    model, fit = fit_of(
        lambda b, s: pm.Censored(
            "y", pm.Normal.dist(b, s), lower=2.8, upper=3.3, observed=[2.8, 3.0, 3.0, 3.3, 3.3]
        )
    )
    ax = ps.plot_observation_distribution(model, fit, "a", row=1)  # the third row of the data
    draws = draws_of(fit, 0)
    x, density = lines(ax)["given the data"]
    inside = (x > 2.8) & (x < 3.3)
    np.testing.assert_allclose(
        density[inside], stats.norm(draws, 0.3).pdf(x).mean(axis=0)[inside], rtol=1e-6
    )
    assert np.isnan(density[~inside]).all()
    below, above = stats.norm(draws, 0.3).cdf(2.8).mean(), stats.norm(draws, 0.3).sf(3.3).mean()
    # two digits
    assert [float(t.get_text()) for t in ax.texts] == pytest.approx([below, above], rel=0.06)
    # dark enough to be read on white and on bars
    assert all(np.mean(to_rgb(text.get_color())) < 0.3 for text in ax.texts)
    left, right = (bar.get_height() for bar in ax.patches)
    assert left / right == pytest.approx(below / above, rel=1e-6)
    assert integrate.trapezoid(density[inside], x[inside]) + below + above == pytest.approx(
        1, abs=0.01
    )
    assert quantile(ax) == pytest.approx(stats.norm(draws, 0.3).cdf(3.0).mean(), abs=0.005)
    at_limit = ps.plot_observation_distribution(model, fit, "a", row=0)
    assert "observed: 2.8, at its limit" in at_limit.get_legend_handles_labels()[1]


def test_censored_counts_pile_up_at_the_limit():
    model, fit = fit_of(
        lambda b, s: pm.Censored(
            "y", pm.Poisson.dist(b), lower=None, upper=4, observed=[1, 2, 4, 4, 3]
        )
    )
    ax = ps.plot_observation_distribution(model, fit, "a", row=0)
    heights = {round(bar.get_x() + 0.4): bar.get_height() for bar in ax.patches}
    law = stats.poisson(draws_of(fit, 0))
    assert set(heights) == {0, 1, 2, 3, 4}
    assert heights[4] == pytest.approx(law.sf(3).mean()) and heights[1] == pytest.approx(
        law.pmf(1).mean()
    )


def test_composed_distributions_are_refused():
    model, fit = fit_of(
        lambda b, s: pm.Truncated(
            "y", pm.Gamma.dist(b, s), lower=1.0, upper=None, observed=np.arange(2.0, 7)
        )
    )
    with pytest.raises(
        NotImplementedError,
        match="has the distribution [Tt]runcated.*, which is composed of other distributions; only",
    ):
        ps.plot_observation_distribution(model, fit, "a")
    model, fit = fit_of(lambda b, s: pm.Cauchy("y", b, s, observed=np.arange(1.0, 6)))
    with pytest.raises(NotImplementedError, match="no mean for outcome 'y'"):
        ps.plot_fits(model, fit, x=np.arange(5.0))
