"""Doses, infusions, resets and steady states from a NONMEM-style table, as a list of changes per subject.

An infusion is a parameter that the right-hand side adds to its state: it is zero until the infusion
starts, and again after its end. So every event changes states or parameters at one time, and
``pieces.py`` solves from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from pymc_saem.arguments import check_types
from pymc_saem.ode.events.described import as_html, as_text, contents

__all__ = ["Doses", "EventTable", "Record", "Row", "set_records"]

# What an event does: add to a state, add to a parameter, set a parameter, empty all states, or add
# the steady state of the dose whose records follow, TARGET in number.
ADD_STATE, ADD_PARAMETER, SET_PARAMETER, RESET, STEADY = range(5)
# Columns of the numbers: time, amount, factor of the duration, interval between doses.
TIME, AMOUNT, DURATION, INTERVAL, N_NUMBERS = range(5)
# Columns of the places: action; its state or parameter; the parameters that multiply the amount,
# are added to the time, and make the duration: DURATION * F / R * D; -1: none. How many resets came
# before a dose, or -1 for what comes at a time that is data, whatever was reset. How often a dose
# is repeated, and whether it has been given for ever before: 0 or 1.
ACTION, TARGET, SCALE, LAG, F, R, D, PERIOD, MORE, PAST, N_PLACES = range(11)
#: The places from SCALE on, for events that are not doses.
NO_DOSE = (-1,) * 6 + (0, 0)


#: A row of a table of events, by the name of the column.
Row: TypeAlias = dict[str, Any]
#: Subject, numbers and places of one event.
Record: TypeAlias = tuple[int, tuple[float, float, float, float], tuple[int, ...]]


@dataclass(frozen=True)
class Doses:
    """A table of doses, and the parameters that act on them.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per event; names of columns in any case. ``subject`` (or ``id``, where there is no
        ``subject``): labels or codes, as ``solve_ivp`` gets them as ``subject``; not needed for a
        single system. ``time``, in the unit of ``t``: one clock for all periods of a subject.
        ``amt``, in the unit of the state. ``cmt``: name of the state that gets the dose, or its
        number from 1 (default: the first). ``evid``: 1 dose (default where ``amt`` is positive), 3
        reset, 4 reset and dose; rows with 0 (observation) and 2 (other) are skipped. ``rate``: 0
        bolus (default), positive: infusion at that rate, -1: at the rate given by ``rate`` below,
        -2: over the time given by ``duration`` below. ``dur``: infusion over that time, instead of
        a rate. ``addl`` and ``ii``: that many additional doses, at that interval. ``ss``: 1, the
        dose has always been given every ``ii``; 2, the same added to the current states; with
        ``amt`` 0, ``ii`` 0 and a ``rate``, an infusion that has always run and ends at this row.
        Columns that are not named here, such as ``mdv``, are not read.
    lag_time, bioavailability, rate, duration : dict of str to str
        By state, the name of the entry of ``params`` that delays its doses, multiplies their
        amount, or is the rate or the duration of its infusions; one number per subject. They carry
        gradients as all parameters do.

    See Also
    --------
    pymc_saem.ode.solve_ivp : Takes it as ``events``.
    pymc_saem.ode.interpolate : Covariates that change with time.

    Notes
    -----
    At one time, resets and steady states come first, then observations, then doses: a row at the
    time of a dose sees the state before it. Times that differ by rounding are one time.
    Bioavailability scales amounts; where the rate is given it makes the infusion longer. A reset
    empties all states, ends infusions and cancels doses that are still to come from rows before it.

    A steady state is computed interval by interval, until the states at the end of an interval no
    longer change within tolerance. ``ss`` 1 resets before it. ``ss`` 2 adds it to the current
    states, while doses from earlier rows continue; so two regimens reach their joint steady state,
    if the system is linear and its states are zero without doses. Lag times and infusions may be
    longer than ``ii``: lags apply to all past doses too. Covariates are held at their values at
    that time; the time in the right-hand side is that of the interval before.

    If rows have codes, the table may have labels only where their meaning is certain: in a PyMC
    model whose ``coords`` name the subjects, or if its observations (evid 0) are exactly the rows
    of ``t``. A clock that restarts in each period is refused where it can be detected: by time that
    goes back in a table with resets or observations, or by a column such as ``occ`` whose periods
    overlap.

    Examples
    --------
    >>> import pandas as pd
    >>> from pymc_saem.ode import Doses, solve_ivp
    >>> table = pd.DataFrame({"time": [0.0], "amt": [100.0], "cmt": ["gut"], "addl": [2], "ii": [12.0]})
    >>> solution = solve_ivp(
    ...     lambda t, y, p: {"gut": -p.ka * y.gut, "blood": p.ka * y.gut - p.k * y.blood},
    ...     y0={"gut": 0.0, "blood": 0.0},
    ...     params={"ka": 1.0, "k": 0.1, "F": 0.8},
    ...     t=[1.0, 25.0],
    ...     events=Doses(table, bioavailability={"gut": "F"}),
    ... )
    >>> solution.blood.eval().round(2)
    array([47.73, 79.25])
    """

    table: pd.DataFrame
    lag_time: Mapping[str, str] = field(default_factory=dict)
    bioavailability: Mapping[str, str] = field(default_factory=dict)
    rate: Mapping[str, str] = field(default_factory=dict)
    duration: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types("Doses", vars(self))

    def __repr__(self) -> str:
        return as_text("Doses", self._contents())

    def _repr_html_(self) -> str:
        return as_html("Doses", self._contents())

    def _contents(self) -> dict[str, Any]:
        found = contents(self.table) if isinstance(self.table, pd.DataFrame) else {}
        named = ("lag_time", "bioavailability", "rate", "duration")
        return found | {
            option: dict(getattr(self, option)) for option in named if getattr(self, option)
        }


class EventTable:
    """Events by subject; compares and hashes by content.

    Parameters
    ----------
    subject : ndarray of int, shape (events,)
    numbers : ndarray of float, shape (events, N_NUMBERS)
    places : ndarray of int, shape (events, N_PLACES)
        Of a subject first what comes at times that are data, in order; then its doses, by
        ``PERIOD``.
    n_subjects : int
    """

    def __init__(
        self, subject: np.ndarray, numbers: np.ndarray, places: np.ndarray, n_subjects: int
    ) -> None:
        order = np.argsort(subject, kind="stable")
        self.subject = np.ascontiguousarray(np.asarray(subject)[order], dtype=np.int64)
        self.numbers = np.ascontiguousarray(np.asarray(numbers)[order], dtype=np.float64).reshape(
            -1, N_NUMBERS
        )
        self.places = np.ascontiguousarray(np.asarray(places)[order], dtype=np.int64).reshape(
            -1, N_PLACES
        )
        self.n_subjects = n_subjects
        self.starts = np.concatenate(
            [[0], np.cumsum(np.bincount(self.subject, minlength=n_subjects))]
        ).astype(np.int64)
        self.infusions = np.unique(self.places[self.places[:, ACTION] == ADD_PARAMETER, TARGET])
        for array in (self.subject, self.numbers, self.places, self.starts, self.infusions):
            array.setflags(write=False)
        self._key = (
            n_subjects,
            self.subject.tobytes(),
            self.numbers.tobytes(),
            self.places.tobytes(),
        )

    def __eq__(self, other: object) -> bool:
        return type(other) is EventTable and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"EventTable(n_events={self.subject.size}, n_subjects={self.n_subjects})"

    def __reduce__(self) -> tuple[type[EventTable], tuple[Any, ...]]:
        return EventTable, (self.subject, self.numbers, self.places, self.n_subjects)


def set_records(subject: int, time: float, target: int, values: np.ndarray) -> list[Record]:
    """Events that set consecutive parameters at one time, whatever was reset before."""
    return [
        (subject, (time, float(v), 0.0, 0.0), (SET_PARAMETER, target + k, *NO_DOSE))
        for k, v in enumerate(values)
    ]
