"""The few low-level pieces of compiled code: calls through addresses, memory without arrays.

Solvers call the right-hand side through its address, and the thread driver calls the solver through
its address. So the driver and ``tsit5`` are compiled once per machine and kept on disk, and a new
model compiles its right-hand side only.
"""

import numba
import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from pymc_saem.kept import keep_callback

__all__ = [
    "call_lanes",
    "call_task",
    "compile_task",
    "copy_values",
    "doubles",
    "external",
    "floats",
    "inner",
    "integers",
    "kept_cfunc",
    "longs",
    "put",
    "register",
    "take",
]

# Division by zero gives inf, which the solver sees; an exception could not leave a task. Contraction
# to fused multiply-adds saves a third of a network's time and rounds less; it reorders nothing.
FLOATING = {"error_model": "numpy", "fastmath": {"contract"}}
inner = numba.njit(**FLOATING)
# Called from compiled code only, and not by address: a way in from outside would take a fifth of the compilation.
_NO_WAY_IN = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
innermost = numba.njit(**_NO_WAY_IN, **FLOATING)
# For short functions, as compiling one of its own takes a fifth of a second; and for what each step calls, which is faster so.
inlined = numba.njit(inline="always", **_NO_WAY_IN, **FLOATING)


def kept_cfunc(signature, function, text=""):
    """C function, compiled or read from disk; the code lives as long as the object. ``text`` as in `keep_callback`."""
    return keep_callback(signature, function, text, **FLOATING)


def compile_task(function):
    """C function ``(first task, task after the last, address of the table) -> 0``; the driver takes its address."""
    return kept_cfunc(types.int64(types.int64, types.int64, types.int64), function)


_SYMBOL_PREFIX = "pymc_saem_"  # keeps our names apart from those of another SUNDIALS in the process


def external(name, signature):
    """Something that compiled code can call by name, once `register` has given the name an address."""
    return types.ExternalFunction(_SYMBOL_PREFIX + name, signature)


def register(name, address):
    """Give a name its address; before anything that calls it is compiled or read from a cache."""
    llvm.add_symbol(_SYMBOL_PREFIX + name, address)


def _caller(return_type, *argument_types):
    """Codegen that calls the address given first with the other arguments."""

    def codegen(context, builder, signature, args):
        function_type = ir.FunctionType(return_type, argument_types)
        pointer = builder.inttoptr(args[0], function_type.as_pointer())
        return builder.call(pointer, args[1:])

    return codegen


_I64 = ir.IntType(64)


@intrinsic
def call_task(typingctx, address, begin, end, table):
    """Run a range of tasks: ``task(begin, end, table_address) -> 0``."""
    return types.int64(*[types.int64] * 4), _caller(*[_I64] * 4)


@intrinsic
def call_lanes(typingctx, address, lanes, t, z, p, dz, jy, jp):
    """``f(lanes, t, z, p, dz, jy, jp)`` for several subjects, or one; arrays by address."""
    return types.int64(*[types.int64] * 8), _caller(*[_I64] * 8)


@intrinsic
def _pointer(typingctx, address):
    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@intrinsic
def doubles(typingctx, address):
    """C pointer to float64 memory, which is indexed like an array and knows no size.

    Compiled code with pointers in place of arrays is a fraction of the size: it carries no shapes and counts no references.
    """

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.DoubleType().as_pointer())

    return types.CPointer(types.float64)(types.int64), codegen


@intrinsic
def longs(typingctx, address):
    """C pointer to int64 memory; see ``doubles``."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(types.int64), codegen


def _scope(module, number):
    return module.add_metadata([f"values {number}", module.add_metadata(["pymc_saem"])])


@intrinsic
def take(typingctx, pointer, index):
    """Element of a C pointer, in a loop whose stores meet none of its loads.

    The compiler cannot know that the arrays of a right-hand side do not overlap, and gives up vectorizing when there are
    more pairs of them to compare than it cares to. Every store by ``put`` says that it overlaps neither with a load by ``take``
    nor with an earlier ``put``; other functions may read the memory, but between the two of this pair no order is kept.
    """

    def codegen(context, builder, signature, args):
        value = builder.load(builder.gep(args[0], [args[1]]))
        value.set_metadata("alias.scope", builder.module.add_metadata([_scope(builder.module, 0)]))
        return value

    return types.float64(pointer, types.int64), codegen


@intrinsic
def put(typingctx, pointer, index, value):
    """Write an element; see ``take``."""

    def codegen(context, builder, signature, args):
        module = builder.module
        module.__dict__["pymc_saem_stores"] = number = module.__dict__.get("pymc_saem_stores", 0) + 1
        store = builder.store(args[2], builder.gep(args[0], [args[1]]))
        store.set_metadata("alias.scope", module.add_metadata([_scope(module, number)]))
        store.set_metadata("noalias", module.add_metadata([_scope(module, m) for m in range(number)]))
        return context.get_dummy_value()

    return types.none(pointer, types.int64, types.float64), codegen


@inner
def floats(address, size):
    """View of float64 memory."""
    return carray(_pointer(address), (size,), np.float64)


@inner
def integers(address, size):
    """View of int64 memory."""
    return carray(_pointer(address), (size,), np.int64)


@innermost
def copy_values(target, source, size):
    """Copy between arrays or pointers.

    An assignment of a slice would also compile the text of the error that it raises when sizes differ: 2 s.
    """
    for m in range(size):
        target[m] = source[m]
