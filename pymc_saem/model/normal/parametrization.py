"""Three ways to write a normal random effect, brought to one: phi is what is normal and independent of other effects.

=============  ==================================  =======================================
form           the user's model                    phi
=============  ==================================  =======================================
"direct"       ``b ~ Normal(mu, omega)``           b, on its link scale
"deviation"    ``c ~ Normal(b[...], omega)``       c minus its mean, where b is an effect
"standard"     ``eta ~ Normal(0, 1)``, and only    mu + omega * eta; see affine.py
               ``mu + omega * eta`` is used
=============  ==================================  =======================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pymc as pm
import pytensor.tensor as pt
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

if TYPE_CHECKING:
    from pymc_saem.model.mixed_model import Block


def location_and_scale(rv: TensorVariable) -> tuple[TensorVariable, TensorVariable]:
    """Location and scale graphs of a Normal, LogNormal, LogitNormal or MvNormal variable."""
    return rv.owner.op.dist_params(rv.owner)[:2]


def law_of(model: pm.Model, block: Block) -> list[TensorVariable]:
    """Location and scale of the normal distribution of the phi of a block, as graphs of the model's random variables."""
    effect = block.effects[0]
    if effect.image is not None:
        return list(effect.image.law)
    location, scale = location_and_scale(model[effect.name])
    return [pt.zeros(effect.shape), scale] if effect.form == "deviation" else [location, scale]


def form_of(model: pm.Model, name: str, effects: Sequence[str]) -> str:
    """ "deviation" for a Normal or LogNormal effect whose mean depends on other effects, and its scale does not."""
    rv = model[name]
    others = {model[other] for other in effects if other != name}
    if type(rv.owner.op).__name__ not in ("NormalRV", "LogNormalRV"):
        return "direct"
    location, scale = (others & set(ancestors([graph])) for graph in location_and_scale(rv))
    return "deviation" if location and not scale else "direct"
