"""Random effects of other families, whose marginal likelihoods are exact: Gamma-Poisson, beta-binomial, mixtures, hybrids."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy.optimize import minimize
from scipy.special import betaln, gammaln
from scipy.stats import expon, gamma, multivariate_normal, norm, uniform
from scipy.stats import t as student

import pymc_saem as ps
from pymc_saem.model.density.laws import TypicalValues
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.read import read_model

N = 60
SUBJECT = np.repeat(np.arange(N), 4)


def estimates(model, names, seed=1, **options):
    after = {"likelihood": None, "standard_errors": None, "draws": 5}
    table = ps.summary(ps.fit_saem(model, random_seed=seed, progressbar=False, **after, **options))
    return table["estimate"][names].to_numpy()


def judged(found, loglik, start):
    """Gap to the exact maximum of a log-likelihood of logarithms or plain numbers, found by SciPy."""
    best = minimize(
        lambda x: -loglik(x),
        start,
        method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-8, "maxiter": 4000},
    )
    return -best.fun - loglik(found)


@pytest.mark.slow
def test_gamma_effects_of_poisson_counts():
    rng = np.random.default_rng(1)
    y = rng.poisson(rng.gamma(2.0, 1.5, size=N)[SUBJECT])
    total = np.bincount(SUBJECT, weights=y)
    with pm.Model(coords={"subject": range(N)}) as model:
        alpha, rate = pm.HalfFlat("alpha", initval=1.0), pm.HalfFlat("rate", initval=1.0)
        lam = pm.Gamma("lam", alpha, rate, dims="subject")
        pm.Poisson("y", lam[SUBJECT], observed=y)

    def loglik(u):
        a, b = np.exp(u)
        return np.sum(gammaln(a + total) - gammaln(a) + a * np.log(b) - (a + total) * np.log(b + 4))

    found = np.log(estimates(model, ["alpha", "rate"]))
    assert judged(found, loglik, np.zeros(2)) < 0.1


@pytest.mark.slow
def test_beta_effects_of_binomial_counts():
    rng = np.random.default_rng(2)
    y = rng.binomial(5, rng.beta(3.0, 2.0, size=N)[SUBJECT])
    total = np.bincount(SUBJECT, weights=y)
    with pm.Model(coords={"subject": range(N)}) as model:
        a, b = pm.HalfFlat("a", initval=1.0), pm.HalfFlat("b", initval=1.0)
        p = pm.Beta("p", a, b, dims="subject")
        pm.Binomial("y", 5, p[SUBJECT], observed=y)

    def loglik(u):
        a, b = np.exp(u)
        return np.sum(betaln(a + total, b + 20 - total) - betaln(a, b))

    found = np.log(estimates(model, ["a", "b"]))
    assert judged(found, loglik, np.zeros(2)) < 0.1


@pytest.mark.slow
def test_mixtures_of_normal_effects():
    """Two groups of subjects; the share of each is estimated without knowing who is in which."""
    rng = np.random.default_rng(3)
    b = np.where(rng.random(N) < 0.35, -1.5, 1.5) + 0.4 * rng.normal(size=N)
    y = b[SUBJECT] + 0.5 * rng.normal(size=SUBJECT.size)
    with pm.Model(coords={"subject": range(N)}) as model:
        share = pm.Uniform("share", 0.0, 1.0)
        low, high = pm.Flat("low", initval=-1.0), pm.Flat("high", initval=1.0)
        sd = pm.HalfFlat("sd", initval=0.5)
        components = [pm.Normal.dist(low, sd), pm.Normal.dist(high, sd)]
        effect = pm.Mixture(
            "effect", w=pt.stack([share, 1.0 - share]), comp_dists=components, dims="subject"
        )
        pm.Normal("y", effect[SUBJECT], pm.HalfFlat("sigma", initval=1.0), observed=y)

    def loglik(x):
        share, low, high, sd, sigma = (
            1 / (1 + np.exp(-x[0])),
            x[1],
            x[2],
            np.exp(x[3]),
            np.exp(x[4]),
        )
        covariance = sd**2 + sigma**2 * np.eye(4)
        rows = y.reshape(N, 4)
        parts = [multivariate_normal(np.full(4, m), covariance).logpdf(rows) for m in (low, high)]
        return np.sum(np.logaddexp(np.log(share) + parts[0], np.log1p(-share) + parts[1]))

    share, low, high, sd, sigma = estimates(model, ["share", "low", "high", "sd", "sigma"])
    found = np.array([np.log(share / (1 - share)), low, high, np.log(sd), np.log(sigma)])
    assert judged(found, loglik, np.array([-0.6, -1.5, 1.5, -1.0, -0.7])) < 0.1


@pytest.mark.slow
def test_a_scale_that_differs_between_subjects():
    """Variability twice as large in one group: a normal distribution, but not one covariance."""
    rng = np.random.default_rng(4)
    group = np.arange(N) % 2
    y = ((0.5 + 0.5 * group) * rng.normal(size=N) + 1.0)[SUBJECT] + 0.5 * rng.normal(
        size=SUBJECT.size
    )
    with pm.Model(coords={"subject": range(N), "group": range(2)}) as model:
        m, sd = pm.Flat("m"), pm.HalfFlat("sd", dims="group", initval=[0.8, 0.8])
        b = pm.Normal("b", m, sd[group], dims="subject")
        pm.Normal("y", b[SUBJECT], pm.HalfFlat("sigma", initval=1.0), observed=y)

    def loglik(x):
        total = 0.0
        for g in range(2):
            covariance = np.exp(2 * x[1 + g]) + np.exp(2 * x[3]) * np.eye(4)
            total += (
                multivariate_normal(np.full(4, x[0]), covariance)
                .logpdf(y.reshape(N, 4)[group == g])
                .sum()
            )
        return total

    found = estimates(model, ["m", "sd[0]", "sd[1]", "sigma"], random_effects=["b"])
    assert (
        judged(
            np.concatenate([found[:1], np.log(found[1:])]), loglik, np.array([1.0, -0.7, 0.0, -0.7])
        )
        < 0.1
    )


@pytest.mark.slow
def test_missing_rows_change_nothing():
    """A fit to rows with NaN is that to the rows without them."""
    rng = np.random.default_rng(5)
    y = rng.normal(size=N)[SUBJECT] + 0.5 * rng.normal(size=SUBJECT.size)
    y[[3, 50, 51]] = np.nan

    def build(rows):
        with pm.Model(coords={"subject": range(N)}) as model:
            b = pm.Normal("b", pm.Flat("m"), pm.HalfFlat("o", initval=1.0), dims="subject")
            pm.Normal("y", b[SUBJECT[rows]], pm.HalfFlat("sigma", initval=1.0), observed=y[rows])
        return model

    with pytest.warns(Warning, match="missing values"):
        missing = build(np.arange(y.size))
    options = {"n_explore": 5, "n_smooth": 5, "compile_kwargs": {"mode": "FAST_COMPILE"}}
    a, b = (
        estimates(m, ["m", "o", "sigma"], **options)
        for m in (missing, build(np.flatnonzero(np.isfinite(y))))
    )
    np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.slow
def test_skew_normal_effects_run():
    """Location, scale and skewness; judged by quadrature over the effect."""
    rng = np.random.default_rng(6)
    from scipy.stats import skewnorm

    b = skewnorm(4.0, 0.0, 1.5).rvs(N, random_state=rng)
    y = b[SUBJECT] + 0.4 * rng.normal(size=SUBJECT.size)
    with pm.Model(coords={"subject": range(N)}) as model:
        location, scale = pm.Flat("location"), pm.HalfFlat("scale", initval=1.0)
        effect = pm.SkewNormal(
            "effect",
            mu=location,
            sigma=scale,
            alpha=pm.Normal("alpha", 0.0, 5.0, initval=1.0),
            dims="subject",
        )
        pm.Normal("y", effect[SUBJECT], 0.4, observed=y)
    nodes = np.linspace(-6.0, 10.0, 3001)
    rows = norm(nodes[:, None], 0.4 / 2.0).logpdf(y.reshape(N, 4).mean(axis=1))  # up to a constant

    def objective(x):
        law = skewnorm(x[2], x[0], np.exp(x[1])).logpdf(nodes)
        return np.log(np.exp(rows + law[:, None]).sum(axis=0)).sum() - 0.5 * (x[2] / 5.0) ** 2

    location, scale, alpha = estimates(model, ["location", "scale", "alpha"])
    assert (
        judged(np.array([location, np.log(scale), alpha]), objective, np.array([0.0, 0.4, 3.0]))
        < 0.1
    )


@pytest.mark.parametrize("bounds", [{"lower": -1e3}, {"upper": 1e3}, {"lower": -1e3, "upper": 5e3}])
def test_effects_with_distant_bounds_begin_where_their_distribution_has_its_mass(bounds):
    """PyMC's own starting values are 1 beyond a bound, or between the two."""
    with pm.Model(coords={"subject": range(3)}) as model:
        e = pm.TruncatedNormal(
            "e", pm.Normal("mu", 0, 5), pm.HalfNormal("omega"), **bounds, dims="subject"
        )
        pm.Normal("y", e[np.arange(9) % 3], 1.0, observed=np.arange(9.0))
    mixed = read_model(model)
    points = PointMap(mixed)
    theta = points.theta_at({"mu": 2.5, "omega": 1.0})
    mean = TypicalValues(mixed).mean(theta, np.zeros((3, 1)))
    np.testing.assert_allclose(points.natural_phi(mean[None], theta)["e"], 2.5 * np.ones((1, 3)))


