"""The benchmark of the solvers runs, at a size of nothing: a rename in the package shall not break it unseen."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "ode"


@pytest.fixture(scope="module")
def modules():
    """The modules of the benchmark that change nothing when they are imported."""
    before, mine = sys.path.copy(), ("bare", "own", "peers", "problems", "report", "scaling")
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: __import__(name) for name in mine}
    finally:
        sys.path[:] = before
        for name in mine:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def overhead(modules):
    """Costs of each way to a solver, in seconds that a clock without hands tells: only that they run counts."""

    def timed(call):
        call()
        return 1e-6

    return modules["scaling"].overhead(modules["problems"].PROBLEMS[1], timed, 1)


@pytest.mark.slow
def test_engines_agree(modules):
    problem = modules["problems"].PROBLEMS[1]
    inputs = problem.inputs(2)
    hand = modules["bare"].Bare(problem, inputs)
    own = modules["own"].Own("tsit5", problem, inputs)
    np.testing.assert_allclose(own.solve(1e-8), hand.solve(1e-8), rtol=1e-4)
    assert np.isfinite(own.gradient(1e-8)).all()
    assert own.steps(1e-6) == pytest.approx(hand.steps(1e-6))


def test_every_way_to_a_solver_runs(overhead):
    assert all(math.isfinite(us) for costs in overhead.values() for us in costs.values())


def test_aims_are_reported(modules, overhead):
    costs = {engine: {"solve": 1.0} for engine in ("tsit5", "tsit5, 1 thread")}
    scaled = {"costs": {threads: {"1000": costs} for threads in "12"}, "ceiling": 2.0}
    point = {
        "problem": modules["problems"].PROBLEMS[1],
        "engine": "tsit5",
        "rtol": 1e-6,
        "error": 1e-6,
        "solve": 1.0,
    }
    text = modules["report"].aims([point], overhead, scaled)
    assert "gradient at most 3 solves, rtol 1e-06" in text and "1,000 subjects" in text


@pytest.mark.slow
def test_program_starts():
    """In a process of its own, because it takes a core for itself."""
    run = subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), "--help"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "--quick" in run.stdout


@pytest.mark.slow
def test_forms_of_right_hand_sides_are_called_as_they_are():
    """``wide.py`` calls them by address, so it must know their arguments."""
    code = "import wide; print(min(v for k, v in wide.forms(2, 1).items() if k.endswith(('loops', 'numbers'))) > 0)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, timeout=300
    )
    assert run.stdout.strip() == "True", run.stderr


def _accuracy(code: str) -> str:
    """What a program prints beside the scripts of benchmarks/accuracy; alone, because they change the path of modules."""
    folder = FOLDER.parent / "accuracy"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.slow
def test_simulation_study_fits_as_fit_saem_does():
    """A model compiled once reads new data, in the solves, in the residuals and in the score of the Hill exponent."""
    code = (
        "import simulation, simulated\n"
        "options = dict(n_explore=6, n_smooth=4, n_starts=1, n_transitions=10)\n"
        "print(max(simulation.differences(simulated.MODELS['emax'], 4, 3, **options).values()))"
    )
    assert float(_accuracy(code)) == 0.0


@pytest.mark.parametrize("name", ["pk", "pk_proportional", "emax"])
@pytest.mark.slow
def test_exact_maximum_of_the_simulation_study(name):
    """Its gradient is that of a quadrature placed anew at each value, and it vanishes at what is called the maximum."""
    code = f"""
