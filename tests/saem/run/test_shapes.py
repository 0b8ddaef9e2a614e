"""Parameters that have fewer free entries than entries: the natural values are those that PyMC's transforms give."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.read import read_model
from pymc_saem.saem.run.options import natural_values

QUICK = {
    "n_explore": 3, "n_smooth": 3, "n_transitions": 10, "n_starts": 0, "draws": 3, "random_seed": 1, "progressbar": False,
    "likelihood": None, "compile_kwargs": {"mode": "FAST_COMPILE"},
}  # fmt: skip
#: Names of the parameters, what must hold of their natural values, and a value that may be fixed.
LAWS = {
    "zero": (lambda x: np.allclose(x.sum(axis=-1), 0.0), [2.0, -1.0, -1.0]),
    "zeros": (
        lambda x: np.allclose(x.sum(axis=-1), 0.0) and np.allclose(x.sum(axis=-2), 0.0),
        np.zeros((2, 3)),
    ),
    "shares": (
        lambda x: np.allclose(x.sum(axis=-1), 1.0) and (x > 0).all(),
        [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]],
    ),
    "sorted": (lambda x: (np.diff(x, axis=-1) > 0).all(), [-1.0, 0.0, 4.0]),
    "angles": (lambda x: (np.abs(x) <= np.pi).all(), [0.0, -3.0]),
    "lkj": (lambda x: (np.abs(x) <= 1.0).all(), None),
    "between": (lambda x: ((x > 1.0) & (x < 3.0)).all(), [1.5, 2.5]),
}


def build():
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(8), 4)
    with pm.Model(coords={"subject": range(8), "k": list("abc"), "two": [0, 1]}) as model:
        parts = [
            pm.ZeroSumNormal("zero", 1.0, dims="k"),
            pm.ZeroSumNormal("zeros", 1.0, dims=("two", "k"), n_zerosum_axes=2),
            pm.Dirichlet("shares", np.ones(3), dims=("two", "k")),
            pm.Normal(
                "sorted",
                0,
                5,
                transform=pm.distributions.transforms.ordered,
                shape=3,
                initval=np.arange(3.0),
            ),
            pm.VonMises("angles", 0.0, 1.0, dims="two"),
            pm.LKJCorr("lkj", n=3, eta=2.0),
            pm.Uniform("between", 1.0, 3.0, shape=2),
        ]
        e = pm.Normal("e", 0.0, pm.HalfNormal("omega", 1.0), dims="subject")
        # of a correlation matrix, no diagonal entry
        effect = sum(part.ravel()[-2] for part in parts)
        pm.Normal("y", e[subject] + effect, 1.0, observed=rng.normal(size=32))
    return model


@pytest.fixture(scope="module")
def mixed():
    return read_model(build())


@pytest.mark.slow("together")
def test_natural_values_are_those_of_the_transforms(mixed):
    model = mixed.model
    shapes, rng = model.eval_rv_shapes(), np.random.default_rng(2)
    points = PointMap(mixed)
    theta = rng.normal(size=(5, mixed.n_theta))
    natural = points.natural_theta(theta)
    for name, (holds, _) in LAWS.items():
        p, transform = mixed.parameter(name), model.rvs_to_transforms[model[name]]
        assert p.natural_shape == shapes[name] and natural[name].shape == (5, *shapes[name])
        assert holds(natural[name])
        u = theta[0, p.columns].reshape(p.shape)
        expected = transform.backward(pt.as_tensor(u), *model[name].owner.inputs).eval(
            mode="FAST_COMPILE"
        )
        np.testing.assert_allclose(natural[name][0], expected, atol=1e-12)
        np.testing.assert_allclose(
            points.theta_at({q: x[0] for q, x in natural.items()})[p.columns], u.ravel(), rtol=1e-6
        )
    omega = mixed.parameter("omega")
    assert (
        sum(p.columns.stop - p.columns.start for p in mixed.parameters)
        == omega.columns.stop
        == mixed.n_theta
    )


@pytest.mark.slow("together")
def test_constants_have_the_natural_shape_and_obey_the_law(mixed):
    fixed = {name: value for name, (_, value) in LAWS.items() if value is not None}
    for name, found in natural_values(mixed, fixed).items():
        np.testing.assert_array_equal(found, np.ravel(fixed[name]))
    for name, wrong, words in (
        ("zero", [1.0, 1.0, 1.0], "outside the support"),
        ("shares", np.full((2, 3), 0.5), "outside the support"),
        ("angles", [0.0, 4.0], "outside the support"),
        ("sorted", [0.0, 2.0, 1.0], "outside the support"),
        ("zero", [1.0, -1.0], r"has shape \(2,\); the parameter has shape \(3,\)"),
        ("zero", [np.nan, 1.0, 0.0], "ties its entries together"),
    ):
        with pytest.raises(ValueError, match=words):
            natural_values(mixed, {name: wrong})


@pytest.mark.filterwarnings("ignore::UserWarning")  # about a run that is too short to settle
@pytest.mark.slow("together")
def test_a_fit_has_them_in_every_group(mixed, tmp_path):
    model = mixed.model
    idata = ps.fit_saem(model, fixed={"zero": LAWS["zero"][1]}, standard_errors="score", **QUICK)
    shapes, trace, posterior = (
        model.eval_rv_shapes(),
        get_group(idata, "saem_trace"),
        get_group(idata, "posterior"),
    )
    table = ps.summary(ps.load(ps.save(idata, tmp_path / "fit.nc")))
    for name, (holds, _) in LAWS.items():
        last = trace[name].values[0, -1]
        assert trace[name].values.shape[2:] == posterior[name].values.shape[2:] == shapes[
            name
        ] and holds(last)
        own = table["estimate"][[label.split("[")[0] == name for label in table.index]]
        np.testing.assert_array_equal(own.to_numpy(), last.ravel())
    np.testing.assert_allclose(
        trace["zero"].values[0], np.tile(LAWS["zero"][1], (6, 1)), atol=1e-12
    )
    assert (
        table.loc["shares[0, b]", "m_step"] == "score" and table.loc["zero[b]", "m_step"] == "fixed"
    )
    assert np.isfinite(ps.simulate(model, idata, n=1, random_seed=1)["y"]).all()
    with pytest.raises(ValueError, match="'shares' ties its entries together"):
        ps.profile_likelihood(model, idata, "shares[0, b]", n_explore=2, n_smooth=2)
