"""The rows of a table of doses, read and checked: what each does, in which state, and what is no dose."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pymc_saem.arguments import shown
from pymc_saem.ode.events.doses import Doses, Row
from pymc_saem.ode.inputs.clocks import check_clock, period_columns, refuse_no_numbers
from pymc_saem.ode.inputs.subjects import Subjects

__all__ = ["read_doses"]

#: Of all subjects, until their last rows.
MOST_DOSES = 1_000_000
_COLUMNS = ("time", "amt", "cmt", "evid", "rate", "dur", "addl", "ii", "ss")
#: What marks an observation where there is no evid.
_OBSERVED = ("dv", "mdv")
#: Names that other programs have for a column.
_OTHER_NAMES = {"duration": "dur", "tinf": "dur"}


def read_doses(
    doses: Doses, states: Sequence[str], subjects: Subjects, t0: np.ndarray, has_subject: bool
) -> tuple[list[Row], Subjects]:
    """Rows of a table as dicts, checked.

    Parameters
    ----------
    doses : Doses
    states : list of str
    subjects : Subjects
    t0 : ndarray of float, shape (n_subjects,)
    has_subject : bool

    Returns
    -------
    rows : list of dict
        By subject and time, rows that do nothing left out; ``cmt`` is the name of the state.
    subjects : Subjects
        With names, if the table gives labels for the codes of the rows.
    """
    table = doses.table
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"events must be a pandas.DataFrame or Doses(table, ...), got {type(table).__name__}."
        )
    used = _used_columns(table, has_subject)
    refuse_no_numbers(used["time"], "time in events")
    events = [
        _event({k: v[row] for k, v in used.items()}, states, row) for row in range(len(table))
    ]
    evid = np.array([event["evid"] for event in events])
    time, labels = (
        np.array(used["time"], dtype=float),
        used.get("subject", np.zeros(len(table), dtype=int)),
    )
    is_observation = evid == 0
    subjects = subjects.named_by(
        labels[is_observation], time[is_observation], table.index[is_observation]
    )
    places = subjects.places(labels, "events", subjects.is_named_by_table)
    check_clock("events", labels, time, table[period_columns(table)], evid)
    rows = []
    for event, place in zip(events, places, strict=True):
        if event["evid"] not in (0, 2):
            event["subject"] = int(place)
            if event["time"] < t0[place]:
                raise ValueError(
                    f"events row {event['row']}: time {event['time']} is before t0 = {t0[place]} of subject "
                    f"{subjects.name(place)}."
                )
            rows.append(event)
    _check_parameters(doses, states, rows)
    _check_number(rows, subjects)
    return sorted(rows, key=lambda e: (e["subject"], e["time"])), subjects


def _check_number(rows: Sequence[Row], subjects: Subjects) -> None:
    """Refuse regimens with too many doses to solve."""
    if subjects.rows is None:
        return
    codes, t, _ = subjects.rows
    if t is None:
        return
    last, total = np.full(subjects.n, -np.inf), 0.0
    np.maximum.at(last, codes, t)
    for event in rows:
        if event["evid"] != 3 and event["ii"] > 0:
            total += min(
                event["addl"], max(0.0, (last[event["subject"]] - event["time"]) / event["ii"])
            )
        if total > MOST_DOSES:
            raise ValueError(
                f"events row {event['row']}: addl is {event['addl']:g} at the interval ii = {event['ii']:g}, which makes {total:.3g} doses "
                f"until the last row of t; more than {MOST_DOSES} are not solved. Are addl and ii in the unit of time? A flow that "
                "does not change is an infusion."
            )


def _used_columns(table: pd.DataFrame, has_subject: bool) -> dict[str, np.ndarray]:
    """Values by the name of the column in small letters; ``subject`` may be called ``id``."""
    columns: dict[str, Hashable] = {}
    for column in table.columns:
        name = str(column).lower()
        if name in (*_COLUMNS, "subject", "id") and name in columns:
            raise ValueError(
                f"events has the columns {columns[name]!r} and {column!r}; keep only one of them."
            )
        columns[name] = column
    listed = f"its columns are {', '.join(map(str, table.columns))}."
    if "time" not in columns:
        raise ValueError(f"events needs the column 'time'; {listed}")
    if "amt" not in columns and "evid" not in columns:
        raise ValueError(f"events needs the column 'amt' with the doses; {listed}")
    for name, ours in _OTHER_NAMES.items():
        if name in columns and ours not in columns:
            raise ValueError(
                f"events has the column {columns[name]!r}, but no column {ours!r}, which is the one that is read: "
                "rename it, or drop it if it means something else."
            )
    key = "subject" if "subject" in columns else "id"
    if has_subject and key not in columns:
        raise ValueError(
            f"events needs the column 'subject' with what solve_ivp gets as subject; {listed}"
        )
    used = {
        name: table[columns[name]].to_numpy() for name in (*_COLUMNS, *_OBSERVED) if name in columns
    }
    return used | ({"subject": table[columns[key]].to_numpy()} if key in columns else {})


def _number(values: Row, name: str, row: int, default: float = 0.0) -> float:
    value = values.get(name, default)
    try:
        value = float(value)
    except (TypeError, ValueError) as error:
        missing = (
            " For files of NONMEM: pd.read_csv(file, na_values='.')."
            if str(value).strip() == "."
            else ""
        )
        raise TypeError(
            f"events row {row}: {name} must be a number, got {shown(value)}.{missing}"
        ) from error
    if np.isnan(value) and name != "time":
        return default
    if not np.isfinite(value):
        raise ValueError(f"events row {row}: {name} must be finite, got {value}.")
    return value


def _check_amount(values: Row, row: int) -> None:
    """Refuse doses without an amount, which would vanish; a row without one must be marked as not a dose."""
    if "amt" not in values or not pd.isna(values["amt"]):
        return
    if pd.isna(values.get("evid")):
        is_dose = pd.isna(values.get("dv")) and values.get("mdv") != 0
    else:
        is_dose = values["evid"] in (1, 4)
    if is_dose:
        raise ValueError(
            f"events row {row}: amt is missing ({values['amt']}). Give the amount, mark the row as not a dose (column evid, "
            "value 0), or drop it."
        )


def _event(values: Row, states: Sequence[str], row: int) -> Row:
    """One row as a dict, checked; of a row that does nothing only ``evid`` counts."""
    _check_amount(values, row)
    event: Row = {
        k: _number(values, k, row) for k in ("time", "amt", "rate", "dur", "addl", "ii", "ss")
    }
    # an infusion without end
    is_constant = event["amt"] == 0.0 and event["ss"] != 0.0 and event["rate"] != 0.0
    event["evid"] = evid = _number(
        values, "evid", row, 1.0 if event["amt"] != 0.0 or is_constant else 0.0
    )
    event["row"] = row
    if pd.isna(values.get("addl", 0.0)) and event["ii"] and not event["ss"]:
        raise ValueError(
            f"events row {row}: ii is {event['ii']:g} and addl is missing; give the number of doses that follow, or 0."
        )
    if evid not in (0, 1, 2, 3, 4):
        flag = (
            " Without NONMEM's flag of 100 it would be one of these: evid % 100."
            if evid >= 100 and evid % 100 in (0, 1, 2, 3, 4)
            else ""
        )
        raise ValueError(
            f"events row {row}: evid is {evid:g}; it must be 0 (observation), 1 (dose), 2 (other), 3 (reset) or 4 (reset and dose).{flag}"
        )
    if evid in (0, 2, 3) and event["amt"] != 0.0:
        raise ValueError(
            f"events row {row}: amt is {event['amt']:g} and evid is {evid:g}, which is not a dose; doses have evid 1 or 4."
        )
    if evid in (0, 2):
        _check_other(values, evid, row)
        return event
    event["cmt"] = _state(values.get("cmt", 1), states, row)
    if evid != 3:
        _check_dose(event, is_constant, row)
    return event


def _check_dose(event: Row, is_constant: bool, row: int) -> None:
    """Refuse what is not a dose."""
    for name in ("amt", "dur", "addl", "ii"):
        if event[name] < 0 or (name == "amt" and event[name] == 0 and not is_constant):
            least = "positive" if name == "amt" else "0 or more"
            raise ValueError(f"events row {row}: {name} is {event[name]:g}; it must be {least}.")
    if event["rate"] < 0 and event["rate"] not in (-1, -2):
        raise ValueError(
            f"events row {row}: rate is {event['rate']:g}; negative rates are -1 and -2 only."
        )
    if event["rate"] and event["dur"]:
        raise ValueError(
            f"events row {row}: rate is {event['rate']:g} and dur is {event['dur']:g}; give one of them."
        )
    if event["ss"] not in (0, 1, 2):
        raise ValueError(
            f"events row {row}: ss is {event['ss']:g}; it must be 0, 1 (steady state) or 2 (steady state added to the current states)."
        )
    if is_constant and (event["ii"] or event["addl"] or event["rate"] == -2):
        raise ValueError(
            f"events row {row}: amt is 0 and ss is {event['ss']:g}, an infinitely long infusion at the given rate that ends "
            f"here; so ii and addl must be 0, and rate positive or -1. They are {event['ii']:g}, {event['addl']:g} and {event['rate']:g}."
        )
    if (event["ss"] or event["addl"]) and not event["ii"] and not is_constant:
        raise ValueError(f"events row {row}: addl and ss need the interval between doses, ii.")
    if not float(event["addl"]).is_integer():
        raise ValueError(f"events row {row}: addl is {event['addl']:g}; it must be a whole number.")


def _check_other(values: Row, evid: float, row: int) -> None:
    """Refuse what NONMEM reads as switching a compartment off: a negative cmt in an event of type 0 or 2."""
    try:
        is_off = float(values.get("cmt", 1)) < 0
    except (TypeError, ValueError):
        return
    if is_off:
        raise ValueError(
            f"events row {row}: cmt is {values['cmt']} with evid {evid:g}, which switches a compartment off; that is not implemented. "
            "Let a covariate do it: interpolate(table, 'constant') of 1 and 0."
        )


def _state(value: Any, states: Sequence[str], row: int) -> str:
    if value in states:
        return value
    try:
        number = int(float(value)) if float(value).is_integer() else 0
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= len(states):
        numbered = ", ".join(f"{i} {name!r}" for i, name in enumerate(states, 1))
        raise ValueError(f"events row {row}: cmt is {shown(value)}; it must be one of {numbered}.")
    return states[number - 1]


def _check_parameters(doses: Doses, states: Sequence[str], rows: Sequence[Row]) -> None:
    for field in dataclasses.fields(Doses)[1:]:
        for state in getattr(doses, field.name):
            if state not in states:
                raise ValueError(
                    f"Doses: {field.name} names {state!r}, which is not a state; the states are {', '.join(states)}."
                )
    for event in rows:
        for code, option in ((-1, "rate"), (-2, "duration")):
            if (
                event["rate"] == code
                and event["evid"] != 3
                and event["cmt"] not in getattr(doses, option)
            ):
                raise ValueError(
                    f"events row {event['row']}: rate is {code}, so the parameter must be named: "
                    f"Doses(table, {option}={{{event['cmt']!r}: 'name in params'}})."
                )
