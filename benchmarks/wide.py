"""What networks of growing width cost: seconds of compilation, microseconds per solve and gradient.

    python benchmarks/wide.py [--widths 2 8 32] [--depths 1 2 3] [--rtol 1e-6] [--forms]

A network with two inputs and outputs drives two states; 16 subjects with weights of their own, 7
times, one thread. `tsit5` carries forward sensitivities; `auto` takes the adjoint where the
right-hand side is computed in loops. ``--forms`` compares the right-hand side written out number by
number with the same as loops: one call, eight lanes.
"""

import argparse
import ctypes
import tempfile
from time import perf_counter, process_time

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode

from pymc_saem.nn import MLP
from pymc_saem.ode import solve_ivp
from pymc_saem.ode.rhs import system as problem
from pymc_saem.ode.rhs.compiled import CompiledRhs

PLAIN = Mode("py", "fast_compile")
N, TIMES = 16, np.linspace(0.0, 3.0, 7)


def network(width, depth):
    net = MLP(in_size=2, out_size=2, width_size=width, depth=depth)

    def rhs(t, y, p):
        out = net(p.w, pt.stack([y.a, y.b]))
        return {"a": out[0] - y.a, "b": out[1] - 0.5 * y.b}

    return net, rhs


def seconds(function, *arguments, clock=perf_counter):
    """Result of a call and its seconds."""
    mark = clock()
    result = function(*arguments)
    return result, clock() - mark


def best(function, *arguments, repeats=20):
    """Microseconds of the fastest of some calls, of this process alone."""
    return 1e6 * min(seconds(function, *arguments, clock=process_time)[1] for _ in range(repeats))


def costs(width, depth, rtol):
    """Weights, compile seconds of solution and gradient, microseconds per subject of a solve and of both gradients."""
    net, rhs = network(width, depth)
    rng = np.random.default_rng(0)
    weights = rng.normal(scale=width**-0.5, size=(N, net.n_weights))
    out = {"width": width, "depth": depth, "weights": net.n_weights}
    for solver in ("auto", "tsit5"):
        w, mark = pt.tensor("w", dtype="float64", shape=weights.shape), perf_counter()
        solution = solve_ivp(
            rhs, {"a": 1.0, "b": -0.5}, {"w": w}, np.tile(TIMES, N), np.repeat(range(N), len(TIMES)),
            rtol=rtol, atol=rtol, solver=solver, n_threads=1,
        )  # fmt: skip
        solve = pytensor.function([w], solution.a, mode=PLAIN)
        solve(weights)
        out.setdefault("compile s", perf_counter() - mark)
        gradient = pytensor.function([w], pt.grad((solution.a + solution.b).sum(), w), mode=PLAIN)
        _, first = seconds(gradient, weights)
        out[f"compile s, gradient {solver}"] = first
        out.setdefault("solve us", best(solve, weights) / N)
        out[f"gradient us, {solver}"] = best(gradient, weights) / N
    return out


def forms(width, depth, lanes=8):
    """Compile seconds and nanoseconds per lane of right-hand side and Jacobian, number by number and as loops."""
    net, rhs = network(width, depth)
    out = {"width": width, "depth": depth, "weights": net.n_weights}
    before = problem.MOST_WORK
    for form, limit in (("loops", -1), ("numbers", 10**9)):
        problem.MOST_WORK = limit
        system, trace = seconds(problem.trace, rhs, ("a", "b"), {"w": (net.n_weights,)})
        out[f"trace s, {form}"] = trace
        code = CompiledRhs(system)
        for name in ("rhs", "jac"):
            address, compiling = seconds(getattr, code, f"lanes_{name}_address")
            out[f"{name} s, {form}"] = compiling
            sizes = (1, 2, system.n_p, 2, 4, 2 * system.n_dp)
            arrays = [np.random.default_rng(0).normal(size=(size, lanes)) for size in sizes]
            function = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 7)(address)
            arguments = [lanes, *(a.ctypes.data for a in arrays)]
            out[f"{name} ns, {form}"] = (
                1e3 * best(lambda f=function, a=arguments: [f(*a) for _ in range(20)]) / 20 / lanes
            )
    problem.MOST_WORK = before
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="*", default=(2, 8, 32))
    parser.add_argument("--depths", type=int, nargs="*", default=(1, 2, 3))
    parser.add_argument("--rtol", type=float, default=1e-6)
    parser.add_argument(
        "--forms", action="store_true", help="compare how the right-hand side is written"
    )
    options = parser.parse_args()
    heads = None
    with tempfile.TemporaryDirectory() as folder:
        pytensor.config.compiledir = folder  # nothing compiled before is found
        for depth in options.depths:
            for width in options.widths:
                row = forms(width, depth) if options.forms else costs(width, depth, options.rtol)
                if heads is None:
                    heads = list(row)
                    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
                print(
                    "| "
                    + " | ".join(
                        f"{v:.3g}" if isinstance(v, float) else f"{v:,}" for v in row.values()
                    )
                    + " |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
