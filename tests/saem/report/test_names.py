"""Names and labels of a model beside those of a fit: kept apart, or refused before the first iteration."""

import enum

import numpy as np
import pandas as pd
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.arguments import check_types
from pymc_saem.compat import get_group, group_names
from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.model.read import read_model
from pymc_saem.results.labels import as_labels
from pymc_saem.saem.report.names import names_of_model, own_names, refuse_names
from pymc_saem.saem.run.step import SAEM

STATS = [name for name in SAEM.stats_dtypes_shapes if name != "tune"]
QUICK = {
    "n_explore": 3, "n_smooth": 3, "n_transitions": 10, "n_starts": 0, "draws": 3, "random_seed": 1, "progressbar": False,
    "likelihood": "laplace", "standard_errors": None, "compile_kwargs": {"mode": "FAST_COMPILE"},
}  # fmt: skip


def build(
    mu="mu",
    effect="e",
    dim="subject",
    data="time",
    outcome="y",
    extra="",
    k="k",
    labels="abcd",
    k_labels="uvw",
):
    subject = np.repeat(np.arange(4), 3)
    with pm.Model(coords={dim: list(labels)} | ({k: list(k_labels)} if k else {})) as model:
        e = pm.Normal(effect, pm.Normal(mu, 0, 5), pm.HalfNormal("omega", 2), dims=dim)
        z = pm.Normal("z", 0, 1, dims=k, shape=None if k else 3)
        if extra:
            pm.Deterministic(extra, 2 * e, dims=dim)
        row = e[subject] + z[np.tile(np.arange(3), 4)] + 0 * pm.Data(data, np.zeros(12))
        pm.Normal(outcome, row, 1.0, observed=np.linspace(-1, 2, 12))
    return model


