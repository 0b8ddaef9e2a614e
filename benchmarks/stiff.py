"""What a solve costs and how exact it is with each solver, on problems that are stiff and on some that are not.

    python benchmarks/stiff.py [--copies 64] [--proposals 10000]

One thread; ``--copies`` subjects with parameters that differ by a few percent. The errors are the
largest ones relative to the largest value of a state, against SciPy's Radau at 1e-12.
``--proposals`` draws that many subjects of the demo's model with weights from N(0, 3^2), and counts
how their solves end.
"""

import argparse
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import pytensor
import pytensor.tensor as pt
from scipy.integrate import solve_ivp as scipy_solve_ivp

from pymc_saem import nn, ode

SOLVERS = ("tsit5", "cvodes", "auto")
MODE = pytensor.compile.mode.get_mode("FAST_COMPILE")
DOSE, NET = 320.0, nn.MLP(in_size=1, out_size=1, width_size=2, depth=1, activation="tanh")


def van_der_pol(t, y, p):
    return {"a": y.b, "b": p.mu * (1.0 - y.a**2) * y.b - y.a}


def robertson(t, y, p):
    first, second, third = p.k1 * y.a, p.k2 * y.b * y.c, p.k3 * y.b**2
    return {"a": -first + second, "b": first - second - third, "c": third}


def neural(factor):
    """The demo's model; with a factor, elimination is proportional to the concentration and that much faster."""

    def rates(t, y, p):
        softplus = pt.softplus
        into, over = softplus(NET(p.w[:7], t / 24)), softplus(NET(p.w[7:14], softplus(y.depot)))
        out, rest = softplus(NET(p.w[14:21], softplus(y.center))), softplus(NET(p.w[21:], t / 24))
        lost = out if factor is None else factor * out * y.center
        return {
            "depot": -p.dose * into - over,
            "center": p.dose * into + over - lost + p.dose * rest,
        }

    return rates


WEIGHTS = np.random.default_rng(5).normal(scale=0.5, size=28)
SAMPLED = np.array([0.25, 0.5, 1.0, 2.0, 3.5, 5.0, 7.0, 9.0, 12.0, 24.0])
# right-hand side, y0, parameters, times, absolute tolerance in units of the relative one
CASES = {
    "van der Pol, mu 1": (van_der_pol, {"a": 2.0, "b": 0.0}, {"mu": 1.0}, np.linspace(0.5, 20.0, 10), 1.0),
    "van der Pol, mu 1000": (van_der_pol, {"a": 2.0, "b": 0.0}, {"mu": 1e3}, np.linspace(50.0, 750.0, 10), 1.0),
    "Robertson": (
        robertson, {"a": 1.0, "b": 0.0, "c": 0.0}, {"k1": 0.04, "k2": 1e4, "k3": 3e7}, np.geomspace(0.4, 4e4, 6), 1e-6,
    ),
    "neural ODE": (neural(None), {"depot": DOSE, "center": 0.0}, {"w": WEIGHTS, "dose": DOSE}, SAMPLED, 1.0),
    "neural ODE, stiff": (neural(1e4), {"depot": DOSE, "center": 0.0}, {"w": WEIGHTS, "dose": DOSE}, SAMPLED, 1e-4),
}  # fmt: skip


def functions(case, solver, tolerance, copies):
    """Functions of the parameters: solution and status; gradient of the sum of the solution."""
    rhs, y0, p, times, atol = case
    x = {
        n: pt.tensor(n, dtype="float64", shape=(copies, *np.shape(v)))
        for n, v in p.items()
        if n != "dose"
    }
    constant = {"dose": p["dose"]} if "dose" in p else {}
    solution = ode.solve_ivp(
        rhs, y0, x | constant, np.tile(times, copies), np.repeat(np.arange(copies), times.size),
        rtol=tolerance, atol=atol * tolerance, solver=solver, n_threads=1, max_steps=100_000,
    )  # fmt: skip
    values = pt.stack([solution[name] for name in y0], axis=-1)
    gradient = pytensor.grad(values.sum(), list(x.values()))
    inputs = list(x.values())
    return [
        pytensor.function(inputs, out, mode=MODE) for out in ([values, solution.status], gradient)
    ]


