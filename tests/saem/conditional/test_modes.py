"""Conditional modes where there are several, or none: analytic log likelihoods with known maxima."""

import numpy as np
import pytest

from pymc_saem.saem.conditional.modes import best_modes, find_modes
from pymc_saem.saem.core.gaussian import Population

N_SUBJECTS = 3


class TwoPeaks:
    """log p(y_i | phi_i) = log(exp(-(phi - a_i)^2 / 2 s^2) + height_i exp(-(phi - b_i)^2 / 2 s^2)); NaN for subjects that fail."""

    def __init__(self, low, high, height, s=0.2, fails=(), cliff=None):
        self.peaks, self.log_height = (
            np.array([low, high]),
            np.array([np.zeros_like(height), np.log(height)]),
        )
        self.s, self.fails, self.cliff, self.n_evaluations = s, list(fails), cliff, 0

    def gradient(self, phi, theta):
        self.n_evaluations += 1
        parts = (
            -((phi - self.peaks[:, None, :, None]) ** 2) / (2 * self.s**2)
            + self.log_height[:, None, :, None]
        )
        value = np.logaddexp(*parts)
        slope = np.sum(
            np.exp(parts - value) * (self.peaks[:, None, :, None] - phi) / self.s**2, axis=0
        )
        value = value[..., 0]
        value[:, self.fails] = np.nan
        if self.cliff is not None:
            value = np.where(phi[..., 0] > self.cliff, np.nan, value)
        return value, slope, np.zeros(0)


def exact(densities, population):
    """Highest point of each subject on a fine grid."""
    grid = np.linspace(-6, 6, 120_001)
    phi = np.broadcast_to(grid[:, None, None], (grid.size, N_SUBJECTS, 1))
    value = np.nan_to_num(
        densities.gradient(phi, None)[0] + population.log_density(phi), nan=-np.inf
    )
    return grid[np.argmax(value, axis=0)], value.max(axis=0)


@pytest.fixture
def population():
    return Population(np.zeros((N_SUBJECTS, 1)), np.array([[4.0]]))


def starts_at(*values):
    return np.tile(np.array(values)[:, None, None], (1, N_SUBJECTS, 1)).astype(float)


SD = np.full((N_SUBJECTS, 1), 0.2)


def test_the_higher_of_two_modes_is_found_wherever_most_starts_are(population):
    low, high = np.array([-2.0, -1.0, 1.0]), np.array([2.0, 1.5, -1.5])
    densities = TwoPeaks(low, high, height=np.array([5.0, 3.0, 4.0]))
    place, value = exact(densities, population)
    starts = np.stack([low, low + 0.01, low - 0.01, high])[..., None]
    found = best_modes(densities, population, None, starts, SD)
    assert np.allclose(found.mode[:, 0], place, atol=1e-3) and np.allclose(
        found.logp, value, atol=1e-6
    )
    assert np.array_equal(found.agreement, np.full(N_SUBJECTS, 0.25))
    mode, logp = find_modes(densities, population, None, starts)
    assert np.array_equal(mode, found.mode) and np.array_equal(logp, found.logp)


def test_one_mode_is_agreed_upon(population):
    densities = TwoPeaks(*[np.array([0.5, 1.0, -1.0])] * 2, height=np.ones(N_SUBJECTS))
    found = best_modes(densities, population, None, starts_at(-3.0, 0.0, 0.1, 3.0), SD)
    assert np.array_equal(found.agreement, np.ones(N_SUBJECTS))
    assert np.allclose(found.mode[:, 0], exact(densities, population)[0], atol=1e-3)


@pytest.mark.parametrize("first", [-1.8, 1.8])
def test_of_equally_high_modes_the_first_start_decides(population, first):
    """Otherwise the last digit of a solve would, and the modes of two runs lie far apart."""
    densities = TwoPeaks(-np.full(N_SUBJECTS, 2.0), np.full(N_SUBJECTS, 2.0), np.ones(N_SUBJECTS))
    found = best_modes(
        densities, population, None, starts_at(first, -first, 2.3, -2.3, -1.7, 1.7), SD
    )
    assert np.all(np.sign(found.mode) == np.sign(first))
    assert np.array_equal(found.agreement, np.full(N_SUBJECTS, 0.5))


def test_failed_starts_do_not_count_and_failed_subjects_are_told(population):
    """Starts above 1 have no density; those of subject 1 nowhere."""
    densities = TwoPeaks(
        *[-np.ones(N_SUBJECTS)] * 2, height=np.ones(N_SUBJECTS), fails=[1], cliff=1.0
    )
    found = best_modes(densities, population, None, starts_at(0.0, 2.0, -2.0, 3.0), SD)
    assert np.array_equal(found.agreement, [1.0, 0.0, 1.0])
    assert np.isneginf(found.logp[1]) and np.isfinite(found.logp[[0, 2]]).all()
    assert found.mode[1] == 0.0  # the first start: the population mean, in a fit
    assert np.allclose(found.mode[[0, 2], 0], exact(densities, population)[0][[0, 2]], atol=1e-3)


def test_a_search_ends_soon(population):
    densities = TwoPeaks(
        -np.full(N_SUBJECTS, 2.0), np.full(N_SUBJECTS, 2.0), np.ones(N_SUBJECTS), fails=[0]
    )
    best_modes(densities, population, None, starts_at(-4.0, -1.0, 0.3, 1.0, 4.0), SD)
    assert densities.n_evaluations < 60
