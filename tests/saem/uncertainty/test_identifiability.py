"""What the data do not distinguish is said in sentences, and nothing of healthy models."""

import json

import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group
from pymc_saem.saem.uncertainty.identifiability import hints
from tests.support.cases import CASES
from tests.support.cases.case import _hessian
from tests.support.models import random_intercept

NAMES = ["log_ka", "log_V", "log_CL", "sigma", "omega"]
QUICK = {
    "n_explore": 60, "n_smooth": 60, "draws": 50, "random_seed": 1, "progressbar": False,
    "compile_kwargs": {"mode": "FAST_COMPILE"},
}  # fmt: skip


def covariance_of(correlations, sd=(0.2, 0.05, 0.1, 3.0, 0.01)):
    """Covariance of NAMES with correlations ``{(j, k): value}``."""
    found = np.eye(5)
    for (j, k), value in correlations.items():
        found[j, k] = found[k, j] = value
    return found * np.outer(sd, sd)


def test_a_pair():
    assert hints(NAMES, covariance_of({(0, 2): 0.98, (1, 3): 0.5})) == [
        "the data hardly distinguish log_ka and log_CL (correlation 0.98)"
    ]
    assert hints(NAMES, covariance_of({(0, 2): -0.9999})) == [
        "the data hardly distinguish log_ka and log_CL (correlation -0.9999)"
    ]
    assert hints(NAMES, covariance_of({(0, 2): 0.94})) == []


def test_units_do_not_matter():
    correlations = {(0, 2): 0.97, (0, 1): 0.2}
    assert hints(NAMES, covariance_of(correlations)) == hints(
        NAMES, covariance_of(correlations, sd=(1e-6, 1, 1e6, 1, 1))
    )


def test_three_that_go_together_and_two_others():
    shared = np.ones((3, 3)) * 0.97 + 0.03 * np.eye(3)
    covariance = np.block(
        [[shared, np.zeros((3, 2))], [np.zeros((2, 3)), np.array([[1.0, -0.96], [-0.96, 1.0]])]]
    )
    assert hints(NAMES, covariance) == [
        "the data hardly distinguish log_ka, log_V and log_CL (correlations up to 0.97)",
        "the data hardly distinguish sigma and omega (correlation -0.96)",
    ]


def test_several_that_sum_to_a_constant():
    """Only the sum is known well: every pair has a correlation of -1/4, and each estimate is what the others leave."""
    covariance = np.eye(5) - 0.2 * np.ones((5, 5)) + 1e-3 * np.eye(5)
    multiple = np.sqrt(1.0 - 1.0 / (covariance * np.linalg.inv(covariance)).diagonal()[0])
    (found,) = hints(NAMES, covariance)
    assert (
        found
        == f"the data hardly distinguish log_ka, log_V, log_CL and 2 more (multiple correlation {multiple:.3f})"
    )
    (found,) = hints(
        NAMES, np.eye(5) - 0.25 * np.outer([1, 1, 0, 1, 1], [1, 1, 0, 1, 1]) + 1e-3 * np.eye(5)
    )
    assert found.startswith(
        "the data hardly distinguish log_ka, log_V, sigma and omega (multiple correlation 0.99"
    )


def test_many_are_cut_short():
    blocks = np.kron(np.eye(6), np.array([[1.0, 0.99], [0.99, 1.0]]))
    found = hints([f"p{k}" for k in range(12)], blocks)
    assert len(found) == 4 and found[-1] == "and 3 more; see the correlation matrix"


@pytest.mark.parametrize(
    "name",
    [
        "orange",
        "theophylline_weight",
        "poisson_time",
        "ordinal",
        "bolus_combined_linear",
        "map_orange",
    ],
)
def test_healthy_models_get_none(name):
    """At the exact maximum, or at values near it, by the exact second derivative."""
    case = CASES[name]
    values = (
        case.starts[0]
        if case.stored is None and name != "orange"
        else case.by_name(case.answer.estimate)
    )
    covariance = np.linalg.inv(_hessian(case._loss, case.to_free(values)))
    assert np.all(np.diag(covariance) > 0)
    assert hints(case.labels, covariance) == []


N, ROWS = 20, np.linspace(0.2, 2.0, 6)


