"""The graph of a traced right-hand side, kept for those who look into a model, such as figures of its networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pytensor.graph.basic import Variable

__all__ = ["RightHandSide"]


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
        Of parameters that change with time: their values (n_subjects, k) at one time per subject (n_subjects,).
    """

    t: Variable
    states: Mapping[str, Variable]
    params: Mapping[str, Variable]
    outputs: list = field(repr=False)
    places: Mapping[str, int] = field(repr=False)
    changing: Mapping[str, Callable] = field(default_factory=dict, repr=False)
