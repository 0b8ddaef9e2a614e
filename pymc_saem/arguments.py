"""Checks of arguments: types in one table by name, so that a name means one thing everywhere, and values that many functions take.

A public function begins with ``check_types("name", locals())``: before it compiles or computes
anything, every argument of a wrong type is refused by name. What a value may be beyond its type (a
choice, a range, a name of the model) is checked where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc.util import get_random_generator

from pymc_saem.compat import group_names


class ArgumentError(TypeError, ValueError):
    """An argument has a type that no value of it has; either of its bases catches it."""


@dataclass(frozen=True)
class Rule:
    """What an argument must be, in words, and whether a value is."""

    expected: str
    accepts: Callable[[Any], bool]

    def __or__(self, other: Rule) -> Rule:
        return Rule(
            f"{self.expected} or {other.expected}", lambda x: self.accepts(x) or other.accepts(x)
        )


def _is_path(x: Any) -> bool:
    return isinstance(x, str | PathLike) and str(x) != "" and "\0" not in str(x)


def _is_fit(x: Any) -> bool:
    try:
        return bool(group_names(x))
    except TypeError:
        return False


def _is_sequence(x: Any) -> bool:
    """Tables, fits and texts can be iterated over, and are not sequences of anything."""
    return (
        np.iterable(x)
        and not isinstance(x, str | bytes | Mapping | pd.DataFrame | xr.Dataset)
        and not _is_fit(x)
    )


def _is_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether something is a sequence, not a text, of values that pass ``test``."""

    def accepts(x: Any) -> bool:
        return _is_sequence(x) and all(test(entry) for entry in x)

    return accepts


def _is_array(x: Any) -> bool:
    """Numbers or times along axes."""
    return _is_sequence(x) and np.asarray(x).dtype.kind in "fiubmM"


def _is_seed(x: Any) -> bool:
    kinds = np.random.Generator, np.random.BitGenerator, np.random.SeedSequence
    return (
        isinstance(x, kinds)
        or _is_count(x)
        and x >= 0
        or _is_of(lambda s: _is_count(s) and s >= 0)(x)
    )


def random_generator(seed: Any) -> np.random.Generator:
    """A generator from a seed that passed the checks; whole numbers may be of NumPy's kinds, or in a table's column."""
    if _is_count(seed):
        seed = int(seed)
    elif seed is not None and _is_sequence(seed):
        seed = [int(part) for part in seed]
    return get_random_generator(seed)


def _is_count(x: Any) -> bool:
    return isinstance(x, Integral) and not isinstance(x, bool | np.bool_)


def _is_number(x: Any) -> bool:
    return isinstance(x, Real) and not isinstance(x, bool | np.bool_)


def _is_text(x: Any) -> bool:
    return isinstance(x, str)


def _is_names(x: Any) -> bool:
    return (
        isinstance(x, Mapping)
        and not isinstance(x, xr.Dataset)
        and not _is_fit(x)
        and all(map(_is_text, x))
    )


def _is_variable(x: Any) -> bool:
    return hasattr(x, "owner")


def _are_axes(x: Any) -> bool:
    return all(hasattr(ax, "get_figure") for ax in np.ravel(np.asarray(x, dtype=object)))


def _is_scalar(x: Any) -> bool:
    return np.ndim(x) == 0 and not isinstance(x, Mapping | xr.Dataset) and not _is_fit(x)


NONE = Rule("None", lambda x: x is None)
MODEL = Rule("a pymc.Model", lambda x: isinstance(x, pm.Model))
FUNCTION = Rule("a function", callable)
FIT = Rule("what fit_saem returned, or the same read from a file", _is_fit)
COUNT = Rule("an integer", _is_count)
NUMBER = Rule("a number", _is_number)
BOOL = Rule("True or False", lambda x: isinstance(x, bool | np.bool_))
TEXT = Rule("a text", _is_text)
NAMES = Rule("a list of names", _is_of(_is_text))
MAPPING = Rule("a dict by name", _is_names)
NUMBERS = Rule("a list of numbers", _is_of(_is_number))
ARRAY = Rule("an array of numbers", _is_array)
SEQUENCE = Rule("an array of labels", _is_sequence)
TABLE = Rule("a pandas.DataFrame", lambda x: isinstance(x, pd.DataFrame))
SEED = Rule("a seed (an integer of at least 0) or a numpy.random.Generator", _is_seed)
PATH = Rule("a path, not empty and without a NUL", _is_path)
AXES = Rule("matplotlib Axes", _are_axes)
SIZE = Rule(
    "two numbers, width and height in inches", lambda x: _is_of(_is_number)(x) and len(x) == 2
)
# (site, number) is one label
LABEL = Rule("a label", lambda x: _is_scalar(x) or isinstance(x, tuple))
LABELS = Rule("a label or a list of labels", lambda x: _is_scalar(x) or _is_of(lambda _: True)(x))
NETWORK = Rule("an nn.MLP", lambda x: hasattr(x, "weight_names"))
CONSTANTS = Rule(
    "a dict of numbers by name",
    lambda x: (
        _is_names(x)
        and all(not _is_text(v) and np.asarray(v).dtype.kind in "fiub" for v in x.values())
    ),
)

