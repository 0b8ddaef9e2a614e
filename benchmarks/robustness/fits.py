"""Maximum-likelihood fits of linear Gaussian models: the likelihood at the estimates and the one that is reported, against the exact ones.

Spelled in the ways of ``spellings``, in units from 1e-6 to 1e6, with constants and starts that are
far off or at the edge.
"""

import numpy as np
import pymc as pm

import pymc_saem as ps
from robustness.judge import Input
from robustness.linear import NAMES, Data, estimates
from robustness.spellings import EFFECTS, spelled

#: Every spelling of effects, then scales.
_SPELLED = [k for k in range(len(EFFECTS)) if [*EFFECTS][k] != "one subject too many"]
OPTIONS = {
    "n_explore": 150,
    "n_smooth": 150,
    "n_transitions": 40,
    "objective": "ml",
    "progressbar": False,
    "standard_errors": None,
}


def _scaled(rng, shift=0.0, unit=1.0):
    """The plain model with flat priors, in another unit or place; starts are PyMC's own, or in the unit."""
    d = Data(rng)
    d.y = shift + unit * d.y
    with pm.Model(coords={"subject": range(d.n)}) as model:
        mu = pm.Flat("mu", initval=shift + unit)
        omega, sigma = pm.HalfFlat("omega", initval=unit), pm.HalfFlat("sigma", initval=unit)
        e = pm.Normal("e", mu, omega, dims="subject")
        pm.Normal("y", e[d.g] + pm.Flat("slope", initval=0.0) * d.t, sigma, observed=d.y)
    return d, model


SCALES = [
    ("unit 1e-6", {"unit": 1e-6}, {}),
    ("unit 1e6", {"unit": 1e6}, {}),
    ("unit 1e-12", {"unit": 1e-12}, {}),
    ("1e6 added", {"shift": 1e6}, {}),
    ("1e9 added", {"shift": 1e9}, {}),
    ("omega starts at 1e-3", {}, {"initvals": {"omega": 1e-3}}),
    ("sigma starts at 1e-6", {}, {"initvals": {"sigma": 1e-6}}),
    ("sigma starts at 1e-300", {}, {"initvals": {"sigma": 1e-300}}),
    ("omega starts at 1e-300", {}, {"initvals": {"omega": 1e-300}}),
    ("omega starts at 1e4", {}, {"initvals": {"omega": 1e4}}),
    ("mu starts at -1e4", {}, {"initvals": {"mu": -1e4}}),
]
# Nothing has a maximum here, or only the fixed value is one: a clear error, a warning, or the right
# rest.
EDGES = [
    ("the same value in all rows", "constant", {}),
    ("no differences within subjects", "within", {}),
    ("no differences between subjects", "between", {}),
    ("omega fixed at 1e-300", None, {"fixed": {"omega": 1e-300}}),
    ("omega fixed at 0", None, {"fixed": {"omega": 0.0}}),
    ("sigma fixed at 1e-300", None, {"fixed": {"sigma": 1e-300}}),
    ("sigma fixed at 1e300", None, {"fixed": {"sigma": 1e300}}),
    ("one row per subject", "single", {}),
    ("one subject", "alone", {}),
    ("two rows", "two", {}),
]
COUNT = len(_SPELLED) + len(SCALES) + len(EDGES)
BUNCH = 7


def _fit(model, **options):
    return ps.fit_saem(model, random_seed=1, **(OPTIONS | options))


def _against(d):
    """What is wrong with a fit that has a maximum."""

    def wrong(found):
        numbers, attrs = estimates(found), found["population"].attrs
        if not all(np.isfinite(v) for v in numbers.values()):
            return f"estimates {numbers}"
        exact = d.loglik(**{name: numbers[name] for name in NAMES})
        _, best = d.maximum()
        if not exact > best - 0.1:
            return f"log-likelihood at the estimates {exact:.3f}, maximum {best:.3f}: {numbers}"
        reported, error = attrs["loglik"], attrs["loglik_error"]
        return (
            None
            if abs(reported - exact) < 0.01 + 3 * error
            else f"log-likelihood {reported:.3f} +- {error:.3f}, right {exact:.3f}"
        )

    return wrong


