"""Network weights as a variable of a PyMC model, and where they start."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pymc as pm
from numpy.typing import ArrayLike
from pytensor.tensor.variable import TensorVariable

from pymc_saem.arguments import check_types, shown

from .mlp import MLP
from .prior import flat_weights, normal_weights
from .start import DEFAULT_INPUT_RANGE, DEFAULT_TYPICAL_OUTPUT, initial_weights


def weights(
    name: str,
    net: MLP,
    *,
    prior_sd: float | None = None,
    input_range: ArrayLike = DEFAULT_INPUT_RANGE,
    typical_output: ArrayLike = DEFAULT_TYPICAL_OUTPUT,
    dims: str | Sequence[str] | None = None,
    random_seed: int | np.random.Generator | None = None,
    initval: ArrayLike | None = None,
) -> TensorVariable:
    """Add the weight vector of a network to the current PyMC model.

    Parameters
    ----------
    name : str
        Name of the variable.
    net : MLP
        The network.
    prior_sd : float, optional
        Standard deviation of independent normal priors around 0. By default the prior is flat: no
        prior.
    input_range : tuple of two floats, or one pair per input
        Where the inputs live, in their own units. Starting values spread the activation points over
        it.
    typical_output : float or array_like of shape (out_size,)
        A usual value of the network **before** its output activation. The start is near it. For a
        rate ``softplus(net(x))`` of usual size r it is ``log(expm1(r))``. The default -4 makes such
        a rate 0.018.
    dims : str, optional
        The dim of the vector. By default ``"weight"`` if the model has such coords, else none.
    random_seed : int or numpy.random.Generator, optional
        Seed of the starting values. By default it derives from ``name``: the same in every session
        and different for networks of different names.
    initval : array_like of shape (n_weights,), optional
        Starting values; replaces the ones described here.

    Returns
    -------
    TensorVariable
        The random variable, shape (n_weights,).

    Raises
    ------
    ValueError
        If ``dims`` is unknown to the model or not ``n_weights`` long, if ``initval`` has another
        shape, or if ``prior_sd`` or ``input_range`` is impossible.

    See Also
    --------
    pymc_saem.nn.MLP : The network.
    pymc_saem.nn.initial_weights : The starting values.
    pymc_saem.plot_rates : What a fitted network has learned.

    Notes
    -----
    A flat prior is improper and has no draws. So that ``pm.sample_prior_predictive`` runs all the
    same, its "draws" of this variable are normal around the starting values, with standard
    deviation 0.5; give ``prior_sd`` for true ones. How the starting values are made:
    :func:`initial_weights`.

    Examples
    --------
    >>> import pymc as pm
    >>> from pymc_saem import nn
    >>> net = nn.MLP(in_size=1, out_size=1, width_size=2, depth=1)
    >>> with pm.Model(coords={"weight": net.weight_names}) as model:
    ...     z = nn.weights("z", net, input_range=(0, 24))
    >>> model.initial_point()["z"][-1]
    np.float64(-4.0)
    """
    check_types("nn.weights", locals())
    model = pm.modelcontext(None)
    if prior_sd is not None and not prior_sd > 0:
        raise ValueError(
            f"prior_sd of {name!r} must be positive, got {shown(prior_sd)}; leave it out for a flat prior"
        )
    dims = _dims(model, net, dims)
    if initval is None:
        # crc32 and not hash(), which differs from one session to the next
        seed = zlib.crc32(model.name_for(name).encode()) if random_seed is None else random_seed
        initval = initial_weights(net, np.random.default_rng(seed), input_range, typical_output)
    start = np.asarray(initval, dtype=float)
    if start.shape != (net.n_weights,):
        raise ValueError(
            f"initval of {name!r} has shape {start.shape}, {net} needs ({net.n_weights},)"
        )
    rv = flat_weights(start) if prior_sd is None else normal_weights(float(prior_sd), start)
    return model.register_rv(rv, name, dims=dims)


def _dims(model: pm.Model, net: MLP, dims: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The dims of the vector, as PyMC wants them; checked against the coords of the model."""
    if dims is None:
        if "weight" not in model.coords:
            return None
        dims = ("weight",)
    dims = (dims,) if isinstance(dims, str) else tuple(dims)
    if len(dims) != 1:
        raise ValueError(f"a weight vector has one dim, got dims={dims!r}")
    (dim,) = dims
    if dim not in model.coords:
        raise ValueError(
            f"dim {dim!r} is unknown to the model; add coords={{{dim!r}: net.weight_names}}"
        )
    labels = model.coords[dim]
    length = int(model.dim_lengths[dim].eval()) if labels is None else len(labels)
    if length != net.n_weights:
        raise ValueError(
            f"dim {dim!r} has length {length}, but {net} has {net.n_weights} weights; "
            "give the network its own coords, coords={'my_weight': net.weight_names}, and dims='my_weight'"
        )
    return dims
