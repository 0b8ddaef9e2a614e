"""Shared test setup."""

import os

# Figures are drawn into memory: the tests run where there is no display.
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest


@pytest.fixture
def rng():
    """A generator that starts the same in every test."""
    return np.random.default_rng(20240229)
