"""Values: accuracy, row order, batches, threads, failures."""

import os
import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import vectorize_graph

from pymc_saem.ode import SolverStatus, solve_ivp
from pymc_saem.ode.ops.solution_op import OdeSolution
from tests.support.systems import DOSE, RATES, START, SUBJECT, TIMES, N, oral, oral_scipy


def solve(rates=RATES, dose=DOSE, **options):
    settings = {"t": TIMES, "subject": SUBJECT, "t0": START, "rtol": 1e-9, "atol": 1e-9} | options
    return solve_ivp(
        oral, {"depot": dose, "center": 0.2}, {"rates": rates, "scale": 1.3}, **settings
    )


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_accuracy_in_row_order(tolerance):
    solution = solve(rtol=tolerance, atol=tolerance)
    reference = oral_scipy(SUBJECT, TIMES)
    for name, expected in zip(("depot", "center"), reference.T, strict=True):
        error = np.abs(solution[name].eval() - expected)
        assert (error <= 10 * tolerance * (1 + np.abs(expected))).all()
    assert (solution.status.eval() == 0).all()


def test_dense_rows_between_steps_keep_the_tolerance():
    times = np.linspace(1.0, 30.0, 400)
    subject = np.full(400, 3)
    for tolerance in (1e-3, 1e-9):
        dense = solve().at(times, subject, rtol=tolerance, atol=tolerance)
        assert dense.center.eval() == pytest.approx(
            oral_scipy(subject, times)[:, 1], abs=20 * tolerance
        )


def test_start_time_gives_initial_value():
    solution = solve().at([1.0, -1.0, 1.0], [3, 4, 3])
    assert solution.depot.eval().tolist() == [DOSE[3], DOSE[4], DOSE[3]]


def test_single_system_without_subject_axis():
    t = np.array([2.0, 1.0])
    solution = solve_ivp(
        lambda t, y, p: {"y": -p.k[0] * p.k[1] * y.y},
        {"y": 2.0},
        {"k": np.array([0.5, 0.2])},
        t,
        rtol=1e-9,
        atol=1e-9,
    )
    assert solution.y.eval() == pytest.approx(2 * np.exp(-0.1 * t), rel=1e-8)
    assert solution.status.eval().tolist() == [0]


def test_batch_equals_loop_and_accepts_several_batch_axes():
    w = pt.matrix("w", shape=(N, 2))
    solution = solve(w)
    outputs = [solution.center, solution.status]
    one = pytensor.function([w], outputs)
    values = RATES * np.random.default_rng(0).uniform(0.8, 1.2, (2, 3, N, 2))
    batch = pt.tensor("batch", shape=(None, None, N, 2))
    center, status = pytensor.function([batch], vectorize_graph(outputs, {w: batch}))(values)
    assert center.shape == (2, 3, TIMES.size) and status.shape == (2, 3, N)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(center[index], one(values[index])[0])


def test_batch_of_initial_values_alone():
    dose, batch = pt.vector("dose", shape=(N,)), pt.matrix("batch", shape=(3, N))
    center = vectorize_graph(solve(dose=dose).center, {dose: batch})
    values = DOSE * np.array([[0.5], [1.0], [2.0]])
    got = pytensor.function([batch], center)(values)
    assert got[1] == pytest.approx(oral_scipy(SUBJECT, TIMES)[:, 1], abs=1e-7)
    assert got[2] == pytest.approx(oral_scipy(SUBJECT, TIMES, dose=2 * DOSE)[:, 1], abs=1e-7)


@pytest.mark.slow
def test_threads_do_not_change_a_bit():
    w = pt.matrix("w", shape=(N, 2))
    results = []
    for n_threads in (1, 2):
        solution = solve(w, n_threads=n_threads)
        gradient = pytensor.grad((solution.center**2).sum(), w)
        results.append(pytensor.function([w], [solution.center, gradient])(RATES))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"])
@pytest.mark.slow
def test_modes_agree(mode, recwarn):
    w = pt.matrix("w", shape=(N, 2))
    solution = solve(w)
    outputs = [solution.center, solution.status, pytensor.grad(solution.center.sum(), w)]
    default = pytensor.function([w], outputs)(RATES)
    other = pytensor.function([w], outputs, mode=mode)(RATES)
    for first, second in zip(default, other, strict=True):
        assert second == pytest.approx(first, rel=1e-12)
    assert not [w for w in recwarn if "object mode" in str(w.message)]


