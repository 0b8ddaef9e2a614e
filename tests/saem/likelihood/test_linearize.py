"""The linearized model: exact for linear models, known formulas by SciPy elsewhere; Laplace's method; what is refused."""

from types import SimpleNamespace

import numpy as np
import pymc as pm
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal, poisson

import pymc_saem as ps
from pymc_saem.saem.likelihood.linearize import Linearized, scale_of, why_not
from pymc_saem.saem.likelihood.marginal import marginal_likelihood
from pymc_saem.saem.report.assessment import assess
from tests.support.cases import CASES, bolus, counts
from tests.support.engines import engine_of
from tests.support.estimated import at_maximum, conditional_at, theta_of
from tests.support.models import random_intercept, theophylline


def at_start(name, n_draws=20):
    """Case, engine, theta at the first start of a case, and conditional distributions there."""
    case = CASES[name]
    engine = engine_of(case.build(), n_replicates=5, mode="NUMBA")
    theta = theta_of(engine, case.starts[0])
    return case, engine, theta, conditional_at(engine, theta, n_draws=n_draws)


def loglik(engine, theta, conditional, method="linearization"):
    return marginal_likelihood(engine, theta, conditional, np.random.default_rng(0), method)


@pytest.mark.parametrize("method", ["linearization", "laplace"])
@pytest.mark.parametrize(
    "name", ["slopes", "two_outcomes", "noncentered", "nested_added", "nested_mean"]
)
@pytest.mark.slow
def test_linear_models_are_exact(name, method):
    """At values that are no maximum; the covariance, several outcomes, spellings and levels of a Gaussian marginal."""
    case, engine, theta, conditional = at_start(name)
    found = loglik(engine, theta, conditional, method)
    exact = case.marginal({key: np.asarray(value, float) for key, value in case.starts[0].items()})
    assert found.total == pytest.approx(exact, abs=1e-5 if method == "linearization" else 1e-3)
    assert found.method == method and np.all(np.isnan(found.error)) and np.isnan(found.total_error)


def test_a_lognormal_outcome_counts_its_jacobian_and_missing_rows_do_not_count():
    rng = np.random.default_rng(5)
    subject = np.repeat(np.arange(6), 4)
    y = np.exp(0.5 + rng.normal(size=6)[subject] + 0.3 * rng.normal(size=24))
    y[[3, 17]] = np.nan
    with pm.Model(coords={"subject": np.arange(6)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        with pytest.warns(Warning, match="missing|imput"):
            pm.LogNormal("y", b[subject], pm.HalfFlat("sigma", initval=1.0), observed=y)
    engine = engine_of(model, n_replicates=5)
    theta = theta_of(engine, {"a": 0.4, "omega": 0.9, "sigma": 0.35})
    found = loglik(engine, theta, conditional_at(engine, theta, n_draws=20))
    for i in range(6):
        rows = y[(subject == i) & np.isfinite(y)]
        covariance = 0.35**2 * np.eye(rows.size) + 0.9**2
        exact = (
            multivariate_normal.logpdf(np.log(rows), np.full(rows.size, 0.4), covariance)
            - np.log(rows).sum()
        )
        assert found.loglik[i] == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("kind", ["proportional", "combined", "combined_linear"])
@pytest.mark.slow
def test_residual_scales_are_those_at_the_mode(kind):
    """Derivatives of the bolus by hand: f = D / V exp(-CL / V t), with phi = log V, log CL."""
    case, engine, theta, conditional = at_start(f"bolus_{kind}")
    found, v = loglik(engine, theta, conditional), case.starts[0]
    conc, t, subject = bolus.data(kind)
    mean, omega = (
        np.array([v["log_V"], v["log_CL"]]),
        np.diag([v["omega_V"] ** 2, v["omega_CL"] ** 2]),
    )
    for i, mode in enumerate(conditional.mode):
        ours = subject == i
        turnover = np.exp(mode[1] - mode[0]) * t[ours]
        f = bolus.DOSE * np.exp(-mode[0] - turnover)
        slope = np.column_stack([f * (turnover - 1.0), -f * turnover])
        covariance = slope @ omega @ slope.T + np.diag(
            np.broadcast_to(bolus.deviation(kind, f, v), f.shape) ** 2
        )
        exact = multivariate_normal.logpdf(conc[ours], f + slope @ (mean - mode), covariance)
        assert found.loglik[i] == pytest.approx(exact, abs=1e-4)


def test_theophylline_beside_the_exact_value_and_published_ones():
    """nlmixr2 (theo_sd, its documentation): FOCEi 359.403 at its own minimum, 359.491 at its SAEM estimates; exact 360.701."""
    _, engine, theta, conditional = at_maximum("theophylline")
    linearized = -2 * loglik(engine, theta, conditional).total
    assert 359.40 < linearized < 359.50
    assert linearized - 360.701 == pytest.approx(-1.28, abs=0.01)
    assert -2 * loglik(engine, theta, conditional, "laplace").total == pytest.approx(
        360.701 + 0.40, abs=0.02
    )


def test_differences_see_through_the_noise_of_a_solver():
    """The explicit solver at 1e-6 against the formula."""
    case, formula, theta, conditional = at_maximum("theophylline")
    engine = engine_of(theophylline(ode=True, solver="tsit5"), n_replicates=5)
    found = loglik(engine, theta_of(engine, case.by_name(case.answer.estimate)), conditional).loglik
    np.testing.assert_allclose(found, loglik(formula, theta, conditional).loglik, atol=1e-3)


@pytest.mark.slow
def test_laplace_is_the_curvature_at_the_mode():
    """Counts: the curvature of -log p(y, b) is sum exp(predictor) + 1 / omega^2."""
    case, engine, theta, conditional = at_start("poisson_time")
    found, v = loglik(engine, theta, conditional, "laplace"), case.starts[0]
    subject, t, x = counts.covariates("poisson_time")
    y = counts.data("poisson_time")
    for i in range(x.size):
        ours, center = subject == i, v["a"] + v["beta"] * x[i]

        def loss(b, ours=ours, center=center):
            rate = np.exp(b + v["slope"] * t[ours])
            prior = (
                0.5 * ((b - center) / v["omega"]) ** 2
                + np.log(v["omega"])
                + 0.5 * np.log(2 * np.pi)
            )
            return prior - poisson.logpmf(y[ours], rate).sum()

        best = minimize_scalar(loss, (center - 1, center + 1), options={"xtol": 1e-10})
        curvature = np.exp(best.x + v["slope"] * t[ours]).sum() + v["omega"] ** -2
        assert found.loglik[i] == pytest.approx(
            -best.fun + 0.5 * np.log(2 * np.pi / curvature), abs=1e-4
        )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("poisson", "the outcome 'y' is Poisson, and only Normal and LogNormal"),
        ("logistic", "the outcome 'y' is Bernoulli"),
        ("bolus_censored", "the outcome 'conc' is Censored"),
        ("student_errors", "the outcome 'y' is StudentT"),
        ("student_effect", "the random effect 'b' has no Gaussian distribution"),
    ],
)
def test_what_is_not_gaussian_is_refused_before_the_fit(name, words):
    model = CASES[name].build()
    for option, others in (
        ("likelihood", "'laplace', 'quadrature' or 'importance'"),
        ("standard_errors", "'louis' or 'score'"),
    ):
        with pytest.raises(
            ValueError, match=f"{option} is 'linearization', and {words}.*Use {others}, or 'auto'"
        ):
            ps.fit_saem(model, **{option: "linearization"})


