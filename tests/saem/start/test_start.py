"""Where a run begins: by which models gradient fits are tried."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import pymc_saem as ps
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.read import read_model
from pymc_saem.saem.core.schedule import Schedule
from pymc_saem.saem.engine import Engine
from pymc_saem.saem.report.boundary import at_boundary
from pymc_saem.saem.start.pooled import N_STARTS, default_exploration, default_starts, find_start
from tests.support.models import random_intercept, theophylline

SUBJECT = np.repeat(np.arange(6), 10)
X = np.tile(np.linspace(-1, 1, 10), 6)


def network(shared):
    """y = net(x): weights of each subject, or one network with a random effect as its second input."""
    net = ps.nn.MLP(
        in_size=2 if shared else 1, out_size=1, width_size=2, depth=1, activation="tanh"
    )
    with pm.Model(coords={"subject": range(6), "weight": net.weight_names}) as model:
        z = ps.nn.weights("z", net)
        if shared:
            eta = pm.Normal("eta", 0.0, 1.0, dims="subject")
            y = net(z, pt.stack([pt.as_tensor(X), eta[SUBJECT]], axis=-1)).ravel()
        else:
            w = pm.Normal("w", z, pm.HalfNormal("omega"), dims=("subject", "weight"))
            y = pt.concatenate(
                [net(w[i], pt.as_tensor(X[SUBJECT == i])[:, None]).ravel() for i in range(6)]
            )
        pm.Normal("y", y, pm.HalfNormal("sigma"), observed=np.sin(X))
    return model


@pytest.mark.parametrize(
    "build, fits",
    [
        (random_intercept, True),
        (theophylline, True),
        (lambda: network(shared=True), True),
        (lambda: network(shared=False), False),  # 7 weights, 10 rows a subject
    ],
)
def test_fits_are_tried_but_for_weights_that_differ_between_subjects(build, fits):
    mixed = read_model(build())
    assert default_starts(mixed) == (N_STARTS if fits else 0)
    assert default_exploration(mixed) == (200 if fits else 600)


def factor_model(sd):
    """One factor for intercept and slope: no affine image, so that its scale is a parameter of the prediction."""
    rng = np.random.default_rng(0)
    group, x = np.repeat(np.arange(20), 4), np.tile(np.linspace(0, 2, 4), 20)
    y = 2 + 0.5 * x + sd * rng.normal(size=20)[group] * (1 + 0.5 * x) + 0.3 * rng.normal(size=80)
    with pm.Model(coords={"group": range(20)}) as model:
        z, scale = pm.Normal("z", 0.0, 1.0, dims="group"), pm.HalfNormal("scale", 2.0)
        loading = pm.HalfNormal("loading", 2.0)
        pm.Normal(
            "y",
            2 + 0.5 * x + scale * z[group] + loading * z[group] * x,
            pm.HalfNormal("sigma"),
            observed=y,
        )
    return model


def begun(model):
    schedule = Schedule(10)
    options = {
        "objective": "map",
        "fixed": {},
        "n_transitions": 4,
        "n_replicates": 2,
        "kernel": "auto",
    }
    engine = Engine.build(read_model(model), schedule, mode=INTERPRETED, **options)
    theta = engine.points.theta_of(engine.points.template)
    return (
        engine,
        theta,
        find_start(engine.densities, engine.climber, theta, np.random.default_rng(1), 3).theta,
    )


def test_a_start_leaves_alone_what_the_likelihood_at_the_means_does_not_hold():
    """At z = 0 the likelihood has no scale of z; its prior, HalfNormal, alone would move it towards 0."""
    engine, theta, start = begun(factor_model(0.5))
    moved = {
        p.name: not np.array_equal(theta[p.columns], start[p.columns])
        for p in engine.mixed.parameters
    }
    assert moved == {"scale": False, "loading": False, "sigma": True}


@pytest.mark.slow
def test_a_scale_that_ends_at_zero_is_named():
    with pytest.warns(UserWarning, match="ended on a bound.*scale .*of where it began"):
        fit = ps.fit_saem(
            factor_model(0.0),
            random_seed=1,
            progressbar=False,
            objective="ml",
            likelihood=None,
            standard_errors=None,
        )
    lines = ps.diagnostics(fit).set_index("check")
    assert lines.loc["parameters on a bound", "verdict"] == "check"
    assert "scale" in lines.loc["parameters on a bound", "where"]


def test_what_a_bound_is():
    """Scales against 0, intervals against both ends, covariances by their scales and correlations."""
    with pm.Model(coords={"group": range(4), "k": range(2)}) as model:
        pm.LogNormal("sd"), pm.Uniform("rho", -1, 1)
        share = pm.Dirichlet("share", np.ones(3))
        chol = pm.LKJCholeskyCov("chol", n=2, eta=2.0, sd_dist=pm.Exponential.dist(1.0))[0]
        b = pm.MvNormal("b", pm.Flat("mu", shape=2), chol=chol, dims=("group", "k"))
        pm.Normal(
            "y",
            b[:, 0] + b[:, 1] * model["rho"] + share[[0, 1, 2, 0]],
            model["sd"],
            observed=np.arange(4.0),
        )
    mixed = read_model(model)
    points, held = PointMap(mixed), np.zeros(mixed.n_theta, dtype=bool)
    values = {
        "sd": 1.0,
        "rho": 0.1,
        "chol": [1.0, 0.1, 1.0],
        "mu": np.zeros(2),
        "share": np.full(3, 1 / 3),
    }

    def found(**changes):
        theta = points.theta_at(values | changes)
        return set(at_boundary(mixed, points, held, points.theta_at(values), theta))

    assert found() == set() and found(mu=np.full(2, 1e-9)) == set()
    assert found(sd=1e-6) == {"sd"} and found(rho=0.9999) == found(rho=-0.9999) == {"rho"}
    assert found(share=np.array([1e-6, 0.5, 0.5 - 1e-6])) == {"share[0]"}
    assert found(chol=[1e-5, 0.1, 1.0]) == {"chol (standard deviation 1)"}
    assert found(chol=[1.0, 1.0, 1e-5]) == {"chol (correlations of effect 2)"}
