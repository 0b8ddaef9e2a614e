"""How an M-step maximizes each parameter: the rules that the recognizers return."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from pymc_saem.model.density.laws import LawOfPhi, TypicalValues
from pymc_saem.model.mixed_model import Block, Parameter, RandomEffect
from pymc_saem.saem.core.closed_form import unpack_cholesky, weighted
from pymc_saem.saem.core.power_scale import PowerScale
from pymc_saem.saem.mstep.residual import ResidualScale


class NoClosedForm(Exception):
    """The reason why some parameters have no closed form; they are maximized by score steps."""

    def __init__(self, parameters: Iterable[Parameter], reason: str) -> None:
        super().__init__(reason)
        self.parameters = tuple(parameters)


@dataclass(frozen=True)
class MeanRule:
    """Parameters in which the means of phi are affine: mean_i = design_i theta[columns] + offset_i."""

    parameters: tuple[Parameter, ...]
    columns: np.ndarray  # of theta
    design: np.ndarray  # (subject or 1, phi, beta)
    offset: np.ndarray  # (subject or 1, phi)
    moving: LawOfPhi | None = None  # where parameters without a closed form move design and offset

    def mean(self, theta: np.ndarray, n_subjects: int) -> np.ndarray:
        """Means of phi, shape (subject, phi)."""
        if self.moving is not None:
            return self.moving.mean(theta)
        mean = self.design @ theta[self.columns] + self.offset
        return np.broadcast_to(mean, (n_subjects, mean.shape[1]))

    def at(self, theta: np.ndarray) -> MeanRule:
        """The rule with design and offset at this theta."""
        if self.moving is None:
            return self
        design, offset = affine_parts(self.moving, theta, self.columns)
        return replace(self, design=design, offset=offset)


def affine_parts(
    law: LawOfPhi, theta: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slope (subject, phi, beta) and offset (subject, phi) of the means in the entries ``columns`` of theta."""
    base = theta.copy()
    base[columns] = law.base[columns]  # where the distribution is known to be finite
    at_base = law.mean(base)
    slopes = np.empty((*at_base.shape, columns.size))
    for k, column in enumerate(columns):
        moved = base.copy()
        moved[column] += 1.0
        slopes[..., k] = law.mean(moved) - at_base
    return slopes, at_base - slopes @ base[columns]


@dataclass(frozen=True)
class OmegaRule:
    """One covariance parameter: omega of its columns is x^power times base (scalar, diagonal), or LL'."""

    parameter: Parameter
    kind: str  # "scalar", "diagonal", "full"
    columns: np.ndarray  # of phi
    power: float
    base: np.ndarray  # (k, k), omega at x = 1; unused by "full"

    @property
    def scale(self) -> PowerScale:
        """Of the random effects; of "full" of the entries of L."""
        return PowerScale(power=self.power)

    def omega(self, x: np.ndarray) -> np.ndarray:
        """Covariance (k, k) of its columns at the natural value x of its parameter."""
        if self.kind == "full":
            lower = unpack_cholesky(x, self.base.shape[0])
            return lower @ lower.T
        if self.kind == "scalar":
            return self.base * self.scale.variance(x)
        return np.diag(np.diag(self.base) * self.scale.variance(x))

    def variance(self, x: np.ndarray) -> np.ndarray:
        """Squares to which x scales what it scales; of "full" those of the entries of L."""
        return self.scale.variance(x)

    def count(self, n_subjects: float) -> float:
        """How many deviations each entry of the parameter scales."""
        return n_subjects * self.columns.size if self.kind == "scalar" else n_subjects


@dataclass(frozen=True, kw_only=True)
class EffectScaleRule(PowerScale):
    """Standard deviations of normal random effects that differ between subjects: each is a known number times a power of one entry."""

    parameter: Parameter
    effects: tuple[RandomEffect, ...]
    terms: np.ndarray  # (entry, term): columns of the residual statistics
    effects_of: np.ndarray  # (subject, entry): how many effects of a subject an entry scales

    def squares(self, residual: np.ndarray) -> np.ndarray:
        """Sum of the statistics of each entry (entry,), of all residual statistics (residual,)."""
        return residual[self.terms].sum(axis=1)

    def count(self, weight: np.ndarray | None = None) -> np.ndarray:
        """Effects, by the weights (subject,) of their subjects, that each entry scales, (entry,)."""
        return weighted(None if weight is None else weight[:, None], self.effects_of).sum(axis=0)


@dataclass(frozen=True)
class ScoreRule:
    """One parameter without a closed form: Newton steps on the expected complete-data log density."""

    parameter: Parameter
    reason: str  # why it has no closed form
    outcomes: tuple[int, ...]  # whose density it enters
    effects: tuple[RandomEffect, ...]  # whose density it enters
    needs_gradient_of_prediction: bool

    @property
    def kind(self) -> str:
        return "score" if self.needs_gradient_of_prediction else "numeric"


@dataclass(frozen=True)
class Rules:
    """How every parameter is maximized, and the parts of omega that no closed form writes."""

    mean: MeanRule
    omegas: tuple[OmegaRule, ...]
    fixed_omega: np.ndarray  # (phi, phi), zero where a rule writes
    moving_omega: tuple[Block, ...]  # whose covariance parameters without a closed form move
    residuals: tuple[ResidualScale, ...]
    effect_scales: tuple[EffectScaleRule, ...]
    residual_terms: tuple  # of ResidualTerm, one per scaled outcome, and of EffectTerm
    scores: tuple[ScoreRule, ...]
    law: LawOfPhi
    typical: TypicalValues | None  # where some columns of phi are not Gaussian

    def role_of(self) -> dict[str, str]:
        """What each parameter is, for tables: name -> description."""
        roles = {p.name: "mean of random effects" for p in self.mean.parameters}
        roles |= {r.parameter.name: f"{r.kind} covariance of random effects" for r in self.omegas}
        roles |= {r.parameter.name: "residual scale" for r in self.residuals}
        roles |= {
            r.parameter.name: "standard deviation of random effects" for r in self.effect_scales
        }
        return roles | {r.parameter.name: r.reason for r in self.scores}

    def m_step_of(self) -> dict[str, str]:
        """How each parameter is maximized: name -> "closed form", "numeric" or "score"."""
        return {name: "closed form" for name in self.role_of()} | {
            r.parameter.name: r.kind for r in self.scores
        }


#: Unconstrained values far from 0, at which a power is checked too: a scale with a bound is
#: proportional near 0 only.
FAR = (-4.0, 3.0)


def homogeneity(values: dict[float, np.ndarray]) -> float | None:
    """Degree p of a function f(x) = x^p f(1), given f at several x; None if there is none."""
    xs = sorted(values)
    first, last = values[xs[0]], values[xs[-1]]
    with np.errstate(all="ignore"):
        degrees = np.log(last / first) / np.log(xs[-1] / xs[0])
    degrees = degrees[np.isfinite(degrees)]
    if degrees.size == 0 or np.ptp(degrees) > 1e-8 or abs(degrees[0]) < 1e-8:
        return None
    p = float(np.round(degrees[0], 6))
    same = [np.allclose(values[x], first * (x / xs[0]) ** p, rtol=1e-8, atol=0) for x in xs]
    return p if all(same) else None
