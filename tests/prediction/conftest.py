"""One fit of the random intercept model, in memory and from a file."""

import arviz as az
import pytest

import pymc_saem as ps


@pytest.fixture(scope="session")
def fit(tmp_path_factory):
    """Model, fit, and the fit as read from a file."""
    from tests.support.models import random_intercept

    model = random_intercept()
    idata = ps.fit_saem(model, progressbar=False, random_seed=1)
    path = tmp_path_factory.mktemp("fit") / "fit.nc"
    idata.to_netcdf(path, engine="h5netcdf")
    return model, idata, az.from_netcdf(path, engine="h5netcdf")
