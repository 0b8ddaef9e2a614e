"""Collects finished chains into the plain arrays that output/ turns into ArviZ groups."""

from __future__ import annotations

import json

import numpy as np
import pytensor
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import observed_variables
from pymc_saem.output.datatree import FitResult, Variable
from pymc_saem.saem.densities import ode_nodes
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.interpreted import INTERPRETED
from pymc_saem.saem.model import element_labels
from pymc_saem.saem.run import Chain, Job, score


def collect(engine: Engine, runs: list[Chain], best: int, job: Job, seconds: float) -> tuple[FitResult, list[str]]:
    """The result of a fit, and the warnings that its user should read."""
    mixed = engine.mixed
    run = runs[best]
    coords = {dim: list(values) for dim, values in mixed.model.coords.items() if values is not None}
    coords.setdefault(mixed.subject_dim, list(mixed.subjects))
    coords["effect"] = mixed.phi_labels()
    result = FitResult(
        coords=coords,
        trace=_trace(engine, runs),
        population=_population(engine, run),
        observed=_observed(mixed),
        constant=_constants(mixed),
        attrs={"inference_library": "pymc_saem", "subject_dim": mixed.subject_dim},
    )
    if run.conditional is not None:
        _add_individuals(engine, run, result)
    failures = _describe_failures(mixed, run)
    result.group_attrs["saem_trace"] = {
        "n_explore": job.n_explore,
        "n_smooth": job.n_smooth,
        "objective": engine.maximizer.objective,
        "n_transitions": engine.n_transitions,
        "n_replicates": engine.n_replicates,
        "best_chain": best,
        "scores": [score(r) for r in runs] if len(runs) > 1 else [],
        "interrupted": run.interrupted,
        "n_solves": run.n_solves,
        "solver_failures": failures,
        "start_scores": [float(v) for v in run.start_scores],
        "seconds": {**run.seconds, "total": seconds},
    }
    result.group_attrs["posterior"] = {
        "random_effects": "draws from p(phi | y, theta_hat)",
        "parameters": "constant at theta_hat; no standard errors were computed",
    }
    return result, _messages(mixed, runs, run, failures, job)


def _trace(engine: Engine, runs: list[Chain]) -> dict[str, Variable]:
    length = min(run.theta.shape[0] for run in runs)  # an interrupted chain is shorter
    theta = np.stack([run.theta[-length:] if length else run.theta for run in runs])
    trace = {}
    per_chain = [engine.points.natural_theta(t) for t in theta]
    for p in engine.mixed.parameters:
        trace[p.name] = Variable(_dims(p), np.stack([values[p.name] for values in per_chain]))
    for name in runs[0].stats:
        if name != "tune":
            trace[name] = Variable((), np.stack([run.stats[name][-length:] for run in runs]))
    return trace


def _dims(variable) -> tuple:
    return tuple(d for d in variable.dims) if any(variable.dims) else ()


def _population(engine: Engine, run: Chain) -> dict[str, np.ndarray]:
    mixed = engine.mixed
    natural = engine.points.natural_theta(run.theta[-1])
    kinds = engine.rules.kind_of()
    phi_labels = np.array(mixed.phi_labels())
    governed = {}
    for rule in engine.rules.omegas:
        if rule.kind == "scalar":
            governed[rule.parameter.name] = [list(phi_labels[rule.columns])]
        elif rule.kind == "diagonal":
            governed[rule.parameter.name] = [[label] for label in phi_labels[rule.columns]]
    columns = {"parameter": [], "estimate": [], "m_step": [], "note": [], "effects": []}
    for p in mixed.parameters:
        labels = element_labels(mixed.model, p.name, p.shape, p.dims)
        columns["parameter"] += labels
        columns["estimate"] += list(np.ravel(natural[p.name]))
        fixed = p.name in engine.maximizer.fixed
        columns["m_step"] += ["fixed" if fixed else kinds[p.name]] * len(labels)
        columns["note"] += ["at its floor" if p.name in run.at_floor else ""] * len(labels)
        effects = governed.get(p.name, [[]] * len(labels))
        columns["effects"] += [json.dumps([str(e) for e in names]) for names in effects]
    return {name: np.array(values) for name, values in columns.items()}


