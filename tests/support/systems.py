"""Systems that the tests of the solvers share, and their exact or SciPy solutions."""

import numpy as np
import pytensor.tensor as pt
from scipy.integrate import solve_ivp as scipy_solve_ivp

N = 5
RNG = np.random.default_rng(7)
DOSE = RNG.uniform(4.0, 6.0, N)
RATES = RNG.uniform([0.5, 0.05], [2.0, 0.2], (N, 2))
START = np.array([0.0, 0.0, 0.5, 1.0, -1.0])
# Ragged, unsorted, with repeats; the last subject has one row.
SUBJECT = np.array([2, 0, 0, 1, 3, 2, 2, 0, 1, 3, 3, 3, 0, 4, 2])
TIMES = np.array([3.0, 9.0, 1.0, 2.5, 4.0, 0.5, 8.0, 1.0, 0.0, 1.0, 1.5, 20.0, 0.25, 12.0, 3.0])


def oral(t, y, p):
    """Absorption, and elimination that saturates and varies over the day."""
    absorbed = p.rates[0] * y.depot
    eliminated = p.rates[1] * p.scale * y.center / (1.0 + 0.1 * y.center) * (1.0 + 0.3 * pt.sin(t))
    return {"depot": -absorbed, "center": absorbed - eliminated}


def oral_scipy(subject, times, dose=DOSE, rates=RATES, scale=1.3, start=START, base=0.2):
    """Solution of ``oral`` (rows, 2) at tolerance 1e-12."""
    out = np.empty((len(times), 2))
    for i in np.unique(subject):
        ka, ke = rates[i]

        def rhs(t, y, ka=ka, ke=ke):
            eliminated = ke * scale * y[1] / (1 + 0.1 * y[1]) * (1 + 0.3 * np.sin(t))
            return [-ka * y[0], ka * y[0] - eliminated]

        rows = subject == i
        grid = np.unique(times[rows])
        y0 = [dose[i], base]
        if grid[-1] == start[i]:
            out[rows] = y0
            continue
        options = {"rtol": 1e-12, "atol": 1e-12, "method": "DOP853"}
        solved = scipy_solve_ivp(rhs, (start[i], grid[-1]), y0, t_eval=grid, **options).y.T
        out[rows] = solved[np.searchsorted(grid, times[rows])]
    return out
