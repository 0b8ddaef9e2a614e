"""The table of several fits: arithmetic, what is refused, what is doubted, how it prints."""

import numpy as np
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group
from pymc_saem.results.build import FitResult, Variable, build_datatree

Y, SUBJECT = np.array([0.5, 1.5, 2.5, 3.5, 4.5]), np.array([0, 0, 1, 1, 1])


def made_up(
    loglik=-10.0,
    error=0.001,
    method="quadrature",
    p=(2, 1),
    *,
    y=Y,
    subject=SUBJECT,
    labels=("ann", "bob"),
    name="y",
    **population,
):
    """A fit with ``p`` parameters of random effects and others."""
    n_subjects, total = len(labels), sum(p)
    attrs = {"n_subjects": n_subjects, "n_observations": len(y), "priors": []}
    if loglik is not None:
        attrs |= {
            "loglik": loglik,
            "loglik_error": error,
            "loglik_method": method,
            "n_parameters": total,
        }
        attrs |= {"aic": -2 * loglik + 2 * total, "bic": -2 * loglik + total * np.log(n_subjects)}
        attrs["bicc"] = -2 * loglik + p[0] * np.log(n_subjects) + p[1] * np.log(len(y))
    return build_datatree(
        FitResult(
            coords={"subject": list(labels)},
            trace={"a": Variable((), np.zeros((1, 3)))},
            population={"parameter": np.array(["a"]), "estimate": np.zeros(1)},
            observed={name: Variable((), np.asarray(y))},
            constant={f"{name}_subject": Variable((), np.asarray(subject))},
            individual={"loglik": Variable(("subject",), np.zeros(n_subjects))},
            attrs={"subject_dim": "subject"},
            group_attrs={"population": attrs | population, "saem_trace": {"objective": "map"}},
        )
    )


def test_criteria_differences_and_weights():
    fits = {
        "wide": made_up(-9.0, p=(4, 1)),
        "small": made_up(-12.01, p=(1, 1)),
        "middle": made_up(-10.0),
    }
    table = ps.compare(fits)
    assert list(table.index) == ["middle", "wide", "small"]
    np.testing.assert_allclose(table["minus_2ll"], [20.0, 18.0, 24.02])
    np.testing.assert_allclose(table["aic"], [26.0, 28.0, 28.02])
    np.testing.assert_allclose(table["difference"], [0.0, 2.0, 2.02])
    np.testing.assert_allclose(
        table["weight"], np.exp([0.0, -1.0, -1.01]) / np.exp([0.0, -1.0, -1.01]).sum()
    )
    np.testing.assert_allclose(table["error"], 0.002)
    assert (
        list(table["n_parameters"]) == [3, 5, 2]
        and set(table["n_subjects"]) == {2}
        and set(table["n_observations"]) == {5}
    )
    by_bic = ps.compare(fits, "bicc")
    assert by_bic.attrs["criterion"] == "bicc" and list(by_bic["bicc"]) == sorted(by_bic["bicc"])
    assert by_bic["difference"].iloc[0] == 0.0 and by_bic["weight"].sum() == pytest.approx(1.0)


def test_it_fits_the_terminal(monkeypatch):
    long = "a model whose name is a sentence, as long as names may be"
    fits = {
        long: made_up(-1234567.8, 0.12345),
        "other": made_up(-1234568.9, np.nan, "linearization", priors=["omega", "sigma"]),
    }
    with pytest.warns(UserWarning, match="computed by different methods"):
        table = ps.compare(fits)
    for columns, headers in (
        (80, "-2LL error AIC diff weight p method"),
        (100, "-2LL error AIC BIC BICc diff weight p method"),
    ):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = str(table).splitlines()
        assert max(map(len, lines)) <= columns and lines[0].split() == headers.split()
    assert (
        lines[1].startswith("a model whose na..")
        and " 0.25 " in lines[1]
        and "nan" not in str(table)
    )
    assert "2 subjects, 5 observations; differences and weights of AIC" in lines
    assert "<table" in table._repr_html_() and "<p>2 subjects" in table._repr_html_()
    assert "observations;" not in str(table[["aic"]])  # a selection is an ordinary DataFrame


