"""Whole fits against exact answers, and what comes out of them."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import arviz as az
import numpy as np
import pymc as pm
import pytest
from scipy.optimize import minimize

import pymc_saem as ps
from pymc_saem.compat import get_group, group_names
from tests.support.models import (
    exact_loglik,
    random_intercept,
    random_intercept_data,
    slopes,
    slopes_data,
    slopes_loglik,
    theophylline,
)

INTERPRETED = {"mode": "FAST_COMPILE"}
#: Where a test is about the estimate; what comes after it is compiled anew for every model.
ESTIMATE = {"likelihood": None, "standard_errors": None, "progressbar": False}


def estimates(idata):
    trace = get_group(idata, "saem_trace")
    names = [
        n for n in trace.data_vars if n in set(p.split("[")[0] for p in trace_parameters(idata))
    ]
    return {n: trace[n].values[0, -1] for n in names}


def trace_parameters(idata):
    return [str(p) for p in get_group(idata, "population")["parameter"].values]


@pytest.fixture(scope="module")
def intercept():
    model = random_intercept()
    return model, ps.fit_saem(model, random_seed=1, draws=100, progressbar=False)


@pytest.mark.slow
def test_random_intercept_reaches_its_exact_maximum(intercept):
    found = estimates(intercept[1])
    assert np.isclose(found["omega"], 0.80081, rtol=0.01) and np.isclose(
        found["sigma"], 0.3, rtol=0.01
    )
    # a is 0.0275 with a standard error of 0.24; the Monte-Carlo error of the run is about 0.0005
    assert abs(found["a"] - 0.0275) < 4 * 0.0005
    # within 1 % it needs more transitions: their error is about 0.0001
    # (benchmarks/accuracy/known_answers.py has seeds 1 to 5)
    longer = {"n_smooth": 1000, "n_transitions": 400, "tolerance": 0.0, "draws": 5, **ESTIMATE}
    found = estimates(ps.fit_saem(intercept[0], random_seed=1, **longer))
    exact = {"a": 0.0275, "omega": 0.80081, "sigma": 0.3}
    assert all(np.isclose(found[name], value, rtol=0.01) for name, value in exact.items())
    y, subject = random_intercept_data()
    assert exact_loglik(found["a"], found["omega"], found["sigma"], y, subject) > -26.386860 - 1e-3


def test_conditional_distributions_are_the_exact_ones(intercept):
    """b_i given y is normal; 400 draws with R-hat near 1: tolerance 5 standard errors at an ESS of 100."""
    found, individual = estimates(intercept[1]), get_group(intercept[1], "individual")
    y, subject = random_intercept_data()
    precision = 1 / found["omega"] ** 2 + 3 / found["sigma"] ** 2
    totals = np.bincount(subject, weights=y)
    mean = (found["a"] / found["omega"] ** 2 + totals / found["sigma"] ** 2) / precision
    sd = precision**-0.5
    assert np.allclose(individual["conditional_mode"].values[:, 0], mean, atol=1e-4)
    assert np.allclose(individual["conditional_mean"].values[:, 0], mean, atol=5 * sd / 10)
    assert np.allclose(individual["conditional_sd"].values[:, 0], sd, rtol=0.35)
    shrinkage = 1 - np.mean((mean - found["a"]) ** 2) / found["omega"] ** 2
    assert np.isclose(individual["shrinkage"].values[0], shrinkage, atol=1e-3)


def test_groups_and_dims(intercept):
    idata = intercept[1]
    expected = {
        "posterior",
        "sample_stats",
        "saem_trace",
        "population",
        "individual",
        "observed_data",
        "constant_data",
        "saem_state",
    }
    assert set(group_names(idata)) == expected
    posterior = get_group(idata, "posterior")
    assert posterior["b"].dims == ("chain", "draw", "subject") and list(
        posterior["subject"]
    ) == list(range(1, 13))
    trace = get_group(idata, "saem_trace")
    assert trace["sigma"].dims == ("chain", "iteration") and trace.attrs["n_explore"] == 200
    table = ps.summary(idata)
    assert list(table.index) == ["a", "omega", "sigma"] and {
        "estimate",
        "m_step",
        "shrinkage",
    } <= set(table.columns)


@pytest.mark.slow
def test_arviz_and_pymc_read_the_result(intercept, tmp_path):
    model, idata = intercept
    assert "b[1]" in az.summary(idata, var_names=["b"]).index
    az.plot_forest(idata, var_names=["b"])
    predictive = pm.sample_posterior_predictive(
        idata, model=model, random_seed=1, progressbar=False
    )
    assert get_group(predictive, "posterior_predictive")["y"].shape[-1] == 36
    idata.to_netcdf(str(tmp_path / "fit.nc"))
    loaded = az.from_netcdf(str(tmp_path / "fit.nc"))
    assert ps.summary(loaded).equals(ps.summary(idata))
    assert np.array_equal(get_group(loaded, "posterior")["b"], get_group(idata, "posterior")["b"])
    # PyMC 5 leaves observed variables doubled in the model; it must stay usable
    ps.SAEM(model=model, n_starts=0)


@pytest.mark.slow
def test_same_seed_same_trace_for_any_number_of_cores():
    model = random_intercept()
    options = {
        "n_explore": 5,
        "n_smooth": 5,
        "chains": 2,
        "draws": 5,
        "compile_kwargs": INTERPRETED,
        **ESTIMATE,
    }
    one = ps.fit_saem(model, cores=1, random_seed=3, **options)
    two = ps.fit_saem(model, cores=2, random_seed=3, **options)
    other = ps.fit_saem(model, cores=1, random_seed=4, **options)
    a, b, c = (get_group(i, "saem_trace") for i in (one, two, other))
    assert all(np.array_equal(a[n], b[n], equal_nan=True) for n in a.data_vars)
    assert not np.array_equal(a["a"], c["a"]) and not np.array_equal(a["a"][0], a["a"][1])


FIRST_AND_LATER = """
    import warnings
    import pymc_saem as ps
    from tests.support.models import random_intercept
    from pymc_saem.compat import get_group

    warnings.simplefilter("ignore")
    idata = ps.fit_saem(
        random_intercept(), n_explore=10, n_smooth=15, tolerance=0.0, draws=2, likelihood=None, standard_errors=None, random_seed=6, progressbar=False
    )
    for name, values in get_group(idata, "saem_trace").data_vars.items():
        print(name, *(x.hex() for x in values.values.astype(float).ravel()))
