"""Whether stored bytes are those that were written: a checksum behind a netCDF file, or beside the files of a Zarr folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

#: The first bytes of HDF5, which netCDF files are.
SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LABEL = b"\npymc_saem sha256 "
_TRAILER = re.compile(re.escape(_LABEL) + rb"([0-9a-f]{64})\n")
_TRAILER_SIZE = len(_LABEL) + 65
#: In a Zarr folder: the checksums of its other files, by name.
MANIFEST = ".pymc_saem.json"


class DamagedError(ValueError):
    """Stored bytes are not those that were written."""


def with_checksum(data: bytes) -> bytes:
    """A netCDF file and its checksum behind it, where HDF5 does not look."""
    return b"".join((data, _LABEL, sha256(data).hexdigest().encode(), b"\n"))


def without_checksum(data: bytes) -> bytes:
    """The netCDF file in stored bytes; files of other programs have no checksum, and are taken as they are.

    Raises
    ------
    DamagedError
        When the file is not as it was written.
    """
    content, trailer = data[:-_TRAILER_SIZE], data[-_TRAILER_SIZE:]
    if found := _TRAILER.fullmatch(trailer):
        if sha256(content).hexdigest().encode() != found[1]:
            raise DamagedError("its checksum is wrong: its bytes have changed since it was written")
        return content
    length = _length(data)
    if length is not None and length != len(data):
        what = "it was cut" if length > len(data) else "its checksum is gone"
        raise DamagedError(f"{what}: it has {len(data)} bytes, of which {length} should be HDF5")
    return data


def is_ours_or_nothing(data: bytes) -> bool:
    """Whether nothing else is lost with these bytes than a fit, whole or damaged, or what no program can read.

    Without a parser, which damaged bytes might end.
    """
    if _LABEL in data[-_TRAILER_SIZE:] or not data.strip(b"\0"):
        return True
    if not data.startswith(SIGNATURE):
        return SIGNATURE.startswith(data)
    length = _length(data)
    is_cut = len(data) < 64 or length is not None and length != len(data)
    return is_cut or b"saem_trace" in data


def _length(data: bytes) -> int | None:
    """Bytes that HDF5 says the file has, where that stands at its usual place; else None."""
    if not data.startswith(SIGNATURE) or len(data) < 64:
        return None
    version = data[8]
    at = {0: 24, 1: 28, 2: 12, 3: 12}.get(version)
    if at is None or data[13 if version < 2 else 9] != 8:
        return None
    base, end = (int.from_bytes(data[k : k + 8], "little") for k in (at, at + 16))
    return end if base == 0 else None


def write_manifest(folder: Path) -> None:
    """Note the checksums of all files of a Zarr folder in it."""
    found = {name: sha256(path.read_bytes()).hexdigest() for name, path in files_of(folder)}
    (folder / MANIFEST).write_text(json.dumps({"sha256": found}), encoding="utf-8")


def check_manifest(folder: Path) -> None:
    """Compare a Zarr folder with its manifest; folders of other programs have none, and are taken as they are.

    Raises
    ------
    DamagedError
        Names a file of the folder that is not as it was written.
    """
    if not (folder / MANIFEST).exists():
        return
    for name, checksum in read_manifest(folder).items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"its file '{name}' is missing")
        if sha256(path.read_bytes()).hexdigest() != checksum:
            raise DamagedError(
                f"the checksum of its file '{name}' is wrong: its bytes have changed since it was written"
            )


def read_manifest(folder: Path) -> dict[str, str]:
    """Checksums by name of file."""
    try:
        return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"its list of checksums, '{MANIFEST}', cannot be read") from error


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names within the folder, and paths, of all that is not a folder in it, but for the manifest."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (path.is_symlink() or not path.is_dir()) and name != MANIFEST:
            yield name, path
