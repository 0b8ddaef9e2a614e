"""The SUNDIALS shared library as functions that Numba-compiled code can call.

Every binding is an `ExternalFunction`: compiled code holds a *name*, and `load` gives LLVM the
address behind it. So no address is baked into machine code, compiled code can be cached on disk,
and each process binds its own copy. The price: `load` must run before code that uses the names is
compiled or read from a cache (or LLVM aborts).

Handles (context, vector, matrix, solver) travel as `intp`. Index arguments (`sunindextype`, 32 bits
wide in some wheels and 64 in others) and `long` are passed by value in a 64-bit register, which is
right for both widths; pointers to such integers are only ever given zeroed 64-bit cells
(little-endian: a 32-bit write is read back correctly).
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.core.typing.context import BaseContext as TypingContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from pymc_saem.ode.runtime.native import Intrinsic, external, register

CV_ADAMS, CV_BDF = 1, 2
CV_ONE_STEP = 2

INSTALL_HINT = (
    "solver='cvodes' needs the SUNDIALS shared library, which comes with a wheel: "
    "`pip install scikit-sundae` (all systems), or `pip install sundials4py` (Linux and macOS)."
)

handle, integer, real, none = types.intp, types.int32, types.float64, types.void
address = types.intp

#: Signatures of the functions below.
PROTOTYPES: dict[str, Signature] = {}


def _declare(name: str, signature: Signature) -> types.ExternalFunction:
    """A function of the library, which `load` finds by its name."""
    PROTOTYPES[name] = signature
    return external(name, signature)


# name, return type, argument types
SUNContext_Create = _declare("SUNContext_Create", integer(integer, handle))
SUNContext_ClearErrHandlers = _declare("SUNContext_ClearErrHandlers", integer(handle))
SUNContext_Free = _declare("SUNContext_Free", integer(handle))
N_VMake_Serial = _declare("N_VMake_Serial", handle(handle, handle, handle))
N_VGetArrayPointer = _declare("N_VGetArrayPointer", address(handle))
N_VConst = _declare("N_VConst", none(real, handle))
N_VDestroy = _declare("N_VDestroy", none(handle))
SUNDenseMatrix = _declare("SUNDenseMatrix", handle(handle, handle, handle))
SUNDenseMatrix_Data = _declare("SUNDenseMatrix_Data", address(handle))
SUNMatDestroy = _declare("SUNMatDestroy", none(handle))
SUNLinSol_Dense = _declare("SUNLinSol_Dense", handle(handle, handle, handle))
SUNLinSolFree = _declare("SUNLinSolFree", integer(handle))
SUNNonlinSol_FixedPoint = _declare("SUNNonlinSol_FixedPoint", handle(handle, integer, handle))
SUNNonlinSolFree = _declare("SUNNonlinSolFree", integer(handle))
CVodeCreate = _declare("CVodeCreate", handle(integer, handle))
CVodeInit = _declare("CVodeInit", integer(handle, handle, real, handle))
CVodeFree = _declare("CVodeFree", none(handle))
CVodeSStolerances = _declare("CVodeSStolerances", integer(handle, real, real))
CVodeWFtolerances = _declare("CVodeWFtolerances", integer(handle, handle))
CVodeSetUserData = _declare("CVodeSetUserData", integer(handle, handle))
CVodeSetMaxHnilWarns = _declare("CVodeSetMaxHnilWarns", integer(handle, integer))
CVodeSetLinearSolver = _declare("CVodeSetLinearSolver", integer(handle, handle, handle))
CVodeSetJacFn = _declare("CVodeSetJacFn", integer(handle, handle))
CVodeSetNonlinearSolver = _declare("CVodeSetNonlinearSolver", integer(handle, handle))
CVodeSetNlsRhsFn = _declare("CVodeSetNlsRhsFn", integer(handle, handle))
CVodeSetNonlinConvCoef = _declare("CVodeSetNonlinConvCoef", integer(handle, real))
CVodeGetNonlinearSystemData = _declare("CVodeGetNonlinearSystemData", integer(*[handle] * 9))
CVodeGetDky = _declare("CVodeGetDky", integer(handle, real, integer, handle))
CVode = _declare("CVode", integer(handle, real, handle, handle, integer))


def _wheel_libraries(distribution: str) -> list[Path]:
    """Shared libraries of a wheel (`<name>.libs` on Linux and Windows, `.dylibs` on macOS)."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return []
    found = [
        f for f in files if "sundials" in f.name and {".so", ".dylib", ".dll"} & set(f.suffixes)
    ]
    return [Path(f.locate()) for f in found]


def _extensions(package: str, pattern: str) -> list[Path]:
    """Compiled modules of a package, found without importing it."""
    spec = util.find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [] if spec.origin is None else [Path(spec.origin)]
    return [
        path for folder in spec.submodule_search_locations for path in Path(folder).glob(pattern)
    ]


