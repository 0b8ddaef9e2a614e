"""Three ways to write a normal random effect, brought to one: phi is what is normal and independent of other effects.

=============  ==================================  =======================================
form           the user's model                    phi
=============  ==================================  =======================================
"direct"       ``b ~ Normal(mu, omega)``           b, on its link scale
"deviation"    ``c ~ Normal(b[...], omega)``       c minus its mean, where b is an effect
"standard"     ``eta ~ Normal(0, 1)``, and only    mu + omega * eta
               ``mu + omega * eta`` is used
=============  ==================================  =======================================
"""

from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.ops import ViewOp
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, walk
from pytensor.tensor.elemwise import Elemwise

from pymc_saem.compat import observed_variables
from pymc_saem.saem.interpreted import INTERPRETED


def location_and_scale(rv):
    """Location and scale graphs of a Normal, LogNormal, LogitNormal or MvNormal variable."""
    return rv.owner.op.dist_params(rv.owner)[:2]


def law_of(model, effect) -> list:
    """Location and scale of the normal law of phi, as graphs of the model's random variables."""
    rv = model[effect.name]
    if effect.combined is not None:
        return list(affine_in(rv, effect.combined, effect.shape))
    location, scale = location_and_scale(rv)
    return [pt.zeros(effect.shape), scale] if effect.form == "deviation" else [location, scale]


def form_of(model, name: str, effects: list[str]) -> str:
    """ "deviation" for a Normal or LogNormal effect whose mean depends on other effects, and its scale does not."""
    rv = model[name]
    others = {model[other] for other in effects if other != name}
    if type(rv.owner.op).__name__ not in ("NormalRV", "LogNormalRV"):
        return "direct"
    location, scale = (others & set(ancestors([graph])) for graph in location_and_scale(rv))
    return "deviation" if location and not scale else "direct"


def combination_of(model, name: str, shape: tuple[int, ...]):
    """The variable m + s * eta through which alone a standard normal effect enters the model; None if there is none.

    It must have the shape of the effect, and m and s may hold parameters only.
    """
    rv = model[name]
    if type(rv.owner.op).__name__ != "NormalRV" or set(model.free_RVs) & set(ancestors(rv.owner.inputs)):
        return None
    users = _users([v for o in observed_variables(model) for v in o.owner.inputs])
    current, best = rv, None
    while len(users.get(current, ())) == 1:
        (node,) = users[current]
        # A row of data or a solution is not an entry per subject; only what is computed entry by entry can be.
        if not isinstance(getattr(node, "op", None), Elemwise | ViewOp) or len(node.outputs) > 1:
            break
        current = node.outputs[0]
        if not _only_parameters_beside(model, rv, current) or not _is_affine(model, rv, current, shape):
            break
        best = current
    return best


def _users(targets) -> dict:
    """Nodes that use each variable, in the graph of the targets."""
    users, seen = {}, set()
    for variable in walk(targets, lambda v: v.owner.inputs if v.owner is not None else []):
        node = variable.owner
        if node is None or node in seen:
            continue
        seen.add(node)
        for used in dict.fromkeys(node.inputs):
            users.setdefault(used, []).append(node)
    for variable in targets:
        users.setdefault(variable, []).append(None)
    return users


def _only_parameters_beside(model, rv, combined) -> bool:
    """Whether the variable holds no other random effect: nothing of the length of the subjects, or with parameters of its own."""
    free = set(model.free_RVs)
    for other in free & set(ancestors([combined])) - {rv}:
        if other.type.ndim and (
            free & set(ancestors(other.owner.inputs)) - {other} or _length(model, other) == _length(model, rv)
        ):
            return False
    return True


def _length(model, rv):
    """Length of the first axis; None where only the run tells."""
    dims = model.named_vars_to_dims.get(rv.name)
    return len(model.coords[dims[0]]) if dims and model.coords.get(dims[0]) is not None else rv.type.shape[0]


def affine_in(rv, combined, shape) -> tuple:
    """Graphs of m and s, where ``combined`` = m + s * rv."""
    # graph_replace, because clone_replace would copy the other random variables, and nothing would find them any more
    at_zero, at_one = (
        graph_replace(combined, {rv: pt.constant(np.full(shape, x), dtype=rv.dtype)}, strict=False) for x in (0.0, 1.0)
    )
    return at_zero, at_one - at_zero


def _is_affine(model, rv, combined, shape) -> bool:
    """Whether combined = m + s * rv, entry by entry, at random values of everything."""
    location, scale = affine_in(rv, combined, shape)
    free = [v for v in model.free_RVs if v in set(ancestors([combined]))]
    symbols = {v: v.type() for v in free}
    graphs = graph_replace([combined, location + scale * rv], symbols, strict=False)
    f = pytensor.function(list(symbols.values()), graphs, mode=INTERPRETED, on_unused_input="ignore")
    rng = np.random.default_rng(0)  # probes a fixed function: any points do
    point = model.initial_point(random_seed=0)
    shapes = [point[model.rvs_to_values[v].name].shape if v.type.ndim else () for v in free]
    for _ in range(2):
        found, expected = f(
            *(rng.uniform(0.5, 1.5, size=shape).astype(v.dtype) for v, shape in zip(free, shapes, strict=True))
        )
        if np.shape(found) != shapes[free.index(rv)] or not np.allclose(found, expected, rtol=1e-9, atol=1e-12):
            return False
    return True
