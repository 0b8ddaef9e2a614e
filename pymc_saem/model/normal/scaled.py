"""Vectors written like parameters that are random effects: numbers around 0 times a scale that is estimated.

The distribution of ``tau * z`` depends on tau, as that of ``d ~ Normal(0, tau)`` does, so z is not
a parameter. The likelihood sees tau and z through their product alone: their joint mode has a
spread of z that only the priors choose, and no meaning.

A vector is taken for one of these when it has two entries or more, a distribution with constants
around 0, and

- the predictions stay where z is divided, and a parameter multiplied, by one factor, in any parameterization: ``tau * z[i]``,
  ``tau * (z @ basis)``, ``exp(log_tau) * z``, ``chol @ z``; seen by slopes at generic points; or
- it is standard normal, and parameters enter what it is multiplied with, entry by entry or by a square matrix: a Gaussian
  process whose length scale is estimated.

One entry is not a vector: ``scale * z`` is the product of two parameters, and one number has no
spread that could be estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.distributions.distribution import support_point
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, io_toposort, walk
from pytensor.tensor.variable import TensorVariable

from pymc_saem.compat import observed_variables
from pymc_saem.model.graph.generic_points import quietly
from pymc_saem.model.graph.interpreted import INTERPRETED

#: Operations through which numbers pass without being multiplied.
_SUMS = ("Add", "Sub", "Neg", "Identity", "Cast", "Second")
#: Relative step of slopes, and how far they may be from a combination of others.
_STEP, _TOLERANCE = 1e-4, 1e-5
#: A matrix of slopes larger than this is not computed: a scale has few entries.
_MOST_ENTRIES = 100


def scaled_vectors(
    model: pm.Model, point: Mapping[str, np.ndarray], left_out: set[str], effects: set[str]
) -> dict[str, str]:
    """Name of each such vector, and of the parameter that scales it.

    Parameters
    ----------
    model : pymc.Model
    point : dict
        The model's initial point, for shapes.
    left_out : set of str
        Free variables that do not count.
    effects : set of str
        Free variables that are certainly random effects, and not scales.
    """
    found = {}
    free = [rv for rv in model.free_RVs if rv.name not in left_out]
    shapes = {rv: _shape(model, rv, point) for rv in free}
    for rv in free:
        if (
            rv.name in effects
            or np.prod(shapes[rv], dtype=int) < 2
            or not _is_around_zero(model, rv)
        ):
            continue
        targets = _targets(model, rv)
        beside = set(walk(_factors(targets, rv), lambda v: [] if v in shapes else _inputs(v)))
        scales = [
            s for s in free if s in beside and s.name not in effects and _may_scale(shapes[s], s)
        ]
        if scales and (scale := _scale_among(targets, rv, scales, shapes)) is not None:
            found[rv.name] = str(scale.name)
    return found


def _shape(model: pm.Model, rv: TensorVariable, point: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """Shape of a variable itself, which may be that of its value or not."""
    value = point[model.rvs_to_values[rv].name]
    return (
        value.shape
        if rv.type.ndim == value.ndim and None in rv.type.shape
        else tuple(rv.type.shape) or value.shape
    )


def _constants(graphs: Sequence[Variable]) -> list[np.ndarray]:
    return [np.asarray(x) for x in pytensor.function([], graphs, mode=INTERPRETED)()]


def _has_constant_law(model: pm.Model, rv: TensorVariable) -> bool:
    return not set(model.free_RVs) & set(ancestors(rv.owner.inputs))


def _is_around_zero(model: pm.Model, rv: TensorVariable) -> bool:
    """Whether a variable has a proper distribution with constants, whose centre is 0."""
    kind = type(rv.owner.op).__name__
    if (
        "Flat" in kind
        or not _has_constant_law(model, rv)
        or getattr(rv.owner.op, "is_network_weights", False)
    ):
        return False
    (centre,) = _constants([support_point(rv)])
    return not np.any(centre)


def is_normal_around_zero(model: pm.Model, rv: TensorVariable) -> bool:
    """Whether a variable is normal with constants, and mean 0."""
    return type(rv.owner.op).__name__ == "NormalRV" and _is_around_zero(model, rv)


def _is_standard_normal(rv: TensorVariable) -> bool:
    if type(rv.owner.op).__name__ != "NormalRV":
        return False
    location, scale = _constants(rv.owner.op.dist_params(rv.owner))
    return not np.any(location) and bool(np.all(scale == 1.0))


def _may_scale(shape: tuple[int, ...], rv: TensorVariable) -> bool:
    """One number of any sign, or a few positive ones, or a Cholesky factor; loadings around 0 do not scale their factor."""
    size = int(np.prod(shape, dtype=int))
    if size == 1:
        return True
    kind = type(rv.owner.op).__name__
    if size > _MOST_ENTRIES:
        return False
    return "Cholesky" in kind or kind.startswith(
        ("Half", "Exponential", "Gamma", "InverseGamma", "LogNormal", "Truncated")
    )


def _targets(model: pm.Model, rv: TensorVariable) -> list[Variable]:
    """What the distributions of other variables are computed with, as far as ``rv`` enters it; of a solution, what it is solved with."""
    stop = {*model.free_RVs, *observed_variables(model)}
    targets = []
    for law in dict.fromkeys([*model.free_RVs, *observed_variables(model)]):
        graphs = list(law.owner.inputs)
        if law is rv or rv not in set(walk(graphs, lambda v: _inputs(v) if v not in stop else [])):
            continue
        nodes = dict.fromkeys(v.owner for v in ancestors(graphs) if v.owner is not None)
        solutions = [node for node in nodes if getattr(node.op, "is_ode_solution", False)]
        if solutions:
            rows = {
                n.outputs[0]: pt.ones((n.op.subject.size, len(n.op.state_names))) for n in solutions
            }
            graphs = graph_replace(
                [g for g in graphs if hasattr(g.type, "ndim")], rows, strict=False
            )
        targets += [
            g
            for g in [*graphs, *(i for n in solutions for i in n.inputs)]
            if rv in set(ancestors([g]))
        ]
    return list(dict.fromkeys(targets))


def _inputs(variable: Variable) -> list[Variable]:
    return variable.owner.inputs if variable.owner is not None else []


def _between(targets: Sequence[Variable], rv: TensorVariable) -> list[Apply]:
    """Nodes on the way from ``rv`` to the targets, in order."""
    nodes: list[Apply] = []
    reached: set[Variable] = {rv}
    for node in io_toposort([rv], targets):
        if reached & set(node.inputs):
            nodes.append(node)
            reached.update(node.outputs)
    return nodes


def _factors(targets: Sequence[Variable], rv: TensorVariable) -> list[Variable]:
    """What stands beside ``rv`` in operations that are not sums, on its way to the targets."""
    nodes = _between(targets, rv)
    reached = {rv, *(out for node in nodes for out in node.outputs)}
    names = [type(getattr(node.op, "scalar_op", node.op)).__name__ for node in nodes]
    return [
        v
        for node, name in zip(nodes, names, strict=True)
        if name not in _SUMS
        for v in node.inputs
        if v not in reached
    ]


def _scale_among(
    targets: Sequence[Variable],
    rv: TensorVariable,
    scales: Sequence[TensorVariable],
    shapes: Mapping[TensorVariable, tuple[int, ...]],
) -> TensorVariable | None:
    """The first of ``scales`` that is one of ``rv``; None where there is none."""
    slopes = _Slopes(targets, rv, shapes)
    for scale in scales:
        if slopes.vanish_at_zero(scale) and slopes.compensate(scale):
            return scale
    if _is_standard_normal(rv):
        for node in _between(targets, rv):  # as far as nothing has been summed or picked
            image = _Slopes(node.outputs[:1], rv, shapes)
            if not image.has_size_of_vector():
                continue
            for scale in scales:
                if image.depends_on(scale) and image.vanish_at_zero(scale) and image.is_linear():
                    return scale
    return None


class _Slopes:
    """How graphs change with a vector and with its possible scales, at generic values of all variables."""

    def __init__(
        self,
        graphs: Sequence[Variable],
        rv: TensorVariable,
        shapes: Mapping[TensorVariable, tuple[int, ...]],
    ) -> None:
        self.rv, self.rng = rv, np.random.default_rng(0)  # probes a fixed function: any points do
        above = set(walk(graphs, lambda v: [] if v in shapes else _inputs(v)))
        self.free = [v for v in shapes if v in above]
        symbols: dict[Variable, Variable] = {v: v.type() for v in self.free}
        graphs = graph_replace(graphs, symbols, strict=False)
        self._f = quietly(
            pytensor.function(
                list(symbols.values()), graphs, mode=INTERPRETED, on_unused_input="ignore"
            )
        )
        self.points = [
            {v: self.rng.uniform(0.5, 1.5, shapes[v]) for v in self.free} for _ in range(2)
        ]

    def at(self, point: Mapping[TensorVariable, np.ndarray]) -> np.ndarray:
        values = [np.asarray(point[v]).astype(v.dtype) for v in self.free]
        return np.concatenate([np.ravel(x).astype(float) for x in self._f(*values)])

    def has_size_of_vector(self) -> bool:
        return self.at(self.points[0]).size == self.points[0][self.rv].size

    def is_linear(self) -> bool:
        """Whether twice the vector is twice the change."""
        point = self.points[0]
        zero, one, two = (self.at(point | {self.rv: k * point[self.rv]}) for k in (0.0, 1.0, 2.0))
        return np.allclose(two - zero, 2 * (one - zero), rtol=1e-8, atol=1e-10)

    def depends_on(self, scale: TensorVariable) -> bool:
        return scale in self.free and any(
            np.any(self._along(p, scale, p[scale])) for p in self.points
        )

    def vanish_at_zero(self, scale: TensorVariable) -> bool:
        """Whether the scale has no effect where the vector is 0, so that it enters by products with it only."""
        if scale not in self.free:
            return False
        for point in self.points:
            at_zero = point | {self.rv: np.zeros_like(point[self.rv])}
            moved = at_zero | {
                scale: at_zero[scale] * self.rng.uniform(0.6, 0.9, at_zero[scale].shape)
            }
            if not np.allclose(self.at(at_zero), self.at(moved), rtol=1e-10, atol=1e-12):
                return False
        return True

    def compensate(self, scale: TensorVariable) -> bool:
        """Whether the slope along the vector is one along the scale: one factor may move from one to the other."""
        for point in self.points:
            own = self._along(point, self.rv, point[self.rv])
            units = np.eye(point[scale].size).reshape(-1, *point[scale].shape)
            others = np.stack([self._along(point, scale, unit) for unit in units], axis=-1)
            if not (np.all(np.isfinite(own)) and np.all(np.isfinite(others)) and np.any(own)):
                return False
            weights = np.linalg.lstsq(others, own, rcond=1e-9)[0]
            if np.abs(others @ weights - own).max() > _TOLERANCE * np.abs(own).max():
                return False
        return True

    def _along(
        self,
        point: dict[TensorVariable, np.ndarray],
        variable: TensorVariable,
        direction: np.ndarray,
    ) -> np.ndarray:
        ends = [
            self.at(point | {variable: point[variable] + sign * _STEP * direction})
            for sign in (1, -1)
        ]
        return (ends[0] - ends[1]) / (2 * _STEP)
