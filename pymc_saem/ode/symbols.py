"""The symbols that a right-hand side is called with, and what to write where it treats them as numbers.

A right-hand side is called once, to read its graph. What Python decides in that call, by ``if``, ``max`` or ``==``, would
be decided for ever, so it is refused, with the function that decides at each time.
"""

import re
import sys
import traceback
from types import SimpleNamespace

import pymc as pm
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

__all__ = ["Named", "call"]

_LIBRARIES = ("numpy", "pymc", "pymc_saem", "pytensor", "scipy")
_ADVICE = (
    "Its arguments are symbols, not numbers: it is called once, to read its graph. Write pm.math.switch(condition, a, b) for if, and "
    "pm.math.and_, pm.math.or_, pm.math.invert, pm.math.eq for and, or, not, == (for a < x < b: pm.math.and_(a < x, x < b)); "
    "pm.math.maximum, pm.math.minimum, pm.math.clip for max, min and their NumPy forms; pm.math.exp and its like for math.exp and np.exp; "
    "interpolate(table) for a curve of data. A state is y.name, not y."
)
# What PyTensor and NumPy say when a symbol should be a number.
_NO_NUMBER = re.compile(
    r"converted to Python|ufunc|__round__|must be real number|setting an array element|unexpected keyword argument 'out'"
    r"|cannot be interpreted as an integer|boolean operations|Cannot cast array data|indices must be integers|valid indices"
    r"|compares Python objects|'Named'"
)
_OPERATORS = (
    *("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "rfloordiv", "mod", "rmod", "pow", "rpow"),
    *("neg", "abs", "lt", "le", "gt", "ge", "and", "rand", "or", "ror", "xor", "rxor", "invert", "getitem", "matmul", "rmatmul"),
)


class _Symbol(TensorVariable):
    """A variable that refuses ``==``, which compares objects and would be False; and so do sums, products and parts of it."""

    __hash__ = TensorVariable.__hash__

    def __eq__(self, other):
        return self is other if _is_library(sys._getframe(1)) else _refuse("==", "eq")

    def __ne__(self, other):
        return self is not other if _is_library(sys._getframe(1)) else _refuse("!=", "neq")


def _refuse(operator, function):
    raise TypeError(f"{operator} compares Python objects, not values; write pm.math.{function}(a, b).")


def _passed_on(name):
    method = getattr(TensorVariable, name)

    def operator(self, *args):
        result = method(self, *args)
        if type(result) is TensorVariable:
            result.__class__ = _Symbol
        return result

    return operator


for _name in (f"__{name}__" for name in _OPERATORS):
    if hasattr(TensorVariable, _name):
        setattr(_Symbol, _name, _passed_on(_name))


def _is_library(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES


class Named(SimpleNamespace):
    """Values by attribute or by name in brackets, which names those that exist when another is asked for."""

    __slots__ = ("_what",)  # not in vars()

    def __init__(self, argument, kind, values):
        super().__init__(**values)
        self._what = argument, kind

    def __getattr__(self, name):
        if name.startswith("__"):  # of Python's own protocols
            raise AttributeError(name)
        argument, kind = self._what
        known = ", ".join(vars(self)) or "none"
        raise AttributeError(f"the right-hand side asks for {argument}.{name}, but the {kind} are {known}.")

    def __getitem__(self, name):
        if name not in vars(self):
            argument, kind = self._what
            known = ", ".join(vars(self)) or "none"
            raise KeyError(f"the right-hand side asks for {argument}[{name!r}], but the {kind} are {known}.")
        return vars(self)[name]

    def __iter__(self):
        return iter(vars(self))


def call(rhs, t, y, p):
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
    for v in leaves:
        v.__class__ = _Symbol
    result = None
    try:
        result = rhs(t, Named("y", "states", y), Named("p", "params", p))
    except (TypeError, ValueError, IndexError, KeyError) as error:
        if _NO_NUMBER.search(str(error)) or (error.args and isinstance(error.args[0], Variable)):
            raise TypeError(f"{_place(error)}: {error} {_ADVICE}") from error
        raise
    except AttributeError as error:
        if error.obj is pm.math and error.name == "softplus":
            raise AttributeError("This PyMC has no pm.math.softplus; pymc_saem.nn.softplus is the same on every PyMC.") from error
        raise
    finally:
        outputs = result.values() if isinstance(result, dict) else [result]
        for v in ancestors([*leaves, *(v for v in outputs if isinstance(v, Variable))]):
            if type(v) is _Symbol:
                v.__class__ = TensorVariable
    return result


def _place(error):
    """Where in the user's code an error came up."""
    own = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if not _is_library(frame)]
    steps = [step for step in traceback.extract_tb(error.__traceback__) if own and step.filename == own[-1].f_code.co_filename]
    if not steps:
        return "The right-hand side uses a symbol as a number"
    step = steps[-1]
    shown = f", `{step.line}`" if step.line else ""
    return f"The right-hand side uses a symbol as a number in line {step.lineno} of {step.filename}{shown}"
