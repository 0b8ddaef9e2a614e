"""One short fit of theophylline for all figures."""

import matplotlib.pyplot as plt
import pytest

import pymc_saem as ps


@pytest.fixture(scope="session")
def model():
    from tests.support.models import theophylline

    return theophylline()


@pytest.fixture(scope="session")
def idata(model):
    return ps.fit_saem(
        model, n_explore=20, n_smooth=20, n_starts=2, draws=20, progressbar=False, random_seed=1
    )


@pytest.fixture(scope="session")
def data():
    return ps.datasets.load_theophylline()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")
