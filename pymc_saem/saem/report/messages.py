"""Messages for the user of a fit: what was found, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pymc_saem.results.thresholds import (
    LARGE,
    LARGEST_FAILED,
    LARGEST_RHAT,
    LARGEST_SOLVER_ERROR,
    LEAST_ESS,
    SHRUNKEN,
    SMALLEST_ACCEPTANCE,
)
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.estep.kernel import acceptance_of
from pymc_saem.saem.estep.registry import KERNELS
from pymc_saem.saem.report.boundary import at_boundary
from pymc_saem.saem.run.chain import Chain
from pymc_saem.saem.run.chains import Job


def checks(engine: Engine, runs: list[Chain], run: Chain, job: Job) -> dict[str, dict[str, float]]:
    """What the messages are about, in numbers, for the attributes of a fit and :func:`pymc_saem.diagnostics`.

    Returns
    -------
    dict
        "drift" and "disagreement" by parameter, in approximate standard errors; "acceptance" by
        kernel; "shrinkage" by effect; "boundary" by entry of a parameter. Empty where there is
        nothing to report, as with too few iterations.
    """
    return {
        "drift": {} if run.drift is None else _by_parameter(engine, run.drift),
        "disagreement": _disagreement(engine, runs),
        "acceptance": _acceptance(run, job),
        "shrinkage": _shrinkage(engine, run),
        "boundary": _boundary(engine, run),
    }


def messages(
    engine: Engine, runs: list[Chain], run: Chain, failures: dict[str, list[int]], job: Job
) -> list[str]:
    """Messages about the reported chain ``run``, and about the agreement of all ``runs``."""
    seen = checks(engine, runs, run, job)
    found = [
        *_interruption(runs, run, job),
        *_floors(run),
        *_on_bounds(seen["boundary"]),
        *_stuck(seen["acceptance"]),
        *_failures(run, failures),
    ]
    found += _no_mode(engine, run)
    if not run.interrupted and job.n_smooth:
        found += [
            *_moved(run, seen["drift"]),
            *_apart(seen["disagreement"]),
            *_shrunken(seen["shrinkage"]),
        ]
        found += _too_few_draws(engine, run)
    return [*found, *_too_many_parameters(engine)]


def _interruption(runs: list[Chain], run: Chain, job: Job) -> Iterator[str]:
    total = job.n_explore + job.n_smooth
    for one in runs:
        if one.interrupted:
            n, where = one.theta.shape[0], "" if len(runs) == 1 else f" of chain {one.number}"
            yield (
                f"SAEM was interrupted after {n} of {total} iterations{where}; the result is that of "
                + (f"iteration {n}." if one is run else f"chain {run.number}.")
            )


def _floors(run: Chain) -> Iterator[str]:
    if run.at_floor:
        yield (
            f"The variance of {', '.join(run.at_floor)} reached its floor (1e-4 of its starting value as a standard deviation): the data "
            "do not support variability in this effect. Fix it with fit_saem(fixed={...}), or remove the random effect."
        )


def _boundary(engine: Engine, run: Chain) -> dict[str, float]:
    """Entries on a bound, except variances reported as at their floor."""
    found = at_boundary(
        engine.mixed, engine.points, engine.maximizer.held, run.theta[0], run.theta[-1]
    )
    return {
        label: share for label, share in found.items() if label.split("[")[0] not in run.at_floor
    }


def _on_bounds(boundary: dict[str, float]) -> Iterator[str]:
    if boundary:
        listed = ", ".join(
            f"{label} ({share:.1g} of where it began)"
            for label, share in list(boundary.items())[:5]
        )
        more = f" and {len(boundary) - 5} more" if len(boundary) > 5 else ""
        yield (
            f"These parameters ended on a bound, such as a scale at 0 or a correlation at 1: {listed}{more}. The data contain no evidence for "
            "them, or the run diverged: compare log-likelihoods from different initvals. If the bound is real, remove the parameter "
            "from the model or fix it with fixed={...}; there are no standard errors on a bound."
        )


def _acceptance(run: Chain, job: Job) -> dict[str, float]:
    """Share of the proposals of each kernel that were accepted in the smoothing phase."""
    rates = {}
    for name in KERNELS:
        seen = run.stats[acceptance_of(name)][-max(1, job.n_smooth) :]
        if np.isfinite(seen).any():
            rates[name] = float(np.nanmean(seen))
    return rates


def _stuck(acceptance: dict[str, float]) -> Iterator[str]:
    """Kernels that hardly move, where that is a reason to worry."""
    for name, rate in acceptance.items():
        advice = KERNELS[name].advice
        if advice and rate < SMALLEST_ACCEPTANCE:
            yield f"The {name} proposals had an acceptance rate of {100 * rate:.1f} %; below 10 % they hardly move the E-step. {advice}"


def _failures(run: Chain, failures: dict[str, list[int]]) -> Iterator[str]:
    total = sum(sum(counts) for counts in failures.values())
    if total > LARGEST_FAILED * run.n_solves:
        worst = max(failures, key=lambda text: sum(failures[text]))
        yield f"{total} of {run.n_solves} solves failed and were rejected as proposals; most often: {worst}"


def _no_mode(engine: Engine, run: Chain) -> Iterator[str]:
    if run.conditional is None:
        return
    lost = np.flatnonzero(~np.isfinite(run.conditional.mode_logp))
    if lost.size:
        yield (
            f"No conditional mode was found for {_subjects(engine, lost)}: log p(y, phi) is not finite at any start of the search, nor at any "
            "conditional draw, because every solve fails or the data are impossible there. Their modes in the result are the "
            "population mean. Check their rows (and doses), or exclude them."
        )


def _subjects(engine: Engine, which: np.ndarray, limit: int = 5) -> str:
    """ "subject 3", or "subjects 3, 5 and 2 more" """
    names = [str(engine.mixed.subjects[i]) for i in which]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{engine.mixed.subject_dim}{'s' if len(names) > 1 else ''} {', '.join(names[:limit])}{more}"


def _too_few_draws(engine: Engine, run: Chain) -> Iterator[str]:
    """Message about conditional draws; none after a run that was too short for anything.

    None for network weights either, where coarse solves make peaks that chains do not leave (28
    weights, tolerance 1e-2: R-hat 1.35 after 450 draws in 1.2 million solves;
    benchmarks/README.md): such fits are exploration, as the last line of their table states.
    """
    if (
        run.conditional is None
        or run.drift is None
        or all(e.is_network for e in engine.mixed.random_effects)
    ):
        return
    found = run.conditional.convergence
    missing = np.flatnonzero(~found.is_enough)
    if not missing.size:
        return
    # a chain that does not move
    rhat = np.where(np.isnan(found.worst_rhat), np.inf, found.worst_rhat)[missing]
    order = np.argsort(-rhat)
    error = run.conditional.solver_error[missing].max()
    cure = "Increase draws for longer chains."
    if error > LARGEST_SOLVER_ERROR:
        cure = (
            f"Their log-likelihoods change by up to {error:.2g} with tighter ODE tolerances: solver errors keep the chains "
            "from mixing; lower rtol and atol."
        )
    judged = (
        ", by their log-likelihoods"
        if any(e.is_network for e in engine.mixed.random_effects)
        else ""
    )
    yield (
        f"The conditional draws of {missing.size} of {engine.mixed.n_subjects} subjects are too few or disagree between chains{judged}: R-hat is "
        f"up to {rhat.max():.4g} (wanted: below {LARGEST_RHAT}), the effective sample size down to {np.min(found.worst_ess[missing]):.0f} (wanted: "
        f"{LEAST_ESS:.0f}), worst for {_subjects(engine, missing[order])}. Their conditional means and standard deviations are not reliable; "
        f"{run.conditional.draws.shape[1]} draws per chain came from {run.conditional.n_solves} solves. {cure}"
    )


def _moved(run: Chain, drift: dict[str, float]) -> Iterator[str]:
    """Estimates that still move; not those of network weights, which may wander where predictions do not change."""
    if not run.converged and max(drift.values(), default=0.0) > LARGE:
        name, size = max(drift.items(), key=lambda item: item[1])
        yield (
            f"SAEM has not converged: '{name}' drifted by {size:.2f} approximate standard errors over the second half of the smoothing "
            "phase. Increase n_smooth, or n_explore if plot_convergence shows a trend from the start."
        )


def _disagreement(engine: Engine, runs: list[Chain]) -> dict[str, float]:
    scales = [run.scale for run in runs if run.drift is not None and run.scale is not None]
    if len(runs) < 2 or len(scales) < len(runs):  # too few iterations to agree
        return {}
    ends, scale = np.stack([run.theta[-1] for run in runs]), np.min(scales, axis=0)
    return _by_parameter(engine, np.ptp(ends, axis=0) / scale)


def _apart(disagreement: dict[str, float]) -> Iterator[str]:
    if max(disagreement.values(), default=0.0) > LARGE:
        name, size = max(disagreement.items(), key=lambda item: item[1])
        yield (
            f"The chains disagree: '{name}' differs by {size:.1f} approximate standard errors between them. The likelihood may have several "
            "maxima; the one with the best score is reported. Run more chains, or start near the intended maximum with initvals."
        )


def _by_parameter(engine: Engine, sizes: np.ndarray) -> dict[str, float]:
    """Largest entry of each parameter that is not a network."""
    return {
        p.name: float(np.max(sizes[p.columns], initial=0.0))
        for p in engine.mixed.parameters
        if not p.is_network
    }


def _shrinkage(engine: Engine, run: Chain) -> dict[str, float]:
    """Shrinkage of effects with an estimated variance; their mean if one variance serves several columns.

    Network weights are skipped, because single ones have no meaning.
    """
    if run.conditional is None:
        return {}
    networks = {
        c
        for e in engine.mixed.random_effects
        if e.is_network
        for c in range(e.columns.start, e.columns.stop)
    }
    labels, found = engine.mixed.phi_labels(), {}
    for rule in engine.rules.omegas:
        if engine.maximizer.is_fixed(rule.parameter) or networks & set(rule.columns):
            continue
        values = run.conditional.shrinkage[rule.columns]
        if rule.kind == "scalar" and values.size > 1:
            found[f"the effects of '{rule.parameter.name}'"] = float(values.mean())
        else:
            found |= {
                labels[c]: float(value) for c, value in zip(rule.columns, values, strict=True)
            }
    return found


def _shrunken(shrinkage: dict[str, float]) -> Iterator[str]:
    shrunken = [
        f"{label} {100 * value:.0f} %" for label, value in shrinkage.items() if value > SHRUNKEN
    ]
    if shrunken:
        listed = ", ".join(shrunken[:5]) + (
            f" and {len(shrunken) - 5} more" if len(shrunken) > 5 else ""
        )
        yield (
            f"The shrinkage is above 50 % for {listed}: conditional modes of these effects are close to the population mean for every "
            "subject, so do not plot them against covariates; use conditional draws."
        )


def _too_many_parameters(engine: Engine) -> Iterator[str]:
    mixed = engine.mixed
    free = {
        p.name: int((~engine.maximizer.held[p.columns]).sum())
        for p in mixed.parameters
        if not p.is_network
    }
    total = sum(free.values())
    if total > mixed.n_values:
        yield f"{total} parameters are estimated from {mixed.n_values} observed values: more parameters than observations. Fix or remove some."
        return
    for rule in engine.rules.omegas:
        if (
            rule.kind == "full"
            and rule.columns.size >= mixed.n_subjects
            and not engine.maximizer.is_fixed(rule.parameter)
        ):
            yield (
                f"The full covariance '{rule.parameter.name}' of {rule.columns.size} random effects is estimated from {mixed.n_subjects} subjects and "
                "will be singular. Make it diagonal, or give it a prior."
            )
