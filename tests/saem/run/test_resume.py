"""A run that was stopped goes on as if it had not been: in this process, from a file, after Ctrl-C, after kill -9."""

import json
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group, group_names
from pymc_saem.saem.run.snapshot import pack, unpack
from tests.support.cases import CASES
from tests.support.models import random_intercept

QUIET = {"progressbar": False, "likelihood": None, "standard_errors": None, "draws": 5}
QUICK = QUIET | {
    "n_transitions": 10, "n_replicates": 2, "n_starts": 0, "tolerance": 0.0, "compile_kwargs": {"mode": "FAST_COMPILE"},
}  # fmt: skip
STOPPED = {"progressbar": False, "compile_kwargs": {"mode": "FAST_COMPILE"}}


def same(a, b, groups=("saem_trace", "posterior", "individual")):
    """Whether all numbers of two fits are equal, bit by bit."""
    for name in groups:
        x, y = get_group(a, name), get_group(b, name)
        assert list(x.data_vars) == list(y.data_vars)
        for v in x.data_vars:
            assert np.array_equal(x[v].values, y[v].values, equal_nan=x[v].dtype.kind == "f"), (
                f"{name}: {v}"
            )
    return True


class Stop:
    """A callback that is Ctrl-C after so many iterations."""

    def __init__(self, after):
        self.left = after

    def __call__(self, *seen):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def interrupted(model, after, **options):
    with pytest.warns(UserWarning, match="SAEM was interrupted after"):
        return ps.fit_saem(model, callback=Stop(after), **options)


CONFIGURATIONS = {
    "closed form": (random_intercept, {}),
    "score steps, minibatch": (lambda: CASES["orange"].build(), {"minibatch": 0.6}),
    "all kernels": (
        random_intercept,
        {
            "kernel": {
                "prior": 0.2,
                "coordinate": 0.2,
                "block": 0.2,
                "mala": 0.2,
                "independence": 0.2,
            }
        },
    ),
    "random effect in the likelihood": (lambda: CASES["student_effect"].build(), {}),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # about runs that are too short to settle
@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("after", [3, 14])
@pytest.mark.slow
def test_after_an_interruption_every_iteration_is_the_same(name, after):
    build, more = CONFIGURATIONS[name]
    options = QUICK | more | {"n_explore": 10, "n_smooth": 10, "random_seed": 4}
    whole = ps.fit_saem(build(), **options)
    part = interrupted(build(), after, **options)
    assert get_group(part, "saem_trace").sizes["iteration"] == after
    assert same(whole, ps.fit_saem(build(), resume=part, **STOPPED))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_an_interruption_within_an_iteration(monkeypatch):
    """Ctrl-C while the M-step computes: the random numbers of that iteration are drawn again."""
    from pymc_saem.saem.mstep.maximizer import Maximizer

    options = QUICK | {"n_explore": 10, "n_smooth": 10, "random_seed": 4}
    whole, original, calls = ps.fit_saem(random_intercept(), **options), Maximizer.__call__, []

    def stopping(self, *arguments):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Maximizer, "__call__", stopping)
    with pytest.warns(UserWarning, match="interrupted after 7 of 20 iterations"):
        part = ps.fit_saem(random_intercept(), **options)
    assert same(whole, ps.fit_saem(random_intercept(), resume=part, **STOPPED))


