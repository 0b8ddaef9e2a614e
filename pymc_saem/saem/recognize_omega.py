"""Recognizes covariances of random effects: fixed, scalar, diagonal, full by a Cholesky factor."""

from __future__ import annotations

import numpy as np

from pymc_saem.saem.model import Parameter, UnsupportedModelError
from pymc_saem.saem.mstep import unpack_cholesky
from pymc_saem.saem.point import PointMap
from pymc_saem.saem.rules import REFUSAL, OmegaRule, homogeneity


def recognize_omegas(mixed, probe, roles):
    fixed = np.zeros((mixed.n_phi, mixed.n_phi))
    rules, of_effect = [], {e.name: [] for e in mixed.random_effects}
    for p in mixed.parameters:
        for name in roles[p.name]["covariance"]:
            of_effect[name].append(p)
    for effect in mixed.random_effects:
        block = np.arange(effect.columns.start, effect.columns.stop)
        parameters = of_effect[effect.name]
        if not parameters:
            fixed[np.ix_(block, block)] = probe.covariance(effect, probe.base)
        elif len(parameters) > 1:
            names = ", ".join(f"'{p.name}'" for p in parameters)
            raise UnsupportedModelError(
                f"The covariance of '{effect.name}' depends on several parameters ({names}). {REFUSAL}"
            )
        else:
            rules.append(_recognize_omega(mixed, probe, effect, parameters[0]))
    return _pool_scalars(rules), fixed


def _recognize_omega(mixed, probe, effect, p: Parameter) -> OmegaRule:
    points = PointMap(mixed)
    block = np.arange(effect.columns.start, effect.columns.stop)
    size = p.columns.stop - p.columns.start

    def covariance_at(x):
        theta = probe.base.copy()
        theta[p.columns] = points.unconstrained(p, x)
        return probe.covariance(effect, theta)

    u = np.linspace(-0.7, 0.7, 3)
    if size == 1:
        xs = [points.natural(p, np.full(1, v)) for v in u]
        values = {float(x[0]): covariance_at(x) for x in xs}
        power = homogeneity(values)
        if power is not None:
            x, c = next(iter(values.items()))
            return OmegaRule(p, "scalar", block, power / 2, c / x**power)
    elif size == block.size and (rule := _recognize_diagonal(points, p, block, covariance_at, probe)):
        return rule
    if size == block.size * (block.size + 1) // 2 and _is_cholesky(mixed, p, block.size, covariance_at, probe):
        return OmegaRule(p, "full", block, 1.0, np.eye(block.size))
    raise UnsupportedModelError(
        f"The covariance of the random effect '{effect.name}' is neither proportional to a power of '{p.name}', nor diagonal in it, "
        f"nor LL' with L = '{p.name}'. {REFUSAL}"
    )


def _recognize_diagonal(points, p, block, covariance_at, probe) -> OmegaRule | None:
    u = probe.rng.standard_normal((3, block.size)) * 0.5
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


def _is_cholesky(mixed, p, n, covariance_at, probe) -> bool:
    points = PointMap(mixed)
    for _ in range(2):
        x = points.natural(p, 0.4 * probe.rng.standard_normal(p.columns.stop - p.columns.start))
        lower = unpack_cholesky(x, n)
        if not np.allclose(covariance_at(x), lower @ lower.T, rtol=1e-8, atol=1e-12):
            return False
    return True


def _pool_scalars(rules) -> tuple[OmegaRule, ...]:
    """One rule per parameter: a scalar variance that several random effects share pools their squares."""
    pooled = {}
    for rule in rules:
        name = rule.parameter.name
        if name not in pooled:
            pooled[name] = rule
            continue
        first = pooled[name]
        if first.kind != "scalar" or rule.kind != "scalar" or first.power != rule.power:
            raise UnsupportedModelError(
                f"The covariance parameter '{name}' is shared in a way that has no closed form. {REFUSAL}"
            )
        k, m = first.base.shape[0], rule.base.shape[0]
        base = np.block([[first.base, np.zeros((k, m))], [np.zeros((m, k)), rule.base]])
        columns = np.concatenate([first.columns, rule.columns])
        pooled[name] = OmegaRule(first.parameter, "scalar", columns, first.power, base)
    return tuple(pooled.values())
