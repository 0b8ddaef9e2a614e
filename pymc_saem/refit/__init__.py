"""Many fits of one model: bootstrap, profiles, cross-validation; it is compiled once for all of them."""

from pymc_saem.refit.bootstrap import bootstrap
from pymc_saem.refit.cross_validation import cross_validate
from pymc_saem.refit.multistart import rank_chains
from pymc_saem.refit.profile import profile_likelihood
from pymc_saem.refit.restart import check_restart

__all__ = ["bootstrap", "check_restart", "cross_validate", "profile_likelihood", "rank_chains"]