#: By name; where a function means something else by it, by "function.name".
RULES = {
    **dict.fromkeys(
        ("n_explore", "n_smooth", "n_transitions", "chains", "cores", "draws", "extend", "n"), COUNT
    ),
    **dict.fromkeys(
        ("n_draws", "n_grid", "n_simulations", "n_points", "n_jobs", "per_page", "max_separate"),
        COUNT,
    ),
    **dict.fromkeys(("in_size", "out_size", "width_size", "depth", "max_steps"), COUNT),
    **dict.fromkeys(
        ("step_size_exponent", "annealing", "minibatch", "tolerance", "ci_prob", "lower_bound"),
        NUMBER,
    ),
    **dict.fromkeys(("rtol", "atol", "seconds"), NUMBER),
    **dict.fromkeys(
        ("progressbar", "raw", "log", "smooth", "sharex", "sharey", "standardized", "blocked"), BOOL
    ),
    **dict.fromkeys(("prediction_corrected", "show_data", "weights"), BOOL),
    **dict.fromkeys(
        ("objective", "criterion", "along", "activation", "output_activation", "solver"), TEXT
    ),
    **dict.fromkeys(("name", "y", "kind"), TEXT),
    **dict.fromkeys(
        ("likelihood", "standard_errors", "outcome", "xlabel", "ylabel", "by"), TEXT | NONE
    ),
    "n_replicates": Rule(
        "an integer of at least 1 or 'auto'", lambda x: _is_count(x) or _is_text(x)
    ),
    "n_starts": Rule("an integer of at least 0 or 'auto'", lambda x: _is_count(x) or _is_text(x)),
    "events": TABLE | Rule("an ode.Doses", lambda x: hasattr(x, "lag_time")) | NONE,
    **dict.fromkeys(("ncols", "iterations", "n_threads"), COUNT | NONE),
    **dict.fromkeys(("level", "parameters", "which", "criteria"), TEXT | NAMES),
    **dict.fromkeys(("var_names", "effects", "networks", "kinds"), TEXT | NAMES | NONE),
    **dict.fromkeys(("compile_kwargs", "units", "ranges", "labels"), MAPPING | NONE),
    **dict.fromkeys(("stratify", "strata"), SEQUENCE | NONE),
    **dict.fromkeys(("lag_time", "bioavailability", "rate", "duration"), MAPPING),
    **dict.fromkeys(("input_range", "typical_output"), NUMBER | ARRAY),
    **dict.fromkeys(("x", "initval"), ARRAY | NONE),
    "ax": AXES | NONE,
    **dict.fromkeys(("random_seed", "rng"), SEED | NONE),
    "fixed": CONSTANTS | NONE,
    "model": MODEL,
    "random_effects": NAMES | NONE,
    "initvals": MAPPING | NONE,
    "initial_point": MAPPING | NONE,
    "kernel": Rule('"auto"', lambda x: x == "auto" if _is_text(x) else False) | CONSTANTS,
    "idata": FIT,
    "fits": Rule(
        "a dict of fits by name",
        lambda x: isinstance(x, Mapping) and not _is_fit(x) and all(map(_is_fit, x.values())),
    ),
    "vars": Rule("a list of variables", lambda x: _is_variable(x) or _is_of(_is_variable)(x))
    | NONE,
    "resume": FIT | PATH | NONE,
    "t0": NUMBER | ARRAY,
    "path": PATH,
    "figsize": SIZE | NONE,
    "callback": FUNCTION | NONE,
    "subject": LABEL,
    "subjects": LABELS | NONE,
    "bins": TEXT | COUNT | NUMBERS,
    "folds": TEXT | COUNT | SEQUENCE,
    "quantiles": NUMBERS,
    "row": COUNT
    | Rule('"all"', lambda x: _is_text(x) and x == "all")
    | Rule("a list of integers", _is_of(_is_count)),
    "covariates": TABLE | Rule("a dict of arrays by name", _is_names) | NONE,
    "idata_or_values": FIT | MAPPING,
    "net": NETWORK,
    "prior_sd": NUMBER | NONE,
    "table": TABLE,
    "value": TEXT | NONE,
    "rhs": FUNCTION,
    "fit_saem.model": MODEL | NONE,
    **dict.fromkeys(("fit_saem.n_smooth", "fit_saem.draws"), COUNT | NONE),
    "fit_saem.tolerance": NUMBER | NONE,
    "Doses.table": TABLE | NONE,
    "summarize.model": MODEL | NONE,
    "SAEM.model": MODEL | NONE,
    "SAEM.blocked": BOOL | NONE,
    "predict.model": MODEL | FUNCTION,
    "predict.subjects": TEXT,
    "fit_saem.n_explore": COUNT | Rule('"auto"', lambda x: _is_text(x) and x == "auto"),
    "cross_validate.idata": FIT | NONE,
    "cross_validate.n_explore": COUNT | NONE,
    "cross_validate.n_smooth": COUNT | NONE,
    "plot_fits.outcome": TEXT | NAMES | NONE,
    "plot_fits.ylabel": TEXT | NAMES | NONE,
    "plot_fits.x": ARRAY | Rule("a dict of arrays by outcome", _is_names) | NONE,
    "plot_random_effects.kind": TEXT | NONE,
    "plot_data.data": TABLE,
    "plot_data.x": TEXT,
    "plot_data.subject": TEXT,
    "nn.softplus.x": NUMBER | ARRAY | Rule("a variable", _is_variable),
    "nn.weights.random_seed": SEED | NONE,
    "nn.weights.dims": TEXT | NAMES | NONE,
    "ode.solve_ivp.subject": SEQUENCE | NONE,
}


