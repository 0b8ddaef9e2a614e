"""A model evaluated at given values of its free variables: predictions, and data that the model generates."""

from pymc_saem.evaluate.effects import random_effects
from pymc_saem.evaluate.rates import rates

__all__ = ["random_effects", "rates"]
