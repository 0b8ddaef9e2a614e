"""Recognizes covariances of random effects: fixed, scalar, diagonal, full by a Cholesky factor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pymc_saem.model.density.laws import LawOfPhi
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.density.roles import Roles
from pymc_saem.model.mixed_model import Block, MixedModel, Parameter
from pymc_saem.saem.core.closed_form import unpack_cholesky
from pymc_saem.saem.mstep.rules import FAR, NoClosedForm, OmegaRule, homogeneity

#: Covariance (k, k) of some columns of phi at the natural value of a parameter.
CovarianceAt = Callable[[np.ndarray], np.ndarray]


def recognize_omegas(
    mixed: MixedModel, law: LawOfPhi, roles: dict[str, Roles], reasons: dict[str, str]
) -> tuple[tuple[OmegaRule, ...], np.ndarray, tuple[Block, ...]]:
    """Rules, the constant part of omega (phi, phi), and the blocks whose covariance is evaluated at each theta.

    Parameters without a closed form go to ``reasons``.
    """
    fixed = np.zeros((mixed.n_phi, mixed.n_phi))
    found: list[OmegaRule] = []
    in_covariance = {
        block.name: [
            p
            for p in mixed.parameters
            if block.effects[0].name in {e.name for e in roles[p.name].covariance}
        ]
        for block in law.blocks
    }
    for block in law.blocks:
        try:
            found += _recognize_block(mixed, law, block, in_covariance[block.name], reasons)
        except NoClosedForm as refusal:
            reasons |= {p.name: str(refusal) for p in refusal.parameters if p.name not in reasons}
    found = _pool_scalars(found, reasons)
    # A parameter that lost its closed form in one effect has lost it in all of them.
    rules = tuple(rule for rule in found if rule.parameter.name not in reasons)
    moving = tuple(b for b in law.blocks if any(p.name in reasons for p in in_covariance[b.name]))
    for block in law.blocks:
        if block not in moving:
            fixed[np.ix_(block.columns, block.columns)] = law.covariance(block, law.base)
    for rule in rules:
        fixed[np.ix_(rule.columns, rule.columns)] = 0.0
    return rules, fixed, moving


def _recognize_block(
    mixed: MixedModel,
    law: LawOfPhi,
    block: Block,
    parameters: list[Parameter],
    reasons: dict[str, str],
) -> list[OmegaRule]:
    if any(p.name in reasons for p in parameters):
        others = [p for p in parameters if p.name not in reasons]
        lost = next(p.name for p in parameters if p.name in reasons)
        raise NoClosedForm(others, f"the covariance of '{block.name}' depends on '{lost}' too")
    columns = [_columns_of(law, block, p) for p in parameters]
    if len(parameters) == 1:
        # Parts of a covariance that the parameter leaves alone, such as effects of a fixed scale,
        # stay as they are.
        is_apart = _is_diagonal(law, block) and 0 < columns[0].size
        where = columns[0] if is_apart else np.arange(block.columns.size)
        return [_recognize_omega(mixed, law, block, parameters[0], where)]
    if sum(c.size for c in columns) > np.unique(
        np.concatenate(columns or [block.columns])
    ).size or not _is_diagonal(law, block):
        names = ", ".join(f"'{p.name}'" for p in parameters)
        raise NoClosedForm(
            parameters,
            f"the covariance of '{block.name}' depends on several parameters ({names}) at once",
        )
    return [
        _recognize_omega(mixed, law, block, p, c) for p, c in zip(parameters, columns, strict=True)
    ]


def _columns_of(law: LawOfPhi, block: Block, p: Parameter) -> np.ndarray:
    """Places in a block whose variance a parameter changes."""
    changed = np.zeros(block.columns.size, dtype=bool)
    for theta in law.points:
        before, after = (np.diag(law.covariance(block, x)) for x in (theta, law.moved(theta, p)))
        changed |= ~np.isclose(before, after, rtol=1e-8, atol=0.0)
    return np.flatnonzero(changed)


def _is_diagonal(law: LawOfPhi, block: Block) -> bool:
    covariances = [law.covariance(block, theta) for theta in law.points]
    return not any(np.any(c - np.diag(np.diag(c))) for c in covariances)


def _recognize_omega(
    mixed: MixedModel, law: LawOfPhi, of_law: Block, p: Parameter, inside: np.ndarray
) -> OmegaRule:
    """The rule of one parameter for some places in a block."""
    points = PointMap(mixed)
    size, block = p.columns.stop - p.columns.start, of_law.columns[inside]

    def covariance_at(x: np.ndarray) -> np.ndarray:
        theta = law.base.copy()
        theta[p.columns] = points.unconstrained(p, x)
        return law.covariance(of_law, theta)[np.ix_(inside, inside)]

    u = (-0.7, 0.0, 0.7, *FAR)
    if size == 1:
        xs = [points.natural(p, np.full(1, v)) for v in u]
        values = {float(x[0]): covariance_at(x) for x in xs}
        power = homogeneity(values)
        if power is not None:
            x, c = next(iter(values.items()))
            return OmegaRule(p, "scalar", block, power / 2, c / x**power)
    elif size == block.size and (rule := _recognize_diagonal(points, p, block, covariance_at, law)):
        return rule
    if size == block.size * (block.size + 1) // 2 and _is_cholesky(
        mixed, p, block.size, covariance_at, law
    ):
        return OmegaRule(p, "full", block, 1.0, np.eye(block.size))
    raise NoClosedForm(
        [p],
        f"the covariance of '{of_law.name}' is neither proportional to a power of '{p.name}', nor diagonal in it, nor LL' of it",
    )


def _recognize_diagonal(
    points: PointMap, p: Parameter, block: np.ndarray, covariance_at: CovarianceAt, law: LawOfPhi
) -> OmegaRule | None:
    u = np.vstack(
        [law.rng.standard_normal((3, block.size)) * 0.5, *(np.full(block.size, v) for v in FAR)]
    )
    xs = [points.natural(p, row) for row in u]
    cs = [covariance_at(x) for x in xs]
    if any(np.abs(c - np.diag(np.diag(c))).max() > 0 for c in cs):
        return None
    powers = {
        homogeneity({float(x[j]): c[j, j] for x, c in zip(xs, cs, strict=True)})
        for j in range(block.size)
    }
    power = powers.pop() if len(powers) == 1 else None
    if power is None:
        return None
    base = np.diag(np.diag(cs[0]) / xs[0] ** power)
    return OmegaRule(p, "diagonal", block, power / 2, base)


def _is_cholesky(
    mixed: MixedModel, p: Parameter, n: int, covariance_at: CovarianceAt, law: LawOfPhi
) -> bool:
    points = PointMap(mixed)
    for spread in (0.4, 0.4, FAR[1]):
        x = points.natural(p, spread * law.rng.standard_normal(p.columns.stop - p.columns.start))
        lower = unpack_cholesky(x, n)
        if not np.allclose(covariance_at(x), lower @ lower.T, rtol=1e-8, atol=1e-12):
            return False
    return True


def _pool_scalars(rules: list[OmegaRule], reasons: dict[str, str]) -> list[OmegaRule]:
    """One rule per parameter: a scalar variance that several random effects share pools their squares."""
    pooled: dict[str, OmegaRule] = {}
    for rule in rules:
        name = rule.parameter.name
        if name not in pooled:
            pooled[name] = rule
            continue
        first = pooled[name]
        if first.kind != "scalar" or rule.kind != "scalar" or first.power != rule.power:
            reasons.setdefault(
                name, "several random effects share it as a covariance of different kinds"
            )
            continue
        k, m = first.base.shape[0], rule.base.shape[0]
        base = np.block([[first.base, np.zeros((k, m))], [np.zeros((m, k)), rule.base]])
        columns = np.concatenate([first.columns, rule.columns])
        pooled[name] = OmegaRule(first.parameter, "scalar", columns, first.power, base)
    return list(pooled.values())
