"""A fit with exact answers, made once: random intercepts, 12 subjects with 3 rows (DESIGN section 10)."""

import numpy as np
import pytest

import pymc_saem as ps


@pytest.fixture(scope="session")
def intercepts():
    from tests.support.models import random_intercept

    return random_intercept()


@pytest.fixture(scope="session")
def fit(intercepts):
    return ps.fit_saem(
        intercepts,
        random_seed=1,
        progressbar=False,
        chains=2,
        n_explore=60,
        n_smooth=150,
        draws=100,
    )


@pytest.fixture(scope="session")
def exact_maximum():
    """Maximum of the weighted likelihood of random intercepts, y (12, 3): natural a, omega, sigma."""

    def maximum(y, weight=None):
        weight = np.ones(len(y)) if weight is None else weight
        n, n_rows = weight.sum(), y.shape[1]
        mean = y.mean(axis=1)
        a = weight @ mean / n
        sigma2 = weight @ np.sum((y - mean[:, None]) ** 2, axis=1) / (n * (n_rows - 1))
        omega2 = weight @ (mean - a) ** 2 / n - sigma2 / n_rows
        return np.array([a, np.sqrt(omega2), np.sqrt(sigma2)])

    return maximum
