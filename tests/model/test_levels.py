"""What belongs to no subject is refused with the same words in every spelling; what is nested is read in every spelling."""

import warnings

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy.stats import multivariate_normal

import pymc_saem as ps
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.read import read_model
from pymc_saem.saem import UnsupportedModelError
from pymc_saem.saem.mstep.recognize import recognize

RNG = np.random.default_rng(1)
STUDENT, QUESTION = np.repeat(np.arange(10), 4), np.tile(np.arange(4), 10)
X = RNG.normal(size=(40, 6))
T = np.linspace(0.0, 1.0, 40)
Y = RNG.normal(size=40)
BINS = np.arange(40) % 6


def of_students(added, students="centred"):
    """Effects of ten students, and what is added to each row."""
    with pm.Model(coords={"student": range(10), "question": range(4)}) as model:
        omega = pm.HalfNormal("omega", 2.0)
        if students == "centred":
            rows = pm.Normal("e", pm.Normal("mu", 0.0, 5.0), omega, dims="student")[STUDENT]
        else:
            rows = (pm.Normal("mu", 0.0, 5.0) + omega * pm.Normal("e", dims="student"))[STUDENT]
        pm.Normal("y", rows + added(), pm.HalfNormal("sigma", 2.0), observed=Y)
    return model


def centred():
    return pm.Normal("d", 0.0, pm.HalfNormal("tau"), dims="question")[QUESTION]


def log_normal():
    return pm.LogNormal("d", 0.0, pm.HalfNormal("tau"), dims="question")[QUESTION]


def times_scale():
    return pm.HalfNormal("tau") * pm.Normal("d", dims="question")[QUESTION]


def times_exponential():
    return pt.exp(pm.Normal("log_tau")) * pm.Normal("d", dims="question")[QUESTION]


def student_t():
    return (pm.HalfNormal("tau") * pm.StudentT("d", nu=4, mu=0.0, sigma=1.0, dims="question"))[
        QUESTION
    ]


@pytest.mark.parametrize("students", ["centred", "non-centred"])
@pytest.mark.parametrize("added", [centred, log_normal, times_scale, times_exponential, student_t])
def test_crossed_levels_are_refused_in_every_spelling(added, students):
    with pytest.raises(
        UnsupportedModelError, match="'d' and 'e' .* are crossed: .* neither nested"
    ) as refusal:
        read_model(of_students(added, students))
    assert "random_effects" not in str(refusal.value)


@pytest.mark.parametrize("added", [centred, times_scale])
def test_crossed_levels_are_no_parameters_where_the_user_names_one_level(added):
    with pytest.raises(UnsupportedModelError, match="'d' and the random effect 'e' are crossed"):
        read_model(of_students(added), ["e"])


def test_crossed_levels_of_equal_length_are_told_apart_from_one_level():
    with pm.Model() as model:
        a = pm.Normal("a", pm.Normal("mu"), pm.HalfNormal("oa"), shape=10)
        b = pm.Normal("b", 0.0, pm.HalfNormal("ob"), shape=10)
        pm.Normal("y", a[STUDENT] + b[np.arange(40) % 10], 1.0, observed=Y)
    with pytest.raises(
        UnsupportedModelError, match="depends on entry 0 of 'a' and on entry 1 of 'b' .* crossed"
    ):
        read_model(model)


def kernel(length):
    distance = np.arange(6.0)[:, None] - np.arange(6.0)
    return pt.exp(-0.5 * pt.sqr(distance / length)) + 1e-6 * np.eye(6)


