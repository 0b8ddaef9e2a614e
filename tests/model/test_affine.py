"""Normal effects in every spelling: read as what they are, with densities that are PyMC's own."""

import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
from pytensor.graph.traversal import ancestors
from scipy import stats

import pymc_saem as ps
from pymc_saem.model.density.densities import row_density, row_logps
from pymc_saem.model.density.laws import LawOfPhi
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.density.symbols import in_symbols, model_value, symbols
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.read import read_model
from pymc_saem.saem.mstep.recognize import recognize

N, M = 6, 3
G, X = np.repeat(np.arange(N), M), np.tile(np.linspace(0.0, 2.0, M), N)
RNG = np.random.default_rng(0)
Y, W = RNG.normal(size=N * M), RNG.normal(size=N)
CLOSED = "closed form"


def lines(c):
    """Rows from coefficients (group, coef)."""
    return c[G, 0] + c[G, 1] * X


def cholesky(spelling="tuple"):
    sd = pm.Exponential.dist(1.0)
    if spelling == "packed":
        packed = pm.LKJCholeskyCov("chol", n=2, eta=2.0, sd_dist=sd, compute_corr=False)
        return pm.math.expand_packed_triangular(2, packed)
    return pm.LKJCholeskyCov("chol", n=2, eta=2.0, sd_dist=sd)[0]


def z(name="z", dims=("group", "coef")):
    return pm.Normal(name, 0.0, 1.0, dims=dims)


def mean():
    return pm.Normal("mu", 0.0, 5.0, dims="coef")


def scale(name, **kwargs):
    return pm.HalfNormal(name, 2.0, **kwargs)


def two(a="a", b="b"):
    return pm.Normal(a, 0.0, 5.0), pm.Normal(b, 0.0, 5.0), scale("sa"), scale("sb")


def correlated_by_hand():
    a, b, sa, sb = two()
    rho, z1, z2 = pm.Uniform("rho", -1, 1), z("z1", "group"), z("z2", "group")
    return (a + sa * z1)[G] + (b + sb * (rho * z1 + pt.sqrt(1 - rho**2) * z2))[G] * X


def in_one_formula():
    a, b, sa, sb = two()
    return a + sa * z("z1", "group")[G] + (b + sb * z("z2", "group")[G]) * X


def inside(rows=slice(None)):
    return (
        pm.Normal("a", 0, 5)
        + pm.Normal("b", 0, 5) * pt.as_tensor(W)[G]
        + scale("omega") * z("z", "group")[G]
        + 0.5 * X
    )


def wide_normal():
    return (pm.Normal("a", 0, 5) + scale("omega") * pm.Normal("z", 0.0, 3.0, dims="group"))[G]


def joint_latent():
    latent = pm.MvNormal(
        "z", np.zeros(2), np.array([[1.0, 0.3], [0.3, 2.0]]), dims=("group", "coef")
    )
    return lines(mean() + scale("sd", dims="coef") * latent)


def axis_last():
    c = mean()[:, None] + scale("sd", dims="coef")[:, None] * z(dims=("coef", "group"))
    return c[0, G] + c[1, G] * X


FULL = {"mu": CLOSED, "chol": CLOSED}
DIAGONAL = {"mu": CLOSED, "sd": CLOSED}
#: Rows of the outcome, and how its parameters are maximized.
SPELLINGS = {
    "z @ chol.T": (lambda: lines(mean() + z() @ cholesky().T), FULL),
    "(chol @ z).T": (lambda: lines(mean() + pt.dot(cholesky(), z(dims=("coef", "group"))).T), FULL),
    "axis last": (axis_last, DIAGONAL),
    "packed": (lambda: lines(mean() + z() @ cholesky("packed").T), FULL),
    "rows by an index": (
        lambda: pt.sum(
            np.stack([X**0, X], 1) * (mean() + z() * scale("sd", dims="coef"))[G], axis=1
        ),
        DIAGONAL,
    ),
    "sd[None, :]": (
        lambda: lines(mean()[None, :] + z() * scale("sd", dims="coef")[None, :]),
        DIAGONAL,
    ),
    "pt.outer": (
        lambda: lines(z() * pt.outer(pt.ones(N), scale("sd", dims="coef")) + mean()),
        DIAGONAL,
    ),
    "index inside": (inside, {"a": CLOSED, "b": CLOSED, "omega": CLOSED}),
    "several in one formula": (in_one_formula, {"a": CLOSED, "sa": CLOSED, "sb": CLOSED}),
    "correlated by hand": (
        correlated_by_hand,
        {"a": CLOSED, "b": CLOSED, "sa": "numeric", "rho": "numeric"},
    ),
    "no standard normal": (wide_normal, {"a": CLOSED, "omega": CLOSED}),
    "correlated latent": (joint_latent, {"mu": CLOSED}),
    "exponentiated": (
        lambda: (
            pm.math.exp(
                pm.Normal("a", 0, 1) + W * pm.Normal("b", 0, 1) + scale("omega") * z("z", "group")
            )[G]
            * X
        ),
        {"a": CLOSED, "b": CLOSED, "omega": CLOSED},
    ),
}


