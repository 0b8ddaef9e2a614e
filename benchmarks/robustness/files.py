"""Files of fits that were cut, flipped, replaced or put in the way: what is read is what was stored, or an error that names the file."""

import os
import pickle
import shutil
import signal
from pathlib import Path

import numpy as np

import pymc_saem as ps
from robustness import stored
from robustness.judge import Input, Lost

N_CUT, N_FLIPPED = 16, 30
BUNCH = 100


def _read(data, suffix=".nc"):
    path = stored.folder() / f"case{suffix}"
    path.write_bytes(data)
    return ps.load(path)


def _resume(data):
    """From a damaged file; the options of the run are in it."""
    path = stored.folder() / "case.nc"
    path.write_bytes(data)
    return ps.fit_saem(stored.fitted()[0], resume=path, progressbar=False)


def _right(found):
    return stored.same(stored.fitted()[1], found)


def _harmed(rng, k):
    data = bytearray(stored.saved())
    if k < N_CUT:
        at = [0, 1, 8, 512, len(data) - 1][k] if k < 5 else int(rng.integers(len(data)))
        return f"cut at byte {at} of {len(data)}", bytes(data[:at])
    kind = rng.choice(["a bit", "a byte", "a block of zeros", "a block moved", "bytes behind"])
    at = int(rng.integers(len(data)))
    if kind == "a bit":
        data[at] ^= 1 << int(rng.integers(8))
    if kind == "a byte":
        data[at] = (data[at] + int(rng.integers(1, 256))) % 256
    if kind == "a block of zeros":
        data[at : at + 256] = bytes(len(data[at : at + 256]))
    if kind == "a block moved":
        data[at : at + 64], data[:64] = data[:64], data[at : at + 64]
    if kind == "bytes behind":
        data += rng.bytes(100)
    return f"{kind} at {at} of {len(data)}", bytes(data)


def _folder(name, *files):
    path = stored.folder() / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for file in files:
        (path / file).write_text("years of work")
    return path


def _keeps(path):
    """Save over a folder that is no fit."""
    try:
        ps.save(stored.fitted()[1], path)
    finally:
        if not (path / "thesis.txt").exists():
            raise Lost(f"the files of {path.name} are gone")


def _over(make):
    """Save where something else is, over an older fit where there is one, and whether the older one is whole after an error."""
    path = stored.folder() / "over.nc"
    path.write_bytes(stored.saved())
    with make(path) as given:
        try:
            ps.save(stored.fitted()[1], given)
        except OSError:
            if _right(ps.load(path)):
                raise Lost("the old file is not whole") from None
            raise
    return ps.load(given)


class _Limited:
    """Files may not be larger than so many bytes."""

    def __init__(self, size):
        self.size = size

    def __call__(self, path):
        self.path = path
        return self

    def __enter__(self):
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))
        return self.path

    def __exit__(self, *error):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def _saved_as(name):
    """Under a name, then read."""
    path = ps.save(stored.fitted()[1], stored.folder() / name)
    return ps.load(path)


def _twice():
    path = stored.folder() / "again.nc"
    found = stored.fitted()[1]
    for _ in range(3):
        ps.save(found, path)
        found = ps.load(path)
    left = [f.name for f in stored.folder().iterdir() if f.name.startswith(".")]
    if left:
        raise Lost(f"left behind: {left}")
    return found


def _abandoned():
    """What a killed process left is taken away by the next one, or does no harm."""
    (stored.folder() / ".pymc_saem-0123456789abcdef").write_bytes(b"half")
    return _twice()


def _attack():
    """A pickle where a fit should be."""
    mark = stored.folder() / "attacked"

    class Harm:
        def __reduce__(self):
            return (os.mkdir, (str(mark),))

    try:
        return _read(pickle.dumps(Harm()))
    finally:
        if mark.exists():
            raise Lost("the file ran code")


def _link():
    path = stored.folder() / "link.nc"
    (stored.folder() / "target.nc").write_bytes(stored.saved())
    path.unlink(missing_ok=True)
    path.symlink_to(stored.folder() / "target.nc")
    ps.save(stored.fitted()[1], path)
    return ps.load(path)


def _no_folder(path):
    return ps.save(stored.fitted()[1], path)


OTHERS = [
    ("text", lambda: _read(b"a,b\n1,2\n"), None, ("case",)),
    ("an empty file", lambda: _read(b""), None, ("case",)),
    ("a pickle", _attack, None, ("case",)),
    ("a folder of somebody", lambda: _keeps(_folder("results", "thesis.txt")), None, ("results",)),
    ("a folder called zarr", lambda: _keeps(_folder("results.zarr", "thesis.txt")), None, ("results.zarr", "zarr")),
    ("a folder called nc", lambda: _keeps(_folder("fit.nc", "thesis.txt")), None, ("fit.nc",)),
    ("reading a folder of somebody", lambda: ps.load(_folder("results", "thesis.txt")), None, ("results", "zarr")),
    ("no such folder", lambda: _no_folder("/nowhere/fit.nc"), None, ("nowhere",)),
    ("no such file", lambda: ps.load("/nowhere/fit.nc"), None, ("nowhere",)),
    ("no room", lambda: _over(_Limited(20_000)), None, ("over.nc",)),
    ("no room at all", lambda: _over(_Limited(0)), None, ("over.nc",)),
    ("room for almost all", lambda: _over(_Limited(len(stored.saved()) - 1)), None, ("over.nc",)),
    ("three times", _twice, _right, ()),
    ("what a killed process left", _abandoned, _right, ()),
    ("a link", _link, _right, ()),
    ("suffix pkl", lambda: _saved_as("fit.pkl"), None, ("pkl", "suffix")),
    ("suffix csv", lambda: _saved_as("fit.csv"), None, ("csv", "suffix")),
    ("no suffix", lambda: _saved_as("fit"), _right, ("suffix", "'fit'", "/fit'", ".nc")),
    ("suffix in capitals", lambda: _saved_as("fit.NC"), _right, ("suffix", "fit.NC")),
    ("a name with odd letters", lambda: _saved_as("größe 参数 %s {}.nc"), _right, ("größe",)),
    ("saving a number", lambda: ps.save(3, stored.folder() / "x.nc"), None, ("int", "fit", "idata")),
    ("saving None", lambda: ps.save(None, stored.folder() / "x.nc"), None, ("None", "fit", "idata")),
    ("reading None", lambda: ps.load(None), None, ("None", "path")),
    ("reading a number", lambda: ps.load(3), None, ("3", "path")),
    ("saving to None", lambda: ps.save(stored.fitted()[1], None), None, ("None", "path")),
    ("resume from a cut file", lambda: _resume(stored.saved()[:50_000]), None, ("case",)),
    ("resume from text", lambda: _resume(b"text"), None, ("case",)),
    ("resume from a whole file", lambda: _resume(stored.saved()), _right, ()),
    ("another file of HDF5", lambda: _read(_other_hdf5()), None, ("case", "saem_trace")),
]  # fmt: skip
COUNT = N_CUT + N_FLIPPED + len(OTHERS)


def _other_hdf5():
    import h5py

    path = Path(stored.folder() / "other.h5")
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
    return path.read_bytes()


def make(seed):
    rng, k = np.random.default_rng([9, seed]), seed % COUNT
    if k >= N_CUT + N_FLIPPED:
        text, call, check, names = OTHERS[k - N_CUT - N_FLIPPED]
        return Input(text, call, check, names, valid=bool(check) and not names)
    text, data = _harmed(rng, k)
    return Input(text, lambda: _read(data), _right, ("case.nc",))
