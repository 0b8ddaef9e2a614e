"""Smooth curves of models in which rows, times and covariates meet in other ways than in theophylline."""

import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from tests.support.made_up_fit import made_up_fit

N, R = 3, 4
SUBJECT = np.repeat(np.arange(N), R)
DAYS = np.tile([1, 3, 5, 9], N)  # whole numbers, as in many data sets
RATES = np.array([0.1, 0.2, 0.4])
LABELS = ["P1", "P2", "P3"]


def decay_model(build, data=None):
    """Rates ``k`` per patient; ``build(k)`` adds the outcomes."""
    with pm.Model(coords={"patient": LABELS}) as model:
        s = pm.HalfFlat("s", initval=1.0)
        k = pm.LogNormal("k", -1.5, 0.5, dims="patient")
        build(k, s)
    rows = {rv.name: SUBJECT for rv in model.observed_RVs}
    return model, made_up_fit(model, {"k": RATES}, {"s": 0.3}, rows)


def individual(ax):
    (found,) = [found for found in ax.get_lines() if found.get_label() == "individual"]
    return found.get_xdata(), found.get_ydata()


def solve(k, t=DAYS, subject=SUBJECT, **options):
    def rhs(t, y, p):
        return {"a": -p.k * y.a, "b": p.k * y.a}

    return ps.ode.solve_ivp(rhs, {"a": 10.0, "b": 0.0}, {"k": k}, t, subject, **options)


def test_whole_numbers_and_the_median_of_a_lognormal():
    model, fit = decay_model(
        lambda k, s: pm.LogNormal("y", 2 - k[SUBJECT] * DAYS, s, observed=np.ones(N * R))
    )
    for ax, rate in zip(ps.plot_fits(model, fit, x=DAYS), RATES, strict=True):
        t, y = individual(ax)
        assert t[0] == 1 and t[-1] == 9
        np.testing.assert_allclose(y, np.exp(2 - rate * t), rtol=1e-12)


@pytest.mark.parametrize(
    "times", [DAYS[:R], DAYS[None, :R], DAYS.reshape(N, R)], ids=["shared", "one row", "whole"]
)
def test_times_of_an_outcome_of_subjects_and_times(times):
    with pm.Model(coords={"patient": LABELS}) as model:
        s = pm.HalfFlat("s", initval=1.0)
        k = pm.LogNormal("k", -1.5, 0.5, dims="patient")
        pm.Normal("y", 9 - k[:, None] * pm.Data("t", times), s, observed=np.ones((N, R)))
    fit = made_up_fit(model, {"k": RATES}, {"s": 0.3}, {"y": SUBJECT})
    for ax, rate in zip(ps.plot_fits(model, fit, x=DAYS[:R]), RATES, strict=True):
        t, y = individual(ax)
        assert t.size > R and t[0] == 1 and t[-1] == 9
        np.testing.assert_allclose(y, 9 - rate * t, rtol=1e-12)


def test_censored_outcomes_have_the_curve_of_the_law_before_it_is_cut():
    def build(k, s):
        law = pm.Normal.dist(9 - k[SUBJECT] * DAYS, s)
        pm.Censored("y", law, lower=7.0, upper=None, observed=np.full(N * R, 8.0))

    model, fit = decay_model(build)
    for ax, rate in zip(ps.plot_fits(model, fit, x=DAYS), RATES, strict=True):
        t, y = individual(ax)
        np.testing.assert_allclose(y, 9 - rate * t, rtol=1e-12)


def test_counts_have_their_mean():
    model, fit = decay_model(
        lambda k, s: pm.Poisson("n", 9 * k[SUBJECT] * DAYS, observed=np.ones(N * R, dtype=int))
    )
    for ax, rate in zip(ps.plot_fits(model, fit, x=DAYS), RATES, strict=True):
        t, y = individual(ax)
        np.testing.assert_allclose(y, 9 * rate * t, rtol=1e-12)


