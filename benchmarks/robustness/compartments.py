"""Doses as NONMEM means them, carried out one after the other with SciPy: what ``solve_ivp`` must give.

Nothing here is taken from the package. A steady state is what is there after so many intervals that
nothing changes any more; infusions and lagged doses that are still to come then go on behind it.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm

INTERVALS = 120  # before a steady state; rates of elimination are above 0.2 per interval


@dataclass
class System:
    """Two states, ``gut`` and ``blood``; elimination linear, or saturable where ``vm`` is given."""

    ka: float
    k: float
    vm: float | None = None
    km: float = 5.0

    def advance(self, y, inputs, span):
        """States after a time without events, with constant inputs."""
        if span <= 0:
            return y
        if self.vm is None:
            a = np.zeros((3, 3))
            a[:2, :2] = [[-self.ka, 0.0], [self.ka, -self.k]]
            a[:2, 2] = inputs
            return (expm(a * span) @ np.append(y, 1.0))[:2]

        def rhs(t, y):
            eliminated = self.vm * y[1] / (self.km + y[1])
            return [inputs[0] - self.ka * y[0], inputs[1] + self.ka * y[0] - eliminated]

        return solve_ivp(rhs, (0.0, span), y, method="LSODA", rtol=1e-10, atol=1e-12).y[:, -1]


@dataclass
class Modifiers:
    """What parameters do to the doses into each state."""

    lag: tuple = (0.0, 0.0)
    bioavailability: tuple = (1.0, 1.0)
    rate: tuple = (None, None)
    duration: tuple = (None, None)


@dataclass
class Clock:
    """States at a time, what flows in, and what is still to come: (time, order, number, what, epoch)."""

    system: System
    time: float
    y: np.ndarray
    inputs: np.ndarray = field(default_factory=lambda: np.zeros(2))
    queue: list = field(default_factory=list)
    number: int = 0
    instants: set = field(default_factory=set)

    def push(self, time, order, what):
        self.number += 1
        heapq.heappush(self.queue, (time, order, self.number, what))

    def go_to(self, time):
        self.y = self.system.advance(self.y, self.inputs, time - self.time)
        self.time = max(self.time, time)

    def run(self, until=np.inf):
        """Carry out all before a time."""
        while self.queue and self.queue[0][0] < until:
            time, _, _, what = heapq.heappop(self.queue)
            self.go_to(time)
            self.instants.add(time)
            what(self)


def give(clock, row, start, modifiers):
    """One dose: an amount at once, or a rate for a time."""
    state, amount, rate, duration = (
        row["state"],
        row["amt"],
        row.get("rate", 0.0),
        row.get("dur", 0.0),
    )
    f = modifiers.bioavailability[state]
    if rate == -1:
        rate, duration = modifiers.rate[state], f * amount / modifiers.rate[state]
    elif rate == -2:
        duration = modifiers.duration[state]
        rate = f * amount / duration
    elif rate > 0:
        duration = f * amount / rate
    elif duration > 0:
        rate = f * amount / duration
    if not rate:
        clock.push(start, 2, lambda c: c.y.__setitem__(state, c.y[state] + f * amount))
        return
    clock.push(start, 2, lambda c: c.inputs.__setitem__(state, c.inputs[state] + rate))
    clock.push(start + duration, 2, lambda c: c.inputs.__setitem__(state, c.inputs[state] - rate))


def steady(clock, row, modifiers):
    """The state after infinitely many doses, or a constant infusion until now; with ss = 2 on top of what is there."""
    before = clock.y, clock.inputs, list(clock.queue)
    lag, ii = modifiers.lag[row["state"]], row.get("ii", 0.0)
    if not row["amt"]:
        state, rate = row["state"], row["rate"]
        flow = np.zeros(2)
        flow[state] = rate
        other = Clock(clock.system, 0.0, clock.system.advance(np.zeros(2), flow, 200.0), flow)
        # a lag delays its end, too
        other.push(
            clock.time + lag, 2, lambda c: c.inputs.__setitem__(state, c.inputs[state] - rate)
        )
    else:
        begin = clock.time - INTERVALS * ii
        other = Clock(clock.system, begin, np.zeros(2))
        for k in range(INTERVALS):
            give(other, row, begin + k * ii + lag, modifiers)
        other.run(clock.time)
        other.go_to(clock.time)
    clock.y, clock.inputs, clock.queue = other.y, other.inputs, []
    if row["ss"] == 2:  # only for linear systems, where answers add
        clock.y, clock.inputs, clock.queue = (
            before[0] + other.y,
            before[1] + other.inputs,
            before[2],
        )
    for time, order, _, what in other.queue:
        clock.push(time, order, what)


def predicted(system, rows, times, modifiers, y0=(0.0, 0.0), t0=0.0):
    """States at the times, (times, 2), and the instants at which something happens.

    Resets and steady states come first, then observations, then doses; of rows at one time, in the
    order of the table.
    """
    clock = Clock(system, t0, np.array(y0, dtype=float))
    found = np.zeros((len(times), 2))
    queue = [(row["time"], 0, k, row) for k, row in enumerate(rows)] + [
        (t, 1, k, None) for k, t in enumerate(times)
    ]
    for time, order, k, row in sorted(queue, key=lambda q: q[:3]):
        clock.run(time)
        clock.go_to(time)
        if order == 1:
            found[k] = clock.y
            continue
        clock.instants.add(time)
        if row["evid"] in (3, 4):
            clock.y, clock.inputs, clock.queue = np.zeros(2), np.zeros(2), []
        if row["evid"] not in (1, 4):
            continue
        if row.get("ss"):
            steady(clock, row, modifiers)
        if row["amt"]:
            for j in range(int(row.get("addl", 0)) + 1):
                give(
                    clock,
                    row,
                    time + j * row.get("ii", 0.0) + modifiers.lag[row["state"]],
                    modifiers,
                )
    return found, clock.instants
