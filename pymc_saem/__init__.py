"""Nonlinear mixed-effects models in PyMC, estimated by SAEM.

Write a plain ``pm.Model`` whose random effects carry a subject dimension, and call :func:`fit_saem` inside it.

Every public name is imported on first use, so ``import pymc_saem`` compiles nothing and loads no solver.
"""

from importlib import import_module

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

__all__ = [*_SUBMODULES, *_HOMES]  # noqa: PLE0604 (they are strings)


def __getattr__(name):
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value  # the next access does not come here
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
