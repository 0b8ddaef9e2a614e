"""New data sets from a model: new random effects, new outcomes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr

from pymc_saem.arguments import check_choice, check_count, check_types, first_of, random_generator
from pymc_saem.compat import InferenceData
from pymc_saem.evaluate.drawing import refuse_undrawable
from pymc_saem.evaluate.generator import Generated, Generator
from pymc_saem.prediction.values import (
    check_values,
    choose_draws,
    fitted_values,
    names_of_effects,
)
from pymc_saem.results.fit import Fit
from pymc_saem.results.labels import as_labels


def simulate(
    model: pm.Model,
    idata_or_values: InferenceData | Mapping[str, Any],
    n: int = 1,
    *,
    random_seed: int | np.random.Generator | None = None,
    parameters: str = "estimate",
    random_effects: Sequence[str] | None = None,
) -> xr.Dataset:
    """Simulate data sets from a model.

    Each data set has new random effects for every subject, drawn from their distribution given the
    parameters, and new outcomes for every row. What is observed in ``model`` is not used: only its
    design counts (subjects, rows, times, covariates). All data sets are evaluated together;
    differential equations are solved to 1e-8, whatever the tolerance of the model.

    Parameters
    ----------
    model : pymc.Model
        The fitted model, or one of the same parameters with another design. It is not changed.
    idata_or_values : arviz.InferenceData, xarray.DataTree or mapping of str to array_like
        A fit, also one that was read from a file; or natural values of all parameters, by name.
    n : int, default 1
        Data sets.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same data sets.
    parameters : {"estimate", "draws"}, default "estimate"
        "draws" gives each data set other parameters, from the posterior group of the fit, so that
        their uncertainty is in the data sets.
    random_effects : sequence of str, optional
        Names of the random effects, where values are given by name and the effects are not found
        from the model: see
        :func:`pymc_saem.fit_saem`. A fit stores them.

    Returns
    -------
    xarray.Dataset
        Each outcome and each random effect under the user's name, dims ("simulation", ...) with the
        dims and coords of the model; the parameters too, where they differ between data sets. An
        outcome with missing rows is whole, under the name that its user gave it. Rows of a subject
        whose differential equation has no solution are NaN, its random effects are not.

    Raises
    ------
    ValueError
        When a value is missing, unknown or of another shape, when the fit belongs to a different
        model or has no draws, or an option is out of range.

    Warns
    -----
    UserWarning
        When outcomes could not be computed; the message names the subjects.

    See Also
    --------
    pymc_saem.vpc : Simulated data sets beside the data.
    pymc_saem.predict : Predictions with intervals.
    pymc_saem.bootstrap : Refits to simulated data sets.

    Examples
    --------
    >>> sets = ps.simulate(model, idata, n=100, random_seed=1)
    >>> sets["conc"].sizes["simulation"]
    100
    >>> values = {"log_ka": 0.5, "log_V": 3.5, "log_CL": 1.0, "omega_ka": 0.6, "omega_V": 0.2, "omega_CL": 0.3, "sigma": 0.7}
    >>> ps.simulate(model, values, n=100, random_seed=1)["ka"].dims
    ('simulation', 'subject')
    """
    check_types("simulate", locals())
    check_count("n", n, 1)
    check_choice("parameters", parameters, ("estimate", "draws"))
    rng = random_generator(random_seed)
    if isinstance(idata_or_values, Mapping) and not hasattr(idata_or_values, "attrs"):
        if parameters == "draws":
            raise ValueError(
                "parameters='draws' needs a fit, which has draws; values by name are used as given."
            )
        generator = Generator(model, names_of_effects(model, idata_or_values, random_effects))
        values = check_values(model, generator.parameters, generator.effects, idata_or_values)
    else:
        fit = Fit(idata_or_values)
        generator = generator_of(model, fit, random_effects)
        values = fitted_values(model, generator.parameters, fit)
        if parameters == "draws":
            values = _drawn_values(fit, generator.parameters, n, rng)
    generated = generate(generator, values, int(n), rng)
    return _dataset(generator, generated, values if parameters == "draws" else {})


def generator_of(
    model: pm.Model, fit: Fit, random_effects: Sequence[str] | None = None
) -> Generator:
    """What generates data at a fit; its random effects are those of the fit, if the file has them."""
    if fit.has_effects:
        return Generator(model, fit.effects, axes=fit.unit_axes)
    return Generator(model, names_of_effects(model, None, random_effects))


def generate(
    generator: Generator, values: Mapping[str, np.ndarray], n: int, rng: np.random.Generator
) -> Generated:
    """n data sets, with one warning about all rows that are NaN."""
    refuse_undrawable(generator.outcomes)
    generated = generator.draw(values, n, rng)
    warn_of_failures(generator, generated, stacklevel=4)
    return generated


def _drawn_values(
    fit: Fit, names: Sequence[str], n: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    if not fit.n_draws:
        raise ValueError("The fit has no draws of the parameters; use parameters='estimate'.")
    which = choose_draws(fit.n_draws, n, rng)
    values = {name: fit.draws(name, which) for name in names}
    if all(np.all(value == value[:1]) for value in values.values()) and fit.n_draws > 1:
        warnings.warn(
            "The draws of the parameters are all the same, because the fit has no standard errors: the data sets do not "
            "hold the uncertainty of the parameters.",
            UserWarning,
            stacklevel=3,
        )
    return values


def warn_of_failures(generator: Generator, generated: Generated, stacklevel: int = 3) -> None:
    """One warning about all rows that are NaN, with the subjects and the reasons."""
    failed = generated.laws.failed
    if failed is not None and failed.any():
        labels = subject_labels(generator, failed.shape[1])
        worst = np.argsort(-failed.sum(axis=0), kind="stable")
        counts = [f"{labels[s]} ({int(failed[:, s].sum())})" for s in worst if failed[:, s].any()]
        warnings.warn(
            f"{int(failed.sum())} of {failed.size} differential equations have no solution, and the outcomes of these subjects "
            f"are NaN in as many data sets: {first_of(counts)}. {' '.join(generated.laws.causes)}",
            UserWarning,
            stacklevel=stacklevel,
        )
        return
    for name, values in generated.outcomes.items():
        n_bad = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
        if n_bad:
            warnings.warn(
                f"{n_bad} of {values.size} values of outcome '{name}' are NaN: their prediction is not finite.",
                UserWarning,
                stacklevel=stacklevel,
            )


def subject_labels(generator: Generator, n_subjects: int) -> list:
    """Labels of the subjects of a solution; their numbers where the model has none."""
    for name in generator.effects:
        dims = generator.model.named_vars_to_dims.get(name)
        coords = generator.model.coords.get(dims[generator.axes[name]]) if dims else None
        if coords is not None and len(coords) == n_subjects:
            return list(coords)
    return list(range(n_subjects))


def _dataset(
    generator: Generator, generated: Generated, values: Mapping[str, np.ndarray]
) -> xr.Dataset:
    model = generator.model
    arrays: dict[str, tuple[tuple[str | None, ...], np.ndarray]] = {}
    for outcome in generator.outcomes:
        arrays[outcome.name] = (outcome.dims, generated.outcomes[outcome.name])
    for name, value in {**generated.effects, **values}.items():
        dims = tuple(model.named_vars_to_dims.get(name) or ())
        arrays[name] = (dims + (None,) * (value.ndim - 1 - len(dims)), value)
    data, coords = {}, {}
    for name, (dims, value) in arrays.items():
        # PyMC's habit for axes without a name
        named = ["simulation", *(dim or f"{name}_dim_{axis}" for axis, dim in enumerate(dims))]
        data[name] = (named, value)
        for dim, length in zip(named, value.shape, strict=True):
            known = model.coords.get(dim)
            coords[dim] = (
                as_labels(known)
                if known is not None and len(known) == length
                else np.arange(length)
            )
    return xr.Dataset(data, coords=coords)
