"""``solve_ivp``: a system of differential equations per subject, inside a PyTensor graph."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import pytensor.tensor as pt
from numpy.typing import ArrayLike
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from pymc_saem.arguments import check_types
from pymc_saem.ode.events.covariates import Interpolation
from pymc_saem.ode.events.doses import Doses
from pymc_saem.ode.events.plan import plan_events
from pymc_saem.ode.inputs.cautions import (
    warn_of_doubled_doses,
    warn_of_periods,
    warn_of_small_states,
)
from pymc_saem.ode.inputs.labels import aligned, read_subjects
from pymc_saem.ode.inputs.rows import Rows
from pymc_saem.ode.inputs.subjects import Subjects
from pymc_saem.ode.inputs.values import (
    as_positive,
    as_start,
    as_tensors,
    as_times,
    check_axes,
    folded,
    is_constant,
    labels_of_times,
    shapes_of,
)
from pymc_saem.ode.ops.solution_op import OdeSolution
from pymc_saem.ode.rhs.system import flat_places, trace
from pymc_saem.ode.solvers.registry import solver_named

__all__ = ["Solution", "solve_ivp"]


def solve_ivp(
    rhs: Callable[..., Mapping[str, Any]],
    y0: Mapping[str, Any],
    params: Mapping[str, Any],
    t: ArrayLike | Variable,
    subject: ArrayLike | None = None,
    *,
    t0: ArrayLike = 0.0,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    solver: str = "auto",
    max_steps: int = 4000,
    n_threads: int | None = None,
    events: pd.DataFrame | Doses | None = None,
) -> Solution:
    """Solve one initial value problem per subject, differentiably.

    Parameters
    ----------
    rhs : callable
        ``rhs(t, y, p) -> {state: derivative}`` for one subject, written with PyTensor. ``y.depot``
        is the scalar state "depot", as is ``y["depot"]``; ``p.name`` is a parameter in its own
        shape, without the subject axis. It is called once, to read its graph, so conditions are
        ``pm.math.switch`` and not ``if``.
    y0 : dict of str to number, array or tensor
        Initial values, one entry per state: a number for all subjects, or shape (n_subjects,).
    params : dict of str to number, array or tensor
        Parameters: a number for all subjects, or shape (n_subjects, ...). Random variables and
        symbolic tensors get gradients; numbers, arrays and ``pm.Data`` are constants. A covariate
        that changes with time is ``interpolate(table)``, and ``p.name(t)`` in ``rhs``.
    t : array_like or tensor, shape (rows,)
        Observation times, long format, in any order, repeats allowed; same unit as ``t0``.
    subject : array_like, shape (rows,), optional
        Whose row it is: labels, such as a column of ids, or codes 0..n_subjects-1, the place on the
        leading axis of ``y0`` and ``params``. Whole numbers that are all below n_subjects are
        codes. Labels stand on the leading axis in the order of the categories if they are
        categorical, else of the ``coords`` of the parameters in a PyMC model, else of their first
        appearance, as ``factorize`` gives it; pandas and xarray objects in ``y0``, ``params`` and
        ``t0`` that have the labels as index are matched by it. Tables name subjects as the rows do.
        None is a single system, without subject axes.
    t0 : float or array_like, shape (n_subjects,), default 0
        Time at which ``y0`` holds.
    rtol, atol : float, default 1e-6
        Relative tolerance, and absolute tolerance in units of the states. 1e-2 solves 2 to 3 times
        faster and can be enough while parameters are far from the optimum. "linear" is exact
        whatever they are; they only say when a steady state of events is reached.
    solver : {"auto", "tsit5", "cvodes", "linear", "sunode"}
        "tsit5" is an explicit Runge-Kutta method, for problems that are not stiff; "cvodes" is the
        BDF method of SUNDIALS, for stiff ones, "sunode" the same method in sunode's own solvers,
        where that package is installed. "linear" is the matrix exponential, stiff or not, for
        right-hand sides that are linear in the states with coefficients that do not change with
        time; doses, infusions and covariates of kind "constant" may change them. "auto" takes
        "linear" for such systems with up to 8 states, where it is faster (see ``solution.solver``).
        Else it finds out, for each subject at each call: it begins explicit, and when stability and
        not accuracy limits the steps, or ``max_steps`` will not do, the subject is solved by
        "cvodes" from its start. The first stiff subject waits for compilation. Gradients are
        forward sensitivities, which the tolerances control too. Only with "auto", for right-hand
        sides so wide that they are computed in loops over tensors (networks from about 100 weights
        on) and without doses, they are the discrete adjoint: the exact derivative of the numerical
        solution, at a cost that does not grow with the number of parameters.
    max_steps : int, default 4000
        Steps that one subject may take, with "auto" in each of the two methods. It bounds the time
        lost on a hopeless proposal, about 4 ms for a small network and 15 ms with "auto"; smooth
        problems take tens of steps, or hundreds at 1e-9. With events, the steps from one to the
        next. With "linear", squarings of a matrix from one time to the next, of which it never
        takes more than 40: for a rate of 1e6 per hour and 24 hours it takes 25.
    n_threads : int, optional
        Threads to share the subjects; by default all that Numba may use. Results do not depend on
        it.
    events : pandas.DataFrame or Doses, optional
        Doses, infusions, resets and steady states, one per row, with the columns that
        :class:`Doses` describes; ``Doses(table, ...)`` adds lag times and bioavailabilities. A row
        of ``t`` at the time of a dose sees the state before it.

    Returns
    -------
    Solution
        ``solution.<state>`` is a tensor over the rows, in their order. The rows of a subject that
        failed are NaN, its gradient too, and ``solution.status`` says why.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape, name or value; the message says what is expected.
        With ``solver="linear"`` also if the system is not linear with constant coefficients; the
        message says where.
    NotImplementedError
        If ``rhs`` uses an operation that has no compiled form; the message names it.
    ImportError
        If ``solver="sunode"`` and sunode is not installed; the message says how to get it.

    See Also
    --------
    pymc_saem.ode.Doses : Doses with lag times and bioavailabilities.
    pymc_saem.ode.interpolate : Covariates that change with time.
    pymc_saem.ode.SolverStatus : Why a subject has no solution.
    pymc_saem.nn.MLP : A network in the right-hand side.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_saem.ode import solve_ivp
    >>> solution = solve_ivp(
    ...     lambda t, y, p: {"drug": -p.rate * y.drug},
    ...     y0={"drug": 10.0},
    ...     params={"rate": np.array([0.1, 0.5])},
    ...     t=[1.0, 2.0, 2.0],
    ...     subject=[0, 0, 1],
    ... )
    >>> solution.drug.eval().round(3)
    array([9.048, 8.187, 3.679])
    """
    check_types("ode.solve_ivp", locals())
    chosen = solver_named(solver)
    chosen.check_installed()
    _check_numbers(rtol, atol, max_steps, n_threads)
    covariates = (
        {n: v for n, v in params.items() if isinstance(v, Interpolation)}
        if isinstance(params, dict)
        else {}
    )
    fixed = {n: v for n, v in params.items() if n not in covariates} if covariates else params
    raw = {"y0": y0, "params": fixed}
    y0, params = as_tensors(y0, "y0"), as_tensors(fixed, "params")
    _check_state_names(y0)
    times, known = as_times(t)
    shapes = shapes_of(
        {("y0", n): v for n, v in y0.items()} | {("params", n): v for n, v in params.items()}
    )
    n_rows = known.size if known is not None else times.type.shape[0]
    codes, subjects = _subjects(subject, n_rows, shapes, raw)
    subjects = subjects.with_rows(codes, known, getattr(t, "index", None))
    n_subjects = subjects.n
    y0, params = (as_tensors(aligned(v, subjects), k) for k, v in raw.items())
    rows = Rows(codes, as_start(aligned({"t0": t0}, subjects)["t0"], subjects, codes, known))
    _check_y0(shapes, subject is not None, n_subjects)

    skip = 1 if subject is not None else 0
    plan, subjects = plan_events(
        events, covariates, list(y0), subjects, rows.t0, subject is not None
    )
    if plan is not None:
        chosen.check_events()
        rhs, hidden = plan.right_hand_side(rhs), {n: pt.constant(v) for n, v in plan.hidden.items()}
        params |= hidden if skip else {n: v[0] for n, v in hidden.items()}
        shapes |= {("params", n): v.shape if skip else v.shape[1:] for n, v in plan.hidden.items()}
    constant = {name for name, v in params.items() if is_constant(v)}
    of_subject = {n: shapes["params", n][skip:] for n in params}
    system = trace(rhs, list(y0), of_subject, constant, {} if plan is None else plan.changing)
    chosen.check_system(system)
    chosen = chosen.for_system(system)
    doses = [] if plan is None else plan.rows
    warn_of_doubled_doses(y0, doses, subjects, rows.t0)
    warn_of_periods(doses, subjects)
    if not chosen.is_exact:
        warn_of_small_states(y0, doses, n_subjects, rtol, atol)
    table = None if plan is None else plan.table(of_subject, flat_places(of_subject, constant))
    y0_index = [i for i, v in enumerate(y0.values()) if not is_constant(v)]
    values = [*y0.values(), *params.values()]
    x = _columns([v for v in values if not is_constant(v)], n_subjects, skip)
    c = _columns([v for v in values if is_constant(v)], n_subjects, skip)
    op = OdeSolution(system, rows, y0_index, chosen.name, rtol, atol, max_steps, n_threads, table)
    solution = Solution(op, times, x, folded(c), subjects)
    solution._values.tag.times = labels_of_times(t)  # for figures
    return solution


class Solution:
    """Solution of a system at the rows it was asked for.

    Attributes
    ----------
    <state> : TensorVariable, shape (rows,)
        One attribute per state, also as ``solution["state"]``; units of the state.
    status : TensorVariable of int, shape (n_subjects,)
        ``SolverStatus`` of each subject; 0 is success.
    solver : str
        The solver; "linear" where "auto" has chosen it.

    See Also
    --------
    pymc_saem.ode.solve_ivp : Makes it.
    pymc_saem.ode.SolverStatus : The codes in ``status``.

    Examples
    --------
    >>> from pymc_saem.ode import solve_ivp
    >>> solution = solve_ivp(lambda t, y, p: {"drug": -0.1 * y.drug}, {"drug": 10.0}, {}, t=[1.0, 2.0])
    >>> solution
    <Solution of 'drug': 2 rows, 1 subject, solver 'linear'>
    >>> solution.drug.eval().round(3)
    array([9.048, 8.187])
    >>> solution.at([4.0]).drug.eval().round(3)
    array([6.703])
    >>> solution.status.eval()
    array([0])
    """

    def __init__(
        self, op: OdeSolution, t: Variable, x: Variable, c: Variable, subjects: Subjects
    ) -> None:
        self._op, self._inputs, self._subjects = op, (t, x, c), subjects
        self._values, self.status = map(pt.as_tensor_variable, op.make_node(t, x, c).outputs)

    @property
    def solver(self) -> str:
        """The solver; "linear" where "auto" has chosen it."""
        return self._op.solver

    def __repr__(self) -> str:
        rows, subjects = (
            _counted(self._op.rows.n_rows, "row"),
            _counted(self._op.n_subjects, "subject"),
        )
        states = ", ".join(map(repr, self._op.state_names))
        return f"<Solution of {states}: {rows}, {subjects}, solver {self.solver!r}>"

    def _repr_html_(self) -> str:
        facts = {
            "states": ", ".join(self._op.state_names),
            "rows": self._op.rows.n_rows,
            "subjects": self._op.n_subjects,
            "solver": self.solver,
        }
        lines = (f"<tr><th>{k}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
        return f"<p>Solution of differential equations</p><table>{''.join(lines)}</table>"

    def __getitem__(self, state: str) -> TensorVariable:
        return self._values[:, self._op.state_names.index(state)]

    def __getattr__(self, name: str) -> TensorVariable:
        if name.startswith("_") or name not in self._op.state_names:
            raise AttributeError(
                f"solution has no state {name!r}; its states are {', '.join(self._op.state_names)}."
            )
        return self[name]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._op.state_names})

    def at(
        self,
        t: ArrayLike | Variable,
        subject: ArrayLike | None = None,
        *,
        rtol: float | None = None,
        atol: float | None = None,
        max_steps: int | None = None,
    ) -> Solution:
        """Solve for the same subjects, initial values and parameters at other rows, as for a smooth curve.

        Parameters
        ----------
        t : array_like or tensor, shape (rows,)
            Times of the other rows.
        subject : array_like, shape (rows,), optional
            Labels if the rows of this solution had labels, else codes. Not needed for a single
            system.
        rtol, atol : float, optional
            Other tolerances; those of this solution by default.
        max_steps : int, optional
            Another limit, as tight tolerances may need; that of this solution by default.

        Returns
        -------
        Solution
            At the other rows.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, shape or value; the message says what is expected.
        """
        op = self._op
        times, known = as_times(t)
        n_rows = known.size if known is not None else times.type.shape[0]
        if subject is None and op.n_subjects > 1:
            raise ValueError(
                f"subject must say which of the {op.n_subjects} subjects each row belongs to."
            )
        codes = (
            _zeros(n_rows) if subject is None else self._subjects.places_of_rows(subject, n_rows)
        )
        as_start(op.rows.t0, self._subjects, codes, known)  # refuses rows before the start
        state = op.with_rows(codes).__getstate__()
        state["rtol"] = as_positive(op.rtol if rtol is None else rtol, "rtol")
        state["atol"] = as_positive(op.atol if atol is None else atol, "atol")
        if max_steps is not None:
            state["max_steps"] = as_positive(max_steps, "max_steps", numbers.Integral)
        return Solution(OdeSolution(**state), times, *self._inputs[1:], self._subjects)


_TAKEN = ("at", "solver", "status")


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _check_numbers(rtol: float, atol: float, max_steps: int, n_threads: int | None) -> None:
    as_positive(rtol, "rtol")
    as_positive(atol, "atol")
    as_positive(max_steps, "max_steps", numbers.Integral)
    if n_threads is not None:
        as_positive(n_threads, "n_threads", numbers.Integral)


def _check_state_names(y0: Mapping[str, Any]) -> None:
    if not y0:
        raise ValueError("y0 must name at least one state, for example y0={'center': 0.0}.")
    for name in y0:
        if name in _TAKEN or name.startswith("_"):
            raise ValueError(f"y0 has a state called {name!r}, which is taken; rename it.")


def _check_y0(
    shapes: Mapping[tuple[str, str], tuple[int, ...]], has_subject: bool, n_subjects: int
) -> None:
    allowed = (
        f"a number or shape ({n_subjects},), one value per subject" if has_subject else "a number"
    )
    for (kind, name), shape in shapes.items():
        if kind == "y0" and shape not in (((), (n_subjects,)) if has_subject else ((),)):
            raise ValueError(f"y0[{name!r}] must be {allowed}; got shape {shape}.")


def _zeros(n_rows: int | None) -> np.ndarray:
    if n_rows is None:
        raise ValueError(
            "The number of rows of t must be known: give subject, or t a static shape."
        )
    return np.zeros(n_rows, dtype=np.int64)


def _subjects(
    subject: ArrayLike | None,
    n_rows: int | None,
    shapes: Mapping[tuple[str, str], tuple[int, ...]],
    values: Mapping[str, Mapping[str, Any]],
) -> tuple[np.ndarray, Subjects]:
    """Codes of the rows, and the subjects."""
    if subject is None:
        return _zeros(n_rows), Subjects(1)
    codes, subjects = read_subjects(
        subject, n_rows, shapes, [v for entries in values.values() for v in entries.values()]
    )
    check_axes(shapes, subjects.n)
    return codes, subjects


def _columns(tensors: Sequence[TensorVariable], n_subjects: int, skip: int) -> TensorVariable:
    """Matrix (n_subjects, total) with the values of each subject in one row."""
    columns = [pt.zeros((n_subjects, 0))]
    for v in tensors:
        if v.type.ndim == 0:
            v = pt.zeros((n_subjects, 1)) + v
        columns.append(v.reshape((n_subjects, -1)))
    return pt.concatenate(columns[1:], axis=1) if len(columns) > 1 else columns[0]
