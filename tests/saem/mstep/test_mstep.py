"""Closed forms against direct numerical maximization."""

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from pymc_saem.saem.core import closed_form, power_scale


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_gls_mean_maximizes_the_expected_log_density(rng):
    n, d, k = 9, 3, 4
    design, offset = rng.normal(size=(n, d, k)), rng.normal(size=(n, d))
    root = np.tril(rng.normal(size=(d, d))) + 2 * np.eye(d)
    precision = np.linalg.inv(root @ root.T)
    first = rng.normal(size=(n, d))
    prior_precision, prior_mean = np.diag([0.0, 1.0, 2.0, 3.0]), rng.normal(size=k)

    def negative(beta):
        r = first - design @ beta - offset
        penalty = (beta - prior_mean) @ prior_precision @ (beta - prior_mean)
        return 0.5 * np.einsum("ia,ab,ib->", r, precision, r) + 0.5 * penalty

    beta = closed_form.gls_mean(
        first, design, offset, precision, prior_precision, prior_precision @ prior_mean
    )
    assert np.allclose(beta, minimize(negative, np.zeros(k), tol=1e-12).x, atol=1e-5)


def test_shared_design_equals_repeated_design(rng):
    first, precision = rng.normal(size=(8, 2)), np.diag([1.0, 3.0])
    design, offset = rng.normal(size=(1, 2, 2)), rng.normal(size=(1, 2))
    once = closed_form.gls_normal_equations(first, design, offset, precision)
    repeated = closed_form.gls_normal_equations(
        first, np.repeat(design, 8, 0), np.repeat(offset, 8, 0), precision
    )
    assert np.allclose(once[0], repeated[0]) and np.allclose(once[1], repeated[1])


def test_covariance_is_taken_about_each_subjects_own_mean(rng):
    phi, mean = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    direct = (phi - mean).T @ (phi - mean) / 6
    assert np.allclose(closed_form.covariance_about(phi, phi.T @ phi, mean), direct)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_scale_power_maximizes_the_normal_log_density(power):
    count, squares = 14.0, 9.0
    best = minimize_scalar(lambda t: count * power * t + 0.5 * squares * np.exp(-2 * power * t)).x
    assert np.isclose(power_scale.scale_power(count, squares, power), np.exp(best), rtol=1e-6)


@pytest.mark.parametrize("squares", [1e-6, 9.0, 1e5])
def test_penalized_scale_with_lognormal_prior(squares):
    def log_prior(x):
        z = np.log(x)
        return -z - 2 * z**2, -1 / x - 4 * z / x, 1 / x**2 - 4 / x**2 + 4 * z / x**2

    def negative(t):
        return 14 * t + 0.5 * squares * np.exp(-2 * t) + t + 2 * t**2

    found = power_scale.penalized_scale(
        np.array([14.0]), np.array([squares]), 1.0, np.array([1.0]), log_prior
    )
    assert np.isclose(found[0], np.exp(minimize_scalar(negative, bracket=(-5, 5)).x), rtol=1e-6)


def test_penalized_scale_stays_inside_the_support_of_a_uniform_prior():
    def log_prior(x):
        return np.where(x < 0.5, 0.0, -np.inf), np.zeros_like(x), np.zeros_like(x)

    found = power_scale.penalized_scale(
        np.array([10.0]), np.array([40.0]), 1.0, np.array([0.2]), log_prior
    )
    assert 0.499 < found[0] <= 0.5


def test_penalized_mean_with_a_laplace_like_prior(rng):
    left, right = np.diag([2.0, 5.0]), np.array([1.0, -3.0])

    def log_prior(b):
        return -np.sum(np.log1p(b**2)), -2 * b / (1 + b**2)

    def negative(b):
        return 0.5 * b @ left @ b - right @ b + np.sum(np.log1p(b**2))

    found = closed_form.penalized_mean(left, right, np.zeros(2), log_prior)
    assert np.allclose(
        found, minimize(negative, np.zeros(2), method="Nelder-Mead", tol=1e-10).x, atol=1e-4
    )


def test_penalized_cholesky_is_the_covariance_without_a_prior(rng):
    a = rng.normal(size=(3, 3))
    covariance = a @ a.T + np.eye(3)
    start = np.zeros(6)
    u = closed_form.penalized_cholesky(20.0, covariance, start, lambda u: (0.0, np.zeros_like(u)))
    packed = np.where(np.equal(*np.tril_indices(3)), np.exp(u), u)
    lower = closed_form.unpack_cholesky(packed, 3)
    assert np.allclose(lower @ lower.T, covariance, atol=1e-4)
    assert np.allclose(closed_form.pack_cholesky(covariance), packed, atol=1e-4)


def test_penalized_cholesky_with_a_prior_beats_every_neighbour(rng):
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])

    def log_prior(u):
        return -np.sum((u - 1) ** 2), -2 * (u - 1)

    def value(u):
        packed = np.where(np.equal(*np.tril_indices(2)), np.exp(u), u)
        lower = closed_form.unpack_cholesky(packed, 2)
        omega = lower @ lower.T
        fit = np.linalg.slogdet(omega)[1] + np.trace(np.linalg.solve(omega, covariance))
        return -0.5 * 12 * fit + log_prior(u)[0]

    u = closed_form.penalized_cholesky(12.0, covariance, np.zeros(3), log_prior)
    assert all(value(u) >= value(u + 0.01 * rng.normal(size=3)) for _ in range(50))
