"""Figures: convergence, curves, observations, residuals, predictive checks, random effects, learned rates; several fits."""

from pymc_saem.plots.comparison import plot_comparison
from pymc_saem.plots.convergence import plot_convergence
from pymc_saem.plots.data import plot_data
from pymc_saem.plots.fits import plot_fits
from pymc_saem.plots.observation import plot_observation_distribution
from pymc_saem.plots.predictions import plot_predictions
from pymc_saem.plots.random_effects import plot_random_effects
from pymc_saem.plots.rates import plot_rates
from pymc_saem.plots.residuals import plot_residuals
from pymc_saem.plots.vpc import plot_vpc

__all__ = [
    "plot_comparison",
    "plot_convergence",
    "plot_data",
    "plot_fits",
    "plot_observation_distribution",
    "plot_predictions",
    "plot_random_effects",
    "plot_rates",
    "plot_residuals",
    "plot_vpc",
]
