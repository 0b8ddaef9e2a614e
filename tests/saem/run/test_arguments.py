"""Every argument of fit_saem has an effect or is refused: nothing is ignored silently."""

import inspect
import re

import numpy as np
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group
from pymc_saem.saem.run.progress import Progress
from tests.support.models import random_intercept

BASE = {
    "n_explore": 4, "n_smooth": 4, "n_transitions": 6, "n_replicates": 2, "draws": 6, "n_starts": 0, "random_seed": 1,
    "tolerance": 0.0, "progressbar": False, "compile_kwargs": {"mode": "FAST_COMPILE"},
}  # fmt: skip


def fitted(**changes):
    return ps.fit_saem(random_intercept(), **(BASE | changes))


@pytest.fixture(scope="module")
def reference():
    return fitted()


def trace(idata, name="sigma"):
    return get_group(idata, "saem_trace")[name].values


def differs(idata, reference):
    a, b = trace(idata), trace(reference)
    return a.shape != b.shape or not np.array_equal(a, b)


#: Values that must change the iterates.
CHANGES = {
    "objective": None,  # its own test: priors of this model are flat
    "n_explore": 5,
    "n_smooth": 5,
    "n_transitions": 7,
    "n_replicates": 3,
    "kernel": {"block": 1.0},
    "chains": 2,
    "fixed": {"sigma": 0.5},
    "initvals": {"sigma": 2.0},
    "n_starts": 2,
    "step_size_exponent": 1.0,
    "annealing": 0.999,
    "minibatch": 0.5,
    "random_seed": 2,
}
#: Values that must be refused, with words of the error.
REFUSALS = {
    "random_effects": (["nobody"], "random_effects names .'nobody'."),
    "objective": ("reml", "objective is 'reml'"),
    "n_explore": (-1, "n_explore is -1"),
    "n_smooth": (1.5, "n_smooth is 1.5"),
    "n_transitions": (0, "n_transitions is 0"),
    "n_replicates": ("many", "n_replicates is 'many'"),
    "kernel": ({"gibbs": 1.0}, "kernel shares name .'gibbs'."),
    "chains": (0, "chains is 0"),
    "cores": (0, "cores is 0"),
    "draws": (1, "draws is 1"),
    "fixed": ({"tau": 1.0}, "fixed names 'tau'"),
    "initvals": ({"tau": 1.0}, "initvals names .'tau'."),
    "n_starts": (-2, "n_starts is -2"),
    "step_size_exponent": (0.3, "step_size_exponent is 0.3"),
    "annealing": (1.5, "annealing is 1.5"),
    "minibatch": (0.0, "minibatch is 0.0"),
    "tolerance": (-1.0, "tolerance is -1.0"),
    "likelihood": ("guess", "likelihood is 'guess'"),
    "standard_errors": ("guess", "standard_errors is 'guess'"),
    "resume": (3, "resume is 3; it must be what fit_saem returned"),
    "extend": (5, "extend is 5, but there is no run to extend"),
    "checkpoint": (3, "checkpoint is 3; it must be the path"),
    "compile_kwargs": ({"profile": True}, "compile_kwargs has .'profile'."),
}
#: Arguments whose effect has a test of its own, here or in the file named.
ELSEWHERE = {
    "model": "test_fit",
    "random_effects": "test_read",
    "objective": "below",
    "cores": "test_fit: same result",
    "draws": "below",
    "likelihood": "test_likelihood",
    "standard_errors": "test_standard_errors",
    "tolerance": "test_stopping",
    "progressbar": "below",
    "callback": "below",
    "resume": "test_resume",
    "extend": "test_resume",
    "checkpoint": "test_resume",
    "compile_kwargs": "below",
}


def test_every_argument_is_in_a_table():
    arguments = set(inspect.signature(ps.fit_saem).parameters)
    assert arguments == set(CHANGES) | set(ELSEWHERE)
    assert set(REFUSALS) >= arguments - {"model", "random_seed", "progressbar", "callback"}


@pytest.mark.parametrize("name", [name for name, value in CHANGES.items() if value is not None])
def test_an_effect_on_the_iterates(name, reference):
    assert differs(fitted(**{name: CHANGES[name]}), reference)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal(name):
    value, words = REFUSALS[name]
    with pytest.raises(ValueError, match=words):
        fitted(**{name: value})


def test_the_same_arguments_give_the_same_iterates(reference):
    assert not differs(fitted(), reference)


def test_objective_ml_leaves_priors_out():
    import pymc as pm

    def build():
        from tests.support.models import random_intercept_data

        y, subject = random_intercept_data()
        with pm.Model(coords={"subject": range(12)}) as model:
            b = pm.Normal("b", pm.Normal("a", 5.0, 0.1), 1.0, dims="subject")
            pm.Normal("y", b[subject], pm.HalfFlat("sigma", initval=1.0), observed=y)
        return model

    longer = BASE | {"n_explore": 40, "n_smooth": 20}
    ends = {
        o: trace(ps.fit_saem(build(), **longer, objective=o), "a")[0, -1] for o in ("map", "ml")
    }
    assert ends["map"] > 3.0 and abs(ends["ml"]) < 1.0


@pytest.mark.slow
def test_draws_and_callback_and_mode_and_bar(reference, monkeypatch):
    assert get_group(fitted(draws=9), "posterior").sizes["draw"] == 9
    seen = []
    fitted(
        callback=lambda chain, iteration, estimates, stats: seen.append(
            (chain, iteration, *sorted(estimates))
        )
    )
    assert seen == [(0, k, "a", "omega", "sigma") for k in range(8)]
    compiled = fitted(compile_kwargs={"mode": "NUMBA"})
    assert np.allclose(trace(compiled), trace(reference), rtol=1e-9)
    shown = []
    made = Progress.__init__
    monkeypatch.setattr(
        Progress, "__init__", lambda self, *given: shown.append(given[-1]) or made(self, *given)
    )
    for show in (True, False):
        fitted(progressbar=show)
    assert shown == [True, False]


def test_a_log_tells_the_progress_where_it_is_asked_for(caplog):
    fitted()
    assert not caplog.records
    with caplog.at_level("INFO", logger="pymc_saem"):
        fitted(chains=2)
    pattern = r"chain (\d) (explore|smooth) (\d+)/8  sigma \d\S*  accept 0\.\d\d  \d+ s left"
    lines = [record.getMessage() for record in caplog.records]
    found = [match.groups() for line in lines if (match := re.fullmatch(pattern, line))]
    n_explore = str(BASE["n_explore"])
    assert found == [
        (chain, *line) for chain in "01" for line in (("explore", n_explore), ("smooth", "8"))
    ]
    assert lines.count("conditional distributions") == 2 and "standard errors" in lines