def build(spelling):
    with pm.Model(coords={"group": range(N), "coef": ["a", "b"]}) as model:
        pm.Normal("y", SPELLINGS[spelling][0](), scale("sigma"), observed=Y)
    return model


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_a_mean_and_a_covariance(spelling):
    """The scales are those of random effects, and the complete-data density is PyMC's, up to the Jacobian of phi."""
    model = build(spelling)
    mixed = read_model(model)
    rules = recognize(mixed)
    m_steps = rules.m_step_of()
    assert {name: m_steps[name] for name in SPELLINGS[spelling][1]} == SPELLINGS[spelling][1]
    assert all(e.is_gaussian and e.form == "standard" for e in mixed.random_effects)
    # The compiled densities hold none of them, so that a step of the chain computes neither a mean
    # nor an inverse.
    held = set(ancestors(in_symbols(mixed, row_logps(mixed), symbols(mixed)[0], None)))
    assert not [name for name in SPELLINGS[spelling][1] if model_value(mixed, name) in held]
    points, rng = PointMap(mixed), np.random.default_rng(1)
    both = [model["y"], *(model[e.name] for e in mixed.random_effects)]
    logp = model.compile_logp(vars=both, jacobian=False, mode=INTERPRETED)
    for _ in range(2):
        theta = 0.5 * rng.normal(size=mixed.n_theta)
        phi = rng.normal(size=(N, mixed.n_phi))
        point = points.to_point(theta, phi, points.template)
        np.testing.assert_allclose(points.phi_of(point), phi, atol=1e-9)
        own = density(mixed, phi, theta) + log_volume(mixed, points, point)
        np.testing.assert_allclose(own, logp(point), rtol=1e-7)


def density(mixed, phi, theta):
    """log p(y, phi; theta) of the model as read."""
    law, total = LawOfPhi(mixed, theta), sum(rows.sum() for rows in row_density(mixed)(phi, theta))
    gap = phi - law.mean(theta)
    for block in law.blocks:
        total += (
            stats.multivariate_normal(cov=law.covariance(block, theta))
            .logpdf(gap[:, block.columns])
            .sum()
        )
    return total


def log_volume(mixed, points, point):
    """log |d phi / d z|, where phi is affine in z: from its values at unit vectors."""
    names, jacobian = [e.value_name for e in mixed.random_effects], []
    zero = point | {name: np.zeros_like(point[name]) for name in names}
    for effect in mixed.random_effects:
        for entry in np.eye(effect.size):
            moved = effect.from_columns(np.tile(entry, (N, 1)))
            jacobian.append(points.phi_of(zero | {effect.value_name: moved}) - points.phi_of(zero))
    return np.linalg.slogdet(np.stack(jacobian, axis=1))[1].sum()


def test_the_centred_spelling_has_the_same_rules():
    with pm.Model(coords={"group": range(N), "coef": ["a", "b"]}) as model:
        mu = mean()
        c = pm.MvNormal("c", mu, chol=cholesky(), dims=("group", "coef"))
        pm.Normal("y", lines(c), scale("sigma"), observed=Y)
    mixed = {"centred": read_model(model), "z @ chol.T": read_model(build("z @ chol.T"))}
    rules = {name: recognize(m) for name, m in mixed.items()}
    assert rules["centred"].role_of() == rules["z @ chol.T"].role_of()
    theta = np.random.default_rng(2).normal(size=6)
    laws = {name: LawOfPhi(m, theta) for name, m in mixed.items()}
    means = [law.mean(theta) for law in laws.values()]
    covariances = [law.covariance(law.blocks[0], theta) for law in laws.values()]
    np.testing.assert_allclose(*means, rtol=1e-12)
    np.testing.assert_allclose(*covariances, rtol=1e-12)


@pytest.mark.parametrize("upper", ["centred", "standard"])
@pytest.mark.parametrize("lower", ["centred", "standard", "added"])
def test_two_levels_in_all_pairs_of_spellings(upper, lower):
    """Each level has its mean or scale, whichever way the other one is written."""
    occasion = np.arange(N * M)
    with pm.Model(coords={"group": range(N), "occasion": occasion}) as model:
        mu, tau, omega = pm.Normal("mu", 0, 5), scale("tau"), scale("omega")
        b = (
            pm.Normal("b", mu, tau, dims="group")
            if upper == "centred"
            else mu + tau * z("z_b", "group")
        )
        if lower == "centred":
            c = pm.Normal("c", b[G], omega, dims="occasion")
        elif lower == "standard":
            c = b[G] + omega * z("z_c", "occasion")
        else:
            c = omega * z("z_c", "occasion")[occasion] + b[G]
        pm.Normal("y", c, scale("sigma"), observed=Y)
    mixed = read_model(model)
    assert recognize(mixed).m_step_of() == dict.fromkeys(("mu", "tau", "omega", "sigma"), CLOSED)
    assert [e.is_nested for e in mixed.random_effects] == [False, True]


