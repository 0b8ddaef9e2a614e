"""Figures of a fit: convergence, curves, distributions, random effects, learned rates; and of several fits."""

from pymc_saem.plots.comparison import plot_comparison
from pymc_saem.plots.convergence import plot_convergence
from pymc_saem.plots.fits import plot_fits
from pymc_saem.plots.observation import plot_observation_distribution
from pymc_saem.plots.random_effects import plot_random_effects
from pymc_saem.plots.rates import plot_rates

__all__ = [
    "plot_comparison",
    "plot_convergence",
    "plot_fits",
    "plot_observation_distribution",
    "plot_random_effects",
    "plot_rates",
]
