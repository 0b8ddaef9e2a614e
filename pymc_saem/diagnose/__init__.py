"""How a fit agrees with its data, as numbers: residuals, visual predictive checks."""

from pymc_saem.diagnose.residuals import residuals
from pymc_saem.diagnose.vpc import vpc

__all__ = ["residuals", "vpc"]