SHARED = {
    "shrinkage": lambda: X @ pm.Normal("z", 0.0, pm.HalfNormal("tau"), shape=6),
    "shrinkage, not centred": lambda: X @ (pm.HalfNormal("tau") * pm.Normal("z", shape=6)),
    "scale outside": lambda: pm.HalfNormal("tau") * (X @ pm.Normal("z", shape=6)),
    "horseshoe": lambda: (
        X
        @ (
            pm.HalfCauchy("tau", 1.0)
            * pm.HalfCauchy("local", 1.0, shape=6)
            * pm.Normal("z", shape=6)
        )
    ),
    "one scale each": lambda: X @ (pm.HalfNormal("tau", shape=6) * pm.Normal("z", shape=6)),
    "P-spline": lambda: X @ pt.cumsum(pm.HalfNormal("tau") * pm.Normal("z", shape=6)),
    "correlated": lambda: (
        X[:, :3]
        @ pt.dot(
            pm.LKJCholeskyCov("tau", n=3, eta=2.0, sd_dist=pm.HalfNormal.dist(1.0))[0],
            pm.Normal("z", shape=3),
        )
    ),
    "process": lambda: (
        (pt.linalg.cholesky(kernel(pm.HalfNormal("tau"))) @ pm.Normal("z", shape=6))[BINS] + X[:, 0]
    ),
    "random walk": lambda: (
        X
        @ pm.GaussianRandomWalk(
            "z", sigma=pm.HalfNormal("tau"), init_dist=pm.Normal.dist(), steps=5
        )
    ),
    "basis of a process": lambda: (
        X @ (pt.exp(-pm.HalfNormal("tau") * np.arange(6)) * pm.Normal("z", shape=6))
    ),
}


@pytest.mark.parametrize("kind", SHARED)
def test_vectors_that_all_subjects_share_are_refused_in_every_spelling(kind):
    with pytest.raises(
        UnsupportedModelError, match="'z' is a random effect that is shared by all subjects"
    ):
        read_model(of_students(SHARED[kind]))


