"""Results as ArviZ data, and as tables."""

from pymc_saem.output.compare import compare
from pymc_saem.output.correlation import correlation
from pymc_saem.output.datatree import build_datatree
from pymc_saem.output.diagnostics import diagnostics
from pymc_saem.output.individuals import individuals
from pymc_saem.output.storage import load, save
from pymc_saem.output.summary import summary

__all__ = ["build_datatree", "compare", "correlation", "diagnostics", "individuals", "load", "save", "summary"]
