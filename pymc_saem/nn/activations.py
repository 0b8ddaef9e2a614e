"""Activation functions, each for NumPy and for PyTensor, safe for inputs of any finite size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytensor.tensor as pt
from numpy.typing import ArrayLike
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable
from scipy import special

from pymc_saem.arguments import check_types


def softplus(x: ArrayLike | Variable) -> TensorVariable:
    """Compute log(1 + exp(x)), which keeps a rate positive and nearly as large as a large x; it cannot overflow.

    PyMC 6 has it as ``pm.math.softplus``, PyMC 5 does not.

    Parameters
    ----------
    x : tensor_like
        Any number, such as the output of a network.

    Returns
    -------
    TensorVariable
        Positive, of the shape of ``x``.

    See Also
    --------
    pymc_saem.nn.MLP : Networks whose output it makes a rate.

    Examples
    --------
    >>> from pymc_saem import nn
    >>> nn.softplus([-1000.0, 0.0, 1000.0]).eval().round(3).tolist()
    [0.0, 0.693, 1000.0]
    """
    check_types("nn.softplus", {"x": x})
    return pt.softplus(x)


#: NumPy in, NumPy out; PyTensor in, PyTensor out.
Tensor: TypeAlias = np.ndarray | TensorVariable


def _gelu(x: Tensor, erfc: Callable[[Tensor], Tensor]) -> Tensor:
    # 1 + erf(u) loses all digits for large negative u; erfc(-u) is the same number and keeps them.
    return 0.5 * x * erfc(-x / math.sqrt(2.0))


# name: (NumPy form, PyTensor form)
ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "identity": (lambda x: x, lambda x: x),
    "tanh": (np.tanh, pt.tanh),
    # `switch`, because PyTensor's gradient of `maximum` at a tie is 1 for both arguments
    "relu": (lambda x: np.maximum(x, 0.0), lambda x: pt.switch(x > 0, x, 0.0)),
    "softplus": (lambda x: np.logaddexp(0.0, x), pt.softplus),
    "sigmoid": (special.expit, pt.sigmoid),
    "swish": (lambda x: x * special.expit(x), lambda x: x * pt.sigmoid(x)),
    "gelu": (lambda x: _gelu(x, special.erfc), lambda x: _gelu(x, pt.erfc)),
}
