"""What the user of a fit should read: each message says what was seen, and what to do."""

from __future__ import annotations

import numpy as np

from pymc_saem.saem.engine import Engine

#: Rough standard errors by which an estimate may have moved at the end, or chains may differ.
LARGE = 0.3
#: Shrinkage above which conditional modes say more of the population than of the subject (Savic & Karlsson 2009).
SHRUNKEN = 0.5
#: Smallest acceptance at which a random walk still moves.
SMALLEST_ACCEPTANCE = 0.1


def messages(engine: Engine, runs: list, run, failures: dict, job) -> list[str]:
    """Messages about the reported chain ``run``, and about the agreement of all ``runs``."""
    found = [
        *run.trouble,
        *_interruption(runs, run, job),
        *_floors(run),
        *_acceptance(run, job),
        *_failures(run, failures),
    ]
    if not run.interrupted and job.n_smooth:
        found += [*_drift(engine, run), *_disagreement(engine, runs), *_shrinkage(engine, run)]
    return [*found, *_too_many_parameters(engine)]


def _interruption(runs, run, job):
    total = job.n_explore + job.n_smooth
    for one in runs:
        if one.interrupted:
            n, where = one.theta.shape[0], "" if len(runs) == 1 else f" of chain {one.number}"
            yield (
                f"SAEM was interrupted after {n} of {total} iterations{where}; the result is that of "
                + (f"iteration {n}." if one is run else f"chain {run.number}.")
            )


def _floors(run):
    if run.at_floor:
        yield (
            f"The variance of {', '.join(run.at_floor)} reached its floor (1e-4 of its starting value as a standard deviation): the data "
            "show no variability there. Fix it with fit_saem(fixed={...}), or remove the random effect."
        )


_ADAPT = "Increase n_explore, so that the scales adapt, or n_transitions."
#: What to do when proposals of a kernel are hardly ever accepted.
_CURES = {
    "coordinate": _ADAPT,
    "block": _ADAPT,
    "mala": _ADAPT,
    "independence": "The conditional distributions are not near enough to Gaussian ones: leave 'independence' out of kernel.",
}


def _acceptance(run, job):
    for name, cure in _CURES.items():
        seen = run.stats[f"accept_{name}"][-max(1, job.n_smooth) :]
        rate = float(np.nanmean(seen)) if np.isfinite(seen).any() else 1.0
        if rate < SMALLEST_ACCEPTANCE:
            yield (
                f"The {name} proposals were accepted in {100 * rate:.1f} % of the cases; below 10 % they hardly move the E-step. {cure}"
            )


def _failures(run, failures):
    total = sum(sum(counts) for counts in failures.values())
    if total > 0.05 * run.n_solves:
        worst = max(failures, key=lambda text: sum(failures[text]))
        yield f"{total} of {run.n_solves} solves failed and were rejected as proposals; most often: {worst}"


def _drift(engine: Engine, run):
    """Estimates that still move; not those of network weights, which may wander where predictions do not change."""
    if run.drift is None or run.converged:
        return
    moved = _of_parameters(engine, run.drift)
    if moved:
        name, size = max(moved.items(), key=lambda item: item[1])
        yield (
            f"The estimates have not settled: '{name}' moved by {size:.2f} rough standard errors within the last half of the smoothing "
            "phase. Increase n_smooth, or n_explore if plot_convergence shows a trend from the start."
        )


def _disagreement(engine: Engine, runs: list):
    if len(runs) < 2 or any(one.drift is None for one in runs):  # too few iterations to agree
        return
    ends, scale = np.stack([run.theta[-1] for run in runs]), np.min([run.scale for run in runs], axis=0)
    apart = _of_parameters(engine, np.ptp(ends, axis=0) / scale)
    if apart:
        name, size = max(apart.items(), key=lambda item: item[1])
        yield (
            f"The chains disagree: '{name}' differs by {size:.1f} rough standard errors between them. The likelihood may have several "
            "maxima; the one with the best score is reported. More chains, or initvals near the one that is meant, will tell."
        )


def _of_parameters(engine: Engine, sizes: np.ndarray) -> dict[str, float]:
    """Largest entry of each parameter for which it is large."""
    found = {p.name: float(np.max(sizes[p.columns], initial=0.0)) for p in engine.mixed.parameters if not p.is_network}
    return {name: size for name, size in found.items() if size > LARGE}


def _shrinkage(engine: Engine, run):
    """Of effects with an estimated variance; where one variance serves several columns, their mean.

    Not of network weights, which nobody reads one by one.
    """
    if run.conditional is None:
        return
    networks = {c for e in engine.mixed.random_effects if e.is_network for c in range(e.columns.start, e.columns.stop)}
    labels, found = engine.mixed.phi_labels(), []
    for rule in engine.rules.omegas:
        if engine.maximizer.is_fixed(rule.parameter) or networks & set(rule.columns):
            continue
        values = run.conditional.shrinkage[rule.columns]
        if rule.kind == "scalar":
            found.append(
                (
                    labels[rule.columns[0]] if values.size == 1 else f"the effects of '{rule.parameter.name}'",
                    values.mean(),
                )
            )
        else:
            found += zip((labels[c] for c in rule.columns), values, strict=True)
    shrunken = [f"{label} {100 * value:.0f} %" for label, value in found if value > SHRUNKEN]
    if shrunken:
        listed = ", ".join(shrunken[:5]) + (f" and {len(shrunken) - 5} more" if len(shrunken) > 5 else "")
        yield (
            f"The shrinkage is above 50 % for {listed}: conditional modes of these effects are close to the population mean whatever the "
            "subject, so do not plot them against covariates; use conditional draws."
        )


def _too_many_parameters(engine: Engine):
    mixed = engine.mixed
    free = {p.name: int((~engine.maximizer.held[p.columns]).sum()) for p in mixed.parameters if not p.is_network}
    total = sum(free.values())
    if total > mixed.n_rows:
        yield f"{total} parameters are estimated from {mixed.n_rows} rows: more than the data can tell. Fix some, or remove them."
        return
    for rule in engine.rules.omegas:
        if (
            rule.kind == "full"
            and rule.columns.size >= mixed.n_subjects
            and not engine.maximizer.is_fixed(rule.parameter)
        ):
            yield (
                f"The full covariance '{rule.parameter.name}' of {rule.columns.size} random effects is estimated from {mixed.n_subjects} subjects, and "
                "will be singular. Make it diagonal, or give it a prior."
            )
