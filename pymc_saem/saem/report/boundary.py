"""Parameters that ended on a bound of theirs: scales at 0, correlations at 1."""

from __future__ import annotations

import numpy as np

from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.mixed_model import MixedModel, Parameter, element_labels
from pymc_saem.results.thresholds import AT_BOUND
from pymc_saem.saem.core.closed_form import unpack_cholesky

#: Unconstrained values that stand for the ends of the line.
_FAR = 700.0


def at_boundary(
    mixed: MixedModel, points: PointMap, held: np.ndarray, start: np.ndarray, end: np.ndarray
) -> dict[str, float]:
    """Label of each estimated entry next to a bound, and its distance from there as a share of that at the start.

    Parameters
    ----------
    held : ndarray of bool, shape (theta,)
        Entries that are not estimated.
    start, end : ndarray, shape (theta,)
        Of a run.
    """
    found = {}
    for p in mixed.parameters:
        if p.is_network or held[p.columns].all():
            continue
        distances = _distances(mixed, points, p, start[p.columns], end[p.columns])
        for label, share in distances.items():
            if not share >= AT_BOUND:
                found[label] = float(share)
    return found


def _distances(
    mixed: MixedModel, points: PointMap, p: Parameter, start: np.ndarray, end: np.ndarray
) -> dict[str, float]:
    kind = points.transform_name(p)
    labels = element_labels(mixed.model, p.name, p.shape, p.dims)
    with np.errstate(all="ignore"):
        before, after = points.natural(p, start), points.natural(p, end)
        if kind == "LogTransform":
            return dict(zip(labels, after / before, strict=True))
        if kind == "SimplexTransform":
            return dict(
                zip(
                    element_labels(mixed.model, p.name, p.natural_shape, p.dims),
                    after / before,
                    strict=True,
                )
            )
        if kind == "CholeskyCovPacked":
            return _of_cholesky(p.name, before, after)
        if kind not in ("LogOddsTransform", "Interval") or before.size != len(labels):
            return {}
        lower, upper = (points.natural(p, np.full(end.size, far)) for far in (-_FAR, _FAR))
        shares = [np.where(np.isfinite(b), (after - b) / (before - b), 1.0) for b in (lower, upper)]
        return dict(zip(labels, np.minimum(*shares), strict=True))


def _of_cholesky(name: str, before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Standard deviations of a covariance, and what of each variance the effects before it do not explain."""
    n = int((np.sqrt(8 * before.size + 1) - 1) / 2)
    first, last = (unpack_cholesky(x, n) for x in (before, after))
    sd = [np.linalg.norm(lower, axis=1) for lower in (first, last)]
    own = [np.diag(lower) / size for lower, size in zip((first, last), sd, strict=True)]
    shares = {f"{name} (standard deviation {i + 1})": sd[1][i] / sd[0][i] for i in range(n)}
    return shares | {
        f"{name} (correlations of effect {i + 1})": own[1][i] / own[0][i] for i in range(1, n)
    }
