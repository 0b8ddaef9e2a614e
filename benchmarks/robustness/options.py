"""Options of ``fit_saem`` and of what comes before it, out of range or of another kind; and odd ones that are fine."""

import os

import numpy as np

import pymc_saem as ps
from robustness.judge import Input
from robustness.linear import SHORT, Data, estimates, fit

BUNCH = 30
# Options that have no meaning, by name.
_BAD = {
    "n_explore": [-1, 1.5, "many", None, True, np.nan, np.inf, [10]],
    "n_smooth": [-1, 2.5, "auto", None, np.nan],
    "n_transitions": [0, -5, 2.5, "auto", None],
    "n_replicates": [0, -1, "many", 1.5, None],
    "n_starts": [-1, "all", 0.5, None],
    "chains": [0, -1, 1.5, "two", None],
    "cores": [0, -1, "all", None],
    "draws": [0, 1, -1, 2.5, "auto", None],
    "objective": ["ML", "reml", None, 3],
    "kernel": ["mala", {}, {"hmc": 1.0}, {"prior": -1.0}, {"prior": 0.0}, {"prior": np.nan}, 3, {"prior": "a"}, ["prior"]],
    "step_size_exponent": [0.0, 0.5, 1.5, -1, "a", None, np.nan],
    "annealing": [-0.1, 1.5, "a", None, np.nan],
    "minibatch": [0.0, -1, 1.5, "a", None, np.nan, 10],
    "tolerance": [-1, np.nan, np.inf, "a", None],
    "likelihood": ["exact", 3, True],
    "standard_errors": ["hessian", 3, True],
    "random_seed": [-1, "seed", 1.5, object()],
    "progressbar": ["yes", 3, None],
    "callback": [3, "print", [print]],
    "extend": [5, -1, "a"],
    "resume": [3, "nowhere.nc", {}, []],
    "checkpoint": [3, "/nowhere/fit.nc", os.path.expanduser("~"), "fit.zarr", b"fit.nc"],
    "compile_kwargs": [{"optimizer": "o"}, {"mode": "SLOW"}, "mode", 3],
    "fixed": ["sigma", {"u": 1.0}, {"sigma": -1.0}, {"sigma": 0.0}, {"sigma": np.nan}, {"sigma": np.inf}, {"sigma": "a"}, {"sigma": [1, 2]}, {"e": np.zeros(8)}, {"y": 1.0}, {"sigma": None}, {3: 1.0}, ["sigma"], {"sigma": 1 + 1j}],
    "initvals": ["sigma", {"u": 1.0}, {"sigma": -1.0}, {"sigma": 0.0}, {"sigma": np.nan}, {"sigma": "x"}, {"sigma": [1, 2]}, {"e": np.zeros(3)}, {"e": "text"}, {"sigma_log__": 0.0}, 3],
    "random_effects": [["mu"], [], ["e", "mu"], "mu"],
    "model": [3, "model"],
}  # fmt: skip
#: Words by which a refusal may name the option as well.
_ALSO = {"random_effects": ("'mu'",), "resume": ("nowhere.nc",), "n_smooth": ("n_explore",)}
BAD = [(name, value) for name, values in _BAD.items() for value in values]
# Options that are odd, and mean what they say.
FINE = [
    {"n_explore": 0, "n_smooth": 3}, {"n_explore": 3, "n_smooth": 0}, {"n_explore": np.int64(3)}, {"draws": 2}, {"random_seed": np.random.default_rng(1)},
    {"random_seed": np.random.RandomState(1)}, {"random_seed": np.random.SeedSequence(1)}, {"random_seed": np.int32(5)}, {"random_seed": [1, 2]}, {"random_seed": None}, {"random_seed": 2**40},
    {"progressbar": True}, {"chains": 3, "cores": 1}, {"kernel": {"prior": 1}}, {"kernel": {"coordinate": 3, "block": 1}}, {"minibatch": 0.1}, {"minibatch": 1},
    {"minibatch": np.float64(0.5)}, {"tolerance": np.float32(0.1)}, {"annealing": 0}, {"annealing": 1}, {"step_size_exponent": 1}, {"n_replicates": 1}, {"n_replicates": 200}, {"n_transitions": 1},
    {"fixed": {"sigma": np.array(0.5)}}, {"fixed": {"sigma": 1}}, {"fixed": {}}, {"fixed": None}, {"initvals": {}}, {"initvals": {"sigma": None}}, {"initvals": {"sigma": "prior"}}, {"initvals": {"sigma": 1}}, {"initvals": {"e": np.ones(8)}},
    {"objective": "ml"}, {"random_effects": ("e",)}, {"random_effects": np.array(["e"])}, {"compile_kwargs": {}}, {"compile_kwargs": None}, {"n_starts": 1}, {"standard_errors": "score"}, {"likelihood": "laplace"},
    {"model": None},
]  # fmt: skip


