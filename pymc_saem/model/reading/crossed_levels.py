"""Error messages for models in which a vector belongs to no subject: crossed levels, and vectors that subjects share.

Such a vector is a random effect that cannot be integrated one subject at a time, and its joint mode
with its scale has no meaning, so it is not a parameter either. The reasons are the same however the
model is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pymc as pm

from pymc_saem.model.dependence.axes import Axis, unit_axis
from pymc_saem.model.dependence.dependence import Dependence
from pymc_saem.model.dependence.labels import NOBODY, Reach
from pymc_saem.model.dependence.row_subjects import SharedRowError
from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.model.normal.scaled import is_normal_around_zero, scaled_vectors
from pymc_saem.model.reading.levels import Levels, RowsOfAxes, is_scale, parents_of

_AS_PARAMETERS = (
    "Only where its entries are meant as fixed effects: give it a distribution with constants, and multiply it by nothing that is "
    "estimated. pm.sample() can estimate the model as it stands."
)


def find_levels(
    dependence: Dependence, of_axis: Levels, may_drop: Collection[str], scaled: Mapping[str, str]
) -> tuple[Levels, RowsOfAxes]:
    """The axes of subjects and units with their random effects, and the entry of each row; the upper level first.

    Parameters
    ----------
    dependence : Dependence
    of_axis : dict
        Names of the possible random effects of each axis.
    may_drop : collection of str
        Those that are parameters where rows depend on several of their entries, such as the weights
        of a network.
    scaled : dict
        Those that are vectors times an estimated scale, and the scale.

    Raises
    ------
    UnsupportedModelError
        When rows depend on several entries of another one, or on different entries of two of the
        same axis.
    """
    levels: Levels = {}
    rows: RowsOfAxes = {}
    refused: dict[str, Axis] = {}
    for axis, names in of_axis.items():
        for name in names:
            found = dependence.rows_on(name)
            if any(reach.is_many.any() for reach in found):
                refused[name] = axis
                continue
            labels = [reach.labels() for reach in found]
            if axis in levels:
                _refuse_two_indices(dependence, (levels[axis][0], name), rows[axis], labels, scaled)
                labels = [np.maximum(a, b) for a, b in zip(rows[axis], labels, strict=True)]
            levels.setdefault(axis, []).append(name)
            rows[axis] = labels
    for name, axis in refused.items():
        if name not in may_drop or not levels:
            subjects = next((of for other, of in rows.items() if other != axis), None)
            raise several_entries(dependence, name, axis[1], scaled.get(name), subjects)
    return levels, rows


def _refuse_two_indices(
    dependence: Dependence,
    names: tuple[str, str],
    rows: list[np.ndarray],
    labels: list[np.ndarray],
    scaled: Mapping[str, str],
) -> None:
    """Refuse two random effects with equally many entries where a row uses different ones of each."""
    one, other = names
    for rv, a, b in zip(dependence.observed, rows, labels, strict=True):
        if (wrong := np.flatnonzero((a >= 0) & (b >= 0) & (a != b))).size:
            row = int(wrong[0])
            raise UnsupportedModelError(
                f"Row {row} of '{rv.name}' depends on entry {a[row]} of '{one}' and on entry {b[row]} of '{other}' ({wrong.size} such rows in "
                "all), which have equally many entries, so either could be the subjects. If they are subjects, check the two indices. If "
                f"they are two levels, they are crossed, neither nested in the other: SAEM cannot integrate over both. {_advice(dependence.model, names, scaled)}"
            )


def add_units_of_constant_laws(
    dependence: Dependence, levels: Levels, rows: RowsOfAxes, left_out: set[str]
) -> tuple[Levels, RowsOfAxes]:
    """The levels with normal effects whose distribution has constants only, such as those of occasions with a known spread.

    A vector with constants may be one of parameters. Where it has more entries than there are
    subjects, and each belongs to one subject, it is a separate level.

    Raises
    ------
    UnsupportedModelError
        Where such a vector is crossed with the subjects, so that its meaning is not clear.
    """
    top = next(iter(levels))
    effects = {name for of in levels.values() for name in of}
    for rv in dependence.model.free_RVs:
        axis = unit_axis(dependence, rv.name) if rv.name not in effects | left_out else None
        if (
            axis is None
            or axis in levels
            or axis[1] <= top[1]
            or not is_normal_around_zero(dependence.model, rv)
        ):
            continue
        found = dependence.rows_on(rv.name)
        if any(reach.is_many.any() for reach in found) or all(
            reach.is_none.all() for reach in found
        ):
            continue
        if _has_entries_of_two(found, rows[top]):
            raise UnsupportedModelError(
                f"'{rv.name}' has {axis[1]} entries, more than the {top[1]} of '{levels[top][0]}', and a distribution with constants, and the two are "
                "crossed, neither nested in the other. If both are random effects, SAEM cannot integrate over both. If the entries of one "
                f"of them are parameters, name the random effects: random_effects=[...]. pm.sample() can estimate the model as it stands."
            )
        levels, rows = (
            levels | {axis: [rv.name]},
            rows | {axis: [reach.labels() for reach in found]},
        )
    levels = dict(sorted(levels.items(), key=lambda item: item[0][1]))
    return levels, {axis: rows[axis] for axis in levels}


def refuse_latent_parameters(
    dependence: Dependence, effects: list[str], left_out: set[str]
) -> None:
    """Refuse parameters that are vectors with an estimated distribution.

    Raises
    ------
    UnsupportedModelError
        Names the vector, and whether it is crossed with the subjects or shared by them.
    """
    model, point = dependence.model, dependence.template
    scaled = scaled_vectors(model, point, left_out, set(effects))
    for rv in model.free_RVs:
        name = rv.name
        if name in left_out or name in effects:
            continue
        parents = parents_of(model, name)
        is_vector = point[model.rvs_to_values[rv].name].size > 1
        if is_vector and (name in scaled or parents and not is_scale(rv)):
            raise UnsupportedModelError(
                _why_no_parameter(dependence, name, effects, scaled.get(name))
            )


def law_in_words(model: pm.Model, name: str, scale: str | None = None) -> str:
    """Which estimated parameters are in the distribution of a vector."""
    parents = sorted(parents_of(model, name))
    if parents:
        return f"its distribution depends on {', '.join(repr(p) for p in parents)}"
    return f"it only enters together with '{scale}', which is estimated"


def _why_no_parameter(
    dependence: Dependence, name: str, effects: list[str], scale: str | None
) -> str:
    law = law_in_words(dependence.model, name, scale)
    rows = dependence.rows_on(name) if name in dependence.axes else None
    if rows is None or any(r.is_many.any() for r in rows) or all(r.is_none.all() for r in rows):
        return _shared_by_all(dependence, name, law, rows)
    return (
        f"'{name}' and the random effect '{effects[0]}' are crossed: '{name}' is a separate level ({law}), and neither level is nested in "
        f"the other. SAEM integrates over the random effects of one subject at a time, and cannot integrate over both. '{name}' "
        f"cannot be a parameter, because its joint mode with its scale is meaningless. {_AS_PARAMETERS}"
    )


def _shared_by_all(dependence: Dependence, name: str, law: str, rows: list[Reach] | None) -> str:
    where = next(_with_several(dependence, rows), None)
    seen = (
        ""
        if where is None
        else f" (row {where[1]} of '{where[0]}' depends on several of its entries)"
    )
    return (
        f"'{name}' is a random effect that is shared by all subjects{seen}: {law}. SAEM integrates over the random effects of one "
        f"subject at a time, and cannot integrate over this one. It cannot be a parameter, because its joint mode with its scale is "
        f"meaningless. {_AS_PARAMETERS}"
    )


def _with_several(
    dependence: Dependence, rows: list[Reach] | None
) -> Iterator[tuple[str, int, int, int, int]]:
    """Outcomes with rows that depend on several entries: name, first such row, its first and last entry, number of such rows."""
    for rv, reach in zip(dependence.observed, rows or [], strict=bool(rows)):
        if reach.is_many.any():
            row = int(np.flatnonzero(reach.is_many)[0])
            yield (
                rv.name,
                row,
                int(reach.first[row]),
                int(reach.last[row]),
                int(reach.is_many.sum()),
            )


def several_entries(
    dependence: Dependence,
    name: str,
    n_entries: int,
    scale: str | None,
    subjects: list[np.ndarray] | None,
) -> SharedRowError:
    """Why a vector of which rows depend on several entries is not a random effect of subjects.

    ``subjects`` has the entry of each row in another level, where there is one.
    """
    rows = dependence.rows_on(name)
    outcome, row, first, last, n = next(_with_several(dependence, rows))
    everywhere = n_entries > 2 and all(
        (r.is_none | ((r.first == 0) & (r.last == n_entries - 1))).all() for r in rows
    )
    if everywhere or (subjects is not None and _has_entries_of_two(rows, subjects)):
        law = (
            law_in_words(dependence.model, name, scale)
            if scale or parents_of(dependence.model, name)
            else "every row depends on it"
        )
        return SharedRowError(_shared_by_all(dependence, name, law, rows))
    if subjects is not None:
        return SharedRowError(
            f"Row {row} of '{outcome}' depends on several entries of '{name}', such as {first} and {last} ({n} such rows in all), which "
            f"belong to one subject, as occasions with carry-over do. Write '{name}' with a row per subject and a column per occasion, "
            f"dims=('subject', 'occasion'), and index it by '{name}'[subject, occasion]: then all of a row is one random effect."
        )
    return SharedRowError(
        f"Row {row} of '{outcome}' depends on more than one subject ({n} such rows in all): on entries {first} and {last} of '{name}'. "
        "SAEM needs every row to depend on the random effects of exactly one subject: check the index that maps rows to "
        "subjects. Effects shared by several subjects, such as those that a fixed matrix correlates (L @ z, kinship, space), cannot be fitted."
    )


def _has_entries_of_two(rows: list[Reach], subjects: list[np.ndarray]) -> bool:
    """Whether an entry occurs in rows of two subjects; the first and the last entry of a row are known."""
    entry = np.concatenate([part for r in rows for part in (r.first, r.last)])
    subject = np.concatenate([part for s in subjects for part in (s, s)])
    known = (entry >= 0) & (entry < NOBODY) & (subject >= 0)
    pairs = np.unique(np.stack([entry[known], subject[known]]), axis=1)
    return np.unique(pairs[0]).size < pairs.shape[1]


def _advice(model: pm.Model, names: tuple[str, str], scaled: Mapping[str, str]) -> str:
    """What to do about two crossed vectors: one of them with a constant distribution may be a vector of parameters as it stands."""
    for name, other in (names, names[::-1]):
        if name not in scaled and not parents_of(model, name):
            return (
                f"'{name}' has a distribution with constants: if its entries are parameters, name the random effects: "
                f"random_effects=['{other}', ...]. pm.sample() can estimate the model as it stands."
            )
    return _AS_PARAMETERS


def crossed_levels(
    model: pm.Model,
    names: tuple[str, str],
    dims: tuple[str | None, ...],
    entry: int,
    owners: tuple[int, int],
    scaled: Mapping[str, str],
) -> UnsupportedModelError:
    """Two levels, the upper and the lower of ``names``: an ``entry`` of the lower occurs with both ``owners`` of the upper."""
    upper, lower = names
    of = f" ({' and '.join(f'one entry per {d}' for d in dims if d)})" if any(dims) else ""
    return UnsupportedModelError(
        f"The random effects '{upper}' and '{lower}'{of} are crossed: entry {entry} of '{lower}' occurs in rows of entries {owners[0]} and "
        f"{owners[1]} of '{upper}' (counted from 0). They are two levels, neither nested in the other. SAEM integrates over the random "
        f"effects of one subject at a time, and cannot integrate over both. If the index of one of them is wrong, correct it. {_advice(model, names, scaled)}"
    )
