"""Machine code on disk that was cut, flipped, emptied or exchanged, and folders that are full or not the user's: the same numbers, only later."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from robustness import stored
from robustness.judge import Input

COUNT = 16
BUNCH = 8
LIMIT = 400
#: Solves and their gradient, by machine code that is kept, and a short fit with the compiled loops
#: of its E-step.
PROGRAM = """
import resource, signal, sys
if len(sys.argv) > 1:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
import numpy as np, pytensor, pytensor.tensor as pt
import pymc as pm
from pymc_saem.ode import solve_ivp
import pymc_saem as ps
k = pt.dvector("k")
solution = solve_ivp(lambda t, y, p: {"c": -p.k * y.c * (1 + 0 * pt.tanh(y.c))}, {"c": 2.0}, {"k": pt.specify_shape(k, 2)}, [1.0, 2.0, 0.5], [0, 0, 1], solver="tsit5")
values, slope = pytensor.function([k], [solution.c, pt.grad(solution.c.sum(), k)], mode="NUMBA")(np.array([0.5, 1.0]))
print(*values, *slope)
from robustness.linear import Data, SHORT
d = Data(np.random.default_rng(1))
fit = ps.fit_saem(d.model(), **(SHORT | {"compile_kwargs": None}))
print(*fit["population"]["estimate"].values)
"""
RIGHT = [
    2 * np.exp(-0.5),
    2 * np.exp(-1.0),
    2 * np.exp(-0.5),
    -2 * np.exp(-0.5) - 4 * np.exp(-1.0),
    -np.exp(-0.5),
]


def _run(place, *options):
    """What the program prints with this folder of machine code."""
    environment = os.environ | {
        "PYTENSOR_FLAGS": f"base_compiledir={place}",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
    }
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *options],
        capture_output=True,
        text=True,
        env=environment,
        timeout=380,
    )
    if run.returncode:
        raise RuntimeError(f"ended with {run.returncode}: {run.stderr[-400:]}")
    return run.stdout.splitlines()


@functools.cache
def _template():
    """A folder with all that the program needs, and what it printed."""
    place = stored.folder() / "code"
    return place, _run(place)


def _harm(rng, kind, place):
    files = sorted(f for f in place.rglob("*") if f.is_file() and f.stat().st_size)
    ours = [f for f in files if f.suffix == ".code"] or files
    chosen = ours if kind.startswith("all") else [files[i] for i in rng.integers(0, len(files), 5)]
    for file in chosen:
        data = bytearray(file.read_bytes())
        at = int(rng.integers(len(data)))
        if "cut" in kind:
            file.write_bytes(data[:at])
        if "emptied" in kind:
            file.write_bytes(b"")
        if "flipped" in kind:
            data[at] ^= 255
            file.write_bytes(data)
        if "zeros" in kind:
            file.write_bytes(bytes(len(data)))
        if "folders" in kind:
            file.unlink()
            file.mkdir()
        if "links" in kind:
            file.unlink()
            file.symlink_to("/nowhere/at/all")
        if "exchanged" in kind:
            file.write_bytes(ours[int(rng.integers(len(ours)))].read_bytes())
    if "open to all" in kind:
        for folder in [place, *place.rglob("*")]:
            folder.chmod(0o777)


KINDS = (
    "all cut", "all emptied", "all flipped", "all zeros", "all exchanged", "all folders", "all links", "some cut", "some emptied", "some flipped",
    "open to all, all flipped", "nothing there and no room", "no room for more", "some cut and no room", "some exchanged", "some zeros",
)  # fmt: skip


def _after(seed, kind):
    template, _ = _template()
    place = stored.folder() / f"code-{seed}"
    if "nothing there" not in kind:
        shutil.copytree(template, place, symlinks=True)
        _harm(np.random.default_rng([11, seed]), kind, place)
    try:
        return _run(place, *(["2000"] if "room" in kind else []))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def make(seed):
    kind = KINDS[seed % len(KINDS)]

    def wrong(found):
        if len(found) != 2 or not np.allclose(np.array(found[0].split(), float), RIGHT, rtol=1e-4):
            return f"{found}, right {RIGHT}"
        return (
            None
            if found[1] == _template()[1][1]
            else f"estimates {found[1]}, right {_template()[1][1]}"
        )

    return Input(kind, lambda: _after(seed, kind), wrong, valid=True, foreign=True)
