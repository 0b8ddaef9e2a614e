"""Outcomes as they are drawn: which can be, and what stands for arguments of distributions that are not finite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pymc_saem.evaluate.row_function import before_censoring
from pymc_saem.model.outcomes import Outcome

#: Stands for an argument that is nowhere finite; a possible value of means, rates, scales and
#: probabilities.
_HARMLESS = 0.5


def can_be_drawn(outcome: Outcome) -> bool:
    """Whether PyMC can: not a ``CustomDist`` that has a density alone."""
    draw = [
        getattr(before_censoring(part.rv).owner.op, "_random_fn", None) for part in outcome.parts
    ]
    return not any(
        getattr(f, "__qualname__", "").startswith("default_not_implemented") for f in draw
    )


def refuse_undrawable(outcomes: Iterable[Outcome]) -> None:
    """Say which outcome cannot be drawn, and what to do.

    Raises
    ------
    NotImplementedError
    """
    for outcome in outcomes:
        if not can_be_drawn(outcome):
            raise NotImplementedError(
                f"Outcome '{outcome.name}' cannot be drawn, as its CustomDist has no random=. Give it one: random=lambda *parameters, "
                "rng, size: ..."
            )


def of_rows(argument: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An argument as one number per row; one with its own axes, such as probabilities of categories, as a sum over them."""
    if argument.shape[: len(shape)] == shape and argument.ndim > len(shape):
        argument = argument.reshape(*shape, -1)
        return argument @ np.sqrt(3.0 + np.arange(argument.shape[-1]))
    try:
        return np.broadcast_to(argument, shape)
    except ValueError:
        return np.zeros(shape)


def without_gaps(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arguments (n, ...) with possible values in the place of those that are not finite, and where these were."""
    bad = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    if not bad.any():
        return values, bad
    # another entry of the batch, whose value is one that the distribution can have
    first = np.argmin(bad, axis=0)
    stand_in = np.take_along_axis(values, first[None], axis=0)
    return np.where(bad, np.where(np.isfinite(stand_in), stand_in, _HARMLESS), values), bad


def gaps_of(value: np.ndarray, bad: Sequence[np.ndarray]) -> np.ndarray:
    """Which entries of a draw (n, ...) came from arguments that were not finite."""
    gap = np.zeros(value.shape, dtype=bool)
    for of_argument in bad:
        if not of_argument.any():
            continue
        try:
            gap |= np.broadcast_to(of_argument, value.shape)
        except ValueError:  # an argument with its own axes: the whole outcome
            whole = of_argument.reshape(len(of_argument), -1).any(axis=1)
            gap |= whole.reshape(-1, *(1,) * (value.ndim - 1))
    return gap