def check_types(function: str, given: Mapping[str, Any]) -> None:
    """Refuse arguments of a wrong type.

    Parameters
    ----------
    function : str
        Its public name.
    given : mapping of str to object
        Arguments by name; those without a rule are checked elsewhere.

    Raises
    ------
    ArgumentError
        Names the argument, its value, and what it must be.
    """
    for name, value in given.items():
        rule = RULES.get(f"{function}.{name}", RULES.get(name))
        if rule is not None and not _holds(rule, value):
            raise ArgumentError(
                f"{name} is {_short(value)}; it must be {rule.expected}.{_advice(function, name, value)}"
            )


def _holds(rule: Rule, value: Any) -> bool:
    try:
        return bool(rule.accepts(value))
    except (TypeError, ValueError):  # a value that cannot even be tested
        return False


def shown(value: Any) -> str:
    """A value in an error message: the repr, of NumPy's scalars as of Python's."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def _short(value: Any) -> str:
    if isinstance(value, str | int | float | np.number | None.__class__):
        return shown(value)
    text = repr(value) if isinstance(value, list | tuple | dict) else ""
    return text if 0 < len(text) <= 60 else f"of type {type(value).__name__}"


def _advice(function: str, name: str, value: Any) -> str:
    if name == "model" and _is_fit(value):
        return (
            " fit_saem(model, resume=fit) resumes a fit."
            if function == "fit_saem"
            else " The model comes first, then its fit."
        )
    if name == "random_effects" and _is_text(value):
        return f" Write [{shown(value)}]."
    return ""


def check_count(name: str, value: Any, smallest: int, otherwise: str = "") -> None:
    """Refuse what is not an integer of at least ``smallest``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < smallest:
        raise ValueError(
            f"{name} is {shown(value)}; it must be an integer of at least {smallest}{otherwise}."
        )


def check_probability(name: str, value: Any) -> None:
    """Refuse what is not a probability strictly between 0 and 1."""
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ValueError(
            f"{name} must lie between 0 and 1, got {shown(value)}. Write 0.9 for 90 %."
        )


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuse what is not one of the known words."""
    known = list(known)
    if value not in known:
        raise ValueError(f"{name} is {shown(value)}; it must be {' or '.join(map(repr, known))}.")


def name_of_times(x: Any) -> str:
    """What an axis of times is called: the name of a Series, else "time"."""
    return str(getattr(x, "name", None) or "time")


def first_of(names: Iterable[object], most: int = 10) -> str:
    """``1, 2, 3 and 4 more``"""
    texts = list(map(str, names))
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


__all__: Sequence[str] = [
    "ArgumentError",
    "check_choice",
    "check_count",
    "check_probability",
    "check_types",
    "first_of",
    "name_of_times",
    "shown",
]
