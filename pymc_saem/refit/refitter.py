"""A model that is compiled once and fitted many times, with other weights, observed values, constants, starts or seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import pymc as pm
from pymc.util import get_random_generator

from pymc_saem.model.density.point_map import initial_point
from pymc_saem.model.mixed_model import parameter_labels
from pymc_saem.refit.observed import ObservedValues
from pymc_saem.saem.conditional.draws import describe_individuals
from pymc_saem.saem.core.schedule import HELD
from pymc_saem.saem.likelihood.marginal import Likelihood, marginal_likelihood
from pymc_saem.saem.report.assessment import LEAST_SOLVES
from pymc_saem.saem.run.chain import Chain, Course
from pymc_saem.saem.run.options import natural_values
from pymc_saem.saem.run.stages import Stages
from pymc_saem.saem.run.step import SAEM
from pymc_saem.saem.uncertainty.standard_errors import natural

#: Iterations that kernels adapt in, before a likelihood is computed at given parameters; and draws
#: per chain for it.
N_ADAPT, N_DRAWS = 30, 100


@dataclass(frozen=True)
class Refit:
    """One fit.

    Attributes
    ----------
    estimates : dict of str to ndarray
        Natural values by name.
    values : ndarray, shape (entry,)
        The same in the order of :attr:`Refitter.labels`.
    converged : bool
        Whether the stopping rule ended the run.
    at_floor : tuple of str
        Parameters whose variance is at its floor.
    n_iterations, n_solves : int
    seconds : float
    likelihood : Likelihood, optional
        Marginal log-likelihood of every subject at the estimate, if it was asked for; without
        weights.
    log_prior : float
        Of the priors that the fit has maximized, on the natural scale; 0 for "ml".
    """

    estimates: dict[str, np.ndarray]
    values: np.ndarray
    converged: bool
    at_floor: tuple[str, ...]
    n_iterations: int
    n_solves: int
    seconds: float
    likelihood: Likelihood | None = None
    log_prior: float = 0.0

    @property
    def known_likelihood(self) -> Likelihood:
        """The likelihood of a fit that was asked for one."""
        if self.likelihood is None:
            raise ValueError(
                "This fit has no likelihood; give Refitter.fit a method by likelihood=."
            )
        return self.likelihood


class Refitter:
    """Fits a model again and again without compiling it again.

    It can be pickled before and after it was used; the copy compiles at its first fit. Fits do not
    depend on those before.

    Parameters
    ----------
    model : pymc.Model
    other_data : bool, default False
        Whether ``fit`` will be given other observed values. What depends on data alone is then
        computed at each evaluation.
    n_explore, n_smooth : int
        Iterations of every fit.
    tolerance : float
        Of the stopping rule; see :func:`pymc_saem.fit_saem`.
    **options
        Of :class:`pymc_saem.SAEM`: objective, fixed, n_transitions, ...
    """

    def __init__(
        self,
        model: pm.Model,
        *,
        other_data: bool = False,
        n_explore: int = 200,
        n_smooth: int = 350,
        tolerance: float = 0.05,
        **options: Any,
    ) -> None:
        self.data = ObservedValues(model) if other_data else None
        if self.data is not None:
            model = self.data.model
        self.n_explore, self.n_smooth, self.tolerance = n_explore, n_smooth, tolerance
        self.step = SAEM(model=model, **options)
        self.engine = self.step.engine
        self.mixed = self.engine.mixed
        self.fixed = dict(self.engine.maximizer.fixed)
        self.n_starts, self.point = self.step.n_starts, initial_point(model)

    @property
    def labels(self) -> list[str]:
        """A name for each entry of the parameters, as in :func:`pymc_saem.summary`."""
        return [
            label for p in self.mixed.parameters for label in parameter_labels(self.mixed.model, p)
        ]

    def theta(self, start: Mapping | None = None) -> np.ndarray:
        """theta of natural values by name; that of the initial values where there are none."""
        points = self.engine.points
        theta = points.theta_of(self.point)
        unknown = sorted(set(start or {}) - {p.name for p in self.mixed.parameters})
        if unknown:
            raise ValueError(
                f"start names {unknown}; the parameters are {[p.name for p in self.mixed.parameters]}."
            )
        for p in self.mixed.parameters:
            if start is not None and p.name in start:
                value = np.ravel(np.asarray(start[p.name], dtype=float))
                with np.errstate(all="ignore"):
                    theta[p.columns] = points.unconstrained(p, value)
                if not np.all(np.isfinite(theta[p.columns])):
                    raise ValueError(
                        f"start['{p.name}'] is {start[p.name]}, which is outside the support of '{p.name}'."
                    )
        return theta

    def fit(
        self,
        *,
        weights: np.ndarray | None = None,
        observed: Mapping[str, np.ndarray] | None = None,
        fixed: Mapping | None = None,
        start: Mapping | None = None,
        seed: int | np.random.Generator | None = None,
        likelihood: str | None = None,
        likelihood_seed: int = 0,
    ) -> Refit:
        """Fit once.

        Parameters
        ----------
        weights : ndarray, shape (subject,), optional
            The fit is that of this many copies of each subject; a subject of weight 0 has no
            influence. 1 by default.
        observed : mapping of str to ndarray, optional
            Other observed values, by name of the observed variable, in its shape.
        fixed : mapping, optional
            Parameters held at a natural value, besides those of the refitter; NaN for entries that
            are estimated.
        start : mapping, optional
            Natural values by name from which the run starts; without it, as the first fit of the
            model would.
        seed : int or numpy.random.Generator, optional
        likelihood : str, optional
            Method by which the marginal log-likelihood is computed at the estimate; None: not at
            all.
        likelihood_seed : int
            Of its random numbers: the same in fits that are compared.

        Raises
        ------
        ValueError
            For weights, values, constants or starts that make no sense.
        FloatingPointError
            When the run ends at estimates that are not finite.
        """
        mark, theta = perf_counter(), self.theta(start)
        self.engine.weigh(weights)
        if fixed:
            self.engine.maximizer.fix({**self.fixed, **natural_values(self.mixed, fixed)})
        try:
            self._observe(observed, theta)
            chain = self._run(theta, start is not None, get_random_generator(seed))
            self.engine.weigh(None)
            found = None
            if likelihood is not None:
                found = self._likelihood(
                    chain.theta[-1], likelihood, likelihood_seed, chain.n_solves
                )
            log_prior = self.log_prior(chain.theta[-1])
        finally:
            self.engine.weigh(None)
            if fixed:
                self.engine.maximizer.fix(self.fixed)
            self._observe(None, theta)
        return Refit(
            self.engine.points.natural_theta(chain.theta[-1]),
            natural(self.engine, chain.theta[-1]),
            chain.converged,
            chain.at_floor,
            len(chain.theta),
            chain.n_solves,
            perf_counter() - mark,
            found,
            log_prior,
        )

    def likelihood(self, values: Mapping, method: str = "auto", seed: int = 0) -> Likelihood:
        """Marginal log-likelihood of every subject at natural values by name, for the model's own data."""
        return self._likelihood(self.theta(values), method, seed)

    def log_prior(self, theta: np.ndarray) -> float:
        """Log density on the natural scale of the priors that fits maximize."""
        parameters = [p for p in self.mixed.parameters if p.name in self.engine.maximizer.priors]
        return float(
            sum(
                self.engine.maximizer.priors[p.name].unconstrained(theta[p.columns])[0]
                for p in parameters
            )
        )

    def _observe(self, values: Mapping[str, np.ndarray] | None, theta: np.ndarray) -> None:
        if self.data is None:
            if values is not None:
                raise ValueError(
                    "This refitter was made for the data of its model; give it other_data=True."
                )
            return
        phi = None if values is None else np.array(self.engine.maximizer.population(theta).mean)
        self.data.put(values, self.mixed, theta, phi)

    def _run(self, theta: np.ndarray, is_start: bool, rng: np.random.Generator) -> Chain:
        parameters = {
            p.value_name: theta[p.columns].reshape(p.shape) for p in self.mixed.parameters
        }
        self.step.n_starts = 0 if is_start else self.n_starts
        # At an estimate no residual variance is far too large, which is why variances are held.
        self.step.schedule.held = 0.0 if is_start else HELD
        course = Course(
            self.step, self.point | parameters, self.n_explore, self.n_smooth, self.tolerance
        )
        course.begin(rng, dispersed=False)
        while not course.is_over:
            course.iterate()
        chain = course.chain(0, interrupted=False, stages=Stages())
        if not np.all(np.isfinite(chain.theta[-1])):
            raise FloatingPointError(
                f"the run ended at estimates that are not finite: {self.engine.points.natural_theta(chain.theta[-1])}"
            )
        return chain

    def _likelihood(
        self, theta: np.ndarray, method: str, seed: int, n_solves: int = 0
    ) -> Likelihood:
        """At theta, from chains of its own: neither the run before nor the weights have a part in it."""
        engine, (of_draws, of_integral) = self.engine, np.random.default_rng(seed).spawn(2)
        population = engine.maximizer.population(theta)
        simulator = engine.simulator(population, of_draws)
        phi = np.repeat(population.mean[None], engine.n_replicates, axis=0)
        for _ in range(N_ADAPT):
            phi, _, _ = simulator(population, theta, phi)
        simulator.stop_tuning()
        conditional = describe_individuals(simulator, population, theta, phi, N_DRAWS)
        max_solves = max(0.5 * n_solves, LEAST_SOLVES * self.mixed.n_subjects)
        return marginal_likelihood(
            engine, theta, conditional, of_integral, method, max_solves=max_solves
        )
