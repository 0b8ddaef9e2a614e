"""The few low-level pieces of compiled code: calls through addresses, memory without arrays.

Solvers call the right-hand side through its address, and the thread driver calls the solver through
its address. So the driver and ``tsit5`` are compiled once per machine and kept on disk, and a new
model compiles its right-hand side only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numba
import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import carray, types
from numba.core.base import BaseContext
from numba.core.ccallback import CFunc
from numba.core.typing.context import BaseContext as TypingContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from pymc_saem.kept import keep_callback

__all__ = [
    "Doubles",
    "Intrinsic",
    "Longs",
    "Pointer",
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
    "writing",
]

# Division by zero gives inf, which the solver sees; an exception could not leave a task.
# Contraction to fused multiply-adds saves a third of a network's time and rounds less; it reorders
# nothing.
FLOATING = {"error_model": "numpy", "fastmath": {"contract"}}
inner = numba.njit(**FLOATING)
# Called from compiled code only, and not by address: an entry point would take a fifth of the
# compilation time.
_NO_WAY_IN = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
innermost = numba.njit(**_NO_WAY_IN, **FLOATING)
# For short functions, because compiling a separate one takes a fifth of a second; and for what
# every step calls, which runs faster.
inlined = numba.njit(inline="always", **_NO_WAY_IN, **FLOATING)

_Number = TypeVar("_Number", int, float)


class Pointer(Protocol[_Number]):
    """A C pointer in annotations of compiled functions: indexed like an array, of no known size."""

    def __getitem__(self, index: int) -> _Number: ...

    def __setitem__(self, index: int, value: _Number) -> None: ...


Doubles: TypeAlias = Pointer[float]
Longs: TypeAlias = Pointer[int]


def kept_cfunc(signature: Signature, function: Callable[..., Any], text: str = "") -> CFunc:
    """C function, compiled or read from disk; the code lives as long as the object. ``text`` as in `keep_callback`."""
    return keep_callback(signature, function, text, **FLOATING)


def compile_task(function: Callable[[int, int, int], int]) -> CFunc:
    """C function ``(first task, task after the last, address of the table) -> 0``; the driver takes its address."""
    return kept_cfunc(types.int64(types.int64, types.int64, types.int64), function)


_SYMBOL_PREFIX = "pymc_saem_"  # keeps our names apart from those of another SUNDIALS in the process


def external(name: str, signature: Signature) -> types.ExternalFunction:
    """Something that compiled code can call by name, once `register` has given the name an address."""
    return types.ExternalFunction(_SYMBOL_PREFIX + name, signature)


def register(name: str, address: int) -> None:
    """Give a name its address; before anything that calls it is compiled or read from a cache."""
    llvm.add_symbol(_SYMBOL_PREFIX + name, address)


Codegen: TypeAlias = Callable[..., ir.Value]
#: What a function under ``@intrinsic`` returns.
Intrinsic: TypeAlias = tuple[Signature, Codegen]


def writing(write: Callable[..., ir.Value | None]) -> Codegen:
    """Code of an intrinsic from ``write(builder, *arguments)``; without a value, it is called for its effect alone."""

    def codegen(
        context: BaseContext,
        builder: ir.IRBuilder,
        signature: Signature,
        arguments: Sequence[ir.Value],
    ) -> ir.Value:
        value = write(builder, *arguments)
        return context.get_dummy_value() if value is None else value

    return codegen


def _caller(return_type: ir.Type, *argument_types: ir.Type) -> Codegen:
    """Code that calls the address given first with the other arguments."""

    def call(builder: ir.IRBuilder, address: ir.Value, *arguments: ir.Value) -> ir.Value:
        function_type = ir.FunctionType(return_type, argument_types)
        return builder.call(builder.inttoptr(address, function_type.as_pointer()), arguments)

    return writing(call)


def _pointer_to(element: ir.Type) -> Codegen:
    """Code that takes an address for a pointer."""
    return writing(lambda builder, address: builder.inttoptr(address, element.as_pointer()))


_I64 = ir.IntType(64)


@intrinsic
def call_task(
    typingctx: TypingContext,
    address: types.Type,
    begin: types.Type,
    end: types.Type,
    table: types.Type,
) -> Intrinsic:
    """Run a range of tasks: ``task(begin, end, table_address) -> 0``."""
    return types.int64(*[types.int64] * 4), _caller(*[_I64] * 4)


@intrinsic
def call_lanes(
    typingctx: TypingContext,
    address: types.Type,
    lanes: types.Type,
    t: types.Type,
    z: types.Type,
    p: types.Type,
    dz: types.Type,
    jy: types.Type,
    jp: types.Type,
) -> Intrinsic:
    """``f(lanes, t, z, p, dz, jy, jp)`` for several subjects, or one; arrays by address."""
    return types.int64(*[types.int64] * 8), _caller(*[_I64] * 8)


@intrinsic
def _pointer(typingctx: TypingContext, address: types.Type) -> Intrinsic:
    return types.voidptr(types.int64), _pointer_to(ir.IntType(8))


@intrinsic
def doubles(typingctx: TypingContext, address: types.Type) -> Intrinsic:
    """C pointer to float64 memory, which is indexed like an array and carries no size.

    Compiled code with pointers in place of arrays is a fraction of the size: it carries no shapes
    and counts no references.
    """
    return types.CPointer(types.float64)(types.int64), _pointer_to(ir.DoubleType())


@intrinsic
def longs(typingctx: TypingContext, address: types.Type) -> Intrinsic:
    """C pointer to int64 memory; see ``doubles``."""
    return types.CPointer(types.int64)(types.int64), _pointer_to(_I64)


def _scope(module: ir.Module, number: int) -> ir.MDValue:
    return module.add_metadata([f"values {number}", module.add_metadata(["pymc_saem"])])


@intrinsic
def take(typingctx: TypingContext, pointer: types.Type, index: types.Type) -> Intrinsic:
    """Element of a C pointer, in a loop whose stores meet none of its loads.

    The compiler cannot know that the arrays of a right-hand side do not overlap, and does not
    vectorize if there are too many pairs of them to compare. Every store by ``put`` says that it
    overlaps neither with a load by ``take`` nor with an earlier ``put``; other functions may read
    the memory, but between the two of this pair no order is kept.
    """

    def write(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value) -> ir.Value:
        value = builder.load(builder.gep(pointer, [index]))
        value.set_metadata("alias.scope", builder.module.add_metadata([_scope(builder.module, 0)]))
        return value

    return types.float64(pointer, types.int64), writing(write)


@intrinsic
def put(
    typingctx: TypingContext, pointer: types.Type, index: types.Type, value: types.Type
) -> Intrinsic:
    """Write an element; see ``take``."""

    def write(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, value: ir.Value) -> None:
        module = builder.module
        module.__dict__["pymc_saem_stores"] = number = (
            module.__dict__.get("pymc_saem_stores", 0) + 1
        )
        store = builder.store(value, builder.gep(pointer, [index]))
        store.set_metadata("alias.scope", module.add_metadata([_scope(module, number)]))
        store.set_metadata(
            "noalias", module.add_metadata([_scope(module, m) for m in range(number)])
        )

    return types.none(pointer, types.int64, types.float64), writing(write)


@inner
def floats(address: int, size: int) -> np.ndarray:
    """View of float64 memory."""
    return carray(_pointer(address), (size,), np.float64)


@inner
def integers(address: int, size: int) -> np.ndarray:
    """View of int64 memory."""
    return carray(_pointer(address), (size,), np.int64)


@innermost
def copy_values(target: Doubles, source: Doubles, size: int) -> None:
    """Copy between arrays or pointers.

    An assignment of a slice would also compile the text of the error that it raises when sizes
    differ: 2 s.
    """
    for m in range(size):
        target[m] = source[m]
