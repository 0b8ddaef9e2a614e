"""What is not the data, or no model with subjects, is refused by name and with the true reason."""

import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy.sparse import csr_matrix

from pymc_saem.model.read import read_model
from pymc_saem.saem import UnsupportedModelError

try:
    from pytensor.conditional.op import ifelse
except ImportError:  # before PyTensor 3.3.8
    from pytensor.ifelse import ifelse

N, M = 6, 4
G = np.repeat(np.arange(N), M)
RNG = np.random.default_rng(0)
Y = RNG.normal(size=N * M)


def effects():
    return pm.Normal("e", pm.Normal("mu", 0, 5), pm.HalfNormal("omega", 2), dims="subject")


def refused(build, match):
    with (
        pm.Model(coords={"subject": range(N), "obs": range(N * M)}) as model,
        warnings.catch_warnings(action="ignore"),
    ):
        build()  # PyMC warns of missing values
    with pytest.raises(UnsupportedModelError, match=match):
        read_model(model)


def test_minibatches_are_refused():
    def build():
        y, g = pm.Minibatch(Y, G, batch_size=8)
        pm.Normal("y", effects()[g], 1.0, observed=y, total_size=Y.size)

    refused(build, r"data of 'y' are a pm.Minibatch.*fit_saem\(minibatch=")


def test_simulators_are_refused():
    def build():
        pm.Simulator("y", lambda rng, mean, size: rng.normal(mean), effects()[G], observed=Y)

    refused(build, "'y' is a pm.Simulator, which has no likelihood")


@pytest.mark.parametrize("on", ["parameter", "data"])
def test_lazy_conditions_are_refused(on):
    def build():
        e = effects()[G]
        condition = pm.Normal("b") > 0 if on == "parameter" else pm.Data("flag", 1.0) > 0
        pm.Normal("y", ifelse(condition, e, 2.0 * e), 1.0, observed=Y)

    refused(build, "'y' depends on free variables through pytensor.ifelse.*pm.math.switch")


def test_a_total_size_is_refused():
    def build():
        pm.Normal("y", effects()[G], 1.0, observed=Y, total_size=10 * Y.size)

    refused(build, r"'y' has total_size.*fit_saem\(minibatch=")


