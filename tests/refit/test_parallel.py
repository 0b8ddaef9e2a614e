"""Tasks in one process and in two, tasks that fail, and interruptions."""

import numpy as np
import pytest
from joblib import parallel_config

from pymc_saem.refit import parallel
from pymc_saem.refit.parallel import INTERRUPTED, fit_once, run_tasks
from pymc_saem.refit.refitter import Refitter


@pytest.fixture(scope="module")
def refitter(intercepts):
    return Refitter(intercepts, n_explore=5, n_smooth=5)


def weighted_tasks():
    rngs = np.random.default_rng(1).spawn(4)
    return [
        {"weights": rng.multinomial(12, np.full(12, 1 / 12)).astype(float), "seed": rng}
        for rng in rngs
    ]


@pytest.mark.slow
def test_processes_change_no_bit(refitter):
    """Also with threads, which share one refitter."""
    one = run_tasks(refitter, fit_once, weighted_tasks())
    two = run_tasks(refitter, fit_once, weighted_tasks(), n_jobs=2)
    with parallel_config(backend="threading"):
        threads = run_tasks(refitter, fit_once, weighted_tasks(), n_jobs=2)
    assert [done.number for done in one] == [done.number for done in two] == [0, 1, 2, 3]
    for a, b, c in zip(one, two, threads, strict=True):
        assert not a.failure and not b.failure
        np.testing.assert_array_equal(a.result.values, b.result.values)
        np.testing.assert_array_equal(a.result.values, c.result.values)


def count(refitter, task):
    if task == "fail":
        raise ArithmeticError("no such thing")
    if task == "stop":
        raise KeyboardInterrupt
    return task


def test_a_failure_loses_no_other(refitter):
    done = run_tasks(refitter, count, [0, "fail", 2])
    assert [one.result for one in done] == [0, None, 2]
    assert [one.failure for one in done] == ["", "ArithmeticError: no such thing", ""]


def test_ctrl_c_returns_what_there_is(refitter):
    done = run_tasks(refitter, count, [0, 1, "stop", 3])
    assert [one.result for one in done] == [0, 1, None, None]
    assert [one.failure for one in done] == ["", "", INTERRUPTED, INTERRUPTED]


def test_models_that_cannot_be_sent_stay_here(refitter, monkeypatch):
    def refuse(_):
        raise TypeError("cannot pickle")

    monkeypatch.setattr(parallel.cloudpickle, "dumps", refuse)
    assert [one.result for one in run_tasks(refitter, count, [1])] == [1]
    with pytest.raises(ValueError, match="cannot be sent to other processes .* Use n_jobs=1"):
        run_tasks(refitter, count, [1], n_jobs=2)
