"""How a solve can end, and what to do about it."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["SolverStatus"]


class SolverStatus(IntEnum):
    """Result of solving one subject; ``SUCCESS`` is 0, everything else is a failure.

    The rows of a failed subject are NaN. The text of a code says what to do.

    See Also
    --------
    pymc_saem.ode.Solution : Has the status of each subject.

    Examples
    --------
    >>> from pymc_saem.ode import SolverStatus
    >>> SolverStatus(1).name
    'MAX_STEPS'
    >>> print(SolverStatus.MAX_STEPS.advice)
    The step limit was reached before the last time: the system is stiff or ...
    """

    SUCCESS = 0
    MAX_STEPS = 1
    STEP_TOO_SMALL = 2
    NON_FINITE = 3
    BAD_TIMES = 4
    SOLVER_FAILURE = 5
    BAD_EVENT = 6
    NO_STEADY_STATE = 7
    STIFF = 8

    @property
    def advice(self) -> str:
        """What happened and what to do."""
        return _ADVICE[self]

    @property
    def gradient_advice(self) -> str:
        """The same where a gradient failed, which takes more steps than the solution."""
        more = " Gradients take more steps than solutions." if self in _OF_STEPS else ""
        return self.advice + more


_ADVICE = {
    SolverStatus.SUCCESS: "The subject was solved to the requested tolerance.",
    SolverStatus.MAX_STEPS: (
        "The step limit was reached before the last time: the system is stiff or the rates are "
        "huge at these parameters. Use solver='auto' or 'cvodes' for stiff systems (auto has tried "
        "both methods), raise max_steps, or start from smaller rates."
    ),
    SolverStatus.STEP_TOO_SMALL: (
        "The step size fell to the resolution of the time axis: the solution diverges at these parameters, or the "
        "right-hand side has a jump. Keep the parameters where the solution exists, or smooth the right-hand side."
    ),
    SolverStatus.NON_FINITE: (
        "The right-hand side gave NaN or infinity. Keep states and rates in their domain (for "
        "example softplus for rates, no log or square root of a state that may become negative), "
        "and check y0 and params for NaN."
    ),
    SolverStatus.BAD_TIMES: (
        "A time of this subject is not finite or lies before t0. Correct the times, or set t0 to "
        "the time at which y0 holds."
    ),
    SolverStatus.SOLVER_FAILURE: (
        "The solver library failed on this subject (repeated error test or convergence "
        "failures). Try the other solver, tighter tolerances, or parameters nearer to the data."
    ),
    SolverStatus.BAD_EVENT: (
        "A lag time or the duration of an infusion is negative or not finite, or the duration is 0. Keep these parameters "
        "positive, for example by a LogNormal distribution."
    ),
    SolverStatus.NO_STEADY_STATE: (
        "The states still changed after 2000 intervals between doses, or with an infusion that never ends: the system "
        "accumulates for very long or without limit at these parameters. Give the doses one by one instead of ss=1, or loosen rtol."
    ),
    SolverStatus.STIFF: (
        "The system is stiff at these parameters, and the implicit solver that solver='auto' turns "
        "to is missing: it needs SUNDIALS, which `pip install scikit-sundae` brings."
    ),
}

# How a gradient can fail although the solution succeeded.
_OF_STEPS = (
    SolverStatus.MAX_STEPS,
    SolverStatus.STEP_TOO_SMALL,
    SolverStatus.SOLVER_FAILURE,
    SolverStatus.STIFF,
)

# For compiled code, which takes plain numbers from another file.
RUNNING = -1  # neither solved nor failed yet
(
    SUCCESS,
    MAX_STEPS,
    STEP_TOO_SMALL,
    NON_FINITE,
    BAD_TIMES,
    SOLVER_FAILURE,
    BAD_EVENT,
    NO_STEADY_STATE,
    STIFF,
) = map(int, SolverStatus)
