"""Small neural networks whose weights are random variables of a PyMC model."""

from .activations import softplus
from .mlp import MLP
from .start import initial_weights
from .weights import weights

__all__ = ["MLP", "initial_weights", "softplus", "weights"]
