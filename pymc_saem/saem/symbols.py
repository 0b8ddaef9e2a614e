"""The graph of a model as a function of phi and theta: symbols, and what the value variables are in terms of them."""

from __future__ import annotations

import pytensor.tensor as pt
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors

from pymc_saem.saem.model import MixedModel, Parameter, RandomEffect
from pymc_saem.saem.spelling import law_of, location_and_scale

_FROM_PHI_GRAPH = {"identity": lambda x: x, "log": pt.exp, "logit": pt.sigmoid}


def block_graph(effect: RandomEffect, phi):
    """Columns of a random effect as a graph of phi, in its shape (subject or unit, ...)."""
    block = phi[:, effect.columns]
    if effect.is_nested:
        block = block.reshape((phi.type.shape[0], effect.n_slots, -1))[effect.unit_subject, effect.unit_slot]
    return block.reshape(effect.shape)


def value_graph(effect: RandomEffect, phi):
    """Value variable of a random effect of the form "direct" as a graph of phi, shape (subject or unit, ...)."""
    block = block_graph(effect, phi)
    return block if effect.value_is_phi else _FROM_PHI_GRAPH[effect.link](block)


def parameter_graph(parameter: Parameter, theta):
    """Value variable of a parameter as a graph of the flat vector theta."""
    return theta[parameter.columns].reshape(parameter.shape) if parameter.shape else theta[parameter.columns.start]


def substitution(mixed: MixedModel, phi, theta) -> dict:
    """Value variables of the model as graphs of phi (subject, phi) and theta (theta,)."""
    values = {} if theta is None else {model_value(mixed, p.name): parameter_graph(p, theta) for p in mixed.parameters}
    of_form = {
        form: [e for e in mixed.random_effects if e.form == form] for form in ("direct", "standard", "deviation")
    }
    for effect in of_form["direct"]:
        values[model_value(mixed, effect.name)] = value_graph(effect, phi)
    for effect in of_form["standard"]:
        location, scale = _replaced(mixed.model.replace_rvs_by_values(law_of(mixed.model, effect)), values)
        values[model_value(mixed, effect.name)] = (block_graph(effect, phi) - location) / scale
    waiting = of_form["deviation"]
    while waiting:  # a mean may hold another deviation, whose value comes first
        names = {e.name for e in waiting}
        effect = next(e for e in waiting if not names & _effects_in_mean(mixed, e))
        (mean,) = _replaced(
            mixed.model.replace_rvs_by_values([location_and_scale(mixed.model[effect.name])[0]]), values
        )
        values[model_value(mixed, effect.name)] = mean + block_graph(effect, phi)
        waiting.remove(effect)
    return values


def _effects_in_mean(mixed: MixedModel, effect: RandomEffect) -> set[str]:
    reached = set(ancestors([location_and_scale(mixed.model[effect.name])[0]]))
    return {e.name for e in mixed.random_effects if e is not effect and mixed.model[e.name] in reached}


def _replaced(graphs: list, values: dict) -> list:
    return clone_replace(graphs, replace=[(k, v.astype(k.dtype)) for k, v in values.items()], rebuild_strict=False)


def model_value(mixed: MixedModel, name: str):
    return mixed.model.rvs_to_values[mixed.model[name]]


def symbols(mixed: MixedModel):
    """Fresh symbols phi (subject, phi) and theta (theta,)."""
    phi = pt.tensor("phi", dtype="float64", shape=(mixed.n_subjects, mixed.n_phi))
    theta = pt.tensor("theta", dtype="float64", shape=(mixed.n_theta,))
    return phi, theta


def in_symbols(mixed: MixedModel, graphs: list, phi, theta) -> list:
    """Rewrite graphs over random variables or value variables as graphs of phi and theta.

    Without theta (None), the value variables of the parameters stay, which shows which of them a graph holds.
    """
    combined = [e for e in mixed.random_effects if e.combined is not None]
    n = len(graphs)
    graphs = mixed.model.replace_rvs_by_values([*graphs, *(e.combined for e in combined)])
    # phi itself where it stands in the graph: mu + omega * ((phi - mu) / omega) would make mu and omega parts of predictions
    phis = {graphs[n + k]: block_graph(e, phi) for k, e in enumerate(combined)}
    return _replaced(graphs[:n], substitution(mixed, phi, theta) | phis)
