"""Eight lanes as one value: vectors in compiled code, which become vector instructions as they are written.

A loop over eight lanes is left to LLVM's vectorizer, which asks first whether arrays overlap and whether eight lanes are enough
for it. That takes longer than the arithmetic where a loop does little. With ``load``, ``store`` and operators on what they
take and give nothing is asked, and there is less to compile. Multiplications and additions become fused ones.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

__all__ = ["LANES", "VECTOR", "larger", "load", "root", "splat", "store", "where_one"]

LANES = 8
VECTOR = 8 * LANES  # bytes
_IR = ir.VectorType(ir.DoubleType(), LANES)
_CONTRACT = ("contract",)


class _Vector(types.Type):
    def __init__(self):
        super().__init__(name="EightLanes")


_vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _IR)


def _spread(builder, number):
    """The vector of a number."""
    one = builder.insert_element(ir.Constant(_IR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_IR, ir.Undefined), order)


def _define(symbol, instruction):
    """An operator between vectors, or a number and a vector."""

    @infer_global(symbol)
    class Typing(ConcreteTemplate):
        cases = [signature(_vector, _vector, _vector), signature(_vector, types.float64, _vector)]

    @lower_builtin(symbol, _vector, _vector)
    def of_vectors(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=_CONTRACT)

    @lower_builtin(symbol, types.float64, _vector)
    def of_number_and_vector(context, builder, sig, args):
        return getattr(builder, instruction)(_spread(builder, args[0]), args[1], flags=_CONTRACT)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define(_symbol, _instruction)


def _place(builder, address, index):
    return builder.gep(builder.inttoptr(address, _IR.as_pointer()), [index])


def _call(builder, name, vector):
    """A function of LLVM for each lane."""
    function = ir.FunctionType(_IR, [_IR])
    return builder.call(builder.module.declare_intrinsic(f"llvm.{name}.v{LANES}f64", fnty=function), [vector])


@intrinsic
def load(typingctx, address, index):
    """Vector number ``index`` from ``address`` on."""

    def codegen(context, builder, sig, args):
        return builder.load(_place(builder, *args), align=8)

    return _vector(types.int64, types.int64), codegen


@intrinsic
def store(typingctx, address, index, vector):
    """Write it there."""

    def codegen(context, builder, sig, args):
        builder.store(args[2], _place(builder, *args[:2]), align=8)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, _vector), codegen


@intrinsic
def splat(typingctx, number):
    """The vector that has a number in each lane."""

    def codegen(context, builder, sig, args):
        return _spread(builder, args[0])

    return _vector(types.float64), codegen


@intrinsic
def larger(typingctx, a, b):
    """Larger absolute value of each lane; that of ``b`` where one is NaN."""

    def codegen(context, builder, sig, args):
        a, b = (_call(builder, "fabs", v) for v in args)
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return _vector(_vector, _vector), codegen


@intrinsic
def root(typingctx, a):
    """Square root of each lane."""

    def codegen(context, builder, sig, args):
        return _call(builder, "sqrt", args[0])

    return _vector(_vector), codegen


@intrinsic
def where_one(typingctx, mask, a, b):
    """Lanes of ``a`` where the mask is 1, else those of ``b``."""

    def codegen(context, builder, sig, args):
        ones = ir.Constant(_IR, [1.0] * LANES)
        return builder.select(builder.fcmp_ordered("==", args[0], ones), args[1], args[2])

    return _vector(_vector, _vector, _vector), codegen
