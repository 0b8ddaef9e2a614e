"""Collects finished chains into the plain arrays that results/ turns into ArviZ groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from pymc_saem.compat import observed_variables
from pymc_saem.model.graph.solves import ode_nodes
from pymc_saem.model.mixed_model import MixedModel, Parameter, parameter_labels
from pymc_saem.results.build import FitResult, Variable
from pymc_saem.results.labels import as_labels
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.report import groups
from pymc_saem.saem.report.assessment import Assessment
from pymc_saem.saem.report.messages import checks
from pymc_saem.saem.run.chain import Chain
from pymc_saem.saem.run.chains import Job, score
from pymc_saem.saem.run.stages import Stages
from pymc_saem.saem.uncertainty.standard_errors import Uncertainty


@np.errstate(all="ignore")  # values that are not finite are checked and reported
def collect(
    engine: Engine,
    runs: list[Chain],
    best: int,
    job: Job,
    assessment: Assessment,
    seconds: float,
    stages: Stages,
) -> FitResult:
    """The result of a fit, or of one that still runs; what cannot be computed is left out, with a note."""
    mixed, run = engine.mixed, runs[best]
    result = FitResult(
        coords=stages.attempt("Labels of dims", lambda: _coords(mixed), {}),
        trace=_trace(engine, runs, stages),
        population=_population(engine, run, assessment, stages),
        observed=stages.attempt("Observed data", lambda: groups.observed(mixed), {}),
        individual_coords=stages.attempt(
            "Labels of random effects", lambda: {"effect": mixed.phi_labels()}, {}
        ),
        constant=stages.attempt("Constant data", lambda: groups.constants(mixed), {}),
        attrs={
            "inference_library": "pymc_saem",
            "subject_dim": mixed.subject_dim,
            "unit_axes": {effect.name: effect.axis for effect in mixed.random_effects},
        },
    )
    if run.conditional is not None:
        finished = groups.Finished(engine, run, assessment, run.conditional)
        result.individual = groups.individual(finished, stages)
        result.posterior = groups.posterior(finished, stages)
        result.sample_stats = {"lp": Variable((), run.conditional.logp)}
    result.group_attrs["saem_trace"] = _trace_attrs(
        engine, runs, best, job, assessment, seconds, stages
    )
    result.group_attrs["population"] = stages.attempt(
        "What is known of the fit as a whole", lambda: _assessment_attrs(engine, assessment), {}
    )
    drawn = groups.draws_of(assessment) is not None
    result.group_attrs["posterior"] = {
        "random_effects": "draws from p(phi | y, theta_hat)",
        "parameters": "draws from N(theta_hat, I^-1) on the unconstrained scale; constant along directions that the data do not "
        "determine, and for network weights, fixed entries and parameters whose interval has no ends"
        if drawn
        else "constant at theta_hat; no standard errors were computed",
    }
    return result


def _coords(mixed: MixedModel) -> dict[str, Any]:
    """Labels of the model's dims; those of subjects and units as text where that is what functions compare."""
    coords: dict[str, Any] = {
        dim: list(values) for dim, values in mixed.model.coords.items() if values is not None
    }
    coords.setdefault(mixed.subject_dim, list(mixed.subjects))
    for dim in {effect.unit_dim for effect in mixed.random_effects} | {mixed.subject_dim}:
        if dim not in coords:
            continue
        coords[dim] = as_labels(coords[dim], keep_dates=False)
    own = [dim for dim in groups.OWN_DIMS if dim in coords]
    return coords | {f"{rv.name}_{dim}": coords[dim] for rv in mixed.model.free_RVs for dim in own}


