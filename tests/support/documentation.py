"""What tests of pages and of docstrings share: programs of docs/, and the names that examples use."""

import ast
import importlib.util
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest

import pymc_saem as ps
from tests.support.made_up_fit import made_up_fit
from tests.support.small import SMALL_FIT, smaller

DOCS = Path(__file__).parents[2] / "docs"


def program(name):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for the names in their annotations
    spec.loader.exec_module(module)
    return module


def first_fit():
    """What `first_fit.md` defines, with all that follows an estimate, after six iterations."""
    run_pages = program("run_pages")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch.setattr(ps, "fit_saem", smaller(ps.fit_saem, **SMALL_FIT))
        return run_pages.run(run_pages.FIRST, {})


def example_names():
    """The names that examples in docstrings use; the front page of the reference says what they are."""
    first = first_fit()
    plt.close("all")
    names = {"np": np, "pd": pd, "pm": pm, "ps": ps} | {
        name: first[name] for name in ("data", "model", "idata")
    }
    network_model, network_fit = _with_a_network()
    return names | {
        "build": _function("howto/predict.md", "build", names),
        "network_model": network_model,
        "network_fit": network_fit,
    }


def _function(page, name, names):
    """A function that a page defines, without what else the page runs."""
    run_pages = program("run_pages")
    trees = [ast.parse(block.source) for block in run_pages.blocks(DOCS / page)]
    (found,) = (
        node
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    known = dict(names)
    exec(compile(ast.Module([found], []), page, "exec"), known)
    return known[name]


def _with_a_network():
    """Inflow by a network of the time, with weights of each subject; and a fit that is made up."""
    net = ps.nn.MLP(in_size=1, out_size=1, width_size=2, depth=1)
    subject, time = np.array([0, 0, 1, 1]), np.array([1.0, 6.0, 2.0, 8.0])
    with pm.Model(coords={"subject": ["u", "v"], "weight": net.weight_names}) as model:
        z_in = ps.nn.weights("z_in", net, input_range=(0, 1))
        w_in = pm.Normal("w_in", z_in, 0.3, dims=("subject", "weight"))
        amount = ps.ode.solve_ivp(
            lambda t, y, p: {"a": ps.nn.softplus(net(p.w_in, t / 24))},
            {"a": 0.0},
            {"w_in": w_in},
            time,
            subject,
        ).a
        pm.Normal("y", amount, 0.1, observed=0.3 * time)
    weights = np.linspace(-1.0, 1.0, net.n_weights)
    return model, made_up_fit(
        model, {"w_in": np.tile(weights, (2, 1))}, {"z_in": weights}, {"y": subject}, draws=5
    )
