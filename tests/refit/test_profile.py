"""Profiles of random intercepts against the exact profile likelihood."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

import pymc_saem as ps
from tests.support.models import exact_loglik, random_intercept_data

Y, SUBJECT = random_intercept_data()
NAMES = ["a", "omega", "sigma"]


def exact_profile(k, value):
    """Largest log-likelihood with the k-th of (a, log omega, log sigma) held."""

    def negative(free):
        x = np.insert(free, k, value)
        return -exact_loglik(x[0], *np.exp(x[1:]), Y, SUBJECT)

    start = np.delete([0.0275, np.log(0.8), np.log(0.3)], k)
    return -minimize(
        negative, start, method="Nelder-Mead", options={"fatol": 1e-9, "xatol": 1e-6}
    ).fun


pytestmark = pytest.mark.slow("together")


@pytest.fixture(scope="module")
def profile(intercepts, fit):
    return ps.profile_likelihood(
        intercepts, fit, ["omega", "sigma"], random_seed=1, progressbar=False
    )


def test_points_are_those_of_the_exact_profile(profile):
    for k, name in ((1, "omega"), (2, "sigma")):
        points = profile.points[profile.points["parameter"] == name]
        assert len(points) >= 7 and points["value"].is_monotonic_increasing
        exact = [exact_profile(k, np.log(value)) for value in points["value"]]
        np.testing.assert_allclose(points["loglik"], exact, atol=0.005)
        assert np.all(points["loglik"] <= np.array(exact) + 1e-6)
        np.testing.assert_allclose(points[name], points["value"])


def test_limits_are_those_of_the_exact_profile(profile):
    top = exact_loglik(0.0275, 0.80081, 0.3, Y, SUBJECT)
    for k, name in ((1, "omega"), (2, "sigma")):
        estimate = np.log(profile.table.loc[name, "estimate"])

        def below(u, k=k):
            return exact_profile(k, u) - top + 0.5 * 3.841459

        lower, upper = (
            brentq(below, estimate - 1.0, estimate),
            brentq(below, estimate, estimate + 1.5),
        )
        found = np.log(profile.table.loc[name, ["lower", "upper"]].astype(float))
        np.testing.assert_allclose(found, [lower, upper], atol=0.01)


def test_arguments_are_checked(intercepts, fit):
    for arguments, message in (
        ({"parameters": "b"}, r"parameters has 'b'; the entries are \['a', 'omega', 'sigma'\]"),
        ({"parameters": "a", "fixed": {"a": 0.0}}, "'a' was fixed"),
        ({"parameters": "a", "n_points": 1}, "n_points is 1"),
        ({"parameters": "a", "ci_prob": 2.0}, "between 0 and 1"),
        ({"parameters": "a", "likelihood": "exact"}, "likelihood is 'exact'"),
    ):
        with pytest.raises(ValueError, match=message):
            ps.profile_likelihood(intercepts, fit, **arguments)
    with pytest.raises(
        ValueError, match=r"idata is of type Data\w+; it must be what fit_saem returned"
    ):
        ps.profile_likelihood(intercepts, fit["posterior"], "a")
