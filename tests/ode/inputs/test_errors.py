"""Bad input: each error names the value, what is expected and what to do."""

import sys

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest

from pymc_saem.ode import solve_ivp

N = 3


def rhs(t, y, p):
    return {"y": -p.k * y.y}


def call(**changed):
    settings = {
        "rhs": rhs,
        "y0": {"y": 1.0},
        "params": {"k": np.ones(N)},
        "t": [1.0, 2.0, 3.0, 4.0],
        "subject": [0, 1, 2, 2],
    }
    return solve_ivp(**(settings | changed))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"solver": "rk45"}, ValueError, "Unknown solver 'rk45'; choose one of 'auto', 'tsit5', 'cvodes', 'linear', 'sunode'"),
        ({"t": [1.0, np.nan, 3.0, 4.0]}, ValueError, "t must be finite; row 1 is nan"),
        ({"t": ["1", "2", "noon", "4"]}, TypeError, "t must hold numbers; row 2 is 'noon'"),
        ({"t": np.array(["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"], "M8[ns]")}, TypeError, r"got datetime64\[ns\]; use the time since"),
        ({"t": np.arange(4) + 1j}, TypeError, "t must hold real numbers, got complex128"),
        ({"t": np.ma.masked_array(np.arange(1.0, 5.0), [0, 0, 1, 0])}, ValueError, r"t is masked at \[2\]"),
        ({"params": {"k": np.ones(N) * 1j}}, TypeError, r"params\['k'\] must hold real numbers"),
        ({"y0": {"y": np.ma.masked_array(np.ones(N), [1, 0, 0])}}, ValueError, r"y0\['y'\] is masked at \[0\]"),
        ({"t": np.ones((2, 2))}, ValueError, "one time per row"),
        ({"t": pt.matrix()}, ValueError, "one time per row"),
        ({"t": [1.0, -2.0, 3.0, 4.0]}, ValueError, "t is -2.0 in row 1, before t0 = 0.0 of subject 1"),
        ({"t0": [0.0, 0.0, 3.5]}, ValueError, "t is 3.0 in row 2, before t0 = 3.5 of subject 2"),
        ({"t0": [0.0, 0.0]}, ValueError, r"t0 must be a number or have shape \(3,\)"),
        ({"subject": [0, 1, 2]}, ValueError, r"one code per row of t: expected shape \(4,\), got \(3,\)"),
        ({"subject": ["a", "b", "b", "b"]}, ValueError, "2 labels, 'a', 'b', but y0 and params have 3 subjects.*pd.Categorical"),
        ({"subject": ["a", "b", None, "c"]}, ValueError, "subject of row 2 is missing"),
        ({"subject": [True, False, True, True]}, TypeError, "must name subjects by labels or codes, got bool"),
        ({"subject": pt.lvector()}, TypeError, "must be known when solve_ivp is called"),
        ({"subject": [1, 2, 2, 2]}, ValueError, r"subject is 1, 2 for 3 subjects, which may be codes.*pd.Categorical\(labels"),
        ({"subject": [0, -1, 2, 2]}, ValueError, "row 1 is -1"),
        ({"subject": [0, 1, 2, 3]}, ValueError, r"subject code 3 in row 3 is outside 0..2"),
        ({"params": {"k": np.ones(N), "m": np.ones(7)}}, ValueError, r"params\['m'\] has shape \(7,\).*broadcast_to\(m, \(3, 7\)\)"),
        ({"params": {"k": "fast"}}, TypeError, r"params\['k'\] must be numeric, got 'fast'"),
        ({"params": [1.0]}, TypeError, "params must be a dict"),
        ({"params": {"k k": 1.0}}, ValueError, "identifiers"),
        ({"y0": {"y": np.ones((N, 2))}}, ValueError, r"y0\['y'\] must be a number or shape \(3,\)"),
        ({"y0": {"y": np.ones(2)}}, ValueError, r"y0\['y'\] has shape \(2,\).*3 subjects"),
        ({"y0": {}}, ValueError, "at least one state"),
        ({"y0": {"status": 1.0}}, ValueError, "taken"),
        ({"rtol": 0.0}, ValueError, "rtol must be a positive number, got 0.0"),
        ({"atol": -1e-3}, ValueError, "atol must be a positive number"),
        ({"max_steps": 0}, ValueError, "max_steps must be a positive integer"),
        ({"n_threads": 1.5}, ValueError, "n_threads is 1.5; it must be an integer or None"),
        ({"rhs": lambda t, y, p: -y.y}, TypeError, r"dict with one expression per state \(y\)"),
        ({"rhs": lambda t, y, p: {"x": y.y}}, ValueError, r"misses y and has unknown x"),
        ({"rhs": lambda t, y, p: {"y": "fast"}}, TypeError, "the derivative of 'y' is 'fast'"),
        ({"rhs": lambda t, y, p: {"y": None}}, TypeError, "the derivative of 'y' is None"),
        ({"rhs": lambda t, y, p: {"y": y.y * 1j}}, TypeError, "real numbers; the derivative of 'y' is complex128"),
        ({"rhs": lambda t, y, p: {"y": pt.stack([y.y, y.y])}}, ValueError, "scalar for each state; the derivative of 'y' has 1"),
    ],
)  # fmt: skip
def test_message(changed, error, message):
    with pytest.raises(error, match=message):
        call(**changed)


def test_missing_sunode_names_the_cure(monkeypatch):
    from pymc_saem.ode.solvers import sunode

    monkeypatch.setitem(sys.modules, "sunode", None)  # as if it were not installed
    sunode.require.cache_clear()
    with pytest.raises(ImportError, match="conda install -c conda-forge sunode"):
        call(solver="sunode")


def test_random_variable_outside_params():
    with pm.Model():
        k = pm.LogNormal("k")
        with pytest.raises(ValueError, match="not t, y or p.*through params"):
            call(rhs=lambda t, y, p: {"y": -k * y.y})


def test_at_checks_its_rows():
    solution = call()
    with pytest.raises(ValueError, match="which of the 3 subjects"):
        solution.at([1.0])
    with pytest.raises(ValueError, match=r"subject code 3 in row 0 is outside 0..2"):
        solution.at([1.0], [3])
    with pytest.raises(AttributeError, match="no state 'centre'; its states are y"):
        _ = solution.centre


def test_names_in_the_right_hand_side():
    with pytest.raises(
        AttributeError, match=r"the right-hand side uses y\.centre, but the states are y\."
    ):
        call(rhs=lambda t, y, p: {"y": -p.k * y.centre})
    with pytest.raises(AttributeError, match=r"uses p\.kel, but the params are k\."):
        call(rhs=lambda t, y, p: {"y": -p.kel * y.y})
    call(rhs=lambda t, y, p: {"y": -sum(vars(p).values()) * y.y})


def test_unknown_shape():
    with pytest.raises(ValueError, match="specify_shape"):
        call(params={"k": pt.vector("k")})


def test_sunode_has_no_events(monkeypatch):
    monkeypatch.setattr("pymc_saem.ode.solvers.sunode.require", lambda: None)
    with pytest.raises(NotImplementedError, match="solver='sunode' does not support events"):
        call(solver="sunode", events=pd.DataFrame({"subject": [0], "time": [0.0], "amt": [1.0]}))
