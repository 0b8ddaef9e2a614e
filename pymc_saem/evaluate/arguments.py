"""Checks and words that figures, tables and predictions share."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real

from pymc_saem.arguments import shown


def check_probability(name: str, value: object) -> None:
    """Refuse what is not a probability strictly between 0 and 1."""
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {shown(value)}.")


def first_of(names: Iterable[object], most: int = 10) -> str:
    """``1, 2, 3 and 4 more``"""
    texts = list(map(str, names))
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
