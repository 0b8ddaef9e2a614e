"""Fisher information of the estimates, from first derivatives or by Louis' formula.

With s_i(phi) the derivative in theta of log p(y_i, phi; theta), the score of subject i is s_i =
E[s_i(phi) | y_i] (Fisher's identity). Score-based: I = sum of s_i s_i', which needs many subjects
per parameter (Delattre & Kuhn 2023). Louis (1982): I = -sum of E[second derivative | y_i] - sum of
Var[s_i(phi) | y_i], which is the negative second derivative of the marginal log-likelihood itself,
whatever the number of subjects.

Louis is the default. At the exact maximum of theophylline (12 subjects, 7 parameters) its standard
errors are those of the exact second derivative within 0.2 % by quadrature and 2.5 % by draws, the
score-based ones are up to five times as large; of a linear mixed model (20 subjects, 8 parameters)
up to 2.5 times.

The linearized model (:mod:`pymc_saem.saem.uncertainty.expected`) gives them within 8 % on
theophylline, 3 % on orange, and of linear models the expected information exactly. "auto" takes it
where Louis' formula fails and the model is Gaussian, before scores:

- A slope with times from 10.2 to 12 (correlation -0.96 with the intercept, 20 subjects): the Monte-Carlo error of Louis' formula is too large;
  exact standard errors 0.373 and 0.0312, linearized 0.373 and 0.0312, by scores 0.263 and 0.0231,
  0.306 and 0.0242, or refused, by the seed.
- The neural model of the simulation study (12 subjects): Louis' formula fails for the weights. The linearized standard errors of omega
  and sigma are 0.045 and 0.023 (means over 12 data sets), the standard deviations of the estimates
  0.050 and 0.020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pymc_saem.model.mixed_model import element_labels, parameter_labels
from pymc_saem.results.thresholds import HARDLY_DETERMINED, NO_INFORMATION
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.likelihood.joint import WeightedPoints
from pymc_saem.saem.likelihood.linearize import Linearized
from pymc_saem.saem.uncertainty.complete_data import CompleteData
from pymc_saem.saem.uncertainty.determined import ROUNDING, Determined, determined
from pymc_saem.saem.uncertainty.expected import expected_information
from pymc_saem.saem.uncertainty.identifiability import MAX_NAMES, MAX_SENTENCES, listed

METHODS = ("auto", "louis", "score", "linearization")
#: Subjects per parameter from which the score-based information is trusted where Louis' formula
#: fails.
SUBJECTS_PER_PARAMETER = 5
#: Least share of the complete information that the data must have kept in every direction, and how
#: many times its Monte-Carlo error: it is a difference of two large numbers.
LEAST_KEPT, ERRORS = 1e-6, 3.0
#: Relative error of second derivatives that are differences of gradients, which may come from
#: solves.
ROUNDING_OF_GRADIENTS = 1e-6
#: The same share for the linearized model, whose information is a sum of squares and has no
#: Monte-Carlo error.
LEAST_OF_LINEARIZED = 1e-8
#: The same share for scores, whose Monte-Carlo errors pretend to an information that is not there.
LEAST_OF_SCORES = 5e-3
#: Largest multiple of the complete information that scores may give; at a maximum they give less
#: than the whole.
LARGEST_SCORES = 2.0
#: What -2LL may have left to fall at the estimate, and the part of a standard error from which a
#: parameter is named for it.
LARGEST_GAIN, FAR = 0.5, 0.3
#: Beyond this many parameters, the weights of networks count as known.
MAX_WITH_WEIGHTS = 60


@dataclass(frozen=True)
class Information:
    """What is known of some entries of theta, on the unconstrained scale.

    Attributes
    ----------
    columns : ndarray of int, shape (p,)
        Entries of theta that it is about.
    covariance : ndarray or None, shape (p, p)
        Of their estimates, with directions held that the data do not determine; None where nothing
        is known.
    unknown : ndarray of bool, shape (p,)
        Entries that lie along such a direction, and have no standard error.
    method : str
        "louis", "score" or "linearization"; "none" without a covariance.
    note : str
        Why there is none, or what it is conditional on.
    hints : tuple of str
        A sentence for each direction that the data do not determine.
    n_solves : int
    """

    columns: np.ndarray
    covariance: np.ndarray | None
    unknown: np.ndarray
    method: str
    note: str = ""
    hints: tuple[str, ...] = ()
    n_solves: int = 0
    flat: np.ndarray | None = None  # (p, direction), of :class:`Determined`

    @classmethod
    def none(
        cls, columns: np.ndarray, note: str, n_solves: int = 0, hints: tuple[str, ...] = ()
    ) -> Information:
        return cls(columns, None, np.ones(len(columns), dtype=bool), "none", note, hints, n_solves)


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
        return Information.none(np.zeros(0, int), "no parameter was estimated")
    found, others = None, np.flatnonzero(free & ~weights)
    if free.sum() <= MAX_WITH_WEIGHTS or not weights.any():
        found = _information(
            engine, theta, np.flatnonzero(free), points, method, max_solves, linearized
        )
        if not weights.any() or not found.unknown.any() or not others.size:
            return found
    if not others.size:
        return Information.none(
            others, "only network weights were estimated, and they are too many"
        )
    found = _information(engine, theta, others, points, method, max_solves, linearized)
    return replace(found, note=_joined("network weights are treated as known", found.note))


def _information(
    engine: Engine,
    theta: np.ndarray,
    columns: np.ndarray,
    points: WeightedPoints,
    method: str,
    max_solves: float,
    linearized: Callable[[], Linearized] | None,
) -> Information:
    prior, labels = (
        _prior_information(engine, theta, columns),
        np.array(labels_of(engine))[columns].tolist(),
    )
    if method == "linearization":
        if linearized is None:
            raise ValueError(
                "method is 'linearization', which needs linearized=, a callable that makes the linearized model."
            )
        return _of_linearized(engine, theta, columns, linearized(), prior, labels)
    complete = CompleteData(engine, theta, columns, points, max_solves)
    scores, groups = complete.score_moments()
    if method == "score":
        return _of_scores(complete, scores, prior, labels)
    louis = _louis(complete, groups, prior, labels)
    if method == "louis" or not louis.unknown.any():
        found = louis
    else:
        found = _where_louis_fails(
            engine, theta, complete, scores, prior, louis, linearized, labels
        )
    far = _not_at_the_maximum(
        found, complete, scores.sum(axis=0) + _prior_slope(engine, theta, columns), labels
    )
    return replace(found, hints=(*found.hints, far)) if far else found


def _where_louis_fails(
    engine: Engine,
    theta: np.ndarray,
    complete: CompleteData,
    scores: np.ndarray,
    prior: np.ndarray,
    louis: Information,
    linearized: Callable[[], Linearized] | None,
    labels: list[str],
) -> Information:
    columns = complete.columns
    if linearized is None:
        found = louis
        if len(scores) >= SUBJECTS_PER_PARAMETER * len(columns):
            found = _of_scores(complete, scores, prior, labels)
        return louis if found.unknown.any() else found
    found = _of_linearized(engine, theta, columns, linearized(), prior, labels)
    if np.all(found.unknown[louis.unknown]):  # it is the data, and not the draws
        return louis if louis.unknown.sum() <= found.unknown.sum() else found
    note = _joined(f"Louis' formula failed ({louis.hints[0]})", found.note)
    return replace(found, note=note, n_solves=louis.n_solves + found.n_solves)


def _not_at_the_maximum(
    found: Information, complete: CompleteData, slope: np.ndarray, labels: list[str]
) -> str:
    """A sentence where the likelihood still rises (``slope`` (p,)) by more than Monte-Carlo errors explain; or an empty string."""
    if found.covariance is None:
        return ""
    possible = (
        found.covariance if found.flat is None else found.covariance + found.flat @ found.flat.T
    )
    step = possible @ slope
    gain, noise = float(slope @ step), float(np.sum(possible * complete.noise_of_scores))
    if not gain > LARGEST_GAIN + ERRORS * noise:
        return ""
    size = np.abs(step) / np.sqrt(np.maximum(np.diag(possible), 1e-300))
    names = [labels[k] for k in np.flatnonzero(size > FAR)] or [labels[int(np.argmax(size))]]
    return (
        f"the estimates are not at the maximum: -2LL would fall by about {gain:.2g} if {listed(names)} moved; extend the run, and "
        "center covariates whose mean is far from zero"
    )


def _louis(
    complete: CompleteData, groups: np.ndarray, prior: np.ndarray, labels: list[str]
) -> Information:
    whole = prior - complete.hessian()
    rounding = np.full(len(labels), ROUNDING)
    rounding[complete.of_model] = ROUNDING_OF_GRADIENTS
    found = determined(
        whole - groups.mean(axis=0),
        whole,
        LEAST_KEPT,
        lambda d: ERRORS * _spread(groups, d),
        rounding,
    )
    few = ""
    if found.share > LEAST_KEPT:
        few = f", as far as {len(complete.points.phi)} conditional draws show (increase draws)"
    return _told(
        complete.columns,
        found,
        "louis",
        labels,
        np.diag(whole),
        few,
        n_solves=complete.joint.n_solves,
    )


def _of_scores(
    complete: CompleteData, scores: np.ndarray, prior: np.ndarray, labels: list[str]
) -> Information:
    columns, n_solves = complete.columns, complete.joint.n_solves
    matrix, noise = scores.T @ scores, complete.noise_of_scores
    if len(scores) < len(columns):
        why = f'{len(columns)} parameters are too many for the scores of {len(scores)} subjects, which standard_errors="louis" does not mind'
        return Information.none(columns, why, n_solves)
    if np.any(np.diag(matrix) > LARGEST_SCORES * np.maximum(complete.diagonal, 0.0)):
        why = "the scores are larger than those of the complete data: the estimate is not at a maximum"
        return Information.none(columns, why, n_solves)
    whole = complete.diagonal + np.diag(prior)
    found = determined(
        matrix + prior, np.diag(whole), LEAST_OF_SCORES, lambda d: ERRORS * float(d @ noise @ d)
    )
    return _told(columns, found, "score", labels, whole, n_solves=n_solves)


def _of_linearized(
    engine: Engine,
    theta: np.ndarray,
    columns: np.ndarray,
    linearized: Linearized,
    prior: np.ndarray,
    labels: list[str],
) -> Information:
    matrix, left_out = expected_information(linearized, theta, columns)
    matrix, note = matrix + prior, ""
    if left_out.any():
        names = ", ".join(str(engine.mixed.subjects[i]) for i in np.flatnonzero(left_out)[:3])
        note = f"without {int(left_out.sum())} subjects whose predictions failed ({names})"
    found = determined(matrix, np.diag(np.diag(matrix)), LEAST_OF_LINEARIZED)
    return _told(
        columns,
        found,
        "linearization",
        labels,
        np.diag(matrix),
        note=note,
        n_solves=linearized.n_solves,
    )


def _told(
    columns: np.ndarray,
    found: Determined,
    method: str,
    labels: list[str],
    complete: np.ndarray,
    few: str = "",
    note: str = "",
    n_solves: int = 0,
) -> Information:
    """An information with sentences about what is not determined, of entries with ``complete`` information (p,)."""
    silent = [
        group[0]
        for group in found.groups
        if len(group) == 1 and not np.nan_to_num(complete[group[0]]) > 0
    ]
    hints = [f"{NO_INFORMATION} {listed([labels[k] for k in silent])}"] if silent else []
    for group in found.groups:
        if group[0] not in silent:
            kind = "a combination of " if len(group) > 1 else ""
            named = sorted(group) if len(group) <= MAX_NAMES else group
            hints.append(f"{HARDLY_DETERMINED} {kind}{listed([labels[k] for k in named])}{few}")
    if len(hints) > MAX_SENTENCES:
        hints = [*hints[:MAX_SENTENCES], f"and {len(hints) - MAX_SENTENCES} more"]
    if found.unknown.all():
        return Information.none(columns, _joined(*hints, note), n_solves, tuple(hints))
    held = "the standard errors of the others treat it as fixed" if hints else ""
    note = _joined(*hints, held, note)
    return Information(
        columns, found.covariance, found.unknown, method, note, tuple(hints), n_solves, found.flat
    )


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _spread(groups: np.ndarray, direction: np.ndarray) -> float:
    """Monte-Carlo error of the missing information, of which ``groups`` (group, p, p) are estimates, in a direction."""
    if len(groups) == 1:
        return 0.0
    return float(
        np.einsum("i,gij,j->g", direction, groups, direction).std(ddof=1) / np.sqrt(len(groups))
    )


def labels_of(engine: Engine) -> list[str]:
    """A name for each entry of theta."""
    labels = []
    for p in engine.mixed.parameters:
        if p.is_entrywise:
            labels += parameter_labels(engine.mixed.model, p)
        else:
            labels += [
                f"unconstrained {label}"
                for label in element_labels(engine.mixed.model, p.name, p.shape, ())
            ]
    return labels


def _prior_slope(engine: Engine, theta: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """First derivative of the same log priors, (p,)."""
    whole = np.zeros(theta.size)
    for p in engine.mixed.parameters:
        if p.name in engine.maximizer.priors:
            whole[p.columns] = engine.maximizer.priors[p.name].unconstrained(theta[p.columns])[1]
    return whole[columns]


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
