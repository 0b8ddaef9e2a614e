"""The E-step: a mixture of kernels, and the sufficient statistics averaged over all that it visits."""

from __future__ import annotations

import numpy as np

from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.saem.core.algorithm import Statistics
from pymc_saem.saem.core.closed_form import total_weight, weighted
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.estep.fsaem import Independence
from pymc_saem.saem.estep.kernels import Ensemble, Moves, PriorProposal, SubjectMetropolis, Target
from pymc_saem.saem.estep.mala import Langevin

#: Share of the transitions of each kernel.
MIXTURE = {"prior": 0.15, "coordinate": 0.35, "block": 0.5}
#: Kernels whose proposals need gradients, and which run apart: those of the others are drawn ahead and mixed at random.
WITH_GRADIENT = ("independence", "mala")
KERNELS = (*MIXTURE, *WITH_GRADIENT)

#: Numbers in the proposals that are drawn ahead (32 MB).
MAX_PROPOSED = 4_000_000
#: More than the status codes of any solver.
N_CODES = 16

_ADAPTED = ("scaling", "shape", "queue", "n_learned")


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
        Share of the transitions of each kernel, by name: "prior", "coordinate", "block", "mala", "independence".
    weight : ndarray, shape (subject,), optional
        Weight of each subject in the statistics; 1 by default. Subjects of weight zero do not move: they stay at their mean.
    """

    def __init__(
        self, mixed: MixedModel, densities, population: Population, n_transitions: int, rng, kernel="auto", weight=None
    ):
        self.mixed, self.densities, self.n_transitions, self.weight = mixed, densities, n_transitions, weight
        self.shares = dict(MIXTURE if kernel == "auto" else kernel)
        values = [mixed.model.rvs_to_values[mixed.model[e.name]] for e in mixed.random_effects]
        sd = 0.5 * population.sd
        gaussian = [e.columns for e in mixed.random_effects if e.is_gaussian]
        if not gaussian:  # nothing to draw from a Gaussian distribution
            self.shares = {name: share for name, share in self.shares.items() if name != "prior"}
            if not any(self.shares.values()):
                raise ValueError(
                    "kernel names 'prior' alone, but no random effect is Gaussian; add 'coordinate' or 'block'."
                )
        self.kernels = {
            "prior": PriorProposal(gaussian, rng),
            "coordinate": SubjectMetropolis(values, move="coordinate", sd=sd, model=mixed.model, rng=rng),
            "block": SubjectMetropolis(values, move="block", sd=sd, model=mixed.model, rng=rng),
            "independence": Independence(rng),
            "mala": Langevin(mixed.n_subjects, mixed.n_phi, rng),
        }
        self.set_rng(rng)
        self.within = np.diag(sd**2)
        self.failures: dict[int, np.ndarray] = {}
        self.n_evaluations = 0

    def set_rng(self, rng: np.random.Generator) -> None:
        """One generator drives all kernels, so that one state reproduces the run."""
        self.rng = rng
        for kernel in self.kernels.values():
            kernel.rng = rng

    @property
    def adapted(self) -> dict:
        """What the kernels learned, for storage."""
        walks = {n: {a: np.array(getattr(self.kernels[n], a)) for a in _ADAPTED} for n in ("coordinate", "block")}
        others = {name: self.kernels[name].adapted for name in WITH_GRADIENT}
        return {"walks": walks, "within": self.within.copy(), "tune": self.kernels["block"].tune, **others}

    @adapted.setter
    def adapted(self, value: dict) -> None:
        for name, attributes in value["walks"].items():
            for attribute, x in attributes.items():
                setattr(self.kernels[name], attribute, np.array(x) if x.ndim else float(x))
        for name in WITH_GRADIENT:
            self.kernels[name].adapted = value[name]
        self.within = value["within"].copy()
        if not value["tune"]:
            self.stop_tuning()

    def stop_tuning(self) -> None:
        for name in ("coordinate", "block", *WITH_GRADIENT):
            self.kernels[name].stop_tuning()

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
            Acceptance by kernel; complete log density, and that of each replicate; log p(y_i | phi_i) and log p(y_i, phi_i) of
            each (replicate, subject).
        """
        codes = np.zeros((N_CODES, phi.shape[1]), dtype=np.int64)
        target = Target(self.densities, population, theta, codes)
        ensemble = self._ensemble(target, phi, still)
        plan = self._plan(n_transitions or self.n_transitions)
        rates = np.concatenate([self._walk(ensemble, target, part) for part in self._parts(plan, phi.size)])
        statistics = ensemble.statistics()
        # A subject that does not move has no spread within the iteration, but for that between its replicates.
        moving = 1.0 - float(np.average(ensemble.still, weights=self.weight))
        self._learn(statistics, population, moving if phi.shape[0] == 1 else 1.0)
        codes[:, ensemble.still] = 0  # their proposals were none
        self.n_evaluations += target.n_evaluations * ensemble.moving_share
        for code in np.flatnonzero(codes.any(axis=1)):
            self.failures[int(code)] = self.failures.get(int(code), 0) + codes[code]
        report = {f"accept_{n}": float(rates[plan == n].mean()) if (plan == n).any() else np.nan for n in self.kernels}
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
        if plan[0] in WITH_GRADIENT:
            return self.kernels[plan[0]].walk(ensemble, target, self.kernels["block"].shape, len(plan))
        moves = Moves.empty(len(plan), ensemble.phi.shape, self.rng)
        at = {name: np.flatnonzero(plan == name) for name in MIXTURE}
        which = {name: self.kernels[name].propose(moves, at[name], target.population) for name in MIXTURE}
        rates = ensemble.walk(target, moves)
        for name in MIXTURE:
            self.kernels[name].record(which[name], rates[at[name]])
        return rates

    def _parts(self, plan: np.ndarray, size: int) -> list[np.ndarray]:
        """The plan in parts of one kind of kernel each, whose proposals fit into memory."""
        kind = np.where(np.isin(plan, WITH_GRADIENT), plan, "")
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
            extra = self.rng.choice(len(names), size=missing, p=(exact - counts) / (exact - counts).sum())
            np.add.at(counts, extra, 1)
        plan = self.rng.permutation(np.repeat(np.array(names), counts))
        place = {name: 1 + k for k, name in enumerate(WITH_GRADIENT)}
        return plan[np.argsort([place.get(name, 0) for name in plan], kind="stable")]

    def _learn(self, statistics: Statistics, population: Population, share: float) -> None:
        block = self.kernels["block"]
        if block.tune:
            first = statistics.first if self.weight is None else np.sqrt(self.weight)[:, None] * statistics.first
            within = (statistics.second - first.T @ first) / (share * total_weight(self.weight, first.shape[0]))
            # few correlated draws an iteration: remember about ten iterations
            self.within = 0.9 * self.within + 0.1 * within
            ridge = 1e-6 * np.diag(population.omega)
            block.learn(0.95 * self.within + np.diag(0.05 * np.diag(self.within) + ridge))
        self.kernels["coordinate"].learn()
        self.kernels["mala"].learn()
