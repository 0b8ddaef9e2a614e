"""The sunode solver: the tests of the other engines again, and what only it can get wrong."""

import pickle
from functools import partial

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

pytest.importorskip(
    "sunode", reason="sunode is not installed; it comes with conda-forge, not with pip"
)
from pymc_saem.ode import SolverStatus, solve_ivp
from tests.ode import test_gradient, test_solution
from tests.ode.test_gradient import (  # noqa: F401
    test_batched_gradient_equals_loop,
    test_gradient_by_parameters_initial_values_and_shared_scalars,
)
from tests.ode.test_solution import (  # noqa: F401
    test_batch_equals_loop_and_accepts_several_batch_axes,
    test_batch_of_initial_values_alone,
    test_compiled_function_survives_pickle,
    test_forked_child_solves_after_parallel_work,
    test_modes_agree,
    test_op_attributes_pickle_and_equality,
    test_single_system_without_subject_axis,
    test_start_time_gives_initial_value,
    test_threads_do_not_change_a_bit,
)
from tests.support.systems import DOSE, START, SUBJECT, TIMES, N, oral, oral_scipy

with_sunode = partial(solve_ivp, solver="sunode")


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    """The imported tests call ``solve_ivp`` without a solver: here it is sunode's."""
    for module in (test_solution, test_gradient):
        monkeypatch.setattr(module, "solve_ivp", with_sunode)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_accuracy_in_row_order(tolerance):
    """The method adds up more error over a solve than the explicit one: 32 tolerances here, those of `cvodes` too."""
    solution = test_solution.solve(rtol=tolerance, atol=tolerance)
    for name, expected in zip(("depot", "center"), oral_scipy(SUBJECT, TIMES).T, strict=True):
        assert (
            np.abs(solution[name].eval() - expected) <= 50 * tolerance * (1 + np.abs(expected))
        ).all()
    assert (solution.status.eval() == 0).all()


def test_dense_rows_between_steps_keep_the_tolerance():
    times, subject = np.linspace(1.0, 30.0, 400), np.full(400, 3)
    expected = oral_scipy(subject, times)[:, 1]
    for tolerance in (1e-3, 1e-9):
        dense = test_solution.solve().at(times, subject, rtol=tolerance, atol=tolerance)
        assert dense.center.eval() == pytest.approx(expected, abs=100 * tolerance)


def test_model_logp_and_gradient_are_those_of_the_other_engines():
    results = []
    for solver in ("tsit5", "sunode"):
        with pm.Model() as model:
            rates = pm.LogNormal("rates", -1.0, 0.5, shape=(N, 2))
            solution = solve_ivp(
                oral, {"depot": DOSE, "center": 0.2}, {"scale": 1.3, "rates": rates}, TIMES, SUBJECT,
                t0=START, rtol=1e-9, atol=1e-9, solver=solver,
            )  # fmt: skip
            pm.Normal("y", solution.center, 0.1, observed=np.ones(TIMES.size))
        point = model.initial_point()
        results.append((model.compile_logp()(point), model.compile_dlogp()(point)))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-4)


def robertson(t, y, p):
    """Rates from 0.04 to 3e7."""
    slow, fast, merge = p.k[0] * y.a, p.k[1] * y.b * y.c, p.k[2] * y.b**2
    return {"a": fast - slow, "b": slow - fast - merge, "c": merge}


def test_a_stiff_system_agrees_with_cvodes():
    k, a = (
        pt.matrix("k", shape=(2, 3), dtype="float64"),
        pt.vector("a", shape=(2,), dtype="float64"),
    )
    times, subject = np.array([4e5, 0.4, 40.0, 4e3, 4.0]), np.array([0, 0, 1, 0, 1])
    results = []
    for solver in ("cvodes", "sunode"):
        solution = solve_ivp(
            robertson,
            {"a": a, "b": 0.0, "c": 0.0},
            {"k": k},
            times,
            subject,
            rtol=1e-8,
            atol=1e-12,
            solver=solver,
        )
        cost = solution.a.sum() + 1e4 * solution.b.sum()
        function = pytensor.function([k, a], [solution.a, solution.b, *pytensor.grad(cost, [k, a])])
        rates = np.array([[0.04, 1e4, 3e7], [0.05, 2e4, 2e7]])
        results.append(function(rates, np.array([1.0, 0.9])))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=2e-5)


