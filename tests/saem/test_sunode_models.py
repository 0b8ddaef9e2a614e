"""Models that were written with sunode's own ``solve_ivp``: they run as they are, and slowly."""

import sys

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import pymc_saem as ps

pytest.importorskip(
    "sunode", reason="sunode is not installed; it comes with conda-forge, not with pip"
)
from sunode.wrappers.as_pytensor import solve_ivp

# sunode 0.6 prints its functions with names of Python's syntax tree that are deprecated, and gone
# from Python 3.14.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore:SolveODEAdjoint.* should implement `pullback`:FutureWarning"
    ),
    pytest.mark.skipif(
        sys.version_info >= (3, 14),
        reason="the symbolic part of sunode 0.6 needs Python 3.13 or older",
    ),
]

N, TIMES, START = 4, np.array([0.5, 1.0, 2.0, 3.0, 5.0]), 10.0


def data():
    """Exponential decay of four subjects, rates around 0.5."""
    rng = np.random.default_rng(1)
    rate = np.exp(np.log(0.5) + 0.3 * rng.normal(size=N))
    return START * np.exp(-rate[:, None] * TIMES) + 0.2 * rng.normal(size=(N, TIMES.size))


def one_by_one(rate):
    """A solve for each subject."""
    curves = []
    for i in range(N):
        solution, *_ = solve_ivp(
            t0=0.0, y0={"y": (np.array(START), ())}, params={"rate": (rate[i], ()), "none": np.zeros(1)},
            tvals=TIMES, rhs=lambda t, y, p: {"y": -p.rate * y.y},
        )  # fmt: skip
        curves.append(solution["y"])
    return pt.stack(curves)


def one_system(rate):
    """All subjects in one system, whose steps they share."""
    solution, *_ = solve_ivp(
        t0=0.0, y0={"y": (np.full(N, START), (N,))}, params={"rate": (rate, (N,)), "none": np.zeros(1)},
        tvals=TIMES, rhs=lambda t, y, p: {"y": [-p.rate[i] * y.y[i] for i in range(N)]},
    )  # fmt: skip
    return solution["y"].T


def ours(rate, solver="auto"):
    subject = np.repeat(np.arange(N), TIMES.size)
    solution = ps.ode.solve_ivp(
        lambda t, y, p: {"y": -p.rate * y.y}, {"y": START}, {"rate": rate}, np.tile(TIMES, N), subject,
        rtol=1e-10, atol=1e-10, solver=solver,
    )  # fmt: skip
    return solution.y.reshape((N, TIMES.size))


def fit(curves):
    with pm.Model(coords={"subject": range(N)}):
        mu = pm.Normal("mu", 0.0, 2.0)
        omega = pm.HalfNormal("omega", 1.0)
        sigma = pm.HalfNormal("sigma", 1.0)
        log_rate = pm.Normal("log_rate", mu, omega, dims="subject")
        pm.Normal("obs", curves(pm.math.exp(log_rate)), sigma, observed=data())
        idata = ps.fit_saem(
            n_explore=6,
            n_smooth=6,
            n_transitions=8,
            n_replicates=2,
            draws=10,
            n_starts=1,
            random_seed=3,
        )
    return ps.summary(idata)["estimate"]


@pytest.fixture(scope="module")
def expected():
    return fit(ours)


def with_its_memory(rate):
    """Our function, with sunode's solver."""
    return ours(rate, "sunode")


@pytest.mark.parametrize("curves", [one_by_one, one_system, with_its_memory])
def test_estimates_are_those_of_our_engine(curves, expected):
    """Same seed, same proposals; only the solutions differ, by the tolerance."""
    np.testing.assert_allclose(fit(curves), expected, rtol=1e-4)
