"""Normal effects in every spelling: read as what they are, with densities that are PyMC's own."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import stats

from pymc_saem.saem.conjugacy import recognize
from pymc_saem.saem.densities import row_density
from pymc_saem.saem.interpreted import INTERPRETED
from pymc_saem.saem.laws import LawOfPhi
from pymc_saem.saem.point import PointMap
from pymc_saem.saem.read import read_model

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
        return pm.expand_packed_triangular(2, packed)
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
    return pm.Normal("a", 0, 5) + pm.Normal("b", 0, 5) * pt.as_tensor(W)[G] + scale("omega") * z("z", "group")[G] + 0.5 * X


def wide_normal():
    return (pm.Normal("a", 0, 5) + scale("omega") * pm.Normal("z", 0.0, 3.0, dims="group"))[G]


def joint_latent():
    latent = pm.MvNormal("z", np.zeros(2), np.array([[1.0, 0.3], [0.3, 2.0]]), dims=("group", "coef"))
    return lines(mean() + scale("sd", dims="coef") * latent)


FULL = {"mu": CLOSED, "chol": CLOSED}
DIAGONAL = {"mu": CLOSED, "sd": CLOSED}
#: Rows of the outcome, and how its parameters are maximized.
SPELLINGS = {
    "z @ chol.T": (lambda: lines(mean() + z() @ cholesky().T), FULL),
    "packed": (lambda: lines(mean() + z() @ cholesky("packed").T), FULL),
    "rows by an index": (
        lambda: pt.sum(np.stack([X**0, X], 1) * (mean() + z() * scale("sd", dims="coef"))[G], axis=1),
        DIAGONAL,
    ),
    "sd[None, :]": (lambda: lines(mean()[None, :] + z() * scale("sd", dims="coef")[None, :]), DIAGONAL),
    "pt.outer": (lambda: lines(z() * pt.outer(pt.ones(N), scale("sd", dims="coef")) + mean()), DIAGONAL),
    "index inside": (inside, {"a": CLOSED, "b": CLOSED, "omega": CLOSED}),
    "several in one formula": (in_one_formula, {"a": CLOSED, "sa": CLOSED, "sb": CLOSED}),
    "correlated by hand": (correlated_by_hand, {"a": CLOSED, "b": CLOSED, "sa": "numeric", "rho": "numeric"}),
    "no standard normal": (wide_normal, {"a": CLOSED, "omega": CLOSED}),
    "correlated latent": (joint_latent, {"mu": CLOSED}),
    "exponentiated": (
        lambda: pm.math.exp(pm.Normal("a", 0, 1) + W * pm.Normal("b", 0, 1) + scale("omega") * z("z", "group"))[G] * X,
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
        total += stats.multivariate_normal(cov=law.covariance(block, theta)).logpdf(gap[:, block.columns]).sum()
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
    assert mixed.random_effects[0].form == "direct" and recognize(mixed).m_step_of()["sd"] == "score"
