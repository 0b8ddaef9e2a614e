"""Recognizes covariances of random effects: fixed, scalar, diagonal, full by a Cholesky factor."""

from __future__ import annotations

import numpy as np

from pymc_saem.saem.laws import LawOfPhi
from pymc_saem.saem.model import MixedModel, Parameter, RandomEffect
from pymc_saem.saem.mstep import unpack_cholesky
from pymc_saem.saem.point import PointMap
from pymc_saem.saem.rules import NoClosedForm, OmegaRule, homogeneity


def recognize_omegas(mixed: MixedModel, law: LawOfPhi, roles, reasons: dict[str, str]):
    """Rules, the constant part of omega (phi, phi), and the effects whose covariance is evaluated at each theta.

    Parameters without a closed form go to ``reasons``.
    """
    fixed, rules = np.zeros((mixed.n_phi, mixed.n_phi)), []
    in_covariance = {
        effect.name: [p for p in mixed.parameters if effect.name in {e.name for e in roles[p.name].covariance}]
        for effect in mixed.random_effects
    }
    for effect in law.effects:
        try:
            rules += _recognize_effect(mixed, law, effect, in_covariance[effect.name], reasons)
        except NoClosedForm as refusal:
            reasons |= {p.name: str(refusal) for p in refusal.parameters if p.name not in reasons}
    rules = _pool_scalars(rules, reasons)
    # A parameter that lost its closed form in one effect has lost it in all of them.
    rules = tuple(rule for rule in rules if rule.parameter.name not in reasons)
    moving = tuple(e for e in law.effects if any(p.name in reasons for p in in_covariance[e.name]))
    for effect in law.effects:
        block = np.arange(effect.columns.start, effect.columns.stop)
        if effect not in moving:
            fixed[np.ix_(block, block)] = law.covariance(effect, law.base)
    for rule in rules:
        fixed[np.ix_(rule.columns, rule.columns)] = 0.0
    return rules, fixed, moving


def _recognize_effect(mixed, law, effect: RandomEffect, parameters, reasons) -> list[OmegaRule]:
    if any(p.name in reasons for p in parameters):
        others = [p for p in parameters if p.name not in reasons]
        lost = next(p.name for p in parameters if p.name in reasons)
        raise NoClosedForm(others, f"the covariance of '{effect.name}' depends on '{lost}' too")
    block = np.arange(effect.columns.start, effect.columns.stop)
    if len(parameters) == 1:
        return [_recognize_omega(mixed, law, effect, parameters[0], block)]
    columns = [_columns_of(law, effect, p) for p in parameters]
    if sum(c.size for c in columns) > np.unique(np.concatenate(columns or [block])).size or not _is_diagonal(
        law, effect
    ):
        names = ", ".join(f"'{p.name}'" for p in parameters)
        raise NoClosedForm(
            parameters, f"the covariance of '{effect.name}' depends on several parameters ({names}) at once"
        )
    return [_recognize_omega(mixed, law, effect, p, block[c]) for p, c in zip(parameters, columns, strict=True)]


def _columns_of(law, effect, p: Parameter) -> np.ndarray:
    """Entries of an effect whose variance a parameter changes."""
    moved = law.base.copy()
    moved[p.columns] += law.rng.uniform(0.1, 0.5, size=moved[p.columns].shape)
    changed = np.diag(law.covariance(effect, moved)) != np.diag(law.covariance(effect, law.base))
    return np.flatnonzero(changed)


def _is_diagonal(law, effect) -> bool:
    moved = law.base + law.rng.uniform(0.1, 0.5, size=law.base.shape)
    covariance = law.covariance(effect, moved)
    return not np.any(covariance - np.diag(np.diag(covariance)))


def _recognize_omega(mixed, law, effect, p: Parameter, block: np.ndarray) -> OmegaRule:
    points = PointMap(mixed)
    size = p.columns.stop - p.columns.start
    inside = block - effect.columns.start

    def covariance_at(x):
        theta = law.base.copy()
        theta[p.columns] = points.unconstrained(p, x)
        return law.covariance(effect, theta)[np.ix_(inside, inside)]

    u = np.linspace(-0.7, 0.7, 3)
    if size == 1:
        xs = [points.natural(p, np.full(1, v)) for v in u]
        values = {float(x[0]): covariance_at(x) for x in xs}
        power = homogeneity(values)
        if power is not None:
            x, c = next(iter(values.items()))
            return OmegaRule(p, "scalar", block, power / 2, c / x**power)
    elif size == block.size and (rule := _recognize_diagonal(points, p, block, covariance_at, law)):
        return rule
    if size == block.size * (block.size + 1) // 2 and _is_cholesky(mixed, p, block.size, covariance_at, law):
        return OmegaRule(p, "full", block, 1.0, np.eye(block.size))
    raise NoClosedForm(
        [p],
        f"the covariance of '{effect.name}' is neither proportional to a power of '{p.name}', nor diagonal in it, nor LL' of it",
    )


def _recognize_diagonal(points, p, block, covariance_at, law) -> OmegaRule | None:
    u = law.rng.standard_normal((3, block.size)) * 0.5
    xs = [points.natural(p, row) for row in u]
    cs = [covariance_at(x) for x in xs]
    if any(np.abs(c - np.diag(np.diag(c))).max() > 0 for c in cs):
        return None
    powers = {homogeneity({float(x[j]): c[j, j] for x, c in zip(xs, cs, strict=True)}) for j in range(block.size)}
    if len(powers) != 1 or None in powers:
        return None
    (power,) = powers
    base = np.diag(np.diag(cs[0]) / xs[0] ** power)
    return OmegaRule(p, "diagonal", block, power / 2, base)


def _is_cholesky(mixed, p, n, covariance_at, law) -> bool:
    points = PointMap(mixed)
    for _ in range(2):
        x = points.natural(p, 0.4 * law.rng.standard_normal(p.columns.stop - p.columns.start))
        lower = unpack_cholesky(x, n)
        if not np.allclose(covariance_at(x), lower @ lower.T, rtol=1e-8, atol=1e-12):
            return False
    return True


def _pool_scalars(rules, reasons: dict[str, str]) -> list[OmegaRule]:
    """One rule per parameter: a scalar variance that several random effects share pools their squares."""
    pooled = {}
    for rule in rules:
        name = rule.parameter.name
        if name not in pooled:
            pooled[name] = rule
            continue
        first = pooled[name]
        if first.kind != "scalar" or rule.kind != "scalar" or first.power != rule.power:
            reasons.setdefault(name, "several random effects share it as a covariance of different kinds")
            continue
        k, m = first.base.shape[0], rule.base.shape[0]
        base = np.block([[first.base, np.zeros((k, m))], [np.zeros((m, k)), rule.base]])
        columns = np.concatenate([first.columns, rule.columns])
        pooled[name] = OmegaRule(first.parameter, "scalar", columns, first.power, base)
    return list(pooled.values())
