"""individuals() and diagnostics() of real fits: exact numbers, and verdicts where something is wrong."""

import warnings
from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr

import pymc_saem as ps
from pymc_saem.compat import get_group, make_datatree
from pymc_saem.results import thresholds
from pymc_saem.saem.core.schedule import FIRST_LOOK
from tests.support.models import random_intercept, random_intercept_data

SEEN = [
    "iterations",
    "drift",
    *["acceptance"] * 3,
    "variances at their floor",
    "parameters on a bound",
]
SEEN += ["shrinkage", "shrinkage of residuals"]
SEEN += [
    "failed solves",
    "error of solves",
    "modes not found",
    "agreement on the mode",
    "R-hat",
    "effective sample size",
]
SEEN += ["error of -2LL", "standard errors", "condition number"]


@pytest.fixture(scope="module")
def intercept():
    return ps.fit_saem(random_intercept(), random_seed=1, progressbar=False)


@pytest.fixture(scope="module")
def two_signs():
    """Squares of normal effects, of which no datum tells the sign, and a kernel that does not cross zero; with the messages."""
    rng = np.random.default_rng(3)
    with pm.Model(coords={"animal": list("abcdefgh")}) as model:
        omega = pm.HalfFlat("omega", initval=2.0)
        b = pm.Normal("b", 0.0, omega, dims="animal")
        observed = rng.uniform(2.0, 6.0, size=8)
        pm.Normal("y", b**2, 0.1, observed=observed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        idata = ps.fit_saem(
            model, kernel={"coordinate": 1.0}, random_seed=2, n_explore=20, n_smooth=FIRST_LOOK, tolerance=0.0, draws=50,
            n_starts=0, progressbar=False,
        )  # fmt: skip
    return idata, [str(w.message) for w in caught], observed


def exact_intercepts(idata):
    """Conditional means and their common standard deviation at the estimates."""
    a, omega, sigma = ps.summary(idata)["estimate"]
    y, subject = random_intercept_data()
    precision = 1 / omega**2 + 3 / sigma**2
    return (
        (a / omega**2 + np.bincount(subject, weights=y) / sigma**2) / precision,
        precision**-0.5,
        a,
        omega,
        sigma,
    )


def test_individuals_are_the_exact_ones(intercept):
    table = ps.individuals(intercept)
    mean, sd, a, omega, _ = exact_intercepts(intercept)
    assert table.index.names == ["subject", "effect"] and list(table.index) == [
        (i, "b") for i in range(1, 13)
    ]
    assert np.allclose(table["mode"], mean, atol=1e-4) and np.allclose(
        table["eta"], mean - a, atol=1e-4
    )
    assert np.all(np.abs(table["mean"] - mean) < 5 * sd / np.sqrt(table["ess"]))
    assert np.allclose(table["shrinkage"], 1 - np.mean((mean - a) ** 2) / omega**2, atol=1e-3)
    # a normal effect is on its natural scale
    assert np.array_equal(table["natural_mean"], table["mean"])
    assert (table["rhat"] < thresholds.LARGEST_RHAT).all() and (table["mode_agreement"] == 1).all()
    draws = get_group(intercept, "posterior")["b"]
    assert np.allclose(table["sd"], draws.values.reshape(-1, 12).std(axis=0, ddof=1))
    rhat = az.rhat(draws.to_dataset(name="b"))["b"].values
    assert np.allclose(table["rhat"], rhat)


def test_shrinkage_of_residuals_is_the_exact_one(intercept):
    mean, _, _, _, sigma = exact_intercepts(intercept)
    y, subject = random_intercept_data()
    expected = 1 - np.std((y - mean[subject]) / sigma, ddof=1)
    assert expected > 0.1
    assert ps.summary(intercept).loc["sigma", "shrinkage"] == pytest.approx(expected, abs=1e-4)
    table = ps.diagnostics(intercept).set_index("check")
    assert table.loc["shrinkage of residuals", "value"] == pytest.approx(expected, abs=1e-4)
    assert table.loc["shrinkage of residuals", "where"] == "y"


def test_a_good_fit_has_nothing_to_look_at(intercept):
    table = ps.diagnostics(intercept)
    assert list(table["check"]) == SEEN
    assert (table["verdict"] == "ok").all() and (table["advice"] == "").all()


def test_files_give_the_same_tables(intercept, tmp_path):
    intercept.to_netcdf(str(tmp_path / "fit.nc"))
    loaded = az.from_netcdf(str(tmp_path / "fit.nc"))
    for table in (ps.individuals, ps.diagnostics):
        pd.testing.assert_frame_equal(table(loaded), table(intercept))


def test_chains_in_different_modes_are_reported(two_signs):
    idata, messages, _ = two_signs
    (message,) = [text for text in messages if text.startswith("The conditional draws")]
    individual, trace = get_group(idata, "individual"), get_group(idata, "saem_trace")
    stuck = individual["judged_rhat"].to_series().sort_values(ascending=False)
    n = (stuck >= thresholds.LARGEST_RHAT).sum()
    assert n >= 4 and stuck.max() > 1.5
    assert (
        f"draws of {n} of 8 subjects" in message and f"R-hat is up to {stuck.max():.4g}" in message
    )
    assert f"worst for animals {', '.join(stuck.index[: min(n, 5)])}" in message
    assert int(trace.attrs["n_solves_of_draws"]) <= 0.25 * int(trace.attrs["n_solves"])
    table = ps.diagnostics(idata).set_index("check")
    rhat = table.loc["R-hat"]
    assert (rhat["verdict"], rhat["where"]) == (
        "check",
        stuck.index[0],
    ) and "increase draws" in rhat["advice"]
    assert table.loc["agreement on the mode", "value"] < 1


def test_modes_of_equal_height(two_signs):
    """Both are maxima of the same height; the mode is one of them and the searches are divided."""
    idata, _, observed = two_signs
    table = ps.individuals(idata)
    assert table.index.names == ["animal", "effect"]
    assert np.allclose(table["mode"] ** 2, observed, atol=0.05)
    assert (table["mode_agreement"] < 0.9).all()


def test_a_subject_without_a_mode_is_named(monkeypatch):
    import pymc_saem.saem.run.chains as module

    whole = module.describe_individuals

    def failing(*args):
        found = whole(*args)
        logp = found.mode_logp.copy()
        logp[[4, 6]] = -np.inf
        return replace(found, mode_logp=logp)

    monkeypatch.setattr(module, "describe_individuals", failing)
    with pytest.warns(UserWarning, match="No conditional mode was found for subjects 5, 7: log p"):
        idata = ps.fit_saem(
            random_intercept(), n_explore=3, n_smooth=3, draws=10, random_seed=1, progressbar=False,
            compile_kwargs={"mode": "FAST_COMPILE"}, likelihood=None, standard_errors=None,
        )  # fmt: skip
    table = ps.diagnostics(idata).set_index("check")
    assert table.loc["modes not found", ["where", "value", "verdict"]].tolist() == [
        "5, 7",
        2.0,
        "check",
    ]
    assert (
        table.loc["iterations", "verdict"] == "check"
        and "plot_convergence" in table.loc["iterations", "advice"]
    )


def test_what_is_wrong_is_looked_at(intercept, tmp_path):
    """Verdicts turn where a value crosses its threshold."""
    intercept.to_netcdf(str(tmp_path / "fit.nc"))
    idata = az.from_netcdf(str(tmp_path / "fit.nc"))
    trace, population, individual = (
        idata[name] for name in ("saem_trace", "population", "individual")
    )
    trace.attrs["solver_failures"] = '{"too many steps": [0, 9000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]}'
    trace.attrs["n_solves"] = 12 * 100_000
    population.attrs.update(
        condition_number=5000.0, loglik_error=1.0, residual_shrinkage='{"y": 0.4}'
    )
    population["note"] = xr.DataArray(["", "at its floor", ""], dims="parameter")
    individual["pareto_k"] = xr.DataArray(np.linspace(0.1, 0.9, 12), dims="subject")
    individual["solver_error"] = xr.DataArray(np.linspace(3.0, 0.0, 12), dims="subject")
    individual["judged_ess"] = xr.DataArray([50.0, np.nan, *[500.0] * 10], dims="subject")
    table = ps.diagnostics(idata).set_index("check")
    seen = table[table["verdict"] == "check"]["where"].to_dict()
    assert seen == {
        "variances at their floor": "omega", "shrinkage of residuals": "y", "failed solves": "2", "error of solves": "1", "effective sample size": "2",
        "error of -2LL": "quadrature", "Pareto k": "12", "condition number": "",
    }  # fmt: skip
    assert table.loc["failed solves", "value"] == pytest.approx(0.09)
    assert "too many steps" in table.loc["failed solves", "advice"]


def test_a_fit_without_draws_has_no_individuals():
    with pytest.raises(KeyError, match="no group 'individual'"):
        ps.individuals(make_datatree({"saem_trace": xr.Dataset({"a": ("iteration", [0.0])})}, {}))


def test_the_error_of_minus_2ll_is_the_same_everywhere(intercept, tmp_path):
    """The Monte-Carlo standard error of -2LL is twice that of the log-likelihood, wherever it stands."""
    intercept.to_netcdf(str(tmp_path / "fit.nc"))
    intercept = az.from_netcdf(str(tmp_path / "fit.nc"))
    intercept["population"].attrs["loglik_error"] = 0.03  # the one of this model is 0
    of_minus_2ll = 0.06
    line = ps.diagnostics(intercept).set_index("check").loc["error of -2LL"]
    assert line["value"] == pytest.approx(of_minus_2ll)
    with warnings.catch_warnings():
        # the same fit twice does not differ by more than its error
        warnings.simplefilter("ignore", UserWarning)
        compared = ps.compare({"one": intercept, "two": intercept})
    np.testing.assert_allclose(compared["error"], of_minus_2ll)
    assert f"error {of_minus_2ll:.2g})" in str(ps.summary(intercept))
