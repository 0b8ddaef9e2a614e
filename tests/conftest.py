"""Shared test setup."""

import os
import signal
import time

# Figures are drawn into memory: the tests run where there is no display.
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest

# A shell that runs the tests in the background has them ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng():
    """A generator that starts the same in every test."""
    return np.random.default_rng(20240229)


def pytest_collection_modifyitems(items):
    """With PYMC_SAEM_SLOW_TESTS=1/2: slow tests last, and of these every second one, beginning with the first.

    PYMC_SAEM_SLOW_FROM turns their order by so many files, so that what time leaves out is another
    part the next time. Tests of one module that share an expensive fixture stay together:
    ``slow("together")``.
    """
    share = os.environ.get("PYMC_SAEM_SLOW_TESTS")
    if not share:
        return
    mine, of = (int(number) for number in share.split("/"))
    places, slow, by_file = {}, [], {}
    for item in items:
        marker = item.get_closest_marker("slow")
        if marker:
            slow.append(item)
            unit = item.path if "together" in marker.args else item.nodeid
            if places.setdefault(unit, len(places)) % of == mine - 1:
                by_file.setdefault(item.path, []).append(item)
    files = list(by_file)
    first = int(os.environ.get("PYMC_SAEM_SLOW_FROM", "0")) % max(1, len(files))
    left_out = set(slow)
    items[:] = [item for item in items if item not in left_out]
    items += [item for path in files[first:] + files[:first] for item in by_file[path]]


def pytest_runtest_setup(item):
    """No slow test begins after PYMC_SAEM_SLOW_UNTIL, in seconds since 1970: a run in CI has a limit."""
    until = os.environ.get("PYMC_SAEM_SLOW_UNTIL")
    if until and item.get_closest_marker("slow") and time.time() > float(until):
        pytest.skip("slow, and the time for slow tests is over")