def _trace_attrs(
    engine: Engine,
    runs: list[Chain],
    best: int,
    job: Job,
    assessment: Assessment,
    seconds: float,
    stages: Stages,
) -> dict[str, Any]:
    run = runs[best]
    return {
        "n_explore": job.n_explore,
        "n_smooth": job.n_smooth,
        "objective": engine.maximizer.objective,
        "n_transitions": engine.n_transitions,
        "n_replicates": engine.n_replicates,
        "best_chain": best,
        "scores": stages.attempt(
            "Scores of chains", lambda: [score(r) for r in runs] if len(runs) > 1 else [], []
        ),
        "interrupted": run.interrupted,
        "converged": bool(run.converged),
        "n_iterations": int(run.theta.shape[0]),
        "n_solves": run.n_solves,
        "n_solves_of_draws": 0 if run.conditional is None else run.conditional.n_solves,
        "solver_failures": stages.attempt(
            "Failures of solves", lambda: describe_failures(engine.mixed, run), {}
        ),
        "start_scores": [float(v) for v in run.start_scores],
        "checks": stages.attempt("Checks of the run", lambda: checks(engine, runs, run, job), {}),
        "seconds": {**run.seconds, **assessment.seconds, "total": seconds},
    }


def _assessment_attrs(engine: Engine, found: Assessment) -> dict[str, Any]:
    """What is known of the fit as a whole."""
    attrs: dict[str, Any] = {
        "n_subjects": engine.mixed.n_subjects,
        "n_observations": engine.mixed.n_values,
    }
    attrs["networks"] = [p.name for p in engine.mixed.parameters if p.is_network]
    # parameters whose estimates priors have moved
    attrs["priors"] = sorted(engine.maximizer.priors)
    if found.likelihood is not None and found.criteria is not None:
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
        attrs |= {
            "standard_errors": found.uncertainty.method,
            "standard_errors_note": found.uncertainty.note,
        }
        attrs |= {
            "condition_number": found.uncertainty.condition_number,
            "identifiability": found.uncertainty.hints,
        }
    return attrs


def _trace(engine: Engine, runs: list[Chain], stages: Stages) -> dict[str, Variable]:
    """Iterates of all chains; one that ended earlier keeps its last parameters, and has NaN for its statistics."""
    length = max(run.theta.shape[0] for run in runs)

    def padded(values: np.ndarray, fill: Any) -> np.ndarray:
        return np.concatenate([values, np.repeat(fill, length - values.shape[0], axis=0)])

    theta = np.stack([padded(run.theta, run.theta[-1:]) for run in runs])
    trace = stages.attempt("Iterates on the natural scale", lambda: _natural_trace(engine, theta))
    if trace is None:
        trace = {p.value_name: Variable((), theta[..., p.columns]) for p in engine.mixed.parameters}
    for name in runs[0].stats:
        if name != "tune":
            values = stages.attempt(
                f"'{name}' of iterations", partial(_stacked, runs, name, padded)
            )
            if values is not None:
                trace[name] = Variable((), values)
    return trace


def _natural_trace(engine: Engine, theta: np.ndarray) -> dict[str, Variable]:
    per_chain = [engine.points.natural_theta(t) for t in theta]
    return {
        p.name: Variable(
            groups.apart(p.name, groups.dims_of(p)),
            np.stack([values[p.name] for values in per_chain]),
        )
        for p in engine.mixed.parameters
    }


def _stacked(
    runs: list[Chain], name: str, padded: Callable[[np.ndarray, Any], np.ndarray]
) -> np.ndarray:
    return np.stack([padded(run.stats[name].astype(float), [np.nan]) for run in runs])


