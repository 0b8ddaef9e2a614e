"""Fisher information against exact second derivatives, and what the fit makes of it."""

import json
import warnings

import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group
from pymc_saem.saem.likelihood.joint import WeightedPoints
from pymc_saem.saem.likelihood.marginal import marginal_likelihood
from pymc_saem.saem.uncertainty.complete_data import CompleteData
from pymc_saem.saem.uncertainty.fisher import Information, information
from pymc_saem.saem.uncertainty.standard_errors import uncertainty
from tests.support.cases import CASES
from tests.support.cases.case import _hessian
from tests.support.engines import engine_of
from tests.support.estimated import at_maximum, conditional_at, draws_at, nodes_at, theta_of
from tests.support.models import (
    exact_loglik,
    random_intercept,
    random_intercept_data,
    slopes,
    slopes_data,
)


def standard_errors(name, points, method="louis"):
    """Of every entry, in the order of the case."""
    case, engine, theta, _ = at_maximum(name)
    found = uncertainty(
        engine,
        theta,
        information(engine, theta, points, method=method),
        10,
        np.random.default_rng(1),
    )
    sizes = [np.size(case.starts[0][p.name]) for p in engine.mixed.parameters]
    parts = np.split(found.se, np.cumsum(sizes)[:-1])
    return case.flat(dict(zip([p.name for p in engine.mixed.parameters], parts, strict=True)))


@pytest.mark.parametrize("name", ["theophylline", "slopes", "orange", "map_variance", "map_orange"])
@pytest.mark.slow
def test_louis_by_quadrature_is_the_exact_hessian(name):
    """The map cases have priors, whose curvature counts; orange has parameters without random effects."""
    found = standard_errors(name, nodes_at(name))
    np.testing.assert_allclose(found, at_maximum(name)[0].answer.standard_error, rtol=0.005)


@pytest.mark.parametrize(
    "name", ["poisson_time", "ordinal", "student_effect_pk", "student_errors", "bolus_combined"]
)
@pytest.mark.slow
def test_louis_is_the_second_derivative_anywhere(name):
    """At values that are no maximum, on the unconstrained scale, in units of the diagonal."""
    case = CASES[name]
    engine = engine_of(case.build(), n_replicates=5, mode="NUMBA")
    theta = theta_of(engine, case.starts[0])
    conditional = conditional_at(engine, theta, n_draws=20)
    points = marginal_likelihood(
        engine, theta, conditional, np.random.default_rng(0), "quadrature"
    ).points
    complete = CompleteData(engine, theta, np.arange(theta.size), points, np.inf)
    found = -complete.hessian() - complete.score_moments()[1][0]
    exact = _hessian(case._loss, case.to_free(case.starts[0]))
    names = [p.name for p in engine.mixed.parameters]
    order = np.concatenate(
        [np.flatnonzero([label.split("[")[0] == name for label in case.labels]) for name in names]
    )
    exact = exact[np.ix_(order, order)]
    unit = np.sqrt(np.abs(np.outer(np.diag(exact), np.diag(exact))))
    np.testing.assert_allclose(found / unit, exact / unit, atol=0.01)


@pytest.mark.parametrize("name", ["theophylline", "two_outcomes", "nested_added"])
@pytest.mark.slow
def test_louis_by_draws_is_within_five_percent(name):
    found = standard_errors(name, draws_at(name))
    np.testing.assert_allclose(found, at_maximum(name)[0].answer.standard_error, rtol=0.05)


