"""All differences between PyMC 5 with ArviZ 0.x and PyMC 6 with ArviZ 1.x; nothing else checks versions."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from os import PathLike
from typing import Any, TypeAlias

import arviz as az
import numpy as np
import pymc as pm
import xarray as xr
from pytensor.graph.basic import Variable
from rich.progress import TextColumn
from rich.table import Column

try:  # PyTensor 3.3
    from pytensor.conditional.op import IfElse
except ModuleNotFoundError:
    from pytensor.ifelse import IfElse  # noqa: F401 - for other modules

#: ArviZ below 1 has InferenceData; above, xarray's DataTree took its place.
HAS_INFERENCE_DATA = int(az.__version__.split(".")[0]) < 1

#: A fit in annotations: arviz.InferenceData with ArviZ 0.x, xarray.DataTree with 1.x, and no type
#: is both.
InferenceData: TypeAlias = Any


def observed_variables(model: pm.Model) -> list:
    """Observed variables, each once: PyMC 5's posterior predictive sampling leaves them doubled in the model.

    Raises
    ------
    TypeError
        When this is not a model.
    """
    if not isinstance(model, pm.Model):
        raise TypeError(
            f"model must be a pymc.Model, got {type(model).__name__}; the model comes first, then its fit."
        )
    return list(dict.fromkeys(model.observed_RVs))


def inner_graph(op: Any) -> tuple[list[Variable], list[Variable]]:
    """Inputs and outputs of the graph inside an operation; PyTensor 3 freezes it, so this is a copy there."""
    graph = op.fgraph.unfreeze() if hasattr(op.fgraph, "unfreeze") else op.fgraph
    return list(graph.inputs), list(graph.outputs)


def make_datatree(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, object]) -> InferenceData:
    """The container of the installed ArviZ: ``arviz.InferenceData`` or ``xarray.DataTree``."""
    if HAS_INFERENCE_DATA:
        return az.InferenceData(**groups, attrs=dict(attrs), warn_on_custom_groups=False)
    tree = xr.DataTree.from_dict(dict(groups))
    tree.attrs.update(attrs)
    return tree


def group_names(idata: InferenceData) -> list[str]:
    """Names of the groups of a fit.

    Raises
    ------
    TypeError
        When this is not a fit.
    """
    try:
        return list(idata.groups()) if HAS_INFERENCE_DATA else list(idata.children)
    except (AttributeError, TypeError):
        raise TypeError(
            f"Expected what fit_saem returned, or the same read from a file; got {type(idata).__name__}."
        ) from None


def get_group(idata: InferenceData, name: str) -> xr.Dataset:
    """One group as a Dataset.

    Raises
    ------
    KeyError
        Names the group, and the ones there are.
    """
    if name not in group_names(idata):
        raise KeyError(f"The fit has no group '{name}'; it has {', '.join(group_names(idata))}.")
    group = idata[name]
    return group if isinstance(group, xr.Dataset) else group.to_dataset()


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """Pareto shape k of the tails of importance weights, (...), for log weights (point, ...). (Vehtari et al. 2024)

    Infinite where the tail has no shape.
    """
    with np.errstate(over="ignore"):  # of a weight that is negligible beside the others
        return _pareto_k(np.moveaxis(log_weights, 0, -1))


def _pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """The same for log weights (..., point)."""
    if HAS_INFERENCE_DATA:
        return np.asarray(az.psislw(log_weights)[1])
    from arviz_stats.base import array_stats

    found = np.full(log_weights.shape[:-1], np.inf)
    for place in np.ndindex(found.shape):
        try:
            # ArviZ 1 turns the sign itself
            found[place] = array_stats.psislw(-log_weights[place])[1]
        except (
            ValueError
        ):  # ArviZ 1 refuses a tail of equal weights, such as zeros beside a single giant
            continue
    return found


def rhat_and_ess(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank-normalized split R-hat, bulk effective sample size, and that of the standard deviation; each (...).

    Of draws (chain, draw, ...), all finite, at least 4 a chain. R-hat is NaN where nothing moves.
    (Vehtari et al. 2021)
    """
    with np.errstate(all="ignore"):  # a constant has no variance to compare
        if HAS_INFERENCE_DATA:
            # not az.convert_to_dataset, which warns of more chains than draws
            data = xr.Dataset(
                {"x": (("chain", "draw", *(f"x{k}" for k in range(draws.ndim - 2))), draws)}
            )
            rhat, bulk, sd = az.rhat(data), az.ess(data), az.ess(data, method="sd")
            return (
                np.asarray(rhat["x"].values),
                np.asarray(bulk["x"].values),
                np.asarray(sd["x"].values),
            )
        from arviz_stats.base import array_stats

        axes = {"chain_axis": 0, "draw_axis": 1}
        return (
            np.asarray(array_stats.rhat(draws, **axes)),
            np.asarray(array_stats.ess(draws, **axes)),
            np.asarray(array_stats.ess(draws, **axes, method="sd")),
        )


def progress_column(text: str, header: str) -> TextColumn:
    """A column of PyMC's progress bar; both PyMC generations draw it with rich."""
    return TextColumn(text, table_column=Column(header, ratio=1))


def _tree(idata: InferenceData) -> xr.DataTree:
    """All groups, of which ArviZ 0.x cannot write some with Zarr 3."""
    if not HAS_INFERENCE_DATA:
        return idata
    tree = xr.DataTree.from_dict({name: get_group(idata, name) for name in group_names(idata)})
    tree.attrs.update(idata.attrs)
    return tree


def netcdf_bytes(idata: InferenceData) -> bytes:
    """All groups as a netCDF file in memory: HDF5 ends Python where it cannot write to a disk."""
    return bytes(_tree(idata).to_netcdf(engine="h5netcdf"))


def write_zarr(idata: InferenceData, folder: str | PathLike[str]) -> None:
    """Write all groups to a Zarr folder."""
    _tree(idata).to_zarr(str(folder), mode="w", zarr_format=2)  # the third format has no text yet


def read_netcdf(data: bytes) -> tuple[InferenceData, list[str]]:
    """``(container, names of its groups)`` of the bytes of a netCDF file."""
    return _container(xr.open_datatree(BytesIO(data), engine="h5netcdf"))


def read_zarr(folder: str | PathLike[str]) -> tuple[InferenceData, list[str]]:
    """``(container, names of its groups)`` of a Zarr folder, in memory."""
    return _container(xr.open_datatree(str(folder), engine="zarr"))


def _container(opened: xr.DataTree) -> tuple[InferenceData, list[str]]:
    with opened as tree:
        groups = {node.path.lstrip("/"): node.to_dataset().load() for node in tree.descendants}
        attrs = {str(name): value for name, value in tree.attrs.items()}
    if HAS_INFERENCE_DATA:  # which has no groups within groups
        groups = {name: group for name, group in groups.items() if "/" not in name}
    return make_datatree(groups, attrs), [name for name in groups if "/" not in name]
