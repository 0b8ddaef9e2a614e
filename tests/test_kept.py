"""Machine code on disk: it knows its sources, survives damage, and comes from nobody else."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_saem import kept
from pymc_saem.kept import keep_callback, keep_function
from pymc_saem.ode.rhs.compiled import CompiledRhs
from pymc_saem.ode.rhs.system import trace
from pymc_saem.sources import sources_hash

ONE = numba.types.float64(numba.types.float64)
posix = pytest.mark.skipif(
    os.name != "posix", reason="owners and modes of files are those of POSIX"
)


def triple(x):
    return 3.0 * x


triple.__module__ = "pymc_saem.ode.rhs.elementary"  # a module that has sources


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for machine code."""
    monkeypatch.setattr(kept, "_place", lambda: tmp_path / "pymc_saem")
    return tmp_path / "pymc_saem"


def compile_triple():
    """What it gives, and whether it was read from disk."""
    function = keep_function(triple)
    value = function(2.0)
    callback = keep_callback(ONE, triple)
    assert callback.ctypes(2.0) == value == 6.0
    return sum(function.stats.cache_hits.values()) == 1 and callback.cache_hits == 1


def files(folder):
    return sorted(path for path in folder.iterdir() if path.is_file())


def test_what_was_compiled_is_found(folder):
    assert not compile_triple()
    assert compile_triple()
    assert len(files(folder)) == 2


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # in the middle of the machine code
    path.write_bytes(content)


DAMAGE = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "cut in the checksum": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "garbage": lambda path: path.write_bytes(os.urandom(5000)),
    "one bit": flip,
    "of Numba's own cache": lambda path: path.write_bytes(b"\x80\x05\x8c\x060.60.0\x94."),
    "in place of another": lambda path: path.write_bytes(
        next(p for p in path.parent.iterdir() if p != path).read_bytes()
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_compiled_anew(folder, damage):
    compile_triple()
    before = {path: path.read_bytes() for path in files(folder)}
    for path in before:
        damage(path)
    assert not compile_triple()
    assert files(folder) == list(before)
    assert compile_triple()


@posix
def test_a_file_that_somebody_else_can_write_is_not_read(folder, tmp_path):
    compile_triple()
    for path in files(folder):
        path.chmod(0o666)
    assert not compile_triple()
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(folder)} == {0o600}
    for path in files(folder):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    assert not compile_triple()


def no_space(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["replace", "fdopen"])
def test_a_full_disk_costs_time_only(folder, monkeypatch, name):
    monkeypatch.setattr(os, name, no_space)
    assert not compile_triple()
    assert not compile_triple()
    assert files(folder) == []


def test_where_nothing_can_be_written(folder, monkeypatch):
    folder.write_text("in the way")
    assert kept.folder() is None
    assert not compile_triple()
    system = trace(lambda t, y, p: {"a": -0.7 * y.a}, ["a"], {})
    assert CompiledRhs(system).lanes_rhs_address != 0
    monkeypatch.setattr(Path, "mkdir", no_space)
    assert kept.folder() is None


def test_it_stands_with_the_compiled_code_of_pytensor():
    assert kept._place() == Path(pytensor.config.compiledir) / "pymc_saem"


@posix
def test_the_folder_is_private(folder):
    compile_triple()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o775)
    assert kept.folder() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@posix
def test_the_folder_of_somebody_else_is_not_used(folder, tmp_path, monkeypatch):
    compile_triple()
    me = os.geteuid()
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: me + 1)
        assert kept.folder() is None
        assert not compile_triple()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert kept.folder() is None


def test_the_files_that_were_not_used_make_room(folder, monkeypatch):
    monkeypatch.setattr(kept, "_MOST_FILES", 4)
    compile_triple()
    used = files(folder)
    folder.joinpath("of a killed process.tmp").write_text("")
    for number, path in enumerate(files(folder)):
        os.utime(path, (number, number))
    assert compile_triple()  # they are younger now
    for constant in (1.0, 2.0):
        keep_callback(ONE, triple, text=f"{constant}")
    assert len(files(folder)) == 4 and set(used) <= set(files(folder))


def test_texts_and_options_are_told_apart(folder):
    keep_callback(ONE, triple, text="a")
    keep_callback(ONE, triple, text="b")
    keep_callback(ONE, triple, text="b", error_model="numpy")
    assert len(files(folder)) == 3


def test_what_has_no_known_sources_is_not_kept(folder):
    def inner(x):
        return factor * x

    def outside(x):
        return 4.0 * x

    factor = 2.0
    inner.__module__ = "pymc_saem.ode.rhs.elementary"
    assert (keep_callback(ONE, inner).ctypes(2.0), keep_function(inner)(2.0)) == (4.0, 4.0)
    assert (keep_callback(ONE, outside).ctypes(2.0), keep_function(outside)(2.0)) == (8.0, 8.0)
    assert not folder.exists()


@pytest.fixture
def of_pytensor(tmp_path, monkeypatch):
    """An empty folder for what PyTensor keeps."""
    for module in (kept, pytensor.link.numba.cache):
        monkeypatch.setattr(module, "NUMBA_CACHE_PATH", tmp_path)
    return tmp_path


