"""Nonlinear mixed-effects models in PyMC, estimated by SAEM.

Write a plain ``pm.Model`` whose random effects carry a subject dimension, and call :func:`fit_saem`
inside it.

Every public name is imported on first use, so ``import pymc_saem`` compiles nothing and loads no
solver.

Examples in docstrings call the package ``ps`` and use names of the documentation: ``data``,
``model`` and ``idata`` of "A first fit", ``build`` of "Predict and simulate", ``network_model`` and
``network_fit`` for a model with a network and its fit.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what _HOMES says, for editors and type checkers, which run nothing
    from . import datasets, nn, ode
    from .diagnose import residuals, vpc
    from .evaluate import random_effects, rates
    from .plots import (
        plot_comparison,
        plot_convergence,
        plot_data,
        plot_fits,
        plot_observation_distribution,
        plot_predictions,
        plot_random_effects,
        plot_rates,
        plot_residuals,
        plot_vpc,
    )
    from .prediction import predict, simulate
    from .refit import bootstrap, check_restart, cross_validate, profile_likelihood, rank_chains
    from .results import compare, correlation, diagnostics, individuals, load, save, summary
    from .saem import SAEM, Checkpoint, fit_saem, summarize

__version__ = "0.1.0"

_SUBMODULES = ("datasets", "nn", "ode")
_HOMES = {
    "Checkpoint": "saem",
    "SAEM": "saem",
    "fit_saem": "saem",
    "summarize": "saem",
    "compare": "results",
    "correlation": "results",
    "diagnostics": "results",
    "individuals": "results",
    "load": "results",
    "save": "results",
    "summary": "results",
    "predict": "prediction",
    "simulate": "prediction",
    "bootstrap": "refit",
    "check_restart": "refit",
    "cross_validate": "refit",
    "profile_likelihood": "refit",
    "rank_chains": "refit",
    "residuals": "diagnose",
    "vpc": "diagnose",
    "random_effects": "evaluate",
    "rates": "evaluate",
    "plot_comparison": "plots",
    "plot_convergence": "plots",
    "plot_data": "plots",
    "plot_fits": "plots",
    "plot_observation_distribution": "plots",
    "plot_predictions": "plots",
    "plot_random_effects": "plots",
    "plot_rates": "plots",
    "plot_residuals": "plots",
    "plot_vpc": "plots",
}

# In full: a strict type checker reads it, and accepts no name that is put together.
__all__ = [
    "datasets",
    "nn",
    "ode",
    "Checkpoint",
    "SAEM",
    "fit_saem",
    "summarize",
    "compare",
    "correlation",
    "diagnostics",
    "individuals",
    "load",
    "save",
    "summary",
    "predict",
    "simulate",
    "bootstrap",
    "check_restart",
    "cross_validate",
    "profile_likelihood",
    "rank_chains",
    "residuals",
    "vpc",
    "random_effects",
    "rates",
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

if not TYPE_CHECKING:  # a type checker that saw it would accept every name

    def __getattr__(name: str):
        if name in _SUBMODULES:
            return import_module(f"{__name__}.{name}")
        if name in _HOMES:
            value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
            globals()[name] = value  # the next access does not come here
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
