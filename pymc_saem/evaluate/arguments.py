"""Checks and words that figures, tables and predictions share."""

from __future__ import annotations

from numbers import Real

from pymc_saem.arguments import shown


def check_probability(name: str, value) -> None:
    """Refuse what is not a probability strictly between 0 and 1."""
    if not isinstance(value, Real) or not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {shown(value)}.")


def first_of(names, most: int = 10) -> str:
    """``1, 2, 3 and 4 more``"""
    names = list(map(str, names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
