"""Results as ArviZ data, and as tables."""

from pymc_saem.results.build import build_datatree
from pymc_saem.results.files.storage import load, save
from pymc_saem.results.tables.compare import compare
from pymc_saem.results.tables.correlation import correlation
from pymc_saem.results.tables.diagnostics import diagnostics
from pymc_saem.results.tables.individuals import individuals
from pymc_saem.results.tables.summary import summary

__all__ = [
    "build_datatree",
    "compare",
    "correlation",
    "diagnostics",
    "individuals",
    "load",
    "save",
    "summary",
]