PARAMETERS = {
    "coefficients": lambda: X @ pm.Normal("z", shape=6),
    "one coefficient times a scale": lambda: pm.HalfNormal("tau") * pm.Normal("z") * T,
    "amplitudes": lambda: (
        pt.exp(-T[:, None] * pm.HalfNormal("tau", shape=2)) @ pm.Normal("z", shape=2)
    ),
    "inside a nonlinear function": lambda: (
        pm.HalfNormal("tau") * pt.exp(X @ pm.Normal("z", shape=6))
    ),
    "discrimination and difficulty": lambda: (
        pm.LogNormal("tau", 0.0, 0.5, dims="question")[QUESTION]
        * (T - pm.Normal("z", dims="question")[QUESTION])
    ),
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_coefficients_with_priors_of_their_own_stay_parameters(kind):
    mixed = read_model(of_students(PARAMETERS[kind]))
    assert [e.name for e in mixed.random_effects] == ["e"] and "z" in {
        p.name for p in mixed.parameters
    }


def test_ridge_regression_has_no_subjects():
    with pm.Model() as model:
        pm.Normal("y", SHARED["shrinkage"](), pm.HalfNormal("sigma"), observed=Y)
    with pytest.raises(
        UnsupportedModelError, match="'z' .* is shared by all subjects .* depends on 'tau'"
    ):
        read_model(model)


def test_a_hyperprior_is_refused_as_such():
    with pm.Model(coords={"student": range(10)}) as model:
        omega = pm.HalfNormal("omega", pm.Exponential("rate", 1.0))
        pm.Normal("y", pm.Normal("e", 0.0, omega, dims="student")[STUDENT], 1.0, observed=Y)
    with pytest.raises(UnsupportedModelError, match="'rate' enters only the prior of omega"):
        recognize(read_model(model))


# -- three levels ---------------------------------------------------------------------------

SCHOOL = np.repeat(np.arange(5), [2, 3, 2, 4, 3])
CLASS = np.repeat(np.arange(SCHOOL.size), np.tile([1, 2, 3], SCHOOL.size)[: SCHOOL.size])
PUPIL = np.repeat(np.arange(CLASS.size), 2)
NAMES = ("oa", "ob", "oc", "sigma")


def three_levels(spelling):
    with pm.Model() as model:
        mu, scale = pm.Flat("m"), {name: pm.HalfFlat(name, initval=1.0) for name in NAMES}
        sizes = {"a": 5, "b": SCHOOL.size, "c": CLASS.size}
        if spelling == "means":
            a = pm.Normal("a", mu, scale["oa"], shape=5)
            b = pm.Normal("b", a[SCHOOL], scale["ob"], shape=SCHOOL.size)
            rows = pm.Normal("c", b[CLASS], scale["oc"], shape=CLASS.size)[PUPIL]
        else:
            if spelling == "added":
                of = {
                    name: pm.Normal(name, 0.0, scale[f"o{name}"], shape=n)
                    for name, n in sizes.items()
                }
            else:
                of = {
                    name: scale[f"o{name}"] * pm.Normal(name, shape=n) for name, n in sizes.items()
                }
            rows = mu + of["a"][SCHOOL[CLASS[PUPIL]]] + of["b"][CLASS[PUPIL]] + of["c"][PUPIL]
        pm.Deterministic("rows", rows)
        pm.Normal(
            "y", rows, scale["sigma"], observed=np.random.default_rng(3).normal(size=PUPIL.size)
        )
    return model


def exact_law(m, oa, ob, oc, sigma):
    """Mean and covariance of the rows, with a block of ones for each unit of each level."""
    levels = {oa: SCHOOL[CLASS[PUPIL]], ob: CLASS[PUPIL], oc: PUPIL, sigma: np.arange(PUPIL.size)}
    return np.full(PUPIL.size, m), sum(
        sd**2 * (unit[:, None] == unit) for sd, unit in levels.items()
    )


VALUES = {"m": 0.4, "oa": 0.9, "ob": 0.7, "oc": 0.5, "sigma": 0.3}


@pytest.mark.parametrize("spelling", ["means", "added", "times scales"])
def test_three_levels_have_the_law_of_the_linear_mixed_model(spelling):
    model = three_levels(spelling)
    mixed = read_model(model)
    assert mixed.n_subjects == 5 and np.array_equal(
        mixed.outcomes[0].row_subject, SCHOOL[CLASS[PUPIL]]
    )
    assert [e.is_nested for e in mixed.random_effects] == [False, True, True]
    points, rules = PointMap(mixed), recognize(mixed)
    theta = points.theta_at(VALUES)
    (graph,) = model.replace_rvs_by_values([model["rows"]])
    rows = model.compile_fn(graph, inputs=model.value_vars, on_unused_input="ignore")

    def predicted(phi):
        return rows(points.to_point(theta, phi, points.template))

    mean = np.array(rules.mean.mean(theta, 5))
    omega = np.zeros((mixed.n_phi, mixed.n_phi))
    for block in rules.omegas:
        omega[np.ix_(block.columns, block.columns)] = (
            points.natural_theta(theta)[block.parameter.name] ** block.power
        ) ** 2 * block.base
    assert {r.parameter.name: r.kind for r in rules.omegas} == {
        "oa": "scalar",
        "ob": "scalar",
        "oc": "scalar",
    }
    covariance = VALUES["sigma"] ** 2 * np.eye(PUPIL.size)
    for subject in range(5):
        units = [mean + np.eye(5)[:, [subject]] * column for column in np.eye(mixed.n_phi)]
        slopes = np.stack([predicted(phi) - predicted(mean) for phi in units], axis=-1)
        covariance += slopes @ omega @ slopes.T
    exact = exact_law(**VALUES)
    assert np.allclose(predicted(mean), exact[0]) and np.allclose(covariance, exact[1])


@pytest.mark.slow
def test_a_fit_of_three_levels_written_as_means_has_the_exact_likelihood():
    model = three_levels("means")
    with warnings.catch_warnings(action="ignore"):  # fifteen iterations are no estimate
        fit = ps.fit_saem(
            model,
            n_explore=10,
            n_smooth=5,
            n_starts=0,
            n_transitions=5,
            compile_kwargs={"mode": "FAST_COMPILE"},
            likelihood="linearization",
            standard_errors=None,
            random_seed=1,
            progressbar=False,
        )
    population = fit["population"]
    found = dict(
        zip(
            population["parameter"].values.tolist(),
            population["estimate"].values.tolist(),
            strict=True,
        )
    )
    y = np.asarray(fit["observed_data"]["y"])
    assert population.attrs["loglik"] == pytest.approx(
        multivariate_normal(*exact_law(**found)).logpdf(y), abs=1e-6
    )


# -- vectors with constants, which may be either ----------------------------------------------


def rasch(items):
    with pm.Model(coords={"student": range(10), "question": range(4)}) as model:
        ability = pm.Normal("ability", 0.0, 1.0, dims="student")[STUDENT]
        pm.Bernoulli("right", logit_p=ability - items()[QUESTION], observed=Y > 0)
    return model


@pytest.mark.parametrize(
    "items",
    [
        lambda: pm.Normal("d", 0.0, 3.0, dims="question"),
        lambda: pm.Normal("d", 0.0, pm.HalfNormal("tau"), dims="question"),
    ],
    ids=["constants", "estimated"],
)
def test_abilities_with_a_known_law_are_no_parameters_unless_the_user_says_so(items):
    with pytest.raises(
        UnsupportedModelError, match="crossed, neither nested|are crossed: .* neither nested"
    ):
        read_model(rasch(items))


def test_crossed_levels_with_constants_are_read_as_their_user_says():
    model = rasch(lambda: pm.Normal("d", 0.0, 3.0, dims="question"))
    with pytest.raises(
        UnsupportedModelError,
        match=r"if its entries are parameters, name .*random_effects=\['ability'",
    ):
        read_model(model)
    mixed = read_model(model, ["ability"])
    assert np.array_equal(mixed.outcomes[0].row_subject, STUDENT) and [
        p.name for p in mixed.parameters
    ] == ["d"]


def test_units_with_a_known_spread_are_a_level_and_no_parameters():
    unit = 2 * STUDENT + QUESTION // 2
    mixed = read_model(of_students(lambda: pm.Normal("k", 0.0, 0.5, shape=20)[unit]))
    assert [(e.name, e.is_nested) for e in mixed.random_effects] == [("e", False), ("k", True)]
    assert np.array_equal(mixed.random_effects[1].unit_subject, np.arange(20) // 2)


def test_one_draw_of_dependent_entries_is_no_random_effect():
    with pm.Model(coords={"student": range(10)}) as model:
        e = pm.ZeroSumNormal("e", pm.HalfNormal("omega"), dims="student")
        pm.Normal("y", e[STUDENT], 1.0, observed=Y)
    with pytest.raises(
        UnsupportedModelError, match="'e' is one draw of a ZeroSumNormal.* shared by all subjects"
    ):
        read_model(model)


def test_an_effect_of_questions_and_students_is_one_of_the_students_beside_others():
    mixed = read_model(
        of_students(
            lambda: pm.Normal("k", 0.0, pm.HalfNormal("tau"), dims=("question", "student"))[
                QUESTION, STUDENT
            ]
        )
    )
    assert mixed.subject_dim == "student" and np.array_equal(mixed.outcomes[0].row_subject, STUDENT)


def in_halves(how, dims):
    """Two effects of five subjects each; which rows they enter."""
    with pm.Model(coords={"half": range(5)}) as model:
        mu, omega = pm.Normal("mu", 0.0, 5.0), pm.HalfNormal("omega", 2.0)
        e, f = (
            pm.Normal(name, mu, omega, shape=None if dims else 5, dims="half" if dims else None)
            for name in "ef"
        )
        if how == "one vector":
            rows = pt.concatenate([e, f])[STUDENT]
        elif how == "two sums":
            rows = np.eye(10)[STUDENT][:, :5] @ e + np.eye(10)[STUDENT][:, 5:] @ f
        else:
            rows = e[STUDENT % 5] + f[STUDENT % 5] * T
        pm.Normal("y", rows, 1.0, observed=Y)
    return model


@pytest.mark.parametrize("how", ["one vector", "two sums"])
def test_effects_that_no_row_joins_are_the_same_subjects_only_if_the_user_says_so(how):
    with pytest.warns(
        UserWarning, match="'e' and 'f' both have 5 entries, and no row depends on both of them"
    ):
        read_model(in_halves(how, dims=False))


@pytest.mark.parametrize("how, dims", [("joined by rows", False), ("one vector", True)])
def test_effects_of_the_same_subjects_need_no_word(how, dims):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_model(in_halves(how, dims)).n_subjects == 5