TRUNCATED = {  # what is truncated, its counterpart of SciPy, the bounds
    "inside": (lambda: pm.Gamma.dist(4.0, 2.0), gamma(4.0, scale=0.5), (0.5, np.inf)),
    "below a bound": (lambda: pm.Gamma.dist(4.0, 2.0), gamma(4.0, scale=0.5), (20.0, np.inf)),
    "above a bound": (
        lambda: pm.StudentT.dist(nu=5.0, mu=0.0, sigma=0.01),
        student(5.0, scale=0.01),
        (-np.inf, -3.0),
    ),
    "at a bound": (
        lambda: pm.StudentT.dist(nu=5.0, mu=0.0, sigma=0.01),
        student(5.0, scale=0.01),
        (0.0, np.inf),
    ),
    "between two, of a point below": (
        lambda: pm.Exponential.dist(5.0),
        expon(scale=0.2),
        (10.0, 12.0),
    ),
    "between two, of a flat one": (
        lambda: pm.Uniform.dist(0.0, 50.0),
        uniform(0.0, 50.0),
        (40.0, 42.0),
    ),
    "normal": (lambda: pm.Normal.dist(0.0, 1.0), norm(), (30.0, np.inf)),
}


@pytest.mark.parametrize("case", TRUNCATED)
def test_truncated_effects_begin_where_their_distribution_has_its_mass(case):
    """Not in its tails, and not at a bound; PyMC's own point is 1 from a bound, or half the distance of two."""
    whole, law, (lower, upper) = TRUNCATED[case]
    with pm.Model(coords={"subject": range(3)}) as model:
        bounds = {
            "lower": lower if np.isfinite(lower) else None,
            "upper": upper if np.isfinite(upper) else None,
        }
        middle = (
            0.5 * (lower + upper)
            if np.isfinite(upper - lower)
            else lower + 1
            if np.isfinite(lower)
            else upper - 1
        )
        e = pm.Truncated("e", whole(), **bounds, dims="subject", initval=np.full(3, middle))
        pm.Normal("y", e[np.arange(9) % 3], pm.HalfNormal("sigma"), observed=np.arange(9.0))
    mixed = read_model(model)
    points = PointMap(mixed)
    theta = points.theta_of(points.template)
    mean = TypicalValues(mixed).mean(theta, np.zeros((3, 1)))
    found = points.natural_phi(mean[None], theta)["e"]
    above = (law.sf(lower) - law.sf(found)) / (law.sf(lower) - law.sf(upper))
    assert np.all((above > 0.1) & (above < 0.9)), (found, above)


