"""Standard errors, intervals and correlations on the natural scale, and draws of theta, from a Fisher information."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pymc_saem.saem.engine import Engine
from pymc_saem.saem.fisher import Information, labels_of, network_columns
from pymc_saem.saem.identifiability import hints

#: Quantile of the normal law for intervals of 95 %.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Uncertainty:
    """Of every entry of every parameter, in the order of the table; NaN where it is not known.

    Attributes
    ----------
    se, lower, upper : ndarray, shape (entry,)
        Natural scale; the interval is computed on the unconstrained scale, where an entry has one of its own.
    correlation : ndarray, shape (entry, entry)
        Of the estimates.
    condition_number : float
        Largest over smallest eigenvalue of the correlation matrix; NaN without standard errors.
    method : str
        "louis", "score", "linearization" or "none".
    note : str
    hints : list of str
        Sentences about parameters that the data do not tell apart.
    theta : ndarray or None, shape (draw, theta)
        Draws from N(theta_hat, I^-1) on the unconstrained scale; entries without a standard error stay at the estimate.
    """

    se: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    correlation: np.ndarray
    condition_number: float
    method: str
    note: str
    hints: list[str]
    theta: np.ndarray | None


def uncertainty(
    engine: Engine, theta: np.ndarray, found: Information, n_draws: int, rng: np.random.Generator
) -> Uncertainty:
    """What an information says about the estimates.

    The weights of networks get no standard errors of their own: they are exchangeable, so that single ones mean nothing. Their
    uncertainty is part of that of the other parameters, where the information has it.
    """
    n_entries = natural(engine, theta).size
    unknown = np.full(n_entries, np.nan)
    if found.matrix is None:
        square = np.full((n_entries, n_entries), np.nan)
        hint = [found.note] if found.note.startswith("the data") else []
        return Uncertainty(unknown, unknown, unknown, square, np.nan, found.method, found.note, hint, None)
    shown = ~network_columns(engine)[found.columns]
    columns, covariance = found.columns[shown], found.covariance[np.ix_(shown, shown)]
    slope = _slope(engine, theta, columns, np.sqrt(np.diag(covariance)))
    of_entries = slope @ covariance @ slope.T
    variance = np.diag(of_entries)
    moved = variance > 0
    se = np.where(moved, np.sqrt(np.where(moved, variance, 0.0)), np.nan)
    correlation = of_entries / np.outer(se, se)
    lower, upper = _intervals(engine, theta, columns, np.sqrt(np.diag(covariance)), slope, se)
    values = np.linalg.eigvalsh(covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance))))
    draws = np.tile(theta, (n_draws, 1))
    draws[:, columns] += rng.standard_normal((n_draws, columns.size)) @ np.linalg.cholesky(covariance).T
    note = found.note
    if not shown.all():
        note = "; ".join(part for part in (note, "network weights have no standard errors of their own") if part)
    condition = float(values[-1] / values[0]) if columns.size else np.nan
    labels = np.array(labels_of(engine))[columns].tolist()
    hint = hints(labels, covariance) if columns.size else []
    return Uncertainty(se, lower, upper, correlation, condition, found.method, note, hint, draws)


def natural(engine: Engine, theta: np.ndarray) -> np.ndarray:
    """Natural values (entry,) of all parameters, flat."""
    values = engine.points.natural_theta(theta)
    return np.concatenate([np.ravel(values[p.name]) for p in engine.mixed.parameters] or [np.zeros(0)])


def _slope(engine: Engine, theta: np.ndarray, columns: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Derivative of the natural values in entries of theta, (entry, p)."""
    found = np.empty((natural(engine, theta).size, columns.size))
    for k, (column, step) in enumerate(zip(columns, 1e-3 * sd, strict=True)):
        moved = np.zeros_like(theta)
        moved[column] = step
        found[:, k] = (natural(engine, theta + moved) - natural(engine, theta - moved)) / (2.0 * step)
    return found


def _intervals(engine: Engine, theta, columns, sd, slope, se) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals (entry,): ends on the unconstrained scale, transformed; where several of its entries make one, linear."""
    estimate = natural(engine, theta)
    lower, upper = estimate - Z95 * se, estimate + Z95 * se
    alone = np.count_nonzero(slope, axis=1) == 1
    for entry in np.flatnonzero(alone):
        k = int(np.flatnonzero(slope[entry])[0])
        ends = []
        for sign in (-1.0, 1.0):
            moved = theta.copy()
            moved[columns[k]] += sign * Z95 * sd[k]
            ends.append(natural(engine, moved)[entry])
        lower[entry], upper[entry] = sorted(ends)
    return lower, upper
