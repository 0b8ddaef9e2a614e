"""What an information matrix determines, and what it does not: directions without information are held, the rest keeps its errors.

An exactly flat direction costs nothing for parameters that do not lie along it: their variance is
the same for every generalized inverse (estimable functions; Searle 1971, Linear Models, section
5.4). So one direction that the data do not determine takes the standard errors of the parameters
along it, and of no others.

Directions are judged by the share of the information of the complete data that is left, which no
change of units or of parameters alters: an intercept and a slope in years around 2000 are nearly
collinear, and determined. A parameter lies along a flat direction if its variance would be larger
by a tenth, did the direction have as much information as it can have at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, eigh

#: Share of its variance that a parameter may owe to a flat direction, and still be reported without
#: it.
OWED = 0.1
#: Two parameters belong to one flat direction from this correlation within the flat space.
BELONGS = 0.1
#: Relative error of second derivatives that are differences of sums without solves.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Determined:
    """What an information matrix determines about p entries of theta.

    Attributes
    ----------
    covariance : ndarray, shape (p, p)
        Of the estimates, with the flat directions held; zero for entries of which nothing is known
        at all.
    unknown : ndarray of bool, shape (p,)
        Entries that lie along a flat direction, or of which nothing is known.
    groups : list of list of int
        These entries, those of one direction together, the largest first.
    share : float
        Least share of the complete information that a flat direction has kept; NaN where there is
        none.
    flat : ndarray, shape (p, direction), optional
        The flat directions, each so long that one of its length would be a standard error with as
        much information as may be there.
    """

    covariance: np.ndarray
    unknown: np.ndarray
    groups: list[list[int]]
    share: float = np.nan
    flat: np.ndarray | None = None


def determined(
    matrix: np.ndarray,
    complete: np.ndarray,
    least: float,
    spread: Callable[[np.ndarray], float] = lambda direction: 0.0,
    rounding: np.ndarray | float = ROUNDING,
) -> Determined:
    """Split an information into what it determines and flat directions.

    Parameters
    ----------
    matrix : ndarray, shape (p, p)
        Information; need not be finite or definite.
    complete : ndarray, shape (p, p)
        That of the complete data, or a diagonal of units.
    least : float
        Share of the complete information that a direction must have kept.
    spread : callable
        Error that ``matrix`` may have in a direction (p,), in all as many standard errors as count.
    rounding : ndarray, shape (p,), or float
        Relative error of the complete information of each entry.
    """
    p = len(matrix)
    rounding = np.broadcast_to(rounding, p)
    covariance, groups, held = np.zeros((p, p)), [], np.zeros((p, 0))
    kept = _readable(matrix, complete)
    inside, share = np.flatnonzero(kept), np.nan
    if inside.size:
        block = np.ix_(inside, inside)
        floor = (rounding * np.diag(complete))[inside]
        directions = np.zeros((p, inside.size))
        values, directions[inside] = _relative(matrix[block], complete[block], floor)
        limit = least + np.einsum("kj,k->j", directions[inside] ** 2, floor)
        limit = np.maximum(limit, [spread(d) for d in directions.T])
        flat = values <= limit
        good, bad = directions[:, ~flat], directions[:, flat]
        covariance = good @ (good / values[~flat]).T
        held = bad / np.sqrt(limit[flat])
        owed = np.sum(held**2, axis=1)
        groups = _groups(bad, owed > OWED * np.diag(covariance), np.diag(matrix))
        share = float(values[0]) if flat.any() else np.nan
    groups += [[int(k)] for k in np.flatnonzero(~kept)]
    unknown = np.zeros(p, dtype=bool)
    unknown[[k for group in groups for k in group]] = True
    return Determined(covariance, unknown, groups, share, held)


def _readable(matrix: np.ndarray, complete: np.ndarray) -> np.ndarray:
    """Entries (p,) with finite numbers, about which complete data carry information."""
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(matrix) & np.isfinite(complete)
        kept = np.diag(finite) & (np.diag(complete) > 0)
    while not finite[np.ix_(kept, kept)].all():
        missing = np.where(kept, (~finite[:, kept]).sum(axis=1), 0)
        kept[np.argmax(missing)] = False
    return kept


def _relative(
    matrix: np.ndarray, complete: np.ndarray, floor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares (p,) of the complete information, ascending, and their directions (p, direction), of complete information 1.

    ``floor`` (p,) is added to it, so that there are shares where complete data carry no information
    either. At a point that is not a maximum it may be no covariance; then its diagonal stands for
    it.
    """
    unit = 1.0 / np.sqrt(np.diag(complete))
    scaled = matrix * np.outer(unit, unit)
    whole = (complete + np.diag(floor)) * np.outer(unit, unit)
    try:
        values, vectors = eigh(scaled, whole)
    except LinAlgError:
        values, vectors = eigh(scaled)
    return values, vectors * unit[:, None]


def _groups(directions: np.ndarray, along: np.ndarray, information: np.ndarray) -> list[list[int]]:
    """Entries ``along`` (p,) some directions (p, direction), those of one direction in one list, the largest first."""
    if not along.any():
        return []
    basis = np.linalg.qr(directions[along] / np.abs(directions[along]).max(axis=1, keepdims=True))[
        0
    ]
    members = np.flatnonzero(along)
    projector = basis @ basis.T
    load = np.sqrt(np.maximum(np.diag(projector), 1e-300))
    size = np.abs(directions).max(axis=1) * np.sqrt(np.maximum(information, 0.0))
    groups = joined(np.abs(projector) > BELONGS * np.outer(load, load))
    return [sorted((int(members[k]) for k in group), key=lambda k: -size[k]) for group in groups]


def joined(close: np.ndarray) -> list[list[int]]:
    """Sets of entries that are joined by ``close`` (p, p), each in order; single ones are joined to themselves."""
    left, groups = set(range(len(close))), []
    while left:
        group, waiting = [], [min(left)]
        while waiting:
            k = waiting.pop()
            if k in left:
                left.remove(k)
                group.append(k)
                waiting += np.flatnonzero(close[k]).tolist()
        groups.append(sorted(group))
    return groups
