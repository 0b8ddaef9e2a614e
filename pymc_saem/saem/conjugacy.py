"""Decides for each parameter how its M-step is done, by mathematics and not by spelling.

"Affine" means that the numerical Jacobian does not depend on beta; "homogeneous" means that the scale
divided by a power of the parameter does not depend on it. Each recognizer returns its rule, or raises
:class:`UnsupportedModelError` with the reason why there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors

from pymc_saem.saem.densities import in_symbols, model_value, symbols
from pymc_saem.saem.model import MixedModel, Parameter, RandomEffect, UnsupportedModelError
from pymc_saem.saem.point import _TO_PHI, INTERPRETED, PointMap

_REFUSAL = (
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
    residual_terms: tuple[ResidualTerm, ...]

    def kind_of(self) -> dict[str, str]:
        """What each parameter is, for tables: name -> description."""
        kinds = {p.name: "mean of random effects, least squares" for p in self.mean.parameters}
        kinds |= {r.parameter.name: f"{r.kind} covariance of random effects" for r in self.omegas}
        return kinds | {r.parameter.name: "residual scale" for r in self.residuals}


@dataclass(frozen=True)
class ResidualTerm:
    """Squared residuals of one outcome, divided by the squared shape of its scale, as a graph."""

    mixed: MixedModel
    outcome: int
    parameter: Parameter

    def __call__(self, phi, theta):
        """Rows (row,) as a function of the symbols phi (subject, phi) and theta (theta,)."""
        rv = self.mixed.model.observed_RVs[self.outcome]
        mean, scale = in_symbols(self.mixed, list(location_and_scale(rv)), phi, theta)
        y = self.mixed.model.rvs_to_values[rv]
        y = pt.log(y) if type(rv.owner.op).__name__ == "LogNormalRV" else y
        column = self.parameter.columns.start
        at_zero = pt.set_subtensor(theta[column], 0.0)
        (shape,) = clone_replace([scale], replace=[(theta, at_zero)], rebuild_strict=False)
        return (pt.zeros_like(y, dtype="float64") + pt.sqr((y - mean) / shape)).ravel()


def recognize(mixed: MixedModel) -> Rules:
    """The M-step rule of every parameter.

    Raises
    ------
    UnsupportedModelError
        Names the first parameter without a closed form, and the reason.
    """
    points = PointMap(mixed)
    roles = _roles(mixed)
    theta = points.theta_of(points.template)
    probe = _Probe(mixed, theta)
    mean = _recognize_mean(mixed, probe, roles)
    omegas, fixed = _recognize_omegas(mixed, probe, roles)
    residuals, terms = _recognize_residuals(mixed, points, roles, mean)
    return Rules(mean, omegas, fixed, residuals, terms)


def location_and_scale(rv):
    """Location and scale graphs of a Normal or LogNormal variable."""
    return rv.owner.op.dist_params(rv.owner)[:2]


def _roles(mixed: MixedModel) -> dict[str, dict[str, list]]:
    """Where each parameter occurs: means, covariances, residual scales; anything else is refused."""
    values = {model_value(mixed, p.name): p for p in mixed.parameters}
    roles = {p.name: {"mean": [], "covariance": [], "scale": []} for p in mixed.parameters}

    def note(graphs, role, where):
        reached = set(ancestors(mixed.model.replace_rvs_by_values(list(graphs))))
        for value, p in values.items():
            if value in reached:
                roles[p.name][role].append(where)

    for effect in mixed.random_effects:
        rv = mixed.model[effect.name]
        _refuse_nested(mixed, effect, rv)
        location, scale = location_and_scale(rv)
        note([location], "mean", effect.name)
        note([scale], "covariance", effect.name)
    for j, outcome in enumerate(mixed.outcomes):
        rv = mixed.model.observed_RVs[j]
        if type(rv.owner.op).__name__ in ("NormalRV", "LogNormalRV"):
            location, scale = location_and_scale(rv)
            note([scale], "scale", j)
            _refuse_structural(mixed, [location], values, outcome.name, "the prediction of")
        else:
            kind = type(rv.owner.op).__name__.removesuffix("RV")
            _refuse_structural(mixed, rv.owner.inputs, values, outcome.name, f"the {kind} distribution of")
    for p in mixed.parameters:
        _refuse_roles(mixed, p, roles[p.name])
    return roles


def _refuse_nested(mixed, effect, rv):
    reached = set(ancestors(mixed.model.replace_rvs_by_values(list(location_and_scale(rv)))))
    for other in mixed.random_effects:
        if model_value(mixed, other.name) in reached:
            raise UnsupportedModelError(
                f"The distribution of the random effect '{effect.name}' depends on the random effect '{other.name}'. "
                "Write their joint distribution as one MvNormal."
            )


def _refuse_structural(mixed, graphs, values, outcome, what):
    reached = set(ancestors(mixed.model.replace_rvs_by_values(list(graphs))))
    for value, p in values.items():
        if value in reached:
            raise UnsupportedModelError(
                f"The parameter '{p.name}' enters {what} '{outcome}' directly, so its M-step has no closed form. {_REFUSAL} "
                f"Make '{p.name}' the mean of a random effect, or replace it by a constant."
            )


def _refuse_roles(mixed, p: Parameter, role) -> None:
    used = [name for name in role if role[name]]
    if not used:
        children = [q.name for q in mixed.parameters if q is not p and mixed.model[p.name] in set(ancestors(mixed.model[q.name].owner.inputs))]
        of = f" of {', '.join(children)}" if children else ""
        raise UnsupportedModelError(f"The parameter '{p.name}' enters only the prior{of}. {_REFUSAL} Replace it by a constant.")
    if len(used) > 1:
        raise UnsupportedModelError(f"The parameter '{p.name}' is at once a {' and a '.join(used)}. {_REFUSAL}")
    rv = mixed.model[p.name]
    if any(v in set(mixed.model.free_RVs) for v in ancestors(rv.owner.inputs)):
        raise UnsupportedModelError(f"The prior of '{p.name}' depends on other free variables. {_REFUSAL} Give it a constant prior.")


class _Probe:
    """Evaluates the means and covariances of phi at trial values of theta."""

    def __init__(self, mixed: MixedModel, theta: np.ndarray):
        self.mixed, self.base, self.rng = mixed, theta, np.random.default_rng(0)
        phi, symbol = symbols(mixed)
        graphs = [g for e in mixed.random_effects for g in location_and_scale(mixed.model[e.name])]
        graphs = in_symbols(mixed, graphs, phi, symbol)
        self._f = pytensor.function([symbol], graphs, mode=INTERPRETED, on_unused_input="ignore")

    def mean(self, theta: np.ndarray) -> np.ndarray:
        """Means of phi, (subject, phi)."""
        values = self._f(theta)[0::2]
        shapes = [e.shape for e in self.mixed.random_effects]
        blocks = [np.broadcast_to(v, s).reshape(s[0], -1) for v, s in zip(values, shapes, strict=True)]
        return np.concatenate(blocks, axis=1)

    def covariance(self, effect: RandomEffect, theta: np.ndarray) -> np.ndarray:
        """Covariance (k, k) of one random effect."""
        value = np.asarray(self._f(theta)[2 * self.mixed.random_effects.index(effect) + 1], dtype=float)
        if type(self.mixed.model[effect.name].owner.op).__name__ == "MvNormalRV":
            return _same_for_all(effect, value, value.ndim - 2, "covariance")
        sd = np.broadcast_to(value, effect.shape).reshape(effect.shape[0], -1)
        return np.diag(_same_for_all(effect, sd, 1, "standard deviation") ** 2)


def _same_for_all(effect, value, n_lead, what):
    value = value.reshape((-1, *value.shape[n_lead:])) if n_lead else value[None]
    if not np.allclose(value, value[0], rtol=1e-12, atol=0):
        raise UnsupportedModelError(f"The {what} of the random effect '{effect.name}' differs between subjects. It must be shared.")
    return value[0]


def _recognize_mean(mixed, probe, roles) -> MeanRule:
    parameters = tuple(p for p in mixed.parameters if roles[p.name]["mean"])
    columns = np.concatenate([np.arange(p.columns.start, p.columns.stop) for p in parameters] or [np.zeros(0, int)])
    base = probe.base.copy()
    offset = probe.mean(base)
    slopes = []
    for column in columns:
        moved = base.copy()
        moved[column] += 1.0
        slopes.append(probe.mean(moved) - offset)
    design = np.stack(slopes, axis=-1) if slopes else np.zeros((*offset.shape, 0))
    for scale in (0.3, 2.0):
        trial = base.copy()
        trial[columns] += scale * probe.rng.standard_normal(columns.size)
        expected = offset + design @ (trial - base)[columns]
        found = probe.mean(trial)
        wrong = ~np.isclose(found, expected, rtol=1e-7, atol=1e-8 * (1 + np.abs(expected).max()))
        if wrong.any():
            label = mixed.phi_labels()[int(np.flatnonzero(wrong.any(axis=0))[0])]
            names = ", ".join(f"'{p.name}'" for p in parameters)
            raise UnsupportedModelError(
                f"The mean of the random effect '{label}' is not affine in the unconstrained values of {names}. {_REFUSAL} "
                "Write the mean as a sum of parameters times known covariates, on the scale on which the effect is normal."
            )
    offset = offset - design @ base[columns]
    if np.ptp(design, axis=0).max(initial=0.0) == 0 and np.ptp(offset, axis=0).max(initial=0.0) < 1e-12:
        design, offset = design[:1], offset[:1]
    _refuse_collinear(parameters, columns, design)
    return MeanRule(parameters, columns, design, offset)


def _refuse_collinear(parameters, columns, design) -> None:
    stacked = design.reshape(-1, columns.size)
    if columns.size and np.linalg.matrix_rank(stacked) < columns.size:
        names = ", ".join(p.name for p in parameters)
        raise UnsupportedModelError(
            f"The means of the random effects do not determine the parameters {names}: only {np.linalg.matrix_rank(stacked)} of "
            f"{columns.size} combinations occur. Remove a parameter or a covariate column."
        )


def _homogeneity(values: dict[float, np.ndarray]) -> float | None:
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


def _recognize_omegas(mixed, probe, roles):
    fixed = np.zeros((mixed.n_phi, mixed.n_phi))
    rules, of_effect = [], {e.name: [] for e in mixed.random_effects}
    for p in mixed.parameters:
        for name in roles[p.name]["covariance"]:
            of_effect[name].append(p)
    for effect in mixed.random_effects:
        block = np.arange(effect.columns.start, effect.columns.stop)
        parameters = of_effect[effect.name]
        if not parameters:
            fixed[np.ix_(block, block)] = probe.covariance(effect, probe.base)
        elif len(parameters) > 1:
            names = ", ".join(f"'{p.name}'" for p in parameters)
            raise UnsupportedModelError(f"The covariance of '{effect.name}' depends on several parameters ({names}). {_REFUSAL}")
        else:
            rules.append(_recognize_omega(mixed, probe, effect, parameters[0]))
    return _pool_scalars(rules), fixed


def _recognize_omega(mixed, probe, effect, p: Parameter) -> OmegaRule:
    points = PointMap(mixed)
    block = np.arange(effect.columns.start, effect.columns.stop)
    size = p.columns.stop - p.columns.start

    def covariance_at(x):
        theta = probe.base.copy()
        theta[p.columns] = points.unconstrained(p, x)
        return probe.covariance(effect, theta)

    u = np.linspace(-0.7, 0.7, 3)
    if size == 1:
        xs = [points.natural(p, np.full(1, v)) for v in u]
        values = {float(x[0]): covariance_at(x) for x in xs}
        power = _homogeneity(values)
        if power is not None:
            x, c = next(iter(values.items()))
            return OmegaRule(p, "scalar", block, power / 2, c / x**power)
    elif size == block.size and (rule := _recognize_diagonal(points, p, block, covariance_at, probe)):
        return rule
    if size == block.size * (block.size + 1) // 2 and _is_cholesky(mixed, p, block.size, covariance_at, probe):
        return OmegaRule(p, "full", block, 1.0, np.eye(block.size))
    raise UnsupportedModelError(
        f"The covariance of the random effect '{effect.name}' is neither proportional to a power of '{p.name}', nor diagonal in it, "
        f"nor LL' with L = '{p.name}'. {_REFUSAL}"
    )


def _recognize_diagonal(points, p, block, covariance_at, probe) -> OmegaRule | None:
    u = probe.rng.standard_normal((3, block.size)) * 0.5
    xs = [points.natural(p, row) for row in u]
    cs = [covariance_at(x) for x in xs]
    if any(np.abs(c - np.diag(np.diag(c))).max() > 0 for c in cs):
        return None
    powers = {_homogeneity({float(x[j]): c[j, j] for x, c in zip(xs, cs, strict=True)}) for j in range(block.size)}
    if len(powers) != 1 or None in powers:
        return None
    (power,) = powers
    base = np.diag(np.diag(cs[0]) / xs[0] ** power)
    return OmegaRule(p, "diagonal", block, power / 2, base)


def _is_cholesky(mixed, p, n, covariance_at, probe) -> bool:
    from pymc_saem.saem.mstep import unpack_cholesky

    points = PointMap(mixed)
    for _ in range(2):
        x = points.natural(p, 0.4 * probe.rng.standard_normal(p.columns.stop - p.columns.start))
        lower = unpack_cholesky(x, n)
        if not np.allclose(covariance_at(x), lower @ lower.T, rtol=1e-8, atol=1e-12):
            return False
    return True


def _pool_scalars(rules) -> tuple[OmegaRule, ...]:
    """One rule per parameter: a scalar variance that several random effects share pools their squares."""
    pooled = {}
    for rule in rules:
        name = rule.parameter.name
        if name not in pooled:
            pooled[name] = rule
            continue
        first = pooled[name]
        if first.kind != "scalar" or rule.kind != "scalar" or first.power != rule.power:
            raise UnsupportedModelError(f"The covariance parameter '{name}' is shared in a way that has no closed form. {_REFUSAL}")
        k, m = first.base.shape[0], rule.base.shape[0]
        base = np.block([[first.base, np.zeros((k, m))], [np.zeros((m, k)), rule.base]])
        columns = np.concatenate([first.columns, rule.columns])
        pooled[name] = OmegaRule(first.parameter, "scalar", columns, first.power, base)
    return tuple(pooled.values())


def _recognize_residuals(mixed, points, roles, mean_rule):
    rules, terms = [], []
    for p in mixed.parameters:
        outcomes = tuple(roles[p.name]["scale"])
        if not outcomes:
            continue
        if p.columns.stop - p.columns.start != 1:
            raise UnsupportedModelError(f"The residual scale '{p.name}' has shape {p.shape}; it must be a scalar. Use one scalar per outcome.")
        powers = {_residual_power(mixed, points, p, j, mean_rule) for j in outcomes}
        if len(powers) != 1:
            raise UnsupportedModelError(f"'{p.name}' scales its outcomes with different powers {sorted(powers)}. {_REFUSAL}")
        first = len(terms)
        terms += [ResidualTerm(mixed, j, p) for j in outcomes]
        n_rows = sum(mixed.outcomes[j].n_rows for j in outcomes)
        unit = float(points.natural(p, np.zeros(1))[0])
        rules.append(ResidualRule(p, outcomes, tuple(range(first, len(terms))), powers.pop(), unit, n_rows))
    return tuple(rules), tuple(terms)


def _residual_power(mixed, points, p: Parameter, outcome: int, mean_rule) -> float:
    phi_symbol, theta_symbol = symbols(mixed)
    rv = mixed.model.observed_RVs[outcome]
    (scale,) = in_symbols(mixed, [location_and_scale(rv)[1]], phi_symbol, theta_symbol)
    f = pytensor.function([phi_symbol, theta_symbol], scale, mode=INTERPRETED, on_unused_input="ignore")
    theta = points.theta_of(points.template)
    phi = points.phi_of(points.template)
    values = {}
    for u in (-0.7, 0.0, 0.7):
        theta[p.columns] = u
        values[float(points.natural(p, np.full(1, u))[0])] = np.asarray(f(phi, theta), dtype=float)
    power = _homogeneity(values)
    if power is None:
        raise UnsupportedModelError(
            f"The residual scale of '{mixed.outcomes[outcome].name}' is not proportional to a power of '{p.name}'. {_REFUSAL}"
        )
    return power


def phi_from_natural(effect: RandomEffect, x):
    """The Gaussian scale of a random effect's natural values."""
    return _TO_PHI[effect.link](x)
