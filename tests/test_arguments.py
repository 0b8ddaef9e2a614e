"""Every argument of every public function refuses values of a wrong type, by name, and before anything is compiled."""

import inspect

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytest

import pymc_saem as ps
from pymc_saem.arguments import random_generator

#: One value of each kind. What an argument takes of them, or refuses by its value and not its type,
#: stands in RIGHT.
KINDS = {
    "number": 3.7, "text": "nonsense", "mapping": {"nobody": 1.0}, "sequence": [object()], "thing": object(), "none": None,
    "flag": True, "function": lambda: None, "table": pd.DataFrame({"nobody": [1.0]}),
}  # fmt: skip
COUNTS = "n n_explore n_smooth n_transitions n_replicates n_starts chains cores draws extend n_draws n_grid n_simulations n_points n_jobs"
COUNTS += " per_page max_separate in_size out_size width_size depth max_steps row iterations n_threads ncols bins folds"
NUMBERS = "step_size_exponent annealing minibatch tolerance ci_prob lower_bound rtol atol seconds prior_sd t0 typical_output"
TEXTS = "objective criterion along activation output_activation solver name kind likelihood standard_errors outcome xlabel"
TEXTS += (
    " ylabel by level parameters which criteria var_names effects networks kinds value dims path"
)
OPTIONAL = "likelihood standard_errors outcome xlabel ylabel by ncols iterations n_threads var_names effects networks kinds compile_kwargs"
OPTIONAL += " units ranges labels stratify strata x ax random_seed rng fixed random_effects initvals initial_point figsize"
OPTIONAL += " callback subjects covariates prior_sd value dims resume checkpoint events vars initval subject data"
RIGHT = {name: set() for name in COUNTS.split()}
RIGHT |= {name: {"number"} for name in NUMBERS.split()}
RIGHT |= {name: {"text"} for name in TEXTS.split()}
RIGHT |= {
    name: {"flag"}
    for name in "progressbar raw log smooth sharex sharey standardized blocked prediction_corrected show_data weights".split()
}
RIGHT |= {
    name: {"mapping"}
    for name in "compile_kwargs units ranges labels fixed kernel initvals initial_point fits y0 params".split()
}
RIGHT |= {name: {"function"} for name in ("callback", "rhs")} | {
    "table": {"table"},
    "events": {"table"},
}
RIGHT |= {
    name: set()
    for name in "model idata x ax figsize random_seed rng stratify strata random_effects quantiles net input_range vars".split()
}
RIGHT |= {name: set() for name in ("t", "initval", "resume")}
RIGHT |= {
    "subjects": {"number", "text", "sequence", "flag", "thing", "function"},
    "covariates": {"mapping", "table"},
}
RIGHT |= {
    "idata_or_values": {"mapping"},
    "checkpoint": {"text"},
    "folds": {"text"},
    "bins": {"text"},
    "row": {"text"},
}
RIGHT |= {name: {"text"} for name in ("n_replicates", "n_starts")}
RIGHT |= {name: {"mapping"} for name in ("lag_time", "bioavailability", "rate", "duration")}
RIGHT |= {
    "subject": {"number", "text", "flag", "thing", "function", "none"},
    "folds": {"text", "sequence"},
}
RIGHT |= {name: {"sequence"} for name in ("stratify", "strata")}
for one in OPTIONAL.split():
    RIGHT[one] = RIGHT[one] | {"none"} if one in RIGHT else {"none"}
#: Where a name means something else.
OF_FUNCTION = {
    "fit_saem.model": {"none"}, "summarize.model": {"none"}, "SAEM.model": {"none"}, "SAEM.blocked": {"flag", "none"}, "predict.model": {"function"}, "predict.subjects": {"text"},
    "fit_saem.n_explore": {"text"}, "fit_saem.n_smooth": {"none"}, "fit_saem.draws": {"none"}, "fit_saem.tolerance": {"number", "none"}, "cross_validate.idata": {"none"}, "cross_validate.n_explore": {"none"}, "cross_validate.n_smooth": {"none"},
    "plot_fits.x": {"mapping", "none"}, "plot_random_effects.kind": {"text", "none"}, "plot_data.data": {"table"}, "plot_data.x": {"text"},
    "plot_data.y": {"text"}, "plot_data.subject": {"text"}, "predict.data": set(KINDS), "fit_saem.resume": {"text", "none"},
    "solve_ivp.subject": {"none", "sequence"}, "Doses.lag_time": {"mapping"}, "weights.input_range": set(), "Doses.table": {"table", "none"}, "softplus.x": {"number"}, "kernel": {"mapping"},
}  # fmt: skip


