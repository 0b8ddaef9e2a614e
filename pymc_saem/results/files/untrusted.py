"""Files of somebody else, looked through before they are read: a stored fit is numbers and texts, and runs or opens nothing.

A Zarr folder names the codecs of its arrays, one of which is Python's pickle, which runs code; HDF5
can have parts of a file in other files, which are then read, and steps of decompression from
libraries. Only what storing a fit needs is let through.
"""

from __future__ import annotations

import json
import stat
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py

#: Codecs of Zarr 2 and 3 that turn bytes into numbers and texts, and no more.
_CODECS = frozenset(
    "adler32 bitround blosc bytes bz2 cast_value crc32 crc32c delta fixedscaleoffset fletcher32 gzip jenkins_lookup3 lz4 lzma packbits "
    "pcodec quantize scale_offset sharding_indexed shuffle transpose vlen-array vlen-bytes vlen-utf8 zfpy zlib zstd".split()
)
_OF_TEXT = frozenset({"vlen-bytes", "vlen-utf8"})
_NAMES_CODECS = frozenset(
    {"codecs", "compressor", "compressors", "filters", "index_codecs", "serializer"}
)
_METADATA = frozenset({".zarray", ".zgroup", ".zmetadata", "zarr.json"})
#: Filters that are a part of HDF5 or of h5py: deflate, shuffle, fletcher32, szip, nbit,
#: scaleoffset, lzf.
_FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})


class UntrustedError(ValueError):
    """A file asks for more than reading numbers and texts."""


def check_netcdf(data: bytes) -> None:
    """Look through the bytes of a netCDF file.

    Raises
    ------
    UntrustedError
        When a part of it is elsewhere, or needs anything else to be read.
    """
    with h5py.File(BytesIO(data), "r") as file:
        _check_group(file, {h5py.h5o.get_info(file.id).addr})


def _check_group(group: h5py.Group, seen: set) -> None:
    for name in group:
        where = f"'{group.name.rstrip('/')}/{name}'"
        if type(group.get(name, getlink=True)) is not h5py.HardLink:
            raise UntrustedError(f"{where} is a link to something else")
        found = group[name]
        if isinstance(found, h5py.Group):
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                raise UntrustedError(f"the group {where} is there twice")
            _check_group(found, seen | {address})
        elif isinstance(found, h5py.Dataset):
            _check_dataset(found, where)


def _check_dataset(found: h5py.Dataset, where: str) -> None:
    if found.external or found.is_virtual:
        raise UntrustedError(f"the values of {where} are in other files")
    properties = found.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code = properties.get_filter(number)[0]
        if code not in _FILTERS:
            raise UntrustedError(
                f"{where} needs the filter {code} to be read, which is not part of HDF5"
            )


def check_zarr(folder: Path) -> None:
    """Look through the metadata of a Zarr folder.

    Raises
    ------
    UntrustedError
        When a part of it is elsewhere, or one of its arrays needs a codec that could run code.
    """
    for path in sorted(folder.rglob("*")):
        where, mode = f"'{path.relative_to(folder).as_posix()}'", path.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise UntrustedError(f"its file {where} is a link, or no regular file")
        if path.name.lower() in _METADATA and stat.S_ISREG(mode):
            _check_metadata(json.loads(path.read_text(encoding="utf-8")), where)


def _check_metadata(found: Any, where: str) -> None:
    if isinstance(found, list):
        for value in found:
            _check_metadata(value, where)
    if not isinstance(found, dict):
        return
    codecs = [codec for key in _NAMES_CODECS & found.keys() for codec in _listed(found[key])]
    for codec in codecs:
        if _name(codec) not in _CODECS:
            raise UntrustedError(
                f"{where} needs the codec {_name(codec)!r} to be read, which may run code"
            )
    if found.get("storage_transformers"):
        raise UntrustedError(f"{where} has values transformed by {found['storage_transformers']}")
    if "O" in json.dumps(found.get("dtype", "")) and not _OF_TEXT & {
        _name(codec) for codec in codecs
    }:
        raise UntrustedError(f"{where} has values that are Python objects")
    for key, value in found.items():
        # which are the user's, and only data
        if key not in ("attributes", ".zattrs") and not key.endswith("/.zattrs"):
            _check_metadata(value, where)


def _listed(value: Any) -> list:
    return [] if value is None else value if isinstance(value, list) else [value]


def _name(codec: Any) -> str:
    """Zarr 2 has an id, Zarr 3 a name, or nothing but that."""
    named = codec.get("id", codec.get("name")) if isinstance(codec, dict) else codec
    return str(named).removeprefix("numcodecs.")
