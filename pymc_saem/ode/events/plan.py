"""From doses and covariate tables to what a solver needs: hidden parameters, terms of the right-hand side, events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from pytensor.graph.basic import Variable

from pymc_saem.ode.events.covariates import Interpolation
from pymc_saem.ode.events.dose_rows import read_doses
from pymc_saem.ode.events.doses import (
    ADD_PARAMETER,
    ADD_STATE,
    NO_DOSE,
    RESET,
    STEADY,
    Doses,
    EventTable,
    Record,
    Row,
    set_records,
)
from pymc_saem.ode.events.steady_rules import check_steady_states
from pymc_saem.ode.inputs.subjects import Subjects
from pymc_saem.ode.rhs.curve import Curve

__all__ = ["Plan", "plan_events"]

#: Shape of each parameter for one subject.
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
# More repetitions of a dose than could ever be given, and still an integer.
_MOST_REPEATS = 2**53


class Plan:
    """What events add to a system.

    Attributes
    ----------
    hidden : dict of str to ndarray
        Parameters that only events change, with their values at the start.
    changing : dict of str to callable
        Those that are pieces of a covariate's curve: their values (n_subjects, k) at one time per
        subject.
    """

    def __init__(
        self,
        doses: Doses,
        rows: list[Row],
        covariates: Mapping[str, Interpolation],
        states: Sequence[str],
        n_subjects: int,
        t0: np.ndarray,
    ) -> None:
        self.doses, self.rows, self.covariates = doses, rows, covariates
        self.states, self.n_subjects, self.t0 = list(states), n_subjects, t0
        self.infusions = sorted(
            {(e["cmt"], kind) for e in rows if (kind := _kind(e, doses)) is not None}
        )
        self.hidden = {_weight(*infusion): np.zeros(n_subjects) for infusion in self.infusions}
        self.hidden |= {_covariate(name): table.at(t0) for name, table in covariates.items()}
        self.changing = {_covariate(name): table.at for name, table in covariates.items()}

    def right_hand_side(self, rhs: Callable[..., Any]) -> Callable[..., Any]:
        """The user's right-hand side with infusions added, and covariates that can be called with the time."""

        def with_inputs(t: Variable, y: SimpleNamespace, p: SimpleNamespace) -> Any:
            curves = []
            for name, table in self.covariates.items():
                value = table.function(getattr(p, _covariate(name)))(t)
                value.name = name
                curves.append(value)
                setattr(p, name, Curve(name, t, value))
            out = rhs(t, y, p)
            if isinstance(out, dict):
                check_steady_states(self.rows, out, t, y, curves)
                out = dict(out)
                for state, kind in self.infusions:
                    if state in out:
                        out[state] = out[state] + getattr(p, _weight(state, kind)) * self._factor(
                            state, kind, p
                        )
            return out

        return with_inputs

    def _factor(self, state: str, kind: str, p: SimpleNamespace) -> Any:
        doses, factor = self.doses, 1.0
        if kind in ("F", "D") and state in doses.bioavailability:
            factor = getattr(p, doses.bioavailability[state])
        if kind == "R":
            factor = getattr(p, doses.rate[state])
        return factor / getattr(p, doses.duration[state]) if kind == "D" else factor

    def table(self, shapes: Shapes, places: Mapping[str, int]) -> EventTable:
        """The events of all subjects.

        Parameters
        ----------
        shapes : dict of str to tuple of int
            Shape of each parameter for one subject.
        places : dict of str to int
            Where each parameter begins in the flat vector of one subject.
        """
        fixed, doses, periods = [], [], [0] * self.n_subjects
        for name, table in self.covariates.items():
            for record in table.records(places[_covariate(name)], self.t0):
                fixed.append((record[0], record[1][0], 0, [record]))
        for event in self.rows:
            fixed += self._resets(event, shapes, places, periods)
            doses += self._doses(event, shapes, places, periods)
        # At one time covariates come first, then resets and steady states in the order of their
        # rows.
        fixed.sort(key=lambda group: group[:3])
        records = [record for group in fixed for record in group[3]] + doses
        subject, numbers, what = zip(*records, strict=True) if records else ((), (), ())
        return EventTable(
            np.array(subject, dtype=np.int64), np.array(numbers), np.array(what), self.n_subjects
        )

    def _resets(
        self, event: Row, shapes: Shapes, places: Mapping[str, int], periods: list[int]
    ) -> list[tuple[int, float, int, list[Record]]]:
        """What an event does at its own time, whatever the parameters: groups (subject, time, 1, records)."""
        i, time = event["subject"], event["time"]
        records: list[Record] = []
        for is_reset in (event["evid"] >= 3, event["evid"] != 3 and event["ss"] == 1):
            if is_reset:
                records.append((i, (time, 0.0, 0.0, 0.0), (RESET, -1, *NO_DOSE)))
                periods[i] += 1
        if event["evid"] != 3 and event["ss"]:
            before, after = self._held(i, time, places)
            parts = self._dose(event, shapes, places)
            if not event["ii"]:  # an infusion without end
                parts = parts[:1]
            records += before
            records.append((i, (time, 0.0, 0.0, event["ii"]), (STEADY, len(parts), *NO_DOSE)))
            for (amount, duration), what in parts:
                records.append((i, (time, amount, duration, event["ii"]), (*what, -1, 0, 1)))
            records += after
        return [(i, time, 1, records)] if records else []

    def _held(
        self, i: int, time: float, places: Mapping[str, int]
    ) -> tuple[list[Record], list[Record]]:
        """Records that hold the covariates of a subject at their values of one time, and that release them again."""
        before, after = [], []
        for name, table in self.covariates.items():
            pieces = table.at_time(i, time)
            if pieces.size > 1:
                held = np.zeros_like(pieces)
                held[:2] = time, table.value(pieces, time)
                before += set_records(i, time, places[_covariate(name)], held)
                after += set_records(i, time, places[_covariate(name)], pieces)
        return before, after

    def _doses(
        self, event: Row, shapes: Shapes, places: Mapping[str, int], periods: list[int]
    ) -> list[Record]:
        """The doses of an event, which come at times that depend on parameters."""
        if event["evid"] == 3:
            return []
        i, parts, is_past = event["subject"], self._dose(event, shapes, places), event["ss"] != 0
        if is_past and not event["ii"]:  # an infusion without end has no start
            parts = parts[1:]
        what_else = (periods[i], int(min(event["addl"], _MOST_REPEATS)), int(is_past))
        return [
            (i, (event["time"], amount, duration, event["ii"]), (*what, *what_else))
            for (amount, duration), what in parts
        ]

    def _dose(
        self, event: Row, shapes: Shapes, places: Mapping[str, int]
    ) -> list[tuple[tuple[float, float], tuple[int, ...]]]:
        """Start and end of a dose, each as ((amount, duration), places up to those of parameters); no end for a bolus."""
        state, amt, doses = event["cmt"], event["amt"], self.doses

        def place(option: str) -> int:
            name = getattr(doses, option).get(state)
            if name is None:
                return -1
            if name not in shapes:
                raise ValueError(
                    f"Doses: {option}[{state!r}] is {name!r}, which is not in params: {', '.join(shapes)}."
                )
            if shapes[name] != ():
                raise ValueError(
                    f"Doses: {option}[{state!r}] is {name!r}, of shape {shapes[name]} per subject; it must be one number."
                )
            return places[name]

        lag, f, kind = place("lag_time"), place("bioavailability"), _kind(event, doses)
        if kind is None:
            return [((amt, 0.0), (ADD_STATE, self.states.index(state), f, lag, -1, -1, -1))]
        target = places[_weight(state, kind)]
        if kind == "R":
            weight, duration, factors = 1.0, amt, (f, place("rate"), -1)
        elif kind == "D":
            weight, duration, factors = amt, 1.0, (-1, -1, place("duration"))
        elif event["rate"] > 0:
            weight, duration, factors = event["rate"], amt / event["rate"], (f, -1, -1)
        else:
            weight, duration, factors = amt / event["dur"], event["dur"], (-1, -1, -1)
        start = ((weight, 0.0), (ADD_PARAMETER, target, -1, lag, -1, -1, -1))
        return [start, ((-weight, duration), (ADD_PARAMETER, target, -1, lag, *factors))]