def public_functions():
    for name in ps.__all__:
        one = getattr(ps, name)
        inside = [getattr(one, n) for n in one.__all__] if inspect.ismodule(one) else [one]
        yield from (
            f for f in inside if callable(f) and f.__name__ not in ("Solution", "SolverStatus")
        )


FUNCTIONS = {f.__name__: f for f in public_functions()}
CASES = [
    (name, argument)
    for name, f in FUNCTIONS.items()
    for argument, p in inspect.signature(f).parameters.items()
    if p.kind is not p.VAR_KEYWORD
]


def test_every_argument_has_a_row():
    assert not [a for f, a in CASES if a not in RIGHT and f"{f}.{a}" not in OF_FUNCTION]
    assert len(CASES) > 200


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Arguments that are right, by name."""
    subject = np.repeat(np.arange(3), 2)
    with pm.Model(coords={"subject": np.arange(3)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        pm.Normal("y", b[subject], pm.HalfFlat("sigma", initval=1.0), observed=np.arange(6.0))
    idata = ps.fit_saem(
        model, n_explore=2, n_smooth=2, n_transitions=10, n_starts=0, draws=4, progressbar=False, likelihood=None,
        standard_errors=None, compile_kwargs={"mode": "FAST_COMPILE"}, random_seed=1,
    )  # fmt: skip
    table = pd.DataFrame({"subject": subject, "time": np.arange(6.0), "amt": 1.0})
    net = ps.nn.MLP(1, 1, 2, 1)
    return {
        "model": model, "idata": idata, "fits": {"one": idata, "two": idata}, "idata_or_values": idata, "parameters": "a", "subject": 0,
        "path": str(tmp_path_factory.mktemp("fit") / "fit.nc"), "data": table, "x": "time", "y": "amt", "in_size": 1, "out_size": 1,
        "width_size": 2, "depth": 1, "net": net, "rng": np.random.default_rng(1), "name": "z", "table": table, "t": [1.0],
        "rhs": lambda t, y, p: {"y": -p.k * y.y}, "y0": {"y": 1.0}, "params": {"k": 1.0},
    }  # fmt: skip


@pytest.mark.parametrize(("name", "argument"), CASES, ids=[f"{f}-{a}" for f, a in CASES])
def test_wrong_types_are_refused_by_name(name, argument, given, monkeypatch):
    function, right = FUNCTIONS[name], OF_FUNCTION.get(f"{name}.{argument}", RIGHT.get(argument))
    needed = [
        n
        for n, p in inspect.signature(function).parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    others = {n: given[n] for n in needed if n != argument}
    if name == "predict":
        others["parameters"] = "estimate"

    def compiled(*args, **kwargs):
        raise AssertionError(f"{argument} was not looked at before something was compiled")

    monkeypatch.setattr(pytensor, "function", compiled)
    wrong = {"fit": given["idata"]} | {
        kind: value for kind, value in KINDS.items() if kind not in right
    }
    if argument in ("idata", "idata_or_values", "resume"):
        del wrong["fit"]
    for kind, value in wrong.items():
        if f"{name}.{argument}" == "predict.data":
            continue
        with given["model"], pytest.raises((TypeError, ValueError)) as caught:
            function(**others, **{argument: value})
        assert argument in str(caught.value), f"{kind}: {caught.value}"


@pytest.mark.parametrize(
    "seed", [np.int32(5), np.uint64(5), 5, [5], pd.Series([5]), np.random.SeedSequence(5)], ids=repr
)
def test_a_seed_is_a_seed_of_any_kind(seed):
    drawn = [random_generator(s).normal() for s in (seed, 5 if np.ndim(seed) == 0 else [5])]
    assert drawn[0] == drawn[1]
