"""Work that makes a million objects and no garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_later() -> Iterator[None]:
    """Compile without the cyclic garbage collector, as a ``with`` block or a decorator.

    PyTensor and Numba make many objects that live on, and the collector looks through all of them again and again: 12 % of
    the wait before the first iteration. Not for iterations, whose garbage it shall find.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
