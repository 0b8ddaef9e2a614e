"""Step sizes and annealing."""

import numpy as np
import pytest

from pymc_saem.saem.core.algorithm import State, Statistics, iterate
from pymc_saem.saem.core.schedule import Schedule, at_least


def test_step_sizes_are_one_and_then_a_power():
    schedule = Schedule(n_explore=10, exponent=0.7)
    assert [schedule.step_size(k) for k in (0, 1)] == [1.0, 1.0]
    assert np.isclose(schedule.step_size(5), 5**-0.7)


@pytest.mark.parametrize("exponent", [0.5, 1.1, -1.0])
def test_exponents_for_which_saem_does_not_converge_are_refused(exponent):
    with pytest.raises(ValueError, match=f"step_size_exponent is {exponent}"):
        Schedule(10, exponent)


def test_annealing_covers_exploration():
    schedule = Schedule(n_explore=10)
    assert [schedule.smallest_ratio(k) for k in (0, 9, 10, 50)] == [0.95, 0.95, 0.0, 0.0]
    longer = Schedule(n_explore=300)
    assert [longer.smallest_residual_ratio(k) for k in (0, 299, 300)] == [
        np.exp(-0.02),
        np.exp(-0.02),
        0.0,
    ]
    assert schedule.smallest_residual_ratio(0) == 0.95
    assert Schedule(10, annealing=0.0).smallest_residual_ratio(0) == 0.0
    assert Schedule(10, annealing=1.0).smallest_residual_ratio(0) == 1.0
    assert np.array_equal(at_least(np.array([0.1, 2.0]), np.array([1.0, 1.0]), 0.95), [0.95, 2.0])


def test_the_loop_averages_the_statistics_of_the_smoothing_phase():
    """With gamma = 1/k the state is the running mean, whatever came before."""
    values = [np.array([float(k)]) for k in (100, 3, 5, 10)]

    draws = iter(values)

    def simulate(theta, phi):
        v = next(draws)
        return phi, Statistics(v[None], v[None], v), {}

    state, seen = State(np.zeros(1), np.zeros((1, 1, 1))), []
    schedule = Schedule(1, exponent=1.0)
    for k in range(4):
        state, _ = iterate(state, simulate, lambda s, theta, k: s.residual, schedule.step_size(k))
        seen.append(float(state.theta[0]))
    assert np.allclose(seen, [100.0, 3.0, 4.0, 6.0])
    assert state.iteration == 4
