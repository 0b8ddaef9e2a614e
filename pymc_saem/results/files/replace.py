"""Files and folders that are replaced whole: written beside their place, brought to the disk, and moved there in one step.

What a killed process leaves beside begins with ``.pymc_saem-``; the next one that writes into the
folder removes it. Whoever writes such a file holds a lock on it, which ends with the process: what
can be locked belongs to nobody.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from time import perf_counter, sleep, time
from types import ModuleType

fcntl: ModuleType | None = None  # Windows has none; it removes no file that somebody has open
with suppress(ImportError):
    fcntl = import_module("fcntl")

_PREFIX = ".pymc_saem-"
_NAME = re.compile(re.escape(_PREFIX) + "[0-9a-f]{16}")
#: Of the folder that a new one took the place of, where a system cannot exchange two.
_ASIDE = ".pymc_saem.aside-"
#: Seconds for which a folder is removed again after a failure, and between two looks at it.
_PATIENCE, _PAUSE = 2.0, 0.05


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; after any failure, what was there is there still.

    Raises
    ------
    OSError
        Names ``path``.
    """
    with _named(path), _beside(path, is_folder=False) as beside:
        with open(beside, "r+b") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            with suppress(OSError):  # a file system without permissions
                shutil.copymode(path, beside)
        os.replace(beside, path)
        _sync_names(path.parent)


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder that ``fill(folder)`` fills in the place of ``path``; after any failure, what was there is there still.

    Raises
    ------
    OSError
        Names ``path``.
    """
    with _named(path), _beside(path, is_folder=True) as beside:
        new = beside / "new"
        fill(new)
        for folder, _, names in os.walk(new):
            for name in names:
                with open(Path(folder, name), "r+b") as file:
                    os.fsync(file.fileno())
            _sync_names(Path(folder))
        _swap(new, path)
        _sync_names(path.parent)


def recover(path: Path) -> None:
    """Put a folder back that was moved aside by a process that was killed before the new one was in its place."""
    aside = _aside(path)
    if aside.is_dir() and not path.exists():
        os.rename(aside, path)


def _swap(new: Path, path: Path) -> None:
    """Move a folder to ``path``; the one that was there is removed, or is where the new one was."""
    if not path.exists():
        os.rename(new, path)
        return
    if _exchange(new, path):
        return
    aside = _aside(path)
    if aside.is_dir():
        shutil.rmtree(aside)
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    exchange = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    try:
        library = ctypes.CDLL(None)
        if hasattr(library, "renameat2"):
            here = -100  # AT_FDCWD
            return (
                library.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
            )
        return library.renamex_np(os.fsencode(one), os.fsencode(other), exchange) == 0
    except (AttributeError, TypeError, OSError):
        return False


def _aside(path: Path) -> Path:
    return path.with_name(_ASIDE + sha256(os.fsencode(path.name)).hexdigest()[:16])


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the system name the user's file, not the one beside it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        text = f"The fit was not written ({reason}); existing files are unchanged"
        raise OSError(error.errno or errno.EIO, text, str(path)) from error


@contextmanager
def _beside(path: Path, is_folder: bool) -> Iterator[Path]:
    """A new file or folder beside ``path``, locked; whatever of it is left at the end is removed."""
    _sweep(path.parent)
    is_ours = False
    while not is_ours:
        beside = path.with_name(_PREFIX + secrets.token_hex(8))
        if is_folder:
            os.mkdir(beside)
        else:
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        handle, is_locked = _lock(beside)
        failed = True
        try:
            # else another process swept it before the lock
            is_ours = is_locked is not False and beside.exists()
            if is_ours:
                yield beside
            failed = False
        finally:
            _remove_for_good(beside, _PATIENCE if failed and is_folder else 0.0)
            _unlock(handle)


def _remove_for_good(path: Path, patience: float) -> None:
    """Remove what is left; for some seconds again, if threads of Zarr may still write into it after one of them has failed."""
    end = perf_counter() + patience
    while True:
        with suppress(OSError):  # the error that counts is another
            _remove(path)
        if perf_counter() >= end:
            return
        sleep(_PAUSE)
        if not path.exists():
            return


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left."""
    for left in folder.glob(f"{_PREFIX}*"):
        if _NAME.fullmatch(left.name) and not left.is_symlink():
            with suppress(OSError):
                if _is_abandoned(left):
                    _remove(left)


def _is_abandoned(left: Path) -> bool:
    """Whether no living process writes it; without a lock, this is assumed after a day."""
    handle, is_locked = _lock(left)
    _unlock(handle)
    return time() - left.stat().st_mtime > 86400.0 if is_locked is None else is_locked


def _lock(path: Path) -> tuple[int | None, bool | None]:
    """A handle that locks a file or folder until it is closed, and whether it does: None where there are no locks."""
    if fcntl is None:
        return None, None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return handle, False
    except OSError:  # a file system without locks
        return handle, None
    return handle, True


def _unlock(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_names(folder: Path) -> None:
    """Bring the names in a folder to the disk; some systems cannot open folders, some file systems sync none."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
