"""Do 95 % confidence intervals cover the truth in 95 % of data sets? Simulated linear mixed data, fitted one after the other.

    python benchmarks/accuracy/intervals.py [--datasets 300] [--subjects 50] [--rows 6] [--first 0]

Independent random intercepts and slopes, with a covariate on the intercept. Prints, for each
parameter, how many intervals hold the true value, and the mean standard error beside the standard
deviation of the estimates.
"""

import argparse
import sys
from time import perf_counter

import numpy as np
import pymc as pm

from pymc_saem.saem.report.assessment import assess
from pymc_saem.saem.run.chains import Job, run_chain
from pymc_saem.saem.run.step import SAEM
from pymc_saem.saem.uncertainty.standard_errors import natural

TRUTH = {
    "intercept": 1.0,
    "slope": -0.5,
    "gamma": 0.8,
    "omega_intercept": 1.0,
    "omega_slope": 0.5,
    "sigma": 0.4,
}


def design(n_subjects: int, n_rows: int) -> dict:
    """Covariate, times and subjects: the same in all data sets."""
    subject, t = (
        np.repeat(np.arange(n_subjects), n_rows),
        np.tile(np.linspace(-1, 1, n_rows), n_subjects),
    )
    return {"x": np.random.default_rng(20).normal(size=n_subjects), "t": t, "subject": subject}


def simulate(seed: int, plan: dict) -> np.ndarray:
    rng = np.random.default_rng([seed, 20])
    n, subject = plan["x"].size, plan["subject"]
    b0 = (
        TRUTH["intercept"]
        + TRUTH["gamma"] * plan["x"]
        + TRUTH["omega_intercept"] * rng.normal(size=n)
    )
    b1 = TRUTH["slope"] + TRUTH["omega_slope"] * rng.normal(size=n)
    return b0[subject] + b1[subject] * plan["t"] + TRUTH["sigma"] * rng.normal(size=subject.size)


def build(plan: dict) -> pm.Model:
    """The observations are shared variables, so that what is compiled for one data set serves all."""
    subject = plan["subject"]
    with pm.Model(coords={"subject": np.arange(plan["x"].size)}) as model:
        mean = pm.Flat("intercept") + pm.Flat("gamma") * plan["x"]
        b0 = pm.Normal("b0", mean, pm.HalfFlat("omega_intercept", initval=1.0), dims="subject")
        slope, omega = pm.Flat("slope"), pm.HalfFlat("omega_slope", initval=1.0)
        b1 = pm.Normal("b1", slope, omega, dims="subject")
        y = pm.Data("y_data", simulate(0, plan))
        pm.Normal(
            "y",
            b0[subject] + b1[subject] * plan["t"],
            pm.HalfFlat("sigma", initval=1.0),
            observed=y,
        )
    return model


class Fitter:
    """``fit_saem`` with its default iterations and fewer transitions, compiled once."""

    def __init__(self, plan: dict):
        self.plan, self.model = plan, build(plan)
        self.step = SAEM(model=self.model, n_starts=0, n_replicates=1, n_transitions=20)
        self.job = Job(
            self.step,
            self.model.initial_point(),
            n_explore=150,
            n_smooth=350,
            draws=50,
            tolerance=0.0,
        )

    def __call__(self, seed: int) -> np.ndarray:
        """Estimate, standard error and ends of the interval of each parameter, (parameter, 4)."""
        self.model.set_data("y_data", simulate(seed, self.plan))
        rng, engine = np.random.default_rng(seed), self.step.engine
        chain = run_chain(self.job, 0, rng, lambda *args: None)
        theta = chain.theta[-1]
        found = assess(
            engine, theta, chain.conditional, rng, likelihood="auto", standard_errors="auto"
        ).uncertainty
        table = np.column_stack([natural(engine, theta), found.se, found.lower, found.upper])
        names = [p.name for p in engine.mixed.parameters]
        return table[[names.index(name) for name in TRUTH]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=int, default=300)
    parser.add_argument("--subjects", type=int, default=50)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--first", type=int, default=0, help="seed of the first data set")
    arguments = parser.parse_args()
    truth, found, start = np.array(list(TRUTH.values())), [], perf_counter()
    fit = Fitter(design(arguments.subjects, arguments.rows))
    for seed in range(arguments.first, arguments.first + arguments.datasets):
        found.append(fit(seed))
        if len(found) % 10 == 0:
            print(
                f"{len(found)} data sets, {perf_counter() - start:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    table = np.array(found)
    covered = (table[..., 2] <= truth) & (truth <= table[..., 3])
    print(
        f"{'parameter':16} {'true':>6} {'covered':>8} {'mean se':>9} {'sd of estimates':>16}   of {len(table)}"
    )
    for k, name in enumerate(TRUTH):
        columns = 100 * covered[:, k].mean(), np.nanmean(table[:, k, 1]), table[:, k, 0].std(ddof=1)
        print(f"{name:16} {truth[k]:6.2f} {columns[0]:7.1f}% {columns[1]:9.4f} {columns[2]:16.4f}")
    print(f"all              {'':6} {100 * covered.mean():7.1f}%")


if __name__ == "__main__":
    main()
