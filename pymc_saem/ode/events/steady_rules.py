"""Conditions that steady states in a table put on the right-hand side."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytensor
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors, graph_inputs

__all__ = ["check_steady_states"]

_SEED, _EQUAL = 2024, 1e-8


def check_steady_states(
    rows: Sequence[Mapping[str, Any]],
    derivatives: Mapping[str, Any],
    t: Variable,
    y: SimpleNamespace,
    curves: Sequence[Variable],
) -> None:
    """Refuse systems without a steady state; warn if steady states are added that are not additive.

    Parameters
    ----------
    rows : list of dict
        As ``read_doses`` returns them.
    derivatives : dict of str to Variable
        What the user's right-hand side returned, without doses.
    t : Variable
    y : namespace of Variable
        The states.
    curves : list of Variable
        Values of covariates, which a steady state holds.
    """
    steady = [e for e in rows if e["evid"] != 3 and e["ss"]]
    for event in steady:
        if not event["ii"]:
            _check_autonomous(event, derivatives, t, curves)
            break
    for event in steady:
        if event["ss"] == 2:
            _warn_unless_additive(event, derivatives, list(vars(y).values()))
            break


def _check_autonomous(
    event: Mapping[str, Any],
    derivatives: Mapping[str, Any],
    t: Variable,
    curves: Sequence[Variable],
) -> None:
    for state, value in derivatives.items():
        if isinstance(value, Variable) and t in set(ancestors([value], blockers=curves)):
            raise ValueError(
                f"events row {event['row']}: amt is 0 and ss is {event['ss']:g}, the steady state of an infinitely long infusion; "
                f"it does not exist, because the derivative of {state!r} depends on t. Let time enter through a covariate, which is "
                "held at its value for the steady state: interpolate(table)."
            )


def _warn_unless_additive(
    event: Mapping[str, Any], derivatives: Mapping[str, Any], states: Sequence[Variable]
) -> None:
    """Whether f(a + b) = f(a) + f(b), tried at random states and parameters."""
    outputs = [v for v in derivatives.values() if isinstance(v, Variable)]
    inputs = [v for v in graph_inputs(outputs) if not isinstance(v, Constant)]
    rng = np.random.default_rng(_SEED)
    values = {v: rng.uniform(0.5, 1.5, v.type.shape) for v in inputs}
    function = pytensor.function(inputs, outputs, mode="FAST_COMPILE", on_unused_input="ignore")
    first, second = ({s: rng.uniform(0.5, 1.5) for s in states} for _ in range(2))
    both = {s: first[s] + second[s] for s in states}
    a, b, ab = (
        np.array(function(*[point.get(v, values[v]) for v in inputs]), dtype=float)
        for point in (first, second, both)
    )
    is_additive = np.allclose(ab, a + b, rtol=_EQUAL, atol=_EQUAL)
    if not is_additive or len(outputs) < len(derivatives):
        warnings.warn(
            f"events row {event['row']}: ss is 2, which adds the steady state of this dose to the states as they are. That is the common "
            "steady state of the doses only if the derivatives are linear in the states and zero without doses, and they are "
            "not. Give the doses one by one instead.",
            UserWarning,
            stacklevel=6,
        )
