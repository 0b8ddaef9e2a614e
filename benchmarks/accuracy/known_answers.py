"""Estimates of cases with known answers, for several seeds.

    python benchmarks/accuracy/known_answers.py [--cases theophylline intercept] [--seeds 1 2 3]
    [--iterations 150 150]

The exit code is 1 if an estimate lies outside its tolerance. The models are those of
tests/support/models.py.
"""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pymc_saem as ps  # noqa: E402
from tests.support import models  # noqa: E402

#: Exact maximum likelihood, by adaptive quadrature.
THEOPHYLLINE = {
    "log_ka": 0.4593,
    "log_CL": 1.0117,
    "log_V": 3.4539,
    "omega_ka": 0.4050**0.5,
    "omega_CL": 0.0703**0.5,
    "omega_V": 0.0185**0.5,
    "sigma": 0.6959,
}
#: Exact maximum likelihood; the marginal is Gaussian. The mean ``a`` is nearly zero (its standard
#: error is 0.24), so that 1 % of it asks for more iterations and transitions than the default.
INTERCEPT = {"a": 0.0275, "omega": 0.80081, "sigma": 0.3}


@dataclass(frozen=True)
class Case:
    """A model, the options of its fit, and what is known of the answer."""

    build: object
    options: dict = field(default_factory=dict)
    exact: dict = field(default_factory=dict)  # parameter -> value
    tolerance: float = 0.0  # relative to the value
    at_most: dict = field(default_factory=dict)  # parameter -> bound
    shown: tuple = ()  # parameters to print besides


NETWORK = {"objective": "ml", "n_explore": 150, "n_smooth": 150}
CASES = {
    "theophylline": Case(models.theophylline, exact=THEOPHYLLINE, tolerance=0.02),
    "theophylline_ode": Case(
        lambda: models.theophylline(ode=True), exact=THEOPHYLLINE, tolerance=0.02
    ),
    "intercept": Case(
        models.random_intercept,
        {"n_smooth": 1000, "n_transitions": 400, "tolerance": 0.0},
        exact=INTERCEPT,
        tolerance=0.01,
    ),
    "neural": Case(models.neural, NETWORK, at_most={"sigma": 0.62}),
    "neural_omega": Case(
        lambda: models.neural(omega="network"),
        NETWORK,
        shown=("sigma", *(f"omega_{name}" for name in ("a1", "a2", "c1", "c2"))),
    ),
}


def run(case: Case, seed: int, options: dict):
    """Estimates by name, and wall seconds with compilation."""
    mark = perf_counter()
    idata = ps.fit_saem(case.build(), random_seed=seed, progressbar=False, **options)
    return ps.summary(idata)["estimate"], perf_counter() - mark


def judge(case: Case, estimates):
    """One line per parameter: name, estimate, what is expected, whether that is met."""
    for name, exact in case.exact.items():
        allowed = case.tolerance * abs(exact)
        yield (
            name,
            estimates[name],
            f"{exact:.4f} +- {allowed:.4f}",
            abs(estimates[name] - exact) <= allowed,
        )
    for name, bound in case.at_most.items():
        yield name, estimates[name], f"at most {bound}", estimates[name] <= bound
    for name in case.shown:
        yield name, estimates[name], "", True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", nargs="+", choices=sorted(CASES), default=list(CASES), metavar="CASE"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument(
        "--iterations", nargs=2, type=int, metavar=("EXPLORE", "SMOOTH"), help="not the case's own"
    )
    arguments = parser.parse_args()
    all_met = True
    for label in arguments.cases:
        case = CASES[label]
        options = dict(case.options)
        if arguments.iterations:
            options |= dict(zip(("n_explore", "n_smooth"), arguments.iterations, strict=True))
        for seed in arguments.seeds:
            estimates, seconds = run(case, seed, options)
            print(f"\n{label}, seed {seed}, {seconds:.1f} s", flush=True)
            for name, value, expected, is_met in judge(case, estimates):
                all_met &= is_met
                print(
                    f"  {name:10} {value:9.4f}  {expected}{'' if is_met else '  MISSED'}",
                    flush=True,
                )
    print("\nall within tolerance" if all_met else "\nsome outside their tolerance")
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
