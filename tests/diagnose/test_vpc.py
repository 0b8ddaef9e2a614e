"""Visual predictive checks against NumPy programs that compute the same."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import optimize, stats

import pymc_saem as ps
from pymc_saem.diagnose.bins import bin_edges, bin_of
from pymc_saem.diagnose.windows import weighted_quantile
from tests.support import linear_gaussian as lg
from tests.support.made_up_fit import made_up_fit


@pytest.fixture(scope="module")
def y():
    return lg.simulate(np.random.default_rng(4), 1)[0]


@pytest.fixture(scope="module")
def fitted(y):
    model = lg.build(y)
    return model, lg.fit_at_truth(model, lg.modes(y))


def test_quantiles_of_data_and_of_simulations(fitted, y, rng):
    table = ps.vpc(
        *fitted, x=lg.T, quantiles=(0.25, 0.5), ci_prob=0.8, n_simulations=8000, random_seed=1
    )
    times = np.unique(lg.T)
    assert list(table["statistic"].unique()) == ["quantile"] and len(table) == 8
    sets = lg.simulate(rng, 8000)
    for line in table.itertuples():
        own = lg.T == times[line.bin]
        assert (
            line.x == times[line.bin] and line.n == own.sum() and line.left <= line.x <= line.right
        )
        np.testing.assert_allclose(line.observed, np.quantile(y[own], line.level))
        expected = np.quantile(np.quantile(sets[:, own], line.level, axis=1), [0.5, 0.1, 0.9])
        np.testing.assert_allclose([line.simulated, line.lower, line.upper], expected, atol=0.04)
    assert table.attrs == {
        "outcome": "y",
        "x": "time",
        "ci_prob": 0.8,
        "n_simulations": 8000,
        "prediction_corrected": False,
    }


def test_the_interval_covers_as_often_as_it_says(fitted, rng):
    table = ps.vpc(
        *fitted, x=lg.T, quantiles=(0.5,), ci_prob=0.8, n_simulations=4000, random_seed=1
    )
    inside = 0
    for line in table.itertuples():
        medians = np.median(lg.simulate(rng, 500)[:, lg.T == line.x], axis=1)
        inside += ((medians >= line.lower) & (medians <= line.upper)).sum()
    assert stats.binomtest(int(inside), 2000, 0.8).pvalue > 1e-3


def test_prediction_correction(fitted, y):
    group = pd.Series(np.where(lg.SUBJECT % 2, "odd", "even"), name="parity")
    table = ps.vpc(
        *fitted,
        x=lg.T,
        bins=[0.0, 2.0, 4.0],
        stratify=group,
        prediction_corrected=True,
        lower_bound=-1.0,
        random_seed=1,
    )
    assert (
        list(table.columns[:3]) == ["parity", "statistic", "level"]
        and table.attrs["prediction_corrected"]
    )
    predicted, number = lg.A + lg.SLOPE * lg.T, np.where(lg.T < 2.0, 0, 1)
    for line in table.itertuples():
        own = (group == line.parity).to_numpy() & (number == line.bin)
        middle = np.median(predicted[own])
        corrected = -1.0 + (y[own] + 1.0) * (middle + 1.0) / (predicted[own] + 1.0)
        np.testing.assert_allclose(line.observed, np.quantile(corrected, line.level))
        assert line.n == own.sum()
    # what is corrected away does not show: with predictions equal in a bin nothing changes
    options = {"x": lg.T, "bins": "unique", "random_seed": 1}
    plain = ps.vpc(*fitted, **options)
    pd.testing.assert_frame_equal(plain, ps.vpc(*fitted, **options, prediction_corrected=True))


def test_censored_fractions(y):
    def outcome(mean, sigma, y):
        pm.Censored(
            "y", pm.Normal.dist(mean, sigma), lower=2.0, upper=4.5, observed=np.clip(y, 2.0, 4.5)
        )

    model = lg.build(y, outcome)
    table = ps.vpc(
        model, lg.fit_at_truth(model, lg.modes(y)), x=lg.T, n_simulations=4000, random_seed=1
    )
    for statistic, bound, cut in (("below", 2.0, y <= 2.0), ("above", 4.5, y >= 4.5)):
        part = table[table["statistic"] == statistic]
        assert list(part["observed"]) == [cut[lg.T == t].mean() for t in part["x"]]
        sd = np.hypot(lg.OMEGA, lg.SIGMA)
        p = stats.norm.cdf((bound - lg.A - lg.SLOPE * part["x"]) / sd)
        p = p if statistic == "below" else 1 - p
        # the fraction of eight independent rows
        np.testing.assert_allclose(part["upper"], stats.binom.ppf(0.95, 8, p) / 8, atol=0.126)
        np.testing.assert_allclose(part["simulated"], stats.binom.ppf(0.5, 8, p) / 8, atol=0.126)
    quantiles = table[table["statistic"] == "quantile"]
    assert (
        quantiles[["observed", "lower", "upper"]].min(axis=None) >= 2.0
        and quantiles["upper"].max() <= 4.5
    )


def test_fractions_of_categories(y):
    def outcome(mean, sigma, y):
        pm.OrderedLogistic(
            "y",
            eta=mean + 0 * sigma,
            cutpoints=[2.0, 4.0],
            observed=np.arange(y.size) % 3,
            compute_p=False,
        )

    model = lg.build(y, outcome)
    table = ps.vpc(model, lg.fit_at_truth(model, lg.modes(y)), x=lg.T, random_seed=1)
    assert list(table["statistic"].unique()) == ["fraction"] and list(table["level"].unique()) == [
        0,
        1,
        2,
    ]
    number = bin_of(lg.T, bin_edges(lg.T, "unique", lg.SUBJECT))
    for line in table.itertuples():
        assert line.observed == np.mean((np.arange(y.size) % 3)[number == line.bin] == line.level)
    ps.residuals(model, lg.fit_at_truth(model, lg.modes(y)), random_seed=1)


def test_bins(rng):
    subject = np.repeat(np.arange(10), 6)
    ragged = rng.uniform(0, 24, 60)
    shared = np.tile([0.0, 1, 2, 4, 8, 12], 10)
    assert (
        bin_edges(shared, "auto", subject).size == 7
        and bin_edges(ragged, "auto", subject).size == 7
    )
    np.testing.assert_array_equal(
        np.bincount(bin_of(ragged, bin_edges(ragged, "auto", subject))), [10] * 6
    )
    np.testing.assert_array_equal(
        np.bincount(bin_of(shared, bin_edges(shared, 3, subject))), [20] * 3
    )
    np.testing.assert_array_equal(
        np.unique(bin_of(shared, bin_edges(shared, 50, subject))), np.arange(6)
    )
    np.testing.assert_array_equal(bin_edges(np.zeros(4), 3, np.arange(4)), [0.0, 0.0])
    assert list(bin_of(np.array([0.0, 5.0, 24.0]), np.array([0.0, 5.0, 24.0]))) == [0, 1, 1]


def test_missing_rows_and_several_outcomes():
    with (
        pytest.warns(pm.exceptions.ImputationWarning),
        pm.Model(coords={"subject": [1, 2, 3]}) as model,
    ):
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("w"), dims="subject")
        s = np.repeat([0, 1, 2], 4)
        y = np.arange(12.0)
        y[[2, 7]] = np.nan
        pm.Normal("y", b[s] + 0.1 * np.arange(12), 1.0, observed=y)
        pm.LogNormal("z", b, 0.5, observed=np.array([1.0, 2.0, 3.0]), dims="subject")
    known = np.flatnonzero(np.isfinite(y))
    fit = made_up_fit(
        model,
        {"b": np.array([1.0, 5.0, 9.0])},
        {"a": 5.0, "w": 3.0},
        {"y_observed": s[known], "z": np.arange(3)},
    )
    for x in (np.arange(12.0), known.astype(float)):  # of all rows, or of those that are there
        table = ps.residuals(model, fit, "y", x, random_seed=1)
        np.testing.assert_array_equal(table.index, known)
        np.testing.assert_array_equal(table["x"], known)
        np.testing.assert_array_equal(table["subject"], np.array([1, 2, 3])[s[known]])
        np.testing.assert_array_equal(table["observed"], y[known])
        np.testing.assert_allclose(
            table["iwres"], y[known] - np.array([1.0, 5.0, 9.0])[s[known]] - 0.1 * known
        )
    other = ps.residuals(model, fit, "z", random_seed=1)
    assert other.attrs["scale"] == "log" and "x" not in other
    np.testing.assert_allclose(other["iwres"], (np.log([1.0, 2.0, 3.0]) - [1.0, 5.0, 9.0]) / 0.5)
    # the distribution of log z: normal with variance w^2 + 0.5^2
    many = ps.residuals(model, fit, "z", n_simulations=20_000, random_seed=1)
    np.testing.assert_allclose(
        many["pwres"], (np.log([1.0, 2.0, 3.0]) - 5.0) / np.hypot(3.0, 0.5), atol=0.05
    )
    assert (
        len(
            ps.vpc(
                model, fit, "y", np.arange(12), bins=1, stratify=s, n_simulations=50, random_seed=1
            )
        )
        == 9
    )


def test_the_same_seed_gives_the_same_numbers(fitted):
    one, two, other = (
        ps.residuals(*fitted, n_simulations=50, random_seed=seed) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, two)
    assert not np.allclose(one["npde"], other["npde"])
    one, two, other = (
        ps.vpc(*fitted, x=lg.T, n_simulations=50, random_seed=seed) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, two)
    assert not np.allclose(one["lower"], other["lower"])


VPC_ERRORS = [
    ({"x": None}, "The times of outcome 'y' are unknown; give one per row with x="),
    (
        {"x": np.arange(5.0)},
        r"x must hold one number per row of 'y', shape \(32,\); got shape \(5,\)",
    ),
    ({"n_simulations": 1}, "n_simulations is 1; it must be an integer of at least 2"),
    ({"quantiles": (5, 50, 95)}, "quantiles must lie between 0 and 1"),
    ({"ci_prob": 90}, "ci_prob must lie between 0 and 1, got 90"),
    ({"bins": "kmeans"}, "bins is 'kmeans'; it must be 'auto', 'unique'"),
    ({"bins": 0}, "bins is 0; it must be an integer of at least 1"),
    ({"bins": [0.0, 0.0]}, "increasing numbers"),
    (
        {"bins": [0.0, 2.0]},
        "16 rows lie outside of the bins, which reach from 0 to 2; x reaches from 0 to 4",
    ),
    ({"stratify": ["a"]}, "stratify must have one group per row of 'y', 32 in all; got 1"),
    ({"stratify": [np.nan] * 32}, "stratify has no group for 32 rows"),
    ({"outcome": "z"}, "no outcome 'z'; it has y"),
    (
        {"prediction_corrected": True, "lower_bound": 3.0},
        "prediction of row 0 is 2, below lower_bound=3",
    ),
]


@pytest.mark.parametrize(("options", "text"), VPC_ERRORS, ids=range(len(VPC_ERRORS)))
def test_errors_of_vpc(fitted, options, text):
    with pytest.raises(ValueError, match=text):
        ps.vpc(*fitted, **{"x": lg.T, "n_simulations": 20} | options)


def test_errors_of_residuals(fitted, y):
    model, fit = fitted
    with pytest.raises(ValueError, match="n_simulations is 4, but subject s0 has 4 rows"):
        ps.residuals(model, fit, n_simulations=4)
    with pytest.warns(
        UserWarning, match="10 simulations are few for the covariance of the 4 rows of subject s0"
    ):
        ps.residuals(model, fit, n_simulations=10, random_seed=1)
    with pytest.raises(TypeError, match="idata is 3; it must be what fit_saem returned"):
        ps.residuals(model, 3)
    with pytest.raises(ValueError, match="had 32 rows when it was fitted, and has 31 in the model"):
        with pm.Model(coords=model.coords) as other:
            b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega"), dims="subject")
            pm.Normal("y", b[lg.SUBJECT[1:]], 1.0, observed=y[1:])
        ps.residuals(other, fit)
    with pytest.raises(
        ValueError, match=r"random effect 'b' has shape \(8,\) in the fit and \(2,\) in the model"
    ):
        with pm.Model(coords={"subject": [1, 2]}) as other:
            b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega"), dims="subject", shape=(2,))
            pm.Normal("y", b, 1.0, observed=[1.0, 2.0])
        ps.residuals(other, fit)


@pytest.mark.slow
def test_smooth_quantiles_are_those_of_the_model(fitted, rng):
    """No bins: at each time the quantile of the rows in a window, by their weights."""
    table = ps.vpc(
        *fitted,
        x=lg.T,
        bins="smooth",
        quantiles=(0.5,),
        ci_prob=0.8,
        n_simulations=2000,
        random_seed=1,
    )
    assert table["x"].is_monotonic_increasing and table["x"].iloc[[0, -1]].tolist() == [
        lg.T.min(),
        lg.T.max(),
    ]
    assert (table["left"] < table["x"]).all()
    for (
        line
    ) in table.itertuples():  # the median of the mixture over times, by the weights of the window
        times = np.unique(lg.T)
        weights = np.clip(1 - (np.abs(times - line.x) / (line.right - line.x)) ** 3, 0, None) ** 3
        mixture = stats.norm(lg.A + lg.SLOPE * times, np.hypot(lg.OMEGA, lg.SIGMA))
        median = optimize.brentq(
            lambda y, m=mixture, w=weights: w @ m.cdf(y) - 0.5 * w.sum(), -10, 10
        )
        np.testing.assert_allclose(line.simulated, median, atol=0.05)
    # the interval covers the same statistic of other data of the model
    inside = []
    for y in lg.simulate(rng, 60):
        model = lg.build(y)
        one = ps.vpc(
            model,
            lg.fit_at_truth(model, lg.modes(y)),
            x=lg.T,
            bins="smooth",
            quantiles=(0.5,),
            n_simulations=2,
            random_seed=1,
        )
        middle = len(one) // 2
        inside.append(
            table["lower"].iloc[middle]
            <= one["observed"].iloc[middle]
            <= table["upper"].iloc[middle]
        )
    assert stats.binomtest(sum(inside), 60, 0.8).pvalue > 1e-3


def test_smooth_fractions_and_corrections(fitted, y):
    group = np.where(lg.SUBJECT % 2, "odd", "even")
    table = ps.vpc(
        *fitted,
        x=lg.T,
        bins="smooth",
        stratify=group,
        prediction_corrected=True,
        lower_bound=-1.0,
        n_simulations=50,
        random_seed=1,
    )
    assert set(table["stratum"]) == {"even", "odd"} and np.isfinite(table.select_dtypes(float)).all(
        axis=None
    )

    def outcome(mean, sigma, y):
        pm.Censored(
            "y", pm.Normal.dist(mean, sigma), lower=2.0, upper=None, observed=np.maximum(y, 2.0)
        )

    model = lg.build(y, outcome)
    censored = ps.vpc(
        model,
        lg.fit_at_truth(model, lg.modes(y)),
        x=lg.T,
        bins="smooth",
        n_simulations=50,
        random_seed=1,
    )
    below = censored[censored["statistic"] == "below"]
    assert (
        below["observed"].between(0, 1).all()
        and below["observed"].iloc[0] > below["observed"].iloc[-1]
    )


def test_weighted_quantiles():
    values, weights = (
        np.array([[3.0, 1.0, 2.0], [np.nan, 5.0, np.nan], [np.nan] * 3]),
        np.array([1.0, 1.0, 2.0]),
    )
    np.testing.assert_allclose(weighted_quantile(values, weights, 0.5), [2.0, 5.0, np.nan])
    # a whole weight counts as so many points
    many = np.random.default_rng(1).normal(size=(1, 400))
    twice = weighted_quantile(np.repeat(many, 2, axis=1), np.ones(800), 0.3)
    np.testing.assert_allclose(weighted_quantile(many, np.full(400, 2.0), 0.3), twice, atol=0.02)
    np.testing.assert_allclose(twice, np.quantile(many, 0.3), atol=0.02)