def test_units_without_rows_have_a_law():
    """Subjects without data in the outcome that holds the index."""
    with pm.Model(coords={"group": range(N)}) as model:
        rows = G < N - 2
        c = pm.Normal("a", 0, 5) + scale("omega") * z("z", "group")[G[rows]]
        pm.Normal("y", c, scale("sigma"), observed=Y[rows])
    mixed = read_model(model)
    assert set(recognize(mixed).m_step_of().values()) == {CLOSED}


def test_what_is_no_image_stays_as_it_stands():
    """One factor for two coefficients: their covariance has no inverse."""
    with pm.Model(coords={"group": range(N), "coef": ["a", "b"]}) as model:
        c = mean() + pt.outer(z("z", "group"), scale("sd", dims="coef"))
        pm.Normal("y", lines(c), scale("sigma"), observed=Y)
    mixed = read_model(model)
    assert (
        mixed.random_effects[0].form == "direct" and recognize(mixed).m_step_of()["sd"] == "score"
    )


@pytest.mark.parametrize("shape", ["(coef, subject)", "(1, subject)", "(subject, 1)"])
def test_the_axis_of_the_subjects_is_found(shape):
    """Of effects as they stand: each column of phi is normal, with the mean and standard deviation that the model says."""
    with pm.Model(coords={"group": range(N), "coef": ["a", "b"]}) as model:
        if shape == "(coef, subject)":
            b = pm.Normal(
                "b", mean()[:, None], scale("sd", dims="coef")[:, None], dims=("coef", "group")
            )
            rows = b[0, G] + b[1, G] * X
        else:
            b = pm.Normal(
                "b",
                pm.Normal("mu", 0, 5),
                scale("sd"),
                shape=(1, N) if shape == "(1, subject)" else (N, 1),
            )
            rows = b[0, G] if shape == "(1, subject)" else b[G, 0]
        pm.Normal("y", rows, scale("sigma"), observed=Y)
    mixed = read_model(model)
    (effect,) = mixed.random_effects
    assert effect.axis == (0 if shape == "(subject, 1)" else 1) and mixed.n_subjects == N
    assert set(recognize(mixed).m_step_of().values()) == {CLOSED}
    np.testing.assert_array_equal(mixed.outcomes[0].row_subject, G)
    points, rng = PointMap(mixed), np.random.default_rng(3)
    theta, phi = rng.normal(size=mixed.n_theta), rng.normal(size=(N, mixed.n_phi))
    point = points.to_point(theta, phi, points.template)
    np.testing.assert_array_equal(point["b"], phi.T if effect.axis else phi)
    pymc = model.compile_logp(vars=[model["y"], model["b"]], jacobian=False, mode=INTERPRETED)(
        point
    )
    np.testing.assert_allclose(density(mixed, phi, theta), pymc, rtol=1e-9)


def test_an_axis_of_parameters_is_none_of_subjects():
    """Each row is of one outcome and of one subject, so that either axis could be that of the subjects."""
    outcome = np.tile([0, 1, 0], N)
    with pm.Model(coords={"group": range(N), "coef": ["a", "b"]}) as model:
        b = mean()[:, None] + scale("sd", dims="coef")[:, None] * z(dims=("coef", "group"))
        pm.Normal("y", b[outcome, G], scale("sigma"), observed=Y)
    mixed = read_model(model)
    assert mixed.subject_dim == "group" and mixed.n_phi == 2
    assert recognize(mixed).m_step_of() == DIAGONAL | {"sigma": CLOSED}


@pytest.mark.slow
def test_what_follows_a_fit_does_not_depend_on_the_order_of_axes():
    fits, models = {}, {}
    for order in (("group", "coef"), ("coef", "group")):
        with pm.Model(coords={"group": list("abcdef"), "coef": ["a", "b"]}) as model:
            effects = z(dims=order) if order[0] == "group" else z(dims=order).T
            pm.Normal(
                "y", lines(mean() + effects * scale("sd", dims="coef")), scale("sigma"), observed=Y
            )
        options = {
            "n_explore": 5,
            "n_smooth": 5,
            "draws": 20,
            "likelihood": None,
            "standard_errors": None,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # so short a run is none to rely on
            fits[order] = ps.fit_saem(
                model, random_seed=1, progressbar=False, n_starts=0, **options
            )
        models[order] = model
    both = [(models[order], fits[order]) for order in fits]
    first, last = (fit["posterior"]["z"] for _, fit in both)
    assert last.dims == ("chain", "draw", "coef", "group")
    np.testing.assert_allclose(last.transpose(*first.dims).values, first.values, atol=1e-9)
    predicted = [ps.predict(model, fit, random_seed=2, n_draws=10) for model, fit in both]
    pd.testing.assert_frame_equal(*(p[["subject", "prediction"]] for p in predicted), rtol=1e-8)
    tables = [ps.random_effects(model, fit) for model, fit in both]
    pd.testing.assert_frame_equal(*tables, rtol=1e-6)
    residuals = [
        ps.residuals(model, fit, n_simulations=20, random_seed=1)["iwres"] for model, fit in both
    ]
    np.testing.assert_allclose(*residuals, rtol=1e-8)
