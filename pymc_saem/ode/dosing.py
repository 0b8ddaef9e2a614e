"""From doses and covariate tables to what a solver needs: hidden parameters, terms of the right-hand side, events."""

import numpy as np

from pymc_saem.ode.events import (
    ADD_PARAMETER,
    ADD_STATE,
    RESET,
    STEADY,
    Doses,
    EventTable,
    read_doses,
)

__all__ = ["Plan", "plan_events"]


class Plan:
    """What events add to a system.

    Attributes
    ----------
    hidden : dict of str to ndarray
        Parameters that only events change, with their values at the start.
    changing : dict of str to callable
        Those that are pieces of a covariate's curve: their values (n_subjects, k) at one time per subject.
    """

    def __init__(self, doses, rows, covariates, states, n_subjects, t0):
        self.doses, self.rows, self.covariates = doses, rows, covariates
        self.states, self.n_subjects, self.t0 = list(states), n_subjects, t0
        self.infusions = sorted({(e["cmt"], _kind(e, doses)) for e in rows} - {(e["cmt"], None) for e in rows})
        self.hidden = {_weight(*infusion): np.zeros(n_subjects) for infusion in self.infusions}
        self.hidden |= {_covariate(name): table.at(t0) for name, table in covariates.items()}
        self.changing = {_covariate(name): table.at for name, table in covariates.items()}

    def right_hand_side(self, rhs):
        """The user's right-hand side with infusions added, and covariates that can be called with the time."""

        def with_inputs(t, y, p):
            for name, table in self.covariates.items():
                setattr(p, name, _named(name, table.function(getattr(p, _covariate(name)))))
            out = rhs(t, y, p)
            if isinstance(out, dict):
                out = dict(out)
                for state, kind in self.infusions:
                    if state in out:
                        out[state] = out[state] + getattr(p, _weight(state, kind)) * self._factor(state, kind, p)
            return out

        return with_inputs

    def _factor(self, state, kind, p):
        doses, factor = self.doses, 1.0
        if kind in ("F", "D") and state in doses.bioavailability:
            factor = getattr(p, doses.bioavailability[state])
        if kind == "R":
            factor = getattr(p, doses.rate[state])
        return factor / getattr(p, doses.duration[state]) if kind == "D" else factor

    def table(self, shapes, places):
        """The events of all subjects.

        Parameters
        ----------
        shapes : dict of str to tuple of int
            Shape of each parameter for one subject.
        places : dict of str to int
            Where each parameter begins in the flat vector of one subject.
        """
        records = []
        for name, table in self.covariates.items():
            records += table.records(places[_covariate(name)], self.t0)
        epochs = [0] * self.n_subjects
        for event in self.rows:
            records += self._records(event, shapes, places, epochs)
        subject, numbers, what = zip(*records, strict=True) if records else ((), (), ())
        return EventTable(np.array(subject, dtype=np.int64), np.array(numbers), np.array(what), self.n_subjects)

    def _records(self, event, shapes, places, epochs):
        """Resets of an event, then its doses."""
        i, time, out = event["subject"], event["time"], []
        if event["evid"] >= 3:
            out.append((i, (time, 0.0, 0.0, 0.0), (RESET, -1, -1, -1, -1, -1, -1, epochs[i])))
            epochs[i] += 1
        if event["evid"] == 3:
            return out
        start, end = self._dose(event, shapes, places)
        parts = [start] if end is None else [start, end]
        if event["ss"]:
            numbers = (time, 0.0, 0.0, event["ii"])
            out.append((i, numbers, (STEADY, len(parts), -1, -1, -1, -1, -1, epochs[i])))
            epochs[i] += 1
        for k in range(int(event["addl"]) + 1):
            for (amount, duration), what in parts:
                out.append((i, (time + k * event["ii"], amount, duration, 0.0), (*what, epochs[i])))
            if event["ss"] and k == 0 and end is not None:
                # The infusion of the interval before may still run.
                (amount, duration), what = end
                out.append((i, (time - event["ii"], amount, duration, 0.0), (*what, epochs[i])))
        return out

    def _dose(self, event, shapes, places):
        """Start and end of a dose as ((amount, duration), places without epoch); no end for a bolus."""
        state, amt, doses = event["cmt"], event["amt"], self.doses

        def place(option):
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
            return ((amt, 0.0), (ADD_STATE, self.states.index(state), f, lag, -1, -1, -1)), None
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
        return start, ((-weight, duration), (ADD_PARAMETER, target, -1, lag, *factors))


def _kind(event, doses):
    """What an infusion's weight is multiplied with: nothing, F, the rate R, or F / D; None for a bolus."""
    if event["evid"] == 3 or not (event["rate"] or event["dur"]):
        return None
    if event["rate"] < 0:
        return "R" if event["rate"] == -1 else "D"
    return "F" if event["dur"] and event["cmt"] in doses.bioavailability else ""


def _named(name, covariate):
    """The function of time, whose value has the covariate's name."""

    def at(t):
        value = covariate(t)
        value.name = name
        return value

    return at


def _weight(state, kind):
    return f"_infusion{kind}_{state}"


def _covariate(name):
    return f"_covariate_{name}"


def plan_events(events, covariates, states, subjects, t0, has_subject):
    """The :class:`Plan` of ``solve_ivp``'s events and interpolated parameters, or None if there are none; and the subjects, as far
    as the table of events tells what they are called."""
    if events is None and not covariates:
        return None, subjects
    doses, rows = events if isinstance(events, Doses) else Doses(events), []
    if events is not None:
        rows, subjects = read_doses(doses, states, subjects, t0, has_subject)
    covariates = {name: table.of(name, subjects) for name, table in covariates.items()}
    return Plan(doses, rows, covariates, states, subjects.n, t0), subjects
