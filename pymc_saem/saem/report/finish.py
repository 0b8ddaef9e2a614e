"""From finished chains to a fit: whatever fails on the way, the estimate and its trace are returned."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from pymc_saem.compat import InferenceData
from pymc_saem.results import build_datatree
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.report.assessment import Assessment, assess
from pymc_saem.saem.report.collect import collect, describe_failures
from pymc_saem.saem.report.messages import messages
from pymc_saem.saem.run.chain import Chain
from pymc_saem.saem.run.chains import Job, score
from pymc_saem.saem.run.checkpoint import Writer
from pymc_saem.saem.run.options import Options
from pymc_saem.saem.run.resume import Resumable
from pymc_saem.saem.run.stages import CtrlC, Note, Stages, texts_of


@dataclass
class Finisher:
    """Makes a fit of chains.

    Attributes
    ----------
    seconds : float
        When the fit began, by ``perf_counter``.
    """

    engine: Engine
    job: Job
    state: Resumable
    options: Options
    seconds: float = field(default_factory=perf_counter)

    def build(
        self,
        runs: list[Chain],
        best: int = 0,
        assessment: Assessment | None = None,
        stages: Stages | None = None,
    ) -> InferenceData:
        """ArviZ data of chains, as far as they have come; what cannot be computed is left out, and noted in ``stages``."""
        stages, seconds = stages or Stages(), perf_counter() - self.seconds
        assessment = assessment or Assessment()
        total = self.state.seconds + seconds
        result = collect(self.engine, runs, best, self.job, assessment, total, stages)
        result.state, result.group_attrs["saem_state"] = stages.attempt(
            "The state for a later run", lambda: self.state.with_runs(runs, seconds), (None, {})
        )
        return build_datatree(result, stages.attempt)

    def finish(
        self,
        runs: list[Chain],
        rng: np.random.Generator,
        writer: Writer | None = None,
        ctrl_c: CtrlC | None = None,
        announce: Callable[[str], Any] | None = None,
    ) -> tuple[InferenceData, list[str]]:
        """The fit, and what its user should read.

        Parameters
        ----------
        runs : list of Chain
            At least one.
        rng : numpy.random.Generator
            For what comes after the estimate.
        writer : Writer, optional
            Of the checkpoint.
        ctrl_c : CtrlC, optional
            Where Ctrl-C may come.
        announce : callable, optional
            ``announce(text)`` before each long piece of work.
        """
        stages = Stages(ctrl_c, announce)
        best = stages.attempt("The choice of the best chain", lambda: _best(runs), 0)
        run = runs[best]
        assessment = stages.attempt(
            "What the estimate is worth", lambda: self._assess(run, rng, stages), Assessment()
        )
        idata = self.build(runs, best, assessment, stages)
        notes = [*_notes_of(runs), *stages.notes]
        stages.attempt("Notes in the fit", lambda: _write_notes(idata, notes))
        if writer is not None:
            stages.attempt(
                f"The file '{writer.schedule.path}'", lambda: writer.finish(idata), is_long=True
            )
        texts = stages.attempt("Messages", lambda: self._messages(runs, run), [])
        texts += [text for one in runs for text in one.trouble]
        texts += texts_of([*_notes_of(runs), *stages.notes]) + assessment.messages
        return idata, texts + ([] if writer is None else writer.messages())

    def _assess(self, run: Chain, rng: np.random.Generator, stages: Stages) -> Assessment:
        return assess(
            self.engine,
            run.theta[-1],
            run.conditional,
            rng,
            likelihood=self.options.likelihood,
            standard_errors=self.options.standard_errors,
            at_floor=run.at_floor,
            n_solves=run.n_solves,
            stages=stages,
        )

    def _messages(self, runs: list[Chain], run: Chain) -> list[str]:
        return messages(self.engine, runs, run, describe_failures(self.engine.mixed, run), self.job)


def _best(runs: list[Chain]) -> int:
    return int(np.argmax([score(run) for run in runs])) if len(runs) > 1 else 0


def _notes_of(runs: list[Chain]) -> list[Note]:
    """What failed in the chains; where there are several, with their numbers."""
    if len(runs) == 1:
        return list(runs[0].notes)
    return [
        Note(f"{note.stage} of chain {run.number}", note.reason)
        for run in runs
        for note in run.notes
    ]


def _write_notes(idata: InferenceData, notes: list[Note]) -> None:
    if notes:
        idata.attrs["notes"] = json.dumps(texts_of(notes))