@pytest.mark.slow
def test_truncated_effects_in_the_tail_of_what_is_truncated():
    """An exponential distribution beyond 0.2 is 0.2 and an exponential one; the exact maximum by integration."""
    rng = np.random.default_rng(3)
    shifts = rng.exponential(0.02, size=N)
    y = 0.2 + shifts[SUBJECT] + 0.005 * rng.normal(size=SUBJECT.size)
    with pm.Model(coords={"subject": range(N)}) as model:
        rate = pm.HalfFlat("rate", initval=10.0)
        e = pm.Truncated("e", pm.Exponential.dist(rate), lower=0.2, dims="subject")
        pm.Normal("y", e[SUBJECT], 0.005, observed=y)
    nodes = np.linspace(0.0, 0.3, 6001)
    # up to a constant
    rows = norm(nodes[:, None], 0.005 / 2.0).logpdf((y - 0.2).reshape(N, 4).mean(axis=1))

    def objective(x):
        return np.log(np.exp(rows + (x[0] - np.exp(x[0]) * nodes)[:, None]).sum(axis=0)).sum()

    options = {
        "likelihood": None,
        "standard_errors": None,
        "draws": 400,
        "n_explore": 100,
        "n_smooth": 100,
    }
    rate = ps.summary(ps.fit_saem(model, random_seed=1, progressbar=False, **options))["estimate"][
        "rate"
    ]
    assert judged(np.log([rate]), objective, np.log([50.0])) < 0.05
