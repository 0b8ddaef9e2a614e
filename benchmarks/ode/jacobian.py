"""Why gradients cost more than solves: the compiled right-hand side and Jacobian of the neural problem, by lanes and by stores.

    python benchmarks/ode/jacobian.py

Nanoseconds per subject and call, with 1, 4 and 8 subjects side by side; then the arithmetic instructions on four numbers at
once (x86 with AVX) in the Jacobian's machine code, when only the first of its stores are kept.
"""

import dataclasses
import re
from time import perf_counter

import numba
import numpy as np
from own import Own
from problems import PROBLEMS

from pymc_saem.ode import native as nt
from pymc_saem.ode.problem import CompiledRhs, compile_system

CALLS = 2000
_VECTOR = re.compile(r"v(?:fn?madd|fmsub|mul)[0-9]*pd[ \t].*ymm")


@numba.njit
def repeat(f, lanes, n_dy0, t, z, p, dz, jy, jp, calls):
    for _ in range(calls):
        nt.call_lanes(f, lanes, n_dy0, t, z, p, dz, jy, jp)


def nanoseconds(address, lanes, n_dy0, arrays):
    places, best = [a.ctypes.data for a in arrays], np.inf
    for _ in range(10):
        mark = perf_counter()
        repeat(address, lanes, n_dy0, *places, CALLS)
        best = min(best, perf_counter() - mark)
    return 1e9 * best / CALLS / lanes


def main():
    problem = PROBLEMS[0]
    inputs = problem.inputs(12)
    system = Own("tsit5", problem, inputs).operation(1e-6)[0].system
    compiled, n, m = compile_system(system), system.n_states, system.n_dp
    print(f"{'lanes':>6}{'rhs':>8}{'Jacobian':>10}{'with sensitivities':>20}  ns per subject")
    for lanes in (1, 4, 8):
        z, p = np.full((n * (1 + m), lanes), 3.0), np.repeat(np.r_[inputs.p[0], inputs.c[0]][:, None], lanes, axis=1)
        arrays = np.full(lanes, 1.0), z, p, np.zeros_like(z), np.zeros((n * n, lanes)), np.zeros((n * m, lanes))
        rhs = nanoseconds(compiled.lanes_rhs_address, lanes, 0, arrays)
        alone, all_of_it = (nanoseconds(compiled.lanes_jac_address, lanes, k, arrays) for k in (-m, 0))
        print(f"{lanes:6d}{rhs:8.0f}{alone:10.0f}{all_of_it:20.0f}")
    lines = system.jac_source.splitlines(keepends=True)
    stores = [k for k, line in enumerate(lines) if re.match(r"\s*(jy|jp|dy)\[", line)]
    for kept in (2, 6, len(stores)):
        source = "".join(line for k, line in enumerate(lines) if k not in stores[kept:])
        fewer = CompiledRhs(dataclasses.replace(system, jac_source=source))
        fewer.lanes_jac_address  # noqa: B018  (compiles)
        assembly = fewer._handles[0]._library.get_asm_str()
        print(f"{kept} stores: {len(_VECTOR.findall(assembly))} vector instructions")


if __name__ == "__main__":
    main()
