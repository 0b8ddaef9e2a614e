"""A covariate that changes with time, as a right-hand side sees it."""

from __future__ import annotations

from typing import Any, NoReturn

from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from pymc_saem.ode.rhs.symbols import OPERATORS

__all__ = ["Curve"]

_OTHER_USES = (
    *("eq", "ne", "float", "int", "bool", "index", "len", "iter", "round", "format"),
    *("array", "array_ufunc", "array_function"),
)


class Curve:
    """A covariate whose only use is ``p.name(t)``; any other raises an error that says so.

    Parameters
    ----------
    name : str
    t : TensorVariable
        The time at which its value is known: the solver carries the piece of the curve that it is
        in, and no other.
    value : TensorVariable
        The value at that time.
    """

    __hash__ = object.__hash__

    def __init__(self, name: str, t: Variable, value: TensorVariable) -> None:
        self._name, self._t, self._value = name, t, value

    def __call__(self, *times: Any, **options: Any) -> TensorVariable:
        if options or len(times) != 1 or times[0] is not self._t:
            raise TypeError(
                f"p.{self._name} takes the time t and nothing else: only the value at the current time is known. Write p.{self._name}(t), "
                "and shift the times of the table for a value of the past."
            )
        return self._value

    def __repr__(self) -> str:  # what PyTensor says that it cannot convert
        return f"p.{self._name} (a covariate, to be written p.{self._name}(t))"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # of Python's own protocols
            raise AttributeError(name)
        self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            f"p.{self._name} is a covariate that changes with time: write p.{self._name}(t), its value at time t."
        )


for _operator in (*OPERATORS, *_OTHER_USES):
    setattr(Curve, f"__{_operator}__", Curve._refuse)
