"""Lets the tests here import models.py and made_up_fit.py."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "plots"), str(HERE.parent / "saem")]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")
