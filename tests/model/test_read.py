"""Reading models: what is found, and what is refused with which words."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.read import read_model
from pymc_saem.saem import UnsupportedModelError
from pymc_saem.saem.mstep.recognize import recognize
from tests.support.models import (
    random_intercept,
    random_intercept_data,
    slopes,
    slopes_data,
    theophylline,
)

Y, SUBJECT = random_intercept_data()
X12 = np.linspace(-1, 1, 12)


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
        UnsupportedModelError,
        match=r"random_effects names \['c'\], but the free variables are \['a', 'b'\]",
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
    with pytest.raises(
        UnsupportedModelError, match=r"Row 5 of 'y' depends on more than one subject \(1 such rows"
    ):
        read_model(model)


def test_a_row_of_no_subject():
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.Normal("b", a, 1.0, dims="subject")
        mu = pt.set_subtensor(b[SUBJECT][7], 0.0)
        pm.Normal("y", mu, 1.0, observed=Y)
    with pytest.raises(
        UnsupportedModelError, match=r"Row 7 of 'y' depends on no random effect \(1 of 36"
    ):
        read_model(model)


def test_a_free_parameter_that_nothing_depends_on():
    model = random_intercept()
    with model:
        pm.Normal("idle")
    with pytest.raises(
        UnsupportedModelError, match="No observed variable depends on the free variable 'idle'"
    ):
        read_model(model)


def test_missing_rows_are_left_out():
    y = Y.copy()
    y[[3, 20]] = np.nan
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.Normal("b", a, 1.0, dims="subject")
        with pytest.warns(Warning, match="missing values"):
            pm.Normal("y", b[SUBJECT], 1.0, observed=y)
    mixed = read_model(model)
    assert [p.name for p in mixed.parameters] == ["a"] and [
        e.name for e in mixed.random_effects
    ] == ["b"]
    assert np.array_equal(mixed.outcomes[0].row_subject, np.delete(SUBJECT, [3, 20]))


def test_missing_rows_that_depend_on_each_other_are_refused_by_name():
    y = Y.reshape(12, 3).copy()
    y[3, 1] = np.nan
    with pm.Model(coords={"subject": range(12)}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        with pytest.warns(Warning, match="missing values"):
            pm.MvNormal("y", b[:, None] + np.zeros(3), np.eye(3), observed=y)
    with pytest.raises(
        UnsupportedModelError, match="observed data of 'y' have missing values .* not independent"
    ):
        read_model(model)


def test_missing_censored_rows_are_refused():
    with pm.Model(coords={"subject": range(12)}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        with pytest.warns(Warning, match="missing values"):
            law = pm.Normal.dist(b[SUBJECT], 1.0)
            pm.Censored(
                "y", law, lower=-1.0, upper=None, observed=np.where(np.arange(36) == 3, np.nan, Y)
            )
    with pytest.raises(
        UnsupportedModelError,
        match="of 'y' have missing values .* as with pm.Censored. Drop those rows",
    ):
        read_model(model)


def test_outcomes_without_observed_values_are_refused():
    with pm.Model(coords={"subject": range(12)}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        with pytest.warns(Warning, match="missing values"):
            pm.Normal("y", b[SUBJECT], 1.0, observed=np.full(36, np.nan))
    with pytest.raises(UnsupportedModelError, match="observed variable 'y' has no observed value"):
        read_model(model)


def test_labels_in_place_of_codes_are_refused():
    with pm.Model(coords={"subject": range(1, 13)}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        pm.Normal("y", b[SUBJECT + 1], 1.0, observed=Y)
    with pytest.raises(
        UnsupportedModelError, match=r"index 12 is out of bounds .* by codes 0, 1, .* not by labels"
    ):
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
    with pytest.raises(
        UnsupportedModelError,
        match="log density of 'y' is not finite in 1 of 36 rows .first: row 4",
    ):
        read_model(model)


def two_levels(of_unit, dims=("subject", "occasion")):
    """Intercepts of 12 subjects, and of units to which ``of_unit`` assigns the 36 rows."""
    with pm.Model(coords={dims[0]: range(12), dims[1]: range(of_unit.max() + 1)}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims=dims[0])
        c = pm.Normal("c", 0.0, pm.HalfNormal("o"), dims=dims[1])
        pm.Normal("y", b[SUBJECT] + c[of_unit], 1.0, observed=Y)
    return model


def test_occasions_are_nested_in_subjects():
    occasion = 2 * SUBJECT + (np.arange(36) % 3 == 2)
    occasion[0:3] = 0  # the first subject has one occasion
    occasion[occasion > 0] -= 1
    mixed = read_model(two_levels(occasion))
    assert (
        mixed.n_subjects == 12 and mixed.n_phi == 3 and mixed.phi_labels() == ["b", "c #1", "c #2"]
    )
    b, c = mixed.random_effects
    assert not b.is_nested and np.array_equal(
        c.unit_subject, np.concatenate([[0], np.repeat(np.arange(1, 12), 2)])
    )
    values = np.arange(23.0)
    block = c.to_columns(values, 12)
    assert (
        block.shape == (12, 2)
        and block[0, 1] == 0
        and np.array_equal(c.from_columns(block), values)
    )


def test_the_upper_level_is_that_with_fewer_entries():
    site = SUBJECT % 3
    with pm.Model(coords={"subject": range(12), "site": range(3)}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        c = pm.Normal("c", 0.0, 1.0, dims="site")
        pm.Normal("y", b[SUBJECT] + c[site], 1.0, observed=Y)
    mixed = read_model(model, ["b", "c"])
    assert mixed.subject_dim == "site" and np.array_equal(mixed.outcomes[0].row_subject, site)


def test_group_means_are_parameters_and_no_upper_level():
    """As they are where the effects are written around them: only eta has a distribution with an estimated parameter."""
    with pm.Model(coords={"subject": range(12), "group": range(3)}) as model:
        b = pm.Normal("b", 0.0, 5.0, dims="group")
        eta = pm.Normal("eta", 0.0, 1.0, dims="subject")
        pm.Normal(
            "y", (b[np.arange(12) % 3] + pm.HalfNormal("omega") * eta)[SUBJECT], 1.0, observed=Y
        )
    for chosen in (None, ["eta"]):
        assert [p.name for p in read_model(model, chosen).parameters] == ["b", "omega"]


def test_units_of_two_subjects_are_refused():
    crossed = np.arange(36) % 18
    with pytest.raises(
        UnsupportedModelError,
        match="one entry per occasion. are crossed: entry 0 of .c. occurs in rows of entries 0 and 6",
    ):
        read_model(two_levels(crossed))


def test_an_occasion_whose_mean_is_the_subjects_effect():
    """Rows reach their subject through the occasion only; phi is the deviation from the mean."""
    occasion = 2 * SUBJECT + (np.arange(36) % 3 == 2)
    with pm.Model(coords={"subject": range(12), "occasion": range(24)}) as model:
        b = pm.Normal("b", pm.Flat("a"), 1.0, dims="subject")
        c = pm.Normal("c", b[np.repeat(np.arange(12), 2)], pm.HalfNormal("o"), dims="occasion")
        pm.Normal("y", c[occasion], 1.0, observed=Y)
    mixed = read_model(model)
    assert [e.form for e in mixed.random_effects] == ["direct", "deviation"]
    assert np.array_equal(mixed.outcomes[0].row_subject, SUBJECT)
    assert np.array_equal(mixed.random_effects[1].unit_subject, np.repeat(np.arange(12), 2))
    points, rng = PointMap(mixed), np.random.default_rng(1)
    theta, phi = rng.normal(size=2), rng.normal(size=(12, 3))
    point = points.to_point(theta, phi, points.template)
    assert np.allclose(point["c"], point["b"].repeat(2) + phi[:, 1:].ravel()) and np.allclose(
        points.phi_of(point), phi
    )


def test_an_occasion_whose_scale_is_the_subjects_effect_is_refused():
    with pm.Model(coords={"subject": range(12), "occasion": range(36)}) as model:
        b = pm.LogNormal("b", pm.Flat("a"), 1.0, dims="subject")
        c = pm.Normal("c", 0.0, b[SUBJECT], dims="occasion")
        pm.Normal("y", c, pm.HalfNormal("o"), observed=Y)
    with pytest.raises(
        UnsupportedModelError,
        match="'c' .one entry per occasion. depends on the random effect 'b', and",
    ):
        read_model(model, ["b", "c"])


def test_standard_normal_effects_are_read_as_what_they_are_used_for():
    with pm.Model(coords={"subject": range(12)}) as model:
        a, o = pm.Flat("a"), pm.HalfNormal("o")
        eta = pm.Normal("eta", 0.0, 1.0, dims="subject")
        b = pm.Deterministic("b", a + o * X12 + o * eta, dims="subject")
        pm.Normal("y", pm.math.exp(b)[SUBJECT], pm.HalfNormal("sigma"), observed=Y)
    mixed = read_model(model)
    (effect,) = mixed.random_effects
    assert effect.form == "standard"
    rules = recognize(mixed)
    # a mean and a covariance at once
    assert {r.parameter.name: r.kind for r in rules.scores} == {"o": "numeric"}
    points, rng = PointMap(mixed), np.random.default_rng(1)
    theta, phi = rng.normal(size=3), rng.normal(size=(12, 1))
    point = points.to_point(theta, phi, points.template)
    o_value = np.exp(theta[1])
    assert np.allclose(theta[0] + o_value * X12 + o_value * point["eta"], phi[:, 0])
    assert np.allclose(points.phi_of(point), phi)


def test_an_effect_that_is_used_twice_is_read_as_it_stands():
    with pm.Model(coords={"subject": range(12)}) as model:
        a, o = pm.Flat("a"), pm.HalfNormal("o")
        eta = pm.Normal("eta", 0.0, 1.0, dims="subject")
        pm.Normal("y", (a + o * eta)[SUBJECT] + pm.math.exp(eta)[SUBJECT], 1.0, observed=Y)
    assert read_model(model).random_effects[0].form == "direct"


def test_families_without_a_gaussian_law():
    with pm.Model(coords={"subject": range(12)}) as model:
        a = pm.Flat("a")
        b = pm.StudentT("b", nu=4, mu=a, sigma=1.0, dims="subject")
        c = pm.Gamma("c", 2.0, 1.0, dims="subject")
        pm.Normal("y", b[SUBJECT] * c[SUBJECT], 1.0, observed=Y)
    mixed = read_model(model)
    assert [(e.name, e.is_gaussian, e.link) for e in mixed.random_effects] == [
        ("b", False, "value"),
        ("c", False, "value"),
    ]


def test_a_family_with_fewer_free_entries_is_refused():
    with pm.Model(coords={"subject": range(12)}) as model:
        share = pm.Dirichlet("share", np.ones(3), shape=(12, 3))
        pm.Normal("y", share[SUBJECT, 0], pm.HalfNormal("sigma"), observed=Y)
    with pytest.raises(
        UnsupportedModelError,
        match="'share' is a Dirichlet, whose unconstrained value has a different shape",
    ):
        read_model(model, ["share"])