REFUSED = {
    "a dim of the trace": ({"mu": "iteration"}, "'iteration' .*'saem_trace'"),
    "dims of draws": ({"mu": "chain"}, "'chain' .*'posterior'"),
    "of a random effect": ({"effect": "draw"}, "'draw' .*'posterior'"),
    "of a deterministic": ({"extra": "chain"}, "'chain' .*'posterior'"),
    "a statistic": ({"mu": "step_size"}, "'step_size' .*'saem_trace'"),
    "another one": ({"mu": "complete_logp"}, "'complete_logp' .*'saem_trace'"),
    "an acceptance": ({"mu": "accept_mala"}, "'accept_mala' .*'saem_trace'"),
    "a dim that is a statistic": ({"k": "n_failed"}, "'n_failed' .*dim of the model.*'saem_trace'"),
    "an effect's modes": ({"effect": "conditional"}, "'conditional_mode' .*'individual'"),
    "more of them": ({"effect": "natural"}, "'natural_mode' .*'individual'"),
    "the dim of subjects": ({"dim": "effect"}, "'effect' .*dim of the subjects"),
    "a dim of individuals": ({"dim": "shrinkage"}, "'shrinkage' .*'individual'"),
    "whose row it is": ({"data": "y_subject"}, "'y_subject' .*'constant_data'"),
    "a dim that has no name": (
        {"mu": "z_dim_0", "k": None},
        "'z_dim_0' is a dim of the model as well",
    ),
    "a path of a dim": ({"k": "k/l"}, "'k/l' .*take '/' for a path"),
    "equal labels": ({"labels": ["a", "a", "b", "c"]}, "identical as text: 'a' and 'a'"),
    "labels that print alike": ({"labels": [1, "1", 2, 3]}, "identical as text: 1 and '1'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_names_of_a_fit_are_refused_before_the_first_iteration(name):
    names, words = REFUSED[name]
    mixed = read_model(build(**names))
    with pytest.raises(UnsupportedModelError, match=words):
        refuse_names(mixed, STATS)


def test_fit_saem_asks_before_it_runs(monkeypatch):
    monkeypatch.setattr("pymc_saem.saem.fit.run_chains", lambda *arguments: pytest.fail("it ran"))
    with pytest.raises(UnsupportedModelError, match="The name 'step_size' cannot be used"):
        ps.fit_saem(build(mu="step_size"), **QUICK)


class Color(enum.Enum):
    RED = 1


LABELS = [("a", 1), None, pd.Timestamp("2020-02-01"), float("nan")]


@pytest.mark.filterwarnings("ignore::UserWarning")  # about a run that is too short to settle
def test_the_table_of_names_is_complete_and_labels_of_any_kind_are_kept(tmp_path):
    """All names of a fit are the model's or in the table; nothing is in both; files have the same labels."""
    model = build(extra="double", labels=LABELS, k_labels=[("x", 1), Color.RED, "x"])
    idata = ps.fit_saem(model, **QUICK)
    assert "notes" not in idata.attrs
    mixed = read_model(model)
    own, of_model = own_names(mixed, STATS), names_of_model(mixed)
    for group in own:
        dims = {dim for of_one in of_model[group].values() for dim in of_one} | {mixed.subject_dim}
        known = own[group] | set(of_model[group]) | dims
        found = {str(name) for name in get_group(idata, group).variables}
        assert set(of_model[group]) <= found <= known, (group, found - known)
    trace, table = get_group(idata, "saem_trace"), ps.summary(idata)
    assert trace["mu"].values[0, -1] == table.loc["mu", "estimate"]
    for file in ("fit.nc", "fit.zarr"):
        again = ps.load(ps.save(idata, tmp_path / file))
        assert list(get_group(again, "individual")["subject"].values) == [
            str(label) for label in LABELS
        ]
        assert set(group_names(again)) == set(group_names(idata)) and ps.summary(again).equals(
            table
        )
    assert list(table.index[-3:]) == ["z[('x', 1)]", "z[Color.RED]", "z[x]"]
    predicted = ps.predict(model, idata, level="individual", n_draws=3, random_seed=1)
    assert predicted["subject"].map(str).unique().tolist() == [str(label) for label in LABELS]


@pytest.mark.parametrize(
    "labels", [[("north", k) for k in range(4)], ["a", None, 2, ("b",)]], ids=["tuples", "mixed"]
)
def test_simulations_have_the_labels_of_fits(labels):
    values = {"mu": 0.0, "omega": 1.0, "z": np.zeros(3)}
    found = ps.simulate(build(labels=labels), values, random_seed=1)["subject"]
    assert found.dims == ("subject",) and found.values.tolist() == [str(label) for label in labels]
    for label in labels:
        check_types("plot_observation_distribution", {"subject": label})


def test_labels_of_one_kind_stay_and_others_are_text():
    for values in ([1, 2], [1.5, np.nan], ["a", "b"], [True, False]):
        np.testing.assert_array_equal(as_labels(values), np.array(values))
    dates = pd.date_range("2020-01-01", periods=2)
    assert (
        as_labels(dates).dtype == "datetime64[ns]"
        and as_labels(dates, keep_dates=False).dtype.kind == "U"
    )
    for values in (
        [1, 2.5],
        [1, "1"],
        [True, 2],
        [10**30, 1],
        list(dates.tz_localize("UTC")),
        [(1, 2), (3, 4)],
        [None],
        [b"a"],
    ):
        found = as_labels(values)
        assert found.dtype.kind == "U" and found.tolist() == [str(value) for value in values]


def test_a_label_that_no_file_can_store_is_refused_before_the_run():
    with pm.Model(coords={"subject": ["a\0b", "c", "d"]}) as model:
        e = pm.Normal("e", pm.Normal("mu"), pm.HalfNormal("omega"), dims="subject")
        pm.Normal("y", e[np.repeat(np.arange(3), 3)], 1.0, observed=np.arange(9.0))
    with pytest.raises(
        UnsupportedModelError, match=r"'a\\x00b' of 'subject' holds a NUL character"
    ):
        refuse_names(read_model(model), ())


def test_a_mode_that_pytensor_does_not_have_is_refused_by_name():
    with pm.Model() as model:
        e = pm.Normal("e", pm.Normal("mu"), pm.HalfNormal("omega"), shape=3)
        pm.Normal("y", e[np.repeat(np.arange(3), 3)], 1.0, observed=np.arange(9.0))
    with pytest.raises(
        ValueError, match="compile_kwargs has mode='SLOW', which PyTensor does not have"
    ):
        ps.fit_saem(model, compile_kwargs={"mode": "SLOW"})
