"""Which solvers there are, and what the rest of ``ode`` must know about each before it runs.

The only place that knows the solvers by name: everything else asks a descriptor. A solver's module
is imported when it is first needed, because most models never need most of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType, ModuleType

from pymc_saem.arguments import shown
from pymc_saem.ode.rhs.right_hand_side import OdeSystem

__all__ = ["SOLVERS", "Solver", "solver_named"]

# Up to this number of states, the exponential is faster than an explicit solve
# (benchmarks/linear.py).
_FEW_STATES = 8


@dataclass(frozen=True)
class Solver:
    """What is asked of a solver before it runs.

    Attributes
    ----------
    name : str
        As users write it.
    module : str
        Its file in this folder, with ``task(gradient)``: compiled code that serves every system by
        address.
    instead_of_events : str or None
        What to use for events and covariates that change with time, if it does not support them.
    one_solve : bool
        Whether the solve that gives the solution can give the derivatives of all rows too, by
        forward sensitivities that leave its steps alone. Otherwise, a gradient is a solve with
        sensitivities.
    adjoint : str or None
        File with the ``task()`` of its discrete adjoint, which gives the gradients of wide systems
        without events.
    needs_jacobian : bool
        Whether a solution needs the Jacobian; a gradient always does.
    hands_over : bool
        Whether stiff subjects go to another solver: ``cell(system, gradient)`` leads to it, and to
        the Jacobian.
    has_memory : bool
        Whether it keeps workspace between solves: ``memory(compiled, gradient, n_dy0)``, whose
        ``cells`` lead to the right-hand side.
    has_requirements : bool
        Whether ``require()`` refuses an installation without the package that it needs.
    only_linear : bool
        Whether it solves linear systems with constant coefficients only.
    is_exact : bool
        Whether its solution does not depend on the tolerances.
    of_few_linear : str or None
        The solver that takes its place for linear systems with few states.
    """

    name: str
    module: str
    instead_of_events: str | None = None
    one_solve: bool = False
    adjoint: str | None = None
    needs_jacobian: bool = False
    hands_over: bool = False
    has_memory: bool = False
    has_requirements: bool = False
    only_linear: bool = False
    is_exact: bool = False
    of_few_linear: str | None = None

    def load(self) -> ModuleType:
        """The module."""
        return _module(self.module)

    def load_adjoint(self, system: OdeSystem, has_events: bool) -> ModuleType | None:
        """The module of the adjoint, if gradients of this system come from it."""
        return (
            None
            if self.adjoint is None or has_events or not system.vjp_source
            else _module(self.adjoint)
        )

    def gives_derivatives(self, system: OdeSystem, has_events: bool) -> bool:
        """Whether one solve gives the solution and its derivatives; not where gradients come from the adjoint."""
        return (
            self.one_solve
            and not has_events
            and not (self.adjoint is not None and system.vjp_source)
        )

    def for_system(self, system: OdeSystem) -> Solver:
        """The solver to use for a system: this one, or the one that takes its place."""
        if self.of_few_linear is None or system.not_linear or system.n_states > _FEW_STATES:
            return self
        return SOLVERS[self.of_few_linear]

    def check_installed(self) -> None:
        """Refuse an installation that lacks what the solver needs."""
        if self.has_requirements:
            self.load().require()

    def check_events(self) -> None:
        """Refuse events and covariates that change with time."""
        if self.instead_of_events is not None:
            raise NotImplementedError(
                f"solver={self.name!r} does not support events or interpolated covariates; use {self.instead_of_events}."
            )

    def check_system(self, system: OdeSystem) -> None:
        """Refuse systems that it cannot solve."""
        if self.only_linear and system.not_linear:
            raise ValueError(
                f"solver={self.name!r} needs derivatives that are linear in the states, with coefficients that do not change with "
                f"time; {system.not_linear}. Use solver={_DEFAULT!r}."
            )


_ALL = (
    Solver(
        "auto", "auto", one_solve=True, adjoint="adjoint", hands_over=True, of_few_linear="linear"
    ),
    Solver("tsit5", "lanes", one_solve=True),
    Solver("cvodes", "cvodes", needs_jacobian=True),
    Solver("linear", "matrix_exponential", one_solve=True, only_linear=True, is_exact=True),
    Solver(
        "sunode",
        "sunode",
        instead_of_events="'tsit5', or 'cvodes' for stiff systems",
        has_memory=True,
        has_requirements=True,
    ),
)
_DEFAULT = _ALL[0].name
SOLVERS: Mapping[str, Solver] = MappingProxyType({solver.name: solver for solver in _ALL})


def solver_named(name: str) -> Solver:
    """The solver that a user asks for."""
    if name not in SOLVERS:
        raise ValueError(
            f"Unknown solver {shown(name)}; choose one of {', '.join(map(repr, SOLVERS))}."
        )
    return SOLVERS[name]


def _module(name: str) -> ModuleType:
    return import_module(f"{__package__}.{name}")
