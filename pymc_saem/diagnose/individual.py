"""Weighted residuals of rows given the random effects at their conditional mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.tensor.random.basic import LogNormalRV, NormalRV
from pytensor.tensor.variable import TensorVariable
from scipy.special import log_ndtr, ndtri, ndtri_exp

from pymc_saem.diagnose.decorrelated import ranks
from pymc_saem.diagnose.fitted_rows import FittedRows
from pymc_saem.evaluate.row_function import before_censoring
from pymc_saem.model.outcomes import Part

#: Simulated data sets behind the residuals of an outcome whose distribution function PyMC does not
#: have.
_N_GIVEN_MODES = 2000


def individual_residuals(fitted: FittedRows, rng: np.random.Generator) -> np.ndarray:
    """IWRES of all rows, shape (row,); defined in :func:`pymc_saem.residuals`."""
    rows = fitted.rows
    parts = [part for part in rows.outcome.parts if np.isin(part.rows, rows.number).any()]
    base = before_censoring(parts[0].rv)
    if len(parts) == 1 and base.owner.op.ndim_supp == 0:
        if isinstance(base.owner.op, NormalRV | LogNormalRV):
            return _of_normal(fitted, parts[0], base, rng)
        try:
            return _of_distribution_function(fitted, parts[0], base, rng)
        except NotImplementedError:
            pass
    simulated = np.clip(fitted.simulate_given_modes(_N_GIVEN_MODES, rng), rows.lower, rows.upper)
    return ndtri(ranks(rows.observed, simulated, rng))


def _of_normal(
    fitted: FittedRows, part: Part, base: TensorVariable, rng: np.random.Generator
) -> np.ndarray:
    rows = fitted.rows
    mean, sd = _at_rows(fitted, part, list(base.owner.op.dist_params(base.owner)))
    with np.errstate(divide="ignore", invalid="ignore"):
        y, lower, upper = (
            np.log(v) if rows.is_log else v for v in (rows.observed, rows.lower, rows.upper)
        )
        z = (y - mean) / sd
        bounds = (lower - mean) / sd, (upper - mean) / sd
    u = rng.uniform(np.finfo(float).tiny, 1.0, z.shape)
    # logarithms, as a bound may lie far out
    z = np.where(rows.below, ndtri_exp(log_ndtr(bounds[0]) + np.log(u)), z)
    return np.where(rows.above, -ndtri_exp(log_ndtr(-bounds[1]) + np.log(u)), z)


def _of_distribution_function(
    fitted: FittedRows, part: Part, base: TensorVariable, rng: np.random.Generator
) -> np.ndarray:
    """Quantile of the normal distribution at the place of each row in its own distribution, random within a jump."""
    rows = fitted.rows
    value = np.full(rows.outcome.n_rows, rows.observed[0])
    value[rows.number] = rows.observed
    value = value[part.rows].reshape(
        rows.outcome.shape if len(part.rows) == rows.outcome.n_rows else -1
    )
    step = 1 if rows.is_discrete else 0
    at = [pt.constant((value - shift).astype(base.dtype)) for shift in (0, step)]
    up_to, before = (
        np.exp(v) for v in _at_rows(fitted, part, [pm.logcdf(base, v, warn_rvs=False) for v in at])
    )
    start = np.where(rows.below, 0.0, before)
    end = np.where(rows.above, 1.0, up_to)
    u = rng.uniform(np.finfo(float).tiny, 1.0, start.shape)
    return ndtri(np.clip(start + u * (end - start), 1e-300, 1 - 1e-16))


def _at_rows(fitted: FittedRows, part: Part, graphs: Sequence[Variable]) -> list[np.ndarray]:
    """Graphs that broadcast to a part of the outcome, at its observed rows; each (row,)."""
    rows = fitted.rows
    whole = len(part.rows) == rows.outcome.n_rows
    shape = rows.outcome.shape if whole else (part.rows.size,)
    found = [np.broadcast_to(v, shape).ravel() for v in fitted.at_mode(graphs)]
    if not whole:
        place = np.argsort(part.rows)
        return [v[place] for v in found]
    return [v[rows.number] for v in found]
