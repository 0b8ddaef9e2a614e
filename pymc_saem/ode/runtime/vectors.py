"""Eight lanes as one value: vectors in compiled code, which become vector instructions as they are written.

A loop over eight lanes is left to LLVM's vectorizer, which first checks at run time whether arrays
overlap and whether there are enough lanes. In a short loop, the checks take longer than the
arithmetic. ``load``, ``store`` and operators on vectors need none, and compile faster.
Multiplications and additions are fused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import DataModelManager
from numba.core.imputils import lower_builtin
from numba.core.typing.context import BaseContext as TypingContext
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

from pymc_saem.ode.runtime.native import Intrinsic, writing

__all__ = ["LANES", "VECTOR", "larger", "load", "root", "splat", "store", "where_one"]

LANES = 8
VECTOR = 8 * LANES  # bytes
_IR = ir.VectorType(ir.DoubleType(), LANES)
_CONTRACT = ("contract",)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name="EightLanes")


_vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: DataModelManager, numba_type: types.Type) -> None:
        super().__init__(manager, numba_type, _IR)


def _spread(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """The vector of a number."""
    one = builder.insert_element(
        ir.Constant(_IR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
    )
    order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_IR, ir.Undefined), order)


def _define(symbol: Callable[[Any, Any], Any], instruction: str) -> None:
    """An operator between vectors, or a number and a vector."""

    @infer_global(symbol)
    class Typing(ConcreteTemplate):
        cases = [signature(_vector, _vector, _vector), signature(_vector, types.float64, _vector)]

    of_vectors = writing(lambda builder, a, b: getattr(builder, instruction)(a, b, flags=_CONTRACT))
    of_number = writing(
        lambda builder, a, b: getattr(builder, instruction)(_spread(builder, a), b, flags=_CONTRACT)
    )
    lower_builtin(symbol, _vector, _vector)(of_vectors)
    lower_builtin(symbol, types.float64, _vector)(of_number)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define(_symbol, _instruction)


def _place(builder: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    return builder.gep(builder.inttoptr(address, _IR.as_pointer()), [index])


def _call(builder: ir.IRBuilder, name: str, vector: ir.Value) -> ir.Value:
    """A function of LLVM for each lane."""
    function = ir.FunctionType(_IR, [_IR])
    return builder.call(
        builder.module.declare_intrinsic(f"llvm.{name}.v{LANES}f64", fnty=function), [vector]
    )


@intrinsic
def load(typingctx: TypingContext, address: types.Type, index: types.Type) -> Intrinsic:
    """Vector number ``index`` from ``address`` on."""
    return _vector(types.int64, types.int64), writing(
        lambda b, *place: b.load(_place(b, *place), align=8)
    )


@intrinsic
def store(
    typingctx: TypingContext, address: types.Type, index: types.Type, vector: types.Type
) -> Intrinsic:
    """Write vector number ``index`` from ``address`` on."""

    def write(builder: ir.IRBuilder, address: ir.Value, index: ir.Value, vector: ir.Value) -> None:
        builder.store(vector, _place(builder, address, index), align=8)

    return types.none(types.int64, types.int64, _vector), writing(write)


@intrinsic
def splat(typingctx: TypingContext, number: types.Type) -> Intrinsic:
    """The vector that has a number in each lane."""
    return _vector(types.float64), writing(_spread)


@intrinsic
def larger(typingctx: TypingContext, a: types.Type, b: types.Type) -> Intrinsic:
    """Larger absolute value of each lane; that of ``b`` where one is NaN."""

    def write(builder: ir.IRBuilder, *vectors: ir.Value) -> ir.Value:
        a, b = (_call(builder, "fabs", v) for v in vectors)
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return _vector(_vector, _vector), writing(write)


@intrinsic
def root(typingctx: TypingContext, a: types.Type) -> Intrinsic:
    """Square root of each lane."""
    return _vector(_vector), writing(lambda builder, a: _call(builder, "sqrt", a))


@intrinsic
def where_one(
    typingctx: TypingContext, mask: types.Type, a: types.Type, b: types.Type
) -> Intrinsic:
    """Lanes of ``a`` where the mask is 1, else those of ``b``."""

    def write(builder: ir.IRBuilder, mask: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        return builder.select(
            builder.fcmp_ordered("==", mask, ir.Constant(_IR, [1.0] * LANES)), a, b
        )

    return _vector(_vector, _vector, _vector), writing(write)
