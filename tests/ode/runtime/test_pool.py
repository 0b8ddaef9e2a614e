"""Threads that solve: who leads, who helps, and that nobody changes a result."""

import threading
import time

import numpy as np
import pytest

from pymc_saem.ode.runtime import driver, threads
from pymc_saem.ode.runtime.native import compile_task, doubles

N_TASKS = 1000


@pytest.fixture(scope="module")
def squares():
    """A task that writes the square of its number, and adds up how often it ran, in the memory it is given."""

    def task(begin, end, address):
        out = doubles(address)
        for k in range(begin, end):
            out[k] += float(k * k)
        return 0

    return compile_task(task)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n_tasks", [1, 3, N_TASKS])
def test_every_task_runs_once(squares, n_threads, n_tasks):
    threads.prepare(parallel=True)
    expected = np.arange(float(n_tasks)) ** 2
    for _ in range(50):
        out = np.zeros(n_tasks)
        threads.run_in_threads(squares.address, out.ctypes.data, n_tasks, n_threads)
        np.testing.assert_array_equal(out, expected)


def test_helpers_sleep_and_wake(squares):
    threads.prepare(parallel=True)
    for pause in (0.0, 0.05, 0.0, 0.05):
        time.sleep(pause)
        out = np.zeros(N_TASKS)
        threads.run_in_threads(squares.address, out.ctypes.data, N_TASKS, 2)
        assert out.sum() == sum(k * k for k in range(N_TASKS))


def test_two_leaders_at_once(squares):
    """The second one works alone; both get all of their own results."""
    threads.prepare(parallel=True)
    wrong = []

    def lead():
        for _ in range(300):
            out = np.zeros(N_TASKS)
            threads.run_in_threads(squares.address, out.ctypes.data, N_TASKS, 2)
            if out[-1] != (N_TASKS - 1) ** 2 or out.sum() != sum(k * k for k in range(N_TASKS)):
                wrong.append(out)

    leaders = [threading.Thread(target=lead) for _ in range(3)]
    for leader in leaders:
        leader.start()
    for leader in leaders:
        leader.join()
    assert not wrong


def test_pace_takes_the_faster_way_and_tries_the_other():
    pace = driver.Pace()
    taken = []
    for _ in range(400):
        parallel = pace.parallel()
        taken.append(parallel)
        pace.record(parallel, 1e-3 if parallel else 3e-3)
    assert 0.9 < np.mean(taken) < 1.0
    pace.record(True, 10.0)  # one interruption does not turn it
    assert pace.parallel()
