"""A traced right-hand side: its source text, from which machine code is made, and its graph.

The text hashes, compares and pickles. The graph is kept for what reads a model, such as figures of
its networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

__all__ = ["OdeSystem", "RightHandSide"]


@dataclass(frozen=True, eq=False)
class RightHandSide:
    """Derivatives of the states of one subject as a graph of time, states and parameters.

    Attributes
    ----------
    t : Variable
    states : dict of str to Variable
    params : dict of str to Variable
        In the shapes that they have for one subject.
    outputs : list of Variable
        The derivatives, in the order of ``states``.
    places : dict of str to int
        Where each parameter begins in the flat vector of one subject.
    changing : dict of str to callable
        Of parameters that change with time: their values (n_subjects, k) at one time per subject
        (n_subjects,).
    """

    t: Variable
    states: Mapping[str, Variable]
    params: Mapping[str, Variable]
    outputs: list[TensorVariable] = field(repr=False)
    places: Mapping[str, int] = field(repr=False)
    changing: Mapping[str, Callable[[Any], np.ndarray]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class OdeSystem:
    """Source text of a system and its sizes; everything needed to rebuild the compiled code.

    Attributes
    ----------
    state_names : tuple of str
    n_p : int
        Length of the flat parameter vector of one subject: differentiable, then constant.
    n_dp : int
        Number of differentiable parameters.
    rhs_source, jac_source : str
        Bodies of ``rhs(t, y, p, dy)`` and ``jac(t, y, p, dy, jy, jp)``.
    vjp_source : str
        Of wide systems, body of ``vjp(t, y, p, dy, jy, jp)``: the products of a vector ``dy`` with
        the Jacobians, ``jy`` (n_states) and ``jp`` (n_dp); else empty.
    not_linear : str
        Why this is not A(p) y + b(p); empty if it is.
    is_wide : bool
        Whether the bodies are loops over tensors and lanes, and not the numbers of one lane.
    jump : str
        Where it jumps depending on a state or a differentiable parameter, so that its gradients are
        not right; else empty.
    graph : RightHandSide or None
        Where the text comes from. Ignored in comparisons, and not pickled.
    """

    state_names: tuple[str, ...]
    n_p: int
    n_dp: int
    rhs_source: str = field(repr=False)
    jac_source: str = field(repr=False)
    vjp_source: str = field(repr=False)
    not_linear: str = field(repr=False)
    is_wide: bool
    jump: str = field(default="", repr=False)
    graph: RightHandSide | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"graph": None}

    @property
    def n_states(self) -> int:
        """int: number of states."""
        return len(self.state_names)
