"""What an M-step needs to know of each parameter: the rules that the recognizers return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pymc_saem.saem.model import Parameter

#: Ends every refusal of a parameter without a closed form.
REFUSAL = (
    "This version estimates only parameters that are means, variances or covariances of Gaussian random effects, "
    "or residual scales."
)


@dataclass(frozen=True)
class MeanRule:
    """Parameters in which the means of phi are affine: mean_i = design_i theta[columns] + offset_i."""

    parameters: tuple[Parameter, ...]
    columns: np.ndarray  # of theta
    design: np.ndarray  # (subject or 1, phi, beta)
    offset: np.ndarray  # (subject or 1, phi)

    def mean(self, theta: np.ndarray, n_subjects: int) -> np.ndarray:
        """Means of phi, shape (subject, phi)."""
        mean = self.design @ theta[self.columns] + self.offset
        return np.broadcast_to(mean, (n_subjects, mean.shape[1]))


@dataclass(frozen=True)
class OmegaRule:
    """One covariance parameter: omega of its columns is x^power times base (scalar, diagonal), or LL'."""

    parameter: Parameter
    kind: str  # "scalar", "diagonal", "full"
    columns: np.ndarray  # of phi
    power: float
    base: np.ndarray  # (k, k), omega at x = 1; unused by "full"


@dataclass(frozen=True)
class ResidualRule:
    """One residual scale: the standard deviation of its outcomes is x^power times a known shape."""

    parameter: Parameter
    outcomes: tuple[int, ...]
    terms: tuple[int, ...]  # columns of the residual statistics
    power: float
    unit: float  # natural value at which the terms take the shape
    n_rows: int


@dataclass(frozen=True)
class Rules:
    """How every parameter is maximized, and the part of omega that the user fixed."""

    mean: MeanRule
    omegas: tuple[OmegaRule, ...]
    fixed_omega: np.ndarray  # (phi, phi), zero where a rule writes
    residuals: tuple[ResidualRule, ...]
    residual_terms: tuple  # of ResidualTerm, one per scaled outcome

    def kind_of(self) -> dict[str, str]:
        """What each parameter is, for tables: name -> description."""
        kinds = {p.name: "mean of random effects, least squares" for p in self.mean.parameters}
        kinds |= {r.parameter.name: f"{r.kind} covariance of random effects" for r in self.omegas}
        return kinds | {r.parameter.name: "residual scale" for r in self.residuals}


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
