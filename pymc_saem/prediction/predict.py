"""Predictions of a fit: for its own subjects at other times, for new subjects with or without data, for the population."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm

from pymc_saem.arguments import (
    check_choice,
    check_count,
    check_probability,
    check_types,
    first_of,
    random_generator,
    shown,
)
from pymc_saem.compat import InferenceData
from pymc_saem.evaluate.generator import Generator
from pymc_saem.model.outcomes import choose_outcome
from pymc_saem.prediction.design import read_design, row_times
from pymc_saem.prediction.match import CHOICES, POPULATION, match
from pymc_saem.prediction.predicted import LEVELS, Levels, Predicted
from pymc_saem.prediction.source import model_with
from pymc_saem.prediction.values import fitted_values
from pymc_saem.results.fit import Fit


def predict(
    model: pm.Model | Callable[[Any], pm.Model],
    idata: InferenceData,
    data: Any = None,
    *,
    level: str | Sequence[str] = "individual",
    outcome: str | None = None,
    subjects: str = "auto",
    parameters: str = "draws",
    ci_prob: float = 0.9,
    n_draws: int = 1000,
    random_seed: int | np.random.Generator | None = None,
) -> pd.DataFrame:
    """Predict the rows of an outcome.

    Which rows, the model says: the fitted one has the rows of the data; the same function called
    with other data makes one that has new times, new subjects, or both. Rows whose observation is
    missing (NaN) are predicted as well, so a forecast is made with a table whose later rows have no
    outcome.

    Subjects are matched to the fit by their label in the coords. Those that the fit knows have the
    random effects that the fit found, whatever is observed in ``model``. The random effects of
    others are estimated from their own observed rows in ``model``, with the parameters at the
    estimate, so that no subject is predicted from another one's data; and those without an observed
    row follow the distribution of the population. Differential equations are solved to 1e-8,
    whatever the tolerance of the model.

    Parameters
    ----------
    model : pymc.Model or callable
        The model whose rows are predicted: the fitted one, or one of the same parameters with other
        rows or subjects. Or the function that builds it, called with ``data``.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    data : optional
        The argument of ``model``, where that is a function. With a ``pm.Model``: a mapping of names
        of its ``pm.Data`` (and of coords, where lengths change) to values, which are put back
        afterwards.
    level : {"individual", "population", "marginal"} or sequence of these
        - "individual": random effects at the conditional mode; intervals from draws given the subject's data.
        - "population": random effects at their population value (a typical subject with these covariates); intervals from
          the uncertainty of the parameters alone.
        - "marginal": mean of the outcome over all subjects that may have this design; intervals hold their differences.
    outcome : str, optional
        Name of the observed variable, when there are several.
    subjects : {"auto", "match", "new"}
        "auto" matches by label, and warns where the observed values of a known label are not those
        of the fit: subject 1 of another study is another person. "match" does not ask. "new" takes
        no subject for one of the fit, so that all are estimated from their rows in ``model``.
    parameters : {"draws", "estimate"}, default "draws"
        "draws": intervals hold the uncertainty of the parameters, drawn independently of the random
        effects, which is somewhat too much where both are determined together. "estimate":
        parameters at the estimate; intervals of the level "population" are then empty.
    ci_prob : float, default 0.9
        Probability of the intervals, equal tails.
    n_draws : int, default 1000
        Draws behind the intervals.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same intervals.

    Returns
    -------
    pandas.DataFrame
        One line per row of the outcome, and level. Columns: ``subject`` (label), ``row`` (number in
        the outcome, flattened), ``time`` (if a differential equation knows it), ``level`` (if
        several were asked for), ``observed`` (NaN if missing), ``prediction``; ``lower`` and
        ``upper``, the interval of what is predicted; ``lower_new`` and ``upper_new``, that of a new
        observation, residual error included; ``source`` of the random effects: "fit", "own data" or
        "population".

        What is predicted is the location of the outcome: the median of a LogNormal, the expected
        number of a category, of a censored or truncated outcome the mean of the distribution before
        it is cut off, and the mean of any other. At the level "marginal" ``prediction`` is the mean
        of new observations.

    Raises
    ------
    ValueError
        When an option is out of range, the outcome does not exist, or the fit belongs to a
        different model.
    TypeError
        When ``model``, ``idata`` or ``data`` are of the wrong kind.
    NotImplementedError
        When PyMC has no mean of the outcome.
    UnsupportedModelError
        When a row belongs to no subject, or new subjects cannot be estimated; the message gives the
        reason.

    Warns
    -----
    UserWarning
        When labels seem to mean other subjects, draws of new subjects do not suffice, or
        predictions could not be computed.

    See Also
    --------
    pymc_saem.simulate : New data sets from the fit.
    pymc_saem.plot_fits : Curves of each subject.
    pymc_saem.plot_predictions : Observed values against predictions.

    Examples
    --------
    >>> table = ps.predict(model, idata, level=["individual", "population"], random_seed=1)
    >>> sorted(set(table["level"]))
    ['individual', 'population']
    >>> later = pd.DataFrame({"subject": 1, "time": [36.0, 48.0], "dose": 319.992, "conc": np.nan})
    >>> forecast = ps.predict(build, idata, pd.concat([data, later]), random_seed=1)
    >>> int(forecast["observed"].isna().sum())
    2
    """
    check_types("predict", locals())
    levels = _check_levels(level)
    check_choice("subjects", subjects, CHOICES)
    check_choice("parameters", parameters, ("draws", "estimate"))
    check_count("n_draws", n_draws, 2)
    check_probability("ci_prob", ci_prob)
    fit, rng = Fit(idata), random_generator(random_seed)
    fit.require("individual")
    with model_with(model, data) as built:
        generator = Generator(built, fit.effects, axes=fit.unit_axes)
        chosen = choose_outcome(generator.outcomes, outcome)
        _check_effects(built, fit)
        estimate = fitted_values(built, generator.parameters, fit)
        of_design, *of_levels = rng.spawn(1 + len(LEVELS))
        design = read_design(generator, estimate, fit, of_design)
        matched = match(generator, design, fit, subjects)
        predictor = Levels(generator, design, fit, matched, estimate, parameters, n_draws, chosen)
        rngs = dict(zip(LEVELS, of_levels, strict=True))
        found = {name: predictor.predict(name, rngs[name], ci_prob) for name in levels}
        row_subject = design.row_subject[chosen.name]
        labels = np.empty(len(design.subjects), dtype=object)
        labels[:] = design.subjects  # entry by entry: of tuples, np.array would make two axes
        start = {"subject": labels[row_subject], "row": np.arange(chosen.n_rows)}
        times = row_times(generator, chosen, row_subject)
    if times is not None:
        start["time"] = times
    tables = []
    for name, predicted in found.items():
        source = matched.source[row_subject] if name == "individual" else POPULATION
        of_level = {"level": name} if len(levels) > 1 else {}
        tables.append(
            pd.DataFrame(
                start
                | of_level
                | {"observed": chosen.observed}
                | _columns(predicted)
                | {"source": source}
            )
        )
    table = pd.concat(tables, ignore_index=True)
    table["subject"] = table["subject"].infer_objects()
    _warn_of_gaps(table)
    return table


def _check_levels(level: str | Sequence[str]) -> list[str]:
    levels = [level] if isinstance(level, str) else list(level)
    for name in levels:
        check_choice("level", name, LEVELS)
    if not levels or len(set(levels)) < len(levels):
        raise ValueError(
            f"level is {shown(level)}; it must be one or several of {', '.join(map(repr, LEVELS))}, each once."
        )
    return levels


def _check_effects(model: pm.Model, fit: Fit) -> None:
    names = {rv.name for rv in model.free_RVs}
    lacking = [name for name in fit.effects if name not in names]
    if lacking:
        raise ValueError(
            f"The fit belongs to a different model: this one has no random effect '{lacking[0]}'."
        )


def _columns(predicted: Predicted) -> dict[str, np.ndarray]:
    return {
        "prediction": predicted.prediction,
        "lower": predicted.interval[0],
        "upper": predicted.interval[1],
        "lower_new": predicted.interval_new[0],
        "upper_new": predicted.interval_new[1],
    }


def _warn_of_gaps(table: pd.DataFrame) -> None:
    gaps = table.loc[table["prediction"].isna(), "subject"].unique()
    if gaps.size:
        warnings.warn(
            f"Predictions of subject {first_of(gaps)} are not finite everywhere; with a differential equation, the solver failed at "
            "tolerance 1e-8: raise max_steps of solve_ivp.",
            UserWarning,
            stacklevel=3,
        )
