"""Random effects without dims: equally many entries are taken for the same subjects, which no row may confirm."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from pymc_saem.model.dependence.dependence import Dependence
from pymc_saem.model.reading.levels import Levels, parents_of


def warn_of_unfounded_pairs(dependence: Dependence, levels: Levels) -> None:
    """Warn of random effects that only their equal lengths make effects of the same subjects.

    Two halves of the subjects, ``concatenate([e, f])[g]``, look like two effects of half as many
    subjects: the likelihood is the same, but not the number of subjects, which BICc and
    cross-validation use.
    """
    for (_, length), names in levels.items():
        parts = _connected(names, lambda a, b: _meet(dependence, a, b))
        without = [
            part
            for part in parts
            if not any(dependence.model.named_vars_to_dims.get(name) for name in part)
        ]
        if len(parts) > 1 and without:
            other = next(part[0] for part in parts if part is not without[0])
            one, other = sorted((without[0][0], other), key=names.index)
            warnings.warn(
                f"The random effects '{one}' and '{other}' both have {length} entries, and no row depends on both of them. They are taken "
                f'for effects of the same {length} subjects. If they are, give both the same dims, such as dims="subject". If they belong '
                "to different subjects, write one variable with an entry for each.",
                stacklevel=4,
            )


def _meet(dependence: Dependence, one: str, other: str) -> bool:
    """Whether some row depends on both, or the distribution of one on the other."""
    if one in parents_of(dependence.model, other) or other in parents_of(dependence.model, one):
        return True
    pairs = zip(dependence.rows_on(one), dependence.rows_on(other), strict=True)
    return any(bool(np.any(~a.is_none & ~b.is_none)) for a, b in pairs)


def _connected(names: list[str], meet: Callable[[str, str], bool]) -> list[list[str]]:
    parts: list[list[str]] = []
    for name in names:
        touched = [part for part in parts if any(meet(name, other) for other in part)]
        parts = [part for part in parts if part not in touched] + [
            [name for part in touched for name in part] + [name]
        ]
    return parts
