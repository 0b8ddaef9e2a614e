"""What a solve of a linear system costs by the matrix exponential and step by step, and how exact both are.

    python benchmarks/linear.py [--subjects 64]

One thread. Chains of transit compartments with absorption and elimination, one subject per set of
rates, ten times with ten different gaps, or on a grid of 24 equal gaps. The solves are called
directly, without the rest of a PyTensor graph. Microseconds per subject, the least of many calls;
errors are relative to the largest value of each state, against SciPy's ``expm``.
"""

import argparse
from time import perf_counter

import numpy as np
import pytensor.tensor as pt
from scipy.linalg import expm

from pymc_saem import ode
from pymc_saem.ode.ops.solution_op import OdeGradient

SAMPLED = np.array([0.25, 0.5, 1.0, 2.0, 3.5, 5.0, 7.0, 9.0, 12.0, 24.0])
GRID = np.linspace(1.0, 24.0, 24)


def chain(n):
    """A gut, n - 2 compartments that pass on at the rate ktr, and blood; two parameters more than a one-compartment model."""

    def rhs(t, y, p):
        states = [getattr(y, f"s{i}") for i in range(n)]
        rates = [p.ka, *(p.ktr for _ in range(n - 2)), p.cl / p.v]
        flows = [rate * state for rate, state in zip(rates, states, strict=True)]
        return {f"s{i}": (flows[i - 1] if i else 0.0) - flows[i] for i in range(n)}

    return rhs


def matrix(n, ka, ktr, cl, v):
    rates = np.array([ka] + [ktr] * (n - 2) + [cl / v])
    return np.diag(-rates) + np.diag(rates[:-1], -1)


# states, rates (ka, ktr, cl, v), times
CASES = {
    "2 states": (2, (1.1, 1.0, 0.35, 2.0), SAMPLED),
    "2 states, 24 equal gaps": (2, (1.1, 1.0, 0.35, 2.0), GRID),
    "3 states": (3, (1.1, 1.4, 0.35, 2.0), SAMPLED),
    "5 states": (5, (1.1, 2.0, 0.35, 2.0), SAMPLED),
    "8 states": (8, (1.1, 3.2, 0.35, 2.0), SAMPLED),
    "10 states": (10, (1.1, 4.0, 0.35, 2.0), SAMPLED),
    "10 states, 24 equal gaps": (10, (1.1, 4.0, 0.35, 2.0), GRID),
    "20 states": (20, (1.1, 8.0, 0.35, 2.0), SAMPLED),
    "3 states, stiff": (3, (1.1, 1e5, 0.35, 2.0), SAMPLED),
    "5 states, stiff": (5, (1.1, 1e5, 0.35, 2.0), SAMPLED),
}  # fmt: skip
EXPLICIT = [("tsit5", 1e-2), ("tsit5", 1e-6), ("tsit5", 1e-9)]
STIFF = [("cvodes", 1e-2), ("cvodes", 1e-6), ("cvodes", 1e-9)]


def shortest(function, seconds=0.4):
    function()
    best, end = np.inf, perf_counter() + seconds
    while perf_counter() < end:
        start = perf_counter()
        function()
        best = min(best, perf_counter() - start)
    return best


def measure(name, solver, rtol, n_subjects):
    """Microseconds of a solution and of a gradient per subject, and the largest error."""
    n, rates, times = CASES[name]
    values = np.array(rates) * np.exp(0.2 * np.random.default_rng(1).normal(size=(n_subjects, 4)))
    names = ["ka", "ktr", "cl", "v"] if n > 2 else ["ka", "cl", "v"]
    values = values if n > 2 else values[:, [0, 2, 3]]
    solution = ode.solve_ivp(
        chain(n), {f"s{i}": 0.0 if i else 100.0 for i in range(n)},
        {k: pt.vector(k, shape=(n_subjects,)) for k in names}, np.tile(times, n_subjects),
        np.repeat(np.arange(n_subjects), times.size), solver=solver, rtol=rtol, atol=100.0 * rtol, n_threads=1,
    )  # fmt: skip
    op, t = solution._values.owner.op, np.tile(times, n_subjects)
    derivative = OdeGradient(**op.__getstate__())
    c = np.tile([100.0] + [0.0] * (n - 1), (n_subjects, 1))
    g = np.random.default_rng(2).normal(size=(t.size, n))
    solved, status = op.compute(t, values, c)
    assert not status.any(), (name, solver, rtol, status)
    solved, worst = solved.reshape(n_subjects, times.size, n), 0.0
    for i in range(min(n_subjects, 8)):
        ka, ktr, cl, v = values[i] if n > 2 else (values[i, 0], 1.0, *values[i, 1:])
        exact = np.array([expm(matrix(n, ka, ktr, cl, v) * time)[:, 0] for time in times]) * 100.0
        worst = max(worst, np.max(np.abs(solved[i] - exact) / np.abs(exact).max(axis=0)))
    seconds = (
        shortest(lambda: op.compute(t, values, c)),
        shortest(lambda: derivative.compute(t, values, c, g)),
    )
    return [1e6 * s / n_subjects for s in seconds] + [worst]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=64)
    n_subjects = parser.parse_args().subjects
    print(
        "| system | solver | rtol | solution (us) | gradient (us) | error |\n|---|---|---|---|---|---|"
    )
    for name in CASES:
        for solver, rtol in [("linear", 1e-6), *(STIFF if "stiff" in name else EXPLICIT)]:
            forward, gradient, error = measure(name, solver, rtol, n_subjects)
            tolerance = "any" if solver == "linear" else f"{rtol:.0e}"
            print(
                f"| {name} | {solver} | {tolerance} | {forward:.2f} | {gradient:.2f} | {error:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
