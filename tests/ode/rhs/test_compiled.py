"""Right-hand sides that are kept compiled."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytensor
import pytest

from pymc_saem import kept
from pymc_saem.ode.rhs.compiled import CompiledRhs
from pymc_saem.ode.rhs.system import trace

# Prints what Numba compiled, and a solution with its gradient.
PROGRAM = """
from numba.core import event

names = []


class Listener(event.Listener):
    def on_start(self, e):
        pass

    def on_end(self, e):
        names.append(str(e.data["dispatcher"]))


event.register("numba:compile", Listener())
import numpy as np
import pytensor
import pytensor.tensor as pt
from pymc_saem.ode import solve_ivp

k = pt.dscalar("k")
y = solve_ivp(lambda t, y, p: {"a": -p.k * pt.exp(y.a) + 0.125}, {"a": 1.0}, {"k": k}, [1.0, 2.0], solver="tsit5").a
f = pytensor.function([k], [y, pt.grad(y.sum(), k)], mode="FAST_COMPILE")
y, gradient = f(0.5)
print(y[0].hex(), y[1].hex(), float(gradient).hex())
print(any("exp" in name for name in names))
"""


def run(folder):
    flags = f"{os.environ.get('PYTENSOR_FLAGS', '')},base_compiledir={folder}".lstrip(",")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTENSOR_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-2:]


@pytest.mark.slow
def test_a_new_process_finds_the_machine_code(tmp_path):
    compiledir = Path(pytensor.config.compiledir)
    place = tmp_path / compiledir.name / "pymc_saem"
    if kept.folder() is not None:  # solvers need not be compiled here
        shutil.copytree(kept.folder(), place)
        for path in place.glob("[rj]*.code"):
            path.unlink()
    values, compiled_exp = run(tmp_path)
    assert compiled_exp == "True"
    assert len(list(place.glob("[rj]*.code"))) == 2  # right-hand side and Jacobian
    assert run(tmp_path) == [values, "False"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for compiled code."""
    monkeypatch.setattr(kept, "_place", lambda: tmp_path / "kept")
    return tmp_path / "kept"


def address(constant):
    return CompiledRhs(trace(lambda t, y, p: {"a": -constant * y.a}, ["a"], {})).lanes_rhs_address


def test_equal_systems_share_a_file(folder):
    assert address(0.3) != 0 and address(0.3) != 0 and address(0.4) != 0
    assert len(list(folder.glob("*.code"))) == 2
