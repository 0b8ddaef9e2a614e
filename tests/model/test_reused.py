"""Compiled densities go from one fit of a model to the next, and to nobody else."""

import gc
import warnings

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from numba.core import event

import pymc_saem as ps
from pymc_saem.compat import get_group
from pymc_saem.model.density import reused
from pymc_saem.model.density.reused import compiled_for
from tests.support.models import random_intercept


class Owner:
    """Somebody who can be referred to weakly."""


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(reused, "_kept", [])


def compile_it(inputs, outputs):
    return pytensor.function(inputs, outputs, mode="FAST_COMPILE")


def graphs(data, shared=None):
    x = pt.dvector("x")
    return [x], [x * data + (0.0 if shared is None else shared)]


ORIGIN = Owner()


def function_of(owner, data, shared=None, origin=ORIGIN, mode="FAST_COMPILE"):
    return compiled_for(owner, origin, compile_it, *graphs(data, shared), mode)


def test_the_next_owner_takes_it_over():
    data, owner = np.array([1.0, 2.0]), Owner()
    first = function_of(owner, data)
    assert function_of(Owner(), data) is not first  # it is in use
    del owner
    owner = Owner()
    assert function_of(owner, data.copy()) is first
    assert first(np.ones(2))[0].tolist() == [1.0, 2.0]


def test_an_owner_in_a_circle_is_found_dead():
    owner = Owner()
    owner.self, first = owner, function_of(owner, np.ones(2))
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        del owner
        assert function_of(Owner(), np.ones(2)) is first
    finally:
        if was_enabled:
            gc.enable()


def test_other_computations_are_compiled():
    shared, first = pytensor.shared(0.0), function_of(Owner(), np.ones(2))
    assert function_of(Owner(), np.array([1.0, 3.0])) is not first
    assert function_of(Owner(), np.ones(2), shared) is not first
    assert function_of(Owner(), np.ones(2), origin=Owner()) is not first
    assert function_of(Owner(), np.ones(2), mode="FAST_RUN") is not first
    assert function_of(Owner(), np.ones(2), shared) is not function_of(
        Owner(), np.ones(2), pytensor.shared(0.0)
    )


def test_data_that_have_changed_in_place_are_seen():
    x, values = pt.dvector("x"), np.ones(2)
    data = pt.constant(values)
    first = compiled_for(Owner(), ORIGIN, compile_it, [x], [x * data], "FAST_COMPILE")
    assert compiled_for(Owner(), ORIGIN, compile_it, [x], [x * data], "FAST_COMPILE") is first
    data.data[0] = 5.0
    assert compiled_for(Owner(), ORIGIN, compile_it, [x], [x * data], "FAST_COMPILE") is not first


def test_few_are_kept(monkeypatch):
    monkeypatch.setattr(reused, "_MOST", 3)
    for k in range(6):
        function_of(Owner(), np.full(2, float(k)))
    assert len(reused._kept) <= 4
    function_of(Owner(), np.full(2, 9.0), origin=Owner())  # nobody comes from there again
    function_of(Owner(), np.full(2, 8.0))
    assert all(kept.is_useful for kept in reused._kept)


@pytest.mark.slow
def test_a_refit_compiles_nothing():
    """Numba never frees machine code: each fit of a model kept 10 MB more."""
    compiled = []

    class Listener(event.Listener):
        def on_start(self, e):
            pass

        def on_end(self, e):
            compiled.append(str(e.data["dispatcher"]))

    def fit():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ps.fit_saem(
                model, n_explore=4, n_smooth=4, n_starts=0, n_transitions=8, draws=2, likelihood=None, standard_errors=None,
                random_seed=1, progressbar=False,
            )  # fmt: skip

    model, listener = random_intercept(), Listener()
    first = fit()
    event.register("numba:compile", listener)
    try:
        second = fit()
    finally:
        event.unregister("numba:compile", listener)
    assert compiled == []
    for name, values in get_group(first, "saem_trace").data_vars.items():
        assert np.array_equal(values, get_group(second, "saem_trace")[name], equal_nan=True), name
