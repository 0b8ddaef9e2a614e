"""The complete-data log density log p(y_i | phi_i; theta) + log p(phi_i | theta) as a function of theta, and its derivatives.

What theta moves decides how it is differentiated, all by central differences on the unconstrained
scale: the Gaussian distribution of phi, whose mean and covariance `Maximizer.population` gives,
costs no evaluation of the model; a residual scale is a formula of its statistic, which is evaluated
once; other parameters cost solves.
"""

from __future__ import annotations

import numpy as np

from pymc_saem.model.mixed_model import Parameter
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.likelihood.joint import Joint, WeightedPoints
from pymc_saem.saem.mstep.residual import ResidualScale

#: Differences reach this many standard errors, as the complete data would give them.
REACH = 0.02
#: Numbers in the scores that are kept at once.
MAX_SCORES = 4_000_000
#: Points at which second derivatives of the model are averaged; conditional variances of scores
#: need more.
N_CURVATURE = 300
#: Groups of draws, whose spread is the Monte-Carlo error of the variances of scores.
N_GROUPS = 4


class CompleteData:
    """Scores and second derivatives at theta, in the entries ``columns``.

    Parameters
    ----------
    engine : Engine
    theta : ndarray, shape (theta,)
    columns : ndarray of int, shape (p,)
        Entries of theta.
    points : WeightedPoints
        What stands for p(phi | y, theta).
    max_solves : float
        What the scores may cost, where they need solves.
    """

    def __init__(
        self,
        engine: Engine,
        theta: np.ndarray,
        columns: np.ndarray,
        points: WeightedPoints,
        max_solves: float,
    ) -> None:
        self.engine, self.theta, self.columns = engine, theta, columns
        rules = engine.rules
        scores = {j: rule for rule in rules.scores for j in _range(rule.parameter)}
        self.residual_rules = [
            rule for rule in rules.residuals if rule.parameter.columns.start in columns
        ]
        scaled = {rule.parameter.columns.start for rule in rules.residuals}
        in_likelihood = {
            j
            for j, rule in scores.items()
            if rule.outcomes or any(not e.is_gaussian for e in rule.effects)
        }
        in_likelihood |= {j for rule in rules.effect_scales for j in _range(rule.parameter)}
        in_law = {j for j, rule in scores.items() if any(e.is_gaussian for e in rule.effects)}
        in_law |= set(rules.mean.columns.tolist()) | {
            j for rule in rules.omegas for j in _range(rule.parameter)
        }
        self.of_law = [k for k, j in enumerate(columns) if j in in_law]
        self.of_model = [k for k, j in enumerate(columns) if j in in_likelihood and j not in scaled]
        self.joint = Joint(engine.densities, engine.maximizer.population(theta), theta)
        n_subjects = points.phi.shape[1]
        if (
            self.of_model
            and len(points.phi) * n_subjects * (2 * len(self.of_model) + 1) > max_solves
        ):
            n_points = int(max_solves / n_subjects / (2 * len(self.of_model) + 1))
            points = WeightedPoints.of_draws(points.equally_weighted(max(n_points, 30))[None])
        self.points = points
        self.residual = self._expected_residuals() if self.residual_rules else np.zeros(0)
        self.step, self.diagonal = self._steps()

    # -- steps of the differences ---------------------------------------------------------------

    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Step of each entry (p,), a share of the standard error that the complete data would give; their information (p,)."""
        step = 1e-4 * (1.0 + np.abs(self.theta[self.columns]))
        for _ in range(2):
            information = -self._law_diagonal(step)
            for k, j in enumerate(self.columns):
                for rule in self.residual_rules:
                    if rule.parameter.columns.start == j:
                        information[k] += -self._residual_second(rule, step[k])
            for k in self.of_model:
                information[k] += -self._gradient_difference(k, step[k])[self.columns[k]]
            known = np.isfinite(information) & (information > 0)
            step = np.where(known, REACH / np.sqrt(np.where(known, information, 1.0)), step)
        return step, information

    def _moved(self, *moves: tuple[int, float]) -> np.ndarray:
        theta = self.theta.copy()
        for k, step in moves:
            theta[self.columns[k]] += step
        return theta

    # -- the distribution of phi -------------------------------------------------------------------------

    def _law(self, theta: np.ndarray) -> float:
        """Expected log p(phi; theta) over all subjects, from the first two moments."""
        population = self.engine.maximizer.population(theta)
        gap, precision = self._mean - population.mean, population.precision
        quadratic = np.einsum("si,ij,sj->", gap, precision, gap) + np.sum(
            precision * self._covariance
        )
        return len(gap) * population.log_normalizer - 0.5 * float(quadratic)

    def _law_diagonal(self, step: np.ndarray) -> np.ndarray:
        self._mean, self._covariance = self.points.mean(), self.points.covariance().sum(axis=0)
        middle, found = self._law(self.theta), np.zeros(len(self.columns))
        for k in self.of_law:
            up, down = (self._law(self._moved((k, s * step[k]))) for s in (1, -1))
            found[k] = (up - 2.0 * middle + down) / step[k] ** 2
        return found

    def _law_hessian(self) -> np.ndarray:
        found, h = np.diag(self._law_diagonal(self.step)), self.step
        for a, k in enumerate(self.of_law):
            for m in self.of_law[:a]:
                corners = [
                    s * t * self._law(self._moved((k, s * h[k]), (m, t * h[m])))
                    for s in (1, -1)
                    for t in (1, -1)
                ]
                found[k, m] = found[m, k] = sum(corners) / (4.0 * h[k] * h[m])
        return found

    # -- residual scales ------------------------------------------------------------------------

    def _expected_residuals(self) -> np.ndarray:
        """Mean over the points of the residual statistics, summed over subjects, (residual,).

        Draws are draws for the tolerance of the fit, of which the estimate is the maximum. Solved
        better they are not: on the neural model at 1e-2, the squared residuals of some subjects are
        then several times as large.
        """
        if self.points.are_draws:
            with np.errstate(all="ignore"):
                self._residuals = self.engine.densities.outputs_quietly(
                    self.points.phi, self.theta
                )[1]
            self.joint.n_solves += self.points.phi[..., 0].size
        else:
            self._residuals = self.joint.likelihood(self.points.phi)[1]
        with np.errstate(invalid="ignore"):
            weighted = np.where(
                self.points.weight[..., None] > 0,
                self.points.weight[..., None] * self._residuals,
                0.0,
            )
        return np.nansum(weighted, axis=(0, 1))

    def _natural(self, rule: ResidualScale, step: float) -> float:
        """Natural value of a residual scale, ``step`` from its estimate on the unconstrained scale."""
        u = self.theta[rule.parameter.columns.start]
        return float(self.engine.points.natural(rule.parameter, np.array([u + step]))[0])

    def _residual_second(self, rule: ResidualScale, step: float) -> float:
        count, squares = rule.count(self.engine.mixed), rule.squares(self.residual)
        down, middle, up = (
            rule.log_density(count, squares, self._natural(rule, s * step)) for s in (-1, 0, 1)
        )
        return float(up - 2.0 * middle + down) / step**2

    # -- other parameters of the model ----------------------------------------------------------

    def _gradient_difference(self, k: int, step: float) -> np.ndarray:
        """Second derivatives (theta,) of the expected log likelihood, one of them in the entry ``columns[k]``."""
        points = self.points.equally_weighted(N_CURVATURE)
        with np.errstate(all="ignore"):
            up, down = (
                self.engine.densities.gradient(points, self._moved((k, s * step)))[2]
                for s in (1, -1)
            )
        self.joint.n_solves += 2 * points[..., 0].size
        return (up - down) / (2.0 * step * len(points))

    # -- what the information is made of --------------------------------------------------------

    def hessian(self) -> np.ndarray:
        """Expected second derivatives of the complete-data log density, summed over subjects, (p, p)."""
        found = self._law_hessian()
        place = {j: k for k, j in enumerate(self.columns)}
        for rule in self.residual_rules:
            k = place[rule.parameter.columns.start]
            found[k, k] += self._residual_second(rule, self.step[k])
        scaled = [place[rule.parameter.columns.start] for rule in self.residual_rules]
        for k in self.of_model:
            column = self._gradient_difference(k, self.step[k])[self.columns]
            others = [m for m in self.of_model if m != k]
            found[k, k] += column[k]
            found[others, k] += 0.5 * column[others]  # each pair is met twice
            found[k, others] += 0.5 * column[others]
            found[scaled, k] += column[scaled]
            found[k, scaled] += column[scaled]
        return found

    def score_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores s_i = E[score of the complete data | y_i], and the sum over subjects of their conditional covariances.

        Returns
        -------
        scores : ndarray, shape (subject, p)
        covariances : ndarray, shape (group, p, p)
            Of groups of draws, of which the mean is the estimate; a single one where the points are
            nodes.
        """
        groups = np.array_split(
            np.arange(len(self.points.phi)), N_GROUPS if self.points.are_draws else 1
        )
        moments = [self._moments_of(group) for group in groups]
        firsts = np.stack([first for first, _ in moments])
        scores = firsts.mean(axis=0)
        gap = (firsts - scores).reshape(-1, len(self.columns))
        #: What errors of the scores add to the sum of their squares, (p, p).
        self.noise_of_scores = gap.T @ gap / max(1, len(firsts) * (len(firsts) - 1))
        return scores, np.stack([second for _, second in moments]) - scores.T @ scores

    def _moments_of(self, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean scores (subject, p) over some of the points, and the sum of their second moments (p, p)."""
        n_subjects, p = self.points.phi.shape[1], len(self.columns)
        first, second = np.zeros((n_subjects, p)), np.zeros((p, p))
        total = self.points.weight[group].sum(axis=0)
        for part in np.array_split(group, max(1, -(-group.size * n_subjects * p // MAX_SCORES))):
            scores, weight = self._scores(part), self.points.weight[part] / total
            # A failed solve, or a node without density: no weight, and no score.
            scores = np.where((weight > 0)[..., None] & np.isfinite(scores), scores, 0.0)
            first += np.einsum("ks,ksp->sp", weight, scores)
            second += np.einsum("ks,ksp,ksq->pq", weight, scores, scores, optimize=True)
        return first, second

    def _scores(self, part: np.ndarray) -> np.ndarray:
        """Scores of the complete data at some of the points, (point, subject, p)."""
        phi = self.points.phi[part]
        scores = np.zeros((*phi.shape[:2], len(self.columns)))
        with np.errstate(all="ignore"):
            for k in self.of_law:
                up, down = (self._log_law(phi, self._moved((k, s * self.step[k]))) for s in (1, -1))
                scores[..., k] += (up - down) / (2.0 * self.step[k])
            for rule in self.residual_rules:
                k = int(np.flatnonzero(self.columns == rule.parameter.columns.start)[0])
                scores[..., k] += self._residual_scores(rule, self._residuals[part], self.step[k])
            for k in self.of_model:
                up, down = (
                    self.joint.likelihood(phi, self._moved((k, s * self.step[k])))[0]
                    for s in (1, -1)
                )
                scores[..., k] += (up - down) / (2.0 * self.step[k])
        return scores

    def _log_law(self, phi: np.ndarray, theta: np.ndarray) -> np.ndarray:
        return self.engine.maximizer.population(theta).log_density(phi)

    def _residual_scores(
        self, rule: ResidualScale, residuals: np.ndarray, step: float
    ) -> np.ndarray:
        rows, squares = rule.rows(self.engine.mixed), rule.squares(residuals)
        up, down = (rule.log_density(rows, squares, self._natural(rule, s * step)) for s in (1, -1))
        return (up - down) / (2.0 * step)


def _range(parameter: Parameter) -> range:
    return range(parameter.columns.start, parameter.columns.stop)