def reference(case, x):
    """Solution of the first copy by SciPy."""
    rhs, y0, p, times, _ = case
    t, y = pt.dscalar(), pt.dvector()
    state = SimpleNamespace(**{n: y[i] for i, n in enumerate(y0)})
    parameters = SimpleNamespace(
        **{n: pt.constant(v) for n, v in (p | {n: v[0] for n, v in x.items()}).items()}
    )
    dy = pt.stack([pt.as_tensor(v) for v in rhs(t, state, parameters).values()])
    f = pytensor.function([t, y], dy, mode=MODE, on_unused_input="ignore")
    options = {"method": "Radau", "rtol": 1e-12, "atol": 1e-14, "t_eval": times}
    return scipy_solve_ivp(f, (0.0, times[-1]), list(y0.values()), **options).y.T


def microseconds(function, arguments, copies, repeats=5):
    function(*arguments)
    seconds = []
    for _ in range(repeats):
        mark = perf_counter()
        function(*arguments)
        seconds.append(perf_counter() - mark)
    return 1e6 * min(seconds) / copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=64)
    parser.add_argument("--proposals", type=int, default=10_000)
    options = parser.parse_args()
    rng = np.random.default_rng(3)
    print(
        f"{'problem':22}{'rtol':>7}"
        + "".join(f"{s + what:>16}" for what in ("", " grad", " error") for s in SOLVERS)
    )
    for name, case in CASES.items():
        spread = {
            n: 1.0 + 0.03 * rng.uniform(-1, 1, (options.copies, *np.shape(v)))
            for n, v in case[2].items()
        }
        x = {n: spread[n] * v for n, v in case[2].items() if n != "dose"}
        exact = reference(case, x)
        for tolerance in (1e-2, 1e-6, 1e-9):
            rows = []
            for solver in SOLVERS:
                solve, pull_back = functions(case, solver, tolerance, options.copies)
                values, status = solve(*x.values())
                error = np.abs((values[: len(exact)] - exact) / np.abs(exact).max(axis=0)).max()
                costs = [microseconds(f, x.values(), options.copies) for f in (solve, pull_back)]
                rows.append((*costs, error if not status.any() else np.nan))
            cells = [f"{row[k]:16.1f}" for k in (0, 1) for row in rows] + [
                f"{row[2]:16.1e}" for row in rows
            ]
            print(f"{name:22}{tolerance:7.0e}" + "".join(cells), flush=True)
    if options.proposals:
        proposals(options.proposals, rng)


def proposals(n, rng):
    """Count how the solves of random weights end."""
    weights = 3.0 * rng.normal(size=(n, 28))
    for name in ("neural ODE", "neural ODE, stiff"):
        rhs, y0, p, times, atol = CASES[name]
        for tolerance in (1e-2, 1e-6):
            subject = np.repeat(np.arange(n), times.size)
            w = pt.tensor("w", dtype="float64", shape=weights.shape)
            options = {"rtol": tolerance, "atol": atol * tolerance, "n_threads": 1}
            solution = ode.solve_ivp(
                rhs, y0, {"w": w, "dose": DOSE}, np.tile(times, n), subject, **options
            )
            solve = pytensor.function([w], solution.status, mode=MODE)
            solve(weights)
            mark = perf_counter()
            status = solve(weights)
            cost = 1e6 * (perf_counter() - mark) / n
            counts = {
                ode.SolverStatus(int(s)).name: int(c)
                for s, c in zip(*np.unique(status, return_counts=True), strict=True)
            }
            print(f"{n} random proposals, {name}, rtol {tolerance:g}: {cost:.1f} us each, {counts}")


if __name__ == "__main__":
    main()
