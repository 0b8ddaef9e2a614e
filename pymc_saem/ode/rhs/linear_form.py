"""Whether a right-hand side is linear in the states with constant coefficients, f = A(p) y + b(p); if not, why.

Decided on the scalars that ``lower`` makes and on their derivatives as they are printed: f is
linear when no df/dy depends on a state or on t, df/dt is zero, and f does not jump (a jump has the
slope zero, like a constant). So the way it is written does not matter: sums, products and quotients
with parameters, ``pt.dot``, indexing and nonlinear functions of parameters are all fine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import toposort

from pymc_saem.ode.rhs.scalar_source import SourcePrinter

__all__ = ["why_not_linear"]

# Operations, by class name, whose derivative is zero or does not show their jumps and kinks.
_JUMPS = {
    "Abs", "AND", "Ceil", "Clip", "EQ", "Floor", "GE", "GT", "IntDiv", "Invert", "IsInf", "IsNan", "LE", "LT", "Maximum",
    "Minimum", "Mod", "NEQ", "OR", "RoundHalfToEven", "Sign", "Trunc", "XOR",
}  # fmt: skip
_NAME = re.compile(r"\bv\d+\b")
_MOVING = re.compile(r"\bt\b|\by\[(\d+)\]")


def why_not_linear(
    state_names: Sequence[str],
    t: Variable,
    states: Sequence[Variable],
    dy: Sequence[Variable],
    slopes: Sequence[Sequence[Variable | None]],
    printer: SourcePrinter,
) -> str:
    """The reason why a system is not linear with constant coefficients; empty if it is.

    Parameters
    ----------
    state_names : sequence of str
    t : Variable
    states, dy : list of Variable
    slopes : list of list of Variable or None
        Of each derivative: its derivatives with respect to the states, and last to t.
    printer : SourcePrinter
        It has printed the derivatives with respect to the states.

    Returns
    -------
    str
    """
    names = {t: "t"} | {v: repr(name) for v, name in zip(states, state_names, strict=True)}
    for state, output in zip(state_names, dy, strict=True):
        operation, what = _jump(output, names)
        if operation:
            return f"the derivative of {state!r} takes {operation} of something that changes with {what}"
    of_name: dict[str, set[str]] = {}
    for state, row in zip(state_names, slopes, strict=True):
        for other, slope in zip(state_names, row[:-1], strict=True):
            moving = [] if slope is None else _moving(printer, slope, state_names, of_name)
            if moving:
                return (
                    f"the derivative of {state!r} is not linear in {other!r}: its slope changes with {', '.join(moving)}"
                    if moving != ["t"]
                    else f"in the derivative of {state!r}, the factor of {other!r} depends on t"
                )
    for state, row in zip(state_names, slopes, strict=True):
        if row[-1] is not None and printer.value(row[-1]) != 0.0:
            return f"the derivative of {state!r} depends on t"
    return ""


def _jump(output: Variable, names: Mapping[Variable, str]) -> tuple[str, str]:
    """The first operation with jumps or kinks in something that moves, and what moves it; else empty."""
    moves = dict(names)
    for node in toposort([output], blockers=list(names)):
        what = next((moves[v] for v in node.inputs if v in moves), "")
        if not what:
            continue
        kind = type(node.op).__name__
        target = node.outputs[0].type.dtype
        if kind in _JUMPS or (kind == "Cast" and not target.startswith("float")):
            return kind.lower(), what
        moves |= dict.fromkeys(node.outputs, what)
    return "", ""


def _moving(
    printer: SourcePrinter,
    variable: Variable,
    state_names: Sequence[str],
    of_name: dict[str, set[str]],
) -> list[str]:
    """Names of the states, and t, on which a printed variable depends."""
    value = 0.0 if isinstance(variable, Constant) else printer.value(variable)
    if isinstance(value, float):
        return []
    texts = dict(line.split(" = ", 1) for line in printer.lines[len(of_name) :])
    for name, text in texts.items():  # in the order in which they were printed
        found = {m.group(1) or "t" for m in _MOVING.finditer(text)}
        of_name[name] = found.union(*(of_name[n] for n in _NAME.findall(text)))
    found = of_name[value]
    return [repr(s) for i, s in enumerate(state_names) if str(i) in found] + ["t"] * ("t" in found)
