"""Recognizes standard deviations of random effects that differ between subjects, such as one per group of subjects."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.density.roles import Roles
from pymc_saem.model.density.symbols import in_symbols, symbols, units_graph
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import Block, MixedModel, Parameter, RandomEffect
from pymc_saem.model.normal.parametrization import law_of
from pymc_saem.saem.mstep.rules import EffectScaleRule, NoClosedForm, homogeneity


@dataclass(frozen=True)
class EffectTerm:
    """Squared deviations of random effects whose scale is one entry of a parameter, divided by the rest of the scale, as a graph."""

    mixed: MixedModel
    effect: RandomEffect
    # (unit, entry of a unit): 1 / squared rest of the scale; 0 for other effects
    weight: np.ndarray = field(repr=False)

    @property
    def row_subject(self) -> np.ndarray:
        return self.effect.row_subject(self.mixed.n_subjects)

    def __call__(self, phi: TensorVariable, theta: TensorVariable) -> TensorVariable:
        """Sum of each unit (unit,) as a function of the symbols phi (subject, phi) and theta (theta,)."""
        (mean,) = in_symbols(self.mixed, [_mean_and_scale(self.mixed, self.effect)[0]], phi, theta)
        return (self.weight * pt.sqr(units_graph(self.effect, phi) - mean)).sum(axis=1)


def recognize_scales(
    mixed: MixedModel, points: PointMap, roles: dict[str, Roles], reasons: dict[str, str]
) -> tuple[tuple[EffectScaleRule, ...], tuple[EffectTerm, ...]]:
    """Rules of the parameters that are nothing but such scales, and their statistics; ``reasons`` loses these parameters.

    The others keep their reasons.
    """
    rules: list[EffectScaleRule] = []
    terms: list[EffectTerm] = []
    for p in mixed.parameters:
        places = roles[p.name]
        if places.used() != ["law"]:
            continue
        try:
            parts = [_of_effect(mixed, points, p, effect) for effect in places.law]
        except NoClosedForm:
            continue
        powers = {power for power, _ in parts}
        if len(powers) != 1:
            continue
        reasons.pop(p.name)
        size, start = p.columns.stop - p.columns.start, len(terms)
        count = np.zeros((mixed.n_subjects, size))
        for effect, (_, weights) in zip(places.law, parts, strict=True):
            terms += [EffectTerm(mixed, effect, weight) for weight in weights]
            np.add.at(count, effect.row_subject(mixed.n_subjects), (weights > 0).sum(axis=-1).T)
        of_entries = start + np.arange(len(parts) * size).reshape(len(parts), size).T
        rule = EffectScaleRule(
            parameter=p,
            effects=tuple(places.law),
            terms=of_entries,
            effects_of=count,
            power=powers.pop(),
        )
        rules.append(rule)
    return tuple(rules), tuple(terms)


def _of_effect(
    mixed: MixedModel, points: PointMap, p: Parameter, effect: RandomEffect
) -> tuple[float, np.ndarray]:
    """Power of the parameter in the scale, and weights (entry of p, unit, entry of a unit) of the squared deviations."""
    refusal = NoClosedForm(
        [p],
        f"the scale of '{effect.name}' is not proportional to a power of one entry of '{p.name}'",
    )
    if (
        effect.link == "value"
        or len(_block(mixed, effect).effects) > 1
        or _is_multivariate(mixed, effect)
    ):
        raise refusal
    phi, theta = symbols(mixed)
    graphs = in_symbols(mixed, _mean_and_scale(mixed, effect), phi, theta)
    f = pytensor.function([phi, theta], graphs, mode=INTERPRETED, on_unused_input="ignore")
    # probes a fixed function: any points do
    rng, base = (
        np.random.default_rng(0),
        points.theta_of(points.template),
    )
    base = base + rng.uniform(0.1, 0.5, size=base.shape)
    effects = rng.normal(size=(mixed.n_subjects, mixed.n_phi))
    mean, scale = f(effects, base)
    other = base + rng.uniform(0.1, 0.5, size=base.shape)
    other[p.columns] = base[p.columns]
    # other parameters or effects move the scale too
    if not np.allclose(f(effects + 1.0, other)[1], scale, rtol=1e-8):
        raise refusal
    size = p.columns.stop - p.columns.start
    x = points.natural(p, base[p.columns])
    powers: set[float] = set()
    weights, owned = np.zeros((size, *scale.shape)), np.zeros(scale.shape, dtype=int)
    for j in range(size):
        values = {float(x[j]): scale}
        for step in (0.3, 0.6):
            moved = base.copy()
            moved[p.columns.start + j] += step
            new_mean, new = f(effects, moved)
            if not np.allclose(new_mean, mean, rtol=1e-8, atol=1e-8):
                raise refusal
            values[float(points.natural(p, moved[p.columns])[j])] = new
        own = ~np.isclose(new, scale, rtol=1e-8, atol=0.0)
        if not own.any():
            continue
        power = homogeneity({key: value[own] for key, value in values.items()})
        if power is None:
            raise refusal
        powers.add(power)
        owned += own
        weights[j][own] = x[j] ** (2 * max(powers)) / scale[own] ** 2
    if len(powers) != 1 or owned.max() > 1:
        raise refusal
    return powers.pop(), weights


def _block(mixed: MixedModel, effect: RandomEffect) -> Block:
    return next(block for block in mixed.blocks if effect in block.effects)


def _is_multivariate(mixed: MixedModel, effect: RandomEffect) -> bool:
    if effect.image is not None:
        return not effect.image.is_diagonal
    return type(mixed.model[effect.name].owner.op).__name__ == "MvNormalRV"


def _mean_and_scale(mixed: MixedModel, effect: RandomEffect) -> list[TensorVariable]:
    """Graphs of the mean and the standard deviation of phi, (unit, entry of a unit)."""
    mean, scale = law_of(mixed.model, _block(mixed, effect))
    if effect.image is not None:
        return [mean, pt.abs(scale)]
    zeros = pt.zeros(effect.shape)
    return [
        pt.moveaxis(x + zeros, effect.axis, 0).reshape((effect.n_units, -1)) for x in (mean, scale)
    ]
