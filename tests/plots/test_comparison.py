"""plot_comparison: estimates, intervals and differences of several fits."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.compat import get_group
from tests.support.made_up_fit import made_up_fit


def with_attrs(fit, loglik, n_parameters, error=0.5):
    """The fit with a likelihood, and AIC and BIC computed here."""
    attrs = {"loglik": loglik, "loglik_error": error, "aic": -2 * loglik + 2 * n_parameters}
    attrs |= {
        "bic": -2 * loglik + np.log(3) * n_parameters,
        "bicc": -2 * loglik + np.log(3) * n_parameters,
    }
    fit["population"].attrs.update(attrs)
    return fit


def made(observed, parameters, se=None):
    with pm.Model(coords={"subject": [1, 2, 3]}) as model:
        b = pm.Normal("b", 0, 1, dims="subject")
        pm.Normal("y", b, 1, observed=observed)
    fit = made_up_fit(model, {"b": np.ones(3)}, parameters, {"y": np.arange(3)})
    if se is not None:
        estimate = fit["population"]["estimate"]
        fit["population"]["lower"], fit["population"]["upper"] = (
            estimate - 1.96 * se,
            estimate + 1.96 * se,
        )
    return fit


@pytest.fixture
def fits():
    y = np.array([1.0, 2.0, 3.0])
    one = with_attrs(made(y, {"sigma": 0.5, "z": np.arange(6.0)}, se=0.1), -100.0, 2)
    two = with_attrs(made(y, {"sigma": 0.7, "beta": np.array([1.0, 2.0])}), -98.0, 5)
    return {"plain": one, "rich": two}


def lines(ax, label):
    return [found for found in ax.get_lines() if found.get_label() == label]


def test_parameters_side_by_side(fits):
    axes = ps.plot_comparison(fits, units={"sigma": "mg/L"})
    assert [ax.get_title(loc="left") for ax in axes] == [
        "sigma",
        "z",
        "beta[0]",
        "beta[1]",
        "criteria",
    ]
    (plain,), (rich,) = lines(axes[0], "plain"), lines(axes[0], "rich")
    assert list(plain.get_xdata()) == [0.5] and list(rich.get_xdata()) == [0.7]
    assert plain.get_ydata()[0] < rich.get_ydata()[0] and plain.get_color() != rich.get_color()
    intervals = [found for found in axes[0].get_lines() if len(found.get_xdata()) == 2]
    assert len(intervals) == 1 and intervals[0].get_color() == plain.get_color()
    np.testing.assert_allclose(intervals[0].get_xdata(), [0.5 - 0.196, 0.5 + 0.196])
    assert axes[0].get_xlabel() == "estimate [mg/L]"
    assert [t.get_text() for t in axes[1].get_yticklabels()] == ["0", "1", "2", "3", "4", "5"]
    assert lines(axes[2], "plain")[0].get_xdata().size == 0  # a fit without this parameter


def test_criteria_are_differences_to_the_best(fits):
    ax = ps.plot_comparison(fits)[-1]
    widths = {
        c.get_label(): [bar.get_width() for bar in c]
        for c in ax.containers
        if hasattr(c, "patches") and c.patches
    }
    assert widths["plain"] == pytest.approx([4.0, 0.0, 4 - 3 * np.log(3)])  # -2LL 200 and 196
    assert widths["rich"] == pytest.approx([0.0, 2.0, 0.0])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["-2LL", "AIC", "BIC"]
    ends = [
        b.get_segments()[0][:, 0] for c in ax.containers if hasattr(c, "lines") for b in c.lines[2]
    ]
    np.testing.assert_allclose(ends[0], [3.0, 5.0])  # of -2LL: twice the 0.5 of the log-likelihood


def test_criteria_of_different_data_are_not_shown(fits):
    other = with_attrs(made(np.zeros(3), {"sigma": 1.0}), -90.0, 1)
    axes = ps.plot_comparison({**fits, "other": other}, "sigma")
    assert [ax.get_title(loc="left") for ax in axes] == ["sigma"]
    assert len(ps.plot_comparison(fits, "sigma", criteria=())) == 1


def test_fits_from_files(idata, tmp_path):
    idata.to_netcdf(tmp_path / "fit.nc")
    _, own = plt.subplots(2)
    axes = ps.plot_comparison(
        {"a": idata, "b": az.from_netcdf(tmp_path / "fit.nc")}, ["sigma"], ax=own
    )
    assert list(axes) == list(own)
    table = get_group(idata, "population")
    k = list(table["parameter"].values).index("sigma")
    assert lines(axes[0], "b")[0].get_xdata()[0] == table["estimate"].values[k]


def test_errors(fits):
    with pytest.raises(ValueError, match="fits is of type list; it must be a dict of fits by name"):
        ps.plot_comparison(list(fits.values()))
    with pytest.raises(ValueError, match="No fit has a parameter 'tau'; there are sigma, z, beta"):
        ps.plot_comparison(fits, "tau")
    with pytest.raises(
        ValueError, match="There is no criterion 'dic'; there are loglik, aic, bic, bicc"
    ):
        ps.plot_comparison(fits, criteria=["dic"])
