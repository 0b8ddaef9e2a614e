"""Which subject each row belongs to, by experiment on predictions; rows without a subject or a density are refused.

A row belongs to subject i when its density changes as phi_i changes. Perturbing subjects one by one
would cost N evaluations; perturbing the subjects whose number has bit b set, and then those that
have it clear, gives bit b of every row's subject at once: 2 log2(N) evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pymc_saem.model.mixed_model import UnsupportedModelError


class SharedRowError(UnsupportedModelError):
    """A row depends on several entries of an axis, so the axis cannot index subjects."""


def subjects_of_rows(
    density: Callable[[np.ndarray, np.ndarray], list[np.ndarray]],
    theta: np.ndarray,
    phi: np.ndarray,
    names: Sequence[str],
    rng: np.random.Generator,
    noise: float = 0.0,
) -> list[np.ndarray]:
    """Subject index of each (flattened) row of each observed variable; -1 where no subject moves it.

    Parameters
    ----------
    density : callable
        ``density(phi, theta)`` gives one array of log densities, shape (row,), per observed
        variable.
    theta : ndarray, shape (theta,)
    phi : ndarray, shape (subject, phi)
        A point at which every row is finite.
    names : list of str
        Names of the observed variables.
    noise : float, default 0
        Changes up to this share of a row's whole change do not count.

    Returns
    -------
    list of ndarray
        One int array of shape (row,) per observed variable.

    Raises
    ------
    UnsupportedModelError
        When a row depends on more than one subject.
    """
    base = density(phi, theta)
    step = rng.uniform(0.01, 0.02, size=phi.shape) * rng.choice([-1.0, 1.0], size=phi.shape)
    by_value = decode(
        lambda mask: density(phi + step * mask[:, None], theta), base, phi.shape[0], noise
    )
    found = [subject for subject, _, _ in by_value]
    for name, (_, _, shared) in zip(names, by_value, strict=True):
        refuse_shared(name, shared)
    if all(hit.all() for _, hit, _ in by_value):
        return found
    # A prediction at time zero may be the same for every phi. NaN shows what it is computed from;
    # it does not come first, because it also spreads through products with zeros.
    by_nan = decode(
        lambda mask: density(np.where(mask[:, None] > 0, np.nan, phi), theta), base, phi.shape[0]
    )
    for rows, (_, hit, _), (other, reached, shared) in zip(found, by_value, by_nan, strict=True):
        found_one = hit | (reached & ~shared)
        rows[~hit] = np.where(found_one, other, -1)[~hit]
    return found


def decode(
    evaluate: Callable[[np.ndarray], list[np.ndarray]],
    base: Sequence[np.ndarray],
    n_subjects: int,
    noise: float = 0.0,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Subject of each row, whether any subject reaches it, and whether more than one does."""
    numbers = np.arange(n_subjects)
    whole = evaluate(np.ones(n_subjects))

    def moved(mask: np.ndarray) -> list[np.ndarray]:
        changed = zip(base, evaluate(mask), whole, strict=True)
        if not noise:
            return [_differs(a, b) for a, b, _ in changed]
        # NaN is not small
        return [_differs(a, b) & ~(np.abs(b - a) <= noise * np.abs(c - a)) for a, b, c in changed]

    subject = [np.zeros(rows.size, dtype=np.int64) for rows in base]
    hit = [_differs(a, b) for a, b in zip(base, whole, strict=True)]
    shared = [np.zeros(rows.size, dtype=bool) for rows in base]
    for bit in range(int(n_subjects - 1).bit_length()):
        has_bit = ((numbers >> bit) & 1).astype(float)
        for j, (one, zero) in enumerate(zip(moved(has_bit), moved(1.0 - has_bit), strict=True)):
            shared[j] |= one & zero
            subject[j] |= one.astype(np.int64) << bit
    return list(zip(subject, hit, shared, strict=True))


def _differs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ~((a == b) | (np.isnan(a) & np.isnan(b)))


def find_finite_start(
    density: Callable[[np.ndarray], list[np.ndarray]],
    start: np.ndarray,
    names: Sequence[str],
    rng: np.random.Generator,
) -> np.ndarray:
    """A point at which every row has a finite density: the model's own start, or one near it.

    Raises
    ------
    UnsupportedModelError
        Names the first row that never has one.
    """
    never: list[np.ndarray] = []
    for attempt in range(20):
        spread = 0.0 if attempt == 0 else 0.1 * 1.3**attempt
        near = start + spread * rng.standard_normal(start.shape)
        rows = density(near)
        bad = [~np.isfinite(r) for r in rows]
        if not any(b.any() for b in bad):
            return near
        never = [old & new for old, new in zip(never, bad, strict=True)] if never else bad
    chosen = never if any(b.any() for b in never) else bad
    j = next(j for j, b in enumerate(chosen) if b.any())
    row, count = int(np.flatnonzero(chosen[j])[0]), int(chosen[j].sum())
    raise UnsupportedModelError(
        f"The log density of '{names[j]}' is not finite in {count} of {rows[j].size} rows (first: row {row}, value {rows[j][row]}) "
        "at the model's initial point and at 19 points near it. Check the data and give better starting values with initval=...; "
        "model.point_logps() shows each variable."
    )


def refuse_shared(name: str, both: np.ndarray) -> None:
    if both.any():
        row = int(np.flatnonzero(both)[0])
        raise SharedRowError(
            f"Row {row} of '{name}' depends on more than one subject ({both.sum()} such rows in all). "
            "SAEM needs every row to depend on the random effects of exactly one subject: check the index that maps rows to "
            "subjects, or name the random effects in random_effects=[...], if the wrong ones were chosen."
        )


def refuse_orphans(name: str, hit: np.ndarray) -> None:
    if not hit.all():
        row = int(np.flatnonzero(~hit)[0])
        raise UnsupportedModelError(
            f"Row {row} of '{name}' depends on no random effect ({(~hit).sum()} of {hit.size} rows in all), only on parameters. "
            "SAEM needs the subject of every row. If these rows have one, check the index that maps rows to subjects. If they have none "
            "(a calibration, a value from the literature), remove them from this model: information about a parameter can become its "
            "prior, and rows that share no parameter with the others can be fitted separately."
        )
