"""Collects finished chains into the plain arrays that output/ turns into ArviZ groups."""

from __future__ import annotations

import json

import numpy as np
import pytensor
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import observed_variables
from pymc_saem.output.datatree import FitResult, Variable
from pymc_saem.saem.assess import Assessment
from pymc_saem.saem.course import Chain
from pymc_saem.saem.densities import ode_nodes
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.interpreted import INTERPRETED
from pymc_saem.saem.model import parameter_labels
from pymc_saem.saem.run import Job, score
from pymc_saem.saem.warn import checks

#: Dims of the groups saem_trace and individual that are not the model's; a model may have others of these names.
_OWN_DIMS = ("iteration", "effect")


@np.errstate(all="ignore")  # what is not finite is looked at, and told in words
def collect(
    engine: Engine, runs: list[Chain], best: int, job: Job, assessment: Assessment, seconds: float
) -> FitResult:
    """The result of a fit, or of one that still runs."""
    mixed = engine.mixed
    run = runs[best]
    coords = {dim: list(values) for dim, values in mixed.model.coords.items() if values is not None}
    coords.setdefault(mixed.subject_dim, list(mixed.subjects))
    coords |= {f"{rv.name}_{dim}": coords[dim] for rv in mixed.model.free_RVs for dim in _OWN_DIMS if dim in coords}
    result = FitResult(
        coords=coords,
        trace=_trace(engine, runs),
        population=_population(engine, run, assessment),
        observed=_observed(mixed),
        individual_coords={"effect": mixed.phi_labels()},
        constant=_constants(mixed),
        attrs={
            "inference_library": "pymc_saem",
            "subject_dim": mixed.subject_dim,
            "unit_axes": {effect.name: effect.axis for effect in mixed.random_effects},
        },
    )
    if run.conditional is not None:
        _add_individuals(engine, run, result, assessment)
    failures = describe_failures(mixed, run)
    result.group_attrs["saem_trace"] = {
        "n_explore": job.n_explore,
        "n_smooth": job.n_smooth,
        "objective": engine.maximizer.objective,
        "n_transitions": engine.n_transitions,
        "n_replicates": engine.n_replicates,
        "best_chain": best,
        "scores": [score(r) for r in runs] if len(runs) > 1 else [],
        "interrupted": run.interrupted,
        "converged": run.converged,
        "n_iterations": int(run.theta.shape[0]),
        "n_solves": run.n_solves,
        "n_solves_of_draws": 0 if run.conditional is None else run.conditional.n_solves,
        "solver_failures": failures,
        "start_scores": [float(v) for v in run.start_scores],
        "checks": checks(engine, runs, run, job),
        "seconds": {**run.seconds, **assessment.seconds, "total": seconds},
    }
    result.group_attrs["population"] = _assessment_attrs(engine, assessment)
    drawn = _drawn(assessment) is not None
    result.group_attrs["posterior"] = {
        "random_effects": "draws from p(phi | y, theta_hat)",
        "parameters": "draws from N(theta_hat, I^-1) on the unconstrained scale; constant where they have no standard error"
        if drawn
        else "constant at theta_hat; no standard errors were computed",
    }
    return result


def _drawn(assessment: Assessment) -> np.ndarray | None:
    """Draws of theta (draw, theta); None without standard errors."""
    return None if assessment.uncertainty is None else assessment.uncertainty.theta


def _assessment_attrs(engine: Engine, found: Assessment) -> dict:
    """What is known of the fit as a whole."""
    attrs = {"n_subjects": engine.mixed.n_subjects, "n_observations": engine.mixed.n_values}
    attrs["priors"] = sorted(engine.maximizer.priors)  # parameters whose estimates priors have moved
    if found.likelihood is not None:
        attrs |= {
            "loglik": found.likelihood.total,
            "loglik_error": found.likelihood.total_error,
            "loglik_method": found.likelihood.method,
            "n_parameters": found.criteria.n_parameters,
            "aic": float(found.criteria.aic),
            "bic": float(found.criteria.bic),
            "bicc": float(found.criteria.bicc),
        }
    if found.residual_shrinkage:
        attrs["residual_shrinkage"] = found.residual_shrinkage
    if found.uncertainty is not None:
        attrs |= {"standard_errors": found.uncertainty.method, "standard_errors_note": found.uncertainty.note}
        attrs |= {"condition_number": found.uncertainty.condition_number, "identifiability": found.uncertainty.hints}
    return attrs


