"""Models that SAEM does not read, whatever their random effects: each is refused with the reason, and what to write instead."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
from pymc.distributions.simulator import SimulatorRV
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import IfElse, observed_variables
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import UnsupportedModelError
from pymc_saem.model.reading.observed_values import observed_values


def refuse_what_is_not_read(model: pm.Model) -> None:
    """Refuse models that cannot be read, whatever their random effects.

    Raises
    ------
    UnsupportedModelError
        Names the variable.
    """
    _refuse_dims(model)
    _refuse_potentials(model)
    if not observed_variables(model):
        raise UnsupportedModelError(
            "The model has no observed variable. SAEM needs data: give one variable observed=..."
        )
    if model.discrete_value_vars:
        names = ", ".join(model.values_to_rvs[v].name for v in model.discrete_value_vars)
        raise UnsupportedModelError(
            f"Free discrete variables ({names}) are not supported. Marginalize them out."
        )
    _refuse_simulators(model)
    _refuse_ifelse(model)
    _refuse_parts_of_the_data(model)
    _refuse_missing(model)
    _refuse_negative_codes(model)


def _refuse_dims(model: pm.Model) -> None:
    named = [
        v.name
        for v in (*model.free_RVs, *observed_variables(model))
        if "XTensor" in type(v.type).__name__
    ]
    if named:
        raise UnsupportedModelError(
            f"The model is written with pymc.dims ({', '.join(named)}), which SAEM does not read. Write it with pm.Normal(..., "
            "dims=...) and the like, and index random effects by codes."
        )


def _refuse_potentials(model: pm.Model) -> None:
    """Refuse each kind of potential with the reason, and how to write it instead."""
    for potential in model.potentials:
        free = [rv for rv in model.free_RVs if rv in set(ancestors([potential]))]
        of_effects = [
            rv.name
            for rv in free
            if rv.type.ndim or set(model.free_RVs) & set(ancestors(rv.owner.inputs))
        ]
        what = f"pm.Potential terms ({', '.join(p.name for p in model.potentials)}) are not read: "
        if not of_effects:
            raise UnsupportedModelError(
                f"{what}'{potential.name}' is a term of {', '.join(repr(rv.name) for rv in free) or 'constants'} without a variable, and "
                "SAEM takes priors from the distributions of the parameters. Give a parameter that prior, such as by pm.CustomDist, "
                "or remove the term."
            )
        whole = (
            "is one number, whose terms belong to no subject"
            if potential.type.ndim == 0
            else "has entries of no known subject"
        )
        raise UnsupportedModelError(
            f"{what}'{potential.name}' depends on {', '.join(repr(name) for name in of_effects)} and {whole}, and it is not an observed variable, "
            "whose values could be drawn, compared and counted. Write such a likelihood as an observed variable: pm.Censored or "
            "pm.Truncated for limits, pm.CustomDist('name', ..., logp=..., observed=...) for a custom density."
        )


def _refuse_simulators(model: pm.Model) -> None:
    for rv in observed_variables(model):
        if isinstance(rv.owner.op, SimulatorRV):
            raise UnsupportedModelError(
                f"'{rv.name}' is a pm.Simulator, which has no likelihood: its density is a distance to random draws and changes at each "
                "call. Write its rows with a distribution."
            )


def _refuse_ifelse(model: pm.Model) -> None:
    """PyTensor cannot evaluate its lazy conditional for many values of the random effects at a time."""
    free = set(model.free_RVs)
    for rv in observed_variables(model):
        for v in ancestors([rv]):
            if (
                v.owner is not None
                and isinstance(v.owner.op, IfElse)
                and free & set(ancestors([v]))
            ):
                raise UnsupportedModelError(
                    f"'{rv.name}' depends on free variables through pytensor.ifelse, which PyTensor cannot evaluate for many subjects at a "
                    "time. Write pm.math.switch(condition, a, b), which computes both branches."
                )


def _refuse_parts_of_the_data(model: pm.Model) -> None:
    for rv in observed_variables(model):
        name = rv.name.removesuffix("_observed")
        operations = {
            type(v.owner.op).__name__
            for v in ancestors([rv, model.rvs_to_values[rv]])
            if v.owner is not None
        }
        if any("MinibatchIndex" in kind or kind == "MinibatchOp" for kind in operations):
            raise UnsupportedModelError(
                f"The data of '{name}' are a pm.Minibatch, which returns different rows at each call, so rows have no fixed subject. Give the full arrays; "
                "fit_saem(minibatch=0.2) then moves a fifth of the subjects in each iteration."
            )
        if any("MinibatchRandomVariable" in kind for kind in operations):
            raise UnsupportedModelError(
                f"'{name}' has total_size=..., which multiplies its density as if the rows were a subset of the data. Give the full "
                "arrays without total_size; fit_saem(minibatch=0.2) moves a fifth of the subjects in each iteration."
            )


def _refuse_missing(model: pm.Model) -> None:
    for rv in model.free_RVs:
        if type(rv.owner.op).__name__ == "PartialObservedRV":
            name = rv.name.removesuffix("_unobserved")
            raise UnsupportedModelError(
                f"The observed data of '{name}' have missing values (NaN or masked), and its rows are not independent, or PyMC "
                "cannot take its distribution apart, as with pm.Censored. Drop those rows from the data, times and subjects "
                "before building the model."
            )
    for name in missing_rows(model):
        _refuse_imputed(model, name)
    for rv in observed_variables(model):
        values = observed_values(model, rv)
        if values.size == 0:
            raise UnsupportedModelError(
                f"The observed variable '{rv.name.removesuffix('_observed')}' has no observed value. Remove it, or give it data."
            )
        if not np.all(np.isfinite(values)):
            row = int(np.flatnonzero(~np.isfinite(values.ravel()))[0])
            raise UnsupportedModelError(
                f"The observed data of '{rv.name}' are not finite in row {row}. Drop missing rows before building the model."
            )


def refuse_sparse_effects(model: pm.Model, effects: list[str]) -> None:
    """Refuse products of a sparse matrix with random effects, which PyTensor cannot compute for many copies of the effects at once.

    Raises
    ------
    UnsupportedModelError
        Names the outcome and the effects.
    """
    for rv in observed_variables(model):
        for node in dict.fromkeys(v.owner for v in ancestors([rv]) if v.owner is not None):
            if any("Sparse" in type(v.type).__name__ for v in (*node.inputs, *node.outputs)):
                within = set(ancestors(node.inputs))
                if names := [name for name in effects if model[name] in within]:
                    raise UnsupportedModelError(
                        f"'{rv.name.removesuffix('_observed')}' depends on {', '.join(repr(name) for name in names)} by way of a sparse matrix, which "
                        "SAEM does not read. Write effect[subject] with the code of each row's subject, or the matrix as a dense array, Z.toarray()."
                    )


def missing_rows(model: pm.Model) -> set[str]:
    """Free variables that PyMC made of missing rows: they integrate to 1, so SAEM leaves them out."""
    names = {
        rv.name.removesuffix("_observed")
        for rv in observed_variables(model)
        if rv.name.endswith("_observed")
    }
    return {f"{name}_unobserved" for name in names} & {rv.name for rv in model.free_RVs}


def _refuse_imputed(model: pm.Model, name: str) -> None:
    """Refuse missing values that something else depends on: they do not integrate to 1, but are unknowns of the model."""
    rv, own = model[name], name.removesuffix("_unobserved")
    for other in (*model.free_RVs, *observed_variables(model)):
        if (
            other is not rv
            and other.name != f"{own}_observed"
            and rv in set(ancestors(other.owner.inputs))
        ):
            raise UnsupportedModelError(
                f"'{own}' has missing values, which PyMC imputes, and '{other.name.removesuffix('_observed')}' depends on them. SAEM does not "
                f"integrate over a covariate. Fill the missing values of '{own}' before building the model, such as by the median "
                "or by multiple imputation, and use it as data; or leave those rows or subjects out."
            )


def _refuse_negative_codes(model: pm.Model) -> None:
    """Codes below 0 count from the end, so that rows without a subject would become rows of the last one."""
    laws = [i for rv in (*model.free_RVs, *observed_variables(model)) for i in rv.owner.inputs]
    for node in dict.fromkeys(v.owner for v in ancestors(laws) if v.owner is not None):
        if not type(node.op).__name__.startswith("AdvancedSubtensor"):
            continue
        free = [rv.name for rv in model.free_RVs if rv in set(ancestors([node.inputs[0]]))]
        for index in node.inputs[1:] if free else ():
            codes = _integers(model, index)
            if (negative := np.flatnonzero(codes < 0)).size:
                shown = ", ".join(str(k) for k in negative[:10]) + (
                    ", ..." if negative.size > 10 else ""
                )
                raise UnsupportedModelError(
                    f"An index into {_name_of(node.inputs[0], free)} has {negative.size} codes below 0, the first of them {codes[negative[0]]}: "
                    f"in rows {shown}. Such codes count from the end, so these rows would be those of other subjects or groups. "
                    "factorize() gives -1 to missing labels: drop those rows, or give them their label."
                )


def _integers(model: pm.Model, index: Variable) -> np.ndarray:
    """Entries of an array of integers that no free variable changes; nothing for anything else."""
    if (
        getattr(index.type, "ndim", 0) == 0
        or index.type.dtype == "bool"
        or set(model.free_RVs) & set(ancestors([index]))
    ):
        return np.zeros(0, dtype=int)
    if isinstance(index, Constant):
        return np.ravel(index.data)
    return np.ravel(pytensor.function([], index, mode=INTERPRETED)())


def _name_of(variable: Variable, free: list[str]) -> str:
    return (
        f"'{variable.name}'"
        if variable.name
        else f"what is computed from {', '.join(repr(name) for name in free)}"
    )


def refuse_unused(model: pm.Model, missing: set[str]) -> None:
    """Refuse a free variable that no data depend on: it cannot be estimated.

    Raises
    ------
    UnsupportedModelError
        Names the variable.
    """
    needed = set(ancestors([i for rv in observed_variables(model) for i in rv.owner.inputs]))
    for rv in model.free_RVs:
        if rv not in needed and rv.name not in missing:
            raise UnsupportedModelError(
                f"No observed variable depends on the free variable '{rv.name}', so the data cannot estimate it. "
                "Remove it from the model."
            )