def product(kind):
    """Two parameters of which the data tell the product, the sum, or (hardly) both."""
    rng = np.random.default_rng(3)
    subject, t = np.repeat(np.arange(N), ROWS.size), np.tile(ROWS, N)
    y = 3.0 * t + 0.5 * rng.normal(size=N)[subject] + 0.2 * rng.normal(size=t.size)
    with pm.Model(coords={"subject": np.arange(N)}) as model:
        a, c = pm.Flat("a", initval=1.0), pm.Flat("c", initval=2.0)
        b = pm.Normal("b", 0.0, pm.HalfFlat("omega", initval=1.0), dims="subject")
        slope = {"product": a * c, "sum": a + c, "bent": a * pm.math.exp(-0.02 * c * t)}[kind]
        pm.Normal("y", slope * t + b[subject], pm.HalfFlat("sigma", initval=1.0), observed=y)
    return model


@pytest.mark.parametrize(
    ("kind", "method"), [("product", "linearization"), ("sum", "linearization"), ("sum", "louis")]
)
@pytest.mark.slow
def test_what_is_not_determined_takes_no_other_standard_errors(kind, method):
    """The others are those of the random intercept model with one slope, whose information is known."""
    idata = ps.fit_saem(product(kind), standard_errors=method, likelihood=None, **QUICK)
    table = ps.summary(idata)
    (hint,) = table.attrs["identifiability"]
    assert sorted(
        hint.removeprefix("the data hardly determine a combination of ").split(" and ")
    ) == ["a", "c"]
    for column in ("se", "lower", "upper"):
        assert np.flatnonzero(table[column].isna()).tolist() == [
            table.index.get_loc(name) for name in ("a", "c")
        ]
    assert hint in " ".join(str(table).split()) and list(ps.correlation(idata).index) == [
        "omega",
        "sigma",
    ]
    omega, sigma = table["estimate"][["omega", "sigma"]]
    within, between = N * (ROWS.size - 1), omega**2 + sigma**2 / ROWS.size
    information = (
        2.0 * N / between**2 * np.outer([omega, sigma / ROWS.size], [omega, sigma / ROWS.size])
    )
    information[1, 1] += 2.0 * within / sigma**2
    exact = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(table["se"][["omega", "sigma"]], exact, rtol=0.08)


@pytest.mark.slow
def test_a_product_is_noted_by_louis_formula_too():
    """A little beside the maximum the second derivative of a product is not singular: large standard errors, and a note."""
    table = ps.summary(ps.fit_saem(product("product"), likelihood=None, **QUICK))
    (hint,) = table.attrs["identifiability"]
    assert (
        hint.startswith("the data hardly ")
        and " a" in hint
        and " c" in hint
        and "omega" not in hint
    )
    assert hint in " ".join(str(table).split())


@pytest.mark.slow
def test_what_is_hardly_told_apart_is_in_the_table_and_survives_a_file(tmp_path):
    """exp(-0.02 c t) is 1 - 0.02 c t or so: a and c differ by the curvature of a line."""
    idata = ps.fit_saem(product("bent"), likelihood=None, **QUICK)
    table, matrix = ps.summary(idata), ps.correlation(idata)
    (hint,) = table.attrs["identifiability"]
    assert hint == f"the data hardly distinguish a and c (correlation {matrix.loc['a', 'c']:.2f})"
    assert matrix.loc["a", "c"] > 0.95 and " ".join(str(table).split()).endswith(f"note: {hint}")
    assert matrix.attrs["identifiability"] == [hint] and matrix.attrs["condition_number"] > 30
    idata.to_netcdf(str(tmp_path / "fit.nc"))
    population = get_group(idata, "population")
    assert json.loads(population.attrs["identifiability"]) == [hint]


@pytest.mark.slow
def test_correlations_have_labels_and_leave_out_what_is_fixed():
    idata = ps.fit_saem(random_intercept(), fixed={"sigma": 0.3}, likelihood=None, **QUICK)
    matrix = ps.correlation(idata)
    assert list(matrix.index) == list(matrix.columns) == ["a", "omega"]
    np.testing.assert_allclose(np.diag(matrix), 1.0)
    assert abs(matrix.loc["a", "omega"]) < 0.3 and matrix.attrs["standard_errors"] == "louis"
    assert matrix.attrs["identifiability"] == [] and 1.0 <= matrix.attrs["condition_number"] < 3.0
    bare = ps.fit_saem(random_intercept(), standard_errors=None, likelihood=None, **QUICK)
    with pytest.raises(
        ValueError, match="The fit has no standard errors. Fit with standard_errors="
    ):
        ps.correlation(bare)