def _add_individuals(engine: Engine, run: Chain, result: FitResult) -> None:
    mixed, found = engine.mixed, run.conditional
    subject = (mixed.subject_dim,)
    both = (mixed.subject_dim, "effect")
    result.individual = {
        "conditional_mode": Variable(both, found.mode),
        "conditional_mean": Variable(both, found.mean),
        "conditional_sd": Variable(both, found.sd),
        "mode_logp": Variable(subject, found.mode_logp),
        "shrinkage": Variable(("effect",), found.shrinkage),
        "population_mean": Variable(both, engine.maximizer.population(run.theta[-1]).mean),
    }
    lead = found.draws.shape[:2]
    posterior = {}
    for name, values in engine.points.natural_theta(run.theta[-1]).items():
        p = mixed.parameter(name)
        posterior[name] = Variable(_dims(p), np.broadcast_to(values, (*lead, *values.shape)))
    natural = engine.points.natural_phi(found.draws)
    modes = engine.points.natural_phi(found.mode)
    typical = engine.points.natural_phi(engine.maximizer.population(run.theta[-1]).mean)
    for effect in mixed.random_effects:
        dims = tuple(effect.dims) if any(effect.dims) else (mixed.subject_dim,)
        posterior[effect.name] = Variable(dims, natural[effect.name])
        result.individual[f"{effect.name}_mode"] = Variable(dims, modes[effect.name])
        result.individual[f"{effect.name}_population"] = Variable(dims, typical[effect.name])
    result.posterior = posterior | _deterministics(mixed, posterior, lead)
    result.sample_stats = {"lp": Variable((), found.logp)}


def _deterministics(mixed, posterior, lead) -> dict[str, Variable]:
    """pm.Deterministic variables at every draw, as pm.sample reports them."""
    if not mixed.model.deterministics:
        return {}
    free = list(mixed.model.free_RVs)
    reached = set(ancestors(mixed.model.deterministics))
    inputs = [rv for rv in free if rv in reached]
    f = pytensor.function(inputs, mixed.model.deterministics, mode=INTERPRETED, on_unused_input="ignore")
    rows = [
        f(*(np.asarray(posterior[rv.name].values[c, d], dtype=rv.type.dtype) for rv in inputs))
        for c, d in np.ndindex(*lead)
    ]
    out = {}
    for k, rv in enumerate(mixed.model.deterministics):
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
    return out


def _describe_failures(mixed, run: Chain) -> dict[str, list[int]]:
    """Text of each solver status -> number of failed proposals per subject."""
    if not run.failures:
        return {}
    op = ode_nodes(observed_variables(mixed.model))[0].op
    return {op.status_text(code): [int(n) for n in count] for code, count in run.failures.items()}


_ADAPT = "Increase n_explore, so that the scales adapt, or n_transitions."
#: What to do when proposals of a kernel are hardly ever accepted.
_CURES = {
    "coordinate": _ADAPT,
    "block": _ADAPT,
    "mala": _ADAPT,
    "independence": "The conditional distributions are not near enough to Gaussian ones: leave 'independence' out of kernel.",
}


def _messages(mixed, runs, run: Chain, failures, job: Job) -> list[str]:
    messages = list(run.trouble)
    if run.interrupted:
        n = run.theta.shape[0]
        messages.append(
            f"SAEM was interrupted after {n} of {job.n_explore + job.n_smooth} iterations; the result is that of iteration {n}."
        )
    if run.at_floor:
        messages.append(
            f"The variance of {', '.join(run.at_floor)} reached its floor (1e-4 of its starting value as a standard deviation): the data "
            "show no variability there. Fix it with fit_saem(fixed={...}), or remove the random effect."
        )
    smoothing = {
        name: values[-max(1, job.n_smooth) :] for name, values in run.stats.items() if name.startswith("accept_")
    }
    for name, cure in _CURES.items():
        rate = float(np.nanmean(smoothing[f"accept_{name}"])) if np.isfinite(smoothing[f"accept_{name}"]).any() else 1.0
        if rate < 0.1:
            messages.append(
                f"The {name} proposals were accepted in {100 * rate:.1f} % of the cases; below 10 % they hardly move the E-step. {cure}"
            )
    total = sum(sum(counts) for counts in failures.values())
    if total > 0.05 * run.n_solves:
        worst = max(failures, key=lambda text: sum(failures[text]))
        messages.append(f"{total} of {run.n_solves} solves failed and were rejected as proposals; most often: {worst}")
    return messages