import numpy as np
from maximum import Marginal
from simulated import MODELS
study = MODELS["{name}"]
marginal = Marginal(study, study.draw(8, 1, 1))
free = marginal.to_free(study.truth)
numeric = lambda x: [
    (marginal.loglik(marginal.from_free(x - h)) - marginal.loglik(marginal.from_free(x + h))) / 2e-3
    for h in 1e-3 * np.eye(x.size)
]
marginal.place(study.truth)
print(*np.abs(marginal(free)[1] - numeric(free)))
found = marginal.maximize()
print(*np.abs(numeric(marginal.to_free(found.estimate))))
print(found.loglik - marginal.loglik(study.truth))
"""
    at_truth, at_maximum, gain = (
        np.array(line.split(), float) for line in _accuracy(code).splitlines()
    )
    assert at_truth.max() < 0.05
    assert at_maximum.max() < 0.05
    assert gain > 0


@pytest.mark.slow
def test_results_of_the_simulation_study_are_kept_and_counted(tmp_path):
    code = f"""
from pathlib import Path
import simulation
from bias import Fitted, rows_of, summarize
from simulated import MODELS
study, path = MODELS["pk"], Path(r"{tmp_path / "results.jsonl"}")
for number, shift in enumerate((0.1, 0.3)):
    estimate = {{name: study.truth[name] + shift for name in study.judged}}
    exact = {{name: study.truth[name] + 0.1 for name in study.judged}}
    error = dict.fromkeys(study.judged, 0.5)
    simulation.write(path, ("pk", 12, 1, number), Fitted(estimate, exact, error, gap=0.0))
simulation.write(path, ("pk", 12, 1, 2), Fitted(lost="ValueError: no"))
outcomes = list(simulation.read(path).values())
print("1 lost" in summarize(study, 12, outcomes))
row = rows_of(study, outcomes[:2])[0]
print(*row.bias, *row.rmse, *row.exact_bias, *row.difference, row.largest)
"""
    counted, numbers = _accuracy(code).splitlines()
    assert counted == "True"
    # 0.1 and 0.3: mean 0.2, standard error of it 0.1; root of the mean square 0.2236, whose squares
    # have a standard error of 0.04
    expected = [0.2, 0.1, 0.05**0.5, 0.04 / (2 * 0.05**0.5), 0.1, 0.0, 0.2, 0.2, 0.4]
    np.testing.assert_allclose(np.array(numbers.split(), float), expected, atol=1e-12)


@pytest.mark.slow
def test_hostile_inputs_run_and_are_judged(tmp_path):
    """Two inputs in a process of their own: one with an answer, one that is refused by name."""
    path = tmp_path / "table.md"
    command = [sys.executable, "robustness.py", "--only", "rows:0", "rows:84", "--write", str(path)]
    run = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| rows | 2 | 1 | 1 | 0 | 0 | 0 | 0 | 0 |" in path.read_text()


def test_verdicts_of_hostile_inputs():
    """Nothing but the right answer, a clear refusal or a warning that names the culprit is fine."""
    code = """
import warnings
import numpy as np
from pymc_saem.ode import solve_ivp
from robustness.judge import Input, Lost, judge
def lost():
    raise Lost("gone")
solve = lambda rtol: solve_ivp(lambda t, y, p: {"c": -y.c}, {"c": 1.0}, {}, [1.0], rtol=rtol)
wrong = lambda found: "wrong"
print(judge(Input("", lambda: 1, lambda found: None))[0])
print(judge(Input("", lambda: solve(-1), None, ("rtol",)))[0])
print(judge(Input("", lambda: solve(-1), None, ("atol",)))[0])
print(judge(Input("", lambda: solve(-1), wrong, ("rtol",), valid=True))[0])
print(judge(Input("", lambda: warnings.warn("of rtol"), wrong, ("rtol",)))[0])
print(judge(Input("", lambda: 1, wrong))[0], judge(Input("", lambda: 1))[0], judge(Input("", lost))[0])
print(judge(Input("", lambda: np.log(np.zeros(1)), lambda found: None))[0])
print(judge(Input("", lambda: [][0], wrong, foreign=True))[0])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, timeout=300
    )
    assert run.stdout.splitlines() == [
        "right", "refused", "crash", "refused though valid", "warned", "silent wrong silent wrong lost", "crash", "crash",
    ], run.stderr  # fmt: skip
