"""SAEM for mixed-effects models written in PyMC."""

from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.saem.describe import summarize
from pymc_saem.saem.fit import fit_saem
from pymc_saem.saem.run.checkpoint import Checkpoint
from pymc_saem.saem.run.step import SAEM

__all__ = ["Checkpoint", "SAEM", "UnsupportedModelError", "fit_saem", "summarize"]
