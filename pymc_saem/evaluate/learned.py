"""The networks of a fitted model with numbers: weights of every subject, and where along its input each was used."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pymc as pm
import pytensor
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.compat import InferenceData, observed_variables
from pymc_saem.evaluate.fitted_outcome import MODE_SAMPLE, read_outcome
from pymc_saem.evaluate.networks import (
    Call,
    components,
    elementwise,
    find_calls,
    over_batch,
    reached,
    text,
)
from pymc_saem.evaluate.row_function import INTERPRETED, TIGHT, constant_value, ode_nodes
from pymc_saem.results.fit import Fit

if TYPE_CHECKING:
    from pymc_saem.ode.rhs.right_hand_side import RightHandSide

#: Points of each subject's trajectory at which the input of a network is looked at.
_N_POINTS = 200


@dataclass(frozen=True)
class Axis:
    """What the output of a network is drawn along.

    Attributes
    ----------
    component : int
        Which input of the network it runs through.
    variable, text : str
        The name of the axis, and how the input is written: "t" and "t / 24".
    to_input : callable
        From values on the axis to the input.
    used : ndarray, shape (subject, point)
        Values along the fitted trajectory of each subject, NaN where there are none.
    at_rows : ndarray, shape (row,)
        Values at the rows of the data.
    """

    component: int
    variable: str
    text: str
    to_input: Callable = field(repr=False)
    used: np.ndarray = field(repr=False)
    at_rows: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Learned:
    """One output of a network, its weights, and its axes.

    Attributes
    ----------
    name : str
        Of its weights: "w_a1".
    call : Call
    subjects : ndarray, shape (subject,)
        Labels.
    weights : ndarray, shape (sample, subject, n_weights)
    inputs : ndarray, shape (sample, subject, in_size)
        What each input is held at while another one runs: a subject's own value, or the median of
        all that are used.
    axes : tuple of Axis
    """

    name: str
    call: Call
    subjects: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    inputs: np.ndarray = field(repr=False)
    axes: tuple[Axis, ...]

    def values(self, axis: Axis, x: np.ndarray, raw: bool = False) -> np.ndarray:
        """The rate, or the network alone, at points of an axis (point,): (sample, subject, point)."""
        net = self.call.net
        run = axis.to_input(x)
        if net.in_size > 1:
            inputs = np.repeat(self.inputs[:, :, None, :], x.size, axis=2)
            inputs[..., axis.component] = run
        else:
            inputs = run
        out = np.asarray(net(self.weights[:, :, None, :], inputs))
        out = out if net.out_size == 1 else out[..., self.call.output]
        return out if raw else self.call.rate(out)


def find_learned(
    model: pm.Model,
    idata: InferenceData,
    samples: Mapping[str, np.ndarray],
    along: str = "variable",
) -> list[Learned]:
    """All networks of a fitted model, those in differential equations first.

    Parameters
    ----------
    model : pymc.Model
    idata : arviz.InferenceData or xarray.DataTree
    samples : dict of str to ndarray, shape (sample, ...)
        As from ``sample_values``.
    along : {"variable", "input"}
        Whether axes are the time or state that an input is made of, where it is made of one, or the
        input itself.
    """
    found: list[Learned] = []
    seen: set[Hashable] = set()
    outcomes = observed_variables(model)
    for rv in outcomes:
        for node in ode_nodes([rv]):
            if node.op.system.graph is not None and node not in seen:
                seen.add(node)
                found += _in_equations(model, idata, node, samples, along)
    for rv in outcomes:
        for call in find_calls([rv]):
            if (call.x, call.weights, call.output) not in seen:
                seen.add((call.x, call.weights, call.output))
                found.append(_in_model(model, idata, rv, call, samples))
    return _with_unique_names(found)


def _with_unique_names(found: list[Learned]) -> list[Learned]:
    names = [one.name for one in found]
    out = []
    for k, one in enumerate(found):
        many = names.count(one.name) > 1
        name = f"{one.name} ({names[: k + 1].count(one.name)})" if many else one.name
        out.append(Learned(name, one.call, one.subjects, one.weights, one.inputs, one.axes))
    return out


# -- networks in a right-hand side --------------------------------------------------------------


def _in_equations(
    model: pm.Model,
    idata: InferenceData,
    node: Apply,
    samples: Mapping[str, np.ndarray],
    along: str,
) -> list[Learned]:
    graph = node.op.system.graph
    calls = [c for c in find_calls(graph.outputs) if c.weights.type.ndim == 1]
    if not calls:
        return []
    order = list(graph.params.values())
    calls.sort(
        key=lambda c: min([order.index(v) for v in reached(c.weights, order)], default=len(order))
    )
    x, c = _at_samples(model, list(node.inputs[1:]), samples)
    p = node.op.parameters(x, c)
    path = _Path.solve(
        node, x[MODE_SAMPLE], c[MODE_SAMPLE], {n: v[MODE_SAMPLE] for n, v in p.items()}
    )
    return [
        _one_in_equations(call, graph, p, path, _labels(idata, x.shape[1]), along) for call in calls
    ]


def _one_in_equations(
    call: Call,
    graph: RightHandSide,
    p: Mapping[str, np.ndarray],
    path: _Path,
    labels: np.ndarray,
    along: str,
) -> Learned:
    fixed = {n: v for n, v in p.items() if n not in graph.changing}
    symbols = [graph.params[n] for n in fixed]
    lead = next(iter(p.values())).shape[:2]
    flat = [v.reshape(-1, *v.shape[2:]) for v in fixed.values()]
    (weights,) = over_batch([call.weights], symbols)(*flat)
    moving = {graph.t: "t", **{v: n for n, v in graph.states.items()}}
    moving |= {graph.params[n]: n for n in graph.changing}
    inputs, axes = np.empty((*lead, call.net.in_size)), []
    for k, part in enumerate(components(call)):
        if reached(part, list(moving)):
            axis = _axis(k, part, moving, symbols, path, along)
            axes.append(axis)
            inputs[..., k] = np.nanmedian(axis.to_input(axis.used))
        else:
            inputs[..., k] = over_batch([part], symbols)(*flat)[0].reshape(lead)
    return Learned(
        name=_name(call, graph.params.values()),
        call=call,
        subjects=labels,
        weights=weights.reshape(*lead, -1),
        inputs=inputs,
        axes=tuple(axes),
    )


def _axis(
    k: int,
    part: Variable,
    moving: Mapping[Variable, str],
    fixed: list[Variable],
    path: _Path,
    along: str,
) -> Axis:
    leaves, written = reached(part, list(moving)), text(part, moving)
    if (
        along == "variable"
        and len(leaves) == 1
        and leaves[0] in path.known
        and not reached(part, fixed)
    ):
        (leaf,) = leaves
        used, at_rows = path.known[leaf]
        return Axis(k, moving[leaf], written, elementwise(part, leaf), used, at_rows)
    used, at_rows = path.evaluate(part)
    name = written if written != "..." else "input"
    return Axis(k, name, written, lambda values: values, used, at_rows)


class _Path:
    """The fitted trajectories of all subjects, at the conditional mode.

    ``known`` has time and states: symbol -> (values (subject, point), values at the rows of the
    data (row,)).
    """

    def __init__(
        self,
        node: Apply,
        p: Mapping[str, np.ndarray],
        known: dict[Variable, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        self.known, self.graph = known, node.op.system.graph
        self.p, self.subject = p, node.op.subject

    @classmethod
    def solve(cls, node: Apply, x: np.ndarray, c: np.ndarray, p: Mapping[str, np.ndarray]) -> _Path:
        graph, rows = node.op.system.graph, node.op.rows
        times = constant_value(node.inputs[0])
        if times is None:
            raise ValueError(
                "The times of an ODE solution depend on random variables; its networks cannot be drawn."
            )
        last = rows.t0.copy()
        np.maximum.at(last, rows.subject, times)
        t = np.linspace(rows.t0, last, _N_POINTS, axis=1)  # (subject, point)
        grid_subject = np.repeat(np.arange(rows.n_subjects), _N_POINTS)
        everything = np.concatenate([t.ravel(), times])
        op = node.op.with_tolerances(TIGHT, TIGHT).with_rows(
            np.concatenate([grid_subject, rows.subject])
        )
        states, _ = op.compute(everything, np.ascontiguousarray(x), np.ascontiguousarray(c))
        known = {}
        for v, values in zip(
            [graph.t, *graph.states.values()], [everything, *states.T], strict=True
        ):
            known[v] = values[: t.size].reshape(t.shape), values[t.size :]
        return cls(node, p, known)

    def evaluate(self, part: Variable) -> tuple[np.ndarray, np.ndarray]:
        """An expression of the right-hand side, like the entries of ``known``."""
        graph = self.graph
        f = over_batch([part], [*self.known, *graph.params.values()])
        t, t_rows = self.known[graph.t]
        subject = np.repeat(np.arange(len(t)), t.shape[1])
        on_grid = f(
            *(v.ravel() for v, _ in self.known.values()), *self._params(subject, t.ravel())
        )[0]
        at_rows = f(*(v for _, v in self.known.values()), *self._params(self.subject, t_rows))[0]
        return on_grid.reshape(t.shape), at_rows

    def _params(self, subject: np.ndarray, times: np.ndarray) -> Iterable[np.ndarray]:
        values = {n: self.p[n][subject] for n in self.graph.params}
        for name, at in self.graph.changing.items():
            now = np.empty_like(values[name])
            rank = np.zeros(subject.size, dtype=int)  # which of its subject's points each one is
            for s in np.unique(subject):
                rank[subject == s] = np.arange((subject == s).sum())
            for turn in range(rank.max() + 1):
                one_each = np.zeros(len(self.p[name]))
                mine = rank == turn
                one_each[subject[mine]] = times[mine]
                now[mine] = at(one_each)[subject[mine]].reshape(now[mine].shape)
            values[name] = now
        return values.values()


# -- networks outside of differential equations ---------------------------------------------------


def _in_model(
    model: pm.Model,
    idata: InferenceData,
    rv: TensorVariable,
    call: Call,
    samples: Mapping[str, np.ndarray],
) -> Learned:
    """A network in a formula: of each row, of each subject, or the same for all."""
    outcome = read_outcome(model, idata, rv.name)
    n_rows, n_subjects = outcome.row_subject.size, outcome.subjects.size
    parts = components(call)
    weights, *values = _at_samples(model, [call.weights, *parts], samples)
    lead = np.broadcast_shapes(weights.shape[1:-1], *(v.shape[1:] for v in values))
    weights = np.broadcast_to(weights, (len(weights), *lead, weights.shape[-1])).reshape(
        len(weights), -1, weights.shape[-1]
    )
    values = [np.broadcast_to(v, (len(v), *lead)).reshape(len(v), -1) for v in values]
    n = weights.shape[1]
    if n == n_rows:
        of = outcome.row_subject
    elif n == n_subjects:
        of = np.arange(n)
    else:  # the same network for everybody, at points that belong to nobody
        of = np.zeros(n, dtype=int)
    units = np.unique(of)
    first = np.array([np.flatnonzero(of == s)[0] for s in units])
    labels = outcome.subjects[units] if n in (n_rows, n_subjects) else np.array(["all"])
    inputs, axes = np.stack([v[:, first] for v in values], axis=-1), []
    free = _free_variables(model, [call.weights, *parts])
    for k, (part, value) in enumerate(zip(parts, values, strict=True)):
        at_mode = value[MODE_SAMPLE]
        is_own = bool(reached(part, free)) and np.array_equal(
            at_mode, at_mode[first][np.searchsorted(units, of)]
        )
        if is_own:
            continue
        used = np.full((units.size, max(int((of == s).sum()) for s in units)), np.nan)
        for place, s in enumerate(units):
            used[place, : (of == s).sum()] = at_mode[of == s]
        written = text(part)
        name = written if written != "..." else "input" + (f" {k}" if len(parts) > 1 else "")
        axes.append(Axis(k, name, written, lambda x: x, used, at_mode))
        inputs[..., k] = np.median(at_mode)
    return Learned(_name(call, free), call, labels, weights[:, first], inputs, tuple(axes))


def _name(call: Call, named: Iterable[Variable]) -> str:
    """Name of a network: of what its weights are made of."""
    names = [v.name for v in reached(call.weights, list(named)) if v.name]
    name = ", ".join(names) if names else "network"
    return name if call.net.out_size == 1 else f"{name}[{call.output}]"


def _labels(idata: InferenceData, n: int) -> np.ndarray:
    """Labels of the subjects of a differential equation; numbers where these are other units."""
    labels = Fit(idata).subjects
    if n == 1 and labels.size > 1:
        return np.array(["all"])
    return labels if labels.size == n else np.arange(n)


def _free_variables(model: pm.Model, graphs: list) -> list:
    """Free variables of a model under some graphs; by name, as a copied model keeps what a network was called with."""
    names = {rv.name for rv in model.free_RVs}
    return [v for v in ancestors(graphs) if v.name in names and v.owner is not None]


def _at_samples(
    model: pm.Model, graphs: list, samples: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Graphs of free variables at every sample, each (sample, ...)."""
    free = {v: v.type(v.name) for v in _free_variables(model, graphs)}
    graphs = clone_replace(graphs, replace=free)
    f = pytensor.function([*free.values()], graphs, mode=INTERPRETED, on_unused_input="ignore")
    n = len(next(iter(samples.values())))
    values = [np.asarray(samples[v.name], dtype=v.type.dtype) for v in free]
    rows = [f(*(v[k] for v in values)) for k in range(n)] if free else [f()] * n
    return [np.stack(column) for column in zip(*rows, strict=True)]
