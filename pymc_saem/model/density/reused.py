"""Compiled densities, reused by later fits of the same model.

Numba never frees machine code, about 10 MB for each model; and it takes seconds to make. So what
one fit has compiled goes to the next that computes the same: the same graph, of the same model,
with the same data. It belongs to one fit at a time, because a function of PyTensor has its own
memory.
"""

from __future__ import annotations

import gc
import hashlib
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pytensor.graph.basic import Constant, Variable, equal_computations
from pytensor.graph.traversal import ancestors

#: Functions that are kept for later fits; each holds the graph and the data of its model.
_MOST = 8


@dataclass(eq=False)
class _Kept:
    inputs: Sequence[Variable]
    outputs: Sequence[Variable]
    key: tuple
    function: Any
    owner: weakref.ref

    @property
    def is_useful(self) -> bool:
        """Whether it has an owner, or may get one."""
        return self.owner() is not None or isinstance(self.key[0], str) or self.key[0]() is not None

    def computes(self, inputs: Sequence[Variable], outputs: Sequence[Variable], key: tuple) -> bool:
        if self.key != key or len(self.outputs) != len(outputs) or len(self.inputs) != len(inputs):
            return False
        try:
            return equal_computations([*outputs], [*self.outputs], [*inputs], [*self.inputs])
        except RecursionError:  # a graph of thousands of nodes in a row
            return False


_kept: list[_Kept] = []
_lock = threading.Lock()


def compiled_for(
    owner: object,
    origin: object,
    compile_it: Callable[[Sequence[Variable], Sequence[Variable]], Any],
    inputs: Sequence[Variable],
    outputs: Sequence[Variable],
    mode: object,
) -> Any:
    """A function of these graphs that belongs to ``owner`` as long as that lives.

    Parameters
    ----------
    owner : object
        Can be referred to weakly.
    origin : object
        What the graphs were made from. Equal graphs of other origin may have their terms in another
        order once they are compiled, and differ in the last digit.
    compile_it : callable
        ``compile_it(inputs, outputs)``
    inputs, outputs : list of variables
    mode : str or pytensor Mode
    """
    key = (origin if isinstance(origin, str) else weakref.ref(origin), mode, _hash_of_data(outputs))
    with _lock:
        kept = _free_one(inputs, outputs, key)
        if kept is not None:
            kept.owner = weakref.ref(owner)
    if kept is None:
        kept = _Kept(inputs, outputs, key, compile_it(inputs, outputs), weakref.ref(owner))
        with _lock:
            _kept[:] = [old for old in _kept if old.is_useful] + [kept]
            for old in [old for old in _kept if old.owner() is None][: max(0, len(_kept) - _MOST)]:
                _kept.remove(old)
    return kept.function


def _free_one(inputs: Sequence[Variable], outputs: Sequence[Variable], key: tuple) -> _Kept | None:
    fitting = [kept for kept in _kept if kept.computes(inputs, outputs, key)]
    if fitting and all(kept.owner() is not None for kept in fitting):
        gc.collect()  # an owner may be waiting for that, as fits hold reference cycles
    return next((kept for kept in fitting if kept.owner() is None), None)


def _hash_of_data(graphs: Sequence[Variable]) -> str:
    """Hash of all constants as they are now, because arrays that a model refers to may change."""
    found = hashlib.sha256()
    for variable in ancestors(graphs):
        if isinstance(variable, Constant):
            data = variable.data
            found.update(repr(variable.type).encode())
            is_plain = isinstance(data, np.ndarray | np.generic) and data.dtype != object
            found.update(np.ascontiguousarray(data).tobytes() if is_plain else repr(data).encode())
    return found.hexdigest()
