"""Resumed fits: what is stored of a run, and the checks that model and options are still those of the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pymc_saem.compat import InferenceData
from pymc_saem.results.files.storage import load
from pymc_saem.results.fit import Fit
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.estep.ensemble import Target
from pymc_saem.saem.estep.mixture import N_CODES
from pymc_saem.saem.run.chain import Chain
from pymc_saem.saem.run.options import Options
from pymc_saem.saem.run.snapshot import Snapshot, pack, unpack


@dataclass
class Resumable:
    """What a fit stores in its group ``saem_state``.

    Attributes
    ----------
    options : Options
    random : bytes
        Packed generators as they were before the run: "chains", a list, and "after", for what comes
        after the estimate.
    snapshots : dict of int to Snapshot
        By chain.
    seconds : float
        That the fit has taken.
    """

    options: Options
    random: bytes
    snapshots: dict[int, Snapshot]
    seconds: float = 0.0

    @classmethod
    def new(cls, options: Options, rng: np.random.Generator) -> Resumable:
        """The state of a new run."""
        return cls(
            options, pack({"chains": rng.spawn(options.chains), "after": rng.spawn(1)[0]}), {}
        )

    @classmethod
    def read(cls, source: InferenceData | str | os.PathLike) -> Resumable:
        """From ArviZ data or a file.

        Raises
        ------
        ValueError
            When a run cannot be resumed from it.
        """
        if not hasattr(source, "attrs") and not isinstance(source, str | os.PathLike):
            raise ValueError(
                f"resume is {source!r}; it must be what fit_saem returned, or the file of such a fit."
            )
        idata = source if hasattr(source, "attrs") else load(source)
        fit = Fit(idata)
        if "saem_state" not in fit:
            raise ValueError(
                "resume has no group 'saem_state', so it was not produced by fit_saem, or by a version without resume support. "
                f"It has {', '.join(fit.names)}."
            )
        group = fit.group("saem_state")
        data = {
            str(name): np.asarray(group[name].values, dtype=np.uint8).tobytes()
            for name in group.data_vars
        }
        random = data.pop("random")
        snapshots = {
            int(name.removeprefix("chain_")): Snapshot.from_bytes(found)
            for name, found in data.items()
        }
        return cls(Options.of(fit.options), random, snapshots, float(group.attrs["seconds"]))

    def generators(self) -> tuple[list[np.random.Generator], np.random.Generator]:
        """One for each chain, and one for what comes after the estimate."""
        found = unpack(self.random)
        return found["chains"], found["after"]

    def begun(self) -> tuple[Snapshot | None, ...]:
        return tuple(self.snapshots.get(c) for c in range(self.options.chains))

    def with_runs(
        self, runs: list[Chain], seconds: float
    ) -> tuple[dict[str, bytes], dict[str, Any]]:
        """Variables and attributes of the group after these runs."""
        snapshots = self.snapshots | {
            run.number: run.snapshot for run in runs if run.snapshot is not None
        }
        data = {
            f"chain_{number}": snapshot.to_bytes() for number, snapshot in sorted(snapshots.items())
        }
        return {"random": self.random, **data}, {
            "options": self.options.plain(),
            "seconds": self.seconds + seconds,
        }

    def extended(self, options: Options, extend: int) -> Options:
        """The options for this many further iterations, without the stopping rule."""
        done = max(len(snapshot.theta) for snapshot in self.snapshots.values())
        n_explore = int(options.n_explore)  # a number since the run began
        rest = done - n_explore if done >= n_explore else options.n_smooth
        return replace(options, n_smooth=extend + rest)


def check_same_model(engine: Engine, snapshots: Mapping[int, Snapshot]) -> None:
    """Refuse to resume with another model, or other data.

    Raises
    ------
    ValueError
        Names what differs.
    """
    mixed = engine.mixed
    for number, snapshot in sorted(snapshots.items()):
        state = snapshot.bookmark["state"]
        theirs, ours = (
            (state.theta.size, *state.phi.shape[1:]),
            (mixed.n_theta, mixed.n_subjects, mixed.n_phi),
        )
        for what, a, b in zip(
            ("entries of parameters", "subjects", "random effects a subject"),
            theirs,
            ours,
            strict=True,
        ):
            if a != b:
                raise ValueError(
                    f"resume belongs to a different model: it has {a} {what}, this model has {b}."
                )
        if len(snapshot.theta) < 2:
            continue
        # The E-step of the last iteration ended in these phi, and began with the theta of the
        # iteration before.
        theta, stored = snapshot.theta[-2], float(snapshot.stats["complete_logp"][-1])
        engine.densities.warm_up(state.phi, theta)
        codes = np.zeros((N_CODES, mixed.n_subjects), dtype=np.int64)
        there = Target(engine.densities, engine.maximizer.population(theta), theta, codes).ensemble(
            state.phi
        )
        found = float((there.loglik + there.logprior).sum(axis=1).mean())
        if not np.isclose(found, stored, rtol=1e-8, atol=1e-8):
            raise ValueError(
                f"resume belongs to a different model or different data: at the state of chain {number} the log density was {stored:.8g} and is "
                f"{found:.8g} with this model."
            )
