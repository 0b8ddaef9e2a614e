"""The descriptors of the solvers: all keep what they promise, and nothing else knows a solver by name."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytensor.tensor as pt
import pytest

import pymc_saem.ode
from pymc_saem.ode import solve_ivp
from pymc_saem.ode.ops.solution_op import OdeDerivatives
from pymc_saem.ode.solvers.registry import SOLVERS, solver_named

ODE = Path(pymc_saem.ode.__file__).parent
DOSE = pd.DataFrame({"time": [0.5], "amt": [1.0]})
ALL = pytest.mark.parametrize("solver", SOLVERS.values(), ids=lambda solver: solver.name)


def build(solver, rhs=lambda t, y, p: {"y": -p.k * y.y}, events=None):
    return solve_ivp(
        rhs, {"y": 1.0}, {"k": pt.scalar("k")}, [1.0, 2.0], solver=solver.name, events=events
    )


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """No solver asks for a package that may be missing."""
    for solver in SOLVERS.values():
        if solver.has_requirements:
            monkeypatch.setattr(solver.load(), "require", lambda: None)


def named_in_choices(source, names=frozenset(SOLVERS)):
    """Lines that choose by the name of a solver: a comparison, a case, or a table written there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        else:
            continue
        texts = {
            c.value
            for part in parts
            for c in ast.walk(part)
            if isinstance(c, ast.Constant) and isinstance(c.value, str)
        }
        if texts & names:
            yield node.lineno if hasattr(node, "lineno") else node.value.lineno


def test_only_the_registry_knows_solvers_by_name():
    for path in ODE.rglob("*.py"):
        if path.name != "registry.py":
            # A covariate may be linear too.
            names = set(SOLVERS) - ({"linear"} if path.name == "covariates.py" else set())
            assert list(named_in_choices(path.read_text(encoding="utf-8"), names)) == [], path


@pytest.mark.parametrize(
    "source",
    [
        "op.solver == 'cvodes'",
        "s in ('auto', 'x')",
        "{'linear': 1}[s]",
        "match s:\n  case 'sunode':\n    pass",
    ],
)
def test_the_check_finds_names(source):
    assert list(named_in_choices(source))


@ALL
def test_the_module_keeps_what_the_descriptor_promises(solver):
    module = solver.load()
    assert list(inspect.signature(module.task).parameters) == ["gradient"]
    for promise, function in (
        (solver.hands_over, "cell"),
        (solver.has_memory, "memory"),
        (solver.has_requirements, "require"),
    ):
        assert hasattr(module, function) == promise, function
    assert SOLVERS[solver.name] is solver is solver_named(solver.name)
    assert solver.of_few_linear is None or SOLVERS[solver.of_few_linear].only_linear


@ALL
def test_the_adjoint_is_for_wide_systems_without_events(solver):
    narrow, wide = (type("System", (), {"vjp_source": text}) for text in ("", "products"))
    assert solver.load_adjoint(narrow, False) is None
    assert solver.load_adjoint(wide, True) is None
    module = solver.load_adjoint(wide, False)
    assert module is None if solver.adjoint is None else callable(module.task)


@ALL
def test_events_are_supported_or_refused(solver):
    if solver.instead_of_events is None:
        assert build(solver, events=DOSE).solver in SOLVERS
        return
    with pytest.raises(NotImplementedError) as error:
        build(solver, events=DOSE)
    assert str(error.value) == (
        f"solver='{solver.name}' does not support events or interpolated covariates; use {solver.instead_of_events}."
    )


@ALL
def test_nonlinear_systems_are_supported_or_refused(solver):
    def rhs(t, y, p):
        return {"y": -p.k * y.y**2}

    if not solver.only_linear:
        assert build(solver, rhs).solver == solver.name
        return
    with pytest.raises(
        ValueError,
        match=f"solver='{solver.name}' needs derivatives that are linear.*Use solver='auto'",
    ):
        build(solver, rhs)


@ALL
def test_linear_systems_with_few_states(solver):
    assert build(solver).solver == (solver.of_few_linear or solver.name)


@ALL
def test_derivatives_in_one_solve(solver):
    assert isinstance(build(solver)._op.with_derivatives(), OdeDerivatives) == solver.one_solve
    if solver.instead_of_events is None:
        assert not isinstance(build(solver, events=DOSE)._op.with_derivatives(), OdeDerivatives)


def test_which_solvers_there_are():
    assert list(SOLVERS) == ["auto", "tsit5", "cvodes", "linear", "sunode"]
    with pytest.raises(ValueError) as error:
        solver_named(np.str_("euler"))
    assert str(error.value) == (
        "Unknown solver 'euler'; choose one of 'auto', 'tsit5', 'cvodes', 'linear', 'sunode'."
    )


def test_a_solver_is_imported_when_it_is_needed():
    modules = sorted(
        {name for s in SOLVERS.values() for name in (s.module, s.adjoint) if name is not None}
    )
    code = (
        "import sys\nfrom pymc_saem.ode import solve_ivp\n"
        "for solver in ('auto', 'tsit5', 'cvodes', 'linear'):\n"
        "    solve_ivp(lambda t, y, p: {'y': -p.k * y.y}, {'y': 1.0}, {'k': 0.5}, [1.0], solver=solver)\n"
        f"found = [m for m in {modules} if 'pymc_saem.ode.solvers.' + m in sys.modules]\n"
        "assert found == [], found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ODE.parents[1])
