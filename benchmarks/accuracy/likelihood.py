"""Marginal log-likelihoods of default fits against exact ones: how large are the errors, and are the stated ones honest?

    python benchmarks/accuracy/likelihood.py                 # all families, 5 data sets each, 8 values of the parameters
    python benchmarks/accuracy/likelihood.py --families plateau modes --data 2 --points 3

Every case is judged by an exact value that is not computed by the package: closed forms of Gaussian
models, fine grids over one or two random effects, or both. The table has the method that "auto"
took, the largest and the median stated error, and the z-scores (found - exact) / error: their mean,
and the share within 2. The exit code is 1 unless over all cases the mean is below 0.3 and 95 % are
within 2.
"""

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path
from time import perf_counter

import numpy as np
import pymc as pm
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_normal, norm, t

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pymc_saem.saem.likelihood.marginal import marginal_likelihood  # noqa: E402
from pymc_saem.saem.report.assessment import LEAST_SOLVES, SHARE  # noqa: E402
from tests.support.engines import engine_of  # noqa: E402
from tests.support.estimated import conditional_at, theta_of  # noqa: E402

#: Solves of a fit of 550 iterations, per subject: what the budget of the likelihood is a share of.
N_SOLVES = 550 * 80 * 2
GRID = np.linspace(-9.0, 9.0, 3001)


def flat(name):
    return pm.Flat(name)


def scale(name):
    return pm.HalfFlat(name, initval=1.0)


def on_grid(mean, sd, logp):
    """Log of the integral over one effect: ``logp(values)`` of (value, subject) at a fine grid of standard deviations."""
    weight = norm.logpdf(GRID) + np.log(GRID[1] - GRID[0])
    return float(logsumexp(logp(mean + sd * GRID) + weight[:, None], axis=0).sum())


class Linear:
    """Random coefficients of up to six covariates: Gaussian."""

    def __init__(self, rng):
        self.d, self.n, self.m = int(rng.integers(1, 7)), 20, 9
        self.g = np.repeat(np.arange(self.n), self.m)
        self.x = np.column_stack([np.ones(self.g.size), rng.normal(size=(self.g.size, 5))])[
            :, : self.d
        ]
        self.y = (self.x * rng.normal(1.0, 0.7, size=(self.n, self.d))[self.g]).sum(
            1
        ) + 0.6 * rng.normal(size=self.g.size)

    def build(self):
        with pm.Model(coords={"subject": range(self.n)}) as model:
            total = 0.0
            for k in range(self.d):
                total += (
                    pm.Normal(f"b{k}", flat(f"mu{k}"), scale(f"omega{k}"), dims="subject")[self.g]
                    * self.x[:, k]
                )
            pm.Normal("y", total, scale("sigma"), observed=self.y)
        return model

    def values(self, rng):
        means = {f"mu{k}": rng.normal(1.0, 0.3) for k in range(self.d)}
        return (
            means
            | {f"omega{k}": rng.uniform(0.3, 1.2) for k in range(self.d)}
            | {"sigma": rng.uniform(0.4, 0.9)}
        )

    def exact(self, v):
        omega = np.diag([v[f"omega{k}"] ** 2 for k in range(self.d)])
        mean = self.x @ np.array([v[f"mu{k}"] for k in range(self.d)])
        total = 0.0
        for i in range(self.n):
            x = self.x[self.g == i]
            covariance = x @ omega @ x.T + v["sigma"] ** 2 * np.eye(self.m)
            total += multivariate_normal.logpdf(self.y[self.g == i], mean[self.g == i], covariance)
        return float(total)


class Plateau:
    """Linear plateau with three effects: Gaussian for each knee, which a grid goes through."""

    def __init__(self, rng):
        self.n, doses = 20, [0.0, 30, 60, 90, 120, 180, 240]
        self.x, self.g = np.tile(doses, self.n), np.repeat(np.arange(self.n), len(doses))
        top, knee, slope = (
            m + s * rng.normal(size=self.n) for m, s in ((9.0, 1.1), (120.0, 45.0), (0.026, 0.006))
        )
        under = np.minimum(self.x - knee[self.g], 0)
        self.y = top[self.g] + slope[self.g] * under + 0.3 * rng.normal(size=self.x.size)

    def build(self):
        with pm.Model(coords={"subject": range(self.n)}) as model:
            e = {
                k: pm.Normal(k, flat(f"mu_{k}"), scale(f"omega_{k}"), dims="subject")
                for k in ("top", "knee", "slope")
            }
            mean = e["top"][self.g] + e["slope"][self.g] * pm.math.minimum(
                self.x - e["knee"][self.g], 0
            )
            pm.Normal("y", mean, scale("sigma"), observed=self.y)
        return model

    def values(self, rng):
        return {
            "mu_top": rng.normal(9.0, 0.2), "mu_knee": rng.normal(120.0, 8.0), "mu_slope": rng.normal(0.026, 0.001),
            "omega_top": rng.uniform(0.8, 1.4), "omega_knee": rng.uniform(30, 60), "omega_slope": rng.uniform(0.004, 0.008),
            "sigma": rng.uniform(0.25, 0.4),
        }  # fmt: skip

    def exact(self, v):
        total = 0.0
        for i in range(self.n):
            knee = v["mu_knee"] + v["omega_knee"] * GRID
            u = np.minimum(self.x[self.g == i] - knee[:, None], 0)
            covariance = v["omega_slope"] ** 2 * u[:, :, None] * u[:, None, :] + v["omega_top"] ** 2
            covariance = covariance + v["sigma"] ** 2 * np.eye(u.shape[1])
            root = np.linalg.cholesky(covariance)
            z = np.linalg.solve(
                root, (self.y[self.g == i] - v["mu_top"] - v["mu_slope"] * u)[..., None]
            )[..., 0]
            log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
            logp = -0.5 * np.sum(z**2, axis=1) - log_det - 0.5 * u.shape[1] * np.log(2 * np.pi)
            total += logsumexp(logp + norm.logpdf(GRID) + np.log(GRID[1] - GRID[0]))
        return float(total)


