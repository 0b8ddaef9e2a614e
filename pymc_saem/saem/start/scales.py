"""Scales of data, constants and starts that do not fit each other: refused by name, or put right before a run begins.

A fit with every subject at its mean works on the user's scales. Where residuals are thousands of
times larger than the start of their standard deviation, or a thousand times smaller, its steps lead
nowhere; Newton's do not depend on units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pymc_saem.compat import observed_variables
from pymc_saem.model.mixed_model import MixedModel, UnsupportedModelError, element_labels
from pymc_saem.model.reading.observed_values import observed_values
from pymc_saem.saem.core import closed_form
from pymc_saem.saem.mstep.residual import ResidualScale
from pymc_saem.saem.mstep.rules import OmegaRule
from pymc_saem.saem.start.pooled import PooledObjective

if TYPE_CHECKING:  # the engine stands above the starts
    from pymc_saem.saem.engine import Engine

#: Factor between a residual scale and the size of the residuals, from which the start is put right.
FAR_OFF = 1e3
#: Random effects this many times larger than their differences have variances that double precision
#: cannot resolve.
LARGEST_RATIO = 1e6
#: A residual scale of this share of the observed values is that of a model without error.
SMALLEST_SHARE = 1e-9
#: A Newton step must promise this much of log-likelihood; this many are made, in at most this many
#: parameters.
LEAST_GAIN, N_STEPS, MAX_PARAMETERS = 1e-4, 20, 40


def refuse_constant_outcomes(engine: Engine) -> None:
    """Values that are all the same have no residual scale: the likelihood grows without bound as it goes to zero."""
    for rule in engine.rules.residuals:
        values = [_observed(engine.mixed, j) for j in rule.outcomes]
        if engine.maximizer.is_fixed(rule.parameter) or any(np.ptp(y) > 0 for y in values):
            continue
        name, y = engine.mixed.outcomes[rule.outcomes[0]].name, values[0]
        which = (
            f"All {y.size} observed values of '{name}' are {y[0]:g}"
            if y.size > 1
            else f"'{name}' has one observed value"
        )
        raise UnsupportedModelError(
            f"{which}, so its residual scale '{rule.parameter.name}' cannot be estimated: the likelihood has no maximum. Check the "
            f"data, or fix it with fixed={{'{rule.parameter.name}': ...}}."
        )


def refuse_fixed_out_of_range(engine: Engine) -> None:
    """Constants of the user whose squares are not numbers."""
    theta = engine.maximizer.apply_fixed(engine.points.theta_of(engine.points.template))
    _refuse_out_of_range(engine, theta, "fixed= gives", tuple(engine.maximizer.fixed))


def _refuse_out_of_range(
    engine: Engine, theta: np.ndarray, whose: str, names: tuple[str, ...] | None = None
) -> None:
    """Covariances and residual scales (of some ``names``) must have squares in double precision; ``whose`` begins the text."""
    mixed, points = engine.mixed, engine.points
    rules: tuple[ResidualScale | OmegaRule, ...] = (*engine.rules.residuals, *engine.rules.omegas)
    for rule in rules:
        p = rule.parameter
        if names is not None and p.name not in names:
            continue
        x = np.atleast_1d(points.natural(p, theta[p.columns]))
        with np.errstate(all="ignore"):
            square = rule.variance(np.abs(x))
            bad = ~(np.isfinite(square) & np.isfinite(1.0 / np.where(square == 0, np.nan, square)))
        if isinstance(rule, OmegaRule) and rule.kind == "full":
            bad &= np.equal(*np.tril_indices(rule.base.shape[0]))
        if bad.any():
            k = int(np.flatnonzero(bad)[0])
            label = element_labels(mixed.model, p.name, p.shape, p.dims)[k]
            raise ValueError(
                f"{whose} {label} = {x[k]:g}, whose square is {'0' if x[k] < 1 else 'infinite'} in double precision. "
                "Give it in other units, or leave the effect or the error out of the model."
            )


def check_start(engine: Engine, theta: np.ndarray) -> None:
    """Refuse a start from which no run can come to an end with numbers."""
    refuse_fits_without_error(engine, theta)
    _refuse_out_of_range(engine, theta, "The start has")
    refuse_what_cancels(engine, theta)


def refuse_what_cancels(engine: Engine, theta: np.ndarray) -> None:
    """Large random effects with small differences: sums of their squares hold no digit of the differences."""
    mixed, population = engine.mixed, engine.maximizer.population(theta)
    size, sd = np.abs(population.mean).max(axis=0), population.sd
    suspect = (size > LARGEST_RATIO * sd) & mixed.is_gaussian
    if suspect.any():
        suspect &= size > LARGEST_RATIO * spread_of_effects(engine, theta)
    if suspect.any():
        k = int(np.flatnonzero(suspect)[0])
        label = mixed.phi_labels()[k]
        raise ValueError(
            f"The random effect '{label}' is near {population.mean[0, k]:.6g}, and differs between subjects by about {sd[k]:.2g}: "
            f"more than {LARGEST_RATIO:g} times less, too little for double precision. Subtract a constant from the data, so that "
            "its mean is near zero."
        )


def refuse_fits_without_error(engine: Engine, theta: np.ndarray) -> None:
    """A model that fits every value exactly, with all subjects at their mean, has no residual scale."""
    for rule in engine.rules.residuals:
        size = np.sqrt(
            np.mean(np.concatenate([_observed(engine.mixed, j) for j in rule.outcomes]) ** 2)
        )
        x = (
            float(engine.points.natural(rule.parameter, theta[rule.parameter.columns])[0])
            ** rule.power
        )
        if not engine.maximizer.is_fixed(rule.parameter) and x < SMALLEST_SHARE * min(1.0, size):
            name = engine.mixed.outcomes[rule.outcomes[0]].name
            raise UnsupportedModelError(
                f"The model predicts the observed values of '{name}' without error, so its residual scale '{rule.parameter.name}' goes to "
                f"zero and the likelihood has no maximum. Check the data, or fix it with fixed={{'{rule.parameter.name}': ...}}."
            )


def _observed(mixed: MixedModel, j: int) -> np.ndarray:
    """Observed values (row,) of an outcome, numbers that do not depend on anything."""
    return observed_values(mixed.model, observed_variables(mixed.model)[j]).ravel()


# -- starts ---------------------------------------------------------------------------------------


def settled(engine: Engine, theta: np.ndarray) -> np.ndarray:
    """theta with scales as residuals at the means of the subjects have them, where they are far off; else as it is."""
    found = _with_residual_scales(engine, theta)
    if found is None:
        return theta
    found = polished(engine, found)
    spread, sd = spread_of_effects(engine, found), engine.maximizer.population(found).sd
    is_off = np.isfinite(spread) & ((sd < spread / FAR_OFF) | (sd > spread * FAR_OFF))
    return with_sds_times(engine, found, np.where(is_off, spread / sd, 1.0))


def _with_residual_scales(
    engine: Engine, theta: np.ndarray, least: float = FAR_OFF
) -> np.ndarray | None:
    """theta with residual scales at their maximum given the predictions; None where all are near it already."""
    mean = np.array(engine.maximizer.population(theta).mean[None])
    with np.errstate(all="ignore"):
        squares = np.asarray(engine.densities.outputs_quietly(mean, theta)[1])[0]
    weight = engine.maximizer.weight
    squares = closed_form.weighted(None if weight is None else weight[:, None], squares).sum(axis=0)
    found, is_off = theta.copy(), False
    for rule in engine.rules.residuals:
        p, total = rule.parameter, rule.squares(squares)
        if engine.maximizer.is_fixed(p) or not np.isfinite(total) or total <= 0:
            continue
        x = float(rule.maximum(rule.count(engine.mixed, weight), total))
        old = float(engine.points.natural(p, theta[p.columns])[0])
        is_off |= not old / least < x < old * least
        found[p.columns] = engine.points.unconstrained(p, np.array([x]))
    return found if is_off and np.all(np.isfinite(found)) else None


def polished(engine: Engine, theta: np.ndarray) -> np.ndarray:
    """theta after Newton steps on the likelihood with every subject at its mean, as long as they promise much.

    Steps in the residual scales are exact maximizations in turn with those in the other parameters.
    """
    scales = {rule.parameter.columns.start for rule in engine.rules.residuals}
    objective = PooledObjective(engine.densities, engine.climber, theta)
    objective.columns = np.array([j for j in objective.free if j not in scales], dtype=int)
    for _ in range(N_STEPS):
        objective.theta, objective.worst = theta, None
        x = theta[objective.columns]
        if not 0 < x.size <= MAX_PARAMETERS:
            return theta
        value, gradient = objective(x)
        if objective.worst is None:
            return theta
        step = _newton_step(objective, x, gradient)
        if step is None or -0.5 * gradient @ step < LEAST_GAIN:
            return theta
        for share in 0.25 ** np.arange(8):
            if objective(x + share * step)[0] < value:
                break
        else:
            return theta
        theta = objective.full(x + share * step)
        if (better := _with_residual_scales(engine, theta, 1.01)) is not None:
            theta = better
    return theta


def _newton_step(
    objective: PooledObjective, x: np.ndarray, gradient: np.ndarray
) -> np.ndarray | None:
    """Step (p,) to the minimum of a quadratic function with these derivatives; None where there is none."""
    hessian = np.stack(
        [_difference(lambda y: objective(y)[1], x, k, gradient) for k in range(x.size)]
    )
    hessian = 0.5 * (hessian + hessian.T)
    # the likelihood may not hold the others, such as the scale of scale * z at z = 0
    moving = np.any(hessian != 0, axis=1)
    diagonal = np.diag(hessian)[moving]
    if not np.isfinite(hessian).all() or not moving.any() or not np.all(diagonal > 0):
        return None
    unit = 1.0 / np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(hessian[np.ix_(moving, moving)] * np.outer(unit, unit))
    if values[0] <= 1e-14:
        return None
    step = np.zeros_like(x)
    step[moving] = -unit * (vectors @ ((vectors.T @ (unit * gradient[moving])) / values))
    return step


def _difference(
    f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, k: int, here: np.ndarray
) -> np.ndarray:
    """Derivative of ``f`` in the entry k of x, by a step so large that something of ``here = f(x)`` moves."""
    h = 1e-4 * (1.0 + abs(x[k]))
    for _ in range(8):
        moved = x.copy()
        moved[k] += h
        there = f(moved)
        if not np.abs(there - here).max() < 1e-6 * np.abs(here).max():
            break
        h *= 1e3
    return (there - here) / h


def spread_of_effects(engine: Engine, theta: np.ndarray) -> np.ndarray:
    """Change of each column of phi (phi,) that moves predictions by a residual standard deviation; infinite where none does."""
    # small_effects estimates the same from values, which every fit has compiled, at distances where
    # they need not be quadratic. Here starts may be so far off that values round away their
    # differences, and gradients do not; few fits come here.
    mean, weight = engine.maximizer.population(theta).mean, engine.maximizer.weight

    def slope(shift: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return engine.densities.gradient(np.array((mean + shift)[None]), theta, weight)[1][
                0
            ].sum(axis=0)

    zero = np.zeros(engine.mixed.n_phi)
    here = slope(zero)
    curvature = np.array([-_difference(slope, zero, k, here)[k] for k in range(zero.size)])
    with np.errstate(all="ignore"):
        spread = np.sqrt(
            closed_form.weighted(weight, engine.mixed.values_of_subjects).sum() / curvature
        )
    return np.where(np.isfinite(spread), spread, np.inf)


def with_sds_times(engine: Engine, theta: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """theta with the standard deviations of random effects multiplied by ``factor`` (phi,), as far as they are estimated."""
    theta = theta.copy()
    for rule in engine.rules.omegas:
        p = rule.parameter
        if engine.maximizer.held[p.columns].any() or np.all(factor[rule.columns] == 1.0):
            continue
        x = engine.points.natural(p, theta[p.columns])
        if rule.kind == "full":
            lower = (
                closed_form.unpack_cholesky(x, rule.base.shape[0]) * factor[rule.columns][:, None]
            )
            x = lower[np.tril_indices(len(lower))]
        elif rule.kind == "scalar":
            x = x * np.median(factor[rule.columns]) ** (1.0 / rule.power)
        else:
            x = x * factor[rule.columns] ** (1.0 / rule.power)
        theta[p.columns] = engine.points.unconstrained(p, x)
    return theta
