"""plot_convergence: what stands in the panels."""

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest
import xarray as xr

import pymc_saem as ps
from pymc_saem.compat import get_group
from tests.support.made_up_fit import made_up_fit


def titles(axes):
    return [ax.get_title(loc="left") for ax in axes]


def curves(ax):
    """Lines with one point per iteration; the mark of the phase has two."""
    return [line for line in ax.get_lines() if len(line.get_xdata()) > 2]


@pytest.fixture(scope="module")
def arrays():
    """A fit of three chains with a long and a short array parameter."""
    with pm.Model(coords={"subject": [1, 2, 3]}) as model:
        b = pm.Normal("b", 0, 1, dims="subject")
        pm.Normal("y", b, 1, observed=np.zeros(3))
    values = {"z": np.arange(9.0), "beta": np.array([[1.0, 2.0]]), "sigma": 0.5}
    return made_up_fit(model, {"b": np.ones(3)}, values, {"y": np.arange(3)}, chains=3, best=1)


def test_default_panels_are_parameters_density_and_acceptance(idata):
    axes = ps.plot_convergence(idata)
    names = ["sigma", "log_ka", "omega_ka", "log_V", "omega_V", "log_CL", "omega_CL"]
    assert titles(axes) == [*names, "complete_logp", "acceptance rate", "step_size"]
    trace = get_group(idata, "saem_trace")
    for ax, name in zip(axes, names, strict=False):
        (line,) = curves(ax)
        np.testing.assert_array_equal(line.get_ydata(), trace[name].values[0])
    assert {line.get_label() for line in curves(axes[-2])} == {"prior", "coordinate", "block"}
    (steps,) = curves(axes[-1])
    expected = np.r_[np.ones(20), np.arange(1.0, 21) ** -0.75]  # step sizes of the two phases
    np.testing.assert_allclose(steps.get_ydata(), expected[: steps.get_ydata().size], rtol=1e-12)


def test_failed_solves_have_a_panel_where_there_are_any(arrays):
    assert titles(ps.plot_convergence(arrays))[-1] == "step_size"
    failed = arrays.copy()
    values = np.zeros((3, 10))
    values[1, 4] = 7
    failed["saem_trace"]["n_failed"] = xr.DataArray(values, dims=("chain", "iteration"))
    ax = ps.plot_convergence(failed)[-1]
    assert ax.get_title(loc="left") == "n_failed" and curves(ax)[1].get_ydata()[4] == 7


def test_the_switch_lies_between_the_phases(idata):
    for ax in ps.plot_convergence(idata):
        (mark,) = [
            line for line in ax.get_lines() if line.get_label() == "end of exploratory phase"
        ]
        assert list(mark.get_xdata()) == [19.5, 19.5]  # iterations 0 to 19 explore


def test_no_switch_where_there_is_one_phase_only(arrays):
    trace = get_group(arrays, "saem_trace")
    assert trace.attrs["n_explore"] == 4
    longer = arrays.copy()
    longer["saem_trace"].attrs["n_explore"] = 10
    for ax in ps.plot_convergence(longer, ["sigma"]):
        assert len(ax.get_lines()) == 3


def test_long_arrays_share_a_panel_and_short_ones_do_not(arrays):
    axes = ps.plot_convergence(arrays, ["z", "beta"])
    assert titles(axes) == ["z (9 entries)", "beta[0, 0]", "beta[0, 1]"]
    assert [len(curves(ax)) for ax in axes] == [27, 3, 3]
    assert titles(ps.plot_convergence(arrays, "z", max_separate=9)) == [f"z[{k}]" for k in range(9)]


def test_the_reported_chain_stands_out(arrays):
    (ax,) = ps.plot_convergence(arrays, "sigma")
    labels = [line.get_label() for line in curves(ax)]
    assert labels[1] == "reported chain" and labels[0] == "other chains"
    assert curves(ax)[1].get_color() != curves(ax)[0].get_color() == curves(ax)[2].get_color()
    values = get_group(arrays, "saem_trace")["sigma"].values
    assert ax.get_title(loc="right") == f"{values[1, -1]:.4g}"


def test_given_axes_are_used(idata):
    _, own = plt.subplots(2, 2)
    axes = ps.plot_convergence(idata, ["sigma", "step_size", "n_failed"], ax=own)
    assert list(axes) == list(own.ravel()[:3])
    assert all(ax.get_xlabel() == "iteration" for ax in axes)
    with pytest.raises(ValueError, match="ax holds 4 Axes; 10 are needed"):
        ps.plot_convergence(idata, ax=own)


def test_figsize(idata):
    axes = ps.plot_convergence(idata, "sigma", figsize=(3, 2))
    assert tuple(axes[0].figure.get_size_inches()) == (3, 2)


def test_errors(idata):
    with pytest.raises(ValueError, match="no variable 'ka'; it has sigma, log_ka"):
        ps.plot_convergence(idata, ["sigma", "ka"])
    without = idata.copy()
    del without["saem_trace"]
    with pytest.raises(
        TypeError,
        match="idata is of type Model; it must be what fit_saem returned, or the same read from a file",
    ):
        ps.plot_convergence(pm.Model())
    with pytest.raises(KeyError, match="no group 'saem_trace'; it has .*population"):
        ps.plot_convergence(without)
