"""What is in the groups of a fit besides its estimates and their trace; each variable is computed on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pymc as pm
import pytensor
from pytensor.graph.basic import Variable as GraphVariable
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import observed_variables
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import MixedModel, Parameter, RandomEffect
from pymc_saem.results.build import Dims, Variable
from pymc_saem.saem.conditional.draws import Conditional
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.report.assessment import Assessment
from pymc_saem.saem.run.chain import Chain
from pymc_saem.saem.run.stages import Stages

#: Dims of the groups saem_trace and individual that are not the model's; a model may have others of
#: these names.
OWN_DIMS = ("iteration", "effect")


@dataclass
class Finished:
    """A finished chain, and what is derived from it for several variables."""

    engine: Engine
    run: Chain
    assessment: Assessment
    found: Conditional

    @property
    def mixed(self) -> MixedModel:
        return self.engine.mixed

    @property
    def theta(self) -> np.ndarray:
        return self.run.theta[-1]

    @cached_property
    def population_mean(self) -> np.ndarray:
        """Mean of phi, (subject, phi)."""
        return self.engine.maximizer.population(self.theta).mean

    @cached_property
    def natural(self) -> dict[str, np.ndarray]:
        """Random effects at the conditional draws."""
        return self.engine.points.natural_phi(self.found.draws, self.theta)

    @cached_property
    def modes(self) -> dict[str, np.ndarray]:
        return self.engine.points.natural_phi(self.found.mode, self.theta)

    @cached_property
    def typical(self) -> dict[str, np.ndarray]:
        return self.engine.points.natural_phi(self.population_mean, self.theta)

    def of_likelihood(self, name: str) -> np.ndarray | None:
        return getattr(self.assessment.likelihood, name, None)

    def as_columns(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """Natural values of the random effects by name, each in the column of phi that it belongs to; NaN without a unit."""
        mixed = self.mixed
        blocks = [
            effect.to_columns(values[effect.name], mixed.n_subjects)
            for effect in mixed.random_effects
        ]
        return np.where(mixed.is_used, np.concatenate(blocks, axis=-1), np.nan)

    def over_draws(self, statistic: Callable[..., np.ndarray], **options: Any) -> np.ndarray:
        return self.as_columns(
            {name: statistic(x, axis=(0, 1), **options) for name, x in self.natural.items()}
        )


_SUBJECT, _EFFECT, _BOTH = ("subject",), ("effect",), ("subject", "effect")
#: Variables of the group individual that do not have a name of the model: dims, and values, or None
#: where a fit has none.
INDIVIDUAL: dict[str, tuple[tuple[str, ...], Callable[[Finished], np.ndarray | None]]] = {
    "conditional_mode": (_BOTH, lambda f: f.found.mode),
    "conditional_mean": (_BOTH, lambda f: f.found.mean),
    "conditional_sd": (_BOTH, lambda f: f.found.sd),
    "mode_logp": (_SUBJECT, lambda f: f.found.mode_logp),
    "mode_agreement": (_SUBJECT, lambda f: f.found.mode_agreement),
    "conditional_rhat": (_BOTH, lambda f: f.found.convergence.rhat),
    "conditional_ess": (_BOTH, lambda f: f.found.convergence.ess),
    "conditional_ess_sd": (_BOTH, lambda f: f.found.convergence.ess_sd),
    "loglik_rhat": (_SUBJECT, lambda f: f.found.convergence.loglik_rhat),
    "loglik_ess": (_SUBJECT, lambda f: f.found.convergence.loglik_ess),
    "judged_rhat": (_SUBJECT, lambda f: f.found.convergence.worst_rhat),
    "judged_ess": (_SUBJECT, lambda f: f.found.convergence.worst_ess),
    "solver_error": (_SUBJECT, lambda f: f.found.solver_error),
    "shrinkage": (_EFFECT, lambda f: f.found.shrinkage),
    "population_mean": (_BOTH, lambda f: f.population_mean),
    "loglik": (_SUBJECT, lambda f: f.of_likelihood("loglik")),
    "loglik_error": (_SUBJECT, lambda f: f.of_likelihood("error")),
    "ess": (_SUBJECT, lambda f: f.of_likelihood("ess")),
    "pareto_k": (_SUBJECT, lambda f: f.of_likelihood("pareto_k")),
    "natural_mode": (_BOTH, lambda f: f.as_columns(f.modes)),
    "natural_mean": (_BOTH, lambda f: f.over_draws(np.mean)),
    "natural_sd": (_BOTH, lambda f: f.over_draws(np.std, ddof=1)),
}
#: Two more variables for each random effect, under its name.
OF_EFFECT: dict[str, Callable[[Finished], dict[str, np.ndarray]]] = {
    "mode": lambda f: f.modes,
    "population": lambda f: f.typical,
}


def individual(finished: Finished, stages: Stages) -> dict[str, Variable]:
    """Variables of the group individual; NaN where one cannot be computed."""
    mixed, out = finished.mixed, {}
    sizes = {"subject": mixed.n_subjects, "effect": mixed.n_phi}

    def add(
        name: str, dims: Dims, values: Callable[[], np.ndarray | None], shape: tuple[int, ...]
    ) -> None:
        found = stages.attempt(f"'{name}' of individuals", values, np.full(shape, np.nan))
        if found is not None:
            out[name] = Variable(dims, found)

    for name, (dims, get) in INDIVIDUAL.items():
        of_model = tuple(mixed.subject_dim if dim == "subject" else dim for dim in dims)
        add(name, of_model, partial(get, finished), tuple(sizes[dim] for dim in dims))
    for effect in mixed.random_effects:
        for name, of_all in OF_EFFECT.items():
            own = apart(effect.name, dims_of_effect(mixed, effect))
            add(
                f"{effect.name}_{name}",
                own,
                partial(_of_effect, of_all, finished, effect.name),
                effect.shape,
            )
    return out


def _of_effect(
    of_all: Callable[[Finished], dict[str, np.ndarray]], finished: Finished, name: str
) -> np.ndarray:
    return of_all(finished)[name]


def posterior(finished: Finished, stages: Stages) -> dict[str, Variable]:
    """Draws of parameters and of random effects, and what pm.Deterministic variables are at them."""
    mixed = finished.mixed
    out = stages.attempt("Draws of parameters", lambda: _parameters(finished), {})
    drawn = stages.attempt("Draws of random effects", lambda: finished.natural, {})
    effects = {effect.name: effect for effect in mixed.random_effects}
    out |= {
        name: Variable(dims_of_effect(mixed, effects[name]), values)
        for name, values in drawn.items()
    }
    return out | deterministics(mixed, out, finished.found.draws.shape[:2], stages)


def _parameters(finished: Finished) -> dict[str, Variable]:
    lead, drawn, out = finished.found.draws.shape[:2], draws_of(finished.assessment), {}
    natural = finished.engine.points.natural_theta(finished.theta if drawn is None else drawn)
    for name, values in natural.items():
        values = (
            np.broadcast_to(values, (*lead, *values.shape))
            if drawn is None
            else values.reshape(*lead, *values.shape[1:])
        )
        out[name] = Variable(dims_of(finished.mixed.parameter(name)), values)
    return out


def draws_of(assessment: Assessment) -> np.ndarray | None:
    """Draws of theta (draw, theta); None without standard errors."""
    return None if assessment.uncertainty is None else assessment.uncertainty.theta


def dims_of(variable: Parameter) -> Dims:
    return tuple(variable.dims) if any(variable.dims) else ()


def dims_of_effect(mixed: MixedModel, effect: RandomEffect) -> Dims:
    """Units without a dim are not subjects: they get one of their own, by the variable's name."""
    before = tuple(f"{effect.name}_dim_{axis}" for axis in range(effect.axis))
    return (
        tuple(effect.dims) if any(effect.dims) or effect.is_nested else (*before, mixed.subject_dim)
    )


