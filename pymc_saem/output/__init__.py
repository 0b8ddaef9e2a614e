"""Results as ArviZ data, and as tables."""

from pymc_saem.output.datatree import build_datatree
from pymc_saem.output.storage import load, save
from pymc_saem.output.summary import summary

__all__ = ["build_datatree", "load", "save", "summary"]
