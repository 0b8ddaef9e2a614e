"""Step sizes, the simulated annealing of variances, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: Logarithm of the largest factor by which a residual variance may fall while annealing, at a
#: constant rate throughout exploration. A large residual variance makes the conditional
#: distributions broad, and the run passes between optima; at the rate of the other variances, 0.95,
#: it is at its estimate too early. Neural theophylline model, marginal log-likelihood: Omega = I,
#: 300 + 300 iterations, seeds 2 and 3, -212 and -206 with a factor of 0.965 an iteration, -208 and
#: -208 with 0.98; 28 variances, -155 and -157 with 0.95, -148 and -153 with 0.98, and, where 0.98
#: ends in a worse optimum, seed 5, -181, with 0.99 for 600 iterations -153. The same slowness for
#: the variances of random effects is too slow (-159 and -163). (benchmarks/accuracy/README.md)
RESIDUAL_FALL = 6.0


#: Share of the exploration in which no variance of random effects falls below its start. While the
#: residual variance is far above its estimate, the likelihood of these variances says "no
#: differences between subjects": they fell to nothing, and small ones make small moves. Neural
#: theophylline model, tolerances 1e-3, marginal log-likelihood for seeds 1 to 10: one variance per
#: network -177 to -230 without it, -152 to -158 with it; one per weight, seeds 1 to 3, -162, -157 and
#: -162, and -135, -130 and -136. Where variances may rise but not fall at all, those about which the
#: data say nothing grow without end, to 5000. With 0.9 instead of 0.7, one per network, seeds 1 to 3:
#: -156, -158 and -160. (benchmarks/accuracy/README.md)
HELD = 0.7


@dataclass
class Schedule:
    """gamma_k and the safeguards of the exploratory phase.

    Attributes
    ----------
    n_explore : int
        Iterations planned with step size 1; annealing covers all of them. When it covered the first
        half only, variances of random effects about which the data are hardly informative collapsed
        in the second: with step size 1 an iterate carries the noise of one iteration, and a
        variance that falls by chance is slow to come back. Neural theophylline model, 28 variances,
        500 iterations, marginal log-likelihood for seeds 2 and 3: -168 and -162, with all of them
        -159 and -160 (benchmarks/accuracy/README.md).
    exponent : float
        a in gamma = (k - n_explore)^-a, in (1/2, 1] (Delyon, Lavielle & Moulines 1999, condition
        SAEM2). With 1, parameters about which much information is missing still carry the noise of
        the first iterations: on theophylline, largest error of a variance over 5 seeds 2.3 %, with
        0.75 1.3 %.
    annealing : float
        Smallest factor by which a variance of random effects may change in one iteration while
        annealing; 0 turns all annealing off. Residual variances fall more slowly, see
        ``RESIDUAL_FALL``.
    rise : float
        Largest factor by which a residual variance may grow in one iteration: one bad draw must not
        send the next E-step to a flat likelihood.
    held : float
        Share of the exploration in which no variance of random effects falls below its start; 0 for
        runs that begin at an estimate, where the residual variance is not far too large.
    """

    n_explore: int
    exponent: float = 0.75
    annealing: float = 0.95
    rise: float = 4.0
    held: float = HELD

    def __post_init__(self) -> None:
        if not 0.5 < self.exponent <= 1.0:
            raise ValueError(
                f"step_size_exponent is {self.exponent}; it must be in (0.5, 1] for SAEM to converge."
            )
        if not 0.0 <= self.annealing <= 1.0:
            raise ValueError(
                f"annealing is {self.annealing}; it is the smallest variance ratio per iteration, in [0, 1]."
            )

    def step_size(self, n_smoothed: int) -> float:
        """gamma of an iteration; ``n_smoothed`` is its number in the smoothing phase, 0 while exploring."""
        return 1.0 if n_smoothed <= 1 else float(n_smoothed**-self.exponent)

    def smallest_ratio(self, iteration: int) -> float:
        """Lower bound on (new variance / old variance) in an iteration."""
        return self.annealing if iteration < self.n_explore else 0.0

    def holds_variances(self, iteration: int) -> bool:
        """Whether no variance of random effects may fall below its start in an iteration."""
        return self.annealing > 0.0 and iteration < self.held * self.n_explore

    def smallest_residual_ratio(self, iteration: int) -> float:
        """The bound for residual variances, which may fall by ``exp(RESIDUAL_FALL)`` in the whole of exploration."""
        ratio = self.smallest_ratio(iteration)
        return max(ratio, float(np.exp(-RESIDUAL_FALL / self.n_explore))) if ratio else 0.0


def at_least(new: np.ndarray, old: np.ndarray, ratio: float) -> np.ndarray:
    """Variances that fall no faster than the annealing allows."""
    return np.maximum(new, ratio * old)


#: Smoothing iterations before the first check, and between two checks.
FIRST_LOOK, LOOK_EVERY = 100, 20
#: Looks in a row that must find no drift: one may hit a turning point.
N_LOOKS = 3


@dataclass(frozen=True)
class Drift:
    """How far estimates moved between the two halves of the last half of the smoothing phase.

    Attributes
    ----------
    size : ndarray, shape (theta,)
        Distance of the two means, in units of ``scale``.
    error : ndarray, shape (theta,)
        Its Monte-Carlo standard error, in the same units.
    """

    size: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, smoothed: np.ndarray, scale: np.ndarray) -> Drift:
        """From the iterates (iteration, theta) of the smoothing phase.

        The error is that of batch means (five in each half): iterates of stochastic approximation
        are averages themselves, so neighbours are nearly equal and add little to each other.
        """
        last = smoothed[smoothed.shape[0] // 2 :] / scale
        halves = np.array_split(last, 2)
        batches = [
            np.stack([part.mean(axis=0) for part in np.array_split(half, 5)]) for half in halves
        ]
        error = np.sqrt(sum(b.var(axis=0, ddof=1) / b.shape[0] for b in batches))
        return cls(np.abs(batches[1].mean(axis=0) - batches[0].mean(axis=0)), error)


class StoppingRule:
    """Ends the smoothing phase when no parameter drifts any more, as far as its Monte-Carlo error shows.

    Parameters
    ----------
    tolerance : float
        Largest drift plus two of its standard errors, in the units of ``scale``; 0 never stops.
    """

    def __init__(self, tolerance: float):
        self.tolerance, self.passed = tolerance, 0

    def __call__(self, smoothed: Sequence[np.ndarray], scale: Callable) -> bool:
        """Whether to stop after these iterates (theta,) of the smoothing phase; ``scale()`` gives their units (theta,)."""
        n = len(smoothed)
        if not self.tolerance or n < FIRST_LOOK or n % LOOK_EVERY or not smoothed[0].size:
            return False
        drift = Drift.of(np.array(smoothed), scale())
        self.passed = (
            self.passed + 1 if np.all(drift.size + 2.0 * drift.error < self.tolerance) else 0
        )
        return self.is_passed

    @property
    def is_passed(self) -> bool:
        """Whether the last checks found no drift."""
        return self.passed >= N_LOOKS
