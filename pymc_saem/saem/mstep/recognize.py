"""Decides for each parameter how its M-step is done, by mathematics and not by how the model is written.

"Affine" means that the numerical Jacobian does not depend on beta; "homogeneous" means that the
scale divided by a power of the parameter does not depend on it. Each recognizer returns its rule,
or raises
:class:`NoClosedForm` with the reason why there is none; such parameters are maximized by score steps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pymc_saem.model.density.laws import LawOfPhi, TypicalValues
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.density.roles import Roles, find_roles
from pymc_saem.model.mixed_model import MixedModel, Parameter, UnsupportedModelError
from pymc_saem.saem.mstep.recognize_covariance import recognize_omegas
from pymc_saem.saem.mstep.recognize_residual import recognize_residuals
from pymc_saem.saem.mstep.recognize_scale import recognize_scales
from pymc_saem.saem.mstep.rules import MeanRule, NoClosedForm, Rules, ScoreRule, affine_parts


@np.errstate(all="ignore")  # values that are not finite are checked and reported
def recognize(mixed: MixedModel) -> Rules:
    """The M-step rule of every parameter.

    Raises
    ------
    UnsupportedModelError
        Names the first parameter that cannot be estimated at all, and the reason.
    """
    points = PointMap(mixed)
    law = LawOfPhi(mixed, points.theta_of(points.template))
    _refuse_unknown(mixed, law)
    roles = find_roles(mixed, law)
    reasons = {name: reason for name, places in roles.items() if (reason := places.reason(mixed))}
    mean = _recognize_mean(mixed, law, roles, reasons)
    omegas, fixed, moving = recognize_omegas(mixed, law, roles, reasons)
    residuals, terms = recognize_residuals(mixed, points, roles, reasons)
    scales, of_effects = recognize_scales(mixed, points, roles, reasons)
    scales = tuple(replace(rule, terms=rule.terms + len(terms)) for rule in scales)
    scores = tuple(
        _score_rule(p, roles[p.name], reasons[p.name])
        for p in mixed.parameters
        if p.name in reasons
    )
    typical = TypicalValues(mixed) if any(not e.is_gaussian for e in mixed.random_effects) else None
    return Rules(
        mean, omegas, fixed, moving, residuals, scales, (*terms, *of_effects), scores, law, typical
    )


def _score_rule(p: Parameter, roles: Roles, reason: str) -> ScoreRule:
    effects = {e.name: e for e in (*roles.mean, *roles.covariance, *roles.law)}
    outcomes = tuple(sorted({*roles.scale, *roles.prediction}))
    return ScoreRule(p, reason, outcomes, tuple(effects.values()), bool(roles.prediction))


def _recognize_mean(
    mixed: MixedModel, law: LawOfPhi, roles: dict[str, Roles], reasons: dict[str, str]
) -> MeanRule:
    """The affine means; parameters in which they are not affine go to ``reasons``."""
    in_means = [p for p in mixed.parameters if roles[p.name].mean]
    affine = [p for p in in_means if p.name not in reasons]
    while True:
        try:
            columns, design, offset = _affine_means(mixed, law, affine)
            break
        except NoClosedForm as refusal:
            reasons |= {p.name: str(refusal) for p in refusal.parameters}
            affine = [p for p in affine if p.name not in reasons]
    moving = law if len(affine) < len(in_means) else None
    if (
        moving is None
        and np.ptp(design, axis=0).max(initial=0.0) == 0
        and np.ptp(offset, axis=0).max(initial=0.0) < 1e-12
    ):
        design, offset = design[:1], offset[:1]
    return MeanRule(tuple(affine), columns, design, offset, moving)


def _affine_means(
    mixed: MixedModel, law: LawOfPhi, parameters: list[Parameter]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of theta, design and offset of the means; they must be affine in all these parameters at once."""
    columns = np.concatenate(
        [np.arange(p.columns.start, p.columns.stop) for p in parameters] or [np.zeros(0, int)]
    )
    design, offset = affine_parts(law, law.base, columns)
    for p in parameters:  # those that are not even affine alone
        own = np.arange(p.columns.start, p.columns.stop)
        if label := _bent_effect(mixed, law, own):
            raise NoClosedForm(
                [p], f"the mean of '{label}' is not affine in its unconstrained value"
            )
    if label := _bent_effect(mixed, law, columns):
        names = ", ".join(f"'{p.name}'" for p in parameters)
        raise NoClosedForm(parameters, f"the mean of '{label}' is not affine in {names} together")
    return columns, design, offset


def _bent_effect(mixed: MixedModel, law: LawOfPhi, columns: np.ndarray) -> str | None:
    """Label of the first column of phi whose mean is not affine in these entries of theta, along random lines."""
    for theta in (law.base, *law.points) if columns.size else ():
        for length in (0.3, 2.0):
            step = np.zeros_like(theta)
            step[columns] = length * law.rng.standard_normal(columns.size)
            line = np.stack([law.mean(theta + k * step) for k in (-1, 0, 1, 2)])
            size = 1 + np.abs(line).max(initial=0.0)
            wrong = ~(np.abs(np.diff(line, n=2, axis=0)) <= 1e-8 * size)
            if wrong.any():
                return mixed.phi_labels()[int(np.flatnonzero(wrong.any(axis=(0, 1)))[0])]
    return None


def _refuse_unknown(mixed: MixedModel, law: LawOfPhi) -> None:
    """Nothing could be recognized: NaN differs from itself."""
    unknown = ~np.isfinite(law.mean(law.base))
    if unknown.any():
        column = int(np.flatnonzero(unknown.any(axis=0))[0])
        names = [str(mixed.subjects[s]) for s in np.flatnonzero(unknown[:, column])]
        names = names if len(names) <= 10 else [*names[:10], f"{len(names) - 10} more"]
        raise UnsupportedModelError(
            f"The mean of the random effect '{mixed.phi_labels()[column]}' is not a number for {mixed.subject_dim} "
            f"{', '.join(names)}, at the initial values of the parameters. If a covariate is missing there, give it a value, "
            "such as the median of the others, or leave these subjects out."
        )


def refuse_collinear(rule: MeanRule, held: np.ndarray | None = None) -> None:
    """Refuse to estimate parameters that the means do not determine; ``held`` entries of theta are not estimated.

    Raises
    ------
    UnsupportedModelError
        Names the parameters.
    """
    free = np.ones(rule.columns.size, dtype=bool) if held is None else ~held[rule.columns]
    if not free.any():
        return
    rank = np.linalg.matrix_rank(rule.design[..., free].reshape(-1, int(free.sum())))
    if rank < free.sum():
        estimated = set(rule.columns[free])
        names = [
            p.name
            for p in rule.parameters
            if estimated & set(range(p.columns.start, p.columns.stop))
        ]
        raise UnsupportedModelError(
            f"The means of the random effects do not determine the parameters {', '.join(names)}: only {rank} of "
            f"{free.sum()} combinations occur. Remove a parameter or a covariate column, or fix a parameter."
        )
