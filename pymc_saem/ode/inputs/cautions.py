"""Warnings about input that is allowed but rarely meant, as far as initial values and doses are known."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Constant
from pytensor.tensor.variable import TensorVariable

from pymc_saem.ode.inputs.subjects import Subjects
from pymc_saem.ode.inputs.values import is_constant

__all__ = ["warn_of_doubled_doses", "warn_of_periods", "warn_of_small_states"]

# The error of a state below this many atol is a tenth of it or more. (At 1 atol: 4 % with tsit5,
# 470 % with BDF; at 10: 0.6 %, 40 %; at 1000: 0.03 %, 0.3 %. Decay and growth by factors 10 and
# 1000.)
_FEW = 10.0


def _known(y0: Mapping[str, TensorVariable], n_subjects: int) -> dict[str, np.ndarray]:
    """Initial values of the states that depend on data alone, each (n_subjects,)."""
    mode = Mode("py", "fast_compile")
    values = {
        n: v.data if isinstance(v, Constant) else v.eval(mode=mode)
        for n, v in y0.items()
        if is_constant(v)
    }
    return {state: np.broadcast_to(value, (n_subjects,)) for state, value in values.items()}


def warn_of_doubled_doses(
    y0: Mapping[str, TensorVariable],
    doses: Sequence[Mapping[str, Any]],
    subjects: Subjects,
    t0: np.ndarray,
) -> None:
    """Warn where a table gives at t0 what ``y0`` holds already.

    Parameters
    ----------
    y0 : dict of str to TensorVariable
    doses : list of dict
        As :func:`pymc_saem.ode.events.dose_rows.read_doses` gives them.
    subjects : Subjects
    t0 : ndarray of float, shape (n_subjects,)
    """
    if not doses:
        return
    known = _known(y0, subjects.n)
    for dose in doses:
        i, state = dose["subject"], dose.get("cmt")
        if dose["evid"] != 1 or dose["ss"] == 1 or dose["time"] != t0[i] or state not in known:
            continue
        if np.isclose(known[state][i], dose["amt"], rtol=1e-6, atol=0.0):
            warnings.warn(
                f"y0[{state!r}] of subject {subjects.name(i)!r} is {known[state][i]:g}, and events row {dose['row']} gives the same amount "
                f"at the same time, {t0[i]:g}: the subject gets it twice. Keep only one of them, for example y0={{{state!r}: 0.0}}.",
                UserWarning,
                stacklevel=3,
            )
            return


def warn_of_periods(doses: Sequence[Mapping[str, Any]], subjects: Subjects) -> None:
    """Warn where both the rows and the doses of a subject look like several periods whose clock restarts."""
    if subjects.rows is None:
        return
    codes, t, _ = subjects.rows
    if t is None:
        return
    twice: dict[int, Mapping[str, Any]] = {}
    seen = set()
    for dose in doses:
        key = dose["subject"], dose["time"], dose.get("cmt")
        if dose["evid"] != 3 and key in seen:
            twice.setdefault(dose["subject"], dose)
        seen.add(key)
    for i, dose in twice.items():
        rows = np.flatnonzero(codes == i)
        back = np.flatnonzero(np.diff(t[rows]) < 0)
        if back.size:
            row = rows[back[0] + 1]
            warnings.warn(
                f"Subject {subjects.name(i)!r} has a second dose at time {dose['time']:g} in events row {dose['row']}, and time goes back to "
                f"{t[row]:g} in row {row} of t. Both doses apply to all rows. If these are two periods, write time that continues from one "
                "to the next, in t and in the table.",
                UserWarning,
                stacklevel=3,
            )
            return


def warn_of_small_states(
    y0: Mapping[str, TensorVariable],
    doses: Sequence[Mapping[str, Any]],
    n_subjects: int,
    rtol: float,
    atol: float,
) -> None:
    """Warn of states that start, and are dosed, so small that the absolute tolerance decides on their steps."""
    for state, values in _known(y0, n_subjects).items():
        amounts = [dose["amt"] for dose in doses if dose["evid"] != 3 and dose["cmt"] == state]
        size = max(np.abs(values).max(initial=0.0), *amounts, 0.0)
        if 0.0 < size < _FEW * atol:
            warnings.warn(
                f"State {state!r} starts, and is dosed, with at most {size:g}, but its error may be atol = {atol:g} in every step. Set "
                f"atol={rtol * size:.0e}, or take units in which the state is of size 1.",
                UserWarning,
                stacklevel=3,
            )
