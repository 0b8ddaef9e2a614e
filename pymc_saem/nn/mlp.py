"""The description of a multilayer perceptron, and its output for given weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytensor.tensor as pt
from numpy.typing import ArrayLike
from pytensor.graph.basic import Variable
from pytensor.raise_op import Assert
from pytensor.tensor.variable import TensorVariable

from pymc_saem.arguments import check_types, shown

from .activations import ACTIVATIONS, Tensor


@dataclass(frozen=True, eq=False)
class NetworkCall:
    """What the output of a network in a graph carries as ``tag.network_call``, so that figures can find it.

    Attributes
    ----------
    net : MLP
    weights, x : TensorVariable
        As :meth:`MLP.__call__` was given them.
    """

    net: object
    weights: Variable
    x: Variable


@dataclass(frozen=True)
class MLP:
    """A fully connected network with its weights in one flat vector.

    The object describes the network and holds no weights. Call it with a weight vector, or with one
    weight vector per subject, and an input.

    Parameters
    ----------
    in_size : int
        Number of inputs.
    out_size : int
        Number of outputs.
    width_size : int
        Number of units in each hidden layer.
    depth : int
        Number of hidden layers; 0 makes the network affine.
    activation : {"tanh", "relu", "softplus", "sigmoid", "swish", "gelu", "identity"}
        Activation of the hidden layers. Right-hand sides of differential equations need a smooth
        one.
    output_activation : str
        Activation of the output layer, one of the same.

    Raises
    ------
    ValueError
        If a size is not a positive integer, the depth is negative, or an activation is unknown.

    See Also
    --------
    pymc_saem.nn.weights : The weight vector as a variable of a model.
    pymc_saem.nn.initial_weights : Starting weights.
    pymc_saem.rates : What a fitted network has learned.

    Notes
    -----
    Layer l computes ``activation(W_l h + b_l)``. The flat vector holds ``W1, b1, W2, b2, ...``,
    each matrix row by row; ``W1[0,1]`` is the weight from input 1 to unit 0 of the first layer.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_saem.nn import MLP
    >>> net = MLP(in_size=1, out_size=1, width_size=2, depth=1)
    >>> net.weight_names
    ('W1[0,0]', 'W1[1,0]', 'b1[0]', 'b1[1]', 'W2[0,0]', 'W2[0,1]', 'b2[0]')
    >>> weights = np.array([1.0, 2.0, 0.0, -1.0, 0.5, 0.5, -4.0])
    >>> float(net(weights, 0.5))
    -3.768941421369995
    >>> net(weights, np.array([0.0, 0.5, 1.0])).shape
    (3,)
    """

    in_size: int
    out_size: int
    width_size: int
    depth: int
    activation: str = "tanh"
    output_activation: str = "identity"

    def __post_init__(self) -> None:
        check_types(
            "MLP", {name: getattr(self, name) for name in ("activation", "output_activation")}
        )
        for name, lowest in (("in_size", 1), ("out_size", 1), ("width_size", 1), ("depth", 0)):
            value = getattr(self, name)
            is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not is_integer or value < lowest:
                raise ValueError(
                    f"{name} must be an integer of at least {lowest}, got {shown(value)}"
                )
            object.__setattr__(self, name, int(value))
        for name in ("activation", "output_activation"):
            value = getattr(self, name)
            if value not in ACTIVATIONS:
                raise ValueError(
                    f"unknown {name} {shown(value)}; choose one of {', '.join(ACTIVATIONS)}"
                )

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """The number of inputs, of units in each hidden layer, and of outputs."""
        return (self.in_size, *(self.width_size,) * self.depth, self.out_size)

    @cached_property
    def n_weights(self) -> int:
        """The length of the weight vector."""
        sizes = self.layer_sizes
        return sum((n_in + 1) * n_out for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True))

    @cached_property
    def weight_names(self) -> tuple[str, ...]:
        """The names of the weights in their order, for the coords of a model."""
        names = []
        sizes = self.layer_sizes
        for layer, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True), start=1):
            names += [f"W{layer}[{row},{column}]" for row in range(n_out) for column in range(n_in)]
            names += [f"b{layer}[{row}]" for row in range(n_out)]
        return tuple(names)

    def __call__(self, weights: ArrayLike | Variable, x: ArrayLike | Variable) -> Tensor:
        """Return the network's output at an input.

        Parameters
        ----------
        weights : array_like or TensorVariable, shape (..., n_weights)
            One weight vector, or a batch of them.
        x : array_like or TensorVariable
            The input: shape (..., in_size) if ``in_size > 1``. With ``in_size == 1`` there is
            **no** feature axis: ``x`` is the scalar or the batch itself, of any shape. A list of
            PyTensor scalars is a vector.

        Returns
        -------
        numpy.ndarray, numpy.floating or TensorVariable
            Shape (..., out_size) if ``out_size > 1``; with ``out_size == 1`` there is no feature
            axis. The leading axes of ``weights`` and ``x`` broadcast against each other. PyTensor
            if either argument is, else NumPy.

        Raises
        ------
        ValueError
            If the last axis of ``weights`` is not ``n_weights`` long, or that of ``x`` not
            ``in_size``.

        Examples
        --------
        Twelve subjects with their own weights, at 50 common inputs:

        >>> import numpy as np
        >>> from pymc_saem.nn import MLP
        >>> net = MLP(in_size=1, out_size=1, width_size=2, depth=1)
        >>> weights = np.zeros((12, net.n_weights))
        >>> net(weights[:, None, :], np.linspace(0, 1, 50)).shape
        (12, 50)
        """
        if not (_is_symbolic(weights) or _is_symbolic(x)):
            return self._output(np.asarray(weights), np.asarray(x))
        given = pt.as_tensor_variable(weights), pt.as_tensor_variable(x)
        output = self._output(*given)
        output.tag.network_call = NetworkCall(self, *given)
        return output

    def _output(self, weights: Tensor, x: Tensor) -> Any:
        """The output as NumPy or PyTensor, as the arguments are."""
        symbolic = isinstance(x, Variable)
        h = self._checked_input(x)
        weights = self._checked_weights(weights)
        sizes = self.layer_sizes
        start = 0
        for layer, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            middle, stop = start + n_in * n_out, start + (n_in + 1) * n_out
            # index and not slice a layer of one unit: its feature axis is dropped
            bias = weights[..., middle] if n_out == 1 else weights[..., middle:stop]
            h = _product(weights, start, n_in, n_out, h) + bias
            name = self.output_activation if layer == self.depth else self.activation
            h = ACTIVATIONS[name][symbolic](h)
            start = stop
        return h

    def _checked_weights(self, weights: Tensor) -> Tensor:
        length = weights.type.shape[-1:] if isinstance(weights, Variable) else weights.shape[-1:]
        if length == (None,):  # known only when the graph runs, so checked there
            message = f"the last axis of the weights must have length {self.n_weights}, the n_weights of {self}"
            return _of_length(self.n_weights, weights, message)
        if length != (self.n_weights,):
            found = f"has length {length[0]}" if length else "is a scalar"
            raise ValueError(
                f"the weight vector {found}, but {self} has {self.n_weights} weights "
                f"({self.weight_names[0]} to {self.weight_names[-1]}, on the last axis); "
                "give the variable n_weights entries, for example by dims whose coords are net.weight_names"
            )
        return weights

    def _checked_input(self, x: Tensor) -> Tensor:
        if self.in_size == 1:
            return x
        shape = x.type.shape if isinstance(x, Variable) else x.shape
        advice = "put the inputs on the last axis, for example with pm.math.stack([...], axis=-1)"
        if shape and shape[-1] is None:  # as with weights
            message = f"the last axis of the input must have length {self.in_size}, the in_size of {self}; {advice}"
            return _of_length(self.in_size, x, message)
        if not shape or shape[-1] != self.in_size:
            raise ValueError(
                f"the input has shape {shape}, but the network has in_size={self.in_size}; {advice}"
            )
        return x


def _is_symbolic(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_symbolic, value))
    return isinstance(value, Variable)


def _of_length(length: int, x: Any, message: str) -> TensorVariable:
    """A tensor whose last axis has this length, else an error when the graph runs.

    Its static shape says so too, for the layers; that alone would not do: PyTensor drops it where
    it only indexes.
    """
    checked: Any = Assert(message)(x, pt.eq(x.shape[-1], length))
    return pt.as_tensor_variable(pt.specify_shape(checked, (*(None,) * (x.ndim - 1), length)))


def _product(weights: Tensor, start: int, n_in: int, n_out: int, h: Tensor) -> Tensor:
    """W h for the matrix of shape (n_out, n_in) at ``start``; an axis of length 1 is absent from ``h`` and the result.

    One weight vector and one input take the plainest operations, because a right-hand side is
    traced from them.
    """
    stop = start + n_in * n_out
    if n_in == 1 and n_out == 1:
        return weights[..., start] * h
    if n_in == 1:
        return weights[..., start:stop] * (h[..., None] if h.ndim else h)
    if n_out == 1:
        return (weights[..., start:stop] * h).sum(axis=-1)
    matrix = weights[..., start:stop].reshape((*_batch_shape(weights), n_out, n_in))
    if weights.ndim > 1:
        return (matrix @ h[..., None])[..., 0]
    return matrix @ h if h.ndim == 1 else h @ matrix.T


def _batch_shape(weights: Tensor) -> tuple[Any, ...]:
    return tuple(weights.shape[axis] for axis in range(weights.ndim - 1))
