"""The symbols that a right-hand side is called with, and advice for code that treats them as numbers.

A right-hand side is called once, to read its graph. A decision of Python in that call, by ``if``,
``max`` or ``==``, would hold for all times, so it is refused; the message names the function that
decides at each time.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, SimpleNamespace
from typing import Any, NoReturn

import pymc as pm
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from pytensor.graph.utils import MissingInputError
from pytensor.tensor.variable import TensorVariable

__all__ = ["OPERATORS", "Named", "call"]

_LIBRARIES = ("functools", "numpy", "pymc", "pymc_saem", "pytensor", "scipy")
_ADVICE = (
    "Its arguments are symbols, not numbers: it is called once, to read its graph. Write pm.math.switch(condition, a, b) for if, and "
    "pm.math.and_, pm.math.or_, pm.math.invert, pm.math.eq for and, or, not, == (for a < x < b: pm.math.and_(a < x, x < b)); "
    "pm.math.maximum, pm.math.minimum, pm.math.clip for max, min and their NumPy forms; pm.math.exp and its like for math.exp and np.exp; "
    "pm.math.stack for np.array; interpolate(table) for a curve of data. A state is y.name, not y."
)
_NOT_CALLED = "A state is y.name and a parameter p.name, without (t); only a covariate of interpolate(table) is called with t."
# What PyTensor and NumPy say when a symbol should be a number.
_NO_NUMBER = re.compile(
    r"converted to Python|ufunc|__round__|must be real number|setting an array element|unexpected keyword argument 'out'"
    r"|cannot be interpreted as an integer|boolean operations|Cannot cast array data|indices must be integers|valid indices"
    r"|compares Python objects|'Named'|__format__|len\(\)|Expected an integer|BitOp"
)
# And when it cannot do what is asked for.
_NO_SYMBOL = re.compile(
    r"_Symbol|Tensor(Variable|Type)|tensor variable|Undeclared input|not callable|operand type"
)
_ERRORS = (
    TypeError,
    ValueError,
    IndexError,
    KeyError,
    AttributeError,
    NotImplementedError,
    MissingInputError,
)
#: Python's names of what can be done with numbers, but for == and !=.
OPERATORS = (
    *(
        "add",
        "radd",
        "sub",
        "rsub",
        "mul",
        "rmul",
        "truediv",
        "rtruediv",
        "floordiv",
        "rfloordiv",
        "mod",
        "rmod",
        "pow",
        "rpow",
    ),
    *(
        "neg",
        "pos",
        "abs",
        "lt",
        "le",
        "gt",
        "ge",
        "and",
        "rand",
        "or",
        "ror",
        "xor",
        "rxor",
        "invert",
        "getitem",
        "matmul",
        "rmatmul",
    ),
)


class _Symbol(TensorVariable):
    """A variable that refuses ``==``, which compares objects and would be False; and so do sums, products and parts of it."""

    __hash__ = TensorVariable.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other if _is_library(sys._getframe(1)) else _refuse("==", "eq")

    def __ne__(self, other: object) -> bool:
        return self is not other if _is_library(sys._getframe(1)) else _refuse("!=", "neq")


def _refuse(operator: str, function: str) -> NoReturn:
    raise TypeError(
        f"{operator} compares Python objects, not values; write pm.math.{function}(a, b)."
    )


def _passed_on(name: str) -> Callable[..., Any]:
    method = getattr(TensorVariable, name)

    def operator(self: TensorVariable, *args: Any) -> Any:
        result = method(self, *args)
        if type(result) is TensorVariable:
            result.__class__ = _Symbol
        return result

    return operator


for _name in (f"__{name}__" for name in OPERATORS):
    if hasattr(TensorVariable, _name):
        setattr(_Symbol, _name, _passed_on(_name))


def _is_library(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES


class Named(SimpleNamespace):
    """Values by attribute or by name in brackets; the error for an unknown name lists those that exist."""

    __slots__ = ("_what",)  # not in vars()

    def __init__(self, argument: str, kind: str, values: Mapping[str, Any]) -> None:
        super().__init__(**values)
        self._what = argument, kind

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # of Python's own protocols
            raise AttributeError(name)
        argument, _ = self._what
        raise AttributeError(self._unknown(f"{argument}.{name}"))

    def __getitem__(self, name: str) -> Any:
        if isinstance(name, str) and name in vars(self):
            return vars(self)[name]
        argument, _ = self._what
        example = next(iter(vars(self)), "name")
        written = (
            ""
            if isinstance(name, str)
            else f" They have names, not places: write {argument}.{example}."
        )
        raise KeyError(self._unknown(f"{argument}[{name!r}]") + written)

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def __len__(self) -> int:
        return len(vars(self))

    def _unknown(self, asked: str) -> str:
        _, kind = self._what
        # those with _ are added by events
        known = [name for name in vars(self) if not name.startswith("_")]
        return f"the right-hand side uses {asked}, but the {kind} are {', '.join(known) or 'none'}."


def call(
    rhs: Callable[..., Any],
    t: TensorVariable,
    y: Mapping[str, TensorVariable],
    p: Mapping[str, TensorVariable],
) -> Any:
    """What ``rhs(t, y, p)`` returns.

    Parameters
    ----------
    rhs : callable
    t : TensorVariable
    y, p : dict of str to TensorVariable

    Raises
    ------
    TypeError
        If it uses a symbol as a number; the message has the line, and what to write instead.
    """
    leaves = [t, *y.values(), *p.values()]
    for leaf in leaves:
        leaf.__class__ = _Symbol
    result = None
    try:
        result = rhs(t, Named("y", "states", y), Named("p", "params", p))
    except _ERRORS as error:
        explained = _explained(error)
        if explained is None:
            raise
        raise explained from error
    finally:
        outputs = result.values() if isinstance(result, dict) else [result]
        reached = ancestors([*leaves, *(v for v in outputs if isinstance(v, Variable))])
        symbols: list[TensorVariable] = [v for v in reached if type(v) is _Symbol]
        for symbol in symbols:
            symbol.__class__ = TensorVariable
    return result


def _explained(error: Exception) -> Exception | None:
    """The error to raise instead; None if this one does not come from a symbol."""
    if isinstance(error, AttributeError) and error.obj is pm.math and error.name == "softplus":
        return AttributeError(
            "This PyMC has no pm.math.softplus; pymc_saem.nn.softplus is the same on every PyMC."
        )
    text, is_key = str(error), error.args and isinstance(error.args[0], Variable)
    if is_key or _NO_NUMBER.search(text):
        return TypeError(
            f"{_place(error, 'uses a symbol as a number')}: {text.rstrip('.')}. {_ADVICE}"
        )
    if _NO_SYMBOL.search(text):
        text = (
            text.partition("\n")[0]
            .replace("'_Symbol' object", "a symbol")
            .replace("_Symbol", "symbol")
        )
        advice = _NOT_CALLED if "not callable" in text else _ADVICE
        return TypeError(f"{_place(error, 'cannot be read')}: {text.rstrip('.')}. {advice}")
    return None


def _place(error: Exception, what: str) -> str:
    """Where in the user's code an error came up."""
    own = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if not _is_library(frame)]
    steps = [
        step
        for step in traceback.extract_tb(error.__traceback__)
        if own and step.filename == own[-1].f_code.co_filename
    ]
    if not steps:
        return f"The right-hand side {what}"
    step = steps[-1]
    shown = f", `{step.line}`" if step.line else ""
    return f"The right-hand side {what} in line {step.lineno} of {step.filename}{shown}"
