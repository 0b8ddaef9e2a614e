"""Files of fits on disks that fill up, in folders of other things, and with bytes that were changed; no fit is made here."""

import os
import shutil
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import perf_counter

import arviz as az
import numpy as np
import pytest
import xarray as xr

import pymc_saem as ps
from pymc_saem.compat import get_group, group_names
from pymc_saem.results.build import FitResult, Variable, build_datatree
from pymc_saem.results.files import checksum, replace


def made_up(n_subjects=5, n_iterations=40):
    rng = np.random.default_rng(3)
    trace = {
        "mu": rng.normal(size=(1, n_iterations)),
        "z": rng.normal(size=(1, n_iterations, n_subjects)),
    }
    return build_datatree(
        FitResult(
            coords={"subject": [f"s{i}" for i in range(n_subjects)]},
            trace={name: Variable(("subject",) * (x.ndim - 2), x) for name, x in trace.items()},
            population={
                "parameter": np.array(["mu"]),
                "estimate": np.array([1.5]),
                "note": np.array([""]),
            },
            observed={"y": Variable((), rng.normal(size=20))},
            constant={},
            state={"random": rng.bytes(300)},
            attrs={"subject_dim": "subject"},
        )
    )


@pytest.fixture(scope="module")
def fit():
    return made_up()


def equal(a, b):
    names = group_names(a)
    return set(names) == set(group_names(b)) and all(
        get_group(a, n).equals(get_group(b, n)) for n in names
    )


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def folder_of_a_thesis(path):
    (path / "thesis").mkdir(parents=True)
    (path / "thesis" / "chapter.txt").write_text("years of work")


def zarr_of_another(path):
    xr.Dataset({"x": ("t", [1.0])}).to_zarr(path, zarr_format=2)


def zarr_with_notes(path):
    ps.save(made_up(), path)
    (path / "saem_trace" / "notes.txt").write_text("remember")


NOT_OURS = {
    "a folder": (
        "results.zarr",
        folder_of_a_thesis,
        "other things in it, such as 'thesis/chapter.txt'",
    ),
    "a folder with a file's name": ("results.nc", folder_of_a_thesis, "it is a folder"),
    "a fit with notes": ("fit.zarr", zarr_with_notes, "such as 'saem_trace/notes.txt'"),
    "another Zarr folder": ("data.zarr", zarr_of_another, "does not hold a pymc_saem fit"),
    "another netCDF file": (
        "data.nc",
        lambda p: xr.Dataset({"x": 1.0}).to_netcdf(p, engine="h5netcdf"),
        "does not hold a pymc_saem fit",
    ),
    "a text": ("fit.nc", lambda p: p.write_text("years of work"), "does not hold a pymc_saem fit"),
    "a file with a folder's name": (
        "fit.zarr",
        lambda p: p.write_text("years of work"),
        "it is a file",
    ),
    "no regular file": ("fit.nc", lambda p: os.mkfifo(p), "no regular file"),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_no_fit_is_never_replaced(fit, tmp_path, name):
    file, make, words = NOT_OURS[name]
    make(tmp_path / file)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=f"{file}' is not replaced: .*{words}"):
        ps.save(fit, tmp_path / file)
    assert contents(tmp_path) == before
    with pytest.raises(ValueError, match="checkpoint"):
        ps.Checkpoint(tmp_path / file)


