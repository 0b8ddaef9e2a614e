"""Decides for each parameter how its M-step is done, by mathematics and not by spelling.

"Affine" means that the numerical Jacobian does not depend on beta; "homogeneous" means that the scale
divided by a power of the parameter does not depend on it. Each recognizer returns its rule, or raises
:class:`UnsupportedModelError` with the reason why there is none.
"""

from __future__ import annotations

import numpy as np
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import observed_variables
from pymc_saem.saem.densities import model_value
from pymc_saem.saem.laws import LawOfPhi, location_and_scale
from pymc_saem.saem.model import MixedModel, Parameter, UnsupportedModelError
from pymc_saem.saem.point import PointMap
from pymc_saem.saem.recognize_omega import recognize_omegas
from pymc_saem.saem.recognize_residual import recognize_residuals
from pymc_saem.saem.rules import REFUSAL, MeanRule, Rules


def recognize(mixed: MixedModel) -> Rules:
    """The M-step rule of every parameter.

    Raises
    ------
    UnsupportedModelError
        Names the first parameter without a closed form, and the reason.
    """
    points = PointMap(mixed)
    for effect in mixed.random_effects:
        _refuse_nested(mixed, effect, mixed.model[effect.name])
    probe = LawOfPhi(mixed, points.theta_of(points.template))
    roles = _roles(mixed, probe)
    mean = _recognize_mean(mixed, probe, roles)
    omegas, fixed = recognize_omegas(mixed, probe, roles)
    residuals, terms = recognize_residuals(mixed, points, roles)
    return Rules(mean, omegas, fixed, residuals, terms)


def _roles(mixed: MixedModel, probe: LawOfPhi) -> dict[str, dict[str, list]]:
    """Where each parameter occurs: means, covariances, residual scales; anything else is refused."""
    values = {model_value(mixed, p.name): p for p in mixed.parameters}
    roles = {p.name: {"mean": [], "covariance": [], "scale": []} for p in mixed.parameters}

    for effect in mixed.random_effects:
        for p in mixed.parameters:
            for role in probe.roles(effect, p):
                roles[p.name][role].append(effect.name)
    for j, outcome in enumerate(mixed.outcomes):
        rv = observed_variables(mixed.model)[j]
        if type(rv.owner.op).__name__ in ("NormalRV", "LogNormalRV"):
            location, scale = location_and_scale(rv)
            reached = set(ancestors(mixed.model.replace_rvs_by_values([scale])))
            for value, p in values.items():
                if value in reached:
                    roles[p.name]["scale"].append(j)
            _refuse_structural(mixed, [location], values, outcome.name, "the prediction of")
        else:
            kind = type(rv.owner.op).__name__.removesuffix("RV")
            _refuse_structural(mixed, rv.owner.inputs, values, outcome.name, f"the {kind} distribution of")
    for p in mixed.parameters:
        _refuse_roles(mixed, p, roles[p.name])
    return roles


def _refuse_nested(mixed, effect, rv):
    reached = set(ancestors(mixed.model.replace_rvs_by_values(list(location_and_scale(rv)))))
    for other in mixed.random_effects:
        if model_value(mixed, other.name) in reached:
            raise UnsupportedModelError(
                f"The distribution of the random effect '{effect.name}' depends on the random effect '{other.name}'. "
                "Write their joint distribution as one MvNormal."
            )


def _refuse_structural(mixed, graphs, values, outcome, what):
    reached = set(ancestors(mixed.model.replace_rvs_by_values(list(graphs))))
    for value, p in values.items():
        if value in reached:
            raise UnsupportedModelError(
                f"The parameter '{p.name}' enters {what} '{outcome}' directly, so its M-step has no closed form. {REFUSAL} "
                f"Make '{p.name}' the mean or standard deviation of a random effect, as in pm.Normal(name, mu, omega) "
                "instead of mu + omega * eta, or replace it by a constant."
            )


def _refuse_roles(mixed, p: Parameter, role) -> None:
    used = [name for name in role if role[name]]
    if not used:
        children = [
            q.name
            for q in mixed.parameters
            if q is not p and mixed.model[p.name] in set(ancestors(mixed.model[q.name].owner.inputs))
        ]
        of = f" of {', '.join(children)}" if children else ""
        raise UnsupportedModelError(
            f"The parameter '{p.name}' enters only the prior{of}. {REFUSAL} Replace it by a constant."
        )
    if len(used) > 1:
        raise UnsupportedModelError(f"The parameter '{p.name}' is at once a {' and a '.join(used)}. {REFUSAL}")
    rv = mixed.model[p.name]
    if any(v in set(mixed.model.free_RVs) for v in ancestors(rv.owner.inputs)):
        raise UnsupportedModelError(
            f"The prior of '{p.name}' depends on other free variables. {REFUSAL} Give it a constant prior."
        )


def _recognize_mean(mixed, probe, roles) -> MeanRule:
    parameters = tuple(p for p in mixed.parameters if roles[p.name]["mean"])
    columns = np.concatenate([np.arange(p.columns.start, p.columns.stop) for p in parameters] or [np.zeros(0, int)])
    base = probe.base.copy()
    offset = probe.mean(base)
    slopes = []
    for column in columns:
        moved = base.copy()
        moved[column] += 1.0
        slopes.append(probe.mean(moved) - offset)
    design = np.stack(slopes, axis=-1) if slopes else np.zeros((*offset.shape, 0))
    for scale in (0.3, 2.0):
        trial = base.copy()
        trial[columns] += scale * probe.rng.standard_normal(columns.size)
        expected = offset + design @ (trial - base)[columns]
        found = probe.mean(trial)
        wrong = ~np.isclose(found, expected, rtol=1e-7, atol=1e-8 * (1 + np.abs(expected).max()))
        if wrong.any():
            label = mixed.phi_labels()[int(np.flatnonzero(wrong.any(axis=0))[0])]
            names = ", ".join(f"'{p.name}'" for p in parameters)
            raise UnsupportedModelError(
                f"The mean of the random effect '{label}' is not affine in the unconstrained values of {names}. {REFUSAL} "
                "Write the mean as a sum of parameters times known covariates, on the scale on which the effect is normal."
            )
    offset = offset - design @ base[columns]
    if np.ptp(design, axis=0).max(initial=0.0) == 0 and np.ptp(offset, axis=0).max(initial=0.0) < 1e-12:
        design, offset = design[:1], offset[:1]
    _refuse_collinear(parameters, columns, design)
    return MeanRule(parameters, columns, design, offset)


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
