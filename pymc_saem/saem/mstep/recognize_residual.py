"""Recognizes residual scales: standard deviations homogeneous in one scalar parameter."""

from __future__ import annotations

import numpy as np
import pytensor

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.density.roles import Roles
from pymc_saem.model.density.symbols import in_symbols, symbols
from pymc_saem.model.graph.generic_points import NEAR, SPREADS, generic_points, quietly
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.graph.solves import ode_nodes
from pymc_saem.model.mixed_model import MixedModel, Parameter
from pymc_saem.model.normal.parametrization import location_and_scale
from pymc_saem.saem.mstep.residual import ResidualScale, ResidualTerm
from pymc_saem.saem.mstep.rules import FAR, NoClosedForm, homogeneity


def recognize_residuals(
    mixed: MixedModel, points: PointMap, roles: dict[str, Roles], reasons: dict[str, str]
) -> tuple[tuple[ResidualScale, ...], tuple[ResidualTerm, ...]]:
    """Rules and their statistics; parameters without a closed form go to ``reasons``."""
    rules: list[ResidualScale] = []
    terms: list[ResidualTerm] = []
    for p in mixed.parameters:
        outcomes = tuple(roles[p.name].scale)
        if not outcomes or p.name in reasons:
            continue
        try:
            power = _common_power(mixed, points, p, outcomes)
        except NoClosedForm as refusal:
            reasons[p.name] = str(refusal)
            continue
        unit, columns = (
            float(points.natural(p, np.zeros(1))[0]),
            range(len(terms), len(terms) + len(outcomes)),
        )
        rule = ResidualScale(
            parameter=p, outcomes=outcomes, terms=tuple(columns), power=power, unit=unit
        )
        terms += rule.statistics(mixed)
        rules.append(rule)
    return tuple(rules), tuple(terms)


def _common_power(
    mixed: MixedModel, points: PointMap, p: Parameter, outcomes: tuple[int, ...]
) -> float:
    """Power of a scalar parameter in the scales of its outcomes."""
    if p.columns.stop - p.columns.start != 1:
        raise NoClosedForm([p], f"is a residual scale of shape {p.shape}, not a scalar")
    powers = {_residual_power(mixed, points, p, j) for j in outcomes}
    if len(powers) != 1:
        raise NoClosedForm([p], f"scales its outcomes with different powers {sorted(powers)}")
    return powers.pop()


def _residual_power(mixed: MixedModel, points: PointMap, p: Parameter, outcome: int) -> float:
    phi_symbol, theta_symbol = symbols(mixed)
    rv = observed_variables(mixed.model)[outcome]
    (scale,) = in_symbols(mixed, [location_and_scale(rv)[1]], phi_symbol, theta_symbol)
    f = quietly(
        pytensor.function(
            [phi_symbol, theta_symbol], scale, mode=INTERPRETED, on_unused_input="ignore"
        )
    )
    theta, phi = points.theta_of(points.template), points.phi_of(points.template)

    def at(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return flat[theta.size :].reshape(phi.shape), flat[: theta.size].copy()

    start = np.concatenate([theta, phi.ravel()])
    spreads = NEAR if ode_nodes([scale]) else SPREADS
    trials = generic_points(
        start,
        lambda x: bool(np.all(np.isfinite(f(*at(x))))),
        np.random.default_rng(0),
        spreads=spreads,
    )
    powers = set()
    for phi_trial, theta_trial in map(at, trials):
        values = {}
        for u in (-0.7, 0.0, 0.7, *FAR):
            theta_trial[p.columns] = u
            values[float(points.natural(p, np.full(1, u))[0])] = np.asarray(
                f(phi_trial, theta_trial), dtype=float
            )
        powers.add(homogeneity(values))
    power = powers.pop() if len(powers) == 1 else None
    if power is None:
        raise NoClosedForm(
            [p],
            f"the residual scale of '{mixed.outcomes[outcome].name}' is not proportional to a power of it",
        )
    return power
