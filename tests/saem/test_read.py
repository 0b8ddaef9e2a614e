"""Reading models: what is found, and what is refused with which words."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from models import random_intercept, random_intercept_data, slopes, slopes_data, theophylline

from pymc_saem.saem import UnsupportedModelError
from pymc_saem.saem.read import read_model

Y, SUBJECT = random_intercept_data()


def test_random_effects_parameters_and_rows_are_found():
    mixed = read_model(random_intercept())
    assert [e.name for e in mixed.random_effects] == ["b"]
    assert [p.name for p in mixed.parameters] == ["a", "omega", "sigma"]
    assert mixed.subject_dim == "subject" and mixed.subjects == tuple(range(1, 13))
    assert np.array_equal(mixed.outcomes[0].row_subject, SUBJECT)


def test_rows_at_time_zero_are_found_although_no_random_effect_changes_them():
    mixed = read_model(theophylline())
    assert np.array_equal(mixed.outcomes[0].row_subject, np.repeat(np.arange(12), 11))


def test_matrix_effects_and_shuffled_rows():
    data = slopes_data()
    order = np.random.default_rng(1).permutation(data["y"].size)
    for name in ("y", "t", "subject"):
        data[name] = data[name][order]
    mixed = read_model(slopes(data))
    assert np.array_equal(mixed.outcomes[0].row_subject, data["subject"])
    assert mixed.phi_labels() == ["b[intercept]", "b[slope]"]


def test_shapes_without_dims():
    with pm.Model() as model:
        a = pm.Normal("a")
        b = pm.Normal("b", a, 1.0, shape=12)
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)
    mixed = read_model(model)
    assert mixed.n_subjects == 12 and mixed.subject_dim == "subject"


def test_effects_with_constant_laws_are_found():
    with pm.Model(coords={"subject": range(12)}) as model:
        sigma = pm.HalfNormal("sigma")
        b = pm.Normal("b", 0.0, 1.0, dims="subject")
        pm.Normal("y", b[SUBJECT], sigma, observed=Y)
    assert [e.name for e in read_model(model).random_effects] == ["b"]


def test_choice_by_hand():
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.Normal("b", a, 1.0, dims="subject")
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)
    assert [e.name for e in read_model(model, ["b"]).random_effects] == ["b"]
    with pytest.raises(
        UnsupportedModelError, match=r"random_effects names \['c'\], but the free variables are \['a', 'b'\]"
    ):
        read_model(model, ["c"])
    with pytest.raises(UnsupportedModelError, match="'a' has shape .* and no subject axis"):
        read_model(model, ["a"])


def test_a_model_without_random_effects():
    with pm.Model() as model:
        a = pm.Normal("a")
        pm.Normal("y", a, 1.0, observed=Y)
    with pytest.raises(UnsupportedModelError, match=r"No random effect was found.*a\(\)"):
        read_model(model)


def test_a_random_effect_without_the_subject_axis():
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.Normal("b", a, 1.0, dims="subject")
        c = pm.Normal("c", a, 1.0)
        pm.Normal("y", b[SUBJECT] + c, 1.0, observed=Y)
    with pytest.raises(UnsupportedModelError, match="'c' has shape .* and no subject axis"):
        read_model(model, ["b", "c"])


def test_a_row_of_two_subjects():
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.Normal("b", a, 1.0, dims="subject")
        neighbour = (SUBJECT + (np.arange(36) == 5)) % 12
        pm.Normal("y", b[SUBJECT] + b[neighbour], 1.0, observed=Y)
    with pytest.raises(UnsupportedModelError, match=r"Row 5 of 'y' depends on more than one subject \(1 such rows"):
        read_model(model)


def test_a_row_of_no_subject():
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.Normal("b", a, 1.0, dims="subject")
        mu = pt.set_subtensor(b[SUBJECT][7], 0.0)
        pm.Normal("y", mu, 1.0, observed=Y)
    with pytest.raises(UnsupportedModelError, match=r"Row 7 of 'y' depends on no random effect \(1 of 36"):
        read_model(model)


def test_a_free_parameter_that_nothing_depends_on():
    model = random_intercept()
    with model:
        pm.Normal("idle")
    with pytest.raises(UnsupportedModelError, match="No observed variable depends on the free variable 'idle'"):
        read_model(model)


def test_missing_data_are_refused_by_name():
    y = Y.copy()
    y[3] = np.nan
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.Normal("b", a, 1.0, dims="subject")
        with pytest.warns(Warning, match="missing values"):
            pm.Normal("y", b[SUBJECT], 1.0, observed=y)
    with pytest.raises(UnsupportedModelError, match="observed data of 'y' have missing values"):
        read_model(model)


def test_potentials_and_models_without_data_are_refused():
    model = random_intercept()
    with model:
        pm.Potential("extra", -(model["a"] ** 2))
    with pytest.raises(UnsupportedModelError, match="pm.Potential terms \\(extra\\)"):
        read_model(model)
    with pm.Model(coords={"subject": range(3)}) as empty:
        pm.Normal("b", pm.Normal("a"), 1.0, dims="subject")
    with pytest.raises(UnsupportedModelError, match="no observed variable"):
        read_model(empty)


def test_a_density_that_is_never_finite_names_the_row():
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.Normal("b", a, 1.0, dims="subject")
        pm.LogNormal("y", b[SUBJECT], 1.0, observed=np.where(np.arange(36) == 4, -1.0, 1.0))
    with pytest.raises(UnsupportedModelError, match="log density of 'y' is not finite in 1 of 36 rows .first: row 4"):
        read_model(model)


def test_two_grouping_axes_must_be_chosen_by_hand():
    with pm.Model(coords={"subject": range(12), "site": range(3)}) as model:
        a = pm.Flat("a")
        b = pm.Normal("b", a, 1.0, dims="subject")
        c = pm.Normal("c", a, 1.0, dims="site")
        pm.Normal("y", b[SUBJECT] + c[SUBJECT % 3], 1.0, observed=Y)
    with pytest.raises(UnsupportedModelError, match="More than one grouping axis was found: .*site.*subject"):
        read_model(model)


def test_other_families_of_random_effects_are_refused():
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.StudentT("b", nu=4, mu=a, sigma=1.0, dims="subject")
        pm.Normal("y", b[SUBJECT], 1.0, observed=Y)
    with pytest.raises(UnsupportedModelError, match="random effect 'b' is a StudentT; closed-form M-steps need Normal"):
        read_model(model)