def apart(name: str, dims: Dims) -> Dims:
    """Dims of a variable of the model, those with a name that a group of a fit uses itself renamed."""
    return tuple(f"{name}_{dim}" if dim in OWN_DIMS else dim for dim in dims)


def deterministics(
    mixed: MixedModel, posterior: Mapping[str, Variable], lead: tuple[int, ...], stages: Stages
) -> dict[str, Variable]:
    """pm.Deterministic variables at every draw, as pm.sample reports them; one by one where together they fail."""
    left_out = {rv for rv in mixed.model.free_RVs if rv.name not in posterior}  # missing rows
    wanted = [d for d in mixed.model.deterministics if not left_out & set(ancestors([d]))]
    if not wanted:
        return {}
    together = stages.attempt(
        "pm.Deterministic variables",
        lambda: _at_draws(mixed, wanted, posterior, lead),
        is_long=True,
    )
    if together is not None:
        return together
    out: dict[str, Variable] = {}
    if stages.notes[-1].was_interrupted:
        return out
    for one in wanted:
        work = partial(_at_draws, mixed, [one], posterior, lead)
        out |= stages.attempt(f"pm.Deterministic '{one.name}'", work, {}, is_long=True)
    return out


def _at_draws(
    mixed: MixedModel,
    wanted: list[GraphVariable],
    posterior: Mapping[str, Variable],
    lead: tuple[int, ...],
) -> dict[str, Variable]:
    reached = set(ancestors(wanted))
    inputs = [rv for rv in mixed.model.free_RVs if rv in reached]
    f = pytensor.function(inputs, wanted, mode=INTERPRETED, on_unused_input="ignore")
    rows = [
        f(*(np.asarray(posterior[rv.name].values[c, d], dtype=rv.type.dtype) for rv in inputs))
        for c, d in np.ndindex(*lead)
    ]
    out = {}
    for k, rv in enumerate(wanted):
        values = np.stack([row[k] for row in rows])
        dims = tuple(mixed.model.named_vars_to_dims.get(rv.name) or ())
        out[str(rv.name)] = Variable(dims, values.reshape(*lead, *values.shape[1:]))
    return out