"""


@pytest.mark.slow
def test_a_first_fit_is_no_other_than_a_later_one(tmp_path):
    """PyTensor compiles in the first process, and finds its machine code on disk in the second."""
    code = textwrap.dedent(FIRST_AND_LATER)
    flags = ",".join(
        filter(None, [os.environ.get("PYTENSOR_FLAGS"), f"base_compiledir={tmp_path}"])
    )
    command, env = [sys.executable, "-c", code], os.environ | {"PYTENSOR_FLAGS": flags}
    first, later = (
        subprocess.run(
            command,
            env=env,
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
        ).stdout
        for _ in range(2)
    )
    assert "complete_logp" in first and first == later


def exact_slopes(data, log_prior=lambda beta, lower: 0.0):
    """Maximizer of the exact marginal likelihood plus a log prior."""

    def unpack(u):
        lower = np.array([[np.exp(u[3]), 0.0], [u[4], np.exp(u[5])]])
        return u[:2], u[2], lower, np.exp(u[6])

    def negative(u):
        beta, gamma, lower, sigma = unpack(u)
        return -slopes_loglik(beta, gamma, lower @ lower.T, sigma, data) - log_prior(beta, lower)

    best = minimize(negative, np.array([0, 0, 0, 0, 0, 0, 0.0]), method="BFGS")
    return unpack(best.x), -best.fun


@pytest.mark.slow
def test_full_covariance_with_covariate_reaches_the_exact_ml():
    data = slopes_data()
    (beta, gamma, lower, sigma), top = exact_slopes(data)
    idata = ps.fit_saem(
        slopes(data), objective="ml", n_transitions=40, random_seed=2, draws=10, progressbar=False
    )
    found = estimates(idata)
    chol = np.zeros((2, 2))
    chol[np.tril_indices(2)] = found["chol"]
    reached = slopes_loglik(found["beta"], found["gamma"], chol @ chol.T, found["sigma"], data)
    assert reached > top - 0.02
    assert np.allclose(chol @ chol.T, lower @ lower.T, atol=0.05) and np.isclose(
        found["sigma"], sigma, rtol=0.01
    )
    assert np.allclose(found["beta"], beta, atol=0.02) and np.isclose(
        found["gamma"], gamma, atol=0.02
    )


@pytest.mark.slow
def test_map_counts_the_priors_on_the_natural_scale():
    """With Normal, LKJ and exponential priors the mode of the exact posterior, as pm.find_MAP would define it."""
    data = slopes_data()
    model = slopes(data, prior="normal")
    log_chol = model.compile_logp(vars=[model["chol"]], jacobian=False)
    point = model.initial_point()

    def log_prior(beta, lower):
        u = np.array([np.log(lower[0, 0]), lower[1, 0], np.log(lower[1, 1])])
        return -0.5 * np.sum((beta / 0.5) ** 2) + log_chol(
            {**point, "chol_cholesky-cov-packed__": u}
        )

    (beta, gamma, lower, sigma), top = exact_slopes(data, log_prior)
    found = estimates(ps.fit_saem(model, n_transitions=40, random_seed=2, draws=10, **ESTIMATE))
    chol = np.zeros((2, 2))
    chol[np.tril_indices(2)] = found["chol"]
    reached = slopes_loglik(found["beta"], found["gamma"], chol @ chol.T, found["sigma"], data)
    assert reached + log_prior(found["beta"], chol) > top - 0.02
    assert np.allclose(found["beta"], beta, atol=0.02) and np.allclose(
        chol @ chol.T, lower @ lower.T, atol=0.05
    )


@pytest.mark.parametrize("ode", [False, True])
@pytest.mark.slow
def test_theophylline_reaches_its_exact_ml(ode):
    """Within 2 % of DESIGN section 10, variances 4 % (their Monte-Carlo error is 1 to 2 %, that of omega_V the largest)."""
    options = {"rtol": 1e-6, "atol": 1e-6} if ode else {}
    found = estimates(
        ps.fit_saem(theophylline(ode, **options), random_seed=1, draws=100, **ESTIMATE)
    )
    means = {"log_ka": 0.4593, "log_CL": 1.0117, "log_V": 3.4539, "sigma": 0.6959}
    variances = {"omega_ka": 0.4050, "omega_CL": 0.0703, "omega_V": 0.0185}
    assert all(np.isclose(found[n], v, rtol=0.02) for n, v in means.items())
    assert all(np.isclose(found[n] ** 2, v, rtol=0.04) for n, v in variances.items())


@pytest.mark.slow
def test_a_dose_as_event_is_a_dose_at_the_start():
    settings = {
        "n_explore": 4,
        "n_smooth": 2,
        "n_starts": 0,
        "draws": 2,
        "random_seed": 3,
        **ESTIMATE,
    }
    start, event = (
        get_group(
            ps.fit_saem(theophylline(True, doses, rtol=1e-8, atol=1e-8), **settings), "saem_trace"
        )
        for doses in (False, True)
    )
    for name in ("log_ka", "log_CL", "omega_V", "sigma"):
        np.testing.assert_allclose(event[name], start[name], rtol=1e-5)
    assert int(event.attrs["n_solves"]) == int(start.attrs["n_solves"])


def test_fixed_parameters_stay_where_they_are():
    idata = ps.fit_saem(
        random_intercept(), fixed={"sigma": 0.5, "a": 0.1}, n_explore=5, n_smooth=5, draws=5, random_seed=1,
        progressbar=False, compile_kwargs=INTERPRETED,
    )  # fmt: skip
    found = estimates(idata)
    assert np.isclose(found["sigma"], 0.5) and np.isclose(found["a"], 0.1)
    assert list(ps.summary(idata)["m_step"])[0] == "fixed"


def test_an_interruption_keeps_what_there_is():
    def stop(chain, iteration, values, stats):
        if iteration == 6:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 7 of 550 iterations"):
        idata = ps.fit_saem(
            random_intercept(),
            callback=stop,
            draws=5,
            random_seed=1,
            progressbar=False,
            compile_kwargs=INTERPRETED,
        )
    assert get_group(idata, "saem_trace").sizes["iteration"] == 7


def test_trouble_after_the_estimate_does_not_lose_it(monkeypatch):
    import pymc_saem.saem.run.chains as module

    def broken(*args):
        raise FloatingPointError("no draws today")

    monkeypatch.setattr(module, "describe_individuals", broken)
    with pytest.warns(
        UserWarning, match="FloatingPointError: no draws today.; the estimate is complete"
    ):
        idata = ps.fit_saem(
            random_intercept(),
            n_explore=3,
            n_smooth=3,
            random_seed=1,
            progressbar=False,
            compile_kwargs=INTERPRETED,
        )
    assert "posterior" not in group_names(idata) and len(ps.summary(idata)) == 3


@pytest.mark.parametrize(
    "option, words",
    [
        ({"n_smooth": -1}, "n_smooth is -1; it must be an integer of at least 0"),
        ({"n_explore": 0, "n_smooth": 0}, "n_explore and n_smooth are both 0"),
        ({"chains": 0}, "chains is 0"),
        ({"kernel": "hmc"}, "kernel is 'hmc'; it must be \"auto\" or a dict"),
        (
            {"initvals": {"a": [1.0, 2.0]}},
            r"initvals\['a'\] has shape \(2,\), but the variable has shape \(\)",
        ),
        ({"initvals": {"nobody": 1.0}}, r"initvals names \['nobody'\]; the free variables are"),
        ({"initvals": {"sigma": -1.0}}, "initvals give sigma_log__ = nan"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:invalid value encountered:RuntimeWarning"
)  # PyTensor takes the log of the bad value
def test_bad_options(option, words):
    with pytest.raises(ValueError, match=words):
        ps.fit_saem(random_intercept(), **option)


def test_a_kernel_that_is_hardly_accepted_is_reported():
    """On a thin sphere in ten dimensions a proposal around one point of it is never accepted."""
    radius = np.full(6, 3.0)
    with pm.Model(coords={"subject": range(6), "k": range(10)}) as model:
        mean = pm.Flat("mean", dims="k", initval=np.full(10, 0.5))
        b = pm.MvNormal("b", mean, np.eye(10), dims=("subject", "k"))
        pm.Normal("y", pm.math.sqrt((b**2).sum(axis=1)), 0.01, observed=radius)
    kernel = {"block": 0.5, "independence": 0.5}
    with pytest.warns(
        UserWarning,
        match="independence proposals had an acceptance rate of .* remove 'independence' from kernel",
    ):
        idata = ps.fit_saem(
            model, kernel=kernel, n_explore=4, n_smooth=4, n_starts=0, draws=4, random_seed=1, progressbar=False,
            compile_kwargs=INTERPRETED, likelihood=None, standard_errors=None, fixed={"mean": np.full(10, 0.5)},
        )  # fmt: skip
    assert np.isfinite(get_group(idata, "saem_trace")["accept_independence"]).all()
    with pytest.raises(ValueError, match="kernel shares name .'malla'.; the choices are"):
        ps.fit_saem(model, kernel={"malla": 1.0})


@pytest.mark.parametrize("labels", [["one", "two"], ["one", "two", "three"]])
def test_dims_of_the_model_may_have_the_names_of_dims_of_a_fit(labels, tmp_path):
    """Two random effects in the dim "effect", of three in all or alone; and parameters in a dim "iteration"."""
    n = len(labels)
    with pm.Model(
        coords={"subject": ["u", "v", "w"], "effect": ["one", "two"], "iteration": ["a", "b"]}
    ) as model:
        center = pm.Normal("center", [0.0, 1.0], 1.0, dims="iteration")
        b = pm.Normal("b", center, 1.0, dims=("subject", "effect"))
        mu = b.sum(axis=1)
        if n == 3:
            mu += pm.Normal("c", pm.Flat("mean"), 1.0, dims="subject")
        pm.Normal("y", mu[np.repeat(np.arange(3), 4)], 0.5, observed=np.linspace(0, 2, 12))
    options = {"n_explore": 3, "n_smooth": 2, "draws": 4, "progressbar": False, "random_seed": 1}
    options["compile_kwargs"] = INTERPRETED
    ps.save(
        ps.fit_saem(model, likelihood=None, standard_errors=None, **options), tmp_path / "fit.nc"
    )
    idata = ps.load(tmp_path / "fit.nc")
    individual, posterior, trace = (
        get_group(idata, name) for name in ("individual", "posterior", "saem_trace")
    )
    assert posterior["b"].dims[2:] == ("subject", "effect") and list(
        posterior["effect"].values
    ) == ["one", "two"]
    assert list(individual["effect"].values) == ["b[one]", "b[two]", "c"][:n]
    assert individual["b_mode"].dims == ("subject", "b_effect")
    assert list(individual["b_effect"].values) == ["one", "two"]
    np.testing.assert_allclose(individual["b_mode"], individual["natural_mode"][:, :2])
    assert trace["center"].dims == ("chain", "iteration", "center_iteration")
    assert list(trace["center_iteration"].values) == ["a", "b"]
    assert set(ps.random_effects(model, idata, "b")["effect"]) == {"b[one]", "b[two]"}
    assert ps.plot_convergence(idata, ["center"]) is not None
