"""Simulated data sets against NumPy programs that simulate the same."""

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from pymc.exceptions import ImputationWarning
from scipy.stats import ks_2samp, nbinom, rankdata

import pymc_saem as ps
from pymc_saem.evaluate.generator import Generator
from tests.support.generated import MODELS

N_SETS = 3000


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_the_law_is_that_of_a_program_in_numpy(build):
    model, values, program = build()
    found = ps.simulate(model, values, n=N_SETS, random_seed=1)
    expected = program(np.random.default_rng(2), N_SETS)
    assert set(found.data_vars) == set(expected)
    for name, want in expected.items():
        have = found[name].values
        assert have.shape == want.shape
        have, want = have.reshape(N_SETS, -1), want.reshape(N_SETS, -1)
        p = [ks_2samp(have[:, k], want[:, k], method="asymp").pvalue for k in range(want.shape[1])]
        assert min(p) > 1e-4, (name, p)
    # all variables of a data set belong together: so do rows of one subject, and no other rows
    have, want = (
        np.corrcoef(
            np.column_stack([rankdata(d[n].reshape(N_SETS, -1), axis=0) for n in expected]).T
        )
        for d in ({n: found[n].values for n in expected}, expected)
    )
    np.testing.assert_allclose(have, want, atol=0.12)


def test_the_same_seed_gives_the_same_data_and_the_model_stays(fit):
    model, idata, _ = fit
    names = list(model.named_vars)
    one, two, other = (ps.simulate(model, idata, n=3, random_seed=s) for s in (1, 1, 2))
    xr.testing.assert_identical(one, two)
    assert not np.array_equal(one["y"], other["y"])
    assert list(model.named_vars) == names
    assert list(one["b"].coords["subject"].values) == list(range(1, 13))
    assert one["b"].dims == ("simulation", "subject") and one["y"].dims == ("simulation", "y_dim_0")


def test_a_fit_from_a_file_and_draws_of_the_parameters(fit):
    model, idata, loaded = fit
    xr.testing.assert_equal(
        ps.simulate(model, loaded, n=2, random_seed=1),
        ps.simulate(model, idata, n=2, random_seed=1),
    )
    found = ps.simulate(model, loaded, n=1250, random_seed=1, parameters="draws")
    assert set(found.data_vars) == {"y", "b", "a", "omega", "sigma"}
    posterior = loaded["posterior"]
    for name in ("a", "omega", "sigma"):  # every draw once: the fit has 1250
        np.testing.assert_allclose(np.sort(found[name]), np.sort(posterior[name].values.ravel()))
    # the mean over subjects of a data set has the variance omega^2 / 12 about its own a
    z = (found["b"].mean("subject") - found["a"]) / found["omega"] * np.sqrt(12)
    assert abs(float(z.std()) - 1) < 0.07
    assert ks_2samp(z, np.random.default_rng(0).standard_normal(1250)).pvalue > 1e-3


@pytest.mark.slow
def test_draws_that_do_not_vary_are_said_so(fit):
    model, idata, _ = fit
    without = ps.fit_saem(
        model,
        n_explore=2,
        n_smooth=2,
        draws=2,
        standard_errors=None,
        likelihood=None,
        progressbar=False,
        random_seed=1,
    )
    with pytest.warns(UserWarning, match="draws of the parameters are all the same"):
        ps.simulate(model, without, n=2, parameters="draws", random_seed=1)


def blow_up():
    """y' = k y^2 from 1 has no solution beyond 1 / k."""
    with pm.Model(coords={"patient": ["A", "B"]}) as model:
        mu = pm.Flat("mu", shape=2)
        k = pm.LogNormal("k", mu, 0.5, dims="patient")
        subject = np.array([0, 0, 1, 1])
        y = ps.ode.solve_ivp(
            lambda t, y, p: {"y": p.k * y.y**2},
            {"y": 1.0},
            {"k": k},
            t=[0.5, 1.0, 0.5, 1.0],
            subject=subject,
        ).y
        pm.Poisson("n", 100 * y, observed=np.ones(4, dtype=int))
        pm.Normal("z", k, 0.1, observed=np.zeros(2), dims="patient")
    return model


def test_subjects_without_a_solution_are_nan_and_named():
    model = blow_up()
    with pytest.warns(
        UserWarning,
        match=r"of 400 differential equations have no solution.*: B \(\d+\), A \(\d+\)\. ",
    ) as seen:
        found = ps.simulate(model, {"mu": [-1.0, 0.0]}, n=200, random_seed=1)
    assert len(seen) == 1
    failed = found["k"].values >= 1.0
    assert 0 < failed.sum(axis=0)[0] < failed.sum(axis=0)[1] < 200
    np.testing.assert_array_equal(np.isnan(found["n"].values), np.repeat(failed, 2, axis=1))
    assert np.isfinite(found["z"].values).all()  # it needs no solution
    exact = 100 / (1 - found["k"].values[:, [0, 0, 1, 1]] * [0.5, 1.0, 0.5, 1.0])
    solved = ~np.repeat(failed, 2, axis=1)
    score = (found["n"].values - exact)[solved] / np.sqrt(exact[solved])
    assert abs(score.mean()) < 0.15 and abs(score.std() - 1) < 0.1