class Stop(Exception):
    """Of the user, from a callback."""


def _stopping(after):
    def callback(chain, iteration, estimates, stats):
        if iteration + 1 == after:
            raise Stop(f"iteration {iteration}")

    return callback


def _spoiling(chain, iteration, estimates, stats):
    """Changes what it is given; the run goes on with its own."""
    for values in (*estimates.values(), *stats.values()):
        if isinstance(values, np.ndarray) and values.flags.writeable:
            values[...] = np.nan
    estimates.clear()


def _own_error(model, after):
    """The user's own error, not another one."""
    try:
        fit(model, callback=_stopping(after))
    except Stop:
        return None
    return "the error of the callback is gone"


def _without_model():
    """PyMC's own error says it well."""
    try:
        ps.fit_saem()
    except TypeError as error:
        return str(error)
    return "a fit of nothing"


CALLBACKS = [1, 6, 12]
COUNT = len(BAD) + len(FINE) + len(CALLBACKS) + 2


def _is_a_fit(found):
    numbers = estimates(found)
    if set(numbers) != {"mu", "omega", "slope", "sigma"}:
        return f"estimates of {sorted(numbers)}"
    return (
        None
        if all(np.isfinite(v) for v in numbers.values()) and numbers["sigma"] > 0
        else f"{numbers}"
    )


def _call(model, options):
    """A fit with no wrapper around it, so that all options are the user's."""
    options = SHORT | options
    if "model" in options:
        given = options.pop("model")
        if given is None:
            with model:
                return ps.fit_saem(**options)
        return ps.fit_saem(given, **options)
    return ps.fit_saem(model, **options)


def make(seed):
    d, k = Data(np.random.default_rng([6, seed])), seed % COUNT
    model = d.model()
    if k < len(BAD):
        name, value = BAD[k]
        fine = None
        # what the value is taken for, does no harm
        if name in (
            "progressbar",
            "random_seed",
            "callback",
        ):
            fine = _is_a_fit if name == "progressbar" else None
        return Input(
            f"{name}={value!r:.60}",
            lambda: _call(model, {name: value}),
            fine,
            (name, *_ALSO.get(name, ())),
        )
    if k < len(BAD) + len(FINE):
        options = FINE[k - len(BAD)]
        right = (
            None
            if "fixed" not in options or not options["fixed"]
            else float(options["fixed"]["sigma"])
        )

        def wrong(found):
            if right is not None and estimates(found)["sigma"] != right:
                return f"sigma is {estimates(found)['sigma']}, fixed at {right}"
            return _is_a_fit(found)

        is_plain = not isinstance(
            options.get("random_seed"), np.random.RandomState | np.random.SeedSequence | list
        )
        return Input(
            f"{options!r:.80}", lambda: _call(model, options), wrong, tuple(options), valid=is_plain
        )
    k -= len(BAD) + len(FINE)
    if k < len(CALLBACKS):
        return Input(
            f"a callback that raises after {CALLBACKS[k]}",
            lambda: _own_error(model, CALLBACKS[k]),
            lambda found: found,
        )
    if k == len(CALLBACKS):
        plain = lambda: estimates(fit(model))  # noqa: E731
        return Input(
            "a callback that spoils what it is given",
            lambda: (estimates(fit(model, callback=_spoiling)), plain()),
            lambda f: None if f[0] == f[1] else f"{f[0]}, right {f[1]}",
            valid=True,
        )
    return Input(
        "no model at all", _without_model, lambda found: None if "context stack" in found else found
    )
