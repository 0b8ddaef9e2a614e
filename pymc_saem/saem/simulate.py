"""The E-step: a mixture of kernels, and the sufficient statistics averaged over all that it visits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pymc_saem.saem.algorithm import Statistics
from pymc_saem.saem.kernels import PriorProposal, SubjectMetropolis, Target
from pymc_saem.saem.model import MixedModel
from pymc_saem.saem.population import Population

#: Share of the transitions of each kernel.
MIXTURE = {"prior": 0.15, "coordinate": 0.35, "block": 0.5}

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
    kernels : dict
        Share of the transitions of each kernel, by name: "prior", "coordinate", "block".
    """

    def __init__(self, mixed: MixedModel, densities, population: Population, n_transitions: int, rng, kernels=None):
        self.mixed, self.densities, self.n_transitions = mixed, densities, n_transitions
        self.shares = dict(kernels or MIXTURE)
        values = [mixed.model.rvs_to_values[mixed.model[e.name]] for e in mixed.random_effects]
        sd = 0.5 * population.sd
        self.kernels = {
            "prior": PriorProposal([e.columns for e in mixed.random_effects], rng),
            "coordinate": SubjectMetropolis(values, move="coordinate", sd=sd, model=mixed.model, rng=rng),
            "block": SubjectMetropolis(values, move="block", sd=sd, model=mixed.model, rng=rng),
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
        return {"walks": walks, "within": self.within.copy(), "tune": self.kernels["block"].tune}

    @adapted.setter
    def adapted(self, value: dict) -> None:
        for name, attributes in value["walks"].items():
            for attribute, x in attributes.items():
                setattr(self.kernels[name], attribute, np.array(x) if x.ndim else float(x))
        self.within = value["within"].copy()
        if not value["tune"]:
            self.stop_tuning()

    def stop_tuning(self) -> None:
        for name in ("coordinate", "block"):
            self.kernels[name].stop_tuning()

    def __call__(
        self,
        population: Population,
        theta: np.ndarray,
        phi: np.ndarray,
        visit: Callable | None = None,
        n_transitions: int | None = None,
    ) -> tuple[np.ndarray, Statistics, dict]:
        """Move phi (replicate, subject, phi) by ``n_transitions`` proposals at fixed theta.

        Returns
        -------
        phi : ndarray, shape (replicate, subject, phi)
        statistics : Statistics
            Averaged over all visited states, not the last one only: same cost, less noise.
        report : dict
            Acceptance by kernel, complete log density, solver failures.
        """
        target = Target(self.densities, population, theta, self.failures)
        ensemble = target.ensemble(phi)
        rates = {name: [] for name in self.kernels}
        plan = self._plan(n_transitions or self.n_transitions)
        moves = {n: k.propose(int((plan == n).sum()), phi.shape, population) for n, k in self.kernels.items()}
        log_uniform = -self.rng.standard_exponential((len(plan), *phi.shape[:2]))
        for name, uniform in zip(plan, log_uniform, strict=True):
            ensemble, (stats,) = self.kernels[name].astep(ensemble, target, next(moves[name]), uniform)
            rates[name].append(stats["accept"])
            if visit is not None:
                visit(ensemble)
        statistics = ensemble.statistics()
        self._learn(statistics, population)
        self.n_evaluations += target.n_evaluations
        report = {f"accept_{name}": float(np.mean(r)) if r else np.nan for name, r in rates.items()}
        report["complete_logp"] = float((ensemble.loglik + ensemble.logprior).mean(axis=0).sum())
        return ensemble.phi, statistics, report

    def _plan(self, n_transitions: int) -> np.ndarray:
        """Names of the kernels of one call, in random order; shares are met on average."""
        names = [name for name, share in self.shares.items() if share > 0]
        shares = np.array([self.shares[name] for name in names], dtype=float)
        exact = shares / shares.sum() * n_transitions
        counts = np.floor(exact).astype(int)
        missing = n_transitions - counts.sum()
        if missing:
            extra = self.rng.choice(len(names), size=missing, p=(exact - counts) / (exact - counts).sum())
            np.add.at(counts, extra, 1)
        return self.rng.permutation(np.repeat(np.array(names), counts))

    def _learn(self, statistics: Statistics, population: Population) -> None:
        block = self.kernels["block"]
        if block.tune:
            within = (statistics.second - statistics.first.T @ statistics.first) / statistics.first.shape[0]
            # few correlated draws an iteration: remember about ten iterations
            self.within = 0.9 * self.within + 0.1 * within
            ridge = 1e-6 * np.diag(population.omega)
            block.learn(0.95 * self.within + np.diag(0.05 * np.diag(self.within) + ridge))
        self.kernels["coordinate"].learn()
