"""Fits that are interrupted or killed at random moments: what is there afterwards is whole, and goes on to the run that was not stopped, bit by bit."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import pymc_saem as ps
from robustness import stored
from robustness.judge import Input, Lost
from robustness.linear import SHORT

OPTIONS = SHORT | {
    "n_explore": 30,
    "n_smooth": 40,
    "draws": 40,
    "likelihood": "quadrature",
    "standard_errors": "louis",
}
N_ITERATIONS = OPTIONS["n_explore"] + OPTIONS["n_smooth"]
#: Signal, chains, cores, and the moment: a line that the process says, and seconds after it at
#: most.
MOMENTS = [
    (signal.SIGINT, 1, 1, "ready", 6.0),
    (signal.SIGINT, 1, 1, "iteration 0 0", 0.5),
    (signal.SIGINT, 1, 1, f"iteration 0 {N_ITERATIONS // 2}", 0.1),
    (signal.SIGINT, 1, 1, f"iteration 0 {N_ITERATIONS - 1}", 0.05),
    (signal.SIGINT, 1, 1, f"iteration 0 {N_ITERATIONS - 1}", 2.0),
    (signal.SIGINT, 1, 1, f"iteration 0 {N_ITERATIONS - 1}", 6.0),
    (signal.SIGKILL, 1, 1, "ready", 6.0),
    (signal.SIGKILL, 1, 1, "iteration 0 4", 0.1),
    (signal.SIGKILL, 1, 1, "iteration 0 20", 0.5),
    (signal.SIGKILL, 1, 1, f"iteration 0 {N_ITERATIONS - 1}", 4.0),
    (signal.SIGTERM, 1, 1, "iteration 0 10", 0.3),
    (signal.SIGINT, 2, 1, "iteration 1 3", 0.2),
    (signal.SIGINT, 2, 2, "checkpoint", 0.5),
    (signal.SIGKILL, 2, 2, "checkpoint", 0.5),
    (signal.SIGKILL, 2, 2, "ready", 8.0),
]
COUNT = 2 * len(MOMENTS)
BUNCH = 15
LIMIT = 400


@functools.cache
def whole(chains):
    """The run that nobody stops."""
    return ps.fit_saem(stored.build(), chains=chains, **OPTIONS)


class Run:
    """What became of a process."""

    def __init__(self, number, what, chains, cores, line, seconds):
        place = stored.folder() / f"signal-{number}"
        place.mkdir(exist_ok=True)
        self.checkpoint, self.result, self.chains = (
            place / "checkpoint.nc",
            place / "result.nc",
            chains,
        )
        self.said, self.errors = [], place / "errors.txt"
        command = [
            sys.executable,
            str(Path(__file__).with_name("child.py")),
            str(self.checkpoint),
            str(self.result),
            str(chains),
            str(cores),
        ]
        with open(self.errors, "w") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
            self.wait_for(process, line)
            time.sleep(seconds)
            # Ctrl-C goes to all processes of a terminal, kill to one.
            (os.killpg if what == signal.SIGINT else os.kill)(process.pid, what)
            self.said += process.communicate(timeout=300)[0].splitlines()
        self.code, self.group = process.returncode, process.pid

    def wait_for(self, process, line):
        while line == "checkpoint" and not self.checkpoint.exists() and process.poll() is None:
            time.sleep(0.02)
        for found in process.stdout if line != "checkpoint" else ():
            self.said.append(found.strip())
            if found.strip() == line:
                break

    @property
    def n_done(self):
        """Iterations of the first chain that were told."""
        return sum(s.startswith("iteration 0") for s in self.said)

    def left(self):
        """Whether processes of the run are still there, some seconds later."""
        for _ in range(100):
            try:
                os.killpg(self.group, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.1)
        os.killpg(self.group, signal.SIGKILL)
        return True

    def goes_on(self, path):
        """What differs between the run that goes on from a file, and the one that was not stopped."""
        again = ps.fit_saem(stored.build(), resume=path, progressbar=False)
        return stored.same(whole(self.chains), again)


def _after_kill(run):
    if run.left():
        return "processes of the run are still there"
    if run.result.exists():
        return stored.same(whole(run.chains), ps.load(run.result))
    if not run.checkpoint.exists():
        return None if run.n_done <= 6 else f"no file after {run.n_done} iterations"
    return run.goes_on(run.checkpoint)


def _after_interrupt(run):
    if run.left():
        return "processes of the run are still there"
    if run.code == 3:
        if run.n_done > 1:
            raise Lost(f"KeyboardInterrupt after {run.n_done} iterations")
        return None
    if run.code != 0 or not run.result.exists():
        raise Lost(
            f"ended with {run.code} after {run.n_done} iterations: {run.errors.read_text()[-300:]}"
        )
    found = ps.load(run.result)
    trace, right = found["saem_trace"], whole(run.chains)["saem_trace"]["mu"].values
    for chain, iterates in enumerate(trace["mu"].values):
        # a chain that ended earlier keeps its last values
        n = int(np.isfinite(trace["step_size"].values[chain]).sum())
        if n < 1 or not np.array_equal(iterates[:n], right[chain, :n]):
            return f"another trace of {n} iterations of chain {chain}"
    return run.goes_on(run.result)


def make(seed):
    rng, k = np.random.default_rng([10, seed]), seed % COUNT
    what, chains, cores, line, longest = MOMENTS[k % len(MOMENTS)]
    seconds = float(rng.uniform(0, longest))
    check = _after_interrupt if what == signal.SIGINT else _after_kill
    return Input(
        f"{what.name} {seconds:.2f} s after {line!r}, {chains} chains, {cores} cores", lambda: check(Run(seed, what, chains, cores, line, seconds)),
        lambda found: found, valid=True, foreign=True,
    )  # fmt: skip
