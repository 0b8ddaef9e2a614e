"""The graph of a model's predictions, compiled as a function of samples and times.

A graph is tied to its rows: covariates, subject indices and ODE solutions have one entry per row.
So the rows stay what they are, and only their times become an input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from numpy.typing import ArrayLike
from pymc.distributions.censored import CensoredRV
from pymc.distributions.continuous import TruncatedNormalRV
from pymc.distributions.moments import mean
from pymc.distributions.truncated import TruncatedRV
from pymc.exceptions import UndefinedMomentException
from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.replace import clone_replace, vectorize_graph
from pytensor.graph.traversal import ancestors, io_toposort
from pytensor.graph.utils import MissingInputError
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.random.basic import CategoricalRV, LogNormalRV
from pytensor.tensor.type import TensorType
from pytensor.tensor.variable import TensorVariable

from pymc_saem.arguments import shown
from pymc_saem.evaluate.fitted_outcome import FittedOutcome
from pymc_saem.model.graph.rebuild import for_numpy, rebuild
from pymc_saem.model.outcomes import data_value

#: A figure runs its graph a few dozen times: interpreting it costs less than compiling machine
#: code. Rewrites would make it slower, because they join products and sums of two arrays, which
#: NumPy computes whole, into operations that are interpreted entry by entry.
INTERPRETED = Mode(linker="py", optimizer="merge")
#: Tolerances of a fit may be coarse, and a coarse solution draws a saw-tooth.
TIGHT = 1e-8


def location(rv: TensorVariable) -> TensorVariable:
    """Graph of the centre of an outcome in units of the data.

    The median of a LogNormal, the expected number of a category, else the mean; of a censored or
    truncated outcome that of the distribution before it was cut off.

    Raises
    ------
    NotImplementedError
        When the distribution has no mean, or PyMC does not know it.
    """
    op, inputs = rv.owner.op, rv.owner.inputs
    if isinstance(op, LogNormalRV):
        return pt.exp(op.dist_params(rv.owner)[0])
    if isinstance(op, CensoredRV):
        return location(inputs[0])
    if isinstance(op, TruncatedRV):
        return location(op.base_rv_op.make_node(*inputs[:-2]).default_output())
    if isinstance(op, TruncatedNormalRV):
        return op.dist_params(rv.owner)[0]
    if isinstance(op, CategoricalRV):
        p = pt.as_tensor_variable(op.dist_params(rv.owner)[0])
        return (p * pt.arange(p.shape[-1])).sum(axis=-1)
    try:
        return mean(rv)
    except (NotImplementedError, UndefinedMomentException) as error:
        raise NotImplementedError(
            f"PyMC has no mean for outcome '{rv.name}' ({rv.owner.op}), so no curve."
        ) from error


def before_censoring(rv: TensorVariable) -> TensorVariable:
    """The random variable that a ``Censored`` one cuts off; any other one is itself."""
    return rv.owner.inputs[0] if isinstance(rv.owner.op, CensoredRV) else rv


def as_row_times(x: ArrayLike, outcome: FittedOutcome) -> np.ndarray:
    """The argument ``x`` of the figures as one number per row, shape (row,).

    Raises
    ------
    ValueError
        When it is not numeric and finite, or has another shape than the outcome.
    """
    return times_of_rows(x, outcome.name, outcome.shape, outcome.places, outcome.n_all)


def times_of_rows(
    x: ArrayLike,
    name: str,
    shape: tuple[int, ...],
    places: np.ndarray | None = None,
    n_all: int | None = None,
) -> np.ndarray:
    """:func:`as_row_times` for an outcome of this name and shape, whose rows have these places among ``n_all``."""
    try:
        values = np.asarray(x, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"x must hold numbers, got {shown(x)}.") from error
    if values.size == math.prod(shape):
        values = values.ravel()
    elif places is not None and values.size == n_all:
        values = values.ravel()[places]
    elif values.shape == shape[-1:]:  # times that all subjects share, in an outcome of two axes
        values = np.broadcast_to(values, shape).ravel()
    else:
        raise ValueError(
            f"x must hold one number per row of '{name}', shape {shape}; got shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"x must be finite; row {int(np.flatnonzero(~np.isfinite(values))[0])} is not."
        )
    return values


class RowFunction:
    """Graphs of an outcome evaluated at all its rows, for every sample at once, at times of choice.

    Parameters
    ----------
    model : pymc.Model
    graphs : list of TensorVariable
        Each broadcasts to the shape of the outcome.
    outcome : FittedOutcome
    samples : dict of str to ndarray, shape (sample, ...)
        Values of the free variables.
    x : ndarray, shape (row,), optional
        Time of each row. Needed where no ODE solution provides it.

    Attributes
    ----------
    x : ndarray, shape (row,), or None
        Time of each row.
    course : ndarray of int, shape (row,)
        Which rows lie on one curve, as far as ODE solutions show: those of a subject, or of one of
        its occasions.
    t0 : ndarray, shape (row,), or None
        Where the ODE solution of each row begins.
    has_ode : bool
    is_aligned : bool
        Whether every ODE solution has the rows of the outcome, so that rows may have any times. If
        not, all rows of a subject must be given one time.
    has_other_units : bool
        Whether an ODE solution of other rows has other units than subjects, whose times are
        unknown.
    knows_time : bool
        Whether times reach the graphs at all.

    Raises
    ------
    ValueError
        When ``x`` contradicts the ODE solution, or is needed and not given.
    """

    def __init__(
        self,
        model: pm.Model,
        graphs: Sequence[Variable],
        outcome: FittedOutcome,
        samples: Mapping[str, np.ndarray],
        x: ArrayLike | None = None,
    ) -> None:
        self.outcome = outcome
        self.n_samples = len(next(iter(samples.values())))
        free = {rv: rv.type(rv.name) for rv in model.free_RVs}
        graphs = clone_replace(list(graphs), replace=free)
        nodes = ode_nodes(graphs)
        self.has_ode = bool(nodes)
        self.x = _times_of_rows(nodes, outcome, x)
        others = [node for node in nodes if not self._has_rows(node)]
        self._others = [(_times_of(node), node.op.subject, node.op.rows.t0) for node in others]
        self.is_aligned = not others
        self.has_other_units = any(
            node.op.rows.n_subjects != outcome.subjects.size for node in others
        )
        units = [outcome.row_subject] + [node.op.subject for node in nodes if self.is_aligned]
        self.course = np.unique(np.column_stack(units), axis=0, return_inverse=True)[1].ravel()
        self.t0: np.ndarray | None = None
        if nodes and not self.has_other_units:
            of_rows = [outcome.row_subject if node in others else node.op.subject for node in nodes]
            self.t0 = np.max(
                [node.op.rows.t0[rows] for node, rows in zip(nodes, of_rows, strict=True)], axis=0
            )
        graphs, times = self._open_times(graphs)
        self.knows_time = bool(set(ancestors(graphs)) & set(times))
        self._compile(graphs, free, samples, times)

    def _has_rows(self, node: Apply) -> bool:
        times = constant_value(node.inputs[0])
        if times is None or self.x is None:
            return False
        return are_of_rows(node.op.subject, self.outcome.row_subject) and np.array_equal(
            times, self.x
        )

    @property
    def times(self) -> np.ndarray:
        """Time of each row, (row,).

        Raises
        ------
        ValueError
            When it is not known.
        """
        if self.x is None:
            raise ValueError(
                f"The times of outcome '{self.outcome.name}' are unknown; give one per row as x=."
            )
        return self.x

    def _open_times(
        self, graphs: Sequence[Variable]
    ) -> tuple[Sequence[Variable], list[TensorVariable]]:
        """Put inputs in the place of all times; the first input has one time per row."""
        t = pt.tensor("t", dtype="float64", shape=(self.outcome.row_subject.size,))
        times = [t]
        for k in range(len(ode_nodes(graphs))):
            node = ode_nodes(graphs)[k]  # again, because a replacement copies what lies below it
            if self._has_rows(node):
                node_t = t
            else:
                node_t = pt.tensor(dtype="float64", shape=(node.op.subject.size,))
                times.append(node_t)
            tight = node.op.with_tolerances(TIGHT, TIGHT).make_node(node_t, *node.inputs[1:])
            graphs = clone_replace(
                graphs, replace=dict(zip(node.outputs, tight.outputs, strict=True))
            )
        if self.x is not None:
            whole = self.outcome.shape
            same = {
                v: t.reshape(whole if is_shared else data_value(v).shape)
                for v, is_shared in _data_equal_to(graphs, self.x, whole).items()
            }
            # not strict: whole numbers become real ones
            graphs = clone_replace(graphs, replace=same, rebuild_strict=False) if same else graphs
        return graphs, times

    def _compile(
        self,
        graphs: Sequence[Variable],
        free: Mapping[Variable, Variable],
        samples: Mapping[str, np.ndarray],
        times: list[TensorVariable],
    ) -> None:
        reached = set(ancestors(graphs))
        used = {str(rv.name): v for rv, v in free.items() if v in reached}
        batched = {v: v.type.clone(shape=(None, *v.type.shape))(n) for n, v in used.items()}
        graphs = vectorize_graph(graphs, batched) if batched else graphs
        graphs = rebuild(graphs, {}, replace=for_numpy)
        inputs = [*batched.values(), *times]
        self._function = pytensor.function(
            inputs, graphs, mode=INTERPRETED, on_unused_input="ignore"
        )
        self._samples = [np.asarray(samples[n], dtype=v.type.dtype) for n, v in used.items()]

    def at_rows(self) -> list[np.ndarray]:
        """The graphs at the times of the data, each (sample, row)."""
        x = np.zeros(self.outcome.row_subject.size) if self.x is None else self.x
        return self._evaluate(x, [times for times, _, _ in self._others])

    def at_row_times(self, times: np.ndarray) -> list[np.ndarray]:
        """The graphs at any times of the rows, each (sample, row); only when ``is_aligned``."""
        return self._evaluate(times, [])

    def at_subject_times(self, times: np.ndarray) -> list[np.ndarray]:
        """The graphs with all rows of a subject at one time, ``times`` (subject,), or where it begins if that is later.

        Each (sample, row).
        """
        of_rows = times[self.outcome.row_subject]
        of_rows = of_rows if self.t0 is None else np.maximum(of_rows, self.t0)
        return self._evaluate(
            of_rows, [np.maximum(times[of], t0[of]) for _, of, t0 in self._others]
        )

    def _evaluate(self, row_times: np.ndarray, node_times: list[np.ndarray]) -> list[np.ndarray]:
        values = self._function(*self._samples, row_times, *node_times)
        whole = (self.n_samples, *self.outcome.shape)
        return [np.broadcast_to(v, whole).reshape(self.n_samples, -1) for v in values]


def ode_nodes(graphs: Sequence[Variable]) -> list[Apply]:
    """Nodes of ODE solutions under the graphs, in the order of evaluation."""
    return [node for node in io_toposort([], graphs) if getattr(node.op, "is_ode_solution", False)]


def are_of_rows(units: np.ndarray, row_subject: np.ndarray) -> bool:
    """Whether units of an ODE solution, (its row,), are one per row of an outcome: each within one subject, or one for all."""
    if units.size != row_subject.size:
        return False
    n_units = np.unique(units).size
    return n_units == 1 or len(np.unique(np.column_stack([units, row_subject]), axis=0)) == n_units


def constant_value(variable: Variable) -> np.ndarray | None:
    """What a variable that depends on data alone holds; None when it depends on more."""
    try:
        return data_value(variable)
    except MissingInputError:
        return None


def _times_of(node: Apply) -> np.ndarray:
    """Times of an ODE solution."""
    times = constant_value(node.inputs[0])
    if times is None:
        raise ValueError(
            "The times of an ODE solution depend on random variables; such curves cannot be drawn."
        )
    return times


def _times_of_rows(
    nodes: list[Apply], outcome: FittedOutcome, x: ArrayLike | None
) -> np.ndarray | None:
    """Time of each row, from the ODE solutions and the user."""
    known = []
    for node in nodes:
        times = _times_of(node)
        if are_of_rows(node.op.subject, outcome.row_subject):
            known.append(times)
    found = None if x is None else as_row_times(x, outcome)
    if found is None and nodes and not known:
        raise ValueError(
            f"The ODE solution has other rows than outcome '{outcome.name}'; give the time of each of its rows as x=."
        )
    for times in known:
        if found is not None and not np.array_equal(times, found):
            row = int(np.flatnonzero(times != found)[0])
            raise ValueError(
                f"x is {found[row]:g} in row {row}, but an ODE solution has this row at {times[row]:g}: "
                "x must be the time given to solve_ivp, in the same unit."
            )
        found = times
    return found


def _data_equal_to(
    graphs: Sequence[Variable], x: np.ndarray, shape: tuple[int, ...]
) -> dict[Variable, bool]:
    """Data that are the times, and whether subjects share them; an index of the same numbers is left alone.

    Times that all subjects of an outcome of two axes share are found where they have been given its
    axes, because before that it is not known which axis they are.
    """
    found, indices = {}, set()
    for node in io_toposort([], graphs):
        for v in node.inputs:
            if not (
                _is_data(v)
                or (v.owner and isinstance(v.owner.op, DimShuffle) and _is_data(v.owner.inputs[0]))
            ):
                continue
            is_index = "Subtensor" in type(node.op).__name__ and v.type.dtype.startswith(
                ("int", "uint")
            )
            value = data_value(v)
            is_shared = value.shape != shape and value.shape == (1,) * (len(shape) - 1) + shape[-1:]
            if is_shared:
                value = np.broadcast_to(value, shape)
            if value.shape in (shape, x.shape) and np.array_equal(value.ravel(), x):
                if is_index:
                    indices.add(v)
                else:
                    found[v] = is_shared
    return {v: is_shared for v, is_shared in found.items() if v not in indices}


def _is_data(v: Variable) -> bool:
    return (
        isinstance(v, Constant | SharedVariable)
        and isinstance(v.type, TensorType)
        and v.type.ndim > 0
    )
