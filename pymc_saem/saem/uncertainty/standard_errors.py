"""Standard errors, intervals and correlations on the natural scale, and draws of theta, from a Fisher information."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pymc_saem.results.thresholds import HARDLY_DETERMINED
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.uncertainty.fisher import Information, labels_of, network_columns
from pymc_saem.saem.uncertainty.identifiability import hints, listed

#: Quantile of the normal distribution for intervals of 95 %.
Z95 = 1.959963984540054
#: Standard error of the logarithm or logit of a parameter beyond which its interval is useless: it
#: spans 17 orders of magnitude.
LARGEST_SD = 10.0


@dataclass(frozen=True)
class Uncertainty:
    """Standard errors and intervals of every entry of every parameter, in the order of the table; NaN where unknown.

    Attributes
    ----------
    se, lower, upper : ndarray, shape (entry,)
        Natural scale; the interval is computed on the unconstrained scale, where an entry has one
        of its own.
    correlation : ndarray, shape (entry, entry)
        Of the estimates.
    condition_number : float
        Largest over smallest eigenvalue of the correlation matrix; NaN without standard errors.
    method : str
        "louis", "score", "linearization" or "none".
    note : str
    hints : list of str
        Sentences about parameters that the data do not distinguish.
    theta : ndarray or None, shape (draw, theta)
        Draws from N(theta_hat, I^-1) on the unconstrained scale. Directions that the data do not
        determine stay at the estimate, and what lies across them varies, so that predictions have
        the whole error that the data imply.
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
    """Covariance, standard errors and intervals of the estimates, from an information matrix.

    The weights of networks get no individual standard errors: they are exchangeable, so that single
    ones mean nothing. Their uncertainty is part of that of the other parameters, where the
    information has it.
    """
    n_entries = natural(engine, theta).size
    nothing = np.full(n_entries, np.nan)
    if found.covariance is None:
        square = np.full((n_entries, n_entries), np.nan)
        return Uncertainty(
            nothing,
            nothing,
            nothing,
            square,
            np.nan,
            found.method,
            found.note,
            list(found.hints),
            None,
        )
    shown = ~network_columns(engine)[found.columns] & ~found.unknown
    columns, covariance = found.columns[shown], found.covariance[np.ix_(shown, shown)]
    sd = np.sqrt(np.diag(covariance))
    slope = _slope(engine, theta, columns, 1e-3 * sd)
    of_entries = slope @ covariance @ slope.T
    se = np.sqrt(np.diag(of_entries))
    se[(se == 0) | _moved_by(engine, theta, found.columns[found.unknown])] = np.nan
    lower, upper, endless = _intervals(engine, theta, columns, sd, slope, se)
    labels = np.array(labels_of(engine))[columns]
    hint, note = list(found.hints), found.note
    if endless.any():
        hint.append(
            f"{HARDLY_DETERMINED} {listed(labels[endless].tolist())} (their intervals are unbounded)"
        )
        note = "; ".join(part for part in (note, hint[-1]) if part)
    if columns.size:
        hint += hints(labels.tolist(), covariance)
    if network_columns(engine)[found.columns].any():
        note = "; ".join(
            part for part in (note, "no standard errors for individual network weights") if part
        )
    drawn = ~network_columns(engine)[found.columns] & ~np.isin(found.columns, columns[endless])
    unit = np.where(sd > 0, sd, 1.0)
    values = np.linalg.eigvalsh(covariance / np.outer(unit, unit))
    condition = float(values[-1] / max(values[0], 1e-300)) if columns.size else np.nan
    return Uncertainty(
        se=se,
        lower=lower,
        upper=upper,
        correlation=of_entries / np.outer(se, se),
        condition_number=condition,
        method=found.method,
        note=note,
        hints=hint,
        theta=_draw(
            theta, found.columns[drawn], found.covariance[np.ix_(drawn, drawn)], n_draws, rng
        ),
    )


def _draw(
    theta: np.ndarray,
    columns: np.ndarray,
    covariance: np.ndarray,
    n_draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws of theta (draw, theta): of what is determined, also where it is a combination; the rest stays at the estimate."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    draws = np.tile(theta, (n_draws, 1))
    draws[:, columns] += rng.standard_normal((n_draws, len(values))) @ root.T
    return draws


def natural(engine: Engine, theta: np.ndarray) -> np.ndarray:
    """Natural values (entry,) of all parameters, flat."""
    values = engine.points.natural_theta(theta)
    return np.concatenate(
        [np.ravel(values[p.name]) for p in engine.mixed.parameters] or [np.zeros(0)]
    )


def _slope(engine: Engine, theta: np.ndarray, columns: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Derivative of the natural values in entries of theta, (entry, p)."""
    found = np.empty((natural(engine, theta).size, columns.size))
    for k, (column, h) in enumerate(zip(columns, step, strict=True)):
        found[:, k] = (_moved(engine, theta, column, h) - _moved(engine, theta, column, -h)) / (
            2.0 * h
        )
    return found


def _moved(engine: Engine, theta: np.ndarray, column: int, by: float) -> np.ndarray:
    """Natural values (entry,) with one entry of theta moved."""
    theta = theta.copy()
    theta[column] += by
    with np.errstate(all="ignore"):  # ends of intervals may lie where there are no numbers
        return natural(engine, theta)


def _moved_by(engine: Engine, theta: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Which natural values (entry,) depend on some entries of theta."""
    here = natural(engine, theta)
    others = [
        _moved(engine, theta, column, 1e-3 * (1.0 + abs(theta[column]))) for column in columns
    ]
    return (
        np.any([other != here for other in others], axis=0)
        if others
        else np.zeros(here.size, dtype=bool)
    )


def _intervals(
    engine: Engine,
    theta: np.ndarray,
    columns: np.ndarray,
    sd: np.ndarray,
    slope: np.ndarray,
    se: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """95 % intervals (entry,): ends on the unconstrained scale, transformed; where several of its entries make one, linear.

    Where an end is too far out to be useful, there is neither an interval nor a standard error
    (``se`` is changed); the last array (p,) marks which of the columns.
    """
    estimate, endless = natural(engine, theta), np.zeros(columns.size, dtype=bool)
    lower, upper = estimate - Z95 * se, estimate + Z95 * se
    for entry in np.flatnonzero(np.count_nonzero(slope, axis=1) == 1):
        k = int(np.flatnonzero(slope[entry])[0])
        ends = sorted(
            _moved(engine, theta, columns[k], sign * Z95 * sd[k])[entry] for sign in (-1.0, 1.0)
        )
        bent = not np.allclose(ends, [lower[entry], upper[entry]], rtol=1e-3, atol=1e-3 * se[entry])
        endless[k] |= bent and not sd[k] < LARGEST_SD
        lower[entry], upper[entry] = ends
    without = np.count_nonzero(slope[:, endless], axis=1) > 0
    se[without] = lower[without] = upper[without] = np.nan
    return lower, upper, endless
