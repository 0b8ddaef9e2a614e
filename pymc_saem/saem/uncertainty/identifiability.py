"""Which parameters the data do not distinguish, in sentences: near collinearity of the estimates.

What matters is how much larger the variance of an estimate is than it would be if the other
parameters were known, the variance inflation factor 1 / (1 - R^2), R its multiple correlation with
the others. Regression texts call 10 serious (Marquardt 1970; Belsley, Kuh & Welsch 1980, section
3.2), which is a correlation of 0.95, where NONMEM users begin to worry. The healthy models of
tests/support/cases stay below 2.6, so none of them is flagged.
"""

from __future__ import annotations

import numpy as np

from pymc_saem.saem.uncertainty.determined import joined

#: Multiple correlation of an estimate with the others from which a sentence is written: variances
#: ten times as large.
LARGEST_CORRELATION = 0.95
LARGEST_INFLATION = 1.0 / (1.0 - LARGEST_CORRELATION**2)
#: Of a weak direction, entries of at least this share of the largest are named; this many names at
#: most.
NAMED_SHARE, MAX_NAMES = 0.3, 4
MAX_SENTENCES = 3


def hints(labels: list[str], covariance: np.ndarray) -> list[str]:
    """Sentences about estimates that the data do not distinguish; none where all is well.

    Parameters
    ----------
    labels : list of str
        Names of the entries.
    covariance : ndarray, shape (p, p)
        Of the estimates, on the unconstrained scale.
    """
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    inflation = np.diag(np.linalg.pinv(correlation, rcond=1e-14, hermitian=True))
    groups = [
        group for group in joined(np.abs(correlation) > LARGEST_CORRELATION) if len(group) > 1
    ]
    found = [_by_pairs(labels, group, correlation) for group in groups]
    explained = {k for group in groups for k in group}
    # Without a close pair: several entries of which one combination is known much better than each.
    # It has a small eigenvalue.
    for direction in np.linalg.eigh(correlation)[1].T:
        members = involved(direction)
        new = [k for k in members if inflation[k] > LARGEST_INFLATION and k not in explained]
        if new:
            together = np.sqrt(1.0 - 1.0 / max(inflation[k] for k in new))
            found.append(
                _apart(
                    [labels[k] for k in sorted(members)],
                    f"multiple correlation {_rounded(together)}",
                )
            )
            explained |= set(members)
    more = f"and {len(found) - MAX_SENTENCES} more; see the correlation matrix"
    return found if len(found) <= MAX_SENTENCES else [*found[:MAX_SENTENCES], more]


def involved(direction: np.ndarray) -> list[int]:
    """Entries that a direction consists of, the largest first."""
    size = np.abs(direction) / np.abs(direction).max()
    return [int(k) for k in np.argsort(-size) if size[k] > NAMED_SHARE]


def _by_pairs(labels: list[str], group: list[int], correlation: np.ndarray) -> str:
    among = correlation[np.ix_(group, group)][np.tril_indices(len(group), -1)]
    strongest = among[np.argmax(np.abs(among))]
    how = "correlation" if len(group) == 2 else "correlations up to"
    return _apart([labels[k] for k in group], f"{how} {_rounded(strongest)}")


def _apart(names: list[str], how: str) -> str:
    return f"the data hardly distinguish {listed(names)} ({how})"


def listed(names: list[str]) -> str:
    """``a, b and 3 more``"""
    shown = (
        names
        if len(names) <= MAX_NAMES
        else [*names[: MAX_NAMES - 1], f"{len(names) - MAX_NAMES + 1} more"]
    )
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def _rounded(correlation: float) -> str:
    """Two digits, or as many as show that it is not 1."""
    digits = 2
    while digits < 8 and round(abs(correlation), digits) >= 1.0:
        digits += 1
    return f"{correlation:.{digits}f}"
