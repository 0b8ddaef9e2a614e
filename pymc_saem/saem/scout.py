"""Short runs that look for a good region where random effects outnumber the data of a subject.

Such models, above all networks, have several optima, and the first sixty iterations decide which one a run ends in.
Neural theophylline model (28 weights and 11 rows a subject), 150 + 150 iterations, seeds 1 to 8, sigma at the end:
without scouts 0.54 0.57 0.55 0.52 0.65 0.58 0.59 0.68; with four 0.55 0.56 0.57 0.58 0.68 - - 0.59; with eight
0.55 0.50 0.55 0.55 0.56 0.54 0.55 0.58.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pymc_saem.saem.algorithm import State, iterate
from pymc_saem.saem.maximize import Maximizer
from pymc_saem.saem.model import MixedModel

N_SCOUTS = 8
N_ITERATIONS = 60
#: Last iterations whose mean complete log density is a scout's score.
N_JUDGED = 15


def default_scouts(mixed: MixedModel, maximizer: Maximizer, n_fits: int) -> int:
    """Eight, where no fit looks for a start and no covariance is estimated.

    An estimated covariance that collapses has a high density, so the scores could not be compared.
    """
    estimated = [rule for rule in maximizer.rules.omegas if not maximizer.is_fixed(rule.parameter)]
    return 0 if n_fits or estimated else N_SCOUTS


def scout(theta: np.ndarray, phi: np.ndarray, new_simulator: Callable, maximizer: Maximizer, n_scouts: int):
    """Best end of several runs from one start, with one replicate each and without annealing.

    Parameters
    ----------
    theta : ndarray, shape (theta,)
    phi : ndarray, shape (1, subject, phi)
    new_simulator : callable
        ``new_simulator()`` gives a fresh :class:`Simulator` for each run.
    maximizer : Maximizer
    n_scouts : int

    Returns
    -------
    theta : ndarray, shape (theta,)
    phi : ndarray, shape (1, subject, phi)
    scores : ndarray, shape (scout,)
        Mean complete log density of the last iterations.
    n_evaluations : int
        Density evaluations of all subjects.
    """
    ends, scores, n_evaluations = [], np.empty(n_scouts), 0
    for k in range(n_scouts):
        simulator = new_simulator()

        def simulate(theta, phi, simulator=simulator):
            return simulator(maximizer.population(theta), theta, phi)

        # Annealing covers the first half of the exploratory iterations; this number is behind it.
        state, densities = State(theta, phi, iteration=maximizer.schedule.n_explore), []
        for _ in range(N_ITERATIONS):
            state, report = iterate(state, simulate, maximizer, 1.0)
            densities.append(report["complete_logp"])
        ends.append(state)
        scores[k] = np.mean(densities[-N_JUDGED:])
        n_evaluations += simulator.n_evaluations
    maximizer.reset()
    best = ends[int(np.argmax(np.nan_to_num(scores, nan=-np.inf)))]
    return best.theta, best.phi, scores, n_evaluations
