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


def pytest_collection_modifyitems(items):
    """Leave out slow tests that are another run's: with PYMC_SAEM_SLOW_TESTS=1/2, the first run of two, every second one.

    Tests of one module that share an expensive fixture stay together: ``slow("together")``.
    """
    share = os.environ.get("PYMC_SAEM_SLOW_TESTS")
    if not share:
        return
    mine, of = (int(number) for number in share.split("/"))
    skipped, places = pytest.mark.skip(reason=f"slow, and in another share than {share} of the slow tests"), {}
    for item in items:
        slow = item.get_closest_marker("slow")
        if slow:
            unit = item.path if "together" in slow.args else item.nodeid
            if places.setdefault(unit, len(places)) % of != mine - 1:
                item.add_marker(skipped)
