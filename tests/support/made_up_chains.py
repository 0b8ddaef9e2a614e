"""Chains that only count, for processes to run; and a program that runs them until it is killed."""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace


def count(payload, number, rng, watch, keep, *others):
    """``payload``: a folder, seconds of compilation, iterations. Leaves a file named like the process; returns its iterations."""
    folder, compilation, n_iterations = payload
    Path(folder, f"{os.getpid()}").write_text("")
    time.sleep(compilation)
    done = 0
    try:
        for k in range(n_iterations):
            time.sleep(0.01)
            done += 1
            watch(number, k, None, None)
    except KeyboardInterrupt:
        pass
    return done


def end_badly(payload, number, rng, watch, keep, *others):
    """Chain 0 is killed, 1 raises, and 2 counts; all of them report first."""
    watch(number, 0, None, None)
    if number == 0:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 1:
        raise ArithmeticError("of chain 1")
    return SimpleNamespace(number=number, trouble=[])


def leave_a_file_and_wait(refitter, folder):
    Path(folder, f"{os.getpid()}").write_text("")
    time.sleep(300.0)


if __name__ == "__main__":
    import cloudpickle

    from pymc_saem.refit.parallel import run_tasks
    from pymc_saem.saem.run.processes import run_in_processes
    from tests.support import made_up_chains  # by the name under which the other processes find it

    what, folder = sys.argv[1:]
    if what == "chains":
        payload = cloudpickle.dumps((folder, 0.0, 10**6))
        run_in_processes(made_up_chains.count, payload, [None], 1, lambda *seen: None, None)
    else:
        run_tasks(None, made_up_chains.leave_a_file_and_wait, [folder], n_jobs=2, progressbar=False)
