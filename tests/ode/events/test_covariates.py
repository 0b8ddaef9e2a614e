"""Time-varying covariates against SciPy."""

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.integrate import quad
from scipy.interpolate import CubicSpline

from pymc_saem.ode import interpolate, solve_ivp

KNOTS = np.array([0.0, 1.0, 2.5, 4.0, 7.0])
VALUES = np.array([0.3, 1.2, 0.4, 0.9, 0.2])
TIMES = np.array([0.0, 0.4, 1.0, 2.0, 2.5, 5.5, 7.0, 9.0])
CURVES = {
    "constant": lambda t: VALUES[np.searchsorted(KNOTS, t, side="right") - 1],
    "linear": lambda t: np.interp(t, KNOTS, VALUES),
    "cubic": lambda t: CubicSpline(KNOTS, VALUES, bc_type="natural")(min(t, KNOTS[-1])),
}
TABLE = pd.DataFrame({"time": KNOTS, "rate": VALUES}).sample(frac=1.0, random_state=1)


@pytest.mark.parametrize("solver", ["tsit5", "cvodes"])
@pytest.mark.parametrize("kind", CURVES)
def test_decay_at_a_rate_that_changes(kind, solver):
    scale = pt.scalar("scale")
    solution = solve_ivp(
        lambda t, y, p: {"x": -p.scale * p.rate(t) * y.x}, {"x": 2.0}, {"scale": scale, "rate": interpolate(TABLE, kind)},
        TIMES, rtol=1e-10, atol=1e-10, solver=solver,
    )  # fmt: skip
    gradient = pt.grad(solution.x.sum(), scale)
    x, slope = pytensor.function([scale], [solution.x, gradient], mode="FAST_COMPILE")(1.5)
    exposure = np.array(
        [
            quad(CURVES[kind], 0.0, t, points=KNOTS[KNOTS < t], epsabs=1e-12)[0] if t else 0.0
            for t in TIMES
        ]
    )
    expected = 2.0 * np.exp(-1.5 * exposure)
    limit = 1e-8 if solver == "tsit5" else 1e-6
    np.testing.assert_allclose(x, expected, rtol=limit, atol=limit)
    np.testing.assert_allclose(slope, -(exposure * expected).sum(), rtol=1e-6)


def test_subjects_have_their_own_curves_and_start_times():
    table = pd.DataFrame({"subject": [0, 0, 1], "time": [1.0, 3.0, 2.0], "inflow": [1.0, 3.0, 5.0]})
    solution = solve_ivp(
        lambda t, y, p: {"x": p.inflow(t)}, {"x": 0.0}, {"inflow": interpolate(table, "linear")},
        t=[2.0, 4.0, 4.0], subject=[0, 0, 1], t0=np.array([0.0, 2.5]),
    )  # fmt: skip
    np.testing.assert_allclose(solution.x.eval(), [1.0 + 1.5, 1.0 + 4.0 + 3.0, 7.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("table", "options", "error", "message"),
    [
        ({"time": [0.0], "x": [1.0]}, {"kind": "spline"}, ValueError, "kind is 'spline'"),
        ({"x": [1.0]}, {}, ValueError, "needs the columns 'time' and a value"),
        (
            {"time": [0.0], "x": [1.0], "z": [2.0]},
            {},
            ValueError,
            r"found the columns \['x', 'z'\]; choose one",
        ),
        (
            {"time": [0.0], "x": [1.0]},
            {"value": "y"},
            ValueError,
            "value is 'y', which is not a column",
        ),
        (
            {"time": [0.0], "x": [np.nan]},
            {},
            ValueError,
            "row 0: time 0.0 and x nan must be finite",
        ),
        ({"time": [0.0], "x": ["much"]}, {}, TypeError, "must be numeric"),
        (
            {"time": [0.0], "TIME": [0.0], "x": [1.0]},
            {},
            ValueError,
            "the columns 'time' and 'TIME'; keep only one",
        ),
        (
            {"time": [0.0, 0.0], "x": [1.0, 2.0]},
            {},
            ValueError,
            "two values at time 0.0.*write time that continues",
        ),
        (
            {"subject": [None], "time": [0.0], "x": [1.0]},
            {},
            ValueError,
            "subject of row 0 is missing",
        ),
        (
            {"ID": ["ann"], "time": [0.0], "x": [np.nan]},
            {},
            ValueError,
            "row 0 of subject 'ann': time 0.0 and x nan",
        ),
        (
            {"time": pd.to_datetime(["2020-01-01"]), "x": [1.0]},
            {},
            TypeError,
            "interpolate: time must hold numbers, got datetime64",
        ),
        (
            {"time": pd.to_datetime(["2020-01-01"], utc=True), "x": [1.0]},
            {},
            TypeError,
            "interpolate: time must hold numbers",
        ),
        (
            {"time": [0.0, 9.0, 1.0], "x": [1.0, 2.0, 3.0], "EVID": [1, 0, 4]},
            {"value": "x"},
            ValueError,
            "row 2: time 1 of subject 0 goes back",
        ),
        (
            {"time": [0.0, 9.0, 1.0], "x": [1.0, 2.0, 3.0], "OCC": [1, 1, 2]},
            {},
            ValueError,
            "row 2: OCC 2 of subject 0 begins at time 1, but OCC 1",
        ),
    ],
)
def test_bad_tables(table, options, error, message):
    with pytest.raises(error, match=message):
        interpolate(pd.DataFrame(table), **options)


def test_every_subject_needs_a_value():
    def solve(table):
        return solve_ivp(
            lambda t, y, p: {"x": p.z(t)},
            {"x": 0.0},
            {"z": interpolate(pd.DataFrame(table))},
            [1.0, 1.0],
            [0, 1],
        )

    with pytest.raises(ValueError, match=r"params\['z'\]: subject 1 has no row"):
        solve({"subject": [0], "time": [0.0], "z": [1.0]})
    with pytest.raises(
        ValueError, match=r"params\['z'\] row 2: subject is 2; it must be one of the codes 0..1"
    ):
        solve({"subject": [0, 1, 2], "time": [0.0] * 3, "z": [1.0] * 3})
    with pytest.raises(TypeError, match="must be a pandas.DataFrame"):
        interpolate([1.0])
