"""What is done with a fit: tables, predictions, simulations, comparisons and ArviZ, with odd arguments; and runs that go on with other things."""

import copy

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm

import pymc_saem as ps
from robustness import stored
from robustness.judge import Input

BUNCH = 200


def _fit():
    return stored.fitted()[1]


def _model():
    return stored.fitted()[0]


def _predict(*args, **options):
    return ps.predict(
        *(args or (_model(), _fit())), **({"n_draws": 20, "random_seed": 1} | options)
    )


def _values(name):
    table = _fit()["population"]
    return float(table["estimate"].sel(parameter=name))


def _line(population=False, t=None):
    """Predictions of a linear model, by hand from the modes."""
    d = stored.data()
    t = d.t if t is None else t
    modes = np.ravel(_fit()["individual"]["conditional_mode"])
    return (_values("mu") if population else modes[d.g]) + _values("slope") * t


def _equal(column, right, rtol=1e-6):
    def check(found):
        have = np.asarray(found[column], dtype=float)
        return (
            None
            if have.shape == right().shape and np.allclose(have, right(), rtol=rtol, atol=1e-8)
            else f"{have[:4]}, right {right()[:4]}"
        )

    return check


def _later():
    return stored.data().t + 5.0


def _simulated(found):
    """Means and standard deviations of many data sets."""
    y, d = found["y"].values, stored.data()
    mean, sd = _line(population=True), np.hypot(_values("omega"), _values("sigma"))
    z = (y.mean(axis=0) - mean) / (sd / np.sqrt(len(y)))
    return (
        None
        if abs(z).max() < 5 and np.allclose(y.std(axis=0), sd, rtol=0.3) and y.shape[1] == d.y.size
        else f"z {abs(z).max():.1f}"
    )


def _is_table(found):
    return None if isinstance(found, pd.DataFrame) and len(found) else f"a {type(found).__name__}"


def _without(group):
    found = copy.deepcopy(_fit())
    del found[group]
    return found


def _other_data():
    rng = np.random.default_rng(3)
    return stored.build(y=stored.data().y + rng.normal(size=stored.data().y.size))


def _resume(model=None, source=None, **options):
    return ps.fit_saem(
        model or _model(),
        resume=source if source is not None else _fit(),
        progressbar=False,
        **options,
    )


def _longer(found):
    """20 iterations more, and the first 40 are those that were."""
    a, b = _fit()["saem_trace"], found["saem_trace"]
    n = a.sizes["iteration"]
    if b.sizes["iteration"] != n + 5:
        return f"{b.sizes['iteration']} iterations, right {n + 5}"
    return (
        None
        if all(
            np.array_equal(a[v].values, b[v].values[:, :n], equal_nan=True) for v in ("mu", "sigma")
        )
        else "another run"
    )


def _set_twice():
    """Other data, then those of the fit again: predictions are those before."""
    model = stored.build()
    pm.set_data({"t": np.zeros(stored.data().t.size)}, model=model)
    pm.set_data({"t": stored.data().t}, model=model)
    return _predict(model, _fit())


