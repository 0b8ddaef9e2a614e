"""Starts at which random effects are too small to be seen in the data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pymc_saem.saem.core.closed_form import weighted
from pymc_saem.saem.start.pooled import is_flexible
from pymc_saem.saem.start.scales import with_sds_times

if TYPE_CHECKING:  # the engine stands above the starts
    from pymc_saem.saem.engine import Engine

#: An effect whose standard deviation moves predictions by less than this share of a residual one is
#: too small a start: the E-step then draws from the prior, the M-step gives it back, and the run
#: stops there as if it had converged. A linear model (8 subjects, 4 rows each, sigma 0.3, true
#: omega 0.5) that started at 0.01 stayed there, 12 below the maximum.
SMALLEST_SHARE = 1 / 20
#: Widths at which the likelihood is evaluated, in units of ``sd / SMALLEST_SHARE``; beyond the last
#: one there is no information.
WIDTHS = 100.0 ** np.arange(5)
#: Change of the log likelihood that is more than rounding, as a share of it.
ROUNDING = 1e-9


def with_visible_effects(engine: Engine, theta: np.ndarray) -> np.ndarray:
    """theta with standard deviations that are too small to start from raised to what moves predictions by a residual one.

    Random effects that only their distribution holds (weights of networks) stay as they are: most
    of them move nothing.
    """
    population, weight = engine.maximizer.population(theta), engine.maximizer.weight
    mean, sd = population.mean, population.sd
    columns = np.flatnonzero(engine.mixed.is_gaussian & (sd > 0))
    if is_flexible(engine.mixed) or not columns.size:
        return theta

    def loglik(column: int, shift: float) -> float:
        phi = mean.copy()
        phi[:, column] += shift
        with np.errstate(all="ignore"):
            return float(
                weighted(weight, engine.densities.outputs_quietly(phi[None], theta)[0][0]).sum()
            )

    here, half = (
        loglik(0, 0.0),
        0.5 * float(weighted(weight, engine.mixed.values_of_subjects).sum()),
    )
    factor = np.ones(sd.size)
    factor[columns] = [
        _factor(partial(loglik, k), here, half, float(sd[k])) for k in columns.tolist()
    ]
    return with_sds_times(engine, theta, factor)


def _factor(loglik: Callable[[float], float], here: float, half: float, sd: float) -> float:
    """What to multiply the standard deviation of a column by; 1 unless it is known to be too small.

    ``loglik(shift)`` is the log likelihood with the column moved away from its mean, ``here`` that
    at the mean. That of n values falls by ``half`` = n/2 where predictions move by a residual
    standard deviation.
    """
    for width in sd / SMALLEST_SHARE * WIDTHS:
        fall = here - 0.5 * (loglik(width) + loglik(-width))
        if not np.isfinite(fall):
            break
        if fall > ROUNDING * (abs(here) + half):
            factor = float(width / sd * np.sqrt(half / fall))
            return factor if factor > 1 / SMALLEST_SHARE else 1.0
    return 1.0
