"""What a model generates for given parameters: random effects, the distributions of its outcomes, and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import vectorize_graph
from pytensor.graph.traversal import io_toposort
from pytensor.tensor.variable import TensorVariable

from pymc_saem.evaluate.drawing import can_be_drawn, gaps_of, of_rows, without_gaps
from pymc_saem.evaluate.row_function import INTERPRETED, TIGHT, before_censoring, location
from pymc_saem.evaluate.vectorized import Vectorized, with_batch
from pymc_saem.model.graph.rebuild import Randomness, arguments, rebuild, typical
from pymc_saem.model.outcomes import missing_parts, read_outcomes

#: Numbers in the rows and random effects that are evaluated at once.
MAX_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Laws:
    """The distributions of all outcomes for n values of parameters and random effects.

    Attributes
    ----------
    locations : dict of str to ndarray, shape (n, *outcome), or None where PyMC has no mean
    arguments : list of ndarray, each (n, ...)
        What the outcomes are drawn from.
    failed : ndarray of bool, shape (n, subject), or None
        Subjects of a differential equation without a solution.
    causes : dict of int to str
        What the status codes of the failures mean.
    """

    n: int
    locations: dict[str, np.ndarray | None]
    arguments: list[np.ndarray] = field(repr=False)
    failed: np.ndarray | None = None
    causes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generated:
    """n data sets: random effects (n, ...) and outcomes (n, ...) by name, and the distributions that these were drawn from."""

    effects: dict[str, np.ndarray]
    outcomes: dict[str, np.ndarray]
    laws: Laws


class Generator:
    """The graph of a model from parameters to outcomes, compiled once and evaluated for many values at a time.

    Parameters
    ----------
    model : pymc.Model
        It is not changed. Data are read at each call.
    effects : sequence of str
        Names of the random effects; the other free variables are parameters.
    tolerance : float, optional
        Of differential equations; 1e-8 by default.
    uncensored : bool, default False
        Whether a ``Censored`` outcome is drawn as it was before it was cut off.
    axes : mapping of str to int, optional
        Axis of the subjects or units of each random effect; the first one by default.

    Attributes
    ----------
    parameters, effects : tuple of str
    outcomes : tuple of Outcome

    Examples
    --------
    >>> generator = Generator(model, ["ka", "V", "CL"])
    >>> values = {"log_ka": 0.5, "log_V": 3.5, "log_CL": 1.0, "omega_ka": 0.6, "omega_V": 0.2, "omega_CL": 0.3, "sigma": 0.7}
    >>> generator.draw(values, n=3, rng=np.random.default_rng(1)).outcomes["conc"].shape
    (3, 132)
    """

    def __init__(
        self,
        model: pm.Model,
        effects: Sequence[str],
        tolerance: float = TIGHT,
        uncensored: bool = False,
        axes: Mapping[str, int] | None = None,
    ) -> None:
        self.axes = {name: (axes or {}).get(name, 0) for name in effects}
        self.model, self.tolerance, self.uncensored = model, tolerance, uncensored
        self.outcomes = read_outcomes(model)
        self._missing = missing_parts(model)
        self._functions: dict[tuple[bool, tuple[str, ...]], Vectorized] = {}
        self.effects = tuple(rv.name for rv in model.free_RVs if rv.name in set(effects))
        self.parameters = tuple(
            rv.name for rv in model.free_RVs if rv.name not in {*self.effects, *self._missing}
        )

    # -- what users of the class call -----------------------------------------------------------

    def draw(self, values: Mapping[str, np.ndarray], n: int, rng: np.random.Generator) -> Generated:
        """n data sets.

        Parameters
        ----------
        values : mapping of str to array, shape (n, ...) or without that axis
            Natural values of all parameters.
        n : int
        rng : numpy.random.Generator
        """
        effects = self.draw_effects(values, n, rng)
        laws = self.laws(values, effects, n)
        return Generated(effects, self.draw_outcomes(laws, rng), laws)

    def draw_effects(
        self,
        values: Mapping[str, np.ndarray],
        n: int,
        rng: np.random.Generator,
        given: Mapping | None = None,
        is_given: Mapping | None = None,
    ) -> dict:
        """Random effects from their distribution given the parameters, (n, ...) by name.

        Parameters
        ----------
        given : mapping of str to array, shape (n, unit, ...), optional
            Values of those that are not to be drawn. The distribution of others may depend on them.
        is_given : mapping of str to array of bool, shape (unit,), optional
            Whose values these are.
        """
        return self._effects(True, n, rng, values, given, is_given)

    def typical_effects(
        self,
        values: Mapping[str, np.ndarray],
        n: int,
        given: Mapping | None = None,
        is_given: Mapping | None = None,
    ) -> dict:
        """Random effects at the typical value of their distribution, (n, ...) by name; arguments as in :meth:`draw_effects`."""
        return self._effects(False, n, None, values, given, is_given)

    def laws(
        self, values: Mapping[str, np.ndarray], effects: Mapping[str, np.ndarray], n: int
    ) -> Laws:
        """Distributions of the outcomes for n values of parameters and random effects."""
        batches = self.batch(values, self.parameters, n), self.batch(effects, self.effects, n)
        f, n_locations, nodes = self._law_function
        found = self._in_pieces(f, n, [*batches[0].values(), *batches[1].values()])
        parts = iter(found[:n_locations])
        locations = {}
        for outcome in self.outcomes:
            known = self._locations[outcome.name] is not None
            locations[outcome.name] = (
                outcome.join([next(parts) for _ in outcome.parts], n) if known else None
            )
        status = found[len(found) - len(nodes) :]
        failed = (
            np.any([s != 0 for s in status], axis=0)
            if len({s.shape for s in status}) == 1
            else None
        )
        causes = {
            node.op.status_text(c)
            for s, node in zip(status, nodes, strict=True)
            for c in np.unique(s[s != 0])
        }
        return Laws(
            n,
            locations,
            found[n_locations : len(found) - len(nodes)],
            failed,
            tuple(sorted(causes)),
        )

    def draw_outcomes(self, laws: Laws, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """New outcomes, (n, ...) by name. Rows without a distribution are NaN; an outcome that cannot be drawn is left out."""
        finite, bad = (
            zip(*map(without_gaps, laws.arguments), strict=True) if laws.arguments else ((), ())
        )
        self._outcomes_drawn.compile(finite)
        try:
            drawn = iter(self._outcomes_drawn(laws.n, rng, finite))
        except ValueError as error:
            raise ValueError(
                f"The outcomes cannot be drawn ({error}): at these parameters a prediction is not a valid argument of an "
                "outcome's distribution."
            ) from error
        out, k = {}, 0
        for outcome in self.outcomes:
            if not can_be_drawn(outcome):
                k += len(outcome.parts)
                continue
            values, gaps = [], []
            for _ in outcome.parts:
                value = np.asarray(next(drawn))
                gaps.append(gaps_of(value, [bad[a] for a in self._arguments_of[k]]))
                values.append(value)
                k += 1
            whole, gap = outcome.join(values, laws.n), outcome.join(gaps, laws.n)
            out[outcome.name] = np.where(gap, np.nan, whole) if gap.any() else np.array(whole)
        return out

    def marks(self, laws: Laws) -> list[np.ndarray]:
        """A number per row of each outcome, each (n, row), which differs where the distributions of the row differ."""
        found, k = [], 0
        for outcome in self.outcomes:
            of_parts = []
            for part in outcome.parts:
                shape = (
                    outcome.shape
                    if len(outcome.parts) == 1
                    else (part.rows.size, *part.rv.type.shape[1:])
                )
                mark = np.zeros((laws.n, *shape))
                for j, a in enumerate(self._arguments_of[k]):
                    mark += np.sqrt(2.0 + j) * of_rows(laws.arguments[a], mark.shape)
                of_parts.append(mark)
                k += 1
            found.append(outcome.join(of_parts, laws.n).reshape(laws.n, -1))
        return found

    # -- batches --------------------------------------------------------------------------------

    def batch(
        self, values: Mapping[str, np.ndarray], names: Sequence[str], n: int
    ) -> dict[str, np.ndarray]:
        batch = {}
        for name in names:
            rv = self.model[name]
            value = np.asarray(values[name], dtype=rv.type.dtype)
            shape = value.shape[value.ndim - rv.type.ndim :]
            batch[name] = np.ascontiguousarray(np.broadcast_to(value, (n, *shape)))
        return batch

    def _effects(
        self,
        is_drawn: bool,
        n: int,
        rng: np.random.Generator | None,
        values: Mapping[str, np.ndarray],
        given: Mapping | None,
        is_given: Mapping | None,
    ) -> dict[str, np.ndarray]:
        given = given or {}
        names = tuple(name for name in self.effects if name in given)
        f = self._effect_function(is_drawn, names)
        arrays = [
            *self.batch(values, self.parameters, n).values(),
            *self.batch(given, names, n).values(),
        ]
        whole = {
            name: np.ones(self.by_unit(name, given[name]).shape[1], dtype=bool) for name in names
        }
        masks = [np.asarray((is_given or whole)[name], dtype=bool) for name in names]
        return dict(zip(self.effects, f(n, rng, arrays, masks), strict=True))

    def by_unit(self, name: str, values: np.ndarray) -> np.ndarray:
        """A view of values (n, ...) of a random effect with the units first, (n, unit, ...)."""
        return np.moveaxis(values, 1 + self.axes[name], 1)

    def _in_pieces(self, f: Callable, n: int, batches: list[np.ndarray]) -> list[np.ndarray]:
        numbers = sum(o.n_rows for o in self.outcomes) + sum(b[0].size for b in batches)
        pieces = np.array_split(np.arange(n), max(1, -(-n * numbers // MAX_NUMBERS)))
        found = [f(*(b[piece] for b in batches)) for piece in pieces]
        return [
            np.concatenate(parts) if len(parts) > 1 else np.asarray(parts[0])
            for parts in zip(*found, strict=True)
        ]

    # -- graphs ---------------------------------------------------------------------------------

    def symbols(self, names: Iterable[str]) -> dict:
        return {name: _core(self.model[name]) for name in names}

    def _effect_function(self, is_drawn: bool, names: tuple[str, ...]) -> Vectorized:
        """``f(n, rng, values and given effects, masks)`` that lists the effects, drawn or typical."""
        if (is_drawn, names) not in self._functions:
            self._functions[is_drawn, names] = self._compile_effects(is_drawn, names)
        return self._functions[is_drawn, names]

    def _compile_effects(self, is_drawn: bool, names: tuple[str, ...]) -> Vectorized:
        values, given = self.symbols(self.parameters), self.symbols(names)
        masks = {name: pt.vector(dtype="bool") for name in names}
        rvs, axes = {self.model[name]: name for name in self.effects}, self.axes

        def replace(old: Variable, new: Variable) -> Variable | None:
            if old not in rvs:
                return None
            new, name = new if is_drawn else typical(new), rvs[old]
            if name not in names:
                return new
            mask = masks[name].reshape(
                (*(1,) * axes[name], -1, *(1,) * (old.type.ndim - 1 - axes[name]))
            )
            return pt.where(mask, given[name], new).astype(old.type.dtype)

        known = {self.model[name]: symbol for name, symbol in values.items()}
        rvs_of_effects = list(rvs)

        def build(randomness: Randomness | None) -> list[Variable]:
            return rebuild(rvs_of_effects, known, randomness=randomness, replace=replace)

        return Vectorized(
            build, [*values.values(), *given.values()], list(masks.values()), is_drawn
        )

    @cached_property
    def _locations(self) -> dict[str, list[TensorVariable] | None]:
        """Location graphs of the parts of each outcome; None where there is none."""
        out: dict[str, list[TensorVariable] | None] = {}
        for outcome in self.outcomes:
            try:
                out[outcome.name] = [location(part.rv) for part in outcome.parts]
            except NotImplementedError:
                out[outcome.name] = None
        return out

    @cached_property
    def _argument_lists(self) -> list:
        """The variables that each part of each outcome is drawn from."""
        free = [self.model[name] for name in (*self.parameters, *self.effects)]
        return [arguments(part.rv, free) for outcome in self.outcomes for part in outcome.parts]

    @cached_property
    def _all_arguments(self) -> list:
        return list(dict.fromkeys(v for of_part in self._argument_lists for v in of_part))

    @cached_property
    def _arguments_of(self) -> list[list[int]]:
        place = {v: k for k, v in enumerate(self._all_arguments)}
        return [[place[v] for v in of_part] for of_part in self._argument_lists]

    @cached_property
    def _law_function(self) -> tuple[Callable, int, list[Apply]]:
        symbols = self.symbols((*self.parameters, *self.effects))
        locations = [g for graphs in self._locations.values() if graphs is not None for g in graphs]
        wanted = [*locations, *self._all_arguments]
        known = {self.model[name]: symbol for name, symbol in symbols.items()}
        graphs = rebuild(wanted, known, tolerance=self.tolerance)
        nodes = [n for n in io_toposort([], graphs) if getattr(n.op, "is_ode_solution", False)]
        graphs += [node.outputs[1] for node in nodes]
        batched = {
            s: pt.tensor(dtype=s.dtype, shape=(None, *s.type.shape)) for s in symbols.values()
        }
        lead = next(iter(batched.values()))
        new = vectorize_graph(graphs, batched)
        graphs = [with_batch(g, old, lead) for g, old in zip(new, graphs, strict=True)]
        f = pytensor.function(
            list(batched.values()), graphs, mode=INTERPRETED, on_unused_input="ignore"
        )
        return f, len(locations), nodes

    @cached_property
    def _outcomes_drawn(self) -> Vectorized:
        """``f(n, rng, arguments)`` that lists the parts of the outcomes, drawn."""
        symbols = [_core(v) for v in self._all_arguments]
        known = dict(zip(self._all_arguments, symbols, strict=True))
        rvs = [
            part.rv for outcome in self.outcomes if can_be_drawn(outcome) for part in outcome.parts
        ]
        rvs = [before_censoring(rv) for rv in rvs] if self.uncensored else rvs
        return Vectorized(
            lambda randomness: rebuild(rvs, known, randomness=randomness), symbols, [], True
        )


def _core(variable: Variable) -> Variable:
    """A symbol like a variable, with a shape that may differ where the graph allows it.

    Not by ``pt.tensor``, which refuses names that NumPy takes for a dtype: "short", or bambi's
    "1|subject_sigma".
    """
    return variable.type(variable.name)
