"""The marginal model with predictions linearized around a point of each subject: Gaussian, with a mean and a covariance.

With f the predictions, J their derivatives by phi at the point m_i, and Sigma_i the residual
covariance there,

    y_i ~ N(f(m_i) + J_i (mean_i - m_i), J_i Omega J_i' + Sigma_i)

(Lindstrom & Bates 1990; "linearization" of Monolix, ``ll.lin`` of saemix). A LogNormal outcome is
Gaussian on the log scale. Where the residual scale does not depend on phi and m_i is the
conditional mode, this is Laplace's method with the curvature of Gauss and Newton, FOCEi of nlmixr2:
359.42 at the exact maximum of theophylline, where nlmixr2 prints 359.40 to 359.49.

Errors of -2LL by the point of expansion, at parameters where the exact value is known by
quadrature:

======================  =======  ======  ======  =======
bolus and theophylline  exact    mode    mean    Laplace
======================  =======  ======  ======  =======
theophylline            360.70   -1.28   -1.47   +0.40
with the weight         356.84   -1.24   -1.44
proportional error      403.62   -4.70   -3.70   +0.82
combined error          469.69   -1.67   -1.05   +0.30
======================  =======  ======  ======  =======

So the mode, as in Monolix (saemix: the mean): it is nearer where the scale is constant, has no
Monte-Carlo error, and elsewhere Laplace's method is nearer than either.

Derivatives by phi are central differences, 2 d solves per subject in one batch: on theophylline 0.2
ms, and 2e-6 of the largest derivative from the exact ones; by PyTensor 7 ms, and 0.2 s of
compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import vectorize_graph
from pytensor.tensor.variable import TensorVariable
from scipy.linalg import solve_triangular

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.densities import GRADIENT_TOLERANCE, NO_CHECKS
from pymc_saem.model.density.symbols import in_symbols, symbols
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.graph.solves import solved_to
from pymc_saem.model.mixed_model import MixedModel
from pymc_saem.model.normal.parametrization import location_and_scale
from pymc_saem.saem.conditional.draws import Conditional
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.engine import Engine

#: Steps of the differences, in standard deviations of phi given the data. Larger ones see the
#: curvature, smaller ones the solver.
STEP = 0.01
_LOG_2PI = float(np.log(2.0 * np.pi))


def why_not(mixed: MixedModel) -> str:
    """What of a model is not Gaussian, so that it cannot be linearized; an empty string where nothing is in the way."""
    for outcome, rv in zip(mixed.outcomes, observed_variables(mixed.model), strict=True):
        kind = type(rv.owner.op).__name__.removesuffix("RV")
        if kind not in ("Normal", "LogNormal"):
            return f"the outcome '{outcome.name}' is {kind}, and only Normal and LogNormal outcomes are Gaussian"
    for effect in mixed.random_effects:
        if not effect.is_gaussian:
            return f"the random effect '{effect.name}' has no Gaussian distribution"
    return ""


def scale_of(conditional: Conditional, population: Population) -> np.ndarray:
    """Rough standard deviations of phi given the data, (subject, phi), all positive: units for steps of differences."""
    return np.where(conditional.sd > 0, conditional.sd, 1e-3 * population.sd)


class Predictions:
    """Mean and standard deviation of every row, all outcomes one after the other, on the scale on which they are Gaussian.

    Attributes
    ----------
    data : ndarray, shape (row,)
        y, or log y of a LogNormal outcome.
    subject : ndarray of int, shape (row,)
    log_jacobian : ndarray, shape (subject,)
        log of |d data / d y|, summed over rows.
    """

    def __init__(self, mixed: MixedModel):
        self.mixed = mixed
        self.subject = np.concatenate([outcome.row_subject for outcome in mixed.outcomes])
        phi, theta = symbols(mixed)
        data, logs, graphs = [], [], []
        for rv in observed_variables(mixed.model):
            y = pt.as_tensor(mixed.model.rvs_to_values[rv]).astype("float64")
            is_log = type(rv.owner.op).__name__ == "LogNormalRV"
            data.append((pt.log(y) if is_log else y).ravel())
            logs.append((-pt.log(y) if is_log else pt.zeros_like(y)).ravel())
            graphs += [
                (pt.zeros_like(y) + g).ravel()
                for g in in_symbols(mixed, list(location_and_scale(rv)), phi, theta)
            ]
        self.data, logs = pytensor.function(
            [], [pt.concatenate(data), pt.concatenate(logs)], mode=INTERPRETED
        )()
        self.log_jacobian = np.bincount(self.subject, logs, minlength=mixed.n_subjects)
        self._f = self._compile(phi, theta, [pt.concatenate(graphs[k::2]) for k in (0, 1)])

    def _compile(
        self, phi: TensorVariable, theta: TensorVariable, graphs: list[TensorVariable]
    ) -> Callable:
        phi3 = pt.tensor(
            "phi", dtype="float64", shape=(None, self.mixed.n_subjects, self.mixed.n_phi)
        )
        vectorized = vectorize_graph(solved_to(graphs, GRADIENT_TOLERANCE), {phi: phi3})
        rows = [pt.broadcast_to(g, (phi3.shape[0], self.subject.size)) for g in vectorized]
        mode = INTERPRETED.including(NO_CHECKS)
        f = pytensor.function([phi3, theta], rows, mode=mode, on_unused_input="ignore")
        f.trust_input = True
        return f

    def __call__(self, phi: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations (point, row) for phi (point, subject, phi); NaN where a solve failed."""
        with np.errstate(all="ignore"):
            return self._f(np.ascontiguousarray(phi), theta)


