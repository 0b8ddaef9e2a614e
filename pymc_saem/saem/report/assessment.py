"""What a fit is worth: marginal log-likelihood, information criteria, standard errors. No failure here loses the estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from pymc_saem.arguments import shown
from pymc_saem.saem.conditional.draws import Conditional
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.likelihood.joint import WeightedPoints
from pymc_saem.saem.likelihood.linearize import Linearized, scale_of, why_not
from pymc_saem.saem.likelihood.marginal import (
    METHODS,
    Criteria,
    Likelihood,
    information_criteria,
    marginal_likelihood,
)
from pymc_saem.saem.likelihood.quadrature import RULES
from pymc_saem.saem.report.standardized import residual_shrinkage
from pymc_saem.saem.run.stages import Stages
from pymc_saem.saem.uncertainty import fisher
from pymc_saem.saem.uncertainty.standard_errors import Uncertainty, uncertainty

#: Either part may cost this share of the solves of the fit, and at least this many per subject.
SHARE, LEAST_SOLVES = 0.5, 2000
#: The parts, as notes call them.
RESIDUALS, LIKELIHOOD, ERRORS = (
    "Shrinkage of the residuals",
    "Marginal log-likelihood",
    "Standard errors",
)


@dataclass
class Assessment:
    """Parts that were asked for and did not fail, and messages about them."""

    likelihood: Likelihood | None = None
    criteria: Criteria | None = None
    uncertainty: Uncertainty | None = None
    residual_shrinkage: dict[str, float] = field(default_factory=dict)  # by outcome
    # by parameter of residual scales
    scale_shrinkage: dict[str, float] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def check_methods(likelihood: str | None, standard_errors: str | None) -> None:
    """Refuse methods that there are not."""
    for name, value, known in (
        ("likelihood", likelihood, METHODS),
        ("standard_errors", standard_errors, fisher.METHODS),
    ):
        if value is not None and value not in known:
            raise ValueError(
                f"{name} is {shown(value)}; it must be None or one of {', '.join(map(repr, known))}."
            )


def check_assessment(engine: Engine, likelihood: str | None, standard_errors: str | None) -> None:
    """Refuse methods that the model has not, before the fit."""
    for name, value, others in (
        ("likelihood", likelihood, "'laplace', 'quadrature' or 'importance'"),
        ("standard_errors", standard_errors, "'louis' or 'score'"),
    ):
        if value == "linearization" and (reason := why_not(engine.mixed)):
            raise ValueError(f"{name} is 'linearization', and {reason}. Use {others}, or 'auto'.")
    if likelihood == "quadrature" and engine.mixed.n_phi not in RULES:
        raise ValueError(
            f"likelihood is 'quadrature', and a subject has {engine.mixed.n_phi} random effects; a grid is feasible "
            f"for at most {max(RULES)}. Use 'importance', 'annealed' or 'auto'."
        )


@np.errstate(all="ignore")  # values that are not finite are checked and reported
def assess(
    engine: Engine,
    theta: np.ndarray,
    conditional: Conditional | None,
    rng: np.random.Generator,
    *,
    likelihood: str | None,
    standard_errors: str | None,
    at_floor: tuple[str, ...] = (),
    n_solves: int = 0,
    stages: Stages | None = None,
) -> Assessment:
    """Assess an estimate.

    Parameters
    ----------
    engine : Engine
    theta : ndarray, shape (theta,)
    conditional : Conditional or None
        Without it nothing can be computed.
    rng : numpy.random.Generator
    likelihood, standard_errors : str or None
        Methods of :func:`marginal.marginal_likelihood` and :func:`fisher.information`; None for
        none.
    at_floor : tuple of str
        Parameters at the floor of their variance.
    n_solves : int
        Of the fit.
    stages : Stages, optional
        Where what fails is noted.
    """
    found, stages = Assessment(), stages or Stages()
    if conditional is None:
        return found
    max_solves = max(SHARE * n_solves, LEAST_SOLVES * engine.mixed.n_subjects)
    of_likelihood, of_errors = rng.spawn(2)  # so that one part does not change the other

    def residuals() -> tuple[dict[str, float], dict[str, float]]:
        return residual_shrinkage(engine.mixed, conditional.mode, theta)

    def marginal(method: str) -> tuple[Likelihood, Criteria]:
        one = marginal_likelihood(
            engine, theta, conditional, of_likelihood, method, max_solves=max_solves
        )
        return one, information_criteria(engine, one.total)

    def errors(method: str) -> Uncertainty:
        points = getattr(found.likelihood, "points", None) or WeightedPoints.of_draws(
            conditional.draws
        )
        linearized = (
            None if why_not(engine.mixed) else partial(_linearized, engine, theta, conditional)
        )
        information = fisher.information(
            engine, theta, points, at_floor, method, max_solves, linearized
        )
        n_draws = int(np.prod(conditional.draws.shape[:2]))
        return uncertainty(engine, theta, information, n_draws, of_errors)

    def part(key: str, stage: str, work: Callable[[], Any], otherwise: Any) -> Any:
        mark = perf_counter()
        result = stages.attempt(stage, work, otherwise, is_long=True)
        found.seconds[key] = perf_counter() - mark
        return result

    found.residual_shrinkage, found.scale_shrinkage = part(
        "residuals", RESIDUALS, residuals, ({}, {})
    )
    if likelihood is not None:
        found.likelihood, found.criteria = part(
            "likelihood", LIKELIHOOD, partial(marginal, likelihood), (None, None)
        )
        if found.likelihood is not None and found.likelihood.warning:
            found.messages.append(found.likelihood.warning)
    if standard_errors is not None:
        found.uncertainty = part("standard_errors", ERRORS, partial(errors, standard_errors), None)
    return found


def _linearized(engine: Engine, theta: np.ndarray, conditional: Conditional) -> Linearized:
    return Linearized(
        engine, conditional.mode, scale_of(conditional, engine.maximizer.population(theta))
    )
