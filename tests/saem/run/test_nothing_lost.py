"""After the last iteration nothing takes the estimate: every stage is made to fail, and Ctrl-C comes everywhere."""

import json
import os
import signal
import warnings
from dataclasses import replace

import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group, group_names
from pymc_saem.saem.report import finish
from pymc_saem.saem.run import chains
from pymc_saem.saem.run.checkpoint import Checkpoint, Writer
from pymc_saem.saem.run.stages import CtrlC, Stages

QUICK = {
    "n_explore": 3, "n_smooth": 3, "n_transitions": 10, "n_starts": 0, "draws": 3, "random_seed": 1, "progressbar": False,
    "likelihood": "laplace", "standard_errors": "score", "compile_kwargs": {"mode": "FAST_COMPILE"},
}  # fmt: skip


def build():
    y = np.repeat([-1.0, 1.0, 0.5, -0.5, 0.8], 3) + np.tile([-0.3, 0.0, 0.3], 5)
    with pm.Model(coords={"subject": list("abcde")}) as model:
        effect = pm.Normal("b", pm.Normal("a", 0, 5), pm.HalfNormal("omega", 2), dims="subject")
        pm.Deterministic("double", 2 * effect, dims="subject")
        time = pm.Data("time", np.tile(np.arange(3.0), 5))
        pm.Normal(
            "y",
            effect[np.repeat(np.arange(5), 3)] + 0 * time,
            pm.HalfNormal("sigma", 1),
            observed=y,
        )
    return model


class Stop(Exception):
    """Ends a fit when all that ``finish`` needs is known."""


@pytest.fixture(scope="module")
def at_the_end():
    """(finisher, chains, generator) of a tiny fit, and the fit without a fault."""
    seen = {}

    def stop(finisher, runs, rng, writer, ctrl_c, announce):
        seen["all"] = finisher, runs, rng
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish.Finisher, "finish", stop)
        with pytest.raises(Stop):
            ps.fit_saem(build(), **QUICK)
    finisher, runs, _ = seen["all"]
    return finisher, runs, finisher.finish(runs, np.random.default_rng(1))[0]


def stages_of(finisher, runs, writer):
    """Names of all stages of a fit that ends well."""
    names, original = [], Stages.attempt

    def note(self, stage, *arguments, **options):
        names.append(stage)
        return original(self, stage, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stages, "attempt", note)
        finisher.finish(runs, np.random.default_rng(1), writer)
    return list(dict.fromkeys(names))


def failing(error, fails):
    """``Stages.attempt`` in which the work of some stages raises."""
    original = Stages.attempt

    def attempt(self, stage, work, *arguments, **options):
        def broken():
            raise error

        return original(self, stage, broken if fails(stage) else work, *arguments, **options)

    return attempt


def estimates_of(idata):
    population, trace = get_group(idata, "population"), get_group(idata, "saem_trace")
    assert trace.sizes["iteration"] == 6 and population.sizes["parameter"] == 3
    return population["estimate"].values


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.slow("together")
def test_every_stage_may_fail_on_its_own(at_the_end, tmp_path, monkeypatch):
    finisher, runs, whole = at_the_end
    # these are in the next tests
    finisher = replace(finisher, options={"likelihood": None, "standard_errors": None})
    writer = Writer(Checkpoint(tmp_path / "fit.nc"), {}, finisher.build)
    stages = stages_of(finisher, runs, writer)
    assert len(stages) > 40
    for k, stage in enumerate(stages):
        error = [ValueError("no luck"), KeyboardInterrupt(), MemoryError(), Unspeakable()][k % 4]
        with monkeypatch.context() as patch:
            patch.setattr(
                Stages, "attempt", failing(error, lambda name, stage=stage: name == stage)
            )
            idata, texts = finisher.finish(runs, np.random.default_rng(1), writer)
        assert any(stage in text and "the estimate is complete" in text for text in texts), stage
        if "scale" not in stage:
            np.testing.assert_array_equal(
                estimates_of(idata), get_group(whole, "population")["estimate"].values
            )
        lost = set(group_names(whole)) - set(group_names(idata))
        assert not lost or any(f"group '{name}'" in stage or stage in LARGE for name in lost), (
            stage,
            lost,
        )
        if lost or k % 10 == 0:  # whatever is left is a fit that can be stored, read and shown
            idata = ps.load(ps.save(idata, tmp_path / "as_it_is.nc"))
        assert len(ps.summary(idata)) == 3 and len(ps.diagnostics(idata)), stage


#: Stages without which a group is empty.
LARGE = ("Observed data", "Constant data", "The state for a later run")