@pytest.mark.slow
def test_more_iterations_through_a_file(tmp_path):
    """From 8 to 20 smoothing iterations, to a third process's eyes; and with the default compilation."""
    options = QUIET | {"n_explore": 8, "tolerance": 0.0, "random_seed": 2}
    whole = ps.fit_saem(random_intercept(), n_smooth=20, **options)
    path = ps.save(ps.fit_saem(random_intercept(), n_smooth=8, **options), tmp_path / "short.nc")
    assert same(whole, ps.fit_saem(random_intercept(), resume=path, n_smooth=20, progressbar=False))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_extend_goes_on_beyond_the_stopping_rule():
    # a tolerance that is met at the first looks, after 140 smoothing iterations
    options = QUICK | {"n_explore": 5, "n_smooth": 300, "tolerance": 1e9, "random_seed": 2}
    short = ps.fit_saem(random_intercept(), **options)
    assert get_group(short, "saem_trace").sizes["iteration"] == 145
    again = ps.fit_saem(random_intercept(), resume=short, **STOPPED)
    assert same(short, again)
    longer = ps.fit_saem(random_intercept(), resume=short, extend=7, **STOPPED)
    whole = ps.fit_saem(random_intercept(), **options | {"n_smooth": 147, "tolerance": 0.0})
    assert same(longer, whole)
    attrs = get_group(longer, "saem_trace").attrs
    assert attrs["n_smooth"] == 147 and json.loads(attrs["converged"])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.slow
def test_several_chains(tmp_path, cores):
    options = QUICK | {"n_explore": 4, "n_smooth": 4, "chains": 2, "random_seed": 5}
    whole = ps.fit_saem(random_intercept(), **options | {"n_smooth": 8})
    schedule = ps.Checkpoint(tmp_path / "fit.nc", iterations=3)
    part = ps.fit_saem(random_intercept(), cores=cores, checkpoint=schedule, **options)
    assert same(part, ps.load(tmp_path / "fit.nc"))
    assert same(
        whole,
        ps.fit_saem(
            random_intercept(), resume=tmp_path / "fit.nc", n_smooth=8, cores=cores, **STOPPED
        ),
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_chains_that_had_not_begun():
    options = QUICK | {"n_explore": 4, "n_smooth": 4, "chains": 3, "random_seed": 5}
    whole = ps.fit_saem(random_intercept(), **options)
    part = interrupted(random_intercept(), 10, **options)
    assert get_group(part, "saem_trace").sizes["chain"] == 2
    assert same(whole, ps.fit_saem(random_intercept(), resume=part, **STOPPED))


KILLED = """
    import os, signal
    import pymc_saem as ps
    from tests.support.models import random_intercept

    def kill(chain, iteration, estimates, stats):
        if iteration == 17:
            os.kill(os.getpid(), signal.SIGKILL)

    ps.fit_saem(random_intercept(), checkpoint=ps.Checkpoint({path!r}, iterations=5), callback=kill, **{options!r})
"""


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_after_kill_9_the_trace_is_the_same(tmp_path):
    options = QUIET | {"n_explore": 10, "n_smooth": 15, "tolerance": 0.0, "random_seed": 6}
    path = str(tmp_path / "fit.nc")
    code = textwrap.dedent(KILLED.format(path=path, options=options))
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parents[3]
        ).returncode
        == -9
    )
    left = ps.load(path)
    assert get_group(left, "saem_trace").sizes["iteration"] == 15
    assert np.all(np.isfinite(ps.summary(left)["estimate"]))  # usable as it is
    assert [p.name for p in tmp_path.iterdir()] == ["fit.nc"]
    whole = ps.fit_saem(random_intercept(), **options)
    assert same(whole, ps.fit_saem(random_intercept(), resume=path, progressbar=False))


def test_a_failure_after_the_estimate_finds_it_on_disk(tmp_path, monkeypatch):
    """Whatever takes the process then: the iterations have been written."""
    monkeypatch.setattr(
        "pymc_saem.saem.fit.Finisher.finish",
        lambda *a: (_ for _ in ()).throw(MemoryError("no memory")),
    )
    options = QUICK | {"n_explore": 3, "n_smooth": 3, "random_seed": 1}
    with pytest.raises(MemoryError):
        ps.fit_saem(random_intercept(), checkpoint=tmp_path / "fit.nc", **options)
    assert get_group(ps.load(tmp_path / "fit.nc"), "saem_trace").sizes["iteration"] == 6


@pytest.fixture(scope="module")
def finished():
    with warnings.catch_warnings(action="ignore"):  # about a run that is too short to settle
        return ps.fit_saem(random_intercept(), n_explore=4, n_smooth=4, random_seed=1, **QUICK)


