"""One short fit of theophylline for all figures, and the folders of the helpers on the path."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import pymc_saem as ps

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "saem")]  # made_up_fit.py; models.py


@pytest.fixture(scope="session")
def model():
    from models import theophylline

    return theophylline()


@pytest.fixture(scope="session")
def idata(model):
    return ps.fit_saem(model, n_explore=20, n_smooth=20, n_starts=2, draws=20, progressbar=False, random_seed=1)


@pytest.fixture(scope="session")
def data():
    return ps.datasets.load_theophylline()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")