# Text, call, check, words of a refusal, whether it must be answered.
CASES = [
    ("summary", lambda: ps.summary(_fit()), _is_table, (), True),
    ("summary of None", lambda: ps.summary(None), None, ("None", "fit"), False),
    ("summary of a model", lambda: ps.summary(_model()), None, ("Model", "fit"), False),
    ("summary of a table", lambda: ps.summary(pd.DataFrame()), None, ("DataFrame", "fit"), False),
    ("summary without a group", lambda: ps.summary(_without("population")), None, ("population",), False),
    ("individuals", lambda: ps.individuals(_fit()), _is_table, (), True),
    ("individuals of None", lambda: ps.individuals(None), None, ("None", "fit"), False),
    ("individuals without a group", lambda: ps.individuals(_without("individual")), None, ("individual",), False),
    ("correlation", lambda: ps.correlation(_fit()), lambda f: None if np.allclose(np.diag(f.to_numpy(float)), 1) else "diagonal", (), True),
    ("diagnostics", lambda: ps.diagnostics(_fit()), _is_table, (), True),
    ("diagnostics without a trace", lambda: ps.diagnostics(_without("saem_trace")), None, ("saem_trace",), False),
    ("compare one with itself", lambda: ps.compare({"a": _fit(), "b": _fit()}), lambda f: None if f["aic"].nunique() == 1 else "aic", (), True),
    ("compare a list", lambda: ps.compare([_fit(), _fit()]), None, ("list", "dict", "mapping"), False),
    ("compare nothing", lambda: ps.compare({}), None, ("fits",), False),
    ("compare by a new criterion", lambda: ps.compare({"a": _fit(), "b": _fit()}, criterion="dic"), None, ("dic", "criterion"), False),
    ("compare with None", lambda: ps.compare({"a": _fit(), "b": None}), None, ("'b'", "None", "fits"), False),
    ("predict", lambda: _predict(), _equal("prediction", _line), (), True),
    ("predict the population", lambda: _predict(level="population"), _equal("prediction", lambda: _line(True)), (), True),
    ("predict at other times", lambda: _predict(_model(), _fit(), {"t": _later()}), _equal("prediction", lambda: _line(t=_later())), (), True),
    ("predict at other times as text", lambda: _predict(_model(), _fit(), {"t": _later().astype(str)}), _equal("prediction", lambda: _line(t=_later())), ("'t'", "t must"), False),
    ("predict missing times", lambda: _predict(_model(), _fit(), {"t": _later() * np.nan}), None, ("'t'", "nan", "missing", "finite", "could not"), False),
    ("predict data that the model has not", lambda: _predict(_model(), _fit(), {"u": 1.0}), None, ("'u'",), False),
    ("predict with data 3", lambda: _predict(_model(), _fit(), 3), None, ("data",), False),
    ("predict by a function", lambda: _predict(lambda t: stored.build(t), _fit(), _later()), _equal("prediction", lambda: _line(t=_later())), (), True),
    ("predict by a function of nothing", lambda: _predict(lambda: stored.build(), _fit(), _later()), None, ("model", "data", "argument"), False),
    ("predict by a function that fails", lambda: _predict(lambda t: None, _fit(), _later()), None, ("model", "None"), False),
    ("predict at a level of its own", lambda: _predict(level="group"), None, ("level",), False),
    ("predict at no level", lambda: _predict(level=[]), None, ("level",), False),
    ("predict with probability 1", lambda: _predict(ci_prob=1.0), None, ("ci_prob",), False),
    ("predict with 90", lambda: _predict(ci_prob=90), None, ("ci_prob",), False),
    ("predict with 0 draws", lambda: _predict(n_draws=0), None, ("n_draws",), False),
    ("predict with 1.5 draws", lambda: _predict(n_draws=1.5), None, ("n_draws",), False),
    ("predict another outcome", lambda: _predict(outcome="z"), None, ("'z'",), False),
    ("predict subjects by name", lambda: _predict(subjects="s1"), None, ("subjects",), False),
    ("predict with parameters of its own", lambda: _predict(parameters={"mu": 1}), None, ("parameters",), False),
    ("predict with a seed -1", lambda: _predict(random_seed=-1), None, ("random_seed",), False),
    ("predict a fit of None", lambda: _predict(_model(), None), None, ("None", "idata", "fit"), False),
    ("predict with fit and model in the other order", lambda: _predict(_fit(), _model()), None, ("model",), False),
    ("predict after data were set and set back", _set_twice, _equal("prediction", _line), (), True),
    ("predict with other observed values", lambda: _predict(_other_data(), _fit()), None, ("observed", "label"), False),
    ("simulate", lambda: ps.simulate(_model(), _fit(), n=400, random_seed=1), _simulated, (), True),
    ("simulate from values", lambda: ps.simulate(_model(), {k: _values(k) for k in ("mu", "omega", "slope", "sigma")}, n=400, random_seed=1), _simulated, (), True),
    ("simulate from some values", lambda: ps.simulate(_model(), {"mu": 1.0}), None, ("omega", "sigma", "slope"), False),
    ("simulate from unknown values", lambda: ps.simulate(_model(), {k: 1.0 for k in ("mu", "omega", "slope", "sigma", "u")}), None, ("'u'",), False),
    ("simulate from a negative scale", lambda: ps.simulate(_model(), {"mu": 1.0, "omega": -1.0, "slope": 0.0, "sigma": 1.0}), None, ("omega",), False),
    ("simulate from NaN", lambda: ps.simulate(_model(), {"mu": np.nan, "omega": 1.0, "slope": 0.0, "sigma": 1.0}), None, ("mu",), False),
    ("simulate from text", lambda: ps.simulate(_model(), {"mu": "a", "omega": 1.0, "slope": 0.0, "sigma": 1.0}), None, ("mu",), False),
    ("simulate 0", lambda: ps.simulate(_model(), _fit(), n=0), None, ("n is", "n "), False),
    ("simulate -1", lambda: ps.simulate(_model(), _fit(), n=-1), None, ("n is", "n "), False),
    ("simulate half", lambda: ps.simulate(_model(), _fit(), n=0.5), None, ("n is", "n "), False),
    ("simulate with a seed of text", lambda: ps.simulate(_model(), _fit(), random_seed="a"), None, ("random_seed",), False),
    ("simulate another model", lambda: ps.simulate(stored.data().model(), {"a": 1}), None, ("'a'", "mu", "omega"), False),
    ("residuals", lambda: ps.residuals(_model(), _fit(), n_simulations=100, random_seed=1), _is_table, (), True),
    ("residuals of 0 simulations", lambda: ps.residuals(_model(), _fit(), n_simulations=0), None, ("n_simulations",), False),
    ("residuals of another outcome", lambda: ps.residuals(_model(), _fit(), outcome="z", n_simulations=100), None, ("'z'",), False),
    ("residuals of None", lambda: ps.residuals(_model(), None), None, ("None", "idata"), False),
    ("residuals of a fit without individuals", lambda: ps.residuals(_model(), _without("individual"), n_simulations=100), None, ("individual",), False),
    ("vpc", lambda: ps.vpc(_model(), _fit(), x=stored.data().t, n_simulations=30, random_seed=1), _is_table, ("x",), False),
    ("vpc of 0 simulations", lambda: ps.vpc(_model(), _fit(), x=stored.data().t, n_simulations=0), None, ("n_simulations",), False),
    ("vpc with x too short", lambda: ps.vpc(_model(), _fit(), x=[1.0, 2.0], n_simulations=30), None, ("x",), False),
    ("vpc with x as text", lambda: ps.vpc(_model(), _fit(), x=["a"] * stored.data().t.size, n_simulations=30), None, ("x",), False),
    ("vpc with quantiles of 50", lambda: ps.vpc(_model(), _fit(), x=stored.data().t, quantiles=[5, 50], n_simulations=30), None, ("quantiles",), False),
    ("vpc with -3 bins", lambda: ps.vpc(_model(), _fit(), x=stored.data().t, bins=-3, n_simulations=30), None, ("bins",), False),
    ("random effects", lambda: ps.random_effects(_model(), _fit()), _is_table, (), True),
    ("random effects of another name", lambda: ps.random_effects(_model(), _fit(), effects=["u"]), None, ("'u'",), False),
    ("ArviZ summary", lambda: az.summary(_fit()), _is_table, (), True),
    ("ArviZ summary of a variable", lambda: az.summary(_fit(), var_names=["e"]), lambda f: None if len(f) == stored.data().n else f"{len(f)} rows", (), True),
    ("posterior predictive", lambda: pm.sample_posterior_predictive(_fit(), model=_model(), progressbar=False, random_seed=1), lambda f: None, (), True),
    ("a copy of a fit", lambda: ps.summary(copy.deepcopy(_fit())), _is_table, (), True),
    ("a model as a fit", lambda: ps.fit_saem(_fit()), None, ("model",), False),
    ("resume", lambda: _resume(), lambda f: stored.same(_fit(), f), (), True),
    ("resume and extend", lambda: _resume(extend=5), _longer, (), True),
    ("resume with other data", lambda: _resume(_other_data()), None, ("data",), False),
    ("resume with another model", lambda: _resume(stored.data().model()), lambda f: stored.same(_fit(), f), ("model",), False),
    ("resume with another objective", lambda: _resume(objective="ml"), None, ("objective",), False),
    ("resume with another number of transitions", lambda: _resume(n_transitions=33), None, ("n_transitions",), False),
    ("resume with other constants", lambda: _resume(fixed={"sigma": 1.0}), None, ("fixed",), False),
    ("resume with starts", lambda: _resume(initvals={"sigma": 1.0}), None, ("initvals",), False),
    ("resume with a seed", lambda: _resume(random_seed=2), None, ("random_seed",), False),
    ("resume with more chains", lambda: _resume(chains=2), None, ("chains",), False),
    ("resume without a state", lambda: _resume(source=_without("saem_state")), None, ("saem_state",), False),
    ("resume from a summary", lambda: _resume(source=ps.summary(_fit())), None, ("resume",), False),
    ("resume with fewer iterations", lambda: _resume(n_smooth=3), lambda f: None if f["saem_trace"].sizes["iteration"] == 40 else "iterations are gone", ("n_smooth",), False),
    ("extend by -1", lambda: _resume(extend=-1), None, ("extend",), False),
    ("extend by half", lambda: _resume(extend=0.5), None, ("extend",), False),
]  # fmt: skip
COUNT = len(CASES)


def make(seed):
    text, call, check, names, valid = CASES[seed % COUNT]
    return Input(text, call, check, names, valid=valid, foreign=True)
