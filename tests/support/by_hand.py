"""Linear systems with events, by hand: the matrix exponential from one event to the next, in plain Python.

All numbers may be complex, so derivatives are exact: the imaginary part of the states at p +
1e-30i.
"""

import math

import numpy as np

COVARIATE, RESET, DOSE = range(3)  # order at one time; rows stand before doses


def expm(a):
    """The exponential of a small matrix: a Taylor series of a fraction of it, squared; SciPy's takes a hundred times as long here."""
    halvings = max(0, math.frexp(np.abs(a).sum(axis=1).max())[1] + 1)
    term = total = np.eye(len(a), dtype=complex)
    for k in range(1, 18):
        term = term @ a * (0.5**halvings / k)
        total = total + term
    for _ in range(halvings):
        total = total @ total
    return total


def bolus(time, state, amount):
    return [(time, DOSE, "y", state, amount)]


def infusion(time, state, rate, duration):
    return [(time, DOSE, "r", state, rate), (time + duration, DOSE, "r", state, -rate)]


def reset(time):
    return [(time, RESET, "0", 0, 0.0)]


def covariate(time, value):
    return [(time, COVARIATE, "w", 0, value)]


def steady(matrix, w, time, interval, dose, n=32):
    """Events of a dose that has been given for ever: its states at ``time``, and what is left of its last doses after it.

    ``dose(t)`` are the events of one that is given at t. They reach ``time`` from ``n`` intervals
    before.
    """
    past = [event for k in range(n, 0, -1) for event in dose(time - k * interval)]
    before = [event for event in past if event[0].real < time - 1e-9]
    after = [event for event in past if event[0].real >= time - 1e-9]
    y, r = advance(matrix, w, before[0][0].real, len(matrix(w)) * [0.0], before, time)
    states = [(time, RESET, "y", j, value) for j, value in enumerate(y)]
    return states + [(time, RESET, "r", j, value) for j, value in enumerate(r)] + after


def advance(matrix, w, t0, y0, events, end, rows=()):
    """States and rates of infusions at ``end``; with ``rows``, the states at their times."""
    n = len(y0)
    y, r, now, out = np.array(y0, dtype=complex), np.zeros(n, dtype=complex), t0, []
    events = [
        *events,
        *((t, DOSE - 0.5, "row", 0, 0.0) for t in rows),
        (end, DOSE + 1, "end", 0, 0.0),
    ]
    for time, _, kind, state, value in sorted(
        events, key=lambda e: (round(np.real(e[0]), 9), e[1])
    ):
        if np.real(time) > end + 1e-9:
            break
        if abs(time - now) > 1e-12 or np.imag(time) != np.imag(now):
            block = np.zeros((n + 1, n + 1), dtype=complex)
            block[:n, :n], block[:n, n] = matrix(w), r
            y = (expm(block * (time - now)) @ np.append(y, 1.0))[:n]
            now = time
        if kind == "y":
            y[state] += value
        elif kind == "r":
            r[state] += value
        elif kind == "0":
            y, r = np.zeros(n, dtype=complex), np.zeros(n, dtype=complex)
        elif kind == "w":
            w = value
        elif kind == "row":
            out.append(y.copy())
    return np.array(out) if len(rows) else (y, r)
