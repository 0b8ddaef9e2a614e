"""Names of variables, dims and coords that collide with something: a whole fit, stored, read and summarized under the user's names, or a refusal before it runs."""

import datetime
import decimal
import os
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd
import pymc as pm

import pymc_saem as ps
from robustness.judge import Input, Lost
from robustness.linear import Data, fit

_TAKEN = (
    "iteration",
    "chain",
    "draw",
    "step_size",
    "complete_logp",
    "converged",
    "parameter",
    "estimate",
    "phase",
    "acceptance",
    "replicate",
)
_TAKEN += (
    "loglik",
    "random",
    "chain_0",
    "saem_state",
    "population",
    "individual",
    "effect",
    "subject",
    "start",
    "time",
    "n_solves",
    "shrinkage",
)
_ODD = (
    "sigma::x",
    "a/b",
    "a b",
    "x.y",
    "größe",
    "参数",
    "1",
    "_",
    "__class__",
    "class",
    "lambda",
    "print",
    "self",
    "e[0]",
    "a,b",
    "name",
    "dims",
    "coords",
    "attrs",
    "sum",
    "values",
)
_ODD += (
    "x" * 300,
    "{}",
    "%s",
    "$\\sigma$",
    "new\nline",
    "μ",
    "phi",
    "theta",
    "eta",
    "omega_",
    "mean",
    "index",
    "None",
    "nan",
)
NAMES = list(dict.fromkeys(_TAKEN + _ODD))


def _labels(n):
    """Labels of subjects, of every kind that can be a coord."""
    day = pd.Timestamp("2024-01-01")
    yield "tuples", [(k, "a") for k in range(n)]
    yield "timestamps", [day + pd.Timedelta(days=k) for k in range(n)]
    yield "dates", [datetime.date(2024, 1, k + 1) for k in range(n)]
    yield "periods", list(pd.period_range("2024-01", periods=n, freq="M"))
    yield "time spans", list(pd.to_timedelta(np.arange(n), unit="h"))
    yield "intervals", list(pd.interval_range(0, n))
    yield "None among text", [None, *"abcdefghijk"[: n - 1]]
    yield "NaN among numbers", [np.nan, *range(n - 1)]
    yield "numbers and text", [1, "1", *range(2, n)]
    yield "floats", list(np.linspace(0, 1, n))
    yield "booleans and text", [True, False, *map(str, range(n - 2))]
    yield "bytes", [b"a%d" % k for k in range(n)]
    yield "decimals", [decimal.Decimal(k) for k in range(n)]
    yield "complex numbers", [complex(k, 1) for k in range(n)]
    yield "sets", [frozenset([k]) for k in range(n)]
    yield "classes", [int, str, float, list, dict, set, tuple, bytes][:n]
    yield "paths", [Path(f"/tmp/{k}") for k in range(n)]
    yield "labels twice", ["a"] * n
    yield "empty text", ["", *map(str, range(n - 1))]
    yield "text of one letter and of many", ["a", "b" * 4000, *map(str, range(n - 2))]
    yield "text with zeros in it", ["a\0b", *map(str, range(n - 1))]
    yield "unsigned numbers near the end", [2**63 + k for k in range(n)]
    yield "huge numbers", [10**30 + k for k in range(n)]
    yield "an index of categories", pd.CategoricalIndex([f"c{k}" for k in range(n)])
    yield "an index of many levels", pd.MultiIndex.from_arrays([range(n), list("abcdefgh")[:n]])
    yield "nullable numbers", pd.array(range(n), dtype="Int64")
    yield "emoji", [f"{k}😀" for k in range(n)]


N_LABELS = len(list(_labels(8)))
PLACES = ("parameter", "effect", "outcome", "dim", "deterministic")
COUNT = len(NAMES) + N_LABELS
BUNCH = 9


def _names(place, name):
    return {
        "parameter": "mu",
        "effect": "e",
        "outcome": "y",
        "dim": "subject",
        "deterministic": "f",
    } | {place: name}


def _model(d, place, name, labels=None):
    names = _names(place, name)
    with pm.Model(coords={names["dim"]: np.arange(d.n) if labels is None else labels}) as model:
        mu, omega = pm.Normal(names["parameter"], 0.0, 5.0), pm.HalfNormal("omega", 2.0)
        e = pm.Normal(names["effect"], mu, omega, dims=names["dim"])
        mean = pm.Deterministic(names["deterministic"], e[d.g])
        pm.Normal(names["outcome"], mean, pm.HalfNormal("sigma", 2.0), observed=d.y)
    return model


def _whole(d, place, name, labels=None, predict=False):
    """A fit, stored, read and looked at; whatever fails after the fit is a loss."""
    model = _model(d, place, name, labels)
    found = fit(model)
    try:
        path = Path(mkdtemp(dir=os.environ.get("ROBUSTNESS_FOLDER"))) / "fit.nc"
        ps.save(found, path)
        again = ps.load(path)
        predicted = ps.predict(model, again, parameters="estimate", n_draws=4) if predict else None
        return found, again, ps.summary(again), ps.individuals(again), predicted
    except Exception as error:
        raise Lost(f"after the fit: {type(error).__name__}: {str(error)[:300]}") from error


def _wrong(found, names, d, labels=None):
    fit, again, table, individuals, predicted = found
    if len(individuals) < d.n:
        return f"{len(individuals)} individuals"
    parameters = {names["parameter"], "omega", "sigma"}
    for where, have in (
        ("population", set(fit["population"]["parameter"].values.tolist())),
        ("summary", set(map(str, table.index))),
    ):
        if not parameters <= have:
            return f"{where} has {sorted(have)}"
    trace = fit["saem_trace"]
    for name in parameters:
        if not np.isclose(
            trace[name].values.ravel()[-1], fit["population"]["estimate"].sel(parameter=name)
        ):
            return f"the trace of {name!r} does not end at its estimate"
    for one in (fit, again):
        if (
            one["posterior"][names["effect"]].shape[-1] != d.n
            or names["parameter"] not in one["posterior"]
        ):
            return "the posterior lacks something"
    if not np.allclose(fit["posterior"][names["effect"]], again["posterior"][names["effect"]]):
        return "what was read is not what was stored"
    if predicted is None:
        return None
    if len(predicted) != d.y.size or not np.allclose(predicted["observed"], d.y):
        return "predictions of other rows"
    modes = np.ravel(fit["individual"]["conditional_mode"])
    return (
        None
        if np.allclose(np.asarray(predicted["prediction"]), modes[d.g], atol=1e-6)
        else "predictions are not those of the subjects"
    )


def make(seed):
    rng = np.random.default_rng([5, seed])
    d, seed = Data(rng), seed % COUNT
    name, labels = str(rng.choice(NAMES)), None
    place = str(rng.choice(PLACES, p=[0.45, 0.25, 0.1, 0.15, 0.05]))
    if seed < len(NAMES):
        name = NAMES[seed]
    text, words = f"{place} called {name[:40]!r}", (repr(name)[1:-1], name)
    if len(NAMES) <= seed < len(NAMES) + N_LABELS:
        place, name, words = "dim", "subject", ("label", "coord", "subject")
        text, labels = list(_labels(d.n))[seed - len(NAMES)]
    predict = seed % 5 == 0
    return Input(
        text, lambda: _whole(d, place, name, labels, predict), lambda found: _wrong(found, _names(place, name), d), words,
    )  # fmt: skip
