"""Fisher information of the estimates, from first derivatives or by Louis' formula.

With s_i(phi) the derivative in theta of log p(y_i, phi; theta), the score of subject i is s_i = E[s_i(phi) | y_i] (Fisher's
identity). Score-based: I = sum of s_i s_i', which needs many subjects per parameter (Delattre & Kuhn 2023). Louis (1982):
I = -sum of E[second derivative | y_i] - sum of Var[s_i(phi) | y_i], which is the negative second derivative of the marginal
log-likelihood itself, whatever the number of subjects.

Louis is the default. At the exact maximum of theophylline (12 subjects, 7 parameters) its standard errors are those of the
exact second derivative within 0.2 % by quadrature and 2.5 % by draws, the score-based ones are up to five times as large; of
a linear mixed model (20 subjects, 8 parameters) up to 2.5 times.

The linearized model (:mod:`pymc_saem.saem.expected`) gives them within 8 % on theophylline, 3 % on orange, and of linear models the
expected information exactly. "auto" takes it where Louis' formula fails and the model is Gaussian, before scores:

- A slope with times from 10.2 to 12 (correlation -0.96 with the intercept, 20 subjects): the Monte-Carlo error of Louis' formula is too large;
  exact standard errors 0.373 and 0.0312, linearized 0.373 and 0.0312, by scores 0.263 and 0.0231, 0.306 and 0.0242, or refused, by the seed.
- The neural model of the simulation study (12 subjects): Louis' formula fails for the weights. The linearized standard errors of omega
  and sigma are 0.045 and 0.023 (means over 12 data sets), the standard deviations of the estimates 0.050 and 0.020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pymc_saem.saem.complete import CompleteData
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.expected import expected_information
from pymc_saem.saem.identifiability import MAX_NAMES, involved
from pymc_saem.saem.joint import WeightedPoints
from pymc_saem.saem.linearize import Linearized
from pymc_saem.saem.model import element_labels

METHODS = ("auto", "louis", "score", "linearization")
#: Subjects per parameter from which the score-based information is trusted where Louis' formula fails.
SUBJECTS_PER_PARAMETER = 5
#: Least share of the complete information that the data must have kept in every direction, and how many times its
#: Monte-Carlo error: it is a difference of two large numbers.
LEAST_KEPT, ERRORS = 1e-6, 3.0
#: The same share for scores, whose Monte-Carlo errors pretend to an information that is not there.
LEAST_OF_SCORES = 5e-3
#: Largest multiple of the complete information that scores may give; at a maximum they give less than the whole.
LARGEST_SCORES = 2.0
#: Beyond so many parameters, the weights of networks count as known.
MAX_WITH_WEIGHTS = 60


@dataclass(frozen=True)
class Information:
    """Fisher information of some entries of theta on the unconstrained scale.

    Attributes
    ----------
    columns : ndarray of int, shape (p,)
        Entries of theta that it is about.
    matrix : ndarray or None, shape (p, p)
        None where it could not be computed.
    method : str
        "louis", "score" or "linearization"; "none" without a matrix.
    note : str
        Why there is none, or what it is conditional on.
    n_solves : int
    """

    columns: np.ndarray
    matrix: np.ndarray | None
    method: str
    note: str = ""
    n_solves: int = 0

    @property
    def covariance(self) -> np.ndarray:
        """Of the estimates, (p, p)."""
        unit = np.sqrt(np.diag(self.matrix))
        return np.linalg.inv(self.matrix / np.outer(unit, unit)) / np.outer(unit, unit)


def network_columns(engine: Engine) -> np.ndarray:
    """Which entries of theta are weights of a network, (theta,)."""
    found = np.zeros(engine.mixed.n_theta, dtype=bool)
    for p in engine.mixed.parameters:
        found[p.columns] = p.is_network
    return found


def information(
    engine: Engine,
    theta: np.ndarray,
    points: WeightedPoints,
    at_floor: tuple[str, ...] = (),
    method: str = "auto",
    max_solves: float = np.inf,
    linearized: Callable[[], Linearized] | None = None,
) -> Information:
    """Fisher information of the estimated parameters.

    Parameters
    ----------
    engine : Engine
    theta : ndarray, shape (theta,)
        The estimate.
    points : WeightedPoints
        Conditional draws or nodes of a quadrature.
    at_floor : tuple of str
        Parameters at the floor of their variance: no maximum is there, so they count as known.
    method : {"auto", "louis", "score", "linearization"}
    max_solves : float
        For parameters that cost solves; fewer points are used then.
    linearized : callable, optional
        Makes the linearized model, which "linearization" needs; without it, "auto" does without.
    """
    free = ~engine.maximizer.held
    for name in at_floor:
        free[engine.mixed.parameter(name).columns] = False
    weights = network_columns(engine) & free
    if not free.any():
        return Information(np.zeros(0, int), None, "none", "no parameter was estimated")
    without = Information(np.flatnonzero(free & ~weights), None, "none")
    found = without
    if free.sum() <= MAX_WITH_WEIGHTS or not weights.any():
        found = _information(engine, theta, np.flatnonzero(free), points, method, max_solves, linearized)
    if found.matrix is None and weights.any() and np.any(free & ~weights):
        found = _information(engine, theta, np.flatnonzero(free & ~weights), points, method, max_solves, linearized)
        note = "; ".join(part for part in ("the network weights count as known", found.note) if part)
        found = Information(found.columns, found.matrix, found.method, note, found.n_solves)
    return found


def _information(engine, theta, columns, points, method, max_solves, linearized) -> Information:
    prior = _prior_information(engine, theta, columns)
    if method == "linearization":
        return _of_linearized(engine, theta, columns, linearized(), prior)
    complete = CompleteData(engine, theta, columns, points, max_solves)
    scores, groups = complete.score_moments()
    n_subjects, reasons = len(scores), []
    if method in ("auto", "louis"):
        whole = prior - complete.hessian()
        matrix = whole - groups.mean(axis=0)
        weakest = _weakest(matrix, np.diag(whole))
        reason = _refuse(engine, columns, *weakest, max(LEAST_KEPT, ERRORS * _spread(groups, weakest[1])))
        if reason and weakest[0] > LEAST_KEPT:
            reason += f", as far as {len(complete.points.phi)} conditional draws tell (draws= makes more)"
        if not reason:
            return Information(columns, matrix, "louis", n_solves=complete.joint.n_solves)
        reasons.append(reason)
    if method == "auto" and linearized is not None:
        found = _of_linearized(engine, theta, columns, linearized(), prior)
        if found.matrix is not None:
            note = "; ".join(part for part in (f"Louis' formula failed ({reasons[0]})", found.note) if part)
            return Information(columns, found.matrix, found.method, note, complete.joint.n_solves + found.n_solves)
    if method == "score" or method == "auto" and n_subjects >= SUBJECTS_PER_PARAMETER * len(columns):
        matrix = scores.T @ scores + prior
        weakest = _weakest(matrix, complete.diagonal + np.diag(prior))
        reason = _refuse(engine, columns, *weakest, LEAST_OF_SCORES)
        if np.any(np.diag(scores.T @ scores) > LARGEST_SCORES * complete.diagonal):
            reason = "the scores are larger than those of the complete data: the estimate is not at a maximum"
        if n_subjects < len(columns):
            reason = f'{len(columns)} parameters are too many for the scores of {n_subjects} subjects, which standard_errors="louis" does not mind'
        if not reason:
            return Information(columns, matrix, "score", n_solves=complete.joint.n_solves)
        reasons = reasons or [reason]
    return Information(columns, None, "none", reasons[0], complete.joint.n_solves)


def _of_linearized(engine, theta, columns, linearized: Linearized, prior: np.ndarray) -> Information:
    matrix, left_out = expected_information(linearized, theta, columns)
    matrix, note = matrix + prior, ""
    if left_out.any():
        labels = ", ".join(str(engine.mixed.subjects[i]) for i in np.flatnonzero(left_out)[:3])
        note = f"without {int(left_out.sum())} subjects whose predictions failed ({labels})"
    silent = np.diag(matrix) <= 0.0
    if silent.any():
        names = ", ".join(np.array(labels_of(engine))[columns[silent]][:4])
        return Information(columns, None, "none", f"the data tell nothing of {names}", linearized.n_solves)
    reason = _refuse(engine, columns, *_weakest(matrix, np.diag(matrix)), LEAST_KEPT)
    if reason:
        return Information(columns, None, "none", reason, linearized.n_solves)
    return Information(columns, matrix, "linearization", note, linearized.n_solves)


def _weakest(matrix: np.ndarray, diagonal: np.ndarray) -> tuple[float, np.ndarray]:
    """Least information of any direction, as a share of what the complete data tell of its entries, and that direction (p,)."""
    if not np.all(np.isfinite(matrix)) or not np.all(diagonal > 0):
        return np.nan, np.zeros(len(matrix))
    unit = 1.0 / np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(matrix * np.outer(unit, unit))
    return float(values[0]), vectors[:, 0] * unit


def _spread(groups: np.ndarray, direction: np.ndarray) -> float:
    """Monte-Carlo error of the missing information, of which ``groups`` (group, p, p) are estimates, in a direction."""
    if len(groups) == 1:
        return 0.0
    return float(np.einsum("i,gij,j->g", direction, groups, direction).std(ddof=1) / np.sqrt(len(groups)))


def _refuse(engine: Engine, columns: np.ndarray, share: float, direction: np.ndarray, least: float) -> str:
    """Why a matrix with this weakest direction is no information, or an empty string."""
    if share > least:
        return ""
    if np.isnan(share):
        return "the second derivatives are not those of a maximum"
    labels = np.array(labels_of(engine))[columns]
    names = [str(labels[k]) for k in involved(direction)][:MAX_NAMES]
    return f"the data hardly determine {'a combination of ' if len(names) > 1 else ''}{', '.join(names)}"


def labels_of(engine: Engine) -> list[str]:
    """A name for each entry of theta."""
    labels = []
    for p in engine.mixed.parameters:
        labels += element_labels(engine.mixed.model, p.name, p.shape, p.dims)
    return labels


def _prior_information(engine: Engine, theta: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Negative second derivative of the log priors that the fit has maximized, (p, p); zero in "ml" fits."""
    whole = np.zeros((theta.size, theta.size))
    for p in engine.mixed.parameters:
        prior = engine.maximizer.priors.get(p.name)
        if prior is None:
            continue
        for k in range(p.columns.stop - p.columns.start):
            step = 1e-4 * np.eye(p.columns.stop - p.columns.start)[k]
            u = theta[p.columns]
            up, down = (prior.unconstrained(u + s * step)[1] for s in (1, -1))
            whole[p.columns, p.columns.start + k] = -(up - down) / 2e-4
    return 0.5 * (whole + whole.T)[np.ix_(columns, columns)]