@pytest.mark.parametrize("per_subject", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_imputed_covariates_are_refused_by_name(per_subject, masked):
    def build():
        c = RNG.normal(size=N if per_subject else Y.size)
        c = (
            np.ma.masked_array(c, np.arange(c.size) == 3)
            if masked
            else np.where(np.arange(c.size) == 3, np.nan, c)
        )
        weight, beta = pm.Normal("weight", pm.Normal("m"), 1.0, observed=c), pm.Normal("beta")
        e = pm.Normal(
            "e", beta * weight if per_subject else 0.0, pm.HalfNormal("omega"), dims="subject"
        )
        pm.Normal("y", e[G] + (0.0 if per_subject else beta * weight), 1.0, observed=Y)

    refused(
        build,
        f"'weight' has missing values, which PyMC imputes, and '{'e' if per_subject else 'y'}' depends on them",
    )


CODES = {
    "factorize": pd.Series([*np.repeat([3.0, 1.0, 2.0, 5.0, 6.0], M), *[np.nan] * M]).factorize()[
        0
    ],
    "minus two": np.where(np.arange(N * M) < 20, np.minimum(G, 5), -2),
}


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("as_data", [False, True])
def test_codes_below_zero_are_refused_with_their_rows(kind, as_data):
    def build():
        pm.Normal(
            "y", effects()[pm.Data("g", CODES[kind]) if as_data else CODES[kind]], 1.0, observed=Y
        )

    code = CODES[kind].min()
    refused(
        build,
        f"index into 'e' has 4 codes below 0, the first of them {code}: in rows 20, 21, 22, 23",
    )


def test_codes_below_zero_of_groups_are_refused_too():
    def build():
        groups = pm.Normal("mu", 0.0, 5.0, shape=3)
        e = pm.Normal(
            "e", groups[np.array([0, 1, 2, 0, -1, 1])], pm.HalfNormal("omega"), dims="subject"
        )
        pm.Normal("y", e[G], 1.0, observed=Y)

    refused(build, "index into 'mu' has 1 codes below 0, the first of them -1: in rows 4")


def test_the_last_column_and_reversed_effects_are_no_codes():
    with pm.Model() as model:
        e = pm.Normal("e", 0.0, pm.HalfNormal("omega"), shape=(N, 2))
        pm.Normal("y", e[::-1][G, -1] + e[::-1, -1][G], 1.0, observed=Y)
    assert np.array_equal(read_model(model).outcomes[0].row_subject, N - 1 - G)


def test_a_missing_covariate_is_named():
    def build():
        x = np.where(np.arange(Y.size) == 5, np.nan, 1.0)
        pm.Normal("y", effects()[G] * x, 1.0, observed=Y)

    refused(build, "NaN in entry 5, so that row 5 of 'y'")


def test_draws_that_are_no_variables_are_refused():
    def build():
        e = pm.Normal(
            "e", pm.Normal("mu") + pm.Normal.dist(0, 1), pm.HalfNormal("omega"), dims="subject"
        )
        pm.Normal("y", e[G], 1.0, observed=Y)

    refused(build, "computed from a random draw that is not a variable of the model")


POTENTIALS = {
    "a joint prior": (
        lambda e: -2 * pt.log(pm.HalfNormal("tau") + 1.0),
        "term of 'tau' without a variable",
    ),
    "an entry per subject": (
        lambda e: e - pt.exp(e),
        "depends on 'e' and has entries of no known subject.*CustomDist",
    ),
    "a sum": (lambda e: pt.sum(e - pt.exp(e)), "depends on 'e' and is one number.*CustomDist"),
    "censored rows": (
        lambda e: pm.logcdf(pm.Normal.dist(e[G[:9]], 1.0), -1.0),
        "depends on 'e'.*pm.Censored",
    ),
}


@pytest.mark.parametrize("kind", POTENTIALS)
def test_potentials_are_refused_with_what_to_write_instead(kind):
    def build():
        e = effects()
        pm.Normal("y", e[G], 1.0, observed=Y)
        pm.Potential("term", POTENTIALS[kind][0](e))

    refused(
        build, f"'term' .*{POTENTIALS[kind][1]}" if kind != "a joint prior" else POTENTIALS[kind][1]
    )


OF_PARAMETERS = {
    "literature": lambda e: pm.Normal("z", pm.Normal("alpha"), 0.1, observed=0.2),
    "calibration": lambda e: pm.Normal("z", 0.0, pm.HalfNormal("tau"), observed=Y[:5]),
}


@pytest.mark.parametrize("kind", OF_PARAMETERS)
def test_rows_of_parameters_only_are_refused_as_such(kind):
    def build():
        e = effects()
        OF_PARAMETERS[kind](e)
        pm.Normal("y", e[G], 1.0, observed=Y)

    refused(build, "of 'z' depends on no random effect .* only on parameters")


def test_zeros_of_a_hurdle_are_rows_of_their_subject():
    with pm.Model(coords={"subject": range(N)}) as model:
        pm.HurdleLogNormal(
            "z", pm.Beta("psi", 1, 1), effects()[G], 1.0, observed=np.where(Y < 0, 0.0, np.exp(Y))
        )
    assert np.array_equal(read_model(model).outcomes[0].row_subject, G)


def test_occasions_with_carry_over_are_told_how_to_be_written():
    first = G * 2 + np.tile([0, 0, 1, 1], N)

    def build(flat):
        k = pm.Normal("k", 0.0, pm.HalfNormal("tau"), shape=2 * N if flat else (N, 2))
        rows = (
            k[first] + 0.3 * k[np.maximum(first - 1, 2 * G)]
            if flat
            else k[G, first % 2] + 0.3 * k[G, 0]
        )
        pm.Normal("y", effects()[G] + rows, 1.0, observed=Y)

    refused(
        lambda: build(True),
        "several entries of 'k'.* belong to one subject, as occasions with carry-over do. Write 'k'",
    )
    with pm.Model(coords={"subject": range(N)}) as model:
        build(False)
    assert np.array_equal(read_model(model).outcomes[0].row_subject, G)


def test_models_of_pymc_dims_are_refused_by_name():
    pmd = pytest.importorskip("pymc.dims")

    def build():
        index, seen = pmd.Data("g", G, dims="obs"), pmd.Data("seen", Y, dims="obs")
        e = pmd.Normal("e", pmd.Normal("mu", 0, 5), pmd.HalfNormal("omega", 2), dims="subject")
        pmd.Normal("y", e.isel(subject=index), 1.0, observed=seen)

    refused(build, r"written with pymc.dims \(mu, omega, e, y\)")


def test_sparse_designs_are_refused_where_they_multiply_effects():
    """Those of parameters are read: PyTensor computes them once for all copies of the effects."""
    sparse = pytest.importorskip("pytensor.sparse")
    z, x = csr_matrix(np.eye(N)[G]), csr_matrix(RNG.normal(size=(N * M, 2)))

    def build():
        pm.Normal("y", sparse.dot(z, effects()[:, None])[:, 0], 1.0, observed=Y)

    refused(build, r"'y' depends on 'e' by way of a sparse matrix, .* Z.toarray\(\)")
    with pm.Model(coords={"subject": range(N)}) as model:
        beta = pm.Normal("beta", 0.0, 1.0, shape=2)
        pm.Normal("y", sparse.dot(x, beta[:, None])[:, 0] + effects()[G], 1.0, observed=Y)
    assert [p.name for p in read_model(model).parameters] == ["beta", "mu", "omega"]
