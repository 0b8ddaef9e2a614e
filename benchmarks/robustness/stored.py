"""One fit, made once and kept in the folder of the run, for the families that ask what becomes of it."""

import functools
import os
from pathlib import Path

import numpy as np
import pymc as pm

import pymc_saem as ps
from robustness.linear import SHORT, Data

#: A fit whose standard errors and likelihood are there, small.
OPTIONS = SHORT | {
    "n_explore": 20,
    "n_smooth": 20,
    "likelihood": "quadrature",
    "standard_errors": "louis",
}


@functools.cache
def folder() -> Path:
    found = Path(os.environ.get("ROBUSTNESS_FOLDER", "/tmp")) / f"fit-{os.getpid()}"
    found.mkdir(exist_ok=True)
    return found


@functools.cache
def data() -> Data:
    return Data(np.random.default_rng(77), n=6, shuffled=False)


def build(table=None, y=None) -> pm.Model:
    """With a covariate in a container, so that other rows can be predicted."""
    d = data()
    with pm.Model(
        coords={"subject": [f"s{k}" for k in range(d.n)], "row": range(d.t.size)}
    ) as model:
        t = pm.Data("t", d.t if table is None else table, dims="row")
        p = d.priors()
        e = pm.Normal("e", p["mu"], p["omega"], dims="subject")
        pm.Normal(
            "y", e[d.g] + p["slope"] * t, p["sigma"], observed=d.y if y is None else y, dims="row"
        )
    return model


@functools.cache
def fitted():
    """Model and fit."""
    model = build()
    return model, ps.fit_saem(model, **OPTIONS)


@functools.cache
def saved() -> bytes:
    """The fit as the bytes of its file."""
    path = folder() / "base.nc"
    ps.save(fitted()[1], path)
    return path.read_bytes()


def same(a, b) -> str | None:
    """What differs between two fits; every number counts, bit by bit, but the seconds."""
    for name in ("saem_trace", "population", "individual", "posterior"):
        for variable in a[name].data_vars:
            if variable not in b[name]:
                return f"{name} has no {variable}"
            x, y = a[name][variable].values, b[name][variable].values
            equal = x.shape == y.shape and (
                np.array_equal(x, y, equal_nan=True) if x.dtype.kind in "fiub" else (x == y).all()
            )
            if not equal and "seconds" not in variable:
                return f"{name}[{variable!r}] differs"
    return None
