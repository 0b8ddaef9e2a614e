"""Recognizes residual scales: standard deviations homogeneous in one scalar parameter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import clone_replace

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.symbols import in_symbols, symbols
from pymc_saem.model.graph.generic_points import NEAR, SPREADS, generic_points, quietly
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.graph.solves import ode_nodes
from pymc_saem.model.mixed_model import MixedModel, Parameter
from pymc_saem.model.normal.parametrization import location_and_scale
from pymc_saem.saem.mstep.rules import FAR, NoClosedForm, ResidualRule, homogeneity


@dataclass(frozen=True)
class ResidualTerm:
    """Squared residuals of one outcome, divided by the squared shape of its scale, as a graph."""

    mixed: MixedModel
    outcome: int
    parameter: Parameter

    @property
    def row_subject(self) -> np.ndarray:
        return self.mixed.outcomes[self.outcome].row_subject

    def __call__(self, phi, theta):
        """Rows (row,) as a function of the symbols phi (subject, phi) and theta (theta,)."""
        rv = observed_variables(self.mixed.model)[self.outcome]
        mean, scale = in_symbols(self.mixed, list(location_and_scale(rv)), phi, theta)
        y = self.mixed.model.rvs_to_values[rv]
        y = pt.log(y) if type(rv.owner.op).__name__ == "LogNormalRV" else y
        column = self.parameter.columns.start
        at_zero = pt.set_subtensor(theta[column], 0.0)
        (shape,) = clone_replace([scale], replace=[(theta, at_zero)], rebuild_strict=False)
        return (pt.zeros_like(y, dtype="float64") + pt.sqr((y - mean) / shape)).ravel()


def recognize_residuals(mixed, points, roles, reasons: dict[str, str]):
    """Rules and their statistics; parameters without a closed form go to ``reasons``."""
    rules, terms = [], []
    for p in mixed.parameters:
        outcomes = tuple(roles[p.name].scale)
        if not outcomes or p.name in reasons:
            continue
        try:
            power = _common_power(mixed, points, p, outcomes)
        except NoClosedForm as refusal:
            reasons[p.name] = str(refusal)
            continue
        first = len(terms)
        terms += [ResidualTerm(mixed, j, p) for j in outcomes]
        n_rows = sum(mixed.outcomes[j].n_rows for j in outcomes)
        unit = float(points.natural(p, np.zeros(1))[0])
        rules.append(ResidualRule(p, outcomes, tuple(range(first, len(terms))), power, unit, n_rows))
    return tuple(rules), tuple(terms)


def _common_power(mixed, points, p: Parameter, outcomes) -> float:
    """Power of a scalar parameter in the scales of its outcomes."""
    if p.columns.stop - p.columns.start != 1:
        raise NoClosedForm([p], f"is a residual scale of shape {p.shape}, not a scalar")
    powers = {_residual_power(mixed, points, p, j) for j in outcomes}
    if len(powers) != 1:
        raise NoClosedForm([p], f"scales its outcomes with different powers {sorted(powers)}")
    return powers.pop()


def _residual_power(mixed, points, p: Parameter, outcome: int) -> float:
    phi_symbol, theta_symbol = symbols(mixed)
    rv = observed_variables(mixed.model)[outcome]
    (scale,) = in_symbols(mixed, [location_and_scale(rv)[1]], phi_symbol, theta_symbol)
    f = quietly(pytensor.function([phi_symbol, theta_symbol], scale, mode=INTERPRETED, on_unused_input="ignore"))
    theta, phi = points.theta_of(points.template), points.phi_of(points.template)

    def at(flat):
        return flat[theta.size :].reshape(phi.shape), flat[: theta.size].copy()

    start = np.concatenate([theta, phi.ravel()])
    spreads = NEAR if ode_nodes([scale]) else SPREADS
    trials = generic_points(start, lambda x: np.all(np.isfinite(f(*at(x)))), np.random.default_rng(0), spreads=spreads)
    powers = set()
    for phi_trial, theta_trial in map(at, trials):
        values = {}
        for u in (-0.7, 0.0, 0.7, *FAR):
            theta_trial[p.columns] = u
            values[float(points.natural(p, np.full(1, u))[0])] = np.asarray(f(phi_trial, theta_trial), dtype=float)
        powers.add(homogeneity(values))
    power = powers.pop() if len(powers) == 1 else None
    if power is None:
        raise NoClosedForm(
            [p], f"the residual scale of '{mixed.outcomes[outcome].name}' is not proportional to a power of it"
        )
    return power
