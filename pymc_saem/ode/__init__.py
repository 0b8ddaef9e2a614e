"""Differential equations inside PyMC models.

:func:`solve_ivp` turns a right-hand side written in PyTensor into a differentiable solution, one
system per subject, solved in parallel. Nothing here depends on SAEM: it serves NUTS models as well.
"""

from importlib import import_module

_HOMES = {
    "Doses": "events.doses",
    "Solution": "solve",
    "SolverStatus": "runtime.status",
    "interpolate": "events.covariates",
    "solve_ivp": "solve",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