def test_scores_are_gradients_of_the_marginal_likelihood():
    """Fisher's identity, subject by subject, at parameters that are no maximum."""
    _, engine, theta, _ = at_maximum("intercept")
    theta = theta + 0.1
    conditional = conditional_at(engine, theta)
    mode, sd = conditional.mode, conditional.sd
    x = np.linspace(-9.0, 9.0, 401)[:, None, None]  # a fine grid stands for the distribution
    grid = mode + x * sd
    population = engine.maximizer.population(theta)
    log_weight = engine.densities.likelihood(grid, theta)[0] + population.log_density(grid)
    complete = CompleteData(
        engine, theta, np.arange(3), WeightedPoints.of_nodes(grid, log_weight), np.inf
    )
    y, subject = random_intercept_data()

    def loglik(theta):
        a, omega, sigma = theta[0], np.exp(theta[1]), np.exp(theta[2])
        return np.array(
            [
                exact_loglik(a, omega, sigma, y[subject == i], subject[subject == i])
                for i in range(12)
            ]
        )

    gradient = np.stack(
        [(loglik(theta + h) - loglik(theta - h)) / 2e-5 for h in 1e-5 * np.eye(3)], axis=1
    )
    scores, _ = complete.score_moments()
    np.testing.assert_allclose(scores, gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_score_based_information_needs_many_subjects():
    """400 subjects: within 15 % of Louis; 12 subjects are too few, and scores of fewer subjects than parameters have no rank."""
    data = slopes_data(n_subjects=400, n_rows=4)
    engine = engine_of(slopes(data), n_replicates=5)
    values = {"beta": [1.0, -0.5], "gamma": 0.8, "sigma": 0.4}
    omega = np.array([[1.0, 0.3], [0.3, 0.25]])
    theta = theta_of(engine, values | {"chol": np.linalg.cholesky(omega)[np.tril_indices(2)]})
    points = WeightedPoints.of_draws(conditional_at(engine, theta, n_draws=60).draws)
    louis, score = (
        np.sqrt(np.diag(information(engine, theta, points, method=m).covariance))
        for m in ("louis", "score")
    )
    np.testing.assert_allclose(score, louis, rtol=0.15)
    assert np.all(np.isnan(standard_errors("theophylline", nodes_at("theophylline"), "score")))


@pytest.mark.slow
def test_what_the_data_do_not_determine_is_named():
    """One row a subject: only omega^2 + sigma^2 is determined."""
    y = np.random.default_rng(1).normal(size=15)
    with pm.Model(coords={"subject": np.arange(15)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega"), dims="subject")
        pm.Normal("y", b, pm.HalfFlat("sigma"), observed=y)
    engine = engine_of(model, n_replicates=5)
    theta = theta_of(engine, {"a": y.mean(), "omega": y.std() / 2**0.5, "sigma": y.std() / 2**0.5})
    points = WeightedPoints.of_draws(conditional_at(engine, theta).draws)
    found = information(engine, theta, points)
    assert found.method == "louis" and found.unknown.tolist() == [False, True, True]
    assert found.note.startswith("the data hardly determine a combination of omega and sigma")
    told = uncertainty(engine, theta, found, 10, np.random.default_rng(1))
    np.testing.assert_array_equal(np.isnan(told.se), found.unknown)
    assert told.se[0] == pytest.approx(y.std() / np.sqrt(15), rel=0.02)
    assert np.all(told.theta[:, 0] != theta[0])
    few = information(
        engine, theta, WeightedPoints.of_draws(conditional_at(engine, theta).draws), ("omega",)
    )
    assert few.method == "louis" and few.columns.size == 2


def test_an_interval_without_ends_has_none():
    """A logarithm with a standard error of 400 would reach from 0 to infinity; the others have the normal interval."""
    engine = engine_of(random_intercept())
    theta = theta_of(engine, {"a": 0.5, "omega": 2.0, "sigma": 0.3})
    covariance = np.diag([0.04, 400.0**2, 0.01])
    known = Information(np.arange(3), covariance, np.zeros(3, dtype=bool), "louis")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = uncertainty(engine, theta, known, 5, np.random.default_rng(1))
    for values in (found.se, found.lower, found.upper):
        assert np.isnan(values).tolist() == [False, True, False]
    assert (
        found.hints == ["the data hardly determine omega (their intervals are unbounded)"]
        and found.hints[0] in found.note
    )
    np.testing.assert_allclose(
        [found.lower[0], found.upper[2]], [0.5 - 1.96 * 0.2, 0.3 * np.exp(1.96 * 0.1)], rtol=1e-3
    )
    assert np.all(found.theta[:, 1] == theta[1]) and np.all(np.isfinite(found.theta))


@pytest.fixture(scope="module")
def fitted():
    return ps.fit_saem(random_intercept(), random_seed=1, draws=100, progressbar=False)


def test_the_fit_has_them(fitted):
    """Standard errors of the balanced design, with the ML estimates of DESIGN section 10."""
    table = ps.summary(fitted)
    omega, sigma = 0.80081, 0.3
    assert table["se"]["a"] == pytest.approx(np.sqrt((omega**2 + sigma**2 / 3) / 12), rel=0.02)
    assert table["se"]["sigma"] == pytest.approx(sigma / np.sqrt(48), rel=0.03)
    np.testing.assert_allclose(table["rse"], 100 * table["se"] / table["estimate"].abs())
    np.testing.assert_allclose(table["upper"] - table["lower"], 2 * 1.96 * table["se"], rtol=0.15)
    factor = np.exp(1.96 * table["se"]["sigma"] / table["estimate"]["sigma"])
    assert table["upper"]["sigma"] == pytest.approx(table["estimate"]["sigma"] * factor, rel=1e-3)
    assert (
        table.attrs["loglik"] == pytest.approx(-26.38686, abs=1e-3)
        and table.attrs["n_parameters"] == 3
    )
    population = get_group(fitted, "population")
    assert population["correlation"].dims == ("parameter", "parameter_bis")
    np.testing.assert_allclose(np.diag(population["correlation"]), 1.0)
    assert 1.0 <= population.attrs["condition_number"] < 10.0
    individual = get_group(fitted, "individual")
    assert individual["loglik"].dims == ("subject",)
    assert float(individual["loglik"].sum()) == pytest.approx(population.attrs["loglik"])


def test_the_table_prints_them(fitted):
    text = str(ps.summary(fitted))
    assert "-2LL 52.77 (quadrature" in text and "AIC 58.77" in text and "BICc 61.3" in text
    assert "standard errors: Louis" in text and "-2LL" in ps.summary(fitted)._repr_html_()
    # a selection is an ordinary DataFrame
    assert "-2LL" not in str(ps.summary(fitted)[["estimate"]])


def test_parameters_are_drawn_from_their_normal_law(fitted):
    posterior, table = get_group(fitted, "posterior"), ps.summary(fitted)
    n = posterior["a"].size
    assert float(posterior["a"].std()) == pytest.approx(table["se"]["a"], rel=4 / np.sqrt(2 * n))
    relative = table["se"]["omega"] / table["estimate"]["omega"]
    assert float(np.log(posterior["omega"]).std()) == pytest.approx(
        relative, rel=4 / np.sqrt(2 * n)
    )
    assert "N(theta_hat, I^-1)" in posterior.attrs["parameters"]


def test_they_can_be_left_out_and_fixed_parameters_have_none():
    options = {"n_explore": 5, "n_smooth": 5, "draws": 20, "random_seed": 1, "progressbar": False}
    options["compile_kwargs"] = {"mode": "FAST_COMPILE"}
    bare = ps.fit_saem(random_intercept(), likelihood=None, standard_errors=None, **options)
    assert ps.summary(bare)["se"].isna().all() and "loglik" not in ps.summary(bare).attrs
    assert "se" not in str(ps.summary(bare)).splitlines()[0].split()
    posterior = get_group(bare, "posterior")
    assert (
        posterior["a"].min() == posterior["a"].max() and "constant" in posterior.attrs["parameters"]
    )
    held = ps.fit_saem(random_intercept(), fixed={"sigma": 0.3}, **options)
    assert list(ps.summary(held)) == list(ps.summary(bare))
    se = ps.summary(held)["se"]
    assert (
        np.isnan(se["sigma"])
        and np.isfinite(se["a"])
        and get_group(held, "posterior")["sigma"].std() < 1e-12
    )
    for name, word in (("likelihood", "'importance'"), ("standard_errors", "'louis'")):
        with pytest.raises(
            ValueError, match=f"{name} is 'best'; it must be None or one of .*{word}"
        ):
            ps.fit_saem(random_intercept(), **{name: "best"})


def test_a_failure_here_loses_nothing(monkeypatch):
    import pymc_saem.saem.report.assessment as module

    def broken(*args, **kwargs):
        raise FloatingPointError("no integral today")

    monkeypatch.setattr(module, "marginal_likelihood", broken)
    with pytest.warns(
        UserWarning, match="Marginal log-likelihood: failed .FloatingPointError: no integral today."
    ):
        idata = ps.fit_saem(
            random_intercept(), n_explore=30, n_smooth=30, draws=50, random_seed=1, progressbar=False,
            compile_kwargs={"mode": "FAST_COMPILE"},
        )  # fmt: skip
    table = ps.summary(idata)
    assert "loglik" not in table.attrs and np.all(np.isfinite(table["se"]))
    assert set(json.loads(get_group(idata, "saem_trace").attrs["seconds"])) >= {
        "likelihood",
        "standard_errors",
    }
