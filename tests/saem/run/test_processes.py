"""Chains in other processes: what becomes of them when this one is interrupted or killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import pytest

import pymc_saem as ps
from pymc_saem.saem.run import chains, processes
from pymc_saem.saem.run.processes import run_in_processes
from tests.support import made_up_chains
from tests.support.made_up_chains import count, end_badly
from tests.support.models import random_intercept

ROOT = Path(__file__).parents[3]


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def workers(folder):
    return [int(path.name) for path in folder.iterdir()]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # one that has ended and that nobody asks about
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def count_in(folder, compilation, n_iterations, watch=lambda *seen: None, n=2):
    return run_in_processes(
        count,
        cloudpickle.dumps((str(folder), compilation, n_iterations)),
        [None] * n,
        n,
        watch,
        None,
    )


@pytest.mark.slow
def test_ctrl_c_while_all_compile_raises_and_leaves_nobody(tmp_path):
    def interrupt():
        assert wait_for(lambda: len(workers(tmp_path)) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        count_in(tmp_path, 300.0, 5)
    thread.join()
    assert wait_for(lambda: not any(map(is_alive, workers(tmp_path))))


@pytest.mark.slow
def test_ctrl_c_later_and_failures_of_the_caller(tmp_path):
    def stop(*seen):
        raise KeyboardInterrupt

    def fail(*seen):
        raise ValueError("of the callback")

    found = count_in(tmp_path, 0.0, 10**6, stop)
    assert found and all(1 < n < 10**6 for n in found)
    with pytest.raises(ValueError, match="of the callback"):  # without waiting for hours
        count_in(tmp_path, 0.0, 10**6, fail, n=1)
    assert wait_for(lambda: not any(map(is_alive, workers(tmp_path))))


def test_ctrl_c_in_a_later_chain_keeps_the_first(monkeypatch):
    def run_chain(job, number, *others):
        if number == 1:
            raise KeyboardInterrupt
        return SimpleNamespace(number=number, interrupted=False)

    monkeypatch.setattr(chains, "run_chain", run_chain)
    assert [chain.number for chain in chains.run_chains(None, [None] * 3, 1, None)] == [0]
    monkeypatch.setattr(
        chains, "run_chain", lambda job, number, *others: run_chain(job, 1, *others)
    )
    with pytest.raises(KeyboardInterrupt):
        chains.run_chains(None, [None] * 3, 1, None)


@pytest.mark.slow
def test_nobody_outlives_a_killed_parent(tmp_path):
    """Neither chains nor refits."""
    program, parents = [sys.executable, "-m", made_up_chains.__name__], []
    for what in ("chains", "refits"):
        (tmp_path / what).mkdir()
        parents.append(
            subprocess.Popen(
                [*program, what, str(tmp_path / what)], stderr=subprocess.DEVNULL, cwd=ROOT
            )
        )
    try:
        assert wait_for(lambda: [len(workers(folder)) for folder in tmp_path.iterdir()] == [1, 1])
    finally:
        for parent in parents:
            parent.kill()
            parent.wait()
    assert wait_for(
        lambda: not any(is_alive(pid) for folder in tmp_path.iterdir() for pid in workers(folder)),
        20.0,
    )


@pytest.mark.skipif(
    not hasattr(signal, "pthread_sigmask"), reason="Windows has no masks of signals"
)
def test_children_hear_no_ctrl_c_while_they_start():
    """They printed a traceback each."""
    with processes._deaf_children():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.slow
def test_a_killed_chain_is_reported_and_takes_no_other():
    payload = cloudpickle.dumps(None)
    (chain,) = run_in_processes(end_badly, payload, [None] * 3, 2, lambda *seen: None, None)
    assert chain.number == 2
    killed, failed = chain.trouble
    assert killed.startswith(
        "Chain 0 was lost (its process ended with signal 9, possibly out of memory)"
    )
    assert (
        failed.startswith("Chain 1 was lost (ArithmeticError: of chain 1)") and "resume=" in failed
    )
    with pytest.raises(RuntimeError, match="ended with signal 9"):  # nothing is left
        run_in_processes(end_badly, payload, [None], 2, lambda *seen: None, None)


def fit_in_two_processes(then):
    """A fit of two chains; ``then`` is called with their processes, before they can be through."""

    def meddle():
        assert wait_for(lambda: len(active_children()) == 2)
        then([process.pid for process in active_children()])

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        return ps.fit_saem(
            random_intercept(), chains=2, cores=2, n_explore=50, n_smooth=50, draws=3, random_seed=1, progressbar=False,
            likelihood=None, standard_errors=None, compile_kwargs={"mode": "FAST_COMPILE"},
        )  # fmt: skip
    finally:
        thread.join()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # about a run that is too short to settle
def test_a_fit_outlives_a_chain_that_is_killed():
    with pytest.warns(UserWarning, match="Chain . was lost"):
        fit = fit_in_two_processes(lambda pids: os.kill(pids[1], signal.SIGKILL))
    assert fit["saem_trace"].sizes["chain"] == 1


@pytest.mark.slow
def test_ctrl_c_while_a_fit_compiles_raises_and_ends_its_processes():
    found = []

    def interrupt(pids):
        found.extend(pids)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit_in_two_processes(interrupt)
    assert len(found) == 2 and wait_for(lambda: not any(map(is_alive, found)), seconds=30.0)
