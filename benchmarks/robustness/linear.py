"""A linear mixed model whose likelihood is known exactly, and calls of ``fit_saem`` that say whether a fit was lost."""

import numpy as np
import pymc as pm
from scipy import optimize

import pymc_saem as ps
from robustness.judge import Lost

#: Nothing of what comes after the estimate, and few transitions: where the question is whether a
#: fit ends at all.
SHORT = {
    "n_explore": 6, "n_smooth": 6, "n_transitions": 20, "n_starts": 0, "draws": 20, "tolerance": 0.0, "likelihood": None,
    "standard_errors": None, "progressbar": False, "random_seed": 1, "compile_kwargs": {"mode": "FAST_COMPILE"},
}  # fmt: skip
NAMES = ("mu", "omega", "slope", "sigma")


def fit(model, **options):
    """A short fit; errors after its last iteration mean that it is lost."""
    options = SHORT | options
    done, given = [], options.pop("callback", None)

    def count(chain, iteration, estimates, stats):
        if given is not None:
            given(chain, iteration, estimates, stats)
        done.append(iteration)

    try:
        return ps.fit_saem(model, callback=count, **options)
    except Exception as error:
        if len(done) >= options["n_explore"] + options["n_smooth"]:
            raise Lost(f"{type(error).__name__} after {len(done)} iterations: {error}") from error
        raise


def at(model, values, **options):
    """Marginal log-likelihood that the package finds at fixed values, and the subjects that it sees."""
    found = fit(
        model,
        fixed=values,
        **({"n_explore": 1, "n_smooth": 0, "likelihood": "quadrature"} | options),
    )
    attrs = found["population"].attrs
    return float(attrs["loglik"]), int(attrs["n_subjects"])


def estimates(found) -> dict[str, float]:
    """By the names of the entries of the parameters."""
    table = found["population"]
    return {
        str(k): float(v)
        for k, v in zip(table["parameter"].values, table["estimate"].values, strict=True)
    }


class Data:
    """Rows of a random intercept with a slope that all subjects share; not in order, subjects of different sizes."""

    def __init__(self, rng, n=8, rows=5, shuffled=True):
        self.rng, self.n = rng, n
        self.g = np.repeat(np.arange(n), rows)
        if shuffled:
            keep = np.sort(rng.permutation(n * rows)[: n * rows - 4])
            self.g = rng.permutation(self.g[keep])
            self.g[:n] = np.arange(n)
        self.t = np.round(rng.uniform(0, 2, self.g.size), 2)
        self.y = 1 + rng.normal(size=n)[self.g] + 0.5 * self.t + 0.4 * rng.normal(size=self.g.size)
        self.values = {"mu": 0.8, "omega": 1.2, "slope": 0.6, "sigma": 0.5}

    @np.errstate(all="ignore")  # the optimizer of maximum() goes to scales of 0
    def loglik(self, mu, omega, slope, sigma, keep=None):
        """Exact, by subject: a constant plus a diagonal is inverted by hand."""
        total, used = 0.0, np.ones(self.g.size, bool) if keep is None else keep
        for i in range(self.n):
            own = (self.g == i) & used
            r, m = self.y[own] - mu - slope * self.t[own], own.sum()
            a, b = sigma**2, sigma**2 + m * omega**2
            if m:
                within = ((r - r.mean()) ** 2).sum() / a if m > 1 else 0.0
                inside = within + m * r.mean() ** 2 / b  # no differences of large numbers
                total -= 0.5 * (m * np.log(2 * np.pi) + (m - 1) * np.log(a) + np.log(b) + inside)
        return total

    def maximum(self):
        """Values at the exact maximum of the likelihood, and the maximum."""

        def minus(x):
            return -self.loglik(x[0], np.exp(x[1]), x[2], np.exp(x[3]))

        best = optimize.minimize(
            minus,
            [1.0, 0.0, 0.5, -1.0],
            method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 8000},
        )
        return dict(
            zip(NAMES, (best.x[0], np.exp(best.x[1]), best.x[2], np.exp(best.x[3])), strict=True)
        ), -best.fun

    def model(self, **coords):
        """The plain one."""
        with pm.Model(coords={"subject": np.arange(self.n)} | coords) as model:
            p = self.priors()
            e = pm.Normal("e", p["mu"], p["omega"], dims="subject")
            pm.Normal("y", e[self.g] + p["slope"] * self.t, p["sigma"], observed=self.y)
        return model

    def priors(self):
        """Parameters with starts that are not far off and not right."""
        return {
            "mu": pm.Normal("mu", 0.0, 5.0),
            "omega": pm.HalfNormal("omega", 2.0),
            "slope": pm.Normal("slope", 0.0, 5.0, initval=0.3),
            "sigma": pm.HalfNormal("sigma", 2.0),
        }