def _kind(event: Row, doses: Doses) -> str | None:
    """What an infusion's weight is multiplied with: nothing, F, the rate R, or F / D; None for a bolus."""
    if event["evid"] == 3 or not (event["rate"] or event["dur"]):
        return None
    if event["rate"] < 0:
        return "R" if event["rate"] == -1 else "D"
    return "F" if event["dur"] and event["cmt"] in doses.bioavailability else ""


def _weight(state: str, kind: str) -> str:
    return f"_infusion{kind}_{state}"


def _covariate(name: str) -> str:
    return f"_covariate_{name}"


def plan_events(
    events: pd.DataFrame | Doses | None,
    covariates: Mapping[str, Interpolation],
    states: Sequence[str],
    subjects: Subjects,
    t0: np.ndarray,
    has_subject: bool,
) -> tuple[Plan | None, Subjects]:
    """What events and covariates add to a system.

    Parameters
    ----------
    events : pandas.DataFrame, Doses or None
    covariates : dict of str to Interpolation
        By the name of the parameter.
    states : list of str
    subjects : Subjects
    t0 : ndarray of float, shape (n_subjects,)
    has_subject : bool
        Whether there are several subjects, so that the table needs a column with them.

    Returns
    -------
    plan : Plan or None
        None if there are neither events nor covariates.
    subjects : Subjects
        The same; with names, if the table of events gives labels for the codes of the rows.
    """
    if events is None and not covariates:
        return None, subjects
    doses = events if isinstance(events, Doses) else Doses(events)
    rows: list[Row] = []
    if events is not None:
        rows, subjects = read_doses(doses, states, subjects, t0, has_subject)
    covariates = {name: table.of(name, subjects) for name, table in covariates.items()}
    return Plan(doses, rows, covariates, states, subjects.n, t0), subjects
