"""What rows and distributions depend on is the same wherever a model starts, and whatever its rows do there."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

from pymc_saem.model.read import read_model
from pymc_saem.saem import UnsupportedModelError
from pymc_saem.saem.mstep.recognize import recognize

N, M = 8, 5
G, T = np.repeat(np.arange(N), M), np.tile(np.arange(float(M)), N)
PARTNER = np.arange(N) ^ 1
RNG = np.random.default_rng(0)
Y, W = RNG.normal(size=N * M), RNG.normal(size=N)


def model_of(rows, **law):
    with pm.Model(coords={"subject": range(N)}) as model:
        e = pm.Normal(
            "e",
            law.get("mean", lambda: pm.Normal("mu", 0, 5))(),
            pm.HalfNormal("omega", 2),
            dims="subject",
        )
        pm.Normal("y", rows(e), pm.HalfNormal("sigma", 2), observed=Y)
    return model


PARTNERS = {
    "coefficient at 0": lambda e: e[G] + pm.Normal("gamma", 0, 1, initval=0.0) * e[PARTNER[G]],
    "coefficient at 0.3": lambda e: e[G] + pm.Normal("gamma", 0, 1, initval=0.3) * e[PARTNER[G]],
    "below a threshold": lambda e: e[G] + pt.maximum(e[PARTNER[G]] - 4.0, 0.0),
    "the larger of two": lambda e: pt.maximum(e[G], e[PARTNER[G]]),
    "behind a switch": lambda e: pt.switch(e[PARTNER[G]] > 3.0, e[G], 2.0 * e[G]),
    "by a matrix": lambda e: (np.eye(N) + 0.1 * np.eye(N)[PARTNER])[G] @ e,
    "deviation from the mean": lambda e: e[G] - e.mean(),
    "cumulated": lambda e: pt.cumsum(e)[G],
    "sorted": lambda e: pt.sort(e)[G],
}


@pytest.mark.parametrize("kind", PARTNERS)
def test_rows_of_two_subjects_are_refused_wherever_they_start(kind):
    with pytest.raises(
        UnsupportedModelError, match="depends on more than one subject|is shared by all subjects"
    ):
        read_model(model_of(PARTNERS[kind]))


def test_a_law_of_the_partners_effect_is_refused():
    def rows(e):
        other = pm.Normal("other", pm.Normal("gamma", 0, 1) * e[PARTNER], 1.0, dims="subject")
        return e[G] + other[G]

    with pytest.raises(UnsupportedModelError, match="more than one subject"):
        read_model(model_of(rows))


ROWS = {
    "switch before a change point": lambda e: pt.switch(e[G] < T, T - e[G], 0.0),
    "switch that data decide": lambda e: pt.switch(T > 0, e[G] * T, 1.0),
    "maximum": lambda e: pt.maximum(T - e[G], 0.0),
    "clip": lambda e: pt.clip(e[G], -0.1, 0.1),
    "comparison": lambda e: pt.cast(e[G] > 30.0, "float64"),
    "rounded": lambda e: pt.floor(e[G] / 100.0),
    "zero at time zero": lambda e: T * pt.exp(e[G]),
    "design matrix": lambda e: np.eye(N)[G] @ e,
    "one branch each": lambda e: pt.set_subtensor(pt.zeros(N * M)[np.arange(N * M)], e[G]),
    "stacked": lambda e: pt.concatenate([e[G[: N * M // 2]], e[G[N * M // 2 :]]]),
    "matrix": lambda e: (e[:, None] * np.ones(M)).ravel(),
    "repeated": lambda e: pt.repeat(e, M),
    "mask": lambda e: e[np.eye(N, dtype=bool).any(axis=0)][G],
    "softmax over coefficients": lambda e: pt.special.softmax(e[:, None] * np.arange(3.0), axis=1)[
        G, 1
    ],
}


@pytest.mark.parametrize("kind", ROWS)
def test_the_subject_of_a_row_is_found_where_the_row_does_not_move(kind):
    mixed = read_model(model_of(ROWS[kind]))
    assert np.array_equal(mixed.outcomes[0].row_subject, G)


def test_mixed_up_rows_of_a_foreign_operation_are_found_by_experiment():
    mixed = read_model(
        model_of(lambda e: pt.sort(pt.stack([e[G], e[G] + 5.0], axis=1), axis=1)[:, 0])
    )
    assert np.array_equal(mixed.outcomes[0].row_subject, G)


@pytest.mark.parametrize("start", [0.0, 0.3])
def test_a_product_in_a_mean_has_the_same_rules_wherever_it_starts(start):
    def mean():
        scale, z = pm.HalfNormal("scale", 1), pm.Normal("z", 0, 1, initval=start)
        return pm.Normal("mu", 0, 5) + scale * z * W

    rules = recognize(read_model(model_of(lambda e: e[G], mean=mean)))
    assert {p.name for p in rules.mean.parameters} == {"mu", "z"}  # affine in z, whatever scale is
    assert [rule.parameter.name for rule in rules.scores] == ["scale"]


def test_a_bent_mean_is_bent_although_it_starts_straight():
    def mean():
        return (
            pm.Normal("mu", 0, 5)
            + pt.switch(pm.Normal("beta", 0.0, 1.0, initval=5.0) > 4.6, 1.0, 2.0) * W
        )

    rules = recognize(read_model(model_of(lambda e: e[G], mean=mean)))
    assert [rule.parameter.name for rule in rules.scores] == ["beta"]


def test_a_scale_with_a_bound_is_proportional_nowhere_near_it():
    with pm.Model(coords={"subject": range(N)}) as model:
        omega = pm.HalfNormal("omega", 2.0, initval=1.0)
        e = pm.Normal("e", pm.Normal("mu", 0, 5), pt.maximum(omega, 0.1), dims="subject")
        pm.Normal("y", e[G], pt.maximum(pm.HalfNormal("sigma", 2.0, initval=1.0), 0.1), observed=Y)
    rules = recognize(read_model(model))
    assert {rule.parameter.name for rule in rules.scores} == {"omega", "sigma"}


def test_a_proportional_scale_is_recognized_where_predictions_start_at_zero():
    with pm.Model(coords={"subject": range(N)}) as model:
        e = pm.Normal(
            "e",
            pm.Normal("mu", 0, 5, initval=0.0),
            pm.HalfNormal("omega", 2),
            dims="subject",
            initval=np.zeros(N),
        )
        f = e[G] * (1.0 + T)
        pm.Normal("y", f, pm.HalfNormal("sigma", 2.0) * pt.abs(f) + 0.0, observed=Y)
    # where a prediction is 0 the density is not finite, so the model starts near its initial point
    (rule,) = recognize(read_model(model)).residuals
    assert (rule.parameter.name, rule.power) == ("sigma", 1.0)
