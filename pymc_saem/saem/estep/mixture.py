"""The E-step: a mixture of kernels, and the sufficient statistics averaged over all that it visits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pymc_saem.model.density.densities import Densities
from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.saem.core.algorithm import Statistics
from pymc_saem.saem.core.closed_form import total_weight, weighted
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.estep.ensemble import Ensemble, Moves, Target
from pymc_saem.saem.estep.kernel import DrawnAhead, Kernel, RunApart
from pymc_saem.saem.estep.registry import KERNELS, default_shares

#: Numbers in the proposals that are drawn ahead (32 MB).
MAX_PROPOSED = 4_000_000
#: More than the status codes of any solver.
N_CODES = 16


class Simulator:
    """Moves phi with a fixed mixture of kernels.

    Parameters
    ----------
    mixed : MixedModel
    densities : Densities
    n_transitions : int
        Proposals per subject and replicate in one call.
    rng : numpy.random.Generator
    kernel : mapping of str to float, or "auto"
        Share of the transitions of each kernel of the registry, by name.
    weight : ndarray, shape (subject,), optional
        Weight of each subject in the statistics; 1 by default. Subjects of weight zero do not move:
        they stay at their mean.
    """

    def __init__(
        self,
        mixed: MixedModel,
        densities: Densities,
        population: Population,
        n_transitions: int,
        rng: np.random.Generator,
        kernel: Mapping[str, float] | str = "auto",
        weight: np.ndarray | None = None,
    ):
        self.mixed, self.densities, self.n_transitions, self.weight = (
            mixed,
            densities,
            n_transitions,
            weight,
        )
        self.shares = _shares(mixed, kernel)
        sd = 0.5 * population.sd
        kernels: dict[str, Kernel] = {
            name: kind.build(mixed, sd, rng) for name, kind in KERNELS.items()
        }
        self.ahead = {name: one for name, one in kernels.items() if isinstance(one, DrawnAhead)}
        apart = {name: one for name, one in kernels.items() if isinstance(one, RunApart)}
        self.apart = dict(sorted(apart.items(), key=lambda item: item[1].turn))
        self.kernels: dict[str, Kernel] = {**self.ahead, **self.apart}
        self.set_rng(rng)
        self.within = np.diag(sd**2)
        self.failures: dict[int, np.ndarray] = {}
        self.n_evaluations = 0.0

    def set_rng(self, rng: np.random.Generator) -> None:
        """One generator drives all kernels, so that one state reproduces the run."""
        self.rng = rng
        for kernel in self.kernels.values():
            kernel.rng = rng

    @property
    def adapted(self) -> dict[str, Any]:
        """What the kernels learned, for storage."""
        walks = {name: kernel.state() for name, kernel in self.ahead.items() if kernel.learned}
        others = {name: kernel.state() for name, kernel in self.apart.items()}
        return {"walks": walks, "within": self.within.copy(), "tune": self.tune, **others}

    @adapted.setter
    def adapted(self, value: Mapping[str, Any]) -> None:
        for name, state in {
            **value["walks"],
            **{name: value[name] for name in self.apart if name in value},
        }.items():
            self.kernels[name].restore(state)
        self.within = value["within"].copy()
        if not value["tune"]:
            self.stop_tuning()

    @property
    def tune(self) -> bool:
        """Whether kernels still adapt."""
        return any(kernel.tune for kernel in self.kernels.values())

    @property
    def n_failed(self) -> int:
        """Proposals so far whose solve failed."""
        return int(sum(count.sum() for count in self.failures.values()))

    def stop_tuning(self) -> None:
        for kernel in self.kernels.values():
            kernel.stop_tuning()

    def __call__(
        self,
        population: Population,
        theta: np.ndarray,
        phi: np.ndarray,
        n_transitions: int | None = None,
        still: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Statistics, dict]:
        """Move phi (replicate, subject, phi) by ``n_transitions`` proposals at fixed theta, but for the subjects that are ``still``.

        Returns
        -------
        phi : ndarray, shape (replicate, subject, phi)
        statistics : Statistics
            Averaged over all visited states, not the last one only: same cost, less noise.
        report : dict
            What each kernel reports, such as its acceptance; complete log density, and that of each
            replicate; log p(y_i | phi_i) and log p(y_i, phi_i) of each (replicate, subject).
        """
        codes = np.zeros((N_CODES, phi.shape[1]), dtype=np.int64)
        target = Target(self.densities, population, theta, codes)
        ensemble = self._ensemble(target, phi, still)
        plan = self._plan(n_transitions or self.n_transitions)
        rates = np.concatenate(
            [self._walk(ensemble, target, part) for part in self._parts(plan, phi.size)]
        )
        statistics = ensemble.statistics()
        # A subject that does not move has no spread within the iteration, but for that between its
        # replicates.
        moving = 1.0 - float(np.average(ensemble.still, weights=self.weight))
        self._learn(statistics, population, moving if phi.shape[0] == 1 else 1.0)
        codes[:, ensemble.still] = 0  # their proposals were none
        self.n_evaluations += target.n_evaluations * ensemble.moving_share
        for code in np.flatnonzero(codes.any(axis=1)):
            self.failures[int(code)] = self.failures.get(int(code), 0) + codes[code]
        report: dict[str, Any] = {}
        for name, kernel in self.kernels.items():
            report |= kernel.report(rates[plan == name])
        report["subject_loglik"] = ensemble.loglik.copy()
        report["subject_logp"] = ensemble.loglik + ensemble.logprior
        report["replicate_logp"] = weighted(self.weight, report["subject_logp"]).sum(axis=1)
        report["complete_logp"] = float(report["replicate_logp"].mean())
        return ensemble.phi, statistics, report

    def _ensemble(self, target: Target, phi: np.ndarray, still: np.ndarray | None) -> Ensemble:
        if self.weight is None:
            ensemble = target.ensemble(phi)
        else:
            out = self.weight == 0
            ensemble = target.ensemble(np.where(out[:, None], target.population.mean, phi))
            ensemble.weight[:], still = self.weight, out if still is None else still | out
        if still is not None:
            ensemble.still = still
        return ensemble

    def _walk(self, ensemble: Ensemble, target: Target, plan: np.ndarray) -> np.ndarray:
        """Share accepted of each planned transition."""
        if plan[0] in self.apart:
            root = next(
                root for kernel in self.kernels.values() if (root := kernel.within_root) is not None
            )
            return self.apart[plan[0]].walk(ensemble, target, root, len(plan))
        n_replicates, n_subjects, n_phi = ensemble.phi.shape
        moves = Moves.empty(len(plan), (n_replicates, n_subjects, n_phi), self.rng)
        at = {name: np.flatnonzero(plan == name) for name in self.ahead}
        which = {
            name: kernel.propose(moves, at[name], target.population)
            for name, kernel in self.ahead.items()
        }
        rates = ensemble.walk(target, moves)
        for name, kernel in self.ahead.items():
            kernel.record(which[name], rates[at[name]])
        return rates

    def _parts(self, plan: np.ndarray, size: int) -> list[np.ndarray]:
        """The plan in parts of one kind of kernel each, whose proposals fit into memory."""
        kind = np.where(np.isin(plan, list(self.apart)), plan, "")
        kinds = np.split(plan, np.flatnonzero(kind[1:] != kind[:-1]) + 1)
        n_parts = (min(len(part), -(-len(part) * size // MAX_PROPOSED)) for part in kinds)
        return [p for part, n in zip(kinds, n_parts, strict=True) for p in np.array_split(part, n)]

    def _plan(self, n_transitions: int) -> np.ndarray:
        """Names of the kernels of one call, in random order but for those apart; shares are met on average."""
        names = [name for name, share in self.shares.items() if share > 0]
        shares = np.array([self.shares[name] for name in names], dtype=float)
        exact = shares / shares.sum() * n_transitions
        counts = np.floor(exact).astype(int)
        missing = n_transitions - counts.sum()
        if missing:
            extra = self.rng.choice(
                len(names), size=missing, p=(exact - counts) / (exact - counts).sum()
            )
            np.add.at(counts, extra, 1)
        plan = self.rng.permutation(np.repeat(np.array(names), counts))
        place = {name: 1 + k for k, name in enumerate(self.apart)}
        return plan[np.argsort([place.get(name, 0) for name in plan], kind="stable")]

    def _learn(self, statistics: Statistics, population: Population, share: float) -> None:
        learned = None
        if self.tune:
            first = (
                statistics.first
                if self.weight is None
                else np.sqrt(self.weight)[:, None] * statistics.first
            )
            within = (statistics.second - first.T @ first) / (
                share * total_weight(self.weight, first.shape[0])
            )
            # few correlated draws an iteration: remember about ten iterations
            self.within = 0.9 * self.within + 0.1 * within
            ridge = 1e-6 * np.diag(population.omega)
            learned = 0.95 * self.within + np.diag(0.05 * np.diag(self.within) + ridge)
        for kernel in self.kernels.values():
            kernel.learn(learned)


def _shares(mixed: MixedModel, kernel: Mapping[str, float] | str) -> dict[str, float]:
    """Shares of the kernels that can take part in fits of this model."""
    shares = default_shares() if isinstance(kernel, str) else dict(kernel)
    lacking = {name: reason for name, kind in KERNELS.items() if (reason := kind.lacks(mixed))}
    possible = {name: share for name, share in shares.items() if name not in lacking}
    if any(possible.values()):
        return possible
    names = " and ".join(repr(name) for name in shares if name in lacking)
    reasons = " and ".join(dict.fromkeys(lacking[name] for name in shares if name in lacking))
    others = " or ".join(repr(name) for name in default_shares() if name not in lacking)
    raise ValueError(f"kernel names {names} alone, but {reasons}; add {others}.")
