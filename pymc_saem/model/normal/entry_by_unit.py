"""What each entry of each variable between standard normal variables and the data is: an affine function of one unit, and which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, TypeGuard

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import ancestors, walk
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.shape import Shape, Shape_i
from pytensor.tensor.type import TensorType
from pytensor.tensor.variable import TensorVariable

from pymc_saem.compat import observed_variables
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.normal.latents import Latent
from pymc_saem.model.normal.without_index import without_index

#: Digits in which two functions of the parameters must agree at random points to be one.
DIGITS = 9

#: A variable of the frontier, unit and column of each of its entries, and the variable without its
#: index.
Entries: TypeAlias = tuple[TensorVariable, np.ndarray, np.ndarray, TensorVariable | None]
Evaluated: TypeAlias = Callable[[Mapping[str, np.ndarray], np.ndarray], list[np.ndarray]]


class Region:
    """The graph between latent variables and the rest of a model.

    Parameters
    ----------
    latents : list of Latent
        Of one axis of units.
    others : set
        Random effects that a variable may not hold if it is to be an image of the latent ones.

    Attributes
    ----------
    start : set
        The latent variables.
    points : list of dict
        Two random points of the other free variables.
    """

    def __init__(
        self,
        model: pm.Model,
        point: Mapping[str, np.ndarray],
        latents: Sequence[Latent],
        others: set[TensorVariable],
    ) -> None:
        self.model, self.latents = model, latents
        self.start = {latent.rv for latent in latents}
        self.n_units = latents[0].n_units
        self.n_columns = sum(latent.size for latent in latents)
        self.rng = np.random.default_rng(0)  # probes a fixed function: any points do
        self.observed = [v for rv in observed_variables(model) for v in rv.owner.inputs]
        free = [v for rv in model.free_RVs if rv not in self.start for v in rv.owner.inputs]
        self.targets = [*self.observed, *free]
        self._values = [model.rvs_to_values[rv] for rv in model.free_RVs]
        self._value_of = {latent.rv: model.rvs_to_values[latent.rv].name for latent in latents}
        self.points = [self._random(point) for _ in range(2)]
        self.users = _users(self.targets)
        self._wholes: dict[TensorVariable, TensorVariable | None] = {}
        self.order = self._affine(self._live(others))
        self.inside = self.start | set(self.order)

    def _random(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A point away from zeros and symmetric values."""
        return {
            v.name: point[v.name] + self.rng.normal(0.0, 0.5, size=np.shape(point[v.name]))
            if v.dtype.startswith("float")
            else point[v.name]
            for v in self._values
        }

    # -- the graph ------------------------------------------------------------------------------

    def _live(self, others: set[TensorVariable]) -> list[TensorVariable]:
        """Variables made of the latent ones and of parameters, in the order of computation."""
        live, waiting = set(self.start), list(self.start)
        while waiting:
            for node in self.users.get(waiting.pop(), ()):
                if node is None or _is_barrier(node):
                    continue
                new = [v for v in node.outputs if v not in live and _is_number(v)]
                live |= set(new)
                waiting += new
        forbidden = {rv for rv in others if rv not in self.start}
        made = [
            v
            for v in walk_in_order(self.targets)
            if _is_number(v) and v in live and v not in self.start
        ]
        return [v for v in made if not forbidden & set(ancestors([v]))]

    def _affine(self, live: list[TensorVariable]) -> list[TensorVariable]:
        """Those of which each entry is an affine function of one unit, with all that they are made of."""
        if not live:
            return []
        try:
            tables = self._tables(live)
        except (
            IndexError,
            ValueError,
        ):  # the model cannot be evaluated, which is reported where all of it is
            return []
        self.unit, self.signature, found = {}, {}, []
        known = set(self.start)
        for latent in self.latents:
            numbers = np.arange(latent.n_units).reshape(
                [-1 if a == latent.axis else 1 for a in range(len(latent.shape))]
            )
            self.unit[latent.rv] = np.broadcast_to(numbers, latent.shape)
        for v, table in zip(live, tables, strict=True):
            made_of = [i for i in v.owner.inputs if i in self.start or i in set(live)]
            if table is not None and known.issuperset(made_of):
                known.add(v)
                self.unit[v], self.signature[v] = table
                found.append(v)
        for latent, signature in zip(self.latents, self._latent_signatures(), strict=True):
            self.signature[latent.rv] = signature
        return found

    def function(self, graphs: Sequence[Variable]) -> Evaluated:
        """``f(point, standard)``: values of graphs where standard normal variables (unit, column) take these values."""
        graphs = self.model.replace_rvs_by_values(graphs)
        f = pytensor.function(self._values, graphs, mode=INTERPRETED, on_unused_input="ignore")

        def evaluate(point: Mapping[str, np.ndarray], standard: np.ndarray) -> list[np.ndarray]:
            values, start = dict(point), 0
            for latent in self.latents:
                values[self._value_of[latent.rv]] = latent.value(
                    standard[:, start : start + latent.size]
                )
                start += latent.size
            with np.errstate(all="ignore"):
                return [
                    np.asarray(x)
                    for x in f(*(np.asarray(values[v.name], dtype=v.dtype) for v in self._values))
                ]

        return evaluate

    # -- experiments ----------------------------------------------------------------------------

    def _tables(self, live: list[TensorVariable]) -> list[tuple[np.ndarray, np.ndarray] | None]:
        """Unit and signature of each entry, in the shape of the variable; None for a variable that is not affine."""
        f, shape = self.function(live), (self.n_units, self.n_columns)
        one, two = self.rng.standard_normal((2, *shape))
        self.direction = self.rng.uniform(0.5, 1.5, size=self.n_columns)
        self.weights = self.rng.uniform(0.5, 1.5, size=4)
        zero = [f(point, np.zeros(shape)) for point in self.points]
        is_affine = np.ones(len(live), dtype=bool)
        slopes = []
        for point, at_zero in zip(self.points, zero, strict=True):
            moved = [f(point, x) for x in (one, two, one + two, -one)]
            slopes.append(f(point, np.broadcast_to(self.direction, shape)))
            for k, (base, a, b, both, back) in enumerate(zip(at_zero, *moved, strict=True)):
                size = np.abs(a) + np.abs(b) + np.abs(base)
                same = np.abs((both - base) - (a - base) - (b - base)) <= 1e-9 * size + 1e-12
                same &= np.abs(a + back - 2 * base) <= 1e-9 * size + 1e-12  # NaN is not small
                is_affine[k] &= bool(np.all(same))
        units = self._units(f, zero[0], one)
        found: list[tuple[np.ndarray, np.ndarray] | None] = []
        for k, unit in enumerate(units):
            first, second = (slope[k] - base[k] for slope, base in zip(slopes, zero, strict=True))
            parts = [np.array(zero[0][k]), np.array(zero[1][k]), first, second]
            if unit is None or not (unit.size and is_affine[k] and np.all(first != 0)):
                found.append(None)
            else:
                found.append((unit, self._signature(parts)))
        return found

    def _signature(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        return sum(weight * part for weight, part in zip(self.weights, parts, strict=True))

    def _latent_signatures(self) -> Iterator[np.ndarray]:
        start = 0
        for latent in self.latents:
            value = [
                latent.value(np.broadcast_to(x, (self.n_units, latent.size)))
                for x in (np.zeros(latent.size), self.direction[start : start + latent.size])
            ]
            yield self._signature([value[0], value[0], value[1] - value[0], value[1] - value[0]])
            start += latent.size

    def _units(
        self,
        f: Evaluated,
        zero: Sequence[np.ndarray],
        step: np.ndarray,
    ) -> list[np.ndarray | None]:
        """Unit of each entry of each variable; None where an entry depends on several."""
        numbers = np.arange(self.n_units)
        units = [np.zeros(x.shape, dtype=int) for x in zero]
        is_shared = np.zeros(len(zero), dtype=bool)
        for bit in range(int(self.n_units - 1).bit_length()):
            mask = ((numbers >> bit) & 1)[:, None]
            moved = [f(self.points[0], step * m) for m in (mask, 1 - mask)]
            for k, (base, one, other) in enumerate(zip(zero, *moved, strict=True)):
                limit = 1e-11 * (np.abs(base) + np.abs(one) + np.abs(other))
                one, other = (np.abs(x - base) > limit for x in (one, other))
                is_shared[k] |= np.any(one & other)
                units[k] |= one.astype(int) << bit
        return [None if shared else unit for unit, shared in zip(units, is_shared, strict=True)]

    # -- cuts -----------------------------------------------------------------------------------

    def frontier(self, inside: set[TensorVariable]) -> list[TensorVariable]:
        """Variables inside that are used outside, in the order of computation."""
        ordered = [*(latent.rv for latent in self.latents), *self.order]
        return [v for v in ordered if v in inside and self._is_used_outside(v, inside)]

    def _is_used_outside(self, v: TensorVariable, inside: set[TensorVariable]) -> bool:
        for node in self.users.get(v, ()):
            if node is None or (
                not isinstance(node.op, Shape | Shape_i) and not inside.issuperset(node.outputs)
            ):
                return True
        return False

    def left_by(self, inside: set[TensorVariable]) -> set[TensorVariable]:
        """Free variables that the data depend on beside the frontier."""
        blocked, found = set(self.frontier(inside)), set()
        free = set(self.model.free_RVs)
        for v in walk(
            self.targets, lambda v: [] if v in blocked or v.owner is None else v.owner.inputs
        ):
            if v in free:
                found.add(v)
        return found - self.start

    def valid_inside(self) -> set[TensorVariable] | None:
        """The largest region whose frontier holds as many functions per unit as there are columns, in its smallest form; None if there is none."""
        inside = set(self.inside)
        while self.entries(inside) is None:
            last = self._last(inside)
            if not last:
                return None
            inside.remove(
                max(last, key=lambda v: (self._functions_per_unit(v), self.order.index(v)))
            )
        n_left = len(self.left_by(inside))
        while True:  # towards the latent variables, as long as no parameter gets out
            for v in self._last(inside):
                smaller = inside - {v}
                if self.entries(smaller) is not None and len(self.left_by(smaller)) <= n_left:
                    inside = smaller
                    break
            else:
                return inside

    def _last(self, inside: set[TensorVariable]) -> list[TensorVariable]:
        """Variables that nothing inside uses, except the latent ones."""
        used = {i for v in inside if v not in self.start for i in v.owner.inputs}
        return [v for v in self.order if v in inside and v not in used]

    def _functions_per_unit(self, v: TensorVariable) -> int:
        pairs = np.unique(
            np.stack([self.unit[v].ravel(), self._numbered(v).ravel()], axis=1), axis=0
        )
        return int(np.bincount(pairs[:, 0]).max(initial=0))

    def _numbered(self, v: TensorVariable) -> np.ndarray:
        return self._numbers[v]

    @property
    def _numbers(self) -> dict[TensorVariable, np.ndarray]:
        """A number for each function that entries are, by variable."""
        if not hasattr(self, "_numbers_found"):
            variables = list(self.signature)
            flat = np.concatenate([self.signature[v].ravel() for v in variables])
            scale = 10.0 ** (DIGITS - np.ceil(np.log10(np.maximum(np.abs(flat), 1e-300))))
            _, number = np.unique(np.round(flat * scale) / scale, return_inverse=True)
            ends = np.cumsum([self.signature[v].size for v in variables])[:-1]
            parts = np.split(number.ravel(), ends)
            self._numbers_found = {
                v: part.reshape(self.signature[v].shape)
                for v, part in zip(variables, parts, strict=True)
            }
        return self._numbers_found

    def entries(self, inside: set[TensorVariable]) -> list[Entries] | None:
        """The frontier as columns, as many as there are different functions of every unit; None otherwise.

        Returns
        -------
        list of tuple
            (variable, unit and column of each of its entries, the variable without its index or
            None).
        """
        frontier = self.frontier(inside)
        columns: list[np.ndarray] = []
        cuts: list[Entries] = []
        for v in frontier:
            column = np.full(self.unit[v].shape, -1)
            for where in self._places(v):
                number = np.full(self.n_units, -1)
                unit, of_function = self.unit[v][where].ravel(), self._numbers[v][where].ravel()
                number[unit] = of_function
                if not np.array_equal(number[unit], of_function):
                    return None  # two functions of one unit in one place
                k = _match(columns, number)
                if k is None:
                    return None
                column[where] = k
                if len(columns) > self.n_columns:
                    return None
            cuts.append((v, self.unit[v], column, self._whole(v)))
        is_complete = [bool((number >= 0).all()) for number in columns]
        for _, _, column, whole in cuts:
            if whole is not None:
                is_complete[column.flat[0]] = True
        return cuts if len(columns) == self.n_columns and all(is_complete) else None

    def _whole(self, v: TensorVariable) -> TensorVariable | None:
        """The variable with an entry per unit; None where it has one, or where its entries are more than an index of them."""
        if v not in self._wholes:
            self._wholes[v] = None
            if v.owner is not None and v.type.ndim == 1 and self._functions_per_unit(v) == 1:
                self._wholes[v] = self._checked(v, without_index(v, self.unit[v], self.n_units))
        return self._wholes[v]

    def _checked(self, v: TensorVariable, whole: TensorVariable | None) -> TensorVariable | None:
        if whole is None:
            return None
        whole = pt.specify_shape(whole, (self.n_units,))
        standard = self.rng.standard_normal((self.n_units, self.n_columns))
        try:
            values = self.function([v, whole])(self.points[1], standard)
        except (IndexError, ValueError, AssertionError):
            return None
        return (
            whole
            if np.allclose(values[0], values[1][self.unit[v]], rtol=1e-9, atol=1e-12)
            else None
        )

    def _places(self, v: TensorVariable) -> list:
        """Index tuples of a variable whose entries are one column: along the axis of units; else by function, where units share them."""
        unit = self.unit[v]
        for axis in range(unit.ndim):
            if unit.shape[axis] == self.n_units and np.all(
                np.moveaxis(unit, axis, -1) == np.arange(self.n_units)
            ):
                rest = np.ndindex(*np.delete(unit.shape, axis))
                return [(*at[:axis], slice(None), *at[axis:]) for at in rest]
        if self._functions_per_unit(v) == 1:
            return [(slice(None),) * unit.ndim]
        functions = np.unique(self._numbers[v])
        return [self._numbers[v] == number for number in functions[: self.n_columns + 1]]


def _match(columns: list[np.ndarray], number: np.ndarray) -> int | None:
    """Place of a column (unit,) of function numbers, -1 where unknown, among those so far, which it may complete or join; None if it contradicts."""
    for k, known in enumerate(columns):
        both = (known >= 0) & (number >= 0)
        same = known[both] == number[both]
        if same.any() and same.all():
            columns[k] = np.where(known >= 0, known, number)
            return k
        if same.any():
            return None
    columns.append(number)
    return len(columns) - 1


def walk_in_order(targets: Sequence[Variable]) -> list[Variable]:
    """All variables that targets are made of, each after what it is made of."""
    order, seen, stack = [], set(), [(v, False) for v in reversed(targets)]
    while stack:
        v, is_done = stack.pop()
        if is_done:
            order.append(v)
            continue
        if v in seen:
            continue
        seen.add(v)
        stack.append((v, True))
        stack += [
            (i, False)
            for i in reversed(v.owner.inputs if v.owner is not None else [])
            if i not in seen
        ]
    return order


def _users(targets: Sequence[Variable]) -> dict[Variable, list[Apply | None]]:
    """Nodes that use each variable, in the graph of the targets; None for a target."""
    users: dict[Variable, list[Apply | None]] = {}
    seen = set()
    for variable in walk(targets, lambda v: v.owner.inputs if v.owner is not None else []):
        node = variable.owner
        if node is None or node in seen:
            continue
        seen.add(node)
        for used in dict.fromkeys(node.inputs):
            users.setdefault(used, []).append(node)
    for variable in targets:
        users.setdefault(variable, []).append(None)
    return users


def _is_barrier(node: Apply) -> bool:
    """What is drawn, or solved, is not an affine function of anything."""
    return (
        isinstance(node.op, RandomVariable)
        or bool(getattr(node.op, "is_ode_solution", False))
        or _is_drawn(node)
    )


def _is_drawn(node: Apply) -> bool:
    return any(
        type(v.type).__name__ == "RandomGeneratorType" for v in (*node.inputs, *node.outputs)
    )


def _is_number(v: Variable) -> TypeGuard[TensorVariable]:
    return isinstance(v.type, TensorType) and v.type.dtype.startswith("float")
