"""Is a fit that was killed at any moment, `kill -9`, the fit that it would have been? And does the memory of refits stay?

Fits are forks of this process, which has compiled the model, and write their checkpoint after each
iteration, so that many are killed while they write. Each is resumed from what is there, and
compared with the fit that nobody stopped, bit by bit.
"""

import argparse
import os
import signal
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pymc as pm

import pymc_saem as ps
from pymc_saem.compat import get_group

OPTIONS = {
    "n_explore": 8, "n_smooth": 8, "n_starts": 0, "n_transitions": 10, "tolerance": 0.0, "draws": 3, "likelihood": None,
    "standard_errors": None, "random_seed": 6, "progressbar": False,
}  # fmt: skip


def build():
    rng = np.random.default_rng(1)
    subject = np.repeat(np.arange(12), 3)
    with pm.Model(coords={"subject": range(12)}) as model:
        omega, sigma = pm.HalfNormal("omega", 2.0), pm.HalfNormal("sigma", 2.0)
        a = pm.Normal("a", pm.Normal("mean", 0.0, 10.0), omega, dims="subject")
        pm.Normal(
            "y",
            a[subject],
            sigma,
            observed=rng.normal(size=12)[subject] + 0.3 * rng.normal(size=36),
        )
    return model


def killed(model, path, seconds):
    """Whether a fit that writes to ``path`` was still running after so many seconds; it is killed then."""
    child = os.fork()
    if not child:
        ps.fit_saem(model, checkpoint=ps.Checkpoint(path, iterations=1), **OPTIONS)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def same(a, b):
    return all(
        np.array_equal(get_group(a, group)[name], get_group(b, group)[name], equal_nan=True)
        for group in ("saem_trace", "posterior")
        for name in get_group(a, group).data_vars
    )


def resident():
    """Memory of this process in MB; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=50, help="fits that are killed")
    parser.add_argument("--refits", type=int, default=30)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    model, rng, found = (
        build(),
        np.random.default_rng(0),
        {"no file yet": 0, "same": 0, "DIFFERENT": 0, "was done": 0},
    )
    whole = ps.fit_saem(model, **OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ps.fit_saem(
            model, checkpoint=ps.Checkpoint(Path(folder, "first.nc"), iterations=1), **OPTIONS
        )
        longest = time.perf_counter() - start
        for k in range(args.n):
            path = Path(folder, f"fit{k}.nc")
            if not killed(model, path, rng.uniform(0.0, longest)):
                found["was done"] += 1
            elif not path.exists():
                found["no file yet"] += 1
            else:
                found[
                    "same"
                    if same(whole, ps.fit_saem(model, resume=path, progressbar=False))
                    else "DIFFERENT"
                ] += 1
    print(found)
    before = resident()
    for _ in range(args.refits):
        ps.fit_saem(model, **OPTIONS)
    print(f"{args.refits} refits: {before:.0f} MB before, {resident():.0f} MB after")


if __name__ == "__main__":
    main()