def _environment_libraries() -> list[Path]:
    """conda keeps SUNDIALS itself as a package: `lib` of the environment, `Library/bin` on Windows."""
    folders = (Path(sys.prefix, "lib"), Path(sys.prefix, "Library", "bin"))
    return [path for folder in folders for path in folder.glob("*sundials_*")]


# Dependencies first: loading `cvode` before `core` fails where the loader does not search its
# folder.
_PARTS = ("core", "nvecserial", "sunmatrixdense", "sunlinsoldense", "cvodes", "cvode")


def _order(path: Path) -> int:
    """Place of a file among the parts of the library; their number if it is none of them."""
    return next(
        (rank for rank, part in enumerate(_PARTS) if f"sundials_{part}" in path.name), len(_PARTS)
    )


def _candidates() -> Iterator[list[Path]]:
    """Groups of files; each group, loaded together, should hold every function. In order of preference."""
    for libraries in (_wheel_libraries("scikit-sundae"), _environment_libraries()):
        ranked = sorted((p for p in libraries if _order(p) < len(_PARTS)), key=_order)
        yield [p for p in ranked if p.suffix not in {".a", ".lib"}]
    # dlsym on an extension module also searches what it was linked to (not on Windows)
    yield _extensions("sksundae", "_cy_cvode*")
    yield _extensions("sundials4py", "*sundials4py*")


def _open(paths: Iterable[Path]) -> list[ctypes.CDLL]:
    opened = []
    for path in paths:
        try:
            opened.append(ctypes.CDLL(str(path)))
        except OSError:
            continue
    return opened


def _addresses(libraries: Sequence[ctypes.CDLL]) -> dict[str, int] | None:
    """Address of every prototype, or None if a function is missing from this group of libraries."""
    found = {}
    for name in PROTOTYPES:
        function = next((f for lib in libraries if (f := getattr(lib, name, None))), None)
        if function is None:
            return None
        address = ctypes.cast(function, ctypes.c_void_p).value
        if address is None:
            return None
        found[name] = address
    return found


def _is_double(addresses: Mapping[str, int]) -> bool:
    """Whether `sunrealtype` is double: let the library fill a vector and read the memory back."""

    def call(name: str, return_type: Any, *args: Any) -> Any:
        return ctypes.CFUNCTYPE(return_type, *(type(arg) for arg in args))(addresses[name])(*args)

    context, memory = ctypes.c_void_p(), (ctypes.c_double * 16)()
    reference, start = (
        ctypes.c_void_p(ctypes.addressof(context)),
        ctypes.c_void_p(ctypes.addressof(memory)),
    )
    if call("SUNContext_Create", ctypes.c_int, ctypes.c_int(0), reference) != 0:
        return False
    vector = call("N_VMake_Serial", ctypes.c_void_p, ctypes.c_int64(3), start, context)
    call("N_VConst", None, ctypes.c_double(1.5), ctypes.c_void_p(vector))
    call("N_VDestroy", None, ctypes.c_void_p(vector))
    call("SUNContext_Free", ctypes.c_int, reference)
    return list(memory) == [1.5] * 3 + [0.0] * 13


@functools.cache
def load() -> tuple[str, ...]:
    """Find the library, check it, and register its functions with LLVM. Returns the files used."""
    for paths in _candidates():
        libraries = _open(paths)
        addresses = _addresses(libraries) if libraries else None
        if addresses is None or not _is_double(addresses):
            continue
        for name, address in addresses.items():
            register(name, address)
        return tuple(lib._name for lib in libraries)
    raise ImportError(INSTALL_HINT)


def c_address(signature: Signature) -> Callable[[Any], int]:
    """An intrinsic: `address(f)` is the address of a C function, of this signature, that calls the njit f.

    Like `numba.cfunc`, but the C function lives in the same compiled module as its user: the linker
    resolves the address (a `cfunc` address would be a constant of this process), and the GIL is
    never touched. If f raises, the C function returns -1, which SUNDIALS reads as "unrecoverable".
    """

    @intrinsic
    def address(typingctx: TypingContext, f: types.Type) -> Intrinsic:
        f.get_call_type(typingctx, signature.args, {})

        def codegen(
            context: BaseContext,
            builder: ir.IRBuilder,
            _signature: Signature,
            _args: Sequence[ir.Value],
        ) -> ir.Value:
            result = f.dispatcher.overloads[signature.args]
            context.active_code_library.add_linking_library(result.library)
            c_types = [context.get_value_type(arg) for arg in signature.args]
            c_return = context.get_value_type(signature.return_type)
            module = builder.module
            function = ir.Function(
                module,
                ir.FunctionType(c_return, c_types),
                module.get_unique_name("sundials_callback"),
            )
            function.linkage = "internal"
            inner = ir.IRBuilder(function.append_basic_block("entry"))
            status, value = context.call_internal_no_propagate(
                inner, result.fndesc, result.signature, function.args
            )
            value = context.cast(inner, value, result.signature.return_type, signature.return_type)
            inner.ret(inner.select(status.is_error, c_return(-1), value))
            return builder.ptrtoint(function, cgutils.intp_t)

        return types.intp(f), codegen

    return address