@pytest.mark.parametrize(
    "error",
    [ValueError("no luck"), KeyboardInterrupt(), RecursionError(), np.linalg.LinAlgError("x")],
)
def test_all_stages_may_fail_together(at_the_end, monkeypatch, error):
    """Then the trace and the estimates are there, on the unconstrained scale, and the notes say why."""
    finisher, runs, _ = at_the_end
    kept = ("'population'", "'saem_trace'")
    monkeypatch.setattr(
        Stages, "attempt", failing(error, lambda name: not any(key in name for key in kept))
    )
    idata, texts = finisher.finish(runs, np.random.default_rng(1))
    assert sorted(group_names(idata)) == ["population", "saem_trace"]
    np.testing.assert_array_equal(estimates_of(idata), runs[0].theta[-1])
    (text,) = texts
    assert "Estimates on the natural scale" in text and ("interrupted" in text or "failed" in text)


LAYERS = {  # what is called after the iterations: module, name, and groups or columns that may be missing then
    "pymc_saem.saem.run.chain.Course.snapshot": set(),
    "pymc_saem.saem.run.chain.Course.scales": set(),
    "pymc_saem.saem.run.chains.describe_individuals": {"individual", "posterior", "sample_stats"},
    "pymc_saem.saem.report.assessment.residual_shrinkage": set(),
    "pymc_saem.saem.report.assessment.marginal_likelihood": set(),
    "pymc_saem.saem.report.assessment.information_criteria": set(),
    "pymc_saem.saem.report.assessment.uncertainty": set(),
    "pymc_saem.saem.report.finish.assess": set(),
    "pymc_saem.saem.report.finish.messages": set(),
    "pymc_saem.saem.report.collect.checks": set(),
    "pymc_saem.saem.report.groups.deterministics": None,
    "pymc_saem.saem.report.groups._at_draws": set(),
    "pymc_saem.model.density.point_map.PointMap.natural_phi": set(),
    "pymc_saem.saem.run.resume.Resumable.with_runs": {"saem_state"},
    "pymc_saem.results.build._dataset": None,
    "pymc_saem.saem.run.checkpoint.save": set(),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow("together")
@pytest.mark.parametrize("error", [FloatingPointError("no luck"), KeyboardInterrupt()])
def test_what_is_called_after_the_iterations_may_fail(at_the_end, tmp_path, monkeypatch, error):
    """Here the chain is run again as well, on the compiled model."""
    finisher, runs, whole = at_the_end
    expected = get_group(whole, "population")["estimate"].values
    for name, missing in LAYERS.items():
        if missing is None:
            continue
        with monkeypatch.context() as patch:

            def fail(*arguments, **options):
                raise error

            patch.setattr(name, fail)
            rngs, after = finisher.state.generators()
            writer = Writer(Checkpoint(tmp_path / "fit.nc", seconds=1e9), {}, finisher.build)
            chain = chains.run_chain(finisher.job, 0, rngs[0], lambda *seen: None, writer)
            idata, texts = finisher.finish([chain], after, writer)
        np.testing.assert_array_equal(estimates_of(idata), expected)
        assert set(group_names(whole)) - set(group_names(idata)) == missing, name
        assert any(
            type(error).__name__ in text or "interrupted" in text or "could not" in text
            for text in texts
        ), name


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_a_stage_ends_that_stage_alone(at_the_end, monkeypatch):
    finisher, runs, whole = at_the_end
    stages = [s for s in stages_of(finisher, runs, None) if "'" not in s]
    for stage in stages:
        original = Stages.attempt

        def attempt(self, name, work, *arguments, original=original, stage=stage, **options):
            def pressed():
                if name == stage:
                    press_ctrl_c()
                return work()

            return original(self, name, pressed, *arguments, **options)

        with monkeypatch.context() as patch, CtrlC() as ctrl_c:
            patch.setattr(Stages, "attempt", attempt)
            ctrl_c.during(lambda: None)  # the iterations
            idata, texts = finisher.finish(runs, np.random.default_rng(1), None, ctrl_c)
            assert ctrl_c.is_waiting or any("interrupted" in text for text in texts), stage
        np.testing.assert_array_equal(
            estimates_of(idata), get_group(whole, "population")["estimate"].values
        )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_between_stages_waits_for_the_next():
    with CtrlC() as ctrl_c:
        with pytest.raises(KeyboardInterrupt):  # nothing has begun
            press_ctrl_c()
        stages = Stages(ctrl_c)
        assert stages.attempt("iterations", lambda: 1, is_long=True) == 1
        press_ctrl_c()
        press_ctrl_c()
        assert stages.attempt("something short", lambda: 2) == 2
        assert stages.attempt("draws", lambda: 3, is_long=True) is None
        assert stages.attempt("likelihood", lambda: 4, is_long=True) == 4
        assert [note.stage for note in stages.notes] == ["draws"] and stages.notes[
            0
        ].was_interrupted


@pytest.mark.filterwarnings("error")
def test_warnings_that_are_errors_hold_the_fit(at_the_end, monkeypatch):
    monkeypatch.setattr(
        finish.Finisher, "finish", lambda *arguments: (at_the_end[2], ["something to read", "more"])
    )
    with pytest.raises(UserWarning, match="something to read") as found:
        ps.fit_saem(build(), **QUICK | {"draws": 2})
    assert found.value.fit is at_the_end[2] and "the attribute 'fit'" in found.value.__notes__[0]


def test_a_folder_that_goes_away_while_the_fit_runs(at_the_end, tmp_path, caplog):
    finisher, _, whole = at_the_end
    folder = tmp_path / "results"
    folder.mkdir()
    writer = Writer(Checkpoint(folder / "fit.nc", iterations=2), {}, finisher.build)
    rngs, after = finisher.state.generators()

    def watch(chain, iteration, *seen):
        if iteration == 2:
            (folder / "fit.nc").unlink()
            folder.rmdir()

    chain = chains.run_chain(finisher.job, 0, rngs[0], watch, writer)
    idata, texts = finisher.finish([chain], after, writer)
    np.testing.assert_array_equal(
        estimates_of(idata), get_group(whole, "population")["estimate"].values
    )
    assert "was not written; the fit continues" in caplog.text
    (text,) = [text for text in texts if "The checkpoint" in text]
    assert "could not be written (" in text and "FileNotFoundError" in text and "ps.save" in text
    folder.mkdir()  # a network that comes back
    writer.finish(idata)
    assert writer.messages() == [] and len(ps.summary(ps.load(folder / "fit.nc"))) == 3


def test_notes_are_in_the_fit_and_its_diagnostics(at_the_end, tmp_path, monkeypatch):
    finisher, runs, _ = at_the_end
    monkeypatch.setattr(
        Stages, "attempt", failing(ValueError("no luck"), lambda name: name == "Standard errors")
    )
    idata, _ = finisher.finish(runs, np.random.default_rng(1))
    again = ps.load(ps.save(idata, tmp_path / "fit.nc"))
    assert json.loads(again.attrs["notes"]) == [
        "Standard errors: failed (ValueError: no luck); the estimate is complete."
    ]
    line = ps.diagnostics(again).set_index("check").loc["failed"]
    assert line["verdict"] == "check" and "no luck" in line["advice"]


def test_deterministics_that_fail_or_change_their_shape_take_no_others(at_the_end):
    finisher, runs, _ = at_the_end
    with finisher.engine.mixed.model as model:
        odd = pm.Deterministic("odd", pm.math.concatenate([model["b"][model["b"] > 0.0], [1.0]]))
        idata, texts = finisher.finish(runs, np.random.default_rng(1))
    for table in (model.deterministics, model.named_vars):
        table.remove(odd) if isinstance(table, list) else table.pop("odd")
    posterior = get_group(idata, "posterior")
    assert "odd" not in posterior and any("pm.Deterministic 'odd'" in text for text in texts)
    np.testing.assert_allclose(posterior["double"], 2 * posterior["b"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_later_chain_that_fails_leaves_the_others():
    model, calls = build(), []

    def fail(chain, iteration, estimates, stats):
        calls.append(chain)
        if chain == 1:
            raise ArithmeticError("in the second chain")

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        idata = ps.fit_saem(
            model, chains=3, callback=fail, **QUICK | {"likelihood": None, "standard_errors": None}
        )
    assert get_group(idata, "saem_trace").sizes["chain"] == 2 and calls.count(2) == 6
    assert any(
        "Chain 1 was lost (ArithmeticError: in the second chain)" in str(w.message) for w in seen
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # about a run that is too short to settle
def test_a_fit_outlives_the_folder_of_its_checkpoint(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()

    def remove(chain, iteration, *seen):
        if iteration == 3:
            (folder / "fit.nc").unlink()
            folder.rmdir()

    fit = ps.fit_saem(
        build(), callback=remove, checkpoint=Checkpoint(folder / "fit.nc", iterations=2), **QUICK
    )
    assert len(ps.summary(fit)) == 3
