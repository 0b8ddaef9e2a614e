"""A system of differential equations: the user's right-hand side, traced once.

``trace`` calls the right-hand side with PyTensor symbols and returns an :class:`OdeSystem`, a frozen
text that hashes, compares and pickles. `compiled` turns it into machine code.
"""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import graph_inputs
from pytensor.scalar import float64

from pymc_saem.ode.lower import differentiate, lower
from pymc_saem.ode.source import SourcePrinter, _text, interleaved

__all__ = ["OdeSystem", "flat_places", "trace"]


@dataclass(frozen=True)
class OdeSystem:
    """Source text of a system and its sizes; everything needed to rebuild the compiled code.

    Attributes
    ----------
    state_names : tuple of str
    n_p : int
        Length of the flat parameter vector of one subject: differentiable, then constant.
    n_dp : int
        Number of differentiable parameters.
    rhs_source, jac_source : str
        Bodies of ``rhs(t, y, p, dy)`` and ``jac(t, y, p, dy, jy, jp)``.
    """

    state_names: tuple
    n_p: int
    n_dp: int
    rhs_source: str = field(repr=False)
    jac_source: str = field(repr=False)

    @property
    def n_states(self):
        """int: number of states."""
        return len(self.state_names)


def trace(rhs, state_names, shapes, constant=()):
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
    p = {name: pt.tensor(name, dtype="float64", shape=shape) for name, shape in shapes.items()}
    result = rhs(t, SimpleNamespace(**y), SimpleNamespace(**p))
    outputs = _checked(result, state_names)
    _check_closed(outputs, {t, *y.values(), *p.values()})

    elements = {v: _elements(v, shape) for v, shape in [(t, ()), *((s, ()) for s in y.values())]}
    elements |= {p[name]: _elements(p[name], shape) for name, shape in shapes.items()}
    dy = [out.item() for out in lower(outputs, elements)]

    states = [elements[y[name]].item() for name in state_names]
    flat = [x for name in flat_places(shapes, constant) for x in elements[p[name]].ravel()]
    n_dp = sum(elements[p[name]].size for name in shapes if name not in constant)
    leaves = {elements[t].item(): "t"}
    leaves |= {v: f"y[{i}]" for i, v in enumerate(states)}
    leaves |= {v: f"p[{i}]" for i, v in enumerate(flat)}
    return OdeSystem(
        state_names=tuple(state_names),
        n_p=len(flat),
        n_dp=n_dp,
        rhs_source=_source(leaves, {f"dy[{i}]": v for i, v in enumerate(dy)}),
        jac_source=_source(leaves, _with_derivatives(dy, states, flat[:n_dp])),
    )


def flat_places(shapes, constant=()):
    """Where each parameter begins in the flat vector of one subject, in its order: constants come last."""
    ordered = [n for n in shapes if n not in constant] + [n for n in shapes if n in constant]
    ends = np.cumsum([math.prod(shapes[n]) for n in ordered])
    return {n: int(end) - math.prod(shapes[n]) for n, end in zip(ordered, ends, strict=True)}


def _elements(variable, shape):
    out = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        out[index] = float64(f"{variable.name}{list(index) if index else ''}")
    return out


def _with_derivatives(dy, states, parameters):
    targets = {f"dy[{i}]": v for i, v in enumerate(dy)}
    for i, v in enumerate(dy):
        derivatives = differentiate(v, [*states, *parameters])
        for j, d in enumerate(derivatives):
            place = f"jy[{i}, {j}]" if j < len(states) else f"jp[{i}, {j - len(states)}]"
            targets[place] = d
    return targets


def _source(leaves, targets):
    printer = SourcePrinter(leaves)
    values = {place: 0.0 if v is None else printer.value(v) for place, v in targets.items()}
    stores = [f"{place} = {_text(value)}" for place, value in values.items()]
    return "".join(f"    {line}\n" for line in [*interleaved(printer.lines), *stores])


def _checked(result, state_names):
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
        out = pt.as_tensor_variable(result[name])
        if out.type.ndim != 0:
            raise ValueError(
                f"rhs must return a scalar for each state; the derivative of {name!r} has "
                f"{out.type.ndim} dimension(s), static shape {out.type.shape}. Index it (for example [0]) or sum it."
            )
        outputs.append(out.astype("float64"))
    return outputs


def _check_closed(outputs, known):
    for variable in graph_inputs(outputs, blockers=list(known)):
        if variable not in known and not isinstance(variable, Constant):
            raise ValueError(
                f"rhs uses {variable.name or variable!s}, which is neither t, y nor p. Pass every "
                "random variable and data container through params, and read it as p.<name>."
            )