def compile_graph():
    x = pt.dvector("x")
    return pytensor.function([x], pt.cumsum(3.0 * x), mode="NUMBA")(
        np.array([1.0, 2.0])
    ).tolist() == [3.0, 9.0]


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_damaged_files_of_pytensor_are_compiled_anew(of_pytensor, ending):
    assert compile_graph()
    damaged = [path for path in files(of_pytensor) if path.suffix == ending]
    for path in damaged:
        path.write_bytes(b"")
    assert damaged and compile_graph()
    assert all(path.stat().st_size for path in damaged)


def test_a_full_disk_does_not_stop_pytensor(of_pytensor, monkeypatch):
    monkeypatch.setattr(os, "replace", no_space)
    assert compile_graph()
    assert files(of_pytensor) == []


def test_numba_treats_other_files_as_it_does(tmp_path, monkeypatch):
    def save():
        monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
        numba.njit(ONE, cache=True)(triple)

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="No space left"):
        save()


PACKAGE = {
    "sub/__init__.py": "",
    "sub/a.py": "from pack.sub.b import f",
    "sub/b.py": "def g():\n    from . import c",
    "sub/c.py": "import pack.other.d as d",
    "sub/alone.py": "import numpy",
    "other/__init__.py": "",
    "other/d.py": "from ..whole import anything",
    "whole/__init__.py": "",
    "whole/e.py": "",
    "whole/inner/f.py": "",
}


@pytest.fixture
def pack(tmp_path):
    for name, text in PACKAGE.items():
        path = tmp_path / "pack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pack"


@pytest.mark.parametrize(
    "name",
    [
        "sub/a.py",
        "sub/b.py",
        "sub/c.py",
        "other/d.py",
        "whole/e.py",
        "whole/inner/f.py",
        "sub/alone.py",
    ],
)
def test_a_module_knows_what_it_imports(pack, name):
    def hashes():
        sources_hash.cache_clear()
        return [sources_hash(module, pack) for module in ("pack.sub.a", "pack.sub.alone")]

    (before, alone), path = hashes(), pack / name
    found = path.stat()
    # the date of the file tells nothing
    path.write_text(path.read_text().replace(" ", "  ", 1) or "\n")
    os.utime(path, (found.st_atime, found.st_mtime))
    after = hashes()
    assert (after[0] != before, after[1] != alone) == (
        name != "sub/alone.py",
        name == "sub/alone.py",
    )


def test_no_module_has_no_hash():
    with pytest.raises(ValueError, match="numpy.linalg is not a module of the package"):
        sources_hash("numpy.linalg")


@pytest.mark.parametrize("edited", ["saem/estep/walk.py", "saem/core/gaussian.py"])
def test_the_e_step_knows_its_sources(tmp_path, edited):
    """Langevin transitions take functions from other files; their machine code stayed when one was edited."""
    root = tmp_path / "pymc_saem"
    for name in (
        "saem/estep/walk.py",
        "saem/estep/walk_mala.py",
        "saem/core/gaussian.py",
        "kept.py",
        "sources.py",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((Path(kept.__file__).parent / name).read_bytes())
    before = sources_hash("pymc_saem.saem.estep.walk_mala", root)
    path = root / edited
    path.write_text(path.read_text() + "# edited\n")
    sources_hash.cache_clear()
    assert sources_hash("pymc_saem.saem.estep.walk_mala", root) != before


SOLVE = """
import os, pathlib, sys
os.umask(0)
import pytensor, pytensor.tensor as pt
from pymc_saem.ode import solve_ivp
k = pt.dscalar("k")
solution = solve_ivp(lambda t, y, p: {"c": -p.k * y.c}, {"c": 1.0}, {"k": k}, [1.0], solver="tsit5")
print(pytensor.function([k], solution.c, mode="FAST_COMPILE")(0.5)[0].round(4), "from", sorted(pathlib.Path(sys.argv[1]).rglob("pymc_saem"))[0])
"""


@posix
@pytest.mark.slow
def test_a_solve_needs_no_whole_file_and_shows_its_code_to_nobody(tmp_path):
    """As a user sees it: a solve in a process of its own, and another one after all that the first has kept was emptied."""
    env = os.environ | {
        "PYTENSOR_FLAGS": f"base_compiledir={tmp_path}",
        "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
    }

    def solve():
        ran = subprocess.run(
            [sys.executable, "-c", SOLVE, tmp_path], env=env, capture_output=True, text=True
        )
        assert ran.returncode == 0 and ran.stdout.startswith("0.6065 from "), ran.stderr[-2000:]
        return Path(ran.stdout.split("from ")[1].strip())

    mode = stat.S_IMODE(solve().stat().st_mode)
    compiled = [
        path
        for path in tmp_path.rglob("*")
        if path.suffix in {".nbi", ".nbc"} or path.parent.name == "pymc_saem"
    ]
    for path in compiled:
        if path.is_file():
            path.write_bytes(b"")
    assert compiled
    solve()
    assert mode == 0o700
