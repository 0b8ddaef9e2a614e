"""SAEM as a PyMC step method: one step is one iteration."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pymc as pm
from pymc.step_methods.compound import BlockedStep
from pymc.util import get_random_generator

from pymc_saem.arguments import check_types
from pymc_saem.model.read import read_model
from pymc_saem.saem.core.algorithm import Statistics, iterate
from pymc_saem.saem.core.schedule import Schedule
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.estep.mixture import Simulator
from pymc_saem.saem.estep.registry import default_shares
from pymc_saem.saem.estep.registry import statistics as kernel_statistics
from pymc_saem.saem.mstep.recognize import refuse_collinear
from pymc_saem.saem.run.options import check_step_options, natural_values
from pymc_saem.saem.run.step_state import Interruptible, SAEMState
from pymc_saem.saem.start.scales import refuse_constant_outcomes, refuse_fixed_out_of_range


class _TypesFirst:
    """PyMC works with the arguments of a step before its ``__init__`` does."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        check_types("SAEM", dict(zip(("vars",), args, strict=False)) | kwargs)
        return super().__new__(cls, *args, **kwargs)


class SAEM(_TypesFirst, Interruptible, BlockedStep):
    """Stochastic approximation EM as a PyMC step method.

    A chain of ``pm.sample(step=ps.SAEM())`` is one run: its ``tune`` draws are the exploratory
    phase (step size 1), its draws the smoothing phase. The point that it returns holds the current
    parameters, and the random effects of the first replicate. :func:`fit_saem` runs this step and
    adds everything that comes after the estimate.

    Parameters
    ----------
    vars : list of variables, optional
        All free variables of the model. SAEM must own every one of them.
    model : pymc.Model, optional
        The model in context by default.
    random_effects : sequence of str, optional
        Names of the random effects; found from the graph by default.
    objective : {"map", "ml"}
        Maximize p(y | theta) p(theta), with the prior on the natural scale as ``pm.find_MAP`` does,
        or p(y | theta) alone.
    n_explore : int
        Exploratory iterations that the simulated annealing is planned for. ``pm.sample``'s ``tune``
        decides when the phase really ends.
    n_transitions : int
        Proposals per subject and replicate in one iteration; each costs one solve.
    n_replicates : int or "auto"
        Copies of phi per subject.
    kernel : mapping of str to float, or "auto"
        Share of the transitions of "prior", "coordinate", "block", "mala" and "independence"
        proposals.
    fixed : mapping of str to array, optional
        Parameters held at the given natural values.
    n_starts : int or "auto"
        Gradient fits with phi at its mean, from which the best starts the run; 0 starts at the
        point. "auto": 12, or none where random effects are weights of networks, or more than the
        rows of a typical subject.
    step_size_exponent : float
        Exponent a of the step sizes k^-a of the smoothing phase, in (1/2, 1].
    annealing : float
        Smallest factor of a variance per iteration in the exploratory phase; in the first 70 % of
        it no variance of random effects falls below its start.
    minibatch : float
        Share of the subjects whose random effects move in an iteration, in (0, 1].
    compile_kwargs : dict, optional
        ``mode`` for the compiled densities; Numba by default.
    initial_point : dict, optional
        Given by PyMC, and not used: a chain starts at the point of its first step.
    rng : int, numpy.random.Generator, optional
        Random numbers of a step that is called without ``pm.sample``, which seeds every chain
        itself.
    blocked : bool, default True
        As in PyMC's step methods: all variables move together.

    Raises
    ------
    UnsupportedModelError
        When the model is not one that SAEM can estimate; the message names the part and the reason.
    ValueError
        When a free variable is left out, or an option is out of range.

    See Also
    --------
    pymc_saem.fit_saem : Runs this step, and computes what follows the estimate.

    Examples
    --------
    >>> with model:
    ...     trace = pm.sample(draws=300, tune=150, chains=1, step=ps.SAEM())
    >>> trace.posterior["sigma"].dims
    ('chain', 'draw')
    """

    name = "saem"
    default_blocked = True
    _state_class = SAEMState
    stats_dtypes_shapes: dict[str, tuple[type, list]] = {
        "step_size": (np.float64, []),
        "complete_logp": (np.float64, []),
        **{name: (dtype, []) for name, dtype in kernel_statistics().items()},
        "n_failed": (np.int64, []),
        "tune": (bool, []),
    }

    def __init__(
        self,
        vars: Sequence | None = None,
        *,
        model: pm.Model | None = None,
        random_effects: Sequence[str] | None = None,
        objective: str = "map",
        n_explore: int = 600,
        n_transitions: int = 80,
        n_replicates: int | str = "auto",
        kernel: Mapping[str, float] | str = "auto",
        fixed: Mapping[str, Any] | None = None,
        n_starts: int | str = "auto",
        step_size_exponent: float = 0.75,
        annealing: float = 0.95,
        minibatch: float = 1.0,
        compile_kwargs: dict | None = None,
        initial_point: dict | None = None,
        rng: np.random.Generator | int | None = None,
        blocked: bool = True,
    ):
        model = pm.modelcontext(model)
        self.vars = (
            list(model.value_vars)
            if vars is None
            else [model.rvs_to_values.get(v, v) for v in vars]
        )
        missing = [v.name for v in model.value_vars if v not in self.vars]
        if missing:
            raise ValueError(
                f"SAEM must own every free variable, or PyMC samples the rest by NUTS; {missing} were left out."
            )
        check_step_options(
            objective,
            n_explore,
            n_transitions,
            n_replicates,
            kernel,
            n_starts,
            minibatch,
            compile_kwargs,
        )
        self._data = {
            v.name: np.array(v.get_value()) for v in model.data_vars if hasattr(v, "get_value")
        }
        self.schedule = Schedule(n_explore, step_size_exponent, annealing)
        mixed = read_model(model, random_effects)
        self.engine = Engine.build(
            mixed,
            self.schedule,
            objective=objective,
            fixed=natural_values(mixed, fixed),
            n_transitions=n_transitions,
            n_replicates=n_replicates,
            kernel=kernel,
            mode=(compile_kwargs or {}).get("mode", "NUMBA"),
        )
        refuse_collinear(self.engine.rules.mean, self.engine.maximizer.held)
        refuse_constant_outcomes(self.engine)
        refuse_fixed_out_of_range(self.engine)
        self.objective, self.blocked = objective, blocked
        self.n_starts, self.minibatch = n_starts, minibatch
        self.rng = get_random_generator(rng)
        self._forget()

    def _described(self) -> dict[str, str]:
        """The variables by their part in the model, the kernels, and how far the chain is."""
        mixed = self.engine.mixed
        shares = default_shares() if isinstance(self.engine.kernel, str) else self.engine.kernel
        phase = "exploring" if self.tune else "smoothing"
        return {
            "parameters": _listed([p.name for p in mixed.parameters]),
            "random effects": _listed([e.name for e in mixed.random_effects]),
            "kernel": ", ".join(f"{name} {share:g}" for name, share in shares.items() if share > 0),
            "iteration": f"{self.iter_count}, {phase}",
        }

    def __repr__(self) -> str:
        *parts, (_, iteration) = self._described().items()
        return (
            f"SAEM({'; '.join(f'{name}: {text}' for name, text in parts)}; iteration {iteration})"
        )

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._described().items()
        )
        return f"<table>{''.join(rows)}</table>"

    def _forget(self) -> None:
        """Back to before the first iteration; one instance serves every chain."""
        self.tune, self.iter_count, self.n_smoothed = True, 0, 0
        self.simulator = None
        self._state = None
        self._adapted = None
        self._failures = {}
        self.start_scores, self.dispersed = np.zeros(0), False
        self.engine.maximizer.reset()
        self.engine.climber.n_evaluations = 0
        self._evaluations_before = 0.0

    def begin_chain(
        self, rng: np.random.Generator, n_explore: int, dispersed: bool = False
    ) -> None:
        """Forget the last chain and take over the generator of the next.

        Parameters
        ----------
        rng : numpy.random.Generator
            Generator of the new chain.
        n_explore : int
            Iterations of its exploratory phase.
        dispersed : bool, default False
            Whether it starts away from the point.
        """
        self._forget()
        self.dispersed = dispersed
        self.rng = get_random_generator(rng, copy=False)
        self.schedule.n_explore = n_explore
        if not n_explore:
            self.stop_tuning()

    def set_rng(self, rng: np.random.Generator) -> None:
        """Begin a chain; PyMC 5 calls it.

        Parameters
        ----------
        rng : numpy.random.Generator
            Generator of the chain.
        """
        self._check_data()
        self.begin_chain(rng, self.schedule.n_explore)

    def setup_chain(self, rng: np.random.Generator, tune: int, draws: int) -> None:
        """Begin a chain; PyMC 6 calls it.

        Parameters
        ----------
        rng : numpy.random.Generator
            Generator of the chain.
        tune : int
            Iterations of its exploratory phase.
        draws : int
            Iterations of its smoothing phase.
        """
        self._check_data()
        self.begin_chain(rng, tune)

    def _check_data(self) -> None:
        """Whose rows are whose was read when the step was made; with other data it may be wrong without a word."""
        for name, before in self._data.items():
            if not np.array_equal(
                before,
                self.engine.mixed.model[name].get_value(),
                equal_nan=before.dtype.kind == "f",
            ):
                raise ValueError(
                    f"The data '{name}' have changed since this step read the model. Make the step after pm.set_data: "
                    "pm.sample(step=ps.SAEM())."
                )

    def stop_tuning(self) -> None:
        """End the exploratory phase: step sizes decrease, and kernels keep their scales."""
        self.tune = False
        if self.simulator is not None:
            self.simulator.stop_tuning()

    @np.errstate(all="ignore")  # values that are not finite are checked and reported
    def step(self, point: dict) -> tuple[dict, list[dict]]:
        """Run one SAEM iteration.

        Parameters
        ----------
        point : dict
            PyMC point. It starts the run in the first step; afterwards the step's own state counts.

        Returns
        -------
        dict
            ``point`` with the new theta, and phi of replicate 0.
        list of dict
            Sampler statistics.
        """
        simulator = self.ready(point)
        if not self.tune:
            self.n_smoothed += 1
        step_size = self.schedule.step_size(self.n_smoothed)
        failed_before = simulator.n_failed
        self._state, report = iterate(
            self.reached,
            partial(self._simulate, simulator),
            self.engine.maximizer,
            step_size,
            self.engine.climber,
        )
        self.iter_count += 1
        stats = {
            **{name: value for name, value in report.items() if name in self.stats_dtypes_shapes},
            "step_size": step_size,
            "n_failed": simulator.n_failed - failed_before,
            "tune": self.tune,
        }
        return self.engine.points.to_point(self._state.theta, self._state.phi[0], point), [stats]

    def ready(self, point: dict) -> Simulator:
        """Set up the chain if that is still to be done: by the first step, and after a state was restored.

        Parameters
        ----------
        point : dict
            PyMC point, where a new chain starts.

        Returns
        -------
        Simulator
            Of the E-step.
        """
        if self.simulator is not None:
            return self.simulator
        if self._state is None:
            self._state, simulator, start = self.engine.begin(
                point, self.rng, self.n_starts, self.dispersed
            )
            self.start_scores = start.scores
        else:  # a state was restored; rebuild what cannot be stored
            population = self.engine.maximizer.population(self._state.theta)
            simulator = self.engine.simulator(population, self.rng)
            if self._adapted is not None:
                simulator.adapted = self._adapted
            simulator.failures = self._failures
        if not self.tune:
            simulator.stop_tuning()
        self.simulator = simulator
        return simulator

    def _simulate(
        self, simulator: Simulator, theta: np.ndarray, phi: np.ndarray
    ) -> tuple[np.ndarray, Statistics, dict]:
        return simulator(self.engine.maximizer.population(theta), theta, phi, still=self._still())

    def _still(self) -> np.ndarray | None:
        """Subjects that do not move in this iteration (Kuhn, Matias & Rebafka 2020); all move in the first one."""
        who = self.engine.maximizer.weighted_subjects
        n_moving = max(1, round(self.minibatch * who.size))
        if n_moving == who.size or self.iter_count == 0:
            return None
        still = np.ones(self.engine.mixed.n_subjects, dtype=bool)
        still[self.rng.choice(who, size=n_moving, replace=False)] = False
        return still

    @staticmethod
    def _progressbar_config(n_chains: int = 1) -> tuple[list, dict[str, list[float]]]:
        from pymc_saem.compat import progress_column

        columns = [
            progress_column("{task.fields[step_size]:0.3f}", "Step size"),
            progress_column("{task.fields[accept]:0.2f}", "Accept"),
        ]
        return columns, {"step_size": [1.0] * n_chains, "accept": [0.0] * n_chains}

    @staticmethod
    def _make_progressbar_update_functions() -> tuple[Callable[[dict], dict], ...]:
        def update_stats(stats: dict) -> dict:
            rates = [value for name, value in stats.items() if name.startswith("accept_")]
            return {"step_size": stats["step_size"], "accept": np.nanmean(rates)}

        return (update_stats,)


def _listed(names: Sequence[str], most: int = 8) -> str:
    """Names, the first of them where they are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
