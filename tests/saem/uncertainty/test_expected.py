"""Fisher information of the linearized model against closed forms, exact second derivatives and published numbers."""

import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.saem.likelihood.joint import WeightedPoints
from pymc_saem.saem.likelihood.linearize import Linearized
from pymc_saem.saem.uncertainty.expected import expected_information
from pymc_saem.saem.uncertainty.fisher import information
from pymc_saem.saem.uncertainty.standard_errors import uncertainty
from tests.support.cases import CASES, linear
from tests.support.engines import engine_of
from tests.support.estimated import at_maximum, conditional_at, draws_at, theta_of
from tests.support.models import slopes, slopes_data


def of_gaussian(mean_slopes, covariance, covariance_slopes):
    """Fisher information of one Gaussian vector, by explicit inverses: Kay (1993), eq. 3.31."""
    inverse = np.linalg.inv(covariance)
    trace = [
        [np.trace(inverse @ a @ inverse @ b) for b in covariance_slopes] for a in covariance_slopes
    ]
    return np.array(mean_slopes) @ inverse @ np.array(mean_slopes).T + 0.5 * np.array(trace)


def ours(engine, theta, point=None):
    """Expected information, all of theta; around population means unless told."""
    population = engine.maximizer.population(theta)
    point = population.mean if point is None else point
    linearized = Linearized(engine, point, np.broadcast_to(0.1 * population.sd, point.shape))
    found, left_out = expected_information(linearized, theta, np.arange(theta.size))
    assert not left_out.any()
    return found


def test_two_outcomes():
    """Random intercept and shift with standard deviations on the log scale, residuals of two outcomes."""
    case = CASES["two_outcomes"]
    engine, v = engine_of(case.build()), case.starts[0] | {"omega_shift": 0.6, "sigma_z": 0.3}
    _, first, _, second = linear.two_outcomes_data()
    total = 0.0
    for i in range(25):
        n, m = (first == i).sum(), (second == i).sum()
        one, shift = np.ones(n + m), np.r_[np.zeros(n), np.ones(m)]
        parts = {
            "omega_level": v["omega_level"] ** 2 * np.outer(one, one),
            "omega_shift": v["omega_shift"] ** 2 * np.outer(shift, shift),
            "sigma_y": v["sigma_y"] ** 2 * np.diag(1 - shift),
            "sigma_z": v["sigma_z"] ** 2 * np.diag(shift),
        }
        names = [p.name for p in engine.mixed.parameters]
        means = {"mean_level": one, "mean_shift": shift}
        d_mean = [means.get(name, np.zeros(n + m)) for name in names]
        d_covariance = [
            2.0 * parts[name] if name in parts else np.zeros((n + m, n + m)) for name in names
        ]
        total = total + of_gaussian(d_mean, sum(parts.values()), d_covariance)
    np.testing.assert_allclose(ours(engine, theta_of(engine, v)), total, rtol=1e-4, atol=1e-6)


def test_a_full_covariance_and_a_covariate():
    """Intercept and slope with a Cholesky factor, whose diagonal is on the log scale; around any points."""
    data = slopes_data(n_subjects=10, n_rows=5)
    engine = engine_of(slopes(data))
    root = np.array([[1.1, 0.0], [0.3, 0.5]])
    values = {"beta": [1.0, -0.5], "gamma": 0.8, "sigma": 0.4, "chol": root[np.tril_indices(2)]}
    total, n_rows = 0.0, 5
    z = np.column_stack([np.ones(n_rows), data["t"][:n_rows]])
    covariance = z @ root @ root.T @ z.T + 0.16 * np.eye(n_rows)
    moves = [
        np.diag([root[0, 0], 0.0]),
        np.array([[0.0, 0.0], [1.0, 0.0]]),
        np.diag([0.0, root[1, 1]]),
    ]
    of_chol = [z @ (move @ root.T + root @ move.T) @ z.T for move in moves]
    nothing = np.zeros((n_rows, n_rows))
    for x in data["x"]:
        by_name = {
            "beta": ([z[:, 0], z[:, 1]], [nothing] * 2),
            "gamma": ([x * z[:, 0]], [nothing]),
            "chol": ([np.zeros(n_rows)] * 3, of_chol),
            "sigma": ([np.zeros(n_rows)], [0.32 * np.eye(n_rows)]),
        }
        names = [p.name for p in engine.mixed.parameters]
        d_mean, d_covariance = (sum((by_name[name][k] for name in names), []) for k in (0, 1))
        total = total + of_gaussian(d_mean, covariance, d_covariance)
    point = np.random.default_rng(1).normal(size=(10, 2))
    np.testing.assert_allclose(
        ours(engine, theta_of(engine, values), point), total, rtol=1e-4, atol=1e-6
    )


def standard_errors(name):
    case, engine, theta, conditional = at_maximum(name)
    found = information(
        engine,
        theta,
        draws_at(name),
        method="linearization",
        linearized=lambda: Linearized(engine, conditional.mode, conditional.sd),
    )
    assert found.method == "linearization" and found.note == ""
    se = uncertainty(engine, theta, found, 10, np.random.default_rng(1)).se
    sizes = [np.size(case.starts[0][p.name]) for p in engine.mixed.parameters]
    parts = dict(
        zip(
            [p.name for p in engine.mixed.parameters],
            np.split(se, np.cumsum(sizes)[:-1]),
            strict=True,
        )
    )
    return case.flat(parts)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("theophylline", 0.08), ("orange", 0.03), ("map_orange", 0.1)]
)
@pytest.mark.slow
def test_beside_the_exact_hessian(name, tolerance):
    """Orange has parameters without random effects; map_orange priors, whose curvature counts (and which move it from the maximum)."""
    np.testing.assert_allclose(
        standard_errors(name), at_maximum(name)[0].answer.standard_error, rtol=tolerance
    )


