"""Variances of random effects do not fall below their start for most of the exploration, in every form of covariance."""

import numpy as np
import pymc as pm
import pytest

from pymc_saem.saem.core.algorithm import Statistics
from pymc_saem.saem.core.schedule import HELD
from tests.support.engines import engine_of

N, ROWS = 6, 4
G = np.repeat(np.arange(N), ROWS)
Y = np.random.default_rng(1).normal(size=(N * ROWS))
#: Iterations of ``engine_of``'s exploration.
N_EXPLORE = 10


def scalar():
    return pm.Normal("b", pm.Flat("mu"), pm.HalfFlat("omega", initval=2.0), dims="subject")[:, None]


def diagonal():
    sd = pm.HalfFlat("omega", initval=[2.0, 0.5], shape=2)
    return pm.Normal("b", pm.Flat("mu", shape=2), sd, dims=("subject", "effect"))


def full():
    chol, _, _ = pm.LKJCholeskyCov("chol", n=2, eta=1.0, sd_dist=pm.HalfNormal.dist(5.0, shape=2))
    return pm.MvNormal("b", pm.Flat("mu", shape=2), chol=chol, dims=("subject", "effect"))


FORMS = {f.__name__: f for f in (scalar, diagonal, full)}


@pytest.fixture(scope="module", params=FORMS)
def engine(request):
    with pm.Model(coords={"subject": range(N), "effect": range(2)}) as model:
        b = FORMS[request.param]()
        pm.Normal("y", b[G].sum(-1), pm.HalfFlat("sigma", initval=1.0), observed=Y)
    return engine_of(model)


def statistics(engine, theta, spread):
    """Of subjects whose effects lie ``spread`` standard deviations from their mean, in turn above and below, independent by column."""
    population = engine.maximizer.population(theta)
    signs = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [0.0, 0.0], [0.0, 0.0]])
    d = population.mean.shape[1]
    phi = population.mean + spread * signs[:, :d] * np.sqrt(np.diag(population.omega)) * np.sqrt(
        1.5
    )
    return Statistics(phi, phi.T @ phi, np.full(len(engine.rules.residual_terms), float(N * ROWS)))


def variances(engine, theta):
    return np.diag(engine.maximizer.population(theta).omega)


def test_no_variance_falls_below_its_start(engine):
    engine.maximizer.reset()
    theta = start = engine.points.theta_of(engine.points.template)
    before = variances(engine, start)
    for iteration in range(int(HELD * N_EXPLORE)):
        theta = engine.maximizer(statistics(engine, theta, 0.1), theta, iteration)
        np.testing.assert_allclose(variances(engine, theta), before, rtol=1e-9)


def test_they_rise_at_once_and_come_back_as_far_as_their_start(engine):
    engine.maximizer.reset()
    start = engine.points.theta_of(engine.points.template)
    before = variances(engine, start)
    risen = engine.maximizer(statistics(engine, start, 3.0), start, 0)
    np.testing.assert_allclose(variances(engine, risen), 9.0 * before, rtol=1e-9)
    theta = risen
    for iteration in range(1, 6):
        theta = engine.maximizer(statistics(engine, theta, 0.1), theta, iteration)
    np.testing.assert_allclose(variances(engine, theta), 9.0 * before * 0.95**5, rtol=1e-9)


def test_later_they_fall_as_the_annealing_allows_and_then_freely(engine):
    engine.maximizer.reset()
    start = engine.points.theta_of(engine.points.template)
    before = variances(engine, start)
    engine.maximizer(statistics(engine, start, 0.1), start, 0)  # remembers the start
    falling = engine.maximizer(statistics(engine, start, 0.1), start, int(HELD * N_EXPLORE))
    np.testing.assert_allclose(variances(engine, falling), 0.95 * before, rtol=1e-9)
    free = engine.maximizer(statistics(engine, start, 0.1), start, N_EXPLORE)
    np.testing.assert_allclose(variances(engine, free), 0.01 * before, rtol=1e-6)


def test_without_annealing_nothing_is_held(engine):
    engine.maximizer.reset()
    start, schedule = engine.points.theta_of(engine.points.template), engine.maximizer.schedule
    annealing, schedule.annealing = schedule.annealing, 0.0
    try:
        theta = engine.maximizer(statistics(engine, start, 0.1), start, 0)
    finally:
        schedule.annealing = annealing
    assert np.all(variances(engine, theta) < 0.02 * variances(engine, start))
