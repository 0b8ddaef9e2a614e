"""A fit on disk, in both formats and both PyMC generations: whole, or not there; and every function takes what is read."""

import sys
import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group, group_names, make_datatree
from tests.support.models import theophylline

SHORT = {"n_explore": 60, "n_smooth": 60, "draws": 60, "random_seed": 1, "progressbar": False}


@pytest.fixture(scope="module")
def fit():
    with warnings.catch_warnings(action="ignore"):  # about a run that is too short to settle
        model, t = theophylline(), ps.datasets.load_theophylline()["time"].to_numpy()
        return model, t, ps.fit_saem(model, **SHORT)


@pytest.fixture(params=["fit.nc", "fit.zarr"])
def loaded(request, fit, tmp_path):
    model, t, idata = fit
    return model, t, idata, ps.load(ps.save(idata, tmp_path / request.param))


def test_every_group_comes_back(loaded):
    _, _, idata, again = loaded
    assert type(again) is type(idata) and set(group_names(again)) == set(group_names(idata))
    assert dict(again.attrs) == dict(idata.attrs)
    for name in group_names(idata):
        a, b = get_group(idata, name), get_group(again, name)
        assert dict(a.attrs) == dict(b.attrs) and set(a.variables) == set(b.variables)
        for v in a.variables:
            same = np.array_equal(a[v].values, b[v].values, equal_nan=a[v].dtype.kind == "f")
            assert same and a[v].dims == b[v].dims, f"{name}: {v}"


@pytest.mark.slow
def test_functions_take_what_was_read(loaded):
    model, t, idata, again = loaded
    assert ps.summary(again).equals(ps.summary(idata)) and repr(ps.summary(again)) == repr(
        ps.summary(idata)
    )
    before = az.summary(idata)
    # Zarr sorts the names
    assert np.array_equal(az.summary(again).loc[before.index].to_numpy(), before.to_numpy())
    az.plot_forest(again, var_names=["log_ka", "ka"])
    ps.plot_convergence(again)
    ps.plot_fits(model, again, subjects=[1, 2], x=t)
    ps.plot_observation_distribution(model, again, subject=1, row=3)
    plt.close("all")
    with model:
        drawn = pm.sample_posterior_predictive(again, random_seed=1, progressbar=False)
    conc = get_group(drawn, "posterior_predictive")["conc"].values
    observed = get_group(again, "observed_data")["conc"].values
    # residual sd of the exact fit: 0.70
    assert np.sqrt(np.mean((conc.mean(axis=(0, 1)) - observed) ** 2)) < 0.8


TABLES = {
    "summary": lambda model, t, fit: ps.summary(fit),
    "diagnostics": lambda model, t, fit: ps.diagnostics(fit),
    "individuals": lambda model, t, fit: ps.individuals(fit),
    "correlation": lambda model, t, fit: ps.correlation(fit),
    "compare": lambda model, t, fit: ps.compare({"one": fit, "two": fit}),
    "predict": lambda model, t, fit: ps.predict(
        model, fit, level=["individual", "marginal"], n_draws=20, random_seed=1
    ),
    "simulate": lambda model, t, fit: ps.simulate(model, fit, n=3, random_seed=1)[
        "conc"
    ].to_series(),
    "residuals": lambda model, t, fit: ps.residuals(
        model, fit, x=t, n_simulations=150, random_seed=1
    ),
    "vpc": lambda model, t, fit: ps.vpc(model, fit, x=t, n_simulations=50, random_seed=1),
    "random_effects": lambda model, t, fit: ps.random_effects(model, fit),
}


@pytest.mark.filterwarnings(
    "ignore:The difference between .one. and .two. is 0"
)  # they are the same fit
@pytest.mark.parametrize("name", TABLES)
def test_tables_of_what_was_read(loaded, name):
    model, t, idata, again = loaded
    pd.testing.assert_index_equal(
        TABLES[name](model, t, again).index, TABLES[name](model, t, idata).index
    )
    assert TABLES[name](model, t, again).equals(TABLES[name](model, t, idata))


@pytest.mark.slow
def test_a_resumed_run_starts_from_what_was_read(loaded):
    model, _, idata, again = loaded
    with warnings.catch_warnings(action="ignore"):
        longer = ps.fit_saem(
            model, resume=again, extend=2, likelihood=None, standard_errors=None, progressbar=False
        )
    iterates = get_group(longer, "saem_trace")["sigma"].values
    assert (
        np.array_equal(iterates[:, :-2], get_group(idata, "saem_trace")["sigma"].values)
        and iterates.shape[1] == 122
    )


def test_errors_say_what_is_wrong(fit, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="cannot be written: the folder '.*no' does not exist"
    ):
        ps.save(fit[2], tmp_path / "no" / "fit.nc")
    with pytest.raises(FileNotFoundError, match="There is no file '.*fit.nc'"):
        ps.load(tmp_path / "fit.nc")
    (tmp_path / "text.nc").write_text("not a fit")
    with pytest.raises(ValueError, match="is not a readable netCDF file or Zarr folder"):
        ps.load(tmp_path / "text.nc")
    with pytest.raises(
        ValueError, match="This is not a pymc_saem fit: it has no group 'saem_trace', but posterior"
    ):
        ps.save(
            make_datatree({"posterior": get_group(fit[2], "posterior")}, {}), tmp_path / "fit.nc"
        )
    get_group(fit[2], "posterior").to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="is not a pymc_saem fit: it has no group 'saem_trace'"):
        ps.load(tmp_path / "other.nc")


def test_zarr_that_is_not_installed_is_named(fit, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match="needs the package zarr: pip install zarr"):
        ps.save(fit[2], tmp_path / "fit.zarr")
