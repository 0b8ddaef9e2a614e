"""Shared test setup; lets the tests here import small.py."""

import os
import sys
from pathlib import Path

# Figures are drawn into memory: the tests run where there is no display.
os.environ.setdefault("MPLBACKEND", "Agg")

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest


@pytest.fixture
def rng():
    """A generator that starts the same in every test."""
    return np.random.default_rng(20240229)