def observed(mixed: MixedModel) -> dict[str, Variable]:
    """Data of the outcomes."""
    model = mixed.model
    return {
        str(rv.name): _data(model, str(rv.name), model.rvs_to_values[rv])
        for rv in observed_variables(model)
    }


def constants(mixed: MixedModel) -> dict[str, Variable]:
    """Other data of the model, and the subjects of the rows and units."""
    model, outcomes = mixed.model, {rv.name for rv in observed_variables(mixed.model)}
    out = {
        v.name: _data(model, v.name, model[v.name])
        for v in model.data_vars
        if v.name not in outcomes
    }
    return out | owners(mixed)


def owners(mixed: MixedModel) -> dict[str, Variable]:
    """Number of the subject of each row of each outcome, and of each unit of a lower level."""
    out = {
        f"{outcome.name}_subject": Variable((), outcome.row_subject) for outcome in mixed.outcomes
    }
    for effect in mixed.random_effects:
        if effect.unit_subject is not None:
            out[f"{effect.name}_subject"] = Variable(
                (effect.unit_dim,) if effect.unit_dim else (), effect.unit_subject
            )
    return out


def _data(model: pm.Model, name: str, data: Any) -> Variable:
    """What a variable without inputs holds; not by ``eval()``, which calls the C compiler for a second."""
    if hasattr(data, "get_value"):
        values = np.asarray(data.get_value())
    else:
        values = np.asarray(pytensor.function([], data, mode=INTERPRETED)())
    return Variable(tuple(model.named_vars_to_dims.get(name) or ()), values)