def _trace(engine: Engine, runs: list[Chain]) -> dict[str, Variable]:
    """Iterates of all chains; one that ended earlier keeps its last parameters, and has NaN for its statistics."""
    length = max(run.theta.shape[0] for run in runs)

    def padded(values, fill):
        return np.concatenate([values, np.repeat(fill, length - values.shape[0], axis=0)])

    theta = np.stack([padded(run.theta, run.theta[-1:]) for run in runs])
    trace = {}
    per_chain = [engine.points.natural_theta(t) for t in theta]
    for p in engine.mixed.parameters:
        trace[p.name] = Variable(_apart(p.name, _dims(p)), np.stack([values[p.name] for values in per_chain]))
    for name in runs[0].stats:
        if name != "tune":
            trace[name] = Variable((), np.stack([padded(run.stats[name].astype(float), [np.nan]) for run in runs]))
    return trace


def _dims(variable) -> tuple:
    return tuple(d for d in variable.dims) if any(variable.dims) else ()


def _apart(name: str, dims: tuple) -> tuple:
    """Dims of a variable of the model, those with a name that a group of a fit uses itself renamed."""
    return tuple(f"{name}_{dim}" if dim in _OWN_DIMS else dim for dim in dims)


def _population(engine: Engine, run: Chain, assessment: Assessment) -> dict[str, np.ndarray]:
    mixed = engine.mixed
    natural = engine.points.natural_theta(run.theta[-1])
    m_steps, roles = engine.rules.m_step_of(), engine.rules.role_of()
    phi_labels = np.array(mixed.phi_labels())
    governed = {}
    for rule in engine.rules.omegas:
        if rule.kind == "scalar":
            governed[rule.parameter.name] = [list(phi_labels[rule.columns])]
        elif rule.kind == "diagonal":
            governed[rule.parameter.name] = [[label] for label in phi_labels[rule.columns]]
    columns = {"parameter": [], "estimate": [], "m_step": [], "role": [], "note": [], "effects": []}
    columns["residual_shrinkage"] = []
    for p in mixed.parameters:
        labels = parameter_labels(mixed.model, p)
        columns["parameter"] += labels
        columns["estimate"] += list(np.ravel(natural[p.name]))
        columns["m_step"] += ["fixed" if held else m_steps[p.name] for held in _held_entries(engine, p, len(labels))]
        columns["role"] += [roles[p.name]] * len(labels)
        columns["note"] += ["at its floor" if p.name in run.at_floor else ""] * len(labels)
        effects = governed.get(p.name, [[]] * len(labels))
        columns["effects"] += [json.dumps([str(e) for e in names]) for names in effects]
        columns["residual_shrinkage"] += [assessment.scale_shrinkage.get(p.name, np.nan)] * len(labels)
    table = {name: np.array(values) for name, values in columns.items()}
    found = assessment.uncertainty
    if found is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            rse = 100.0 * found.se / np.abs(table["estimate"])
        table |= {"se": found.se, "rse": rse, "lower": found.lower, "upper": found.upper}
        table["correlation"] = found.correlation
    return table


def _held_entries(engine: Engine, p, n_labels: int) -> np.ndarray:
    """Which entries of a parameter on the natural scale were fixed; those of a vector that is constrained as a whole, all or none."""
    held = engine.maximizer.held[p.columns]
    return held if held.size == n_labels else np.full(n_labels, held.all())


def _add_individuals(engine: Engine, run: Chain, result: FitResult, assessment: Assessment) -> None:
    mixed, found = engine.mixed, run.conditional
    subject = (mixed.subject_dim,)
    both = (mixed.subject_dim, "effect")
    result.individual = {
        "conditional_mode": Variable(both, found.mode),
        "conditional_mean": Variable(both, found.mean),
        "conditional_sd": Variable(both, found.sd),
        "mode_logp": Variable(subject, found.mode_logp),
        "mode_agreement": Variable(subject, found.mode_agreement),
        "conditional_rhat": Variable(both, found.convergence.rhat),
        "conditional_ess": Variable(both, found.convergence.ess),
        "conditional_ess_sd": Variable(both, found.convergence.ess_sd),
        "loglik_rhat": Variable(subject, found.convergence.loglik_rhat),
        "loglik_ess": Variable(subject, found.convergence.loglik_ess),
        "judged_rhat": Variable(subject, found.convergence.worst_rhat),
        "judged_ess": Variable(subject, found.convergence.worst_ess),
        "solver_error": Variable(subject, found.solver_error),
        "shrinkage": Variable(("effect",), found.shrinkage),
        "population_mean": Variable(both, engine.maximizer.population(run.theta[-1]).mean),
    }
    if (marginal := assessment.likelihood) is not None:
        columns = {"loglik": marginal.loglik, "loglik_error": marginal.error}
        columns |= {"ess": marginal.ess, "pareto_k": marginal.pareto_k}
        result.individual |= {name: Variable(subject, x) for name, x in columns.items() if x is not None}
    lead = found.draws.shape[:2]
    posterior, drawn = {}, _drawn(assessment)
    for name, values in engine.points.natural_theta(run.theta[-1] if drawn is None else drawn).items():
        p = mixed.parameter(name)
        values = (
            np.broadcast_to(values, (*lead, *values.shape))
            if drawn is None
            else values.reshape(*lead, *values.shape[1:])
        )
        posterior[name] = Variable(_dims(p), values)
    natural = engine.points.natural_phi(found.draws, run.theta[-1])
    modes = engine.points.natural_phi(found.mode, run.theta[-1])
    typical = engine.points.natural_phi(engine.maximizer.population(run.theta[-1]).mean, run.theta[-1])
    columns = {"mode": modes, "mean": _over_draws(np.mean, natural), "sd": _over_draws(np.std, natural, ddof=1)}
    for name, values in columns.items():
        result.individual[f"natural_{name}"] = Variable(both, _as_columns(mixed, values))
    for effect in mixed.random_effects:
        # Units without a dim are no subjects: they get one of their own, by the variable's name.
        before = tuple(f"{effect.name}_dim_{axis}" for axis in range(effect.axis))
        dims = tuple(effect.dims) if any(effect.dims) or effect.is_nested else (*before, mixed.subject_dim)
        posterior[effect.name] = Variable(dims, natural[effect.name])
        for name, values in {"mode": modes, "population": typical}.items():
            result.individual[f"{effect.name}_{name}"] = Variable(_apart(effect.name, dims), values[effect.name])
    result.posterior = posterior | _deterministics(mixed, posterior, lead)
    result.sample_stats = {"lp": Variable((), found.logp)}


