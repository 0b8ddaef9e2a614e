"""What follows from a fit: predictions, and new data sets."""

from pymc_saem.prediction.predict import predict
from pymc_saem.prediction.simulate import simulate

__all__ = ["predict", "simulate"]