def test_beside_published_linearized_errors():
    """nlmixr2's linFim of its SAEM fit of theo_sd (its documentation): log ka 0.195, log CL 0.0838, log V 0.0453."""
    found = dict(zip(CASES["theophylline"].labels, standard_errors("theophylline"), strict=True))
    assert found["log_ka"] == pytest.approx(0.195, rel=0.02)
    assert found["log_CL"] == pytest.approx(0.0838, rel=0.02)
    assert found["log_V"] == pytest.approx(0.0453, rel=0.02)


N, ROWS = 20, np.linspace(0.2, 2.0, 6)


def far_from_the_origin():
    """A line whose times, 10.2 to 12, leave the intercept to be told from the slope."""
    rng = np.random.default_rng(3)
    subject, t = np.repeat(np.arange(N), ROWS.size), np.tile(10.0 + ROWS, N)
    y = 3.0 * (t - 10.0) + 0.5 * rng.normal(size=N)[subject] + 0.2 * rng.normal(size=t.size)
    with pm.Model(coords={"subject": np.arange(N)}) as model:
        b = pm.Normal("b", pm.Flat("mean"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        pm.Normal(
            "y", b[subject] + pm.Flat("slope") * t, pm.HalfFlat("sigma", initval=1.0), observed=y
        )
    return model


@pytest.mark.slow
def test_auto_takes_it_where_louis_formula_fails():
    """With few draws the Monte-Carlo error hides what the data tell of the mean; the expected information is exact."""
    engine = engine_of(far_from_the_origin(), n_replicates=5, mode="NUMBA")
    theta = theta_of(engine, {"mean": -29.6, "slope": 2.955, "omega": 0.616, "sigma": 0.21})
    conditional = conditional_at(engine, theta)
    points = WeightedPoints.of_draws(conditional.draws)
    alone = information(engine, theta, points)
    assert alone.unknown.tolist() == [True, False, True, False]
    why = "the data hardly determine a combination of mean and slope, as far as 1250 conditional draws show (increase draws)"
    assert alone.hints == (why,)
    found = information(
        engine,
        theta,
        points,
        linearized=lambda: Linearized(engine, conditional.mode, conditional.sd),
    )
    assert found.method == "linearization" and found.note == f"Louis' formula failed ({why})"
    x = np.column_stack([np.ones(ROWS.size), 10.0 + ROWS])
    covariance = 0.21**2 * np.eye(ROWS.size) + 0.616**2
    exact = np.sqrt(np.diag(np.linalg.inv(N * x.T @ np.linalg.solve(covariance, x))))
    names = [p.name for p in engine.mixed.parameters]
    np.testing.assert_allclose(
        np.sqrt(np.diag(found.covariance))[[names.index("mean"), names.index("slope")]],
        exact,
        rtol=1e-3,
    )


def test_what_no_row_depends_on_is_named():
    """A parameter that is in the graph, and moves nothing: exp(-1000 + rate) is zero in double precision."""
    y, subject = np.random.default_rng(2).normal(size=4 * N), np.repeat(np.arange(N), 4)
    with pm.Model(coords={"subject": np.arange(N)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        curve = b[subject] + pm.math.exp(-1000.0 + pm.Flat("rate"))
        pm.Normal("y", curve, pm.HalfFlat("sigma", initval=1.0), observed=y)
    engine = engine_of(model, n_replicates=5)
    theta = theta_of(engine, {"a": 0.0, "omega": 0.5, "rate": 0.0, "sigma": 1.0})
    conditional = conditional_at(engine, theta, n_draws=20)
    found = information(
        engine, theta, WeightedPoints.of_draws(conditional.draws), method="linearization",
        linearized=lambda: Linearized(engine, conditional.mode, conditional.sd),
    )  # fmt: skip
    assert found.hints == ("the data contain no information on rate",)
    names = [p.name for p in engine.mixed.parameters]
    assert [name for name, unknown in zip(names, found.unknown, strict=True) if unknown] == ["rate"]
    sd = np.sqrt(np.diag(found.covariance))[names.index("a")]
    assert sd == pytest.approx(np.sqrt((0.5**2 + 1.0 / 4) / N), rel=1e-3)


@pytest.mark.slow
def test_scores_of_few_subjects_say_what_else_there_is():
    idata = ps.fit_saem(
        slopes(slopes_data(n_subjects=4, n_rows=6)), standard_errors="score", likelihood=None, n_explore=20, n_smooth=20, draws=20,
        random_seed=1, progressbar=False, compile_kwargs={"mode": "FAST_COMPILE"},
    )  # fmt: skip
    text = str(ps.summary(idata))
    assert (
        "standard errors: none; 7 parameters are too many for the scores of 4 subjects" in text
        and 'standard_errors="louis"' in text
    )
