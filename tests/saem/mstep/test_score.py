"""Score steps: against direct maximization, and their safeguards."""

import numpy as np
import pytest
from scipy.optimize import minimize

from pymc_saem.saem.core.newton import MAX_DENSE, Curvature, climb


def climbed(objective, x, n, step_size=1.0):
    curvature = None
    for _ in range(n):
        x, curvature = climb(objective, x, curvature, step_size)
    return x


def poisson_regression(rng, n, d):
    design = rng.normal(size=(n, d)) / np.sqrt(d)
    counts = rng.poisson(np.exp(design @ rng.normal(size=d)))

    def objective(b):
        mean = np.exp(design @ b)
        return counts @ (design @ b) - mean.sum() - 0.5 * b @ b, design.T @ (counts - mean) - b

    return objective


@pytest.mark.parametrize("d, n_steps, accuracy", [(3, 12, 1e-6), (MAX_DENSE + 18, 150, 2e-3)])
def test_steps_end_where_a_library_optimizer_does(d, n_steps, accuracy):
    """Few parameters by all second derivatives, many by one direction an iteration; in units of standard errors."""
    objective = poisson_regression(np.random.default_rng(d), 400, d)
    exact = minimize(lambda b: tuple(-v for v in objective(b)), np.zeros(d), jac=True, tol=1e-12).x
    assert np.abs(climbed(objective, np.zeros(d), n_steps) - exact).max() < accuracy


def test_a_start_far_from_the_maximum_does_not_stop_or_run_away():
    """log sigma of 30 normal residuals: too small by exp(3), where outer products of scores would make tiny steps."""
    squares = 30.0

    def objective(u):
        return -30.0 * u[0] - 0.5 * squares * np.exp(-2 * u[0]), np.array(
            [-30.0 + squares * np.exp(-2 * u[0])]
        )

    for start in (-3.0, 3.0):
        assert abs(climbed(objective, np.array([start]), 15)[0]) < 1e-5


def test_no_step_is_made_where_the_density_is_not_finite():
    x, curvature = climb(lambda x: (np.nan, x), np.ones(2), None, 1.0)
    assert np.array_equal(x, np.ones(2)) and curvature is None

    def wall(x):  # beyond 1.5 there is no density
        return (-np.inf if x[0] > 1.5 else -0.5 * (x[0] - 2.0) ** 2), -(x - 2.0)

    assert 1.0 < climbed(wall, np.array([1.0]), 5)[0] <= 1.5


def test_small_step_sizes_average_the_noise():
    """Gradients with noise of standard deviation 1 for a curvature of 1, steps k^-1: the error falls as k^-1/2."""
    rng = np.random.default_rng(1)
    ends = []
    for _ in range(40):
        x, curvature = np.array([3.0]), Curvature(np.eye(1), 1, np.zeros(1))
        for k in range(1, 201):
            noise = rng.normal(size=1)
            x, curvature = climb(
                lambda x, e=noise: (-0.5 * x @ x + e @ x, -x + e), x, curvature, 1.0 / k
            )
        ends.append(x[0])
    assert abs(np.mean(ends)) < 4 * 200**-0.5 / 40**0.5 and 0.5 < np.std(ends) * 200**0.5 < 1.6


def test_an_indefinite_curvature_still_leads_uphill():
    saddle = Curvature(np.array([[1.0, 3.0], [3.0, 1.0]]), 1, np.zeros(2))
    gradient = np.array([1.0, -2.0])
    assert gradient @ saddle.newton(gradient) > 0
