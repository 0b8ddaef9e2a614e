"""The step method's contract with PyMC: state, pickling, key order, chains and cores."""

import cloudpickle
import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from tests.support.models import neural, random_intercept

OPTIONS = {
    "n_transitions": 10,
    "n_replicates": 2,
    "n_starts": 1,
    "compile_kwargs": {"mode": "FAST_COMPILE"},
}


def run(step, point, n):
    trace = []
    for _ in range(n):
        point, (stats,) = step.step(point)
        trace.append({**point, **stats})
    return trace


def same(a, b):
    return all(
        np.array_equal(x[k], y[k], equal_nan=True) for x, y in zip(a, b, strict=True) for k in x
    )


@pytest.fixture(scope="module")
def model():
    return random_intercept()


def test_points_keep_keys_order_and_dtypes(model):
    step = ps.SAEM(model=model, **OPTIONS)
    step.begin_chain(np.random.default_rng(1), 10)
    start = model.initial_point()
    point, (stats,) = step.step(start)
    assert list(point) == list(start)
    assert all(type(point[k]) is np.ndarray and point[k].dtype == start[k].dtype for k in start)
    assert all(point[k].shape == start[k].shape for k in start)
    assert set(stats) == set(step.stats_dtypes_shapes)


def test_a_step_prints_its_variables_kernels_and_iteration(model):
    step = ps.SAEM(model=model, **OPTIONS)
    effects = ", ".join(effect.name for effect in step.engine.mixed.random_effects)
    parameters = ", ".join(parameter.name for parameter in step.engine.mixed.parameters)
    variables = f"SAEM(parameters: {parameters}; random effects: {effects}; "
    assert (
        repr(step)
        == variables + "kernel: prior 0.15, coordinate 0.35, block 0.5; iteration 0, exploring)"
    )
    run(step, model.initial_point(), 2)
    step.stop_tuning()
    assert repr(step).endswith("iteration 2, smoothing)")
    assert "<th>iteration</th><td>2, smoothing</td>" in step._repr_html_()
    only = ps.SAEM(model=model, **OPTIONS, kernel={"block": 1.0, "mala": 0.0})
    assert "kernel: block 1; " in repr(only)


def test_a_restored_state_continues_bit_by_bit(model):
    step = ps.SAEM(model=model, **OPTIONS)
    step.begin_chain(np.random.default_rng(1), 10)
    run(step, model.initial_point(), 5)
    state = step.sampling_state
    ahead = run(step, model.initial_point(), 4)
    step.sampling_state = state
    assert same(ahead, run(step, model.initial_point(), 4))
    other = ps.SAEM(model=model, **OPTIONS)
    other.sampling_state = state
    assert same(ahead, run(other, model.initial_point(), 4))


def test_gradient_kernels_are_restored_too(model):
    options = OPTIONS | {"kernel": {"block": 0.4, "mala": 0.4, "independence": 0.2}}
    step = ps.SAEM(model=model, **options)
    step.begin_chain(np.random.default_rng(1), 10)
    trace = run(step, model.initial_point(), 5)
    assert all(s["accept_mala"] > 0 and s["accept_independence"] > 0 for s in trace)
    other = ps.SAEM(model=model, **options)
    other.sampling_state = cloudpickle.loads(cloudpickle.dumps(step.sampling_state))
    ahead = run(step, model.initial_point(), 12)  # a search for modes is in it
    assert same(ahead, run(other, model.initial_point(), 12))


def test_pickling_gives_a_step_that_runs_the_same(model):
    step = ps.SAEM(model=model, **OPTIONS)
    copy = cloudpickle.loads(cloudpickle.dumps(step))
    for s in (step, copy):
        s.begin_chain(np.random.default_rng(3), 10)
    assert same(run(step, model.initial_point(), 3), run(copy, model.initial_point(), 3))


