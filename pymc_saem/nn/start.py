"""Where network weights start: useful, and different for every network."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pymc_saem.arguments import check_types, shown

from .mlp import MLP

# A rate softplus(net(x)) starts at softplus(-4) = 0.018 per unit of time, slow on the scale of a
# unit-sized input, so that a state of a few hundred (a dose in mg) times the rate stays in the
# range of data. softplus(0) = 0.69 would empty such a compartment at once, and gradients there
# carry little information. Least-squares fits of the four-network theophylline model with one curve
# per dose ended at 240 to 246 mg^2/L^2 from each of 12 seeds with these two defaults; with the
# range (0, 1), three of 12 ended above 600.
DEFAULT_TYPICAL_OUTPUT = -4.0
DEFAULT_INPUT_RANGE = (-1.0, 1.0)
# small against the bias: the start is nearly constant, and which way it bends is left to the data
OUTPUT_WEIGHT_SD = 0.3


def initial_weights(
    net: MLP,
    rng: np.random.Generator,
    input_range: ArrayLike = DEFAULT_INPUT_RANGE,
    typical_output: ArrayLike = DEFAULT_TYPICAL_OUTPUT,
) -> np.ndarray:
    """Draw starting weights of a network.

    Parameters
    ----------
    net : MLP
        The network.
    rng : numpy.random.Generator
        Source of the draws.
    input_range : tuple of two floats, or one pair per input
        Where the inputs live, in their own units.
    typical_output : float or array_like of shape (out_size,)
        A usual value of the network before its output activation.

    Returns
    -------
    numpy.ndarray
        Of shape (n_weights,).

    Raises
    ------
    ValueError
        If ``input_range`` or ``typical_output`` is not finite, has another shape, or a range is
        empty.

    See Also
    --------
    pymc_saem.nn.weights : Starts the weights of a model there.
    pymc_saem.nn.MLP : The network.

    Notes
    -----
    Each unit of the first layer has its activation point (where its input ``W1 x + b1`` is 0) in
    its own stratum of every input's range, so no two units start alike and none starts saturated;
    its slope is 1 to 3 per half range, in a random direction. Further hidden layers have weights of
    variance 1 / (number of inputs). Output weights are small and the output bias is the typical
    output, so the network starts nearly constant.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_saem.nn import MLP, initial_weights
    >>> net = MLP(in_size=1, out_size=1, width_size=4, depth=1)
    >>> weights = initial_weights(net, np.random.default_rng(1), input_range=(0, 24), typical_output=2.0)
    >>> bool(np.all(abs(net(weights, np.linspace(0, 24, 5)) - 2.0) < 1.5))
    True
    """
    check_types("nn.initial_weights", locals())
    lower, upper = _broadcast("input_range", input_range, (net.in_size, 2)).T
    if not np.all(lower < upper):
        raise ValueError(
            f"input_range must be (low, high) with low < high, got {shown(input_range)}"
        )
    bias = _broadcast("typical_output", typical_output, (net.out_size,))
    middle, half_range = (lower + upper) / 2, (upper - lower) / 2
    sizes = net.layer_sizes
    parts: list[np.ndarray] = []
    for layer, (n_in, n_out) in enumerate(zip(sizes[:-2], sizes[1:-1], strict=True)):
        if layer == 0:
            parts += _spread_units(rng, n_out, middle, half_range)
        else:
            parts += [
                rng.normal(0.0, 1.0 / np.sqrt(n_in), n_out * n_in),
                rng.normal(0.0, 0.1, n_out),
            ]
    output = rng.normal(0.0, OUTPUT_WEIGHT_SD / np.sqrt(sizes[-2]), (net.out_size, sizes[-2]))
    # an affine network: typical at the middle of the inputs, slopes per half range
    if net.depth == 0:
        output = output / half_range
        bias = bias - output @ middle
    return np.concatenate([*parts, output.ravel(), bias])


def _spread_units(
    rng: np.random.Generator, n_units: int, middle: np.ndarray, half_range: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of a first layer, both flat, whose activation points fill the input range."""
    n_in = len(middle)
    # one stratum of each input's range per unit, in random order (a Latin hypercube)
    strata = rng.permuted(np.tile(np.arange(n_units), (n_in, 1)), axis=1).T
    points = middle + half_range * (2 * (strata + rng.random((n_units, n_in))) / n_units - 1)
    direction = rng.normal(size=(n_units, n_in))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    matrix = rng.uniform(1.0, 3.0, (n_units, 1)) * direction / half_range
    return matrix.ravel(), -(matrix * points).sum(axis=1)


def _broadcast(name: str, value: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.broadcast_to(np.asarray(value, dtype=float), shape)
    except ValueError as error:
        raise ValueError(
            f"{name} must have shape {shape}, or one that broadcasts to it, got {shown(value)}"
        ) from error
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite, got {shown(value)}")
    return array
