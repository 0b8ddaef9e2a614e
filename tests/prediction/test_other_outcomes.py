"""Vector outcomes, outcomes that cannot be drawn, and data that were exchanged after the fit."""

import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group

N, T = 5, np.arange(4.0)
S = np.repeat(np.arange(N), T.size)
RNG = np.random.default_rng(3)
Y = RNG.normal(size=N)[:, None] + 0.3 * T + 0.2 * RNG.normal(size=(N, T.size))
TINY = {
    "n_explore": 5, "n_smooth": 5, "n_transitions": 10, "draws": 10, "n_starts": 0, "random_seed": 1, "progressbar": False,
    "standard_errors": None, "likelihood": None, "compile_kwargs": {"mode": "FAST_COMPILE"},
}  # fmt: skip


@pytest.fixture(scope="module")
def vectors():
    with pm.Model(coords={"subject": list("abcde")}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        pm.MvNormal("y", b[:, None] + 0.3 * T, cov=0.04 * np.eye(T.size), observed=Y)
    return model, ps.fit_saem(model, **TINY)


def test_predictions_of_vectors(vectors):
    """Row by row, for the subject of the row: its mode and the line."""
    model, idata = vectors
    found = ps.predict(model, idata, n_draws=10, parameters="estimate", random_seed=1)
    np.testing.assert_array_equal(found["subject"], np.repeat(list("abcde"), T.size))
    np.testing.assert_allclose(found["observed"], Y.ravel())
    intercept = (found["prediction"].to_numpy().reshape(N, -1) - 0.3 * T).T
    np.testing.assert_allclose(intercept - intercept[:1], 0.0, atol=1e-9)
    np.testing.assert_allclose(intercept[0], get_group(idata, "individual")["b_mode"], rtol=1e-9)


def test_figures_of_vectors(vectors):
    model, idata = vectors
    with pytest.warns(UserWarning, match="connected from row to row"):
        axes = ps.plot_fits(model, idata, x=np.tile(T, N))
    assert len(np.ravel(axes)) == N
    points = np.ravel(axes)[2].lines[0].get_xydata()
    np.testing.assert_allclose(points, np.column_stack([T, Y[2]]))


@pytest.fixture(scope="module")
def scalars():
    with pm.Model(coords={"subject": list("abcde"), "row": range(S.size)}) as model:
        b = pm.Normal("b", pm.Flat("a"), pm.HalfFlat("omega", initval=1.0), dims="subject")
        sigma = pm.HalfFlat("sigma", initval=1.0)
        t, subject = pm.Data("t", np.tile(T, N), dims="row"), pm.Data("code", S, dims="row")
        pm.Normal(
            "y",
            b[subject] + 0.3 * t,
            sigma,
            observed=pm.Data("seen", Y.ravel(), dims="row"),
            dims="row",
        )

        def logp(value, mean, sd):
            return -0.5 * ((value - mean) / sd) ** 2 - pm.math.log(sd)

        pm.CustomDist("z", b[S], sigma, logp=logp, observed=Y.ravel() + 0.1)
    return model, ps.fit_saem(model, **TINY)


def test_beside_an_outcome_that_cannot_be_drawn(scalars):
    model, idata = scalars
    assert np.all(
        np.isfinite(ps.predict(model, idata, outcome="y", n_draws=10, random_seed=1)["upper_new"])
    )
    assert np.all(
        np.isfinite(
            ps.residuals(model, idata, outcome="y", x=np.tile(T, N), n_simulations=100)["pit"]
        )
    )
    for call in (
        lambda: ps.predict(model, idata, outcome="z", n_draws=10),
        lambda: ps.simulate(model, idata),
        lambda: ps.residuals(model, idata, outcome="z", x=np.tile(T, N)),
    ):
        with pytest.raises(
            NotImplementedError,
            match="Outcome 'z' cannot be drawn, as its CustomDist has no random=",
        ):
            call()


def test_data_exchanged_after_the_fit(scalars):
    """Figures show the rows of the fit, and say so where the model has others."""
    model, idata = scalars
    try:
        with model:
            pm.set_data({"seen": Y.ravel() + 1.0})
        with pytest.warns(
            UserWarning,
            match="values of 'y' in the model are not those of the fit: 20 of 20 differ",
        ):
            ps.plot_fits(model, idata, outcome="y", x=np.tile(T, N))
        with model:
            pm.set_data(
                {"seen": Y[:2].ravel(), "t": np.tile(T, 2), "code": S[:8]}, coords={"row": range(8)}
            )
        with pytest.raises(
            ValueError,
            match="The model has 8 observed values of 'y', and had 20 when it was fitted",
        ):
            ps.plot_fits(model, idata, outcome="y", x=np.tile(T, 2))
    finally:
        with model:
            pm.set_data(
                {"seen": Y.ravel(), "t": np.tile(T, N), "code": S}, coords={"row": range(S.size)}
            )