def test_pm_sample_with_one_and_two_cores(model):
    def sample(cores):
        with model:
            return pm.sample(
                draws=6, tune=6, chains=2, cores=cores, step=ps.SAEM(**OPTIONS), random_seed=5, progressbar=False,
                compute_convergence_checks=False, discard_tuned_samples=False,
            )  # fmt: skip

    one, two = sample(1), sample(2)
    for name in ("a", "omega", "sigma", "b"):
        assert np.array_equal(one["posterior"][name].values, two["posterior"][name].values)
    steps = one["sample_stats"]["step_size"].values
    assert np.allclose(steps, np.tile([1.0, *(np.arange(2, 7) ** -0.75)], (2, 1)))


def test_a_variable_left_out_is_an_error(model):
    with pytest.raises(
        ValueError, match=r"must own every free variable.*\['sigma_log__'\] were left out"
    ):
        ps.SAEM([model["a"], model["omega"], model["b"]], model=model)


@pytest.mark.parametrize(
    "option, words",
    [
        ({"objective": "mle"}, "objective is 'mle'; it must be 'map'"),
        ({"n_transitions": 0}, "n_transitions is 0; it must be an integer of at least 1"),
        (
            {"n_replicates": 2.5},
            "n_replicates is 2.5; it must be an integer of at least 1 or 'auto'",
        ),
        ({"kernel": {"hmc": 1.0}}, r"kernel shares name \['hmc'\]; the choices are"),
        (
            {"kernel": {"prior": -1.0}},
            "kernel shares are {'prior': -1.0}; they must be non-negative",
        ),
        ({"fixed": {"b": 1.0}}, "fixed names 'b', which is not a population parameter"),
        ({"fixed": {"a": [1.0, 2.0]}}, r"fixed\['a'\] has shape \(2,\)"),
        ({"annealing": 1.5}, "annealing is 1.5"),
        ({"compile_kwargs": {"linker": "c"}}, r"compile_kwargs has \['linker'\]"),
    ],
)
def test_bad_options(model, option, words):
    with pytest.raises(ValueError, match=words):
        ps.SAEM(model=model, **(OPTIONS | option))


@pytest.mark.slow
def test_threads_do_not_change_the_trace():
    """Same seed, same result, with one and with two threads in the solver."""
    import numba

    traces = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        model = neural(n_threads=threads)
        step = ps.SAEM(model=model, n_transitions=12, n_replicates=3, n_starts=0)
        step.begin_chain(np.random.default_rng(2), 4)
        traces.append(run(step, model.initial_point(), 4))
    assert same(*traces)


@pytest.mark.slow
def test_nuts_runs_on_the_same_model_object():
    model = neural(rtol=1e-3, atol=1e-3)
    ps.SAEM(model=model, n_transitions=2, n_replicates=1, n_starts=0).step(model.initial_point())
    with model:
        idata = pm.sample(
            draws=5, tune=5, chains=1, cores=1, random_seed=1, progressbar=False, compute_convergence_checks=False,
            nuts={"max_treedepth": 3},
        )  # fmt: skip
    assert np.isfinite(idata["posterior"]["sigma"].values).all()


@pytest.mark.slow
def test_no_fit_looks_for_a_start_where_random_effects_outnumber_rows():
    model = neural(omega=None)
    step = ps.SAEM(model=model, n_transitions=3, n_replicates=2)
    step.begin_chain(np.random.default_rng(0), 5)
    step.step(model.initial_point())
    assert step.start_scores.size == 0


def test_data_that_change_after_the_model_was_read_are_refused():
    subject = np.repeat([0, 1, 2], 2)
    with pm.Model(coords={"subject": range(3)}) as model:
        codes = pm.Data("codes", subject)
        b = pm.Normal("b", pm.Normal("a"), pm.HalfNormal("omega"), dims="subject")
        pm.Normal("y", b[codes], 1.0, observed=np.arange(6.0))
        step = ps.SAEM(n_explore=1, **OPTIONS)
        step.set_rng(np.random.default_rng(1))
        model.set_data("codes", subject[::-1])
        with pytest.raises(
            ValueError, match="data 'codes' have changed since this step read the model"
        ):
            step.set_rng(np.random.default_rng(1))
