"""Labels of dims as arrays that files can hold."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np

_KINDS = {bool: (bool, np.bool_), int: (int, np.integer), float: (float, np.floating), str: (str,)}


def as_labels(values: Iterable[Any], *, keep_dates: bool = True) -> np.ndarray:
    """Labels (label,) of one kind: numbers, text, truth values or dates as they are, all else (tuples, None, mixed kinds) as text.

    Functions that look for a subject compare texts, so each of them finds its own; dates have
    several, so those of subjects are text (``keep_dates=False``).
    """
    values = list(values)
    texts = np.array([str(value) for value in values], dtype=str)
    for kind, types in _KINDS.items():
        if values and all(isinstance(value, types) for value in values):
            if kind is int and any(
                isinstance(value, bool) or not -(2**63) <= int(value) < 2**63 for value in values
            ):
                return texts  # True is an int to Python, and a file holds 64 bits
            return texts if kind is str else np.array(values, dtype=kind)
    if (
        keep_dates
        and values
        and all(isinstance(value, np.datetime64 | datetime) for value in values)
    ):
        with suppress(TypeError, ValueError):  # of several time zones, or years that do not fit
            return (
                np.array(values, dtype="datetime64[ns]")
                if all(_is_local(value) for value in values)
                else texts
            )
    return texts


def _is_local(value: Any) -> bool:
    return getattr(value, "tzinfo", None) is None