@dataclass(frozen=True)
class GaussianRows:
    """Rows of all subjects: means (row,), covariances ``spread spread' + diag(variance)`` within a subject."""

    mean: np.ndarray
    spread: np.ndarray  # (row, phi)
    variance: np.ndarray  # (row,)

    def covariance(self, rows: np.ndarray) -> np.ndarray:
        """(row, row) of the rows of a subject."""
        spread = self.spread[rows]
        return spread @ spread.T + np.diag(self.variance[rows])


class Linearized:
    """The Gaussian marginal model around points of the subjects that do not move, as a function of theta.

    Parameters
    ----------
    engine : Engine
    point : ndarray, shape (subject, phi)
        Where the predictions are linearized.
    sd : ndarray, shape (subject, phi)
        Rough standard deviations of phi given the data, the units of the steps; any positive ones
        do.
    """

    def __init__(self, engine: Engine, point: np.ndarray, sd: np.ndarray):
        self.engine, self.point = engine, point
        self.predictions = Predictions(engine.mixed)
        self.step = STEP * sd
        self.n_solves = 0
        order = np.argsort(self.predictions.subject, kind="stable")
        counts = np.bincount(self.predictions.subject, minlength=engine.mixed.n_subjects)
        self.rows = np.split(order, np.cumsum(counts)[:-1])  # of each subject
        rules = engine.rules
        moving = [r.parameter for r in rules.residuals] + [
            r.parameter for r in rules.scores if r.outcomes
        ]
        #: Entries of theta on which predictions or residual scales depend.
        self.of_model = {j for p in moving for j in range(p.columns.start, p.columns.stop)}

    def expand(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predictions (row,), their derivatives by phi of their subject (row, phi), and residual standard deviations (row,)."""
        n_subjects, d = self.point.shape
        moves = self.step * np.eye(d)[:, None, :]
        phi = np.concatenate([self.point[None], self.point + moves, self.point - moves])
        mean, sd = self.predictions(phi, theta)
        self.n_solves += phi[..., 0].size
        slope = (mean[1 : d + 1] - mean[d + 1 :]).T / (2.0 * self.step[self.predictions.subject])
        return mean[0], slope, sd[0]

    def law(self, theta: np.ndarray, expansion: tuple) -> GaussianRows:
        """Distribution of all rows, from :meth:`expand` at this theta."""
        population, (mean, slope, sd) = self.engine.maximizer.population(theta), expansion
        shift = np.einsum(
            "rd,rd->r", slope, (population.mean - self.point)[self.predictions.subject]
        )
        return GaussianRows(mean + shift, slope @ population.root, sd**2)

    def loglik(self, theta: np.ndarray) -> np.ndarray:
        """Marginal log-likelihood (subject,); NaN where a prediction is, or where a residual standard deviation is zero."""
        law, data, found = (
            self.law(theta, self.expand(theta)),
            self.predictions.data,
            self.predictions.log_jacobian.copy(),
        )
        for i, rows in enumerate(self.rows):
            found[i] += _log_normal(data[rows] - law.mean[rows], law.covariance(rows))
        return found


def _log_normal(residual: np.ndarray, covariance: np.ndarray) -> float:
    root = cholesky_or_none(covariance)
    if root is None:
        return np.nan
    white = solve_triangular(root, residual, lower=True, check_finite=False)
    return float(
        -0.5 * white @ white - np.log(np.diag(root)).sum() - 0.5 * residual.size * _LOG_2PI
    )


def cholesky_or_none(covariance: np.ndarray) -> np.ndarray | None:
    """None where the matrix is not finite, or no covariance."""
    try:
        return np.linalg.cholesky(covariance) if np.isfinite(covariance).all() else None
    except np.linalg.LinAlgError:
        return None
