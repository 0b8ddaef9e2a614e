"""Which rows of data, and which units, depend on which entries of a random effect.

Read from the graph (``tracer``); where it has an operation without a rule, or leads to several
entries, found by experiment at several generic points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.densities import NO_CHECKS
from pymc_saem.model.dependence.axes import unit_axes
from pymc_saem.model.dependence.labels import Reach, join
from pymc_saem.model.dependence.row_subjects import decode, find_finite_start
from pymc_saem.model.dependence.tracer import Tracer
from pymc_saem.model.graph.generic_points import NEAR, SPREADS, generic_points, quietly
from pymc_saem.model.graph.interpreted import INTERPRETED, has_python_only_ops
from pymc_saem.model.graph.solves import ode_nodes
from pymc_saem.model.mixed_model import UnsupportedModelError

#: A solver that takes all subjects as one system chooses its steps for all of them, so each row
#: changes a little with everybody's phi: by 4e-8 of its own subject's part at sunode's tolerances
#: (four decays). PyTensor's own operations have no such noise.
SHARED_STEPS = 1e-4
#: Experiments far from the start, which meet thresholds there: how many, and how far.
_N_WIDE, _WIDE = 6, 10.0

#: Values of the value variables, and what is computed from them.
Point: TypeAlias = dict[Variable, np.ndarray]
Evaluated: TypeAlias = Callable[[Point], list[np.ndarray]]


class Dependence:
    """Answers for one model, with its initial point; each is found once.

    Raises
    ------
    UnsupportedModelError
        When the density of a row is finite nowhere near the model's start.
    """

    def __init__(
        self, model: pm.Model, point: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> None:
        self.model, self.template, self.rng = model, point, rng
        self.observed = observed_variables(model)
        self._rows = [row.ravel() for row in self._densities()]
        self._inputs = list(model.value_vars)
        self._noise = SHARED_STEPS if has_python_only_ops(self._rows) else 0.0
        self._density = self._compile(self._rows)
        start = np.concatenate(
            [np.ravel(self.template[v.name]) for v in self._inputs] or [np.zeros(0)]
        ).astype(float)
        self._start = self._find_start(start)
        # What random effects do not enter is evaluated anywhere; only experiments need densities
        # that are finite.
        self.points = [self._point(x) for x in generic_points(self._start, lambda _: True, rng)]
        self._found: dict[tuple, list[Reach]] = {}
        #: Axis of the units of each free variable.
        self.axes = unit_axes(self)

    # -- answers ------------------------------------------------------------------------------

    def rows_on(self, name: str, axis: int | None = None) -> list[Reach]:
        """For each observed variable, the entries of the unit axis of a free variable that each row depends on."""
        axis = self.axes[name] if axis is None else axis
        if (name, axis) not in self._found:
            seeds = self._seeds(name, axis)
            found = Tracer(seeds, self.points, lambda outputs: self._ask(outputs, seeds))(
                self._rows
            )
            self._found[name, axis] = (
                self._confirm(found, seeds) if any(r.is_many.any() for r in found) else found
            )
        return self._found[name, axis]

    def rows_through_zeros(self, name: str) -> list[Reach]:
        """The same for other data: a prediction at time zero is 0 times a quantity of its subject, and still a row of that subject."""
        seeds = self._seeds(name, self.axes[name])
        return Tracer(
            seeds, self.points, lambda outputs: self._ask(outputs, seeds), through_zeros=True
        )(self._rows)

    def entries_on(self, upper: str, lower: str) -> np.ndarray:
        """Entry of ``upper`` on which the distribution of each entry of ``lower`` depends; -1 for none, -2 for several."""
        seeds, axis = self._seeds(upper, self.axes[upper]), self.axes[lower]
        value = self.model.rvs_to_values[self.model[lower]]
        if value not in seeds:
            return np.full(self.template[value.name].shape[axis], -1)
        return (
            seeds[value]
            .over(tuple(a for a in range(len(seeds[value].shape)) if a != axis))
            .labels()
        )

    def _densities(self) -> list[TensorVariable]:
        """Log densities of the observed variables, rows apart; those of the free variables are computed only to check that they exist."""
        try:
            return self.model.logp(vars=[*self.observed, *self.model.free_RVs], sum=False)[
                : len(self.observed)
            ]
        except ValueError as error:
            if "Random variables detected" not in str(error):
                raise
            raise UnsupportedModelError(
                "A distribution of the model is computed from a random draw that is not a variable of the model, such as Normal.dist(...). "
                f"Give it a name in the model, or its value as data. PyMC's message: {str(error).splitlines()[0]}"
            ) from error

    # -- how they are found -------------------------------------------------------------------

    def _seeds(self, name: str, axis: int) -> dict[Variable, Reach]:
        """Labels of the value variables: of ``name`` by its entries, and of those whose distribution depends on it."""
        model = self.model
        rv = model[name]
        value = model.rvs_to_values[rv]
        shape = self.template[value.name].shape
        seeds = {value: Reach.of_labels(np.indices(shape)[axis])}
        for child in model.free_RVs:
            if child is rv or rv not in set(ancestors(child.owner.inputs)):
                continue
            (law,) = model.logp(vars=[child], sum=False, jacobian=False)
            known = dict(seeds)
            (found,) = Tracer(known, self.points, partial(self._ask, seeds=known))([law])
            whole = self.template[model.rvs_to_values[child].name].shape
            if not found.is_none.all():
                seeds[model.rvs_to_values[child]] = join(
                    [found.with_axes(len(whole)), Reach.nobody(whole)]
                )
        return seeds

    def _ask(self, outputs: Sequence[Variable], seeds: Mapping[Variable, Reach]) -> list[Reach]:
        f = self._compile([pt.as_tensor(out) for out in outputs])
        shapes = [out.shape for out in f(self._trials[0])]
        found = self._by_experiment(
            lambda point: [out.ravel() for out in f(point)], seeds, self._trials, with_nan=True
        )
        return [
            reach.map(lambda v, s=shape: v.reshape(s))
            for reach, shape in zip(found, shapes, strict=True)
        ]

    def _confirm(self, by_graph: Sequence[Reach], seeds: Mapping[Variable, Reach]) -> list[Reach]:
        """Rows of several entries by the graph belong to one of them unless an experiment contradicts."""
        by_value = self._by_experiment(self._density, seeds, self._trials)
        wide = [
            self._point(self._start + _WIDE * self.rng.standard_normal(self._start.shape))
            for _ in range(_N_WIDE)
        ]
        # Steps as wide as the points, so that they cross thresholds.
        by_value = [
            join(pair)
            for pair in zip(
                by_value, self._by_experiment(self._density, seeds, wide, length=_WIDE), strict=True
            )
        ]
        confirmed = []
        for graph, value in zip(by_graph, by_value, strict=True):
            is_one = graph.is_many & ~value.is_many & ~value.is_none
            confirmed.append(value.only(is_one).or_else(graph))
        return confirmed

    def _by_experiment(
        self,
        f: Evaluated,
        seeds: Mapping[Variable, Reach],
        points: Sequence[Point],
        with_nan: bool = False,
        length: float = 0.02,
    ) -> list[Reach]:
        """Labels of what ``f(point)`` lists, each an array (row,), by moving the entries of some labels at a time."""
        n_labels = 1 + max(int(seed.last.max(initial=-1)) for seed in seeds.values())
        found: list[Reach] = []
        for point in points:
            step = {
                v: self.rng.uniform(0.5, 1.0, s.shape) * self.rng.choice([-length, length], s.shape)
                for v, s in seeds.items()
            }
            new = _decoded(f, point, _moving(seeds, step), n_labels, self._noise)
            found = new if not found else [join(pair) for pair in zip(found, new, strict=True)]
        if with_nan:
            nan = {v: np.full(s.shape, np.nan) for v, s in seeds.items()}
            by_nan = _decoded(f, points[0], _moving(seeds, nan), n_labels, 0.0)
            found = [old.or_else(new) for old, new in zip(found, by_nan, strict=True)]
        return found

    @cached_property
    def _trials(self) -> list[Point]:
        """Points of experiments, where rows have a density."""
        return [
            self._point(x)
            for x in generic_points(self._start, self._is_finite, self.rng, spreads=self._spreads)
        ]

    @cached_property
    def _spreads(self) -> tuple[float, ...]:
        return NEAR if ode_nodes(self._rows) else SPREADS

    # -- points -------------------------------------------------------------------------------

    def _compile(self, graphs: Sequence[Variable]) -> Evaluated:
        mode = INTERPRETED.including(NO_CHECKS)
        f = quietly(pytensor.function(self._inputs, graphs, mode=mode, on_unused_input="ignore"))
        return lambda point: [np.asarray(out) for out in f(*(point[v] for v in self._inputs))]

    def _point(self, x: np.ndarray) -> Point:
        """Value variables of a flat point."""
        point: Point = {}
        start = 0
        for v in self._inputs:
            like = np.asarray(self.template[v.name])
            point[v] = x[start : start + like.size].reshape(like.shape).astype(like.dtype)
            start += like.size
        return point

    def _is_finite(self, x: np.ndarray) -> bool:
        return all(np.all(np.isfinite(row)) for row in self._density(self._point(x)))

    def _find_start(self, start: np.ndarray) -> np.ndarray:
        names = [rv.name for rv in self.observed]
        try:
            return find_finite_start(
                lambda x: self._density(self._point(x)), start, names, self.rng
            )
        except IndexError as error:
            raise UnsupportedModelError(
                f"The model cannot be evaluated: {str(error).splitlines()[0]}. Random effects are indexed by codes 0, 1, ..., "
                'not by labels: codes, ids = data["subject"].factorize().'
            ) from error


def _moving(
    seeds: Mapping[Variable, Reach], step: Mapping[Variable, np.ndarray]
) -> Callable[[Point, np.ndarray], Point]:
    """``moved(point, mask)``: a point with the entries of some labels moved."""

    def moved(point: Point, mask: np.ndarray) -> Point:
        new = dict(point)
        for v, seed in seeds.items():
            labels = seed.labels()
            is_moved = (labels >= 0) & mask[np.maximum(labels, 0)]
            new[v] = np.where(is_moved, point[v] + step[v], point[v]).astype(point[v].dtype)
        return new

    return moved


def _decoded(
    f: Evaluated,
    point: Point,
    moved: Callable[[Point, np.ndarray], Point],
    n_labels: int,
    noise: float,
) -> list[Reach]:
    base = f(point)
    by_label = decode(lambda mask: f(moved(point, mask > 0)), base, n_labels, noise)
    return [
        Reach.of_labels(np.where(hit, label, -1))
        if not shared.any()
        else _with_shared(label, hit, shared, n_labels)
        for label, hit, shared in by_label
    ]


def _with_shared(label: np.ndarray, hit: np.ndarray, shared: np.ndarray, n_labels: int) -> Reach:
    """What depends on several labels: on any of them, as far as is known."""
    one = Reach.of_labels(np.where(hit, label, -1))
    return Reach(np.where(shared, 0, one.first), np.where(shared, n_labels - 1, one.last))
