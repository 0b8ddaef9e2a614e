"""The terms that the estimator has the densities of a model sum: what they must provide."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from pytensor.tensor.variable import TensorVariable

from pymc_saem.model.mixed_model import Parameter, RandomEffect


class SummedTerm(Protocol):
    """What one residual scale needs summed over rows or units, such as squared residuals."""

    @property
    def row_subject(self) -> np.ndarray:
        """Subject of each row or unit."""

    def __call__(self, phi: TensorVariable, theta: TensorVariable) -> TensorVariable:
        """The terms (row,) as a function of the symbols phi (subject, phi) and theta (theta,)."""


class Scored(Protocol):
    """A parameter, and the densities that it enters."""

    @property
    def parameter(self) -> Parameter: ...

    @property
    def outcomes(self) -> tuple[int, ...]: ...

    @property
    def effects(self) -> tuple[RandomEffect, ...]: ...

    @property
    def needs_gradient_of_prediction(self) -> bool: ...
