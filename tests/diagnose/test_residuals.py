"""Residuals: closed forms of a linear model, and uniformity where the model is true."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats
from scipy.linalg import cholesky, solve_triangular

import pymc_saem as ps
from pymc_saem.diagnose.decorrelated import decorrelate, ranks
from pymc_saem.diagnose.fitted_rows import FittedRows
from pymc_saem.diagnose.individual import individual_residuals
from pymc_saem.diagnose.residuals import population_residuals
from tests.support import linear_gaussian as lg

N_SETS = 200


def closed_forms(y):
    """IWRES and PWRES of the linear model, each (row,)."""
    mode = lg.modes(y)
    iwres = (y - mode[lg.SUBJECT] - lg.SLOPE * lg.T) / lg.SIGMA
    root = cholesky(lg.covariance(), lower=True)
    pwres = np.empty(y.size)
    for k in range(lg.N):
        own = lg.SUBJECT == k
        pwres[own] = solve_triangular(root, (y - lg.A - lg.SLOPE * lg.T)[own], lower=True)
    return iwres, pwres


@pytest.fixture(scope="module")
def y():
    return lg.simulate(np.random.default_rng(4), 1)[0]


@pytest.fixture(scope="module")
def table(y):
    model = lg.build(y)
    return ps.residuals(
        model, lg.fit_at_truth(model, lg.modes(y)), x=lg.T, n_simulations=40_000, random_seed=1
    )


def test_closed_forms(table, y):
    iwres, pwres = closed_forms(y)
    np.testing.assert_allclose(table["iwres"], iwres, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(table["pwres"], pwres, atol=0.05)
    # NPDE of a normal model is PWRES, and PIT the marginal distribution function
    np.testing.assert_allclose(table["npde"], table["pwres"], atol=0.1)
    sd = np.sqrt(lg.OMEGA**2 + lg.SIGMA**2)
    np.testing.assert_allclose(
        table["pit"], stats.norm.cdf((y - lg.A - lg.SLOPE * lg.T) / sd), atol=0.012
    )


def test_decorrelation_with_a_sample_that_has_the_exact_moments(rng):
    covariance, mean = lg.covariance(), np.arange(4.0)
    z = rng.standard_normal((50, 4))
    z -= z.mean(axis=0)
    z = solve_triangular(cholesky(z.T @ z / 49, lower=True), z.T, lower=True).T
    root, y = cholesky(covariance, lower=True), np.array([1.0, -1.0, 0.5, 2.0])
    found, others = decorrelate(y, mean + z @ root.T)
    np.testing.assert_allclose(found, solve_triangular(root, y - mean, lower=True), rtol=1e-10)
    np.testing.assert_allclose(others, z, atol=1e-10)


def test_other_data_than_those_of_the_fit_are_told(y):
    fit = lg.fit_at_truth(lg.build(y), lg.modes(y))
    with pytest.warns(
        UserWarning,
        match="values of 'y' in the model are not those of the fit: 1 of .* rows differ, such as row 5, which is 99",
    ):
        ps.residuals(
            lg.build(np.where(np.arange(y.size) == 5, 99.0, y)),
            fit,
            x=lg.T,
            n_simulations=50,
            random_seed=1,
        )


def test_rows_and_labels(table, y):
    assert list(table.columns) == [
        "subject", "row", "x", "observed", "population", "individual", "iwres", "pwres", "npde", "pit",
    ]  # fmt: skip
    assert table.attrs == {"outcome": "y", "scale": "natural", "n_simulations": 40_000}
    np.testing.assert_array_equal(table.index, np.arange(y.size))
    assert list(table["subject"][:9]) == [f"s{k}" for k in range(8)] + ["s0"]
    assert list(table["row"][6:10]) == [0, 0, 1, 1]
    np.testing.assert_array_equal(table["observed"], y)
    np.testing.assert_array_equal(table["x"], lg.T)
    np.testing.assert_allclose(table["population"], lg.A + lg.SLOPE * lg.T)
    np.testing.assert_allclose(table["individual"], lg.modes(y)[lg.SUBJECT] + lg.SLOPE * lg.T)


# -- a true model gives uniform residuals: 200 data sets, each with simulations of its own -----------------------------


def normal(mean, sigma, y):
    pm.Normal("y", mean, sigma, observed=y)


def log_normal(mean, sigma, y):
    pm.LogNormal("y", mean / 3, sigma, observed=np.abs(y) + 0.1)


def counts(mean, sigma, y):
    pm.Poisson("y", pm.math.exp(mean / 3 + 0 * sigma), observed=np.ones(y.size, dtype=int))


def censored(mean, sigma, y):
    pm.Censored(
        "y", pm.Normal.dist(mean, sigma), lower=2.0, upper=4.5, observed=np.clip(y, 2.0, 4.5)
    )


class Trial:
    """Residuals of data sets that a model generates, compiled once."""

    def __init__(self, outcome):
        y = np.linspace(1.0, 5.0, lg.SUBJECT.size)
        model = lg.build(y, outcome)
        self.fitted = FittedRows(model, lg.fit_at_truth(model, lg.modes(y)), None, lg.T)

    def __call__(self, rng, n=N_SETS, n_simulations=300, **other):
        """``{name: (n, row)}``; ``other`` parameters for the data."""
        rows, truth = self.fitted.rows, self.fitted.values
        self.fitted.values = truth | other
        data = np.clip(self.fitted.simulate(n, rng), rows.lower, rows.upper)
        self.fitted.values = truth
        found = []
        sets = self.fitted.simulate(n * n_simulations, rng).reshape(n, n_simulations, -1)
        for y, simulated in zip(data, sets, strict=True):
            object.__setattr__(rows, "observed", y.astype(float))
            found.append(population_residuals(rows, simulated, rng))
        return {name: np.array([one[name] for one in found]) for name in found[0]}


@pytest.mark.parametrize(
    "outcome", [normal, log_normal, counts, censored], ids=lambda f: f.__name__
)
def test_a_true_model_gives_uniform_npde_and_pit(outcome, rng):
    found = Trial(outcome)(rng)
    # one row of each subject: independent
    one = [np.flatnonzero(lg.SUBJECT == k)[k % lg.R] for k in range(lg.N)]
    assert stats.kstest(found["pit"][:, one].ravel(), "uniform").pvalue > 1e-3
    for row in range(lg.R):
        own = slice(row * lg.N, (row + 1) * lg.N)
        assert stats.kstest(found["pit"][:, own].ravel(), "uniform").pvalue > 1e-3
        assert stats.kstest(found["npde"][:, own].ravel(), "norm").pvalue > 1e-3
    # the test that a user would make with one data set
    p = [stats.kstest(npde, "norm").pvalue for npde in found["npde"]]
    # elsewhere rows without correlation are not independent, and uniform only one by one
    if outcome is normal:
        assert stats.kstest(p, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(found["npde"][:, 0], found["npde"][:, lg.N])[0, 1]) < 0.25
    assert (
        np.isfinite([found["npde"], found["pwres"]]).all()
        and found["pit"].min() > 0
        and found["pit"].max() < 1
    )


@pytest.mark.parametrize("other", [{"sigma": 0.6}, {"omega": 1.3}, {"a": 2.4}], ids=str)
def test_a_wrong_model_does_not(other, rng):
    found = Trial(normal)(rng, **{name: np.float64(value) for name, value in other.items()})
    assert stats.kstest(found["npde"].ravel(), "norm").pvalue < 1e-5
    if "sigma" not in other:  # little of the marginal variance
        assert stats.kstest(found["pit"][:, : lg.N].ravel(), "uniform").pvalue < 1e-3


@pytest.mark.slow
def test_individual_residuals_are_normal_at_the_true_effects(rng):
    """With the true random effects in the place of modes, for distributions with and without a formula."""

    def mixture(mean, sigma, y):
        pm.NormalMixture(
            "y",
            [0.3, 0.7],
            mu=pm.math.stack([mean - 1, mean + 1], axis=-1),
            sigma=sigma,
            observed=y,
        )

    def student(mean, sigma, y):
        pm.StudentT("y", nu=3, mu=mean, sigma=sigma, observed=y)

    for outcome in (normal, log_normal, counts, censored, student, mixture):
        fitted = Trial(outcome).fitted
        rows, found = fitted.rows, []
        for y in np.clip(fitted.simulate_given_modes(12, rng), rows.lower, rows.upper):
            object.__setattr__(rows, "observed", y.astype(float))
            found.append(individual_residuals(fitted, rng))
        assert stats.kstest(np.ravel(found), "norm").pvalue > 1e-3, outcome


def test_ranks():
    rng = np.random.default_rng(1)
    simulated = np.array([[0.0, 1.0], [1.0, 1.0], [np.nan, 1.0], [2.0, 1.0]])
    found = np.array([ranks(np.array([0.5, 1.0]), simulated, rng) for _ in range(2000)])
    # one of three below, none equal: uniform between 1/4 and 2/4; four equal: uniform on (0, 1)
    assert 0.25 < found[:, 0].min() < 0.26 and 0.49 < found[:, 0].max() < 0.5
    assert stats.kstest(found[:, 1], "uniform").pvalue > 1e-3
    assert np.isnan(ranks(np.array([np.nan, 1.0]), np.full((3, 2), np.nan), rng)).all()


def test_a_row_that_does_not_vary_has_no_npde(rng):
    simulated = rng.standard_normal((30, 3))
    simulated[:, 1] = 0.0
    found, others = decorrelate(np.array([1.0, 0.0, 2.0]), simulated)
    assert np.isnan(found[1]) and np.isnan(others[:, 1]).all()
    alone, _ = decorrelate(np.array([1.0, 2.0]), simulated[:, [0, 2]])
    np.testing.assert_allclose(found[[0, 2]], alone)


def test_simulations_without_a_solution_do_not_count(rng):
    simulated = rng.standard_normal((30, 2))
    simulated[4, 1] = np.nan
    found, others = decorrelate(np.array([1.0, 2.0]), simulated)
    alone, _ = decorrelate(np.array([1.0, 2.0]), np.delete(simulated, 4, axis=0))
    np.testing.assert_allclose(found, alone)
    assert np.isnan(others[4]).all()