def _over_draws(statistic, values: dict[str, np.ndarray], **options) -> dict[str, np.ndarray]:
    """Of values (chain, draw, ...) by name."""
    return {name: statistic(x, axis=(0, 1), **options) for name, x in values.items()}


def _as_columns(mixed, values: dict[str, np.ndarray]) -> np.ndarray:
    """Natural values of the random effects by name, each in the column of phi that it belongs to; NaN without a unit."""
    blocks = [effect.to_columns(values[effect.name], mixed.n_subjects) for effect in mixed.random_effects]
    return np.where(mixed.is_used, np.concatenate(blocks, axis=-1), np.nan)


def _deterministics(mixed, posterior, lead) -> dict[str, Variable]:
    """pm.Deterministic variables at every draw, as pm.sample reports them."""
    left_out = [rv for rv in mixed.model.free_RVs if rv.name not in posterior]  # missing rows
    wanted = [d for d in mixed.model.deterministics if not set(left_out) & set(ancestors([d]))]
    if not wanted:
        return {}
    free = list(mixed.model.free_RVs)
    reached = set(ancestors(wanted))
    inputs = [rv for rv in free if rv in reached]
    f = pytensor.function(inputs, wanted, mode=INTERPRETED, on_unused_input="ignore")
    rows = [
        f(*(np.asarray(posterior[rv.name].values[c, d], dtype=rv.type.dtype) for rv in inputs))
        for c, d in np.ndindex(*lead)
    ]
    out = {}
    for k, rv in enumerate(wanted):
        values = np.stack([row[k] for row in rows])
        dims = tuple(mixed.model.named_vars_to_dims.get(rv.name) or ())
        out[rv.name] = Variable(dims, values.reshape(*lead, *values.shape[1:]))
    return out


def _observed(mixed) -> dict[str, Variable]:
    out = {}
    for rv in observed_variables(mixed.model):
        values = _value(mixed.model.rvs_to_values[rv])
        out[rv.name] = Variable(tuple(mixed.model.named_vars_to_dims.get(rv.name) or ()), values)
    return out


def _value(data) -> np.ndarray:
    """What a variable without inputs holds; not ``eval()``, which calls the C compiler for a second."""
    if hasattr(data, "get_value"):
        return np.asarray(data.get_value())
    return np.asarray(pytensor.function([], data, mode=INTERPRETED)())


def _constants(mixed) -> dict[str, Variable]:
    out = {}
    for name in (v.name for v in mixed.model.data_vars):
        if name not in {rv.name for rv in observed_variables(mixed.model)}:
            out[name] = Variable(tuple(mixed.model.named_vars_to_dims.get(name) or ()), _value(mixed.model[name]))
    for outcome in mixed.outcomes:
        out[f"{outcome.name}_subject"] = Variable((), outcome.row_subject)
    for effect in mixed.random_effects:
        if effect.is_nested:
            out[f"{effect.name}_subject"] = Variable((effect.unit_dim,) if effect.unit_dim else (), effect.unit_subject)
    return out


def describe_failures(mixed, run: Chain) -> dict[str, list[int]]:
    """Text of each solver status -> number of failed proposals per subject."""
    if not run.failures:
        return {}
    op = ode_nodes(observed_variables(mixed.model))[0].op
    return {op.status_text(code): [int(n) for n in count] for code, count in run.failures.items()}