def test_without_failures_counts_stay_whole_numbers():
    found = ps.simulate(blow_up(), {"mu": [-5.0, -5.0]}, n=5, random_seed=1)
    assert found["n"].dtype == np.int64


def test_missing_rows_are_simulated_too():
    with (
        pytest.warns(ImputationWarning),
        pm.Model(coords={"subject": [1, 2], "visit": [7, 8, 9]}) as model,
    ):
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        y = np.array([[1.0, np.nan, 3.0], [np.nan, 5.0, 6.0]])
        pm.Normal(
            "y",
            b[:, None] + np.array([0.0, 100.0, 200.0]),
            0.1,
            observed=y,
            dims=("subject", "visit"),
        )
    found = ps.simulate(model, {"a": 0.0}, n=50, random_seed=1)
    assert found["y"].dims == ("simulation", "subject", "visit")
    residual = found["y"] - found["b"] - [0.0, 100.0, 200.0]
    assert abs(float(residual.std()) - 0.1) < 0.02


@pytest.mark.filterwarnings("ignore:Scan return signature:DeprecationWarning")  # a call in PyMC
@pytest.mark.slow
def test_a_law_that_is_drawn_by_rejection():
    with pm.Model(coords={"subject": [1, 2]}) as model:
        b = pm.Normal("b", pm.Flat("a"), 0.5, dims="subject")
        law = pm.NegativeBinomial.dist(mu=pm.math.exp(b), alpha=2.0)
        pm.Truncated("n", law, lower=2, observed=np.array([3, 4]), dims="subject", max_n_steps=1000)
    found = ps.simulate(model, {"a": 1.0}, n=300, random_seed=1)
    p = 2.0 / (2.0 + np.exp(found["b"].values))
    u = (nbinom.cdf(found["n"], 2, p) - nbinom.cdf(1, 2, p)) / nbinom.sf(1, 2, p)
    assert found["n"].min() >= 2
    assert 0.5 < u.mean() < 0.75  # of a discrete distribution: above 1/2


def test_compiled_once_and_drawn_often(fit):
    model, _, _ = fit
    generator = Generator(model, ["b"])
    values = {"a": np.arange(3.0) * 100, "omega": 1e-6, "sigma": np.array([1e-6, 1e-6, 1.0])}
    for seed in (1, 2):
        found = generator.draw(values, 3, np.random.default_rng(seed))
        np.testing.assert_allclose(
            found.outcomes["y"][:2], np.repeat([[0.0], [100.0]], 36, axis=1), atol=1e-4
        )
        assert 0.7 < found.outcomes["y"][2].std() < 1.3
    assert generator.parameters == ("a", "omega", "sigma")


def test_what_is_wrong_with_values(fit):
    model, idata, _ = fit
    good = {"a": 0.0, "omega": 1.0, "sigma": 0.3}
    cases = [
        ({"a": 0.0}, "Parameters without a value: 'omega', 'sigma'"),
        (good | {"tau": 1.0}, "no parameter 'tau'; it has 'a', 'omega', 'sigma'"),
        (good | {"b": np.zeros(12)}, "'b' cannot be given: random effects are drawn"),
        (good | {"a": [1.0, 2.0]}, r"'a' has shape \(2,\); the model needs \(\)"),
        (good | {"a": np.nan}, "'a' must be finite numbers, got nan"),
        (good | {"omega": -1.0}, "'omega' is -1.0, outside the support of its prior: 0 to inf"),
    ]
    for values, text in cases:
        with pytest.raises(ValueError, match=text):
            ps.simulate(model, values)
    with pytest.raises(ValueError, match="n is 0; it must be"):
        ps.simulate(model, good, n=0)
    with pytest.raises(ValueError, match="parameters is 'mean'"):
        ps.simulate(model, good, parameters="mean")
    with pytest.raises(ValueError, match="needs a fit"):
        ps.simulate(model, good, parameters="draws")
    with pytest.raises(
        TypeError,
        match="idata_or_values is 3; it must be what fit_saem returned, .* or a dict by name",
    ):
        ps.simulate(model, 3)
    with pytest.raises(ValueError, match="not a fit of this model: it has no parameter 'mu'"):
        ps.simulate(blow_up(), idata)


def test_names_that_numpy_takes_for_dtypes():
    """As bambi gives them, and words such as "short": the data sets are those of any other names."""

    def draw(mean, sd, offset, sigma):
        with pm.Model(coords={"subject": list("abc")}) as model:
            effects = pm.Normal(mean, 0, 1) + pm.HalfNormal(sd, 1) * pm.Normal(
                offset, 0, 1, dims="subject"
            )
            pm.Normal(
                "y",
                effects[np.repeat(np.arange(3), 2)],
                pm.HalfNormal(sigma, 1),
                observed=np.zeros(6),
            )
        return ps.simulate(model, {mean: 1.0, sd: 0.5, sigma: 0.2}, n=3, random_seed=1)["y"].values

    plain = draw("mu", "omega", "z", "sigma")
    np.testing.assert_array_equal(
        plain, draw("short", "1|subject_sigma", "1|subject_offset", "double")
    )
