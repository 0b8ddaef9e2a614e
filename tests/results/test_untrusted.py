"""Files made to attack: reading one runs no code, and opens no other file."""

import io
import json
import pickle
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import pymc_saem as ps
from pymc_saem.results.files.storage import _read_folder
from pymc_saem.results.files.untrusted import UntrustedError, check_netcdf, check_zarr
from pymc_saem.saem.run.resume import Resumable
from pymc_saem.saem.run.snapshot import pack, unpack

zarr = pytest.importorskip("zarr")


class Attack:
    """What is unpickled makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


PICKLE = {"id": "pickle", "protocol": 5}
ARRAY = {
    "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C", "fill_value": None, "compressor": None, "filters": [PICKLE],
}  # fmt: skip


def write_attack(folder, array, consolidated=False):
    """A fit of one array, whose only chunk is a pickle."""
    x = folder / "saem_trace" / "x"
    x.mkdir(parents=True)
    parts = {".zgroup": {"zarr_format": 2}, "saem_trace/.zgroup": {"zarr_format": 2}}
    parts |= {"saem_trace/x/.zarray": array, "saem_trace/x/.zattrs": {"_ARRAY_DIMENSIONS": ["t"]}}
    if consolidated:
        (folder / ".zmetadata").write_text(
            json.dumps({"zarr_consolidated_format": 1, "metadata": parts})
        )
        parts.pop("saem_trace/x/.zarray")
    for name, content in parts.items():
        (folder / name).write_text(json.dumps(content))
    (x / "0").write_bytes(pickle.dumps(Attack(folder / "ran")))


ATTACKS = {
    "filter": ARRAY,
    "compressor": ARRAY | {"dtype": "<f8", "compressor": PICKLE, "filters": None},
    "behind another": ARRAY | {"filters": [{"id": "vlen-utf8"}, PICKLE]},
    "made up": ARRAY | {"dtype": "<f8", "filters": [{"id": "of_a_package"}]},
}


@pytest.fixture
def unsafe(monkeypatch):
    """As older versions of zarr and numcodecs are, and later ones where somebody says so."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    with zarr.config.set({"array.allow_unsafe_pickle_decode": True}):
        yield


@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("array", ATTACKS.values(), ids=ATTACKS)
def test_zarr_runs_no_pickle(tmp_path, unsafe, array, consolidated):
    write_attack(tmp_path / "fit.zarr", array, consolidated)
    with pytest.raises(
        ValueError, match="fit.zarr' is not read: .*needs the codec '(pickle|of_a_package)'"
    ):
        ps.load(tmp_path / "fit.zarr")
    assert not (tmp_path / "fit.zarr" / "ran").exists()


def test_the_attack_is_one(tmp_path, unsafe, monkeypatch):
    write_attack(tmp_path / "fit.zarr", ATTACKS["behind another"], consolidated=True)
    monkeypatch.setattr("pymc_saem.results.files.storage.check_zarr", lambda folder: None)
    with suppress(Exception):  # zarr says whatever it likes of what a pickle gave
        _read_folder(tmp_path / "fit.zarr")
    assert (tmp_path / "fit.zarr" / "ran").exists()


V3 = {"node_type": "array", "zarr_format": 3, "data_type": "float64"}
METADATA = {
    "pickle in format 3": V3 | {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
    "in a shard": V3
    | {"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": ["bytes", "pickle"], "index_codecs": []}}]},
    "in a consolidated group": {
        "node_type": "group", "consolidated_metadata": {"metadata": {"x": V3 | {"codecs": [{"name": "made_up"}]}}},
    },
    "storage transformer": V3 | {"codecs": [], "storage_transformers": [{"name": "made_up"}]},
    "objects": ARRAY | {"filters": None},
}  # fmt: skip


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
def test_other_ways_to_name_a_codec(tmp_path, metadata):
    (tmp_path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(UntrustedError):
        check_zarr(tmp_path)
    # the user's own words
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {"filters": ["pickle"]}}))
    check_zarr(tmp_path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:.*not.*Zarr.*")
def test_what_xarray_writes_is_let_through(tmp_path, zarr_format):
    data = xr.Dataset(
        {"x": ("t", np.arange(3.0)), "n": ("t", np.arange(3)), "b": ("t", [True, False, True])}
    )
    data.to_zarr(tmp_path / "fit.zarr", zarr_format=zarr_format)
    check_zarr(tmp_path / "fit.zarr")
    data.to_netcdf(
        tmp_path / "fit.nc", engine="h5netcdf", encoding={"x": {"zlib": True, "shuffle": True}}
    )
    check_netcdf((tmp_path / "fit.nc").read_bytes())


def test_a_chunk_is_no_link(tmp_path):
    xr.Dataset({"x": ("t", [1.0])}).to_zarr(
        tmp_path / "fit.zarr", group="saem_trace", zarr_format=2
    )
    (tmp_path / "secret").write_bytes(b"12345678")
    chunk = tmp_path / "fit.zarr" / "saem_trace" / "x" / "0"
    chunk.unlink()
    chunk.symlink_to(tmp_path / "secret")
    with pytest.raises(
        ValueError, match="fit.zarr' is not read: its file 'saem_trace/x/0' is a link"
    ):
        ps.load(tmp_path / "fit.zarr")


def external_link(group, secret):
    group["x"] = h5py.ExternalLink(secret, "/x")


def soft_link(group, secret):
    group["x"] = h5py.SoftLink("/saem_trace/y")


def external_values(group, secret):
    group.create_dataset("x", (2,), "f8", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def virtual_values(group, secret):
    layout = h5py.VirtualLayout((2,), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "x", (2,))
    group.create_virtual_dataset("x", layout)


def a_circle(group, secret):
    group["x"] = group


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (external_link, "'/saem_trace/x' is a link to something else"),
        (soft_link, "'/saem_trace/x' is a link to something else"),
        (external_values, "the values of '/saem_trace/x' are in other files"),
        (virtual_values, "the values of '/saem_trace/x' are in other files"),
        (a_circle, "the group '/saem_trace/x' is there twice"),
    ],
)
def test_hdf5_opens_no_other_file(tmp_path, attack, message):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = [1.0, 2.0]
    with h5py.File(tmp_path / "fit.nc", "w") as file:
        group = file.create_group("saem_trace")
        group["y"] = [3.0]
        attack(group, tmp_path / "secret.h5")
    with pytest.raises(ValueError, match=f"fit.nc' is not read: {message}"):
        ps.load(tmp_path / "fit.nc")
    with pytest.raises(ValueError, match="is not read"):
        Resumable.read(tmp_path / "fit.nc")


def test_a_generator_is_one_of_numpy():
    """PyMC calls the function of numpy.random that a stored state names: `numpy.random.test` runs for minutes."""
    generator = np.random.default_rng(1)
    stored = pack({"chains": [generator]})
    assert unpack(stored)["chains"][0].random() == np.random.default_rng(1).random()
    with np.load(io.BytesIO(stored)) as found:
        parts = dict(found)
    parts["text"], changed = np.array(str(parts["text"]).replace("PCG64", "test")), io.BytesIO()
    np.savez(changed, **parts)
    with pytest.raises(ValueError, match="'test' is not a random number generator"):
        unpack(changed.getvalue())
