"""Models at their exact maximum, with conditional draws there: where likelihoods and standard errors are known."""

from functools import cache

import numpy as np

from pymc_saem.saem.conditional.draws import describe_individuals
from pymc_saem.saem.likelihood.joint import Joint, WeightedPoints
from pymc_saem.saem.likelihood.marginal import marginal_likelihood
from tests.support.cases import CASES
from tests.support.engines import engine_of


def theta_of(engine, values):
    """theta of natural values by name."""
    return engine.points.theta_at(values)


def conditional_at(engine, theta, seed=1, n_draws=250):
    """Draws and modes at theta, as after a fit."""
    population, rng = engine.maximizer.population(theta), np.random.default_rng(seed)
    simulator = engine.simulator(population, rng)
    phi = population.draw(rng, 5)
    for _ in range(40):
        phi, _, _ = simulator(population, theta, phi)
    simulator.stop_tuning()
    return describe_individuals(simulator, population, theta, phi, n_draws)


@cache
def at_maximum(name):
    """Case, engine, theta at the exact answer, and the conditional distributions there."""
    case = CASES[name]
    engine = engine_of(
        case.build(), objective="map" if case.log_prior else "ml", n_replicates=5, mode="NUMBA"
    )
    theta = theta_of(engine, case.by_name(case.answer.estimate))
    return case, engine, theta, conditional_at(engine, theta)


def nodes_at(name):
    """Nodes of the quadrature at the exact answer."""
    _, engine, theta, conditional = at_maximum(name)
    return marginal_likelihood(
        engine, theta, conditional, np.random.default_rng(0), "quadrature"
    ).points


def draws_at(name):
    return WeightedPoints.of_draws(at_maximum(name)[3].draws)


def joint_at(name):
    _, engine, theta, _ = at_maximum(name)
    return Joint(engine.densities, engine.maximizer.population(theta), theta)