class OneEffect:
    """One effect a subject and a mean that is a function of it; a fine grid."""

    n, m, mean, sd = 24, 6, 0.0, 1.0

    def __init__(self, rng):
        self.g, self.x = (
            np.repeat(np.arange(self.n), self.m),
            np.tile(np.linspace(-1.0, 2.0, self.m), self.n),
        )
        self.y = self.draw(
            rng, self.curve(rng.normal(self.mean, self.sd, size=self.n)[self.g], self.x, np)
        )

    def build(self):
        with pm.Model(coords={"subject": range(self.n)}) as model:
            e = pm.Normal("e", flat("mu"), scale("omega"), dims="subject")
            self.outcome(self.curve(e[self.g], self.x, pm.math))
        return model

    def values(self, rng):
        return {
            "mu": rng.normal(self.mean, 0.1),
            "omega": self.sd * rng.uniform(0.7, 1.3),
        } | self.others(rng)

    def exact(self, v):
        def logp(e):
            rows = self.logp(self.y, self.curve(e[:, None], self.x, np), v)
            return rows.reshape(len(e), self.n, self.m).sum(-1)

        return on_grid(v["mu"], v["omega"], logp)


class NormalRows(OneEffect):
    def draw(self, rng, f):
        return f + 0.4 * rng.normal(size=f.size)

    def outcome(self, f):
        pm.Normal("y", f, scale("sigma"), observed=self.y)

    def others(self, rng):
        return {"sigma": rng.uniform(0.3, 0.6)}

    def logp(self, y, f, v):
        return norm.logpdf(y, f, v["sigma"])


class Modes(NormalRows):
    """A square, which e and -e fit alike: two modes."""

    mean = 0.3

    def curve(self, e, x, xp):
        return e**2 + 0.0 * x


class Kinked(NormalRows):
    """The smaller of the effect and the covariate: flat beyond the data."""

    mean, sd = 1.0, 1.0

    def curve(self, e, x, xp):
        return xp.minimum(e, x)


class Counts(OneEffect):
    """Counts, with a few zeros."""

    mean, sd = 0.5, 0.8

    def curve(self, e, x, xp):
        return xp.exp(e + 0.3 * x)

    def draw(self, rng, f):
        return rng.poisson(f)

    def outcome(self, f):
        pm.Poisson("y", f, observed=self.y)

    def others(self, rng):
        return {}

    def logp(self, y, f, v):
        return y * np.log(f) - f - gammaln(y + 1.0)


class HeavyRows(NormalRows):
    """Student-t rows with outliers: shoulders, sometimes two modes."""

    def curve(self, e, x, xp):
        return e + 0.0 * x

    def draw(self, rng, f):
        return f + 0.4 * rng.standard_t(2.0, size=f.size)

    def outcome(self, f):
        pm.StudentT("y", nu=2.0, mu=f, sigma=scale("sigma"), observed=self.y)

    def logp(self, y, f, v):
        return t.logpdf((y - f) / v["sigma"], 2.0) - np.log(v["sigma"])


FAMILIES = {
    "linear": Linear,
    "plateau": Plateau,
    "modes": Modes,
    "kinked": Kinked,
    "counts": Counts,
    "heavy": HeavyRows,
}


def study(name, n_data, n_points, method):
    """(found, exact, error, method) of every case of a family."""
    rows = []
    for number in range(n_data):
        rng = np.random.default_rng([number, *map(ord, name)])
        case = FAMILIES[name](rng)
        engine = engine_of(case.build(), n_replicates=3, mode="NUMBA")
        for _ in range(n_points):
            values = case.values(rng)
            theta = theta_of(engine, values)
            conditional = conditional_at(engine, theta, n_draws=250)
            budget = max(SHARE * N_SOLVES, LEAST_SOLVES) * engine.mixed.n_subjects
            found = marginal_likelihood(engine, theta, conditional, rng, method, max_solves=budget)
            rows.append((found.total, case.exact(values), found.total_error, found.method))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--data", type=int, default=5)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--method", default="auto")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        "family    cases  largest |found - exact|  median error  largest  mean z  within 2  seconds  methods"
    )
    everything = []
    for name in arguments.families:
        began, rows = (
            perf_counter(),
            study(name, arguments.data, arguments.points, arguments.method),
        )
        found, exact, error = (np.array([row[k] for row in rows]) for k in range(3))
        # an error of a quadrature below rounding says nothing about its z
        z = (found - exact) / np.maximum(error, 0.003)
        everything += list(z)
        methods = ", ".join(f"{k} {n}" for k, n in Counter(row[3] for row in rows).most_common())
        print(
            f"{name:9} {len(rows):5d} {np.abs(found - exact).max():24.3f} {np.median(error):13.3f} {error.max():8.3f} {z.mean():7.2f} "
            f"{np.mean(np.abs(z) <= 2):9.2f} {perf_counter() - began:8.0f}  {methods}",
            flush=True,
        )
    z = np.array(everything)
    within = np.mean(np.abs(z) <= 2)
    print(f"all: {z.size} cases, mean z {z.mean():.2f}, sd {z.std():.2f}, within 2 {within:.3f}")
    return 0 if abs(z.mean()) < 0.3 and within >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