DIFFERENT = {
    "outcome": ({"name": "z"}, "the outcomes of 'one' are y, those of 'two' z"),
    "length": ({"y": Y[:4], "subject": SUBJECT[:4]}, "'y' has 5 rows in 'one' and 4 in 'two'"),
    "values": (
        {"y": np.log(Y)},
        r"row 0 of 'y' is 0.5 of subject ann in 'one', and -0.693147 of subject ann in 'two' \(5 of 5 rows",
    ),
    "one value": (
        {"y": np.array([0.5, 1.5, 2.5, 3.6, 4.5])},
        r"row 3 of 'y' is 3.5 of subject bob.* and 3.6 of .*\(1 of 5 rows",
    ),
    "subject": (
        {"subject": np.array([0, 1, 1, 1, 1])},
        "row 1 of 'y' is 1.5 of subject ann in 'one', and 1.5 of subject bob in 'two'",
    ),
    "label": (
        {"labels": ("ann", "eve")},
        "row 2 of 'y' is 2.5 of subject bob in 'one', and 2.5 of subject eve in 'two'",
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_different_rows_are_refused(what):
    change, words = DIFFERENT[what]
    with pytest.raises(
        ValueError, match=f"The fits 'one' and 'two' do not have the same data: {words}"
    ):
        ps.compare({"one": made_up(), "two": made_up(**change)})


def test_the_order_of_rows_does_not_matter():
    order = np.array([4, 0, 3, 1, 2])
    assert (
        len(
            ps.compare(
                {"one": made_up(), "two": made_up(-11.0, y=Y[order], subject=SUBJECT[order])}
            )
        )
        == 2
    )
    other = made_up(-11.0, y=Y[order], subject=1 - SUBJECT[order], labels=("bob", "ann"))
    assert len(ps.compare({"one": made_up(), "two": other})) == 2


def test_rows_of_vectors():
    y = np.column_stack([Y, -Y])
    assert len(ps.compare({"one": made_up(y=y), "two": made_up(-11.0, y=y)})) == 2
    with pytest.raises(
        ValueError, match="row 9 of 'y' is -4.5 of subject bob .* and -4 of subject bob"
    ):
        ps.compare({"one": made_up(y=y), "two": made_up(y=np.where(y == -4.5, -4.0, y))})


def test_missing_values_are_equal():
    y = np.array([0.5, np.nan, 2.5, 3.5, 4.5])
    assert len(ps.compare({"one": made_up(-10.0, y=y), "two": made_up(-11.0, y=y)})) == 2


def test_fits_without_likelihood_and_other_things_are_refused():
    with pytest.raises(
        ValueError,
        match="The fit 'two' has no log-likelihood: it was fitted with likelihood=None.*Fit again with likelihood=\"auto\"",
    ):
        ps.compare({"one": made_up(), "two": made_up(None)})
    with pytest.raises(ValueError, match="log-likelihood of the fit 'two' by laplace is nan"):
        ps.compare({"one": made_up(), "two": made_up(np.nan, np.nan, "laplace")})
    with pytest.raises(
        ValueError, match="criterion is 'dic'; it must be one of 'aic', 'bic', 'bicc'"
    ):
        ps.compare({"one": made_up(), "two": made_up()}, criterion="dic")
    for wrong in ({"one": made_up()}, [made_up(), made_up()]):
        with pytest.raises(
            ValueError,
            match="fits (must be a mapping of two or more|is of type list; it must be a dict of) fits by name",
        ):
            ps.compare(wrong)


def test_errors_larger_than_differences_are_doubted():
    fits = {"one": made_up(-10.0, 0.3), "two": made_up(-10.2, 0.2), "three": made_up(-15.0, 0.1)}
    with pytest.warns(
        UserWarning,
        match="difference between 'one' and 'two' is 0.4, less than the error of their likelihoods, 0.72",
    ) as seen:
        table = ps.compare(fits)
    assert len(seen) == 1 and table.attrs["notes"] == [str(seen[0].message)]


def test_priors_are_noted_where_there_are_any():
    table = ps.compare({"flat": made_up(-10.0), "informed": made_up(-11.0, priors=["omega_ka"])})
    (note,) = table.attrs["notes"]
    assert note.startswith(
        "'informed' maximizes the likelihood times priors (objective \"map\", of omega_ka)"
    )
    assert f"note: {note[:40]}" in str(table)


@pytest.mark.slow
def test_real_fits_and_their_files(tmp_path):
    """A random intercept and the same with a slope; the file of one beside the other."""
    import arviz as az
    import pymc as pm
    import xarray as xr

    def fit(with_slope):
        subject, t = np.repeat(np.arange(12), 3), np.tile([-1.0, 0.0, 1.0], 12)
        y = np.repeat(np.linspace(-1, 1, 12), 3) + 0.3 * t + 0.1 * np.cos(np.arange(36.0))
        with pm.Model(coords={"subject": [f"s{i}" for i in range(12)]}) as model:
            b = pm.Normal(
                "b", pm.Flat("a"), pm.HalfNormal("omega", 1.0, initval=1.0), dims="subject"
            )
            slope = pm.Flat("slope") * t if with_slope else 0.0
            pm.Normal("y", b[subject] + slope, pm.HalfFlat("sigma", initval=1.0), observed=y)
        return ps.fit_saem(
            model, n_explore=60, n_smooth=60, draws=10, standard_errors=None, random_seed=1, progressbar=False,
            compile_kwargs={"mode": "FAST_COMPILE"},
        )  # fmt: skip

    flat, sloped = fit(False), fit(True)
    sloped.to_netcdf(str(tmp_path / "fit.nc"))
    read = (
        getattr(xr, "open_datatree", None)
        if not hasattr(sloped, "groups") or not callable(sloped.groups)
        else az.from_netcdf
    )
    table = ps.compare({"flat": flat, "sloped": read(str(tmp_path / "fit.nc"))})
    assert list(table.index) == ["sloped", "flat"] and table["weight"]["sloped"] > 0.99
    assert list(table["n_parameters"]) == [4, 3] and all(
        "priors" in note for note in table.attrs["notes"]
    )
    assert table["minus_2ll"]["flat"] == pytest.approx(
        -2 * float(get_group(flat, "population").attrs["loglik"])
    )
