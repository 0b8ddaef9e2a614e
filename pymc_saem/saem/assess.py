"""What a fit is worth: marginal log-likelihood, information criteria, standard errors. No failure here loses the estimate."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import numpy as np

from pymc_saem.saem import fisher
from pymc_saem.saem.conditional import Conditional
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.explain import explained
from pymc_saem.saem.joint import WeightedPoints
from pymc_saem.saem.likelihood import METHODS, Criteria, Likelihood, information_criteria, marginal_likelihood
from pymc_saem.saem.linearize import Linearized, scale_of, why_not
from pymc_saem.saem.quadrature import RULES
from pymc_saem.saem.standardized import residual_shrinkage
from pymc_saem.saem.uncertainty import Uncertainty, uncertainty

#: Either part may cost this share of the solves of the fit, and at least so many per subject.
SHARE, LEAST_SOLVES = 0.5, 2000


@dataclass
class Assessment:
    """Parts that were asked for and did not fail, and messages about those that did."""

    likelihood: Likelihood | None = None
    criteria: Criteria | None = None
    uncertainty: Uncertainty | None = None
    residual_shrinkage: dict[str, float] = field(default_factory=dict)  # by outcome
    scale_shrinkage: dict[str, float] = field(default_factory=dict)  # by parameter of residual scales
    messages: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def check_methods(likelihood: str | None, standard_errors: str | None) -> None:
    """Refuse methods that there are not."""
    for name, value, known in (
        ("likelihood", likelihood, METHODS),
        ("standard_errors", standard_errors, fisher.METHODS),
    ):
        if value is not None and value not in known:
            raise ValueError(f"{name} is {value!r}; it must be None or one of {', '.join(map(repr, known))}.")


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


@np.errstate(all="ignore")  # what is not finite is looked at, and told in words
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
        Methods of :func:`likelihood.marginal_likelihood` and :func:`fisher.information`; None for none.
    at_floor : tuple of str
        Parameters at the floor of their variance.
    n_solves : int
        Of the fit.
    """
    found = Assessment()
    if conditional is None:
        return found
    with _Part(found, "residuals", "Shrinkage of the residuals"):
        found.residual_shrinkage, found.scale_shrinkage = residual_shrinkage(engine.mixed, conditional.mode, theta)
    max_solves = max(SHARE * n_solves, LEAST_SOLVES * engine.mixed.n_subjects)
    of_likelihood, of_errors = rng.spawn(2)  # so that one part does not change the other
    if likelihood is not None:
        with _Part(found, "likelihood", "Marginal log-likelihood"):
            found.likelihood = marginal_likelihood(
                engine, theta, conditional, of_likelihood, likelihood, max_solves=max_solves
            )
            found.criteria = information_criteria(engine, found.likelihood.total)
            if found.likelihood.warning:
                found.messages.append(found.likelihood.warning)
    if standard_errors is not None:
        with _Part(found, "standard_errors", "Standard errors"):
            points = getattr(found.likelihood, "points", None) or WeightedPoints.of_draws(conditional.draws)
            linearized = None if why_not(engine.mixed) else partial(_linearized, engine, theta, conditional)
            information = fisher.information(engine, theta, points, at_floor, standard_errors, max_solves, linearized)
            n_draws = int(np.prod(conditional.draws.shape[:2]))
            found.uncertainty = uncertainty(engine, theta, information, n_draws, of_errors)
    return found


def _linearized(engine: Engine, theta: np.ndarray, conditional: Conditional) -> Linearized:
    return Linearized(engine, conditional.mode, scale_of(conditional, engine.maximizer.population(theta)))


class _Part:
    """Times a part of the assessment; what goes wrong in it becomes a message."""

    def __init__(self, found: Assessment, key: str, name: str):
        self.found, self.key, self.name = found, key, name

    def __enter__(self):
        self.mark = perf_counter()

    def __exit__(self, kind, error, trace) -> bool:
        self.found.seconds[self.key] = perf_counter() - self.mark
        if kind is None:
            return False
        if issubclass(kind, KeyboardInterrupt):
            self.found.messages.append(f"{self.name}: interrupted; the estimate is complete.")
            return True
        if issubclass(kind, Exception):
            self.found.messages.append(f"{self.name}: failed ({explained(error)}); the estimate is complete.")
            return True
        return False
