"""A chain between two iterations as bytes: all that the next iteration needs, bit by bit, and what the last ones gave.

The bytes are those of ``numpy.savez`` with one JSON text among the arrays. They hold no code, so
that a file from somebody else can be read without harm, and no class of this package, so that a
later version can read it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from pymc.util import RandomGeneratorState, get_state_from_generator, random_generator_from_state

from pymc_saem.saem.core.algorithm import State, Statistics
from pymc_saem.saem.core.newton import Curvature

_CLASSES = {c.__name__: c for c in (State, Statistics, Curvature, RandomGeneratorState)}
#: Of NumPy; a stored run names the one that it has.
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


@dataclass
class Snapshot:
    """A chain between two iterations.

    Attributes
    ----------
    theta : ndarray, shape (iteration, theta)
    stats : dict of str to ndarray, each (iteration,)
    bookmark : dict
        Of the step method, see :meth:`SAEM.bookmark`.
    n_passed : int
        Looks in a row at which the stopping rule found no drift.
    converged : bool
        Whether the stopping rule ended the run.
    start_scores : ndarray, shape (start,)
    seconds : dict
        Of the parts of the run, so far.
    """

    theta: np.ndarray
    stats: dict[str, np.ndarray]
    bookmark: dict[str, Any]
    n_passed: int = 0
    converged: bool = False
    start_scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def n_solves(self) -> int:
        return round(self.bookmark["n_evaluations"] * self.bookmark["state"].phi[..., 0].size)

    @property
    def at_floor(self) -> tuple[str, ...]:
        """Variances that were held at their floor."""
        return tuple(sorted(self.bookmark["at_floor"]["reached"]))

    def to_bytes(self) -> bytes:
        return pack({f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        return cls(**unpack(data))


def pack(value: Any) -> bytes:
    """Nested dictionaries, lists, tuples and sets of arrays, numbers, text and None, and the states of generators, as bytes."""
    arrays: list[np.ndarray] = []
    text = json.dumps(_encode(value, arrays))
    out = io.BytesIO()
    named: dict[str, Any] = {f"a{k}": array for k, array in enumerate(arrays)}
    np.savez(out, text=np.array(text), **named)
    return out.getvalue()


def unpack(data: bytes) -> Any:
    """Inverse of :func:`pack`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return _decode(json.loads(str(found["text"])), found)


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    """JSON in which arrays are numbers of ``arrays``; every composite is ``[kind, content]``."""
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return ["array", len(arrays) - 1]
    if isinstance(value, np.random.Generator):
        return ["generator", _encode(get_state_from_generator(value), arrays)]
    if type(value) in _CLASSES.values():
        content = vars(value) if is_dataclass(value) else value._asdict()
        return [type(value).__name__, _encode(content, arrays)]
    if isinstance(value, dict):
        return ["dict", [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]]
    if isinstance(value, list | tuple | set):
        values = sorted(value) if isinstance(value, set) else value
        return [type(value).__name__, [_encode(v, arrays) for v in values]]
    raise TypeError(f"A {type(value).__name__} cannot be stored: {value!r}.")


def _decode(code: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(code, list):
        return code
    kind, content = code
    if kind == "array":
        return arrays[f"a{content}"]
    if kind == "generator":
        return random_generator_from_state(_decode(content, arrays))
    if kind == "dict":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in content}
    if kind in ("list", "tuple", "set"):
        return {"list": list, "tuple": tuple, "set": set}[kind](_decode(v, arrays) for v in content)
    found = _CLASSES[kind](**_decode(content, arrays))
    return _checked(found) if isinstance(found, RandomGeneratorState) else found


def _checked(state: RandomGeneratorState) -> RandomGeneratorState:
    """The state itself: PyMC calls whatever function of ``numpy.random`` it names."""
    name = state.bit_generator_state["bit_generator"]
    if name not in _BIT_GENERATORS:
        raise ValueError(f"'{name}' is not a random number generator.")
    return state
