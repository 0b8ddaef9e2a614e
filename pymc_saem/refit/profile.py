"""Profile likelihood: the largest likelihood at fixed values of one parameter, and intervals from it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
from pymc.util import get_random_generator
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.stats import norm

from pymc_saem.arguments import check_count, check_probability, check_types
from pymc_saem.compat import InferenceData
from pymc_saem.refit.fitted import N_EXPLORE, N_SMOOTH, Fitted, check_likelihood, make_refitter
from pymc_saem.refit.parallel import Done, describe_failures, fit_once, run_tasks
from pymc_saem.refit.refitter import Refit, Refitter
from pymc_saem.results.tables.printed import HeadedTable
from pymc_saem.saem.run.options import natural_values

#: The grid ends beyond the limits of the interval by this factor, in standard deviations.
BEYOND = 1.15
#: A step is at most this many times as long as all those before it together.
LONGEST = 2.0


@dataclass(frozen=True, repr=False)
class Profile(HeadedTable):
    """What profiles found.

    Attributes
    ----------
    table : pandas.DataFrame
        By parameter entry: estimate, lower, upper. NaN where a limit was not reached: the
        likelihood does not fall so far.
    points : pandas.DataFrame
        One row per refit: parameter, value, loglik, error (Monte-Carlo), log_prior, drop (of loglik
        + log_prior from its maximum), and the estimates of all parameters there.
    failures : dict of str to str
        Which side of which parameter was lost, and why.
    ci_prob : float
    """

    table: pd.DataFrame
    points: pd.DataFrame
    failures: dict[str, str]
    ci_prob: float

    def _heading(self) -> list[str]:
        lost = [f"lost: {side}, {reason}" for side, reason in self.failures.items()]
        return [f"profile likelihood, {100 * self.ci_prob:g} % intervals", *lost]


@dataclass(frozen=True)
class Entry:
    """One entry of a parameter."""

    label: str
    name: str
    column: int  # of theta
    position: int  # in the flat parameter

    def constant(self, refitter: Refitter, u: float, estimates: dict) -> dict[str, np.ndarray]:
        """``fixed`` that holds the entry at the unconstrained value u; NaN for the others of its parameter."""
        p, theta = refitter.mixed.parameter(self.name), refitter.theta(estimates)
        theta[self.column] = u
        value = np.full(p.natural_shape, np.nan).ravel()
        value[self.position] = refitter.engine.points.natural(p, theta[p.columns])[self.position]
        return {self.name: value.reshape(p.natural_shape)}


@dataclass(frozen=True)
class Side:
    """A task: the grid of one entry to one side, each point warm-started at the one before."""

    entry: Entry
    sign: float
    unit: float  # standard error on the unconstrained scale, as far as it is known
    start: dict
    top: float  # log-likelihood + log prior at the estimate
    limit: float  # of the signed root
    n_points: int
    method: str
    seed: int
    rng: np.random.Generator


def profile_likelihood(
    model: pm.Model,
    idata: InferenceData,
    parameters: str | Sequence[str],
    *,
    ci_prob: float = 0.95,
    n_points: int = 4,
    likelihood: str = "auto",
    n_explore: int = N_EXPLORE,
    n_smooth: int = N_SMOOTH,
    n_jobs: int = 1,
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
    **options: Any,
) -> Profile:
    """Compute profile likelihood intervals.

    For each parameter and side, refits with the parameter held at ``n_points`` values or more, from
    the estimate outwards, until twice the log-likelihood has fallen below its maximum by more than
    the quantile of the chi-squared distribution with one degree of freedom. The limits are
    interpolated in the signed root of that fall, which is nearly a straight line (Bates & Watts
    1988, section 6.1). Fits that count priors ("map") have the log prior added: the profile is that
    of what they maximize.

    Parameters
    ----------
    model : pymc.Model
        The model of the fit. It is not changed.
    idata : arviz.InferenceData or xarray.DataTree
        A fit of the model.
    parameters : str or sequence of str
        Names of parameters, of which all entries are taken, or of entries as
        :func:`pymc_saem.summary` has them.
    ci_prob : float, default 0.95
        Probability of the intervals.
    n_points : int, default 4
        Grid points per side up to the limit.
    likelihood : {"auto", "quadrature", "importance", "annealed"}
        How the marginal likelihood is computed; the same random numbers serve all points.
    n_explore, n_smooth : int
        Iterations of each refit.
    n_jobs : int, default 1
        Processes, as joblib counts them; a side of a parameter is a task. Results do not depend on
        it.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same profiles.
    progressbar : bool, default True
        Shown in terminals and notebooks only.
    **options
        Options of ``fit_saem`` instead of those of the fit.

    Returns
    -------
    Profile
        Printed with the intervals; ``points`` has all refits.

    Raises
    ------
    ValueError
        For unknown or fixed parameters, entries that cannot be fixed alone, options out of range,
        or a fit of another model.
    RuntimeError
        When the fit could not be repeated; the text has the reason.

    Warns
    -----
    UserWarning
        When sides were lost, limits were not reached, or a point is better than the estimate by
        more than 0.1.

    See Also
    --------
    pymc_saem.bootstrap : Intervals by refits to other data.
    pymc_saem.summary : Intervals by the Fisher information.
    pymc_saem.correlation : What the data do not distinguish.

    Examples
    --------
    >>> profile = ps.profile_likelihood(model, idata, ["omega_CL"], random_seed=1)
    >>> list(profile.table.columns)
    ['estimate', 'lower', 'upper']
    """
    check_types("profile_likelihood", locals())
    check_count("n_points", n_points, 2)
    check_probability("ci_prob", ci_prob)
    fitted = Fitted(idata, options)
    refitter = make_refitter(model, fitted, n_explore, n_smooth)
    check_likelihood(refitter, likelihood)
    entries = _entries(
        refitter, fitted, [parameters] if isinstance(parameters, str) else list(parameters)
    )
    units = [_unit(refitter, fitted, entry) for entry in entries]
    of_top, of_sides, of_integral = get_random_generator(random_seed).spawn(3)
    seed = int(of_integral.integers(2**32))
    settings: dict[str, Any] = {"n_jobs": n_jobs, "progressbar": progressbar, "title": "profile"}
    first = {
        "start": fitted.estimates,
        "seed": of_top,
        "likelihood": likelihood,
        "likelihood_seed": seed,
    }
    (top,) = run_tasks(refitter, fit_once, [first], **settings | {"progressbar": False})
    if top.failure:
        raise RuntimeError(f"The fit could not be repeated: {top.failure}")
    limit = float(norm.ppf(0.5 + 0.5 * ci_prob))
    sides = [
        Side(
            entry,
            sign,
            unit,
            top.result.estimates,
            _height(top.result),
            limit,
            n_points,
            likelihood,
            seed,
            rng,
        )
        for (entry, unit, sign), rng in zip(
            (
                (e, unit, sign)
                for e, unit in zip(entries, units, strict=True)
                for sign in (-1.0, 1.0)
            ),
            of_sides.spawn(2 * len(entries)),
            strict=True,
        )
    ]
    done = run_tasks(refitter, _walk, sides, **settings)
    return _collect(refitter, fitted, entries, top.result, sides, done, limit, ci_prob)


def _entries(refitter: Refitter, fitted: Fitted, wanted: list[str]) -> list[Entry]:
    labels, held = refitter.labels, refitter.engine.maximizer.held
    known: dict[str, Entry] = {}
    for p in refitter.mixed.parameters:
        for position in range(np.prod(p.natural_shape, dtype=int)):
            # the others are tied, and refused below
            column = p.columns.start + (position if p.is_entrywise else 0)
            known[labels[len(known)]] = Entry(labels[len(known)], p.name, column, position)
    found = []
    for text in wanted:
        chosen = [e for e in known.values() if text in (e.label, e.name)]
        if not chosen:
            raise ValueError(f"parameters has '{text}'; the entries are {labels}.")
        found += [e for e in chosen if not held[e.column]]
        if all(held[e.column] for e in chosen):
            raise ValueError(f"'{text}' was fixed in the fit, so it has no profile.")
    for entry in found:  # refuses entries that are tied to others
        u = refitter.theta(fitted.estimates)[entry.column]
        natural_values(refitter.mixed, entry.constant(refitter, u, fitted.estimates))
    return found


def _unit(refitter: Refitter, fitted: Fitted, entry: Entry) -> float:
    """Standard error on the unconstrained scale, from the table of the fit, or else a rough one."""
    k = refitter.labels.index(entry.label)
    p, z = refitter.mixed.parameter(entry.name), float(norm.ppf(0.975))
    ends = []
    for side in ("lower", "upper"):
        value = np.ravel(fitted.estimates[entry.name]).astype(float)
        value[entry.position] = fitted.column(side)[k]
        with np.errstate(all="ignore"):
            ends.append(refitter.engine.points.unconstrained(p, value)[entry.position])
    width = (ends[1] - ends[0]) / (2.0 * z)
    if np.isfinite(width) and width > 0:
        return float(width)
    theta = refitter.theta(fitted.estimates)
    return float(
        min(
            2.0 * refitter.engine.maximizer.scales(theta)[entry.column],
            0.1 * (1.0 + abs(theta[entry.column])),
        )
    )


def _height(fit: Refit) -> float:
    return fit.known_likelihood.total + fit.log_prior


def _walk(refitter: Refitter, side: Side) -> list[tuple[float, Refit]]:
    """Points outwards: unconstrained values and fits, until the limit is passed or the grid has twice its points."""
    origin = refitter.theta(side.start)[side.entry.column]
    goal = BEYOND * side.limit
    distance, start, found = side.unit * goal / side.n_points, side.start, []
    for k in range(2 * side.n_points):
        u = origin + side.sign * distance
        fixed = side.entry.constant(refitter, u, side.start)
        fit = refitter.fit(
            fixed=fixed,
            start=start,
            seed=side.rng,
            likelihood=side.method,
            likelihood_seed=side.seed,
        )
        found.append((u, fit))
        start, root = fit.estimates, np.sqrt(2.0 * max(side.top - _height(fit), 0.0))
        if root > side.limit:
            break
        # As if the root were a straight line, with steps that divide it equally.
        wanted = goal * min(1.0, (k + 2) / side.n_points)
        factor = wanted / root if root > 0.1 * goal / side.n_points else 1.0 + LONGEST
        distance *= float(np.clip(factor, 1.1, 1.0 + LONGEST))
    return found


def _collect(
    refitter: Refitter,
    fitted: Fitted,
    entries: list[Entry],
    top: Refit,
    sides: list[Side],
    done: list[Done],
    limit: float,
    ci_prob: float,
) -> Profile:
    rows, failures, limits = [], {}, {}
    theta = refitter.theta(top.estimates)
    for entry in entries:
        walks = [(s, d) for s, d in zip(sides, done, strict=True) if s.entry == entry]
        points = [(theta[entry.column], top)]
        for side, one in walks:
            if one.failure:
                failures[f"{entry.label}, {'below' if side.sign < 0 else 'above'}"] = one.failure
            else:
                points += one.result
        points.sort(key=lambda point: point[0])
        best = max(_height(fit) for _, fit in points)
        rows += [_row(refitter, entry, fit, best) for _, fit in points]
        limits[entry.label] = _limits(refitter, entry, points, best, limit)
    table = pd.DataFrame.from_dict(limits, orient="index", columns=["lower", "upper"])
    table.insert(
        0, "estimate", pd.Series(fitted.column("estimate"), index=refitter.labels)[table.index]
    )
    table.index.name = "parameter"
    for text in _messages(table, failures, rows, _height(top)):
        warnings.warn(text, stacklevel=3)
    return Profile(table, pd.DataFrame(rows), failures, ci_prob)


def _row(refitter: Refitter, entry: Entry, fit: Refit, best: float) -> dict:
    here = dict(zip(refitter.labels, fit.values, strict=True))
    found = {
        "parameter": entry.label,
        "value": here[entry.label],
        "loglik": fit.known_likelihood.total,
    }
    found |= {
        "error": fit.known_likelihood.total_error,
        "log_prior": fit.log_prior,
        "drop": best - _height(fit),
    }
    return found | here


def _limits(
    refitter: Refitter, entry: Entry, points: list[tuple[float, Refit]], best: float, limit: float
) -> dict[str, float]:
    """Where the signed root passes -limit and limit, on the natural scale."""
    u = np.array([point[0] for point in points])
    height = np.array([_height(fit) for _, fit in points])
    middle = int(np.argmax(height))
    root = np.sign(np.arange(u.size) - middle) * np.sqrt(2.0 * (best - height))
    found = {"lower": np.nan, "upper": np.nan}
    if u.size < 2:
        return found
    curve = PchipInterpolator(u, root)
    for name, step in (("lower", -1), ("upper", 1)):
        at = middle
        while 0 <= at + step < u.size and abs(root[at + step]) <= limit:
            at += step
        if not 0 <= at + step < u.size:
            continue
        crossing = brentq(
            lambda x, step=step: curve(x) - step * limit, *sorted((u[at], u[at + step]))
        )
        found[name] = float(
            np.ravel(entry.constant(refitter, crossing, points[middle][1].estimates)[entry.name])[
                entry.position
            ]
        )
    return found


def _messages(table: pd.DataFrame, failures: dict, rows: list[dict], top: float) -> Iterator[str]:
    if failures:
        yield describe_failures(failures, 2 * len(table), "sides of profiles")
    for label, row in table.iterrows():
        missing = [side for side in ("lower", "upper") if np.isnan(row[side])]
        if missing and not any(name.startswith(f"{label}, ") for name in failures):
            yield (
                f"The profile of '{label}' does not fall far enough for its {' and '.join(missing)} limit: the data hardly bound it "
                "there, or n_points is too small."
            )
    gain = max((row["loglik"] + row["log_prior"] for row in rows), default=top) - top
    if gain > 0.1:
        yield (
            f"A point of a profile is better than the estimate, by {gain:.2f} of the log-likelihood: the fit was not at the maximum. "
            "Fit again from there, with initvals, or with more iterations."
        )