def _unit_free(d, shift, unit):
    """The data in units in which the exact maximum is easy, and what is wrong in the user's."""
    plain = Data(d.rng)
    plain.g, plain.t, plain.n, plain.y = d.g, d.t, d.n, (d.y - shift) / unit

    def wrong(found):
        numbers = estimates(found)
        numbers = {
            "mu": (numbers["mu"] - shift) / unit,
            **{k: numbers[k] / unit for k in ("omega", "slope", "sigma")},
        }
        if (
            not all(np.isfinite(v) for v in numbers.values())
            or min(numbers["omega"], numbers["sigma"]) <= 0
        ):
            return f"estimates {numbers}"
        exact, (_, best) = plain.loglik(**numbers), plain.maximum()
        return (
            None
            if exact > best - 0.1
            else f"log-likelihood {exact - best:.3f} below the maximum, in plain units {numbers}"
        )

    return wrong


def _edge(rng, kind):
    d = Data(rng, n=1 if kind == "alone" else 8)
    noise = d.y - 1 - 0.5 * d.t
    if kind == "constant":
        d.y = np.full(d.y.size, 3.0)
    if kind == "within":
        d.y = 1 + np.arange(d.n)[d.g] + 0.5 * d.t
    if kind == "between":
        means = np.bincount(d.g, noise) / np.bincount(d.g)
        d.y = 1 + 0.5 * d.t + noise - means[d.g]
    if kind in ("single", "two"):
        keep = np.unique(d.g, return_index=True)[1][: 2 if kind == "two" else None]
        d.g, d.t, d.y = d.g[keep], d.t[keep], d.y[keep]
        d.n = len(keep)
    with pm.Model(coords={"subject": range(d.n)}) as model:
        e = pm.Normal(
            "e", pm.Flat("mu", initval=1.0), pm.HalfFlat("omega", initval=1.0), dims="subject"
        )
        pm.Normal(
            "y",
            e[d.g] + pm.Flat("slope", initval=0.0) * d.t,
            pm.HalfFlat("sigma", initval=1.0),
            observed=d.y,
        )
    return d, model


def _said(d, options):
    """Where there is no maximum, or at an edge: only numbers that are finite and warned of, or right."""

    def wrong(found):
        numbers = estimates(found)
        if not all(np.isfinite(v) for v in numbers.values()):
            return f"estimates {numbers}"
        held = options.get("fixed", {})
        if any(numbers[k] != v for k, v in held.items()):
            return f"{numbers}, fixed {held}"
        fine = d.loglik(
            **{k: max(numbers[k], 1e-12) if k in ("omega", "sigma") else numbers[k] for k in NAMES}
        )
        _, best = d.maximum()
        return None if fine > best - 0.1 else f"{numbers}: {fine:.3f}, maximum {best:.3f}"

    return wrong


def make(seed):
    rng, k = np.random.default_rng([8, seed]), seed % COUNT
    if k < len(_SPELLED):
        d, model, pick = spelled(rng, _SPELLED[k], outcomes=("array",))
        return Input(
            ", ".join(pick), lambda: _fit(model), _against(d), ("'e'", "'z'", "'f'", "'d'", "axis")
        )
    k -= len(_SPELLED)
    if k < len(SCALES):
        text, scales, options = SCALES[k]
        d, model = _scaled(rng, **scales)
        return Input(
            text,
            lambda: _fit(model, **options),
            _unit_free(d, scales.get("shift", 0.0), scales.get("unit", 1.0)),
            ("omega", "sigma", "mu", "'y'", "'e", "unit", "scale"),
        )
    text, kind, options = EDGES[k - len(SCALES)]
    d, model = _edge(rng, kind)
    return Input(
        text,
        lambda: _fit(model, **options),
        _said(d, options),
        ("omega", "sigma", "slope", "'y'", "'e'", "subject"),
    )
