"""THE LOOP: simulate, approximate, maximize, climb. NumPy only.

SAEM of Delyon, Lavielle & Moulines (1999) with a Markov chain in the E-step, Kuhn & Lavielle
(2005), algorithm 2. What to simulate and how to maximize are given; see estep/ and mstep/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pymc_saem.saem.core.newton import Curvature


@dataclass(frozen=True)
class Statistics:
    """Sufficient statistics of the complete data, averaged over replicates.

    Replicates are separate draws: their second moments are averaged, never the draws themselves,
    or omega would shrink with the number of replicates.
    """

    first: np.ndarray  # (subject, phi): mean over replicates of phi_i
    # (phi, phi): sum over subjects, by their weights, of the mean of phi_i phi_i'
    second: np.ndarray
    # (residual,): sum over rows, by weights, of the mean standardized squared residual
    residual: np.ndarray

    def towards(self, target: Statistics, step_size: float) -> Statistics:
        """Stochastic approximation: s + gamma (S - s)."""
        return Statistics(
            *(s + step_size * (t - s) for s, t in zip(self.arrays(), target.arrays(), strict=True))
        )

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.first, self.second, self.residual


@dataclass(frozen=True)
class State:
    """All that the next iteration needs, besides the adapted kernels and the random generator."""

    theta: np.ndarray  # (theta,) unconstrained
    phi: np.ndarray  # (replicate, subject, phi)
    statistics: Statistics | None = None
    iteration: int = 0
    curvature: Curvature | None = None  # of the log density in the parameters without a closed form


def iterate(
    state: State,
    simulate: Callable,
    maximize: Callable,
    step_size: float,
    climb: Callable | None = None,
) -> tuple[State, dict]:
    """One iteration of SAEM.

    Parameters
    ----------
    state : State
    simulate : callable
        ``simulate(theta, phi)`` moves phi by a kernel that leaves p(phi | y, theta) invariant, and
        returns the new phi, the :class:`Statistics` averaged over the visited states, and a report.
    maximize : callable
        ``maximize(statistics, theta, iteration)`` returns the theta that maximizes the expected
        complete-data log density, as far as the safeguards allow.
    step_size : float
        gamma_k: 1 while exploring, decreasing while smoothing.
    climb : callable, optional
        ``climb(theta, phi, curvature, step_size)`` moves the parameters without a closed form
        uphill, after the others as in the ECM algorithm (Meng & Rubin 1993), and returns theta and
        the curvature for the next iteration.

    Returns
    -------
    State
        After this iteration.
    dict
        The report of ``simulate``.
    """
    phi, drawn, report = simulate(state.theta, state.phi)
    statistics = drawn if state.statistics is None else state.statistics.towards(drawn, step_size)
    theta, curvature = maximize(statistics, state.theta, state.iteration), state.curvature
    if climb is not None:
        theta, curvature = climb(theta, phi, curvature, step_size)
    return State(theta, phi, statistics, state.iteration + 1, curvature), report
