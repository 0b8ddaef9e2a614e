"""Differential equations inside PyMC models.

:func:`solve_ivp` turns a right-hand side written in PyTensor into a differentiable solution, one
system per subject, solved in parallel. Nothing here depends on SAEM: it serves NUTS models as well.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what _HOMES says, for editors and type checkers, which run nothing
    from .events.covariates import interpolate
    from .events.doses import Doses
    from .runtime.status import SolverStatus
    from .solve import Solution, solve_ivp

_HOMES = {
    "Doses": "events.doses",
    "Solution": "solve",
    "SolverStatus": "runtime.status",
    "interpolate": "events.covariates",
    "solve_ivp": "solve",
}

__all__ = ["Doses", "Solution", "SolverStatus", "interpolate", "solve_ivp"]

if not TYPE_CHECKING:  # a type checker that saw it would accept every name

    def __getattr__(name: str):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