@pytest.mark.parametrize("name", ["fit.pkl", "fit", "fit.nc.gz", ".nc"])
def test_the_ending_decides_the_format(fit, tmp_path, name):
    with pytest.raises(
        ValueError, match="there are two: '.nc' for a netCDF file, and '.zarr' for a Zarr folder"
    ):
        ps.save(fit, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr"])
def test_a_fit_is_replaced_behind_a_link_too(fit, tmp_path, name):
    ps.save(made_up(n_subjects=3), tmp_path / name)
    (tmp_path / "other").mkdir()
    link = tmp_path / "other" / name
    link.symlink_to(tmp_path / name)
    assert ps.save(fit, link) == link and link.is_symlink()
    assert equal(ps.load(tmp_path / name), fit) and sorted(os.listdir(tmp_path)) == [name, "other"]


def test_threads_that_write_on_after_an_error_leave_nothing(tmp_path):
    """Zarr writes in threads, which go on for a moment when one of them has failed."""
    writers = []

    def fill(folder):
        def write_on():
            end = perf_counter() + 0.3
            while perf_counter() < end:
                with suppress(OSError):  # the folder is being removed
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{perf_counter()}").touch()

        writers.append(Thread(target=write_on))
        writers[0].start()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace.replace_folder(tmp_path / "fit.zarr", fill)
    writers[0].join()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr"])
def test_a_full_disk_is_an_error_and_changes_nothing(fit, tmp_path, name):
    """A limit on the size of files; HDF5 ended Python there."""
    resource = pytest.importorskip("resource")
    path = ps.save(fit, tmp_path / name)
    before, big = contents(tmp_path), made_up(n_subjects=50, n_iterations=1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(
            OSError, match="The fit was not written .File too large.; existing files are unch"
        ) as found:
            ps.save(big, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.value.filename == str(path) and contents(tmp_path) == before


@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr"])
@pytest.mark.parametrize(
    "error", [OSError("No space left on device"), KeyboardInterrupt(), MemoryError()]
)
def test_a_failure_at_the_last_moment_changes_nothing(fit, tmp_path, monkeypatch, name, error):
    path = ps.save(fit, tmp_path / name)
    before = contents(tmp_path)

    def fail(*arguments):
        raise error

    last = {"fit.nc": "os.replace", "fit.zarr": "_exchange"}[name]
    monkeypatch.setattr(f"pymc_saem.results.files.replace.{last}", fail)
    with pytest.raises(type(error)):
        ps.save(made_up(n_subjects=3), path)
    assert contents(tmp_path) == before


def damaged(data, rng):
    """Bytes that were changed, cut, zeroed to the end, or zeroed in the middle."""
    start, out = int(rng.integers(len(data))), bytearray(data)
    kind = rng.integers(4)
    if kind == 0:
        out[start] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del out[start:]
    else:
        end = len(data) if kind == 2 else min(start + 512, len(data))
        out[start:end] = bytes(end - start)
    return bytes(out)


def test_damaged_files_are_named_and_can_be_replaced(fit, tmp_path):
    path, rng = ps.save(fit, tmp_path / "fit.nc"), np.random.default_rng(1)
    data = path.read_bytes()
    places = [data[:k] for k in (0, 1, 7, 8, 63, 64, len(data) - 1)] + [
        damaged(data, rng) for _ in range(60)
    ]
    for changed in (one for one in places if one != data):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="fit.nc' is (damaged|not a readable netCDF file)"):
            ps.load(path)
    ps.save(fit, path)  # after each of them it may
    assert all(checksum.is_ours_or_nothing(one) for one in places) and equal(ps.load(path), fit)


def test_damaged_folders_are_named(fit, tmp_path):
    path = ps.save(fit, tmp_path / "fit.zarr")
    files = [p for p in path.rglob("*") if p.is_file()]
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[:-1])
        with pytest.raises(ValueError, match="fit.zarr' is damaged"):
            ps.load(path)
        file.unlink()  # a chunk that is missing is zeros to Zarr
        if file.name != checksum.MANIFEST:
            with pytest.raises(
                ValueError, match=f"its file '{file.relative_to(path).as_posix()}' is missing"
            ):
                ps.load(path)
        file.write_bytes(data)
    assert equal(ps.load(path), fit)


def test_other_programs_read_and_write_our_files(fit, tmp_path):
    path = ps.save(fit, tmp_path / "fit.nc")
    copy = shutil.copy(path, tmp_path / "copy.nc")  # which ArviZ keeps open
    assert get_group(az.from_netcdf(copy), "saem_trace").equals(get_group(fit, "saem_trace"))
    # a group that another program adds to the file goes where the checksum was
    xr.Dataset({"x": ("t", [1.0])}).to_netcdf(path, mode="a", group="added", engine="h5netcdf")
    assert get_group(ps.load(path), "added")["x"].item() == 1.0
    with warnings.catch_warnings(action="ignore"):  # ArviZ 0.x: of groups that it does not know
        fit.to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
    assert equal(ps.load(tmp_path / "theirs.nc"), fit)


KILLED = """
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("replace", sys.argv[1])
replace = importlib.util.module_from_spec(spec)
spec.loader.exec_module(replace)
os.replace = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
replace.replace_file(Path(sys.argv[2]), b"half of a fit")
"""


def test_what_killed_processes_left_is_removed_and_nothing_else(fit, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    path = ps.save(fit, tmp_path / "fit.nc")
    before = path.read_bytes()
    assert subprocess.run([sys.executable, "-c", KILLED, replace.__file__, path]).returncode == -9
    assert path.read_bytes() == before and len(os.listdir(tmp_path)) == 2
    others = [".pymc_saem-notes", ".pymc_saem-0123456789abcdef.txt", ".fit.nc.123"]
    for name in others:
        (tmp_path / name).write_text("somebody's")
    living = tmp_path / ".pymc_saem-0123456789abcdef"
    with open(living, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ps.save(fit, path)
        assert sorted(os.listdir(tmp_path)) == sorted([*others, living.name, "fit.nc"])
    ps.save(fit, path)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "fit.nc"])


KILLED_IN_SAVE = """
import os, signal, sys
import pymc_saem as ps
fit, move = ps.load(sys.argv[1]), os.replace

def killed(source, target):  # in the moves to its place; those of a file of the folder go on
    if os.path.basename(target) == os.path.basename(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    move(source, target)

os.replace = os.rename = killed
ps.save(fit, sys.argv[1])
"""


@pytest.mark.slow
def test_a_folder_is_whole_whenever_its_writer_is_killed(fit, tmp_path):
    """Where the system exchanges two folders in one step, nothing is there to be interrupted."""
    pytest.importorskip("fcntl")
    path = ps.save(fit, tmp_path / "fit.zarr")
    assert subprocess.run([sys.executable, "-c", KILLED_IN_SAVE, path]).returncode in (0, -9)
    assert equal(ps.load(path), fit)


@pytest.mark.slow
def test_the_next_save_removes_what_a_killed_one_left(fit, tmp_path):
    pytest.importorskip("fcntl")
    path = ps.save(fit, tmp_path / "fit.nc")
    assert subprocess.run([sys.executable, "-c", KILLED_IN_SAVE, path]).returncode == -9
    assert len(os.listdir(tmp_path)) == 2
    ps.save(fit, path)
    assert os.listdir(tmp_path) == ["fit.nc"]


def test_folders_change_places_where_the_system_cannot_exchange_them(fit, tmp_path, monkeypatch):
    path, other = ps.save(fit, tmp_path / "fit.zarr"), made_up(n_subjects=3)
    monkeypatch.setattr("pymc_saem.results.files.replace._exchange", lambda one, other: False)
    rename, calls = os.rename, []

    def fail_once(source, target):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("pymc_saem.results.files.replace.os.rename", fail_once)
        ps.save(other, path)
    assert equal(ps.load(path), fit) and os.listdir(tmp_path) == ["fit.zarr"]
    ps.save(other, path)
    assert equal(ps.load(path), other) and os.listdir(tmp_path) == ["fit.zarr"]
    rename(path, replace._aside(Path(path)))  # killed between the two steps
    assert equal(ps.load(path), other) and os.listdir(tmp_path) == ["fit.zarr"]


def test_an_empty_file_or_folder_is_nothing_to_lose(fit, tmp_path):
    (tmp_path / "fit.nc").touch()
    (tmp_path / "fit.zarr").mkdir()
    for name in ("fit.nc", "fit.zarr"):
        with pytest.raises(ValueError, match=f"{name}' (is no|holds no)"):
            ps.load(tmp_path / name)
        assert equal(ps.load(ps.save(fit, tmp_path / name)), fit)
    with pytest.raises(ValueError, match="no regular file"):
        ps.load(os.devnull)


@pytest.mark.parametrize(
    "name, text",
    [
        ("", "path is ''; it must be a path, not empty"),
        ("a\0.nc", "it must be a path, not empty and without a NUL"),
        (b"fit.nc", "path is of type bytes; it must be a path"),
        ("file.nc/fit.nc", "(file.nc' is a file, not a folder|There is no file 'file.nc/fit.nc')"),
        ("x" * 300 + ".nc", "File name too long"),
        ("folder", "'.*folder'"),
    ],
)
def test_paths_that_are_none(name, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.nc").write_text("notes")
    (tmp_path / "folder").mkdir()
    trace = made_up()
    for use in (lambda: ps.save(trace, name), lambda: ps.load(name), lambda: ps.Checkpoint(name)):
        with pytest.raises((OSError, TypeError, ValueError), match=text):
            use()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.nc", "folder"]


def test_a_fit_without_conditional_distributions_says_why():
    fit = made_up()
    with pytest.raises(
        KeyError, match=r"no conditional distributions of random effects. It was run without them"
    ):
        ps.individuals(fit)
    fit.attrs["notes"] = '["conditional draws: failed (ValueError: no gradient of Scan)"]'
    with pytest.raises(KeyError, match="no gradient of Scan"):
        ps.individuals(fit)
