"""Where each parameter of a model occurs: means, covariances, residual scales, or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.densities import row_density
from pymc_saem.model.density.laws import LawOfPhi
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.density.symbols import in_symbols, model_value, symbols
from pymc_saem.model.mixed_model import MixedModel, Parameter, RandomEffect, UnsupportedModelError
from pymc_saem.model.normal.parametrization import location_and_scale

#: Points at which an outcome is checked for moving with a parameter, and the share of the largest
#: change that counts.
N_POINTS, LEAST_CHANGE = 3, 1e-3


@dataclass
class Roles:
    """The places of one parameter."""

    mean: list[RandomEffect] = field(default_factory=list)  # of Gaussian random effects
    covariance: list[RandomEffect] = field(default_factory=list)  # of Gaussian random effects
    scale: list[int] = field(default_factory=list)  # of Normal or LogNormal outcomes
    prediction: dict[int, str] = field(default_factory=dict)  # outcome -> what of it
    # of these outcomes, those whose density moves with it
    seen: list[int] = field(default_factory=list)
    law: list[RandomEffect] = field(default_factory=list)  # of random effects that are not Gaussian

    def used(self) -> list[str]:
        return [
            name
            for name in ("mean", "covariance", "scale", "prediction", "law")
            if getattr(self, name)
        ]

    def reason(self, mixed: MixedModel) -> str | None:
        """Why there is no closed form, as far as the places show."""
        if self.prediction:
            what = next(iter(self.prediction.values()))
            names = [f"'{mixed.outcomes[j].name}'" for j in self.seen or self.prediction]
            listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
            return f"enters {what} of {listed} directly"
        for effect in self.law:
            kind = type(mixed.model[effect.name].owner.op).__name__.removesuffix("RV")
            if effect.link == "value":
                return f"the {kind} distribution of '{effect.name}' has no closed form"
            return f"the {kind} distribution of '{effect.name}' differs between subjects or depends on other random effects"
        if len(self.used()) > 1:
            return f"is at once a {' and a '.join(self.used())}"
        return None


def find_roles(mixed: MixedModel, law: LawOfPhi) -> dict[str, Roles]:
    """The places of every parameter.

    Raises
    ------
    UnsupportedModelError
        When a parameter has none, or a prior that depends on another free variable.
    """
    roles = {p.name: Roles() for p in mixed.parameters}
    values = {model_value(mixed, p.name): p for p in mixed.parameters}
    phi, _ = symbols(mixed)

    def parameters_in(graphs: Sequence[Variable]) -> list[Parameter]:
        reached = set(ancestors(in_symbols(mixed, list(graphs), phi, None)))
        return [p for value, p in values.items() if value in reached]

    for block in mixed.blocks:
        if block.is_gaussian:
            for p in mixed.parameters:
                for role in law.roles(block, p):
                    getattr(roles[p.name], role).extend(block.effects)
            continue
        effect = block.effects[0]
        graphs = mixed.model[effect.name].owner.inputs if effect.image is None else effect.image.law
        for p in parameters_in(graphs):
            roles[p.name].law.extend(block.effects)
    for j, rv in enumerate(observed_variables(mixed.model)):
        kind = type(rv.owner.op).__name__
        if kind in ("NormalRV", "LogNormalRV"):
            location, scale = location_and_scale(rv)
            for p in parameters_in([scale]):
                roles[p.name].scale.append(j)
            inside, what = parameters_in([location]), "the prediction"
        else:
            inside, what = (
                parameters_in(rv.owner.inputs),
                f"the {kind.removesuffix('RV')} distribution",
            )
        for p in inside:
            roles[p.name].prediction[j] = what
    for p in mixed.parameters:
        _refuse(mixed, p, roles[p.name])
    _find_moved(
        mixed, [(p, roles[p.name]) for p in mixed.parameters if len(roles[p.name].prediction) > 1]
    )
    return roles


def _find_moved(mixed: MixedModel, several: list[tuple[Parameter, Roles]]) -> None:
    """Find the outcomes that parameters really move, because the graph of a differential equation leads to all of its states.

    A parameter of one state changes the steps of the solver, and so the others, by as much as its
    tolerances.
    """
    if not several:
        return
    # any points do
    density, points, rng = (
        row_density(mixed),
        PointMap(mixed),
        np.random.default_rng(0),
    )
    theta, phi = points.theta_of(points.template), points.phi_of(points.template)
    change = np.zeros((len(several), len(mixed.outcomes)))
    for _ in range(N_POINTS):
        near = (
            theta + 0.1 * rng.standard_normal(theta.shape),
            phi + 0.1 * rng.standard_normal(phi.shape),
        )
        here = density(near[1], near[0])
        for k, (p, _) in enumerate(several):
            moved = near[0].copy()
            moved[p.columns] += 0.1 * rng.choice([-1.0, 1.0], p.columns.stop - p.columns.start)
            for j, (old, new) in enumerate(zip(here, density(near[1], moved), strict=True)):
                known = np.isfinite(old) & np.isfinite(new)
                gap = np.abs(new - old)[known] / (1.0 + np.abs(old[known]))
                change[k, j] = max(change[k, j], gap.max(initial=0.0))
    for (_, roles), of_outcome in zip(several, change, strict=True):
        roles.seen = [
            j for j in roles.prediction if of_outcome[j] > LEAST_CHANGE * of_outcome.max()
        ]


def _refuse(mixed: MixedModel, p: Parameter, roles: Roles) -> None:
    if not roles.used():
        children = [
            q.name
            for q in mixed.parameters
            if q is not p
            and mixed.model[p.name] in set(ancestors(mixed.model[q.name].owner.inputs))
        ]
        of = f" of {', '.join(children)}" if children else ""
        raise UnsupportedModelError(
            f"The parameter '{p.name}' enters only the prior{of}. The joint mode of a parameter and the scale of its prior has no "
            "maximum in general, so replace it by a constant."
        )
    rv = mixed.model[p.name]
    parents = [v.name for v in ancestors(rv.owner.inputs) if v in set(mixed.model.free_RVs)]
    if parents:
        raise UnsupportedModelError(
            f"The prior of '{p.name}' depends on the free variables {parents}. Give it a constant prior."
        )
