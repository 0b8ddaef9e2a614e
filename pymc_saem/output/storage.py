"""Fits on disk: netCDF files and Zarr folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pymc_saem.compat import read_groups, write_groups


def save(idata, path) -> Path:
    """Write a fit to a file, which is there whole or, after a failure, not changed at all.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What :func:`pymc_saem.fit_saem` returned, with whatever groups were added since.
    path : str or path
        Ends in ``.zarr`` for a Zarr folder (needs the package zarr); anything else is a netCDF file.

    Returns
    -------
    pathlib.Path
        Where it is.

    Raises
    ------
    FileNotFoundError
        When the folder does not exist.
    ImportError
        When a Zarr folder is asked for and zarr is not installed.

    Examples
    --------
    >>> ps.save(idata, "fit.nc")  # doctest: +SKIP
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"'{path}' cannot be written: the folder '{path.parent}' does not exist.")
    _need_zarr(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        write_groups(idata, beside, is_zarr=path.suffix == ".zarr")
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(beside, path)
    finally:
        _remove(beside)
    return path


def load(path):
    """Read a fit, all of it into memory.

    Parameters
    ----------
    path : str or path
        What :func:`save`, ``to_netcdf`` or ``to_zarr`` of a fit wrote, under either PyMC generation.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        The type that the installed PyMC returns; every function of this package takes it.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file has no fit in it.

    Examples
    --------
    >>> idata = ps.load("fit.nc")  # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file '{path}'.")
    if path.is_dir():
        _need_zarr(path.with_suffix(".zarr"))
    try:
        idata, names = read_groups(path, is_zarr=path.is_dir())
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"'{path}' is no netCDF file or Zarr folder that can be read: {error}") from error
    if "saem_trace" not in names:
        raise ValueError(
            f"'{path}' holds no fit of pymc_saem: it has no group 'saem_trace', but {', '.join(names) or 'none'}."
        )
    return idata


def _need_zarr(path: Path) -> None:
    if path.suffix == ".zarr":
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise ImportError(f"'{path}' is a Zarr folder, which needs the package zarr: pip install zarr.") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
