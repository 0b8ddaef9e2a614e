"""Quantities derived from a solution: integrals as states, expressions kept by PyMC, dense curves."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_saem.ode import Doses, solve_ivp

TIGHT = {"rtol": 1e-11, "atol": 1e-11}
DOSE, KA = 100.0, 1.3
CL, V = np.array([2.0, 3.5, 1.2]), np.array([20.0, 15.0, 30.0])
SUBJECT = np.array([0, 1, 2, 2, 0, 1])
TIMES = np.array([2.0, 4.5, 0.5, 12.0, 30.0, 0.0])


def one_compartment(t, y, p):
    conc = y.center / p.v
    return {
        "gut": -p.ka * y.gut,
        "center": p.ka * y.gut - p.cl * conc,
        "auc": conc,
        "moment": t * conc,
    }


def solve(cl=CL, v=V, t=TIMES, subject=SUBJECT, **options):
    y0 = {"gut": DOSE, "center": 0.0, "auc": 0.0, "moment": 0.0}
    return solve_ivp(
        one_compartment, y0, {"ka": KA, "cl": cl, "v": v}, t, subject, **TIGHT | options
    )


def conc_and_auc(t, cl, v):
    """Concentration after an oral dose, and its integral from 0 to t."""
    k, scale = cl / v, DOSE * KA / (v * KA - cl)
    conc = scale * (np.exp(-k * t) - np.exp(-KA * t))
    return conc, scale * (-np.expm1(-k * t) / k + np.expm1(-KA * t) / KA)


# BDF takes tolerances less literally.
@pytest.mark.parametrize(("solver", "limit"), [("tsit5", 1e-8), ("cvodes", 1e-6)])
def test_area_under_the_curve_is_one_more_state(solver, limit):
    solution = solve(solver=solver)
    conc, auc = conc_and_auc(TIMES, CL[SUBJECT], V[SUBJECT])
    np.testing.assert_allclose(solution.auc.eval(), auc, rtol=limit, atol=limit)
    np.testing.assert_allclose(solution.center.eval() / V[SUBJECT], conc, rtol=limit, atol=limit)


def test_the_whole_area_is_dose_over_clearance():
    solution = solve(t=np.full(3, 800.0), subject=np.arange(3))
    auc, moment = pytensor.function([], [solution.auc, solution.moment], mode="FAST_COMPILE")()
    np.testing.assert_allclose(auc, DOSE / CL, rtol=1e-8)
    np.testing.assert_allclose(moment / auc, 1 / KA + V / CL, rtol=1e-8)  # the mean residence time


def test_the_area_counts_from_the_lag_time_of_a_dose():
    lag = pt.scalar("lag")
    solution = solve_ivp(
        one_compartment, {"gut": 0.0, "center": 0.0, "auc": 0.0, "moment": 0.0},
        {"ka": KA, "cl": 2.0, "v": 20.0, "lag": lag}, [3.0, 6.0],
        events=Doses(pd.DataFrame({"time": [1.0], "amt": [DOSE]}), lag_time={"gut": "lag"}), **TIGHT,
    )  # fmt: skip
    slopes = pt.stack([pt.grad(solution.auc[k], lag) for k in range(2)])
    auc, slope = pytensor.function([lag], [solution.auc, slopes], mode="FAST_COMPILE")(0.7)
    conc, exact = conc_and_auc(np.array([3.0, 6.0]) - 1.7, 2.0, 20.0)
    np.testing.assert_allclose(auc, exact, rtol=1e-8)
    # later by dt: the integral lacks its last conc dt
    np.testing.assert_allclose(slope, -conc, rtol=1e-7)


def test_gradients_of_areas_against_finite_differences():
    cl, v = pt.vector("cl", shape=(3,)), pt.vector("v", shape=(3,))
    solution = solve(cl, v)
    weights = np.random.default_rng(5).normal(size=TIMES.size)
    total = (weights * pt.sqrt(solution.auc + 0.1 * solution.moment + v[SUBJECT])).sum()
    f = pytensor.function([cl, v], [total, *pt.grad(total, [cl, v])], mode="FAST_COMPILE")
    _, *gradients = f(CL, V)
    for which, gradient in enumerate(gradients):
        for k in range(3):
            shift = [np.zeros(3), np.zeros(3)]
            shift[which][k] = 1e-4 * (CL, V)[which][k]
            up, down = (f(CL + s * shift[0], V + s * shift[1])[0] for s in (1, -1))
            assert gradient[k] == pytest.approx(
                (up - down) / (2 * shift[which][k]), rel=1e-6, abs=1e-8
            )


@pytest.mark.slow
def test_an_expression_of_states_and_parameters_as_a_deterministic():
    with pm.Model(coords={"row": np.arange(TIMES.size)}) as model:
        cl = pm.LogNormal("cl", np.log(2.0), 0.3, shape=3)
        solution = solve(cl)
        pm.Deterministic("lost", cl[SUBJECT] * solution.auc / DOSE, dims="row")
        pm.Deterministic("rest", (solution.gut + solution.center) / DOSE, dims="row")
        pm.Deterministic("auc_8h", solution.at(np.full(3, 8.0), np.arange(3)).auc)
        pm.Normal("y", solution.center, 1.0, observed=np.zeros(TIMES.size))
        drawn = pm.draw(
            [model[n] for n in ("cl", "lost", "rest", "auc_8h")], draws=4, random_seed=1
        )
    for values, lost, rest, auc_8h in zip(*drawn, strict=True):
        exact = conc_and_auc(TIMES, values[SUBJECT], V[SUBJECT])[1]
        np.testing.assert_allclose(lost, values[SUBJECT] * exact / DOSE, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(lost + rest, 1.0, rtol=1e-8)  # what was not lost is still there
        np.testing.assert_allclose(auc_8h, conc_and_auc(8.0, values, V)[1], rtol=1e-8)
    # They are no part of the density that NUTS evaluates.
    assert {v.name for v in model.deterministics} == {"lost", "rest", "auc_8h"}
    assert len(_solves(model.logp())) == 1


def _solves(output):
    """The distinct solves below a variable."""
    nodes = pytensor.graph.traversal.ancestors([output])
    return {v.owner for v in nodes if v.owner and getattr(v.owner.op, "is_ode_solution", False)}


@pytest.mark.parametrize(
    "events", [None, pd.DataFrame({"subject": [0, 2], "time": [1.0, 3.0], "amt": 50.0})]
)
def test_at_equals_a_solve_at_those_times(events):
    grid = np.tile(np.linspace(0.0, 24.0, 40), 3)
    who = np.repeat(np.arange(3), 40)
    coarse, direct = solve(events=events), solve(t=grid, subject=who, events=events)
    np.testing.assert_array_equal(coarse.at(grid, who).auc.eval(), direct.auc.eval())
    np.testing.assert_array_equal(coarse.at(grid, who).center.eval(), direct.center.eval())
    # Back at the first rows: the same, and other tolerances are those of a solve with them.
    np.testing.assert_array_equal(direct.at(TIMES, SUBJECT).auc.eval(), coarse.auc.eval())
    loose = {"rtol": 1e-4, "atol": 1e-5}
    expected = solve(t=grid, subject=who, events=events, **loose).auc.eval()
    np.testing.assert_array_equal(coarse.at(grid, who, **loose).auc.eval(), expected)
    assert not np.array_equal(expected, direct.auc.eval())


def test_at_with_another_step_limit():
    few = solve(solver="tsit5", max_steps=3)
    assert (few.status.eval() == 1).all()
    more = few.at(TIMES, SUBJECT, max_steps=4000)
    np.testing.assert_array_equal(more.auc.eval(), solve(solver="tsit5").auc.eval())
    with pytest.raises(ValueError, match="max_steps"):
        few.at(TIMES, SUBJECT, max_steps=0)
