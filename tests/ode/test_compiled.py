"""Right-hand sides that are kept compiled."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytensor
import pytest

from pymc_saem.ode import compiled
from pymc_saem.ode.compiled import CompiledRhs
from pymc_saem.ode.problem import trace

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
        [sys.executable, "-c", PROGRAM], env=os.environ | {"PYTENSOR_FLAGS": flags}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-2:]


@pytest.mark.slow
def test_a_new_process_finds_the_machine_code(tmp_path):
    values, compiled_exp = run(tmp_path)
    assert compiled_exp == "True"
    assert len(list(tmp_path.glob("**/pymc_saem/*.py"))) == 2  # right-hand side and Jacobian
    assert run(tmp_path) == [values, "False"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for compiled code."""
    monkeypatch.setattr(compiled, "_folder", lambda: tmp_path / "kept")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    return tmp_path / "kept"


def system(constant):
    return trace(lambda t, y, p: {"a": -constant * y.a}, ["a"], {})


def address(constant):
    return CompiledRhs(system(constant)).lanes_rhs_address


def test_equal_systems_share_a_file(folder):
    assert address(0.3) != 0 and address(0.3) != 0 and address(0.4) != 0
    assert len(list(folder.glob("*.py"))) == 2


def test_where_nothing_may_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(compiled, "_folder", lambda: tmp_path / "file" / "kept")
    assert address(0.7) != 0


def test_the_oldest_files_make_room(folder, monkeypatch):
    monkeypatch.setattr(compiled, "_MOST_FILES", 3)
    for k, constant in enumerate(np.linspace(1.0, 2.0, 5)):
        before = set(folder.glob("*.py"))
        address(constant)
        (new,) = set(folder.glob("*.py")) - before
        os.utime(new, (k, k))
    kept = sorted(path.stat().st_mtime for path in folder.glob("*.py"))
    assert kept == [2, 3, 4]
    assert len({path.name.split(".")[0] for path in (folder / "__pycache__").iterdir()}) == 3


def test_stands_with_the_compiled_code_of_pytensor():
    assert compiled._folder() == Path(pytensor.config.compiledir) / "pymc_saem"
