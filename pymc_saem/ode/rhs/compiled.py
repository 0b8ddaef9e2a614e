"""The traced right-hand side as machine code, which solvers call by its address.

It is kept on disk: a model that was solved before needs no compilation in a new process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numpy as np
from numba.core.ccallback import CFunc

from pymc_saem.ode.rhs.right_hand_side import OdeSystem

__all__ = ["CompiledRhs", "compile_system", "python_function"]

# An element that is stored is followed by its value.
_ELEMENT = re.compile(r"\b(dy|jy|jp|y|p)\[(\d+)(?:, (\d+))?\](?: = (.*))?")


class CompiledRhs:
    """Machine code of one system by address, compiled when first used."""

    def __init__(self, system: OdeSystem) -> None:
        self.system = system
        self.n_states = system.n_states
        self.n_p = system.n_p
        self.n_dp = system.n_dp
        self._handles: list[CFunc] = []

    @cached_property
    def lanes_rhs_address(self) -> int:
        """int: address of ``rhs(lanes, t, z, p, dz, jy, jp)`` for several subjects; element m of lane l is at ``m * lanes + l``."""
        return self._lanes("rhs", self.system.rhs_source)

    @cached_property
    def lanes_jac_address(self) -> int:
        """int: the same with the Jacobians ``jy`` (n_states, n_states) and ``jp`` (n_states, n_dp)."""
        return self._lanes("jac", self.system.jac_source)

    @cached_property
    def lanes_vjp_address(self) -> int:
        """int: of a wide system, address of the products of a vector ``dz`` with the Jacobians, into ``jy`` and ``jp``."""
        return self._lanes("vjp", self.system.vjp_source)

    def _lanes(self, name: str, source: str) -> int:
        from numba import types

        from pymc_saem.ode.rhs import products
        from pymc_saem.ode.runtime.native import kept_cfunc

        if self.system.is_wide:
            products.load()
        body = source if self.system.is_wide else self._over_lanes(source)
        arguments, body = "lanes, ts, y, p, dy, jy, jp", f"{body}    return 0\n"
        function = python_function(name, arguments, body)
        signature = types.int64(types.int64, *[types.CPointer(types.float64)] * 6)
        handle = kept_cfunc(signature, function, text=f"{arguments}{body}")
        self._handles.append(handle)  # the code lives as long as its handle
        return handle.address

    def _over_lanes(self, source: str) -> str:
        """The statements for one lane in a loop over all.

        The number of lanes is not a constant: the compiler would unroll a short constant loop
        before it could vectorize it.
        """
        columns = {"jy": self.n_states, "jp": self.n_dp}

        def place(match: re.Match[str]) -> str:
            array, i, j, value = match.groups()
            number = int(i) if j is None else int(i) * columns[array] + int(j)
            element = f"{array}, {number} * lanes + lane"
            return f"take({element})" if value is None else f"put({element}, {value})"

        lines = "".join(f"    {line}\n" for line in _ELEMENT.sub(place, source).splitlines())
        return f"    for lane in range(lanes):\n        t = take(ts, lane)\n{lines}"


@cache
def compile_system(system: OdeSystem) -> CompiledRhs:
    """The :class:`CompiledRhs` of a system; the same object for equal systems."""
    return CompiledRhs(system)


def python_function(name: str, arguments: str, body: str) -> Callable[..., Any]:
    """The Python function with this body."""
    from pymc_saem.ode.rhs import elementary, products, special
    from pymc_saem.ode.runtime import native

    # The module, because machine code from a file looks for one to belong to, and is kept by what
    # that module imports.
    names = {"__name__": __name__, "math": math, "np": np, "multiply": products.multiply}
    names |= {"elementary_exp": elementary.exp, "elementary_log": elementary.log}
    names |= {"digamma": special.digamma, "polygamma": special.polygamma}
    names["exp_of_negative"] = elementary.exp_of_negative
    names |= {f: getattr(native, f) for f in ("doubles", "put", "take")}
    body = body.replace("math.exp(", "elementary_exp(").replace("math.log(", "elementary_log(")
    exec(compile(f"def {name}({arguments}):\n{body}", f"<pymc_saem ode {name}>", "exec"), names)
    return names[name]
