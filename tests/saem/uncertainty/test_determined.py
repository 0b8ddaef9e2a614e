"""Flat directions of information matrices that were built with them, and what is left of the others."""

import numpy as np
import pytest

from pymc_saem.saem.uncertainty.determined import determined


def diagonal_of(matrix):
    return np.diag(np.diag(matrix))


@pytest.mark.parametrize("spread_of_units", [0.0, 3.0, 6.0])
def test_the_sum_of_two_among_nineteen_parameters(rng, spread_of_units):
    """Whatever the units of the parameters, these two are named; the others have the variances of the regression on the sum."""
    units = 10.0 ** rng.uniform(-spread_of_units, spread_of_units, size=19)
    seen = rng.normal(size=(60, 18))  # the last column is that of the sum
    jacobian = np.column_stack([seen, seen[:, -1]]) * units
    matrix = jacobian.T @ jacobian
    found = determined(matrix, diagonal_of(matrix), 1e-8)
    assert [sorted(group) for group in found.groups] == [[17, 18]] and found.unknown.sum() == 2
    exact = np.linalg.inv(seen.T @ seen)[:17, :17]
    np.testing.assert_allclose(
        found.covariance[:17, :17] * np.outer(units[:17], units[:17]), exact, rtol=1e-5, atol=1e-9
    )


def test_two_directions_are_told_apart(rng):
    """Only a + b, and only the sums of neighbours of c, d, e: two directions, each with its own parameters."""
    see = np.zeros((7, 8))
    see[0, [0, 3]] = 1.0
    see[1, [1, 4]], see[2, [4, 6]] = 1.0, 1.0
    see[3, 2] = see[4, 5] = see[5, 7] = 1.0
    see = rng.normal(size=(40, 7)) @ see
    found = determined(see.T @ see, diagonal_of(see.T @ see), 1e-8)
    assert sorted(sorted(group) for group in found.groups) == [[0, 3], [1, 4, 6]]
    assert np.flatnonzero(~found.unknown).tolist() == [2, 5, 7]


def test_what_nothing_moves_takes_nothing_from_the_others(rng):
    jacobian = rng.normal(size=(30, 3))
    matrix = np.zeros((5, 5))
    matrix[:3, :3] = jacobian.T @ jacobian
    matrix[4] = matrix[:, 4] = np.nan  # derivatives that could not be computed
    found = determined(matrix, diagonal_of(np.where(np.isnan(matrix), 1.0, matrix)), 1e-8)
    assert found.groups == [[3], [4]]
    np.testing.assert_allclose(found.covariance[:3, :3], np.linalg.inv(matrix[:3, :3]), rtol=1e-9)
    assert np.all(found.covariance[3:] == 0.0)


def test_collinear_is_not_flat():
    """Intercept and slope in years around 2020: nearly collinear, and determined, as the complete data are collinear as well."""
    design = np.column_stack([np.ones(40), 2020.0 + np.linspace(-1.0, 1.0, 40)])
    complete = design.T @ design
    found = determined(0.6 * complete, complete, 1e-6)
    assert not found.unknown.any() and np.isnan(found.share)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(0.6 * complete), rtol=1e-3)


def test_a_difference_of_large_numbers_is_judged_by_its_error(rng):
    """What is left of the information in a direction is noise of 1 %, of either sign: the direction is flat, the third entry is not."""
    complete = np.diag([50.0, 2.0, 8.0])
    flat = np.array([1.0, -1.0, 0.0]) / np.sqrt(np.diag(complete))
    flat /= np.sqrt(flat @ complete @ flat)
    for noise in (0.01, -0.01):
        lost = complete @ np.outer(flat, flat) @ complete * (1.0 - noise)
        matrix = complete - lost
        found = determined(
            matrix, complete, 1e-6, lambda direction: 0.03 * direction @ complete @ direction
        )
        assert [sorted(group) for group in found.groups] == [
            [0, 1]
        ] and found.share == pytest.approx(noise)
        assert found.covariance[2, 2] == pytest.approx(1 / 8.0)
        exact = determined(matrix, complete, 1e-6)
        assert exact.unknown.any() == (noise < 0)


def test_complete_data_that_are_not_at_a_maximum(rng):
    """An indefinite matrix stands nowhere for information; its diagonal does."""
    complete = np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = determined(np.diag([0.5, 0.4, 0.3]), complete, 1e-6)
    assert not found.unknown.any()
    np.testing.assert_allclose(found.covariance, np.diag([2.0, 2.5, 1 / 0.3]))
