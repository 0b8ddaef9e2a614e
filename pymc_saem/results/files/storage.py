"""Fits on disk: netCDF files and Zarr folders."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pymc_saem.arguments import check_types
from pymc_saem.compat import (
    InferenceData,
    group_names,
    netcdf_bytes,
    read_netcdf,
    read_zarr,
    write_zarr,
)
from pymc_saem.results.files.checksum import (
    DamagedError,
    check_manifest,
    files_of,
    is_ours_or_nothing,
    read_manifest,
    with_checksum,
    without_checksum,
    write_manifest,
)
from pymc_saem.results.files.replace import recover, replace_file, replace_folder
from pymc_saem.results.files.untrusted import UntrustedError, check_netcdf, check_zarr

#: The group that every fit has.
_OURS = "saem_trace"
#: Files of a Zarr folder that was written without a list of them.
_ZARR_FILE = re.compile(
    r"(.*/)?(\.zgroup|\.zattrs|\.zarray|\.zmetadata|zarr\.json|\d+(\.\d+)*|c(/\d+)*)"
)


def save(idata: InferenceData, path: str | os.PathLike[str]) -> Path:
    """Write a fit to a file, which is there whole or, after a failure, not changed at all.

    It takes the place of a fit of that name, and of nothing else. A checksum is written with it,
    which :func:`load` compares.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What :func:`pymc_saem.fit_saem` returned, with whatever groups were added since.
    path : str or path
        Ends in ``.nc`` for a netCDF file, or in ``.zarr`` for a Zarr folder (which needs the
        package zarr).

    Returns
    -------
    pathlib.Path
        Where it is.

    Raises
    ------
    ValueError
        When the path ends otherwise, or ``idata`` is not a fit.
    FileNotFoundError
        When the folder does not exist.
    FileExistsError
        When something else has that name: a folder or a file that is not a stored fit.
    OSError
        When the disk is full, or the file may not be written; it names the file. What was there
        before is unchanged.
    ImportError
        When a Zarr folder is asked for and zarr is not installed.

    See Also
    --------
    pymc_saem.load : Reads the file.
    pymc_saem.Checkpoint : Writes a fit while it runs.

    Examples
    --------
    >>> ps.save(idata, "fit.nc").name
    'fit.nc'
    """
    check_types("save", locals())
    if _OURS not in group_names(idata):
        raise ValueError(
            f"This is not a pymc_saem fit: it has no group '{_OURS}', but {', '.join(group_names(idata))}."
        )
    path = Path(path)
    place = check_place(path)
    if path.suffix == ".zarr":
        _need_zarr(path)
        replace_folder(place, lambda folder: _fill(folder, idata))
    else:
        replace_file(place, with_checksum(_netcdf(idata, path)))
    return path


def check_place(path: Path) -> Path:
    """Where a fit of this path is written, behind symbolic links.

    Raises
    ------
    ValueError, OSError
        When no fit can be written there, or something else would be lost.
    """
    if path.suffix not in (".nc", ".zarr"):
        raise ValueError(
            f"'{path}' ends in '{path.suffix}'; the ending decides the format, and there are two: '.nc' for a netCDF file, and '.zarr' for "
            "a Zarr folder."
        )
    place = Path(os.path.realpath(path))
    if reason := _no_name(place):
        raise OSError(reason.errno, f"No fit can be written there ({reason.strerror})", str(path))
    if not place.parent.is_dir():
        if place.parent.exists():
            raise NotADirectoryError(
                f"'{path}' cannot be written: '{place.parent}' is a file, not a folder."
            )
        raise FileNotFoundError(
            f"'{path}' cannot be written: the folder '{place.parent}' does not exist."
        )
    recover(place)
    if refusal := (_not_replaced_by_folder if path.suffix == ".zarr" else _not_replaced_by_file)(
        place
    ):
        raise FileExistsError(
            f"'{path}' is not replaced: {refusal}. Choose another name, or move it away."
        )
    return place


def _no_name(place: Path) -> OSError | None:
    """Why nothing can have this name, whether it exists or not: it is too long, or its folder may not be looked into."""
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error
    return None


def load(path: str | os.PathLike[str]) -> InferenceData:
    """Read a fit, all of it into memory.

    Parameters
    ----------
    path : str or path
        What :func:`save`, ``to_netcdf`` or ``to_zarr`` of a fit wrote, under either PyMC
        generation.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        The type that the installed PyMC returns; every function of this package takes it.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file has no fit in it, is not as it was written, or asks for more than reading
        numbers and texts, such as running code or opening other files; it names the file.

    See Also
    --------
    pymc_saem.save : Writes the file.
    pymc_saem.Checkpoint : Writes it while a fit runs.

    Examples
    --------
    >>> path = ps.save(idata, "fit.nc")
    >>> again = ps.load(path)
    >>> ps.summary(again).equals(ps.summary(idata))
    True
    """
    check_types("load", locals())
    path = Path(path)
    recover(Path(os.path.realpath(path)))
    if not path.exists():
        raise FileNotFoundError(f"There is no file '{path}'.")
    if path.is_dir():
        _need_zarr(path, is_folder=True)
    try:
        idata, names = _read_folder(path) if path.is_dir() else _read_file(path)
    except PermissionError:
        raise
    except DamagedError as error:
        raise ValueError(
            f"'{path}' is damaged: {error}. If another program changed it on purpose, read it with xarray and save it again."
        ) from error
    except UntrustedError as error:
        raise ValueError(
            f"'{path}' is not read: {error}. A stored fit contains only numbers and text; this file was not written by pymc_saem.save."
        ) from error
    except (
        Exception
    ) as error:  # HDF5, Zarr, their filters and xarray raise whatever they like on damaged bytes
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(
            f"'{path}' is not a readable netCDF file or Zarr folder: {reason}."
        ) from error
    if _OURS not in names:
        raise ValueError(
            f"'{path}' is not a pymc_saem fit: it has no group '{_OURS}', but {', '.join(names) or 'none'}."
        )
    return idata


def _read_file(path: Path) -> tuple[InferenceData, list[str]]:
    if not path.is_file():
        raise ValueError("it is no regular file")
    data = path.read_bytes()
    if not data:
        raise ValueError("it is empty")
    content = without_checksum(data)
    check_netcdf(content)
    return read_netcdf(content)


def _read_folder(path: Path) -> tuple[InferenceData, list[str]]:
    check_manifest(path)
    check_zarr(path)
    return read_zarr(path)


def _netcdf(idata: InferenceData, path: Path) -> bytes:
    try:
        return netcdf_bytes(idata)
    except (TypeError, ValueError) as error:  # such as complex numbers
        raise ValueError(
            f"'{path}' was not written, as netCDF cannot hold all of the fit: {error}"
        ) from error


def _fill(folder: Path, idata: InferenceData) -> None:
    write_zarr(idata, folder)
    write_manifest(folder)


def _not_replaced_by_file(place: Path) -> str:
    """Why a netCDF file may not take that place; empty if it may."""
    if not os.path.lexists(place):
        return ""
    if place.is_dir():
        return "it is a folder, and '.nc' is the ending of a file"
    if not place.is_file():
        return "it is no regular file"
    return (
        ""
        if is_ours_or_nothing(place.read_bytes())
        else "it is a file that does not hold a pymc_saem fit"
    )


def _not_replaced_by_folder(place: Path) -> str:
    """Why a Zarr folder may not take that place; empty if it may."""
    if not os.path.lexists(place):
        return ""
    if not place.is_dir():
        return "it is a file, and '.zarr' is the ending of a folder"
    names = [name for name, _ in files_of(place)]
    try:
        known = set(read_manifest(place))
    except (FileNotFoundError, DamagedError):
        known = {name for name in names if _ZARR_FILE.fullmatch(name)}
        if names and known and not any(name.startswith(f"{_OURS}/") for name in names):
            return "it is a Zarr folder that does not hold a pymc_saem fit"
    others = [name for name in names if name not in known]
    return f"it is a folder with other things in it, such as '{others[0]}'" if others else ""


def _need_zarr(path: Path, is_folder: bool = False) -> None:
    if is_folder or path.suffix == ".zarr":
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"'{path}' is a Zarr folder, which needs the package zarr: pip install zarr."
            ) from error