def test_failures_have_their_codes_and_print_nothing(capfd):
    """CVODES reports failures on the terminal unless told otherwise."""
    a = pt.vector("a", shape=(4,))
    solution = with_sunode(
        lambda t, y, p: {"y": p.a * y.y**2 + pt.log(p.b)},
        {"y": 1.0}, {"a": a, "b": np.array([1.0, 1.0, 1.0, -1.0])}, [1.0, 2.0, 2.0, 1.0], [0, 1, 2, 3],
    )  # fmt: skip
    gradient = pytensor.grad(solution.y.sum(), a)
    _, status, slope = pytensor.function([a], [solution.y, solution.status, gradient])(
        [-1.0, 1.0, np.nan, 1.0]
    )
    assert status[0] == SolverStatus.SUCCESS and status[1] != SolverStatus.SUCCESS
    assert status[2] == status[3] == SolverStatus.NON_FINITE
    assert slope[0] == pytest.approx(0.25, rel=1e-4) and np.isnan(slope[1:]).all()
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_the_step_limit_counts_the_whole_solve():
    a = pt.vector("a", shape=(2,))
    for max_steps, expected in ((10, SolverStatus.MAX_STEPS), (4000, SolverStatus.SUCCESS)):
        solution = with_sunode(
            lambda t, y, p: {"y": p.a * pt.cos(t)}, {"y": 0.0}, {"a": a}, np.linspace(1.0, 50.0, 60), np.arange(60) % 2,
            max_steps=max_steps,
        )  # fmt: skip
        gradient = pytensor.grad(solution.y.sum(), a)
        status, slope = pytensor.function([a], [solution.status, gradient])([1.0, 2.0])
        assert status.tolist() == [expected] * 2
        assert np.isnan(slope).all() == (expected is SolverStatus.MAX_STEPS)


def test_times_that_become_invalid_have_their_code():
    times = pytensor.shared(np.array([1.0, 2.0]))
    solution = with_sunode(lambda t, y, p: {"y": -y.y}, {"y": 1.0}, {}, times, [0, 1])
    times.set_value(np.array([1.0, -2.0]))
    assert solution.status.eval().tolist() == [0, SolverStatus.BAD_TIMES]


def test_repeats_of_the_start_time_keep_their_rows():
    """`sunode.solver.Solver.solve` writes each of them to the first row."""
    solution = with_sunode(
        lambda t, y, p: {"y": -y.y}, {"y": 3.0}, {}, [1.0, 0.0, 2.0, 0.0], rtol=1e-9, atol=1e-9
    )
    assert solution.y.eval() == pytest.approx(3.0 * np.exp([-1.0, 0.0, -2.0, 0.0]), rel=1e-7)


def test_a_solve_after_a_failed_one_is_not_changed_by_it():
    """Solver memory is used again and again; nothing of a solve may stay in it."""
    a = pt.vector("a", shape=(1,))
    solution = with_sunode(
        lambda t, y, p: {"y": p.a * y.y**2}, {"y": 1.0}, {"a": a}, [0.5, 2.0], [0, 0], n_threads=1
    )
    function = pytensor.function([a], [solution.y, pytensor.grad(solution.y.sum(), a)])
    first = function([-1.0])
    function([3.0]), function([np.nan])
    for before, after in zip(first, function([-1.0]), strict=True):
        np.testing.assert_array_equal(after, before)


def test_the_op_travels_between_processes():
    op = with_sunode(
        robertson, {"a": 1.0, "b": 0.0, "c": 0.0}, {"k": np.ones(3)}, [1.0]
    ).status.owner.op
    assert pickle.loads(pickle.dumps(op)) == op