def test_times_in_pm_data_outside_of_the_ode():
    def build(k, s):
        day = pm.Data("day", DAYS.astype(float))
        pm.Normal("y", solve(k, t=day).a + day, s, observed=np.ones(N * R))

    model, fit = decay_model(build)
    for ax, rate in zip(ps.plot_fits(model, fit), RATES, strict=True):
        t, y = individual(ax)
        assert t[0] == 0  # where the ODE starts
        np.testing.assert_allclose(y, 10 * np.exp(-rate * t) + t, rtol=1e-6)


@pytest.mark.parametrize("kind", ["formula", "equation"])
def test_occasions_have_a_curve_each(kind):
    occasion = np.repeat(np.arange(2 * N), R // 2)
    times = np.tile([1.0, 6.0], 2 * N)  # the clock starts anew
    change, owner = np.array([0.0, 0.1, 0.0, -0.1, 0.2, 0.0]), np.repeat(np.arange(N), 2)
    with pm.Model(coords={"patient": LABELS, "occasion": range(2 * N)}) as model:
        s = pm.HalfFlat("s", initval=1.0)
        k = pm.LogNormal("k", -1.5, 0.5, dims="patient")
        c = pm.Normal("c", 0.0, 0.2, dims="occasion")
        if kind == "formula":
            curve = 10 * pm.math.exp(-(k[SUBJECT] + c[occasion]) * times)
        else:
            curve = solve(k[owner] + c, times, occasion, t0=np.tile([0.0, 0.5], N)).a
        pm.Normal("y", curve, s, observed=np.ones(N * R))
    fit = made_up_fit(model, {"k": RATES, "c": change}, {"s": 0.3}, {"y": SUBJECT})
    starts = [1.0, 1.0] if kind == "formula" else [0.0, 0.5]
    for subject, ax in enumerate(ps.plot_fits(model, fit, x=times, n_grid=20)):
        t, y = individual(ax)
        assert np.flatnonzero(np.isnan(t)).tolist() == [20]
        for half, start, unit in zip(
            (slice(0, 20), slice(21, 41)), starts, (2 * subject, 2 * subject + 1), strict=True
        ):
            assert t[half][0] == start and t[half][-1] == 6
            shift = start if kind == "equation" else 0.0
            expected = 10 * np.exp(-(RATES[subject] + change[unit]) * (t[half] - shift))
            np.testing.assert_allclose(y[half], expected, rtol=1e-6)


def test_an_equation_that_all_subjects_share():
    times = np.concatenate([[1.0, 3, 5, 9], [2.0, 4, 6, 8], [1.0, 2, 3, 4]])

    def build(k, s):
        shared = ps.ode.solve_ivp(lambda t, y, p: {"a": -0.3 * y.a}, {"a": 10.0}, {}, times).a
        pm.Normal("y", k[SUBJECT] * shared, s, observed=np.ones(N * R))

    model, fit = decay_model(build)
    for ax, rate, last in zip(ps.plot_fits(model, fit, x=times), RATES, (9, 8, 4), strict=True):
        t, y = individual(ax)
        assert t[0] == 0 and t[-1] == last
        np.testing.assert_allclose(y, 10 * rate * np.exp(-0.3 * t), rtol=1e-6)


def test_units_of_other_rows_are_told():
    occasion = np.repeat(np.arange(2 * N), R)

    def build(k, s):
        longer = solve(k[np.repeat(np.arange(N), 2)], np.tile(DAYS[:R], 2 * N), occasion).a
        pm.Normal("y", longer[::2], s, observed=np.ones(N * R))

    model, fit = decay_model(build)
    times = np.tile(DAYS[:R], 2 * N)[::2]
    with pytest.warns(
        UserWarning,
        match="has rows that differ from those of the outcome and units that are not subjects",
    ):
        axes = ps.plot_fits(model, fit, x=times)
    t, y = individual(axes[1])
    np.testing.assert_array_equal(t, np.sort(times[SUBJECT == 1]))
    np.testing.assert_allclose(y, 10 * np.exp(-0.2 * t), rtol=1e-5)


def test_covariates_of_rows_hold_until_the_next_row():
    dry = np.tile([0.0, 1.0, 1.0, 0.0], N)
    model, fit = decay_model(
        lambda k, s: pm.Normal("y", solve(k).a + 5 * dry, s, observed=np.ones(N * R))
    )
    (ax,) = ps.plot_fits(model, fit, "P2")
    t, y = individual(ax)
    np.testing.assert_allclose(y, 10 * np.exp(-0.2 * t) + 5 * ((t >= 3) & (t < 9)), rtol=1e-6)


def test_several_outcomes_of_one_solution_and_start_times():
    def build(k, s):
        solution = solve(k, np.r_[DAYS, DAYS], np.r_[SUBJECT, SUBJECT], t0=[0.0, 0.5, 1.0])
        pm.Normal("y", solution.a[: N * R], s, observed=np.ones(N * R))
        pm.Normal("z", solution.b[N * R :], s, observed=np.ones(N * R))

    model, fit = decay_model(build)
    with pytest.raises(ValueError, match="several outcomes; choose one with outcome=: y, z"):
        ps.plot_fits(model, fit)
    with pytest.raises(
        ValueError, match="other rows than outcome 'z'; give the time of each of its rows as x="
    ):
        ps.plot_fits(model, fit, outcome="z")
    axes = ps.plot_fits(model, fit, ["P2", "P3"], outcome="z", x=DAYS, n_grid=12)
    for ax, rate, t0 in zip(axes, RATES[1:], (0.5, 1.0), strict=True):
        t, y = individual(ax)
        assert t[0] == t0
        np.testing.assert_allclose(y, 10 - 10 * np.exp(-rate * (t - t0)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("scaled", "message"),
    [(DAYS / 24, "does not contain x itself"), (DAYS * np.sqrt(DAYS), "another form")],
)
def test_times_that_the_graph_does_not_show_are_connected_from_row_to_row(scaled, message):
    both = message == "another form"
    model, fit = decay_model(
        lambda k, s: pm.Normal(
            "y", k[SUBJECT] * scaled + (DAYS * s if both else 0), s, observed=np.ones(N * R)
        )
    )
    with pytest.warns(UserWarning, match=message):
        axes = ps.plot_fits(model, fit, x=DAYS)
    for subject, ax in enumerate(axes):
        t, y = individual(ax)
        np.testing.assert_array_equal(t, [1, 3, 5, 9])
        np.testing.assert_allclose(y, RATES[subject] * scaled[:R] + (0.3 * t if both else 0))


def test_an_index_that_looks_like_the_times_stays():
    level = np.arange(N * R) % N  # the times, and by accident the subjects
    with pm.Model(coords={"patient": LABELS}) as model:
        s = pm.HalfFlat("s", initval=1.0)
        k = pm.LogNormal("k", -1.5, 0.5, dims="patient")
        pm.Normal("y", k[level] * level.astype(float), s, observed=np.ones(N * R))
    fit = made_up_fit(model, {"k": RATES}, {"s": 0.3}, {"y": level})
    axes = ps.plot_fits(model, fit, x=level)
    t, y = individual(axes[2])
    np.testing.assert_allclose(y, 0.4 * t)


def test_a_failed_solver_is_reported():
    model, fit = decay_model(
        lambda k, s: pm.Normal("y", solve(k, max_steps=2).a, s, observed=np.ones(N * R))
    )
    with pytest.warns(
        UserWarning, match="not finite everywhere for patient P1, P2, P3.*raise max_steps"
    ):
        ps.plot_fits(model, fit)


def test_a_fit_of_another_model_is_refused():
    model, fit = decay_model(
        lambda k, s: pm.Normal("y", k[SUBJECT] * DAYS, s, observed=np.ones(N * R))
    )
    other, _ = decay_model(lambda k, s: pm.Normal("y", k, s, observed=np.ones(N)))
    with pytest.raises(
        ValueError, match=r"not a fit of this model: it has no outcome 'y' of shape \(3,\)"
    ):
        ps.plot_fits(other, fit, x=[0, 1, 2])
    with model:
        pm.Normal("extra")
    with pytest.raises(ValueError, match="not a fit of this model: it has no parameter 'extra'"):
        ps.plot_fits(model, fit, x=DAYS)
