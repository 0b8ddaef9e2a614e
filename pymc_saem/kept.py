"""Machine code that is kept on disk: where, under which name, and who may have written it.

Numba's own cache looks at the file of a function only, not at the files that it imports; it fails
where a file was cut or the disk is full; and it runs what anybody wrote into its folder. So
functions are kept here: one file each, in a folder of the user alone, under a name made of
everything that the code depends on, with a checksum. Whatever is wrong with a file or the folder,
the function is compiled, which costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import stat
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

import numba
import pytensor
from numba.core.caching import Cache
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature
from pytensor.link.numba.cache import NUMBA_CACHE_PATH

from pymc_saem.sources import sources_hash

_MOST_FILES = 600  # about 30 MB; a study that varies a constant of its model makes a file or two for each value
_SUFFIX = ".code"
_log = logging.getLogger(__name__)
_version = functools.cache(metadata.version)


def keep_function(function: Callable[..., Any], **options: Any) -> Any:
    """``numba.njit`` whose machine code is kept."""
    dispatcher = numba.njit(**options)(_named(function, f"{options}"))
    if _has_known_sources(function):
        dispatcher._cache = _Cache(function)
    return dispatcher


def keep_callback(
    signature: Any, function: Callable[..., Any], text: str = "", **options: Any
) -> Any:
    """``numba.cfunc`` whose machine code is kept; it lives as long as this object.

    Parameters
    ----------
    signature : numba signature
    function : callable
    text : str
        Source of a function that stands in no file.
    """
    callback = CFunc(
        _named(function, f"{options}{text}"), normalize_signature(signature), {}, options
    )
    if _has_known_sources(function):
        callback._cache = _Cache(function)
    callback.compile()
    return callback


def _has_known_sources(function: Callable[..., Any]) -> bool:
    """Whether it stands in this package, and takes nothing from a function around it."""
    return (
        function.__module__.split(".")[0] == __name__.split(".")[0] and function.__closure__ is None
    )


def _named(function: Callable[..., Any], more: str) -> Callable[..., Any]:
    """The function under a name that encodes everything it depends on, which is also the name of its symbol: no two functions share one."""
    if _has_known_sources(function):
        parts = (
            sources_hash(function.__module__), function.__module__, function.__name__, function.__code__.co_firstlineno, more,
            _version("numba"), _version("llvmlite"), python_version(),
        )  # fmt: skip
        function.__qualname__ = (
            f"{function.__name__}_{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}"
        )
    return function


class _Cache:
    """What Numba asks for and gives machine code to, for one function."""

    cache_path = None

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__qualname__

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled function, or None."""
        target_context.refresh()
        try:
            path = self._path(signature, target_context.codegen())
            content = None if path is None else _read(path)
            return (
                None
                if content is None
                else CompileResult._rebuild(target_context, *pickle.loads(content))
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, it is recompiled
            _log.info("Recompiling the machine code of %s: %s", self.name, error)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep it, if that can be done."""
        if result.library.has_dynamic_globals or result.lifted:
            return
        try:
            path = self._path(signature, result.codegen)
            if path is not None:
                _write(path, dumps(result._reduce()))
        except Exception as error:  # noqa: BLE001 - it is compiled, and that is what counts
            _log.info("Machine code of %s is not kept: %s", self.name, error)

    def _path(self, signature: Any, codegen: Any) -> Path | None:
        """Its file for these types and this processor; None where nothing is kept."""
        where = folder()
        key = hashlib.sha256(repr((str(signature), codegen.magic_tuple())).encode()).hexdigest()[
            :16
        ]
        return None if where is None else where / f"{self.name}_{key}{_SUFFIX}"

    def flush(self) -> None:
        """Numba's word for forgetting; nothing is held here."""


def folder() -> Path | None:
    """Where machine code is kept; None if there is no folder that is this user's alone."""
    path = _place()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or not _is_ours(found):
            _log.warning("'%s' belongs to another user, so machine code is not kept.", path)
            return None
        if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
        return path
    except OSError:
        return None


def _place() -> Path:
    return Path(pytensor.config.compiledir) / "pymc_saem"


def _is_ours(found: os.stat_result) -> bool:
    return os.name != "posix" or found.st_uid == os.geteuid()


def _read(path: Path) -> bytes | None:
    """What `_write` wrote, or None if it is anything else, or anybody else's."""
    try:
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        )
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if (
            not stat.S_ISREG(found.st_mode)
            or not _is_ours(found)
            or os.name == "posix"
            and found.st_mode & 0o022
        ):
            return None
        checksum, content = file.read(32), file.read()
    if checksum != _checksum(path, content):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the files that were not used for the longest time make room
    return content


def _write(path: Path, content: bytes) -> None:
    """At once, because another process may want the same file."""
    _make_room(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_checksum(path, content) + content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _checksum(path: Path, content: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + content).digest()


def _make_room(where: Path) -> None:
    """Remove the files that were not used for the longest time, and those of killed processes, so that one more can come."""
    with os.scandir(where) as entries:
        files = [
            (entry.stat().st_mtime, entry.path)
            for entry in entries
            if entry.is_file(follow_symlinks=False)
        ]
    for _, path in sorted(files)[: max(0, len(files) + 1 - _MOST_FILES)]:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _forgive_pytensor() -> None:
    """Compile what PyTensor kept in a file that is damaged, or cannot keep, where Numba would end the compilation by an error.

    PyTensor keeps machine code of graphs by Numba's own cache. Files of other programs stay as
    Numba treats them.
    """
    load, save = Cache.load_overload, Cache.save_overload

    @functools.wraps(load)
    def load_or_forget(self: Any, signature: Any, target_context: Any) -> Any:
        try:
            return load(self, signature, target_context)
        except Exception:
            if Path(self.cache_path) != NUMBA_CACHE_PATH:
                raise
            with contextlib.suppress(Exception):
                self.flush()  # or the damaged index would stay
            return None

    @functools.wraps(save)
    def save_or_not(self: Any, signature: Any, data: Any) -> None:
        try:
            save(self, signature, data)
        except Exception:
            if Path(self.cache_path) != NUMBA_CACHE_PATH:
                raise

    Cache.load_overload, Cache.save_overload = load_or_forget, save_or_not


_forgive_pytensor()