def _population(
    engine: Engine, run: Chain, assessment: Assessment, stages: Stages
) -> dict[str, np.ndarray]:
    """Columns of the table of estimates; if their names and scale cannot be had, the unconstrained values."""
    theta = run.theta[-1]
    table = stages.attempt("Estimates on the natural scale", lambda: _estimates(engine, theta))
    if table is None:
        table = {
            "parameter": np.array([f"unconstrained {k}" for k in range(theta.size)]),
            "estimate": theta,
        }
        return table | {
            name: np.full(theta.size, otherwise) for name, otherwise in _WITHOUT.items()
        }
    for name, work in (
        ("m_step", lambda: _m_steps(engine)),
        ("role", lambda: _per_entry(engine, engine.rules.role_of())),
        ("note", lambda: _per_entry(engine, dict.fromkeys(run.at_floor, "at its floor"), "")),
        ("effects", lambda: _effects_of(engine)),
        ("residual_shrinkage", lambda: _per_entry(engine, assessment.scale_shrinkage, np.nan)),
    ):
        otherwise = [_WITHOUT[name]] * len(table["estimate"])
        table[name] = np.array(stages.attempt(f"The column '{name}' of estimates", work, otherwise))
    if (found := assessment.uncertainty) is not None:
        table |= stages.attempt(
            "The columns of standard errors", lambda: _errors(found, table["estimate"]), {}
        )
    return table


#: Columns of the table that every fit has, and their values where these cannot be had.
_WITHOUT = {"m_step": "", "role": "", "note": "", "effects": "[]", "residual_shrinkage": np.nan}


def _estimates(engine: Engine, theta: np.ndarray) -> dict[str, np.ndarray]:
    natural, parameters = engine.points.natural_theta(theta), engine.mixed.parameters
    labels = [label for p in parameters for label in parameter_labels(engine.mixed.model, p)]
    values = [np.ravel(natural[p.name]) for p in parameters]
    estimate = np.concatenate(values) if values else np.zeros(0)
    if len(labels) != estimate.size:
        raise ValueError(f"{len(labels)} labels for {estimate.size} estimates")
    return {"parameter": np.array(labels), "estimate": estimate}


def _per_entry(engine: Engine, of_parameter: Mapping[str, Any], otherwise: Any = None) -> list:
    """A value of each parameter for each of its entries."""
    return [
        of_parameter.get(p.name, otherwise)
        for p in engine.mixed.parameters
        for _ in range(np.prod(p.natural_shape, dtype=int))
    ]


def _m_steps(engine: Engine) -> list[str]:
    m_steps, found = engine.rules.m_step_of(), []
    for p in engine.mixed.parameters:
        held = _held_entries(engine, p, int(np.prod(p.natural_shape, dtype=int)))
        found += ["fixed" if one else m_steps[p.name] for one in held]
    return found


def _effects_of(engine: Engine) -> list[str]:
    """For each entry, which random effects it is the variance of, as JSON."""
    phi_labels, governed, found = np.array(engine.mixed.phi_labels()), {}, []
    for rule in engine.rules.omegas:
        if rule.kind == "scalar":
            governed[rule.parameter.name] = [list(phi_labels[rule.columns])]
        elif rule.kind == "diagonal":
            governed[rule.parameter.name] = [[label] for label in phi_labels[rule.columns]]
    for p in engine.mixed.parameters:
        effects = governed.get(p.name, [[]] * int(np.prod(p.natural_shape, dtype=int)))
        found += [json.dumps([str(e) for e in names]) for names in effects]
    return found


def _errors(found: Uncertainty, estimate: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        rse = 100.0 * found.se / np.abs(estimate)
    return {
        "se": found.se,
        "rse": rse,
        "lower": found.lower,
        "upper": found.upper,
        "correlation": found.correlation,
    }


def _held_entries(engine: Engine, p: Parameter, n_labels: int) -> np.ndarray:
    """Which entries of a parameter on the natural scale were fixed; those of a vector that is constrained as a whole, all or none."""
    held = engine.maximizer.held[p.columns]
    return held if held.size == n_labels else np.full(n_labels, held.all())


def describe_failures(mixed: MixedModel, run: Chain) -> dict[str, list[int]]:
    """Text of each solver status -> number of failed proposals per subject."""
    if not run.failures:
        return {}
    op = ode_nodes(observed_variables(mixed.model))[0].op
    return {op.status_text(code): [int(n) for n in count] for code, count in run.failures.items()}
