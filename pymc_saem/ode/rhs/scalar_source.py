"""Print scalar variables as straight-line Python source that Numba compiles.

Equal expressions are printed once, products with zero and one disappear, and softplus and sigmoid
use forms that cannot overflow. The text depends on the graph alone, so it identifies a system.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.traversal import toposort

from pymc_saem.ode.rhs.lower import UnsupportedOperation

__all__ = ["SourcePrinter", "interleaved", "number_text"]

# By class name of the scalar operation; the arguments are names or numbers.
_CALLS = {
    "Exp": "math.exp",
    "Expm1": "math.expm1",
    "Log": "math.log",
    "Log1p": "math.log1p",
    "Log2": "math.log2",
    "Log10": "math.log10",
    "Sqrt": "math.sqrt",
    "Sinh": "math.sinh",
    "Cosh": "math.cosh",
    "Sin": "math.sin",
    "Cos": "math.cos",
    "Tan": "math.tan",
    "ArcSin": "math.asin",
    "ArcCos": "math.acos",
    "ArcTan": "math.atan",
    "ArcTan2": "math.atan2",
    "ArcSinh": "math.asinh",
    "ArcCosh": "math.acosh",
    "ArcTanh": "math.atanh",
    "Erf": "math.erf",
    "Erfc": "math.erfc",
    "GammaLn": "math.lgamma",
    "Gamma": "math.gamma",
    "Psi": "digamma",
    "PolyGamma": "polygamma",
    "IsNan": "math.isnan",
    "IsInf": "math.isinf",
    "Abs": "abs",
}
_TEMPLATES = {
    "Exp2": "2.0 ** {0}",
    "TriGamma": "polygamma(1.0, {0})",
    "LT": "{0} < {1}",
    "GT": "{0} > {1}",
    "LE": "{0} <= {1}",
    "GE": "{0} >= {1}",
    "EQ": "{0} == {1}",
    "NEQ": "{0} != {1}",
    "AND": "{0} and {1}",
    "OR": "{0} or {1}",
    "XOR": "{0} != {1}",
    "Invert": "not {0}",
    "IntDiv": "{0} // {1}",
    "Mod": "{0} % {1}",
    # The last comparison hands on NaN from either side, as NumPy does.
    "Maximum": "{0} if {0} >= {1} or {0} != {0} else {1}",
    "Minimum": "{0} if {0} <= {1} or {0} != {0} else {1}",
    "Clip": "{1} if {0} < {1} else ({2} if {0} > {2} else {0})",
    "Sign": "1.0 if {0} > 0.0 else (-1.0 if {0} < 0.0 else 0.0 * {0})",
    "Floor": "float(math.floor({0}))",
    "Ceil": "float(math.ceil({0}))",
    "Trunc": "float(math.trunc({0}))",
    "RoundHalfToEven": "float(round({0}))",
}


# 2 atanh(s) / s on s in [0, 1/3] as a polynomial of s^2 through the Chebyshev points: relative
# error 5e-17.
_ATANH = (
    2.0,
    0.6666666666668256,
    0.39999999995290236,
    0.28571429111441066,
    0.22222190870063585,
    0.18182859603344237,
    0.15363678882032433,
    0.13591284804683307,
    0.09880877506218333,
    0.17780604660041638,
)


#: The text of a name or an expression, or a number.
Printed: TypeAlias = str | float


class SourcePrinter:
    """Collects assignments; equal right-hand sides share one name.

    Parameters
    ----------
    leaves : dict of Variable to str
        Source text of each input element, for example ``"y[0]"``.
    """

    def __init__(self, leaves: Mapping[Variable, str]) -> None:
        self.leaves = leaves
        self.names: dict[str, str] = {}  # expression text -> name
        self.lines: list[str] = []
        self.printed: dict[Variable, Printed] = {}

    def emit(self, text: str, prefix: str = "v") -> str:
        """Name of the variable that holds ``text``."""
        if text not in self.names:
            self.names[text] = name = f"{prefix}{len(self.names)}"
            self.lines.append(f"{name} = {text}")
        return self.names[text]

    def value(self, variable: Variable) -> Printed:
        """Name or number (float) of a scalar variable, printing what it needs."""
        for node in toposort([variable], blockers=list(self.printed)):
            # The first output suffices: scalar operations of interest have one.
            self.printed[node.outputs[0]] = self._node(node)
        return self._leaf(variable)

    def _leaf(self, variable: Variable) -> Printed:
        if variable not in self.printed:
            if isinstance(variable, Constant):
                self.printed[variable] = float(variable.data)
            else:
                self.printed[variable] = self.emit(self.leaves[variable])
        return self.printed[variable]

    def _node(self, node: Apply) -> Printed:
        kind = type(node.op).__name__
        # Derivatives write zeros as second(x, 0): x need not be printed.
        if kind == "Second":
            return self._leaf(node.inputs[1])
        args = [self._leaf(v) for v in node.inputs]
        rule = getattr(self, f"_print_{kind.lower()}", None)
        if rule is not None:
            return rule(*args) if kind != "Cast" else self._print_cast(args[0], node)
        texts = [number_text(a) for a in args]
        if kind in _CALLS:
            return self.emit(f"{_CALLS[kind]}({', '.join(texts)})")
        if kind in _TEMPLATES:
            return self.emit(_TEMPLATES[kind].format(*texts))
        raise UnsupportedOperation(f"the scalar operation {node.op} ({kind})")

    def _print_add(self, *args: Printed) -> Printed:
        number = sum(a for a in args if isinstance(a, float))
        names = [a for a in args if not isinstance(a, float)]
        if not names:
            return float(number)
        total = names[0]
        for name in names[1:]:
            total = self.emit(" + ".join(sorted((total, name))))
        return total if number == 0 else self.emit(f"{total} + {number_text(number)}")

    def _print_mul(self, *args: Printed) -> Printed:
        number = math.prod(a for a in args if isinstance(a, float))
        names = [a for a in args if not isinstance(a, float)]
        if number == 0 or not names:
            return float(number)
        total = names[0]
        for name in names[1:]:
            total = self.emit(" * ".join(sorted((total, name))))
        if number == 1:
            return total
        return (
            self._print_neg(total)
            if number == -1
            else self.emit(f"{total} * {number_text(number)}")
        )

    def _print_sub(self, a: Printed, b: Printed) -> Printed:
        if isinstance(b, float):
            return self._print_add(a, -b)
        return self._print_neg(b) if a == 0.0 else self.emit(f"{number_text(a)} - {b}")

    def _print_neg(self, a: Printed) -> Printed:
        return -a if isinstance(a, float) else self.emit(f"-{a}")

    def _print_truediv(self, a: Printed, b: Printed) -> Printed:
        if a == 0.0 or b == 1.0:
            return a
        if isinstance(a, float) and isinstance(b, float) and b != 0:
            return a / b
        return self.emit(f"{number_text(a)} / {number_text(b)}")

    def _print_reciprocal(self, a: Printed) -> Printed:
        return self._print_truediv(1.0, a)

    def _print_sqr(self, a: Printed) -> Printed:
        return self._print_mul(a, a)

    def _print_pow(self, a: Printed, b: Printed) -> Printed:
        simple = {0.0: lambda: 1.0, 1.0: lambda: a, 2.0: lambda: self._print_mul(a, a)}
        if b in simple:
            return simple[b]()
        if b == 0.5:
            return self.emit(f"math.sqrt({number_text(a)})")
        if isinstance(b, float) and b.is_integer() and abs(b) < 16:
            return self.emit(
                f"{number_text(a)} ** {int(b)}" if b > 0 else f"1.0 / {number_text(a)} ** {int(-b)}"
            )
        return self.emit(f"{number_text(a)} ** {number_text(b)}")

    def _print_identity(self, a: Printed) -> Printed:
        return a

    def _print_cast(self, a: Printed, node: Apply) -> Printed:
        source, target = node.inputs[0].type.dtype, node.outputs[0].type.dtype
        if target == "bool" and source != "bool":
            return self.emit(f"{number_text(a)} != 0.0")
        if target.startswith(("int", "uint")) and source.startswith("float"):
            return self.emit(f"float(math.trunc({number_text(a)}))")
        return a

    def _print_switch(self, condition: Printed, a: Printed, b: Printed) -> Printed:
        if isinstance(condition, float):
            return a if condition else b
        return a if a == b else self.emit(f"{number_text(a)} if {condition} else {number_text(b)}")

    def _print_sigmoid(self, a: Printed) -> Printed:
        small = self.emit(f"exp_of_negative(-abs({number_text(a)}))")
        share = self.emit(f"1.0 / (1.0 + {small})")
        return self.emit(f"{share} if {number_text(a)} >= 0.0 else {small} * {share}")

    def _print_tanh(self, a: Printed) -> Printed:
        # Twice as fast as the library's, and as accurate absolutely; the relative accuracy of
        # results near zero is lost, which an added bias or state does not have either.
        small = self.emit(f"exp_of_negative(-2.0 * abs({number_text(a)}))")
        return self.emit(f"math.copysign((1.0 - {small}) / (1.0 + {small}), {number_text(a)})")

    def _print_softplus(self, a: Printed) -> Printed:
        small = self.emit(f"exp_of_negative(-abs({number_text(a)}))")
        rest = self._log1p_of_unit(small)
        return self.emit(f"{number_text(a)} + {rest} if {number_text(a)} > 0.0 else {rest}")

    def _log1p_of_unit(self, x: str) -> str:
        """log(1 + x) for x in [0, 1] as 2 atanh(x / (2 + x)): within 3 units in the last place.

        Straight-line arithmetic, which the compiler interleaves and vectorizes; the library's log1p
        is a call.
        """
        s = self.emit(f"{x} / (2.0 + {x})")
        power, terms = self.emit(f"{s} * {s}"), list(map(repr, _ATANH))
        while len(terms) > 1:  # Estrin's scheme: pairs, pairs of pairs, ...
            pairs = zip(terms[::2], terms[1::2], strict=False)
            terms = [self.emit(f"{a} + {power} * {b}") for a, b in pairs] + terms[
                len(terms) // 2 * 2 :
            ]
            power = self.emit(f"{power} * {power}")
        return self.emit(f"{s} * {terms[0]}")

    def _print_log1mexp(self, a: Printed) -> Printed:
        return self.emit(
            f"math.log1p(-math.exp({number_text(a)})) if {number_text(a)} < -0.6931471805599453 "
            f"else math.log(-math.expm1({number_text(a)}))"
        )


_NAME = re.compile(r"\bv\d+\b")


def interleaved(lines: Sequence[str]) -> list[str]:
    """Assignments in the order of their depth: what can run at the same time stands side by side.

    Printed depth first, one network's chain of exponentials and divisions would finish before the
    next one starts, and the processor, which looks ahead a few hundred instructions, would wait for
    each.
    """
    depth: dict[str, int] = {}
    for line in lines:
        name, text = line.split(" = ", 1)
        depth[name] = 1 + max((depth[other] for other in _NAME.findall(text)), default=0)
    return sorted(lines, key=lambda line: depth[line.split(" = ", 1)[0]])


def number_text(value: Printed) -> str:
    """Source text of a name or a number."""
    if not isinstance(value, float):
        return value
    if math.isfinite(value):
        return repr(value) if value >= 0 else f"({value!r})"
    return "math.nan" if math.isnan(value) else f"({'-' if value < 0 else ''}math.inf)"