def explosive(t, y, p):
    return {"y": p.a * y.y**2 + pt.log(p.b)}


@pytest.mark.slow
def test_failures_are_flagged_and_leave_others_alone():
    a = pt.vector("a", shape=(3,))
    solution = solve_ivp(
        explosive, {"y": 1.0}, {"a": a, "b": np.ones(3)}, [1.0, 2.0, 2.0, 2.0], [0, 1, 2, 0]
    )
    gradient = pytensor.grad(solution.y[0] + solution.y[1], a)
    y, status, slope = pytensor.function([a], [solution.y, solution.status, gradient])(
        [-1.0, 1.0, np.nan]
    )
    assert y[[0, 3]] == pytest.approx([1 / 2, 1 / 3], rel=1e-5)
    assert np.isnan(y[[1, 2]]).all()
    assert status[0] == 0 and status[1] != 0 and status[2] == SolverStatus.NON_FINITE
    assert np.isfinite(slope[0]) and np.isnan(slope[1])


def test_step_limit_and_late_bad_times_have_their_codes():
    stiff = solve_ivp(
        lambda t, y, p: {"y": -1e6 * (y.y - pt.cos(t))}, {"y": 0.0}, {}, [10.0], max_steps=100
    )
    assert stiff.status.eval().tolist() == [SolverStatus.MAX_STEPS]
    times = pytensor.shared(np.array([1.0, 2.0]))
    solution = solve_ivp(explosive, {"y": 1.0}, {"a": -1.0, "b": 1.0}, times, [0, 1])
    times.set_value(np.array([1.0, -2.0]))
    assert solution.status.eval().tolist() == [0, SolverStatus.BAD_TIMES]
    times.set_value(np.array([np.nan, 2.0]))
    assert solution.status.eval().tolist() == [SolverStatus.BAD_TIMES, 0]


def test_op_attributes_pickle_and_equality():
    op = solve().center.owner.inputs[0].owner.op
    assert op.is_ode_solution and op.n_subjects == N and op.state_names == ("depot", "center")
    np.testing.assert_array_equal(op.subject, SUBJECT)
    loose = op.with_tolerances(1e-2, 1e-3)
    assert (loose.rtol, loose.atol) == (1e-2, 1e-3) and loose != op
    assert "max_steps" in op.status_text(1)
    again = pickle.loads(pickle.dumps(op))
    assert again == op and hash(again) == hash(op)
    assert solve().center.owner.inputs[0].owner.op == op


def test_repr_computes_nothing(monkeypatch):
    solution = solve()
    monkeypatch.setattr(OdeSolution, "perform", lambda *arguments: pytest.fail("solved"))
    assert (
        repr(solution)
        == f"<Solution of 'depot', 'center': {TIMES.size} rows, {N} subjects, solver 'auto'>"
    )
    single = solve_ivp(lambda t, y, p: {"y": -p.k * y.y}, {"y": 1.0}, {"k": 0.5}, [1.0])
    assert repr(single) == "<Solution of 'y': 1 row, 1 subject, solver 'linear'>"


def test_html_computes_nothing(monkeypatch):
    monkeypatch.setattr(OdeSolution, "perform", lambda *arguments: pytest.fail("solved"))
    text = solve_ivp(
        lambda t, y, p: {"a": -p.k * y.a, "b": p.k * y.a},
        {"a": 1.0, "b": 0.0},
        {"k": 0.5},
        [1.0, 2.0],
    )._repr_html_()
    for name, value in (("states", "a, b"), ("rows", 2), ("subjects", 1), ("solver", "linear")):
        assert f"<tr><th>{name}</th><td>{value}</td></tr>" in text


def test_compiled_function_survives_pickle():
    w = pt.matrix("w", shape=(N, 2))
    function = pytensor.function([w], solve(w).center)
    again = pickle.loads(pickle.dumps(function))
    np.testing.assert_array_equal(again(RATES), function(RATES))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_forked_child_solves_after_parallel_work():
    function = pytensor.function([], solve(n_threads=2).center)
    expected = function()
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(function(), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
