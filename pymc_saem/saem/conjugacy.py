"""Decides for each parameter how its M-step is done, by mathematics and not by spelling.

"Affine" means that the numerical Jacobian does not depend on beta; "homogeneous" means that the scale
divided by a power of the parameter does not depend on it. Each recognizer returns its rule, or raises
:class:`NoClosedForm` with the reason why there is none; such parameters are maximized by score steps.
"""

from __future__ import annotations

import numpy as np

from pymc_saem.saem.laws import LawOfPhi, TypicalValues
from pymc_saem.saem.model import MixedModel, Parameter, UnsupportedModelError
from pymc_saem.saem.point import PointMap
from pymc_saem.saem.recognize_omega import recognize_omegas
from pymc_saem.saem.recognize_residual import recognize_residuals
from pymc_saem.saem.roles import Roles, find_roles
from pymc_saem.saem.rules import MeanRule, NoClosedForm, Rules, ScoreRule, affine_parts


def recognize(mixed: MixedModel) -> Rules:
    """The M-step rule of every parameter.

    Raises
    ------
    UnsupportedModelError
        Names the first parameter that cannot be estimated at all, and the reason.
    """
    points = PointMap(mixed)
    law = LawOfPhi(mixed, points.theta_of(points.template))
    roles = find_roles(mixed, law)
    reasons = {name: reason for name, places in roles.items() if (reason := places.reason(mixed))}
    mean = _recognize_mean(mixed, law, roles, reasons)
    omegas, fixed, moving = recognize_omegas(mixed, law, roles, reasons)
    residuals, terms = recognize_residuals(mixed, points, roles, reasons)
    scores = tuple(_score_rule(p, roles[p.name], reasons[p.name]) for p in mixed.parameters if p.name in reasons)
    typical = TypicalValues(mixed) if any(not e.is_gaussian for e in mixed.random_effects) else None
    return Rules(mean, omegas, fixed, moving, residuals, terms, scores, law, typical)


def _score_rule(p: Parameter, roles: Roles, reason: str) -> ScoreRule:
    effects = {e.name: e for e in (*roles.mean, *roles.covariance, *roles.law)}
    outcomes = tuple(sorted({*roles.scale, *roles.prediction}))
    return ScoreRule(p, reason, outcomes, tuple(effects.values()), bool(roles.prediction))


def _recognize_mean(mixed: MixedModel, law: LawOfPhi, roles, reasons: dict[str, str]) -> MeanRule:
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
    _refuse_collinear(affine, columns, design)
    return MeanRule(tuple(affine), columns, design, offset, moving)


def _affine_means(mixed, law: LawOfPhi, parameters: list[Parameter]):
    """Columns of theta, design and offset of the means; they must be affine in all these parameters at once."""
    columns = np.concatenate([np.arange(p.columns.start, p.columns.stop) for p in parameters] or [np.zeros(0, int)])
    design, offset = affine_parts(law, law.base, columns)
    for p in parameters:  # those that are not even affine alone
        own = np.arange(p.columns.start, p.columns.stop)
        if label := _bent_effect(mixed, law, own, design[..., np.searchsorted(columns, own)]):
            raise NoClosedForm([p], f"the mean of '{label}' is not affine in its unconstrained value")
    if label := _bent_effect(mixed, law, columns, design):
        names = ", ".join(f"'{p.name}'" for p in parameters)
        raise NoClosedForm(parameters, f"the mean of '{label}' is not affine in {names} together")
    return columns, design, offset


def _bent_effect(mixed, law: LawOfPhi, columns: np.ndarray, design: np.ndarray) -> str | None:
    """Label of the first column of phi whose mean is not affine in these entries of theta."""
    at_base = law.mean(law.base)
    for scale in (0.3, 2.0):
        trial = law.base.copy()
        trial[columns] += scale * law.rng.standard_normal(columns.size)
        expected = at_base + design @ (trial - law.base)[columns]
        wrong = ~np.isclose(law.mean(trial), expected, rtol=1e-7, atol=1e-8 * (1 + np.abs(expected).max(initial=0.0)))
        if wrong.any():
            return mixed.phi_labels()[int(np.flatnonzero(wrong.any(axis=0))[0])]
    return None


def _refuse_collinear(parameters, columns, design) -> None:
    if not columns.size:
        return
    stacked = design.reshape(-1, columns.size)
    if np.linalg.matrix_rank(stacked) < columns.size:
        names = ", ".join(p.name for p in parameters)
        raise UnsupportedModelError(
            f"The means of the random effects do not determine the parameters {names}: only {np.linalg.matrix_rank(stacked)} of "
            f"{columns.size} combinations occur. Remove a parameter or a covariate column."
        )