def test_a_subject_without_prediction_is_named():
    """At the mode of subject 3 the logarithm of a negative number."""
    subject = np.repeat(np.arange(4), 3)
    y = np.random.default_rng(1).normal(1.0, 0.1, size=12)
    with pm.Model(coords={"subject": list("ABCD")}) as model:
        b = pm.Normal("b", pm.Flat("a", initval=3.0), pm.HalfFlat("omega"), dims="subject")
        pm.Normal("y", pm.math.log(b[subject]), pm.HalfFlat("sigma"), observed=y)
    engine = engine_of(model, n_replicates=5)
    theta = theta_of(engine, {"a": 2.7, "omega": 0.3, "sigma": 0.1})
    conditional = conditional_at(engine, theta, n_draws=20)
    whole = loglik(engine, theta, conditional)
    assert np.all(np.isfinite(whole.loglik)) and whole.warning == ""
    conditional.mode[3] = -1.0
    found = loglik(engine, theta, conditional)
    np.testing.assert_array_equal(np.isfinite(found.loglik), [True, True, True, False])
    np.testing.assert_array_equal(found.loglik[:3], whole.loglik[:3])
    assert "by linearization is not known for 1 of 4 subjects (D)" in found.warning
    options = {"likelihood": None, "standard_errors": "linearization"}
    uncertain = assess(engine, theta, conditional, np.random.default_rng(1), **options).uncertainty
    assert uncertain.note == "without 1 subjects whose predictions failed (D)" and np.all(
        np.isfinite(uncertain.se)
    )


def test_steps_have_a_size_where_draws_have_no_spread():
    engine = engine_of(random_intercept())
    population = engine.maximizer.population(np.zeros(3))
    found = scale_of(SimpleNamespace(sd=np.array([[0.0]] * 6 + [[0.5]] * 6)), population)
    np.testing.assert_allclose(found.ravel(), [1e-3] * 6 + [0.5] * 6)
    assert why_not(engine.mixed) == ""
    linear = Linearized(engine, population.mean, found)
    np.testing.assert_allclose(linear.expand(np.zeros(3))[1], 1.0, rtol=1e-8)


@pytest.mark.slow
def test_the_table_says_that_the_approximation_has_no_error():
    idata = ps.fit_saem(
        random_intercept(), likelihood="linearization", standard_errors="linearization", n_explore=150, n_smooth=150, draws=20,
        random_seed=1, progressbar=False, compile_kwargs={"mode": "FAST_COMPILE"},
    )  # fmt: skip
    table = ps.summary(idata)
    assert table.attrs["loglik"] == pytest.approx(-26.38686, abs=2e-3) and np.isnan(
        table.attrs["loglik_error"]
    )
    assert "(linearization, an approximation without an estimate of its error)" in str(table)
    assert "standard errors: linearized model (expected Fisher information)" in str(table)
