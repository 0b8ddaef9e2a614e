"""Data sets drawn from a fitted model, as other observed values of it."""

from __future__ import annotations

import numpy as np
import pymc as pm

from pymc_saem.prediction.simulate import generate, generator_of
from pymc_saem.prediction.values import check_values
from pymc_saem.refit.fitted import Fitted


def simulate_outcomes(
    model: pm.Model, fitted: Fitted, n: int, rng: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """``n`` data sets with the design of the model: by name of the observed variable, in its shape.

    Rows that are missing in the data of the model are missing in these too.
    """
    generator = generator_of(model, fitted, fitted.refit_options.get("random_effects"))
    parameters = check_values(model, generator.parameters, generator.effects, fitted.estimates)
    drawn = generate(generator, parameters, n, rng).outcomes
    sets: list[dict[str, np.ndarray]] = [{} for _ in range(n)]
    for outcome in generator.outcomes:
        values = drawn[outcome.name]
        whole = bool(outcome.is_observed.all())
        for one, value in zip(sets, values, strict=True):
            one[outcome.observed_name] = value if whole else value.ravel()[outcome.is_observed]
    return sets
