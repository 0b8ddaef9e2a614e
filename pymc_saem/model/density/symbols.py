"""The graph of a model as a function of phi and theta: symbols, and what the value variables are in terms of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.model.graph.merged import merged
from pymc_saem.model.mixed_model import Block, MixedModel, Parameter, RandomEffect
from pymc_saem.model.normal.affine import AffineImage
from pymc_saem.model.normal.parametrization import location_and_scale

#: Graphs of a kind, such as tensors, which stay of that kind.
V = TypeVar("V", bound=Variable)

_FROM_PHI_GRAPH = {"identity": lambda x: x, "log": pt.exp, "logit": pt.sigmoid}


def units_graph(effect: RandomEffect, phi: TensorVariable) -> TensorVariable:
    """Columns of a random effect as a graph of phi, (unit, entry)."""
    block = phi[:, effect.columns]
    if effect.is_nested:
        block = block.reshape((phi.type.shape[0], effect.n_slots, -1))[
            effect.unit_subject, effect.unit_slot
        ]
    return block


def block_graph(effect: RandomEffect, phi: TensorVariable) -> TensorVariable:
    """Columns of a random effect as a graph of phi, in the shape of the user's variable."""
    block = units_graph(effect, phi).reshape((effect.n_units, *effect.event_shape))
    return pt.moveaxis(block, 0, effect.axis) if effect.axis else block


def image_graph(image: AffineImage, block: Block, phi: TensorVariable) -> TensorVariable:
    """Columns of the affine image of a block of random effects as a graph of phi, (unit, column)."""
    parts = [units_graph(effect, phi) for effect in block.effects]
    columns = parts[0] if len(parts) == 1 else pt.concatenate(parts, axis=1)
    return pt.specify_shape(columns, (image.n_units, image.n_columns))


def value_graph(effect: RandomEffect, phi: TensorVariable) -> TensorVariable:
    """Value variable of a random effect of the form "direct" as a graph of phi."""
    block = block_graph(effect, phi)
    return block if effect.value_is_phi else _FROM_PHI_GRAPH[effect.link](block)


def parameter_graph(parameter: Parameter, theta: TensorVariable) -> TensorVariable:
    """Value variable of a parameter as a graph of the flat vector theta."""
    return (
        theta[parameter.columns].reshape(parameter.shape)
        if parameter.shape
        else theta[parameter.columns.start]
    )


def substitution(
    mixed: MixedModel, phi: TensorVariable, theta: TensorVariable | None
) -> dict[Variable, TensorVariable]:
    """Value variables of the model as graphs of phi (subject, phi) and theta (theta,)."""
    values: dict[Variable, TensorVariable] = {}
    if theta is not None:
        values |= {model_value(mixed, p.name): parameter_graph(p, theta) for p in mixed.parameters}
    for effect in mixed.random_effects:
        if effect.form == "direct":
            values[model_value(mixed, effect.name)] = value_graph(effect, phi)
    for block in mixed.blocks:
        if (image := block.effects[0].image) is None:
            continue
        law = _replaced(mixed.model.replace_rvs_by_values(image.law), values)
        standard = image.standard_of(image_graph(image, block, phi), law)
        values |= {
            model_value(mixed, e.name): x for e, x in zip(block.effects, standard, strict=True)
        }
    waiting = [e for e in mixed.random_effects if e.form == "deviation"]
    while waiting:  # a mean may hold another deviation, whose value comes first
        names = {e.name for e in waiting}
        effect = next(e for e in waiting if not names & _effects_in_mean(mixed, e))
        (mean,) = _in_phi(mixed, [location_and_scale(mixed.model[effect.name])[0]], phi, values)
        values[model_value(mixed, effect.name)] = mean + block_graph(effect, phi)
        waiting.remove(effect)
    return values


def _effects_in_mean(mixed: MixedModel, effect: RandomEffect) -> set[str]:
    reached = set(ancestors([location_and_scale(mixed.model[effect.name])[0]]))
    return {
        e.name for e in mixed.random_effects if e is not effect and mixed.model[e.name] in reached
    }


def _replaced(graphs: Sequence[V], values: Mapping[Variable, TensorVariable]) -> list[V]:
    pairs = [(k, v.astype(k.type.dtype)) for k, v in values.items()]
    replaced = clone_replace(graphs, replace=pairs, rebuild_strict=False)
    return cast(list[V], replaced)  # a tensor stays one, which PyTensor's annotation leaves open


def model_value(mixed: MixedModel, name: str) -> TensorVariable:
    return mixed.model.rvs_to_values[mixed.model[name]]


def symbols(mixed: MixedModel) -> tuple[TensorVariable, TensorVariable]:
    """Fresh symbols phi (subject, phi) and theta (theta,)."""
    phi = pt.tensor("phi", dtype="float64", shape=(mixed.n_subjects, mixed.n_phi))
    theta = pt.tensor("theta", dtype="float64", shape=(mixed.n_theta,))
    return phi, theta


def in_symbols(
    mixed: MixedModel, graphs: Sequence[V], phi: TensorVariable, theta: TensorVariable | None
) -> list[V]:
    """Rewrite graphs over random variables or value variables as graphs of phi and theta.

    Without theta (None), the value variables of the parameters stay, which shows which of them a
    graph holds.
    """
    return _in_phi(mixed, graphs, phi, substitution(mixed, phi, theta))


def _in_phi(
    mixed: MixedModel,
    graphs: Sequence[V],
    phi: TensorVariable,
    values: dict[Variable, TensorVariable],
) -> list[V]:
    """The graphs with the value variables replaced, and with the cuts of affine images."""
    cuts = []
    for block in mixed.blocks:
        if (image := block.effects[0].image) is not None:
            columns = image_graph(image, block, phi)
            cuts += [(cut, columns) for cut in image.cuts]
    n = len(graphs)
    replaced = mixed.model.replace_rvs_by_values([*graphs, *(cut.variable for cut, _ in cuts)])
    if cuts:  # PyMC's densities are copies, in which the cuts must be found again
        replaced = merged(replaced)
    # phi itself where it stands in the graph: mu + omega * ((phi - mu) / omega) would make mu and
    # omega parts of predictions
    phis: dict[Variable, TensorVariable] = {}
    for k, (cut, columns) in enumerate(cuts):
        phis[replaced[n + k]] = phis[cut.symbol] = cut.of_columns(columns)
    return _replaced(replaced[:n], values | phis)
