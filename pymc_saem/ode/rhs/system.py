"""A system of differential equations: the user's right-hand side, traced once.

``trace`` calls the right-hand side with PyTensor symbols and returns an :class:`OdeSystem`, which
`compiled` turns into machine code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import graph_inputs
from pytensor.scalar import as_scalar, float64
from pytensor.tensor.variable import TensorVariable

from pymc_saem.ode.rhs.jumps import find_jump
from pymc_saem.ode.rhs.linear_form import why_not_linear
from pymc_saem.ode.rhs.loop_source import LoopPrinter, View, contiguous
from pymc_saem.ode.rhs.lower import UnsupportedOperation, differentiate, lower
from pymc_saem.ode.rhs.right_hand_side import OdeSystem, RightHandSide
from pymc_saem.ode.rhs.scalar_source import SourcePrinter, interleaved, number_text
from pymc_saem.ode.rhs.symbols import call

__all__ = ["flat_places", "trace"]

#: An output of loops, and its place.
Placed: TypeAlias = tuple[Variable, View]
# From this size on, loops are as fast as numbers written out, and compile in 3 to 8 s whatever the
# width.
MOST_WORK = 100


def trace(
    rhs: Callable[..., Any],
    state_names: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    constant: Collection[str] = (),
    changing: Mapping[str, Callable[..., np.ndarray]] | None = None,
) -> OdeSystem:
    """Trace ``rhs(t, y, p)`` for one subject.

    Parameters
    ----------
    rhs : callable
        Returns a dict with one scalar expression per state.
    state_names : sequence of str
    shapes : dict of str to tuple of int
        Shape of each parameter for one subject.
    constant : collection of str
        Parameters without derivatives; they come last in the flat parameter vector.
    changing : dict of str to callable, optional
        As in :class:`RightHandSide`.

    Returns
    -------
    OdeSystem

    Raises
    ------
    TypeError, ValueError
        If the right-hand side does not return one scalar per state, or uses a random variable
        that was not passed through ``params``.
    """
    t = pt.scalar("t", dtype="float64")
    y = {name: pt.scalar(name, dtype="float64") for name in state_names}
    p = {name: pt.TensorType("float64", shape)(name) for name, shape in shapes.items()}
    outputs = _checked(call(rhs, t, y, p), state_names)
    _check_closed(outputs, {t, *y.values(), *p.values()})

    places = flat_places(shapes, constant)
    free = [name for name in places if name not in constant]
    n_dp = sum(math.prod(shapes[name]) for name in free)
    arguments = outputs, t, y, p, places
    sources = _loop_sources(*arguments, free)
    is_wide = sources is not None
    rhs_source, jac_source, vjp_source, not_linear = sources or _scalar_sources(*arguments, n_dp)
    return OdeSystem(
        state_names=tuple(state_names),
        n_p=sum(map(math.prod, shapes.values())),
        n_dp=n_dp,
        rhs_source=rhs_source,
        jac_source=jac_source,
        vjp_source=vjp_source,
        not_linear=not_linear,
        is_wide=is_wide,
        jump=find_jump(outputs, list(y.values()), [p[name] for name in free]),
        graph=RightHandSide(t, y, p, outputs, places, changing or {}),
    )


def _leaves(
    t: Variable,
    y: Mapping[str, TensorVariable],
    p: Mapping[str, TensorVariable],
    places: Mapping[str, int],
) -> dict[Variable, View]:
    """Where inputs stand in the memory of loops."""
    leaves = {t: View("ts", 0, (), ())} | {
        v: View("y", i, (), ()) for i, v in enumerate(y.values())
    }
    return leaves | {
        p[name]: contiguous("p", place, p[name].type.shape) for name, place in places.items()
    }


def _scalar_sources(
    outputs: list[TensorVariable],
    t: TensorVariable,
    y: Mapping[str, TensorVariable],
    p: Mapping[str, TensorVariable],
    places: Mapping[str, int],
    n_dp: int,
) -> tuple[str, str, str, str]:
    """Right-hand side, Jacobian, no product; number by number. And why it is not linear."""
    elements: dict[Variable, np.ndarray] = {
        v: _elements(v, v.type.shape) for v in (t, *y.values(), *p.values())
    }
    dy = [as_scalar(out[()]) for out in lower(outputs, elements)]  # a derivative may be a number
    states = [elements[v].item() for v in y.values()]
    flat = [x for name in places for x in elements[p[name]].ravel()]
    leaves = {elements[t].item(): "t"}
    leaves |= {v: f"y[{i}]" for i, v in enumerate(states)}
    leaves |= {v: f"p[{i}]" for i, v in enumerate(flat)}
    now, printer = elements[t].item(), SourcePrinter(leaves)
    slopes = [differentiate(v, [*states, now, *flat[:n_dp]]) for v in dy]
    return (
        _source(SourcePrinter(leaves), {f"dy[{i}]": v for i, v in enumerate(dy)}),
        _source(printer, _with_derivatives(dy, slopes)),
        "",
        why_not_linear(list(y), now, states, dy, [d[: len(dy) + 1] for d in slopes], printer),
    )


def _loop_sources(
    outputs: list[TensorVariable],
    t: TensorVariable,
    y: Mapping[str, TensorVariable],
    p: Mapping[str, TensorVariable],
    places: Mapping[str, int],
    free: Sequence[str],
) -> tuple[str, str, str, str] | None:
    """Sources as loops; None for a narrow system, and if an operation has no such form."""
    states, n = list(y.values()), len(outputs)
    n_dp = sum(math.prod(p[name].type.shape) for name in free)
    slopes = [(v, View("dy", i, (), ())) for i, v in enumerate(outputs)]

    def derivatives(v: TensorVariable, i: int) -> list[Placed]:
        """Those of ``v``, with row i of the Jacobians as their place."""
        wrt = [*states, *(p[name] for name in free)]
        row: Any = pt.grad(v, wrt, disconnected_inputs="ignore", return_disconnected="zero")
        along_states = [(d, View("jy", i * n + k, (), ())) for k, d in enumerate(row[:n])]
        return along_states + [
            (d, contiguous("jp", i * n_dp + places[name], p[name].type.shape))
            for name, d in zip(free, row[n:], strict=True)
        ]

    try:
        leaves = _leaves(t, y, p, places)
        if _printed(slopes, leaves).work <= MOST_WORK:
            return None
        rows = sum((derivatives(v, i) for i, v in enumerate(outputs)), [])
        vector = [pt.dscalar() for _ in outputs]
        total = sum(factor * v for factor, v in zip(vector, outputs, strict=True))
        factors = {v: View("dy", i, (), ()) for i, v in enumerate(vector)}
        printers = (
            _printed(_simplified(slopes), leaves),
            _printed(_simplified(slopes + rows), leaves),
            _printed(_simplified(derivatives(total, 0)), leaves | factors),
        )
    except UnsupportedOperation:
        return None
    rhs_source, jac_source, vjp_source = (printer.source() for printer in printers)
    return (
        rhs_source,
        jac_source,
        vjp_source,
        "it is computed in loops over tensors, which are not analysed",
    )


def _simplified(pairs: Sequence[Placed]) -> list[Placed]:
    """The same outputs as simpler graphs; this takes half a second, so it is left out for narrow systems."""
    simple: Any = rewrite_graph([v for v, _ in pairs], include=("canonicalize", "stabilize"))
    return [(v, place) for v, (_, place) in zip(simple, pairs, strict=True)]


def _printed(pairs: Sequence[Placed], leaves: Mapping[Variable, View]) -> LoopPrinter:
    """LoopPrinter that has printed what computes outputs."""
    printer = LoopPrinter(leaves)
    printer.store(pairs)
    return printer


def flat_places(
    shapes: Mapping[str, tuple[int, ...]], constant: Collection[str] = ()
) -> dict[str, int]:
    """Where each parameter begins in the flat vector of one subject, in its order: constants come last."""
    ordered = [n for n in shapes if n not in constant] + [n for n in shapes if n in constant]
    ends = np.cumsum([math.prod(shapes[n]) for n in ordered])
    return {n: int(end) - math.prod(shapes[n]) for n, end in zip(ordered, ends, strict=True)}


def _elements(variable: Variable, shape: tuple[int, ...]) -> np.ndarray:
    out = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        out[index] = float64(f"{variable.name}{list(index) if index else ''}")
    return out


def _with_derivatives(
    dy: Sequence[Variable], slopes: Sequence[Sequence[Variable | None]]
) -> dict[str, Variable | None]:
    """Places of the derivatives, and of their slopes along states and parameters."""
    n = len(dy)
    targets: dict[str, Variable | None] = {f"dy[{i}]": v for i, v in enumerate(dy)}
    for i, derivatives in enumerate(slopes):
        targets |= {f"jy[{i}, {j}]": d for j, d in enumerate(derivatives[:n])}
        targets |= {f"jp[{i}, {j}]": d for j, d in enumerate(derivatives[n + 1 :])}
    return targets


def _source(printer: SourcePrinter, targets: Mapping[str, Variable | None]) -> str:
    values = {place: 0.0 if v is None else printer.value(v) for place, v in targets.items()}
    stores = [f"{place} = {number_text(value)}" for place, value in values.items()]
    return "".join(f"    {line}\n" for line in [*interleaved(printer.lines), *stores])


def _checked(result: Any, state_names: Sequence[str]) -> list[TensorVariable]:
    expected = ", ".join(state_names)
    if not isinstance(result, dict):
        raise TypeError(
            f"rhs must return a dict with one expression per state ({expected}); it returned {type(result).__name__}."
        )
    missing = [n for n in state_names if n not in result]
    unknown = [str(n) for n in result if n not in state_names]
    if missing or unknown:
        problems = [f"misses {', '.join(missing)}"] * bool(missing)
        problems += [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(
            f"rhs must return one expression per state of y0 ({expected}); the result {' and '.join(problems)}."
        )
    outputs = []
    for name in state_names:
        out = _as_number(name, result[name])
        if out.type.ndim != 0:
            raise ValueError(
                f"rhs must return a scalar for each state; the derivative of {name!r} has "
                f"{out.type.ndim} dimension(s), static shape {out.type.shape}. Index it (for example [0]) or sum it."
            )
        outputs.append(out.astype("float64"))
    return outputs


def _as_number(name: str, value: Any) -> TensorVariable:
    try:
        out = pt.as_tensor_variable(value)
    except (TypeError, ValueError, NotImplementedError) as error:
        array = (
            " Write pm.math.stack for np.array, and pm.math for functions of NumPy."
            if isinstance(value, np.ndarray)
            else ""
        )
        raise TypeError(
            f"rhs must return an expression for each state; the derivative of {name!r} is {value!r}.{array}"
        ) from error
    if out.type.dtype.startswith("complex"):
        raise TypeError(
            f"rhs must return real numbers; the derivative of {name!r} is {out.type.dtype}."
        )
    return out


def _check_closed(outputs: Sequence[Variable], known: Collection[Variable]) -> None:
    for variable in graph_inputs(outputs, blockers=list(known)):
        if variable not in known and not isinstance(variable, Constant):
            raise ValueError(
                f"rhs uses {variable.name or variable!s}, which is not t, y or p. Pass every "
                "random variable and data container through params, and read it as p.<name>."
            )
