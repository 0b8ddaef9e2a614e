"""A system of differential equations: the user's right-hand side, traced once and compiled.

``trace`` calls the right-hand side with PyTensor symbols and returns an :class:`OdeSystem`, a frozen
text that hashes, compares and pickles. ``compile_system`` turns it into Numba functions, once per
process and only when something is solved.
"""

import math
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import SimpleNamespace

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import graph_inputs
from pytensor.scalar import as_scalar, float64

from pymc_saem.ode.linear_form import why_not_linear
from pymc_saem.ode.lower import differentiate, lower
from pymc_saem.ode.source import SourcePrinter, _text, interleaved

_ELEMENT = re.compile(r"\b(dy|jy|jp|y|p)\[(\d+)(?:, (\d+))?\]")

__all__ = ["CompiledRhs", "OdeSystem", "compile_system", "flat_places", "trace"]


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
    not_linear : str
        Why this is not A(p) y + b(p); empty if it is.
    """

    state_names: tuple
    n_p: int
    n_dp: int
    rhs_source: str = field(repr=False)
    jac_source: str = field(repr=False)
    not_linear: str = field(repr=False)

    @property
    def n_states(self):
        """int: number of states."""
        return len(self.state_names)


class CompiledRhs:
    """Machine code of one system by address, compiled when first used."""

    def __init__(self, system):
        self.system = system
        self.n_states = system.n_states
        self.n_p = system.n_p
        self.n_dp = system.n_dp
        self._handles = []

    @cached_property
    def rhs(self):
        """Numba function ``rhs(t, y, p, dy)`` for one subject, which sunode's solvers take."""
        return _compile("rhs", "t, y, p, dy", self.system.rhs_source)

    @cached_property
    def jac(self):
        """The same with the Jacobians: ``jac(t, y, p, dy, jy, jp)``, shapes as in ``lanes_jac_address``."""
        return _compile("jac", "t, y, p, dy, jy, jp", self.system.jac_source)

    @cached_property
    def lanes_rhs_address(self):
        """int: address of ``rhs(lanes, n_dy0, t, z, p, dz, jy, jp)`` for several subjects.

        Element m of lane l is at ``m * lanes + l``; only the first n_states elements of z and dz are used.
        """
        return self._lanes("rhs", self.system.rhs_source, "")

    @cached_property
    def lanes_jac_address(self):
        """int: the same with sensitivities (n_states, n_dy0 + n_dp) behind the states, and the Jacobians ``jy``, ``jp``.

        ``jy`` is (n_states, n_states) and ``jp`` (n_states, n_dp). With ``n_dy0 = -n_dp`` there are no sensitivities.
        """
        sizes = f"    n, n_dp = {self.n_states}, {self.n_dp}\n"
        return self._lanes("jac", self.system.jac_source, sizes + _SENSITIVITIES)

    def _lanes(self, name, source, rest):
        from numba import cfunc, types

        from pymc_saem.ode.native import FLOATING

        columns = {"jy": self.n_states, "jp": self.n_dp}

        def place(match):
            array, i, j = match.groups()
            element = int(i) if j is None else int(i) * columns[array] + int(j)
            return f"{array}[{element} * lanes + lane]"

        lines = "".join(f"    {line}\n" for line in _ELEMENT.sub(place, source).splitlines())
        # The number of lanes is not a constant: the compiler would unroll a short constant loop before it
        # could vectorize it.
        body = f"    for lane in range(lanes):\n        t = ts[lane]\n{lines}{rest}    return 0\n"
        function = python_function(name, "lanes, n_dy0, ts, y, p, dy, jy, jp", body)
        handle = cfunc(types.int64(*[types.int64] * 2, *[types.CPointer(types.float64)] * 6), **FLOATING)(function)
        self._handles.append(handle)  # the code lives as long as its handle
        return handle.address


# dS/dt = (df/dy) S + df/dp; S has a column per differentiable entry of y0, then per parameter.
_SENSITIVITIES = """
    n_sens = n_dy0 + n_dp
    for i in range(n if n_sens else 0):
        row = (n + i * n_sens) * lanes
        parameters = row + n_dy0 * lanes
        for m in range(row, parameters):
            dy[m] = 0.0
        for m in range(n_dp * lanes):
            dy[parameters + m] = jp[i * n_dp * lanes + m]
        for k in range(n):
            other = (n + k * n_sens) * lanes
            for j in range(n_sens):
                for lane in range(lanes):
                    dy[row + j * lanes + lane] += jy[(i * n + k) * lanes + lane] * y[other + j * lanes + lane]
"""


@cache
def compile_system(system):
    """The :class:`CompiledRhs` of a system; the same object for equal systems."""
    return CompiledRhs(system)


def python_function(name, arguments, source):
    """The plain Python function with this body."""
    from pymc_saem.ode import elementary

    namespace = {"math": math, "elementary_exp": elementary.exp, "elementary_log": elementary.log}
    namespace["exp_of_negative"] = elementary.exp_of_negative
    source = source.replace("math.exp(", "elementary_exp(").replace("math.log(", "elementary_log(")
    code = f"def {name}({arguments}):\n{source}"
    exec(compile(code, f"<pymc_saem ode {name}>", "exec"), namespace)
    return namespace[name]


def _compile(name, arguments, source):
    import numba

    from pymc_saem.ode.native import FLOATING

    return numba.njit(nogil=True, **FLOATING)(python_function(name, arguments, source))


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
    dy = [as_scalar(out[()]) for out in lower(outputs, elements)]  # a derivative may be a number

    states = [elements[y[name]].item() for name in state_names]
    flat = [x for name in flat_places(shapes, constant) for x in elements[p[name]].ravel()]
    n_dp = sum(elements[p[name]].size for name in shapes if name not in constant)
    leaves = {elements[t].item(): "t"}
    leaves |= {v: f"y[{i}]" for i, v in enumerate(states)}
    leaves |= {v: f"p[{i}]" for i, v in enumerate(flat)}
    now, printer = elements[t].item(), SourcePrinter(leaves)
    slopes = [differentiate(v, [*states, now, *flat[:n_dp]]) for v in dy]
    return OdeSystem(
        state_names=tuple(state_names),
        n_p=len(flat),
        n_dp=n_dp,
        rhs_source=_source(SourcePrinter(leaves), {f"dy[{i}]": v for i, v in enumerate(dy)}),
        jac_source=_source(printer, _with_derivatives(dy, slopes)),
        not_linear=why_not_linear(state_names, now, states, dy, [d[: len(dy) + 1] for d in slopes], printer),
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


def _with_derivatives(dy, slopes):
    """Places of the derivatives, and of their slopes along states and parameters."""
    targets, n = {f"dy[{i}]": v for i, v in enumerate(dy)}, len(dy)
    for i, derivatives in enumerate(slopes):
        targets |= {f"jy[{i}, {j}]": d for j, d in enumerate(derivatives[:n])}
        targets |= {f"jp[{i}, {j}]": d for j, d in enumerate(derivatives[n + 1 :])}
    return targets


def _source(printer, targets):
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
