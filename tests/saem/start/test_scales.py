"""Data, constants and starts on scales that do not fit each other: the exact answer, or an error that says what is wrong."""

import numpy as np
import pymc as pm
import pytest
from scipy.optimize import minimize

import pymc_saem as ps
from tests.support.models import exact_loglik

S = np.repeat(np.arange(12), 3)
RNG = np.random.default_rng(3)
Y = 0.8 * RNG.normal(size=12)[S] + 0.3 * RNG.normal(size=36)
QUICK = {
    "n_explore": 60, "n_smooth": 60, "n_transitions": 20, "draws": 20, "random_seed": 1, "progressbar": False,
    "standard_errors": None, "compile_kwargs": {"mode": "FAST_COMPILE"},
}  # fmt: skip


def intercepts(y, subject=S, x=None):
    with pm.Model(coords={"subject": np.unique(subject)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        mean = b[subject] if x is None else b[subject] + pm.Flat("beta") * x
        pm.Normal("y", mean, pm.HalfFlat("sigma", initval=1.0), observed=y)
    return model


def largest_loglik(y, x=None):
    """Of the marginal model, by its Gaussian covariance, in the units of the data."""
    unit, z = np.std(y), np.zeros(y.size) if x is None else (x - np.mean(x)) / np.std(x)

    def loss(p):
        return -exact_loglik(p[0], np.exp(p[1]), np.exp(p[2]), y / unit - p[3] * z, S)

    return -minimize(
        loss, [0.0, 0.0, -1.0, 0.0], method="BFGS", options={"gtol": 1e-7}
    ).fun - y.size * np.log(unit)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
@pytest.mark.slow
def test_units_of_the_data_do_not_matter(unit):
    """The start is in units of 1."""
    table = ps.summary(ps.fit_saem(intercepts(Y * unit), **QUICK))
    assert table.attrs["loglik"] == pytest.approx(largest_loglik(Y * unit), abs=0.05)


@pytest.mark.slow
def test_a_start_of_the_residual_scale_that_is_no_scale():
    table = ps.summary(ps.fit_saem(intercepts(Y), initvals={"sigma": 1e-300}, **QUICK))
    assert table.attrs["loglik"] == pytest.approx(largest_loglik(Y), abs=0.05)


@pytest.mark.parametrize("n_starts", [0, "auto"])
@pytest.mark.parametrize("omega", [1e-2, 1e-6])
@pytest.mark.slow
def test_a_start_at_which_random_effects_are_too_small_to_be_seen(omega, n_starts):
    """From there the run stayed, and reported that it had converged."""
    table = ps.summary(
        ps.fit_saem(
            intercepts(Y), initvals={"omega": omega, "sigma": 0.3}, n_starts=n_starts, **QUICK
        )
    )
    assert table.attrs["loglik"] == pytest.approx(largest_loglik(Y), abs=0.05)


@pytest.mark.slow
def test_a_covariate_in_years():
    """Its slope and the intercept are nearly collinear; the start is the least-squares fit, to the last digit."""
    x = 2020.0 + np.tile([0.0, 1.0, 2.0], 12)
    table = ps.summary(ps.fit_saem(intercepts(Y, x=x), **QUICK))
    assert table.attrs["loglik"] == pytest.approx(largest_loglik(Y, x), abs=0.05)


@pytest.mark.slow
def test_an_estimate_that_is_not_at_the_maximum_says_so():
    """Steps in one of two collinear parameters at a time do not get along the ridge; scores tell what is left."""
    x = RNG.normal(size=12)[S] * 2 + np.random.default_rng(8).normal(size=36)
    y = Y + 0.5 * x
    options = QUICK | {"standard_errors": "auto", "n_smooth": 100}
    found = {
        shift: ps.summary(ps.fit_saem(intercepts(y, x=x + shift), **options))
        for shift in (0.0, 2020.0)
    }
    missing = {
        shift: 2.0 * (largest_loglik(y, x) - table.attrs["loglik"])
        for shift, table in found.items()
    }
    assert missing[0.0] < 0.2 and found[0.0].attrs["identifiability"] == []
    first = found[2020.0].attrs["identifiability"][0]
    assert missing[2020.0] > 0.5 and first.startswith(
        "the estimates are not at the maximum: -2LL would fall by about "
    )
    told = float(
        first.removeprefix(
            "the estimates are not at the maximum: -2LL would fall by about "
        ).split()[0]
    )
    # a parabola, far from its top
    assert 0.4 < told / missing[2020.0] < 1.5 and "if a and beta moved" in first


@pytest.mark.parametrize(
    ("y", "options", "words"),
    [
        (
            np.full(36, 2.0),
            {},
            "All 36 observed values of 'y' are 2, so its residual scale 'sigma' cannot be estimated",
        ),
        (np.zeros(36), {}, "All 36 observed values of 'y' are 0"),
        (
            Y,
            {"fixed": {"omega": 1e-300}},
            "fixed= gives omega = 1e-300, whose square is 0 in double precision",
        ),
        (
            Y,
            {"fixed": {"omega": 1e300}},
            "fixed= gives omega = 1e.300, whose square is infinite in double precision",
        ),
        (Y, {"fixed": {"sigma": 1e-300}}, "fixed= gives sigma = 1e-300"),
        (
            Y,
            {"initvals": {"omega": 1e-300}},
            "The start has omega = 1e-300, whose square is 0 in double precision",
        ),
        (
            Y + 1e9,
            {},
            "The random effect 'b' is near 1e.09, and differs between subjects by about 1: .* Subtract a constant",
        ),
    ],
)
def test_what_has_no_answer_is_refused(y, options, words):
    with pytest.raises(ValueError, match=words):
        ps.fit_saem(intercepts(y), **QUICK, **options)


def test_one_value_has_no_scale():
    with pytest.raises(
        ValueError,
        match="'y' has one observed value, so its residual scale 'sigma' cannot be estimated",
    ):
        ps.fit_saem(intercepts(Y[:1], S[:1]), **QUICK)