REFUSALS = {
    "another model": (
        lambda: CASES["orange"].build(),
        {},
        "resume belongs to a different model: it has 3 entries of parameters, this",
    ),
    "other data": (
        lambda: random_intercept(shift=0.01),
        {},
        "resume belongs to a different model or different data: at the state of chain 0 the log density was",
    ),
    "another option": (
        random_intercept,
        {"annealing": 0.5},
        "annealing is 0.5, but the resumed run has 0.95",
    ),
    "another kernel": (
        random_intercept,
        {"kernel": {"block": 1.0}},
        "kernel is .* but the resumed run has 'auto'",
    ),
    "a seed": (random_intercept, {"random_seed": 1}, "do not give initvals or random_seed"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(finished, name):
    build, options, words = REFUSALS[name]
    with pytest.raises(ValueError, match=words):
        ps.fit_saem(build(), resume=finished, **STOPPED | options)


def test_what_is_no_fit_of_this_package(finished):
    without = finished.copy()
    del without["saem_state"]
    assert "saem_state" not in group_names(without)
    with pytest.raises(
        ValueError, match="resume has no group 'saem_state', so it was not produced by fit_saem"
    ):
        ps.fit_saem(random_intercept(), resume=without)
    with pytest.raises(FileNotFoundError, match="There is no file 'nowhere.nc'"):
        ps.fit_saem(random_intercept(), resume="nowhere.nc")


def test_a_process_that_changes_its_folder_writes_where_it_was_told(tmp_path, monkeypatch):
    begun, other = tmp_path / "begun", tmp_path / "other"
    begun.mkdir(), other.mkdir()
    monkeypatch.chdir(begun)
    schedule = ps.Checkpoint("fit.nc")
    options = {
        "n_explore": 2,
        "n_smooth": 2,
        "n_transitions": 5,
        "n_starts": 0,
        "draws": 2,
        "random_seed": 1,
    }
    options |= {"likelihood": None, "standard_errors": None, "progressbar": False}
    ps.fit_saem(
        random_intercept(),
        checkpoint=schedule,
        callback=lambda *_: monkeypatch.chdir(other),
        **options,
    )
    assert ps.load(begun / "fit.nc") and not list(other.iterdir())


def test_checkpoints_that_cannot_be(tmp_path):
    for arguments, words in (
        ((tmp_path / "fit.zarr",), "a Zarr folder; it must be a netCDF file"),
        ((tmp_path,), "which is a folder; name a file in it"),
        ((tmp_path / "no" / "fit.nc",), "the folder '.*no' does not exist"),
        ((tmp_path / "fit.pkl",), "ends in '.pkl'"),
        ((tmp_path / "fit.nc", -1.0), "seconds of a Checkpoint is -1.0"),
        ((tmp_path / "fit.nc", 1.0, 0), "iterations of a Checkpoint is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            ps.Checkpoint(*arguments)


def test_plain_data_survives_packing():
    rng = np.random.default_rng(3)
    rng.random(5)
    value = {
        "numbers": [1, 2.5, np.inf, None, True], 7: np.arange(3), "empty": np.zeros((0, 2)), "set": {"b", "a"}, "rng": rng,
        "tuple": (np.float64(0.1), np.array([np.nan, -0.0])),
    }  # fmt: skip
    found = unpack(pack(value))
    assert found["numbers"] == value["numbers"] and found["set"] == value["set"]
    assert np.array_equal(found[7], value[7]) and found["empty"].shape == (0, 2)
    assert found["tuple"][0] == 0.1 and found["tuple"][1].tobytes() == value["tuple"][1].tobytes()
    assert (
        found["rng"].spawn(1)[0].random() == rng.spawn(1)[0].random()
        and found["rng"].random() == rng.random()
    )
    with pytest.raises(TypeError, match="A function cannot be stored"):
        pack(lambda: 0)
