"""The options of a fit, and the checks of those that SAEM and fit_saem share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pymc as pm
import pytensor
from pymc.distributions.transforms import Interval
from pymc.logprob.transforms import LogOddsTransform, LogTransform
from pytensor.compile.mode import get_mode

from pymc_saem.arguments import check_count, shown
from pymc_saem.model.density.point_map import PointMap
from pymc_saem.model.mixed_model import MixedModel, Parameter
from pymc_saem.saem.estep.registry import KERNELS

#: How an argument that was not given prints, where a resumed run may change it: what decides when
#: it ends, and what comes after.
UNSET = {
    "n_smooth": None,
    "draws": None,
    "tolerance": None,
    "likelihood": "default",
    "standard_errors": "default",
}
#: What these options are in a new fit.
OF_A_NEW_FIT = {
    "n_smooth": 350,
    "draws": 250,
    "tolerance": 0.05,
    "likelihood": "auto",
    "standard_errors": "auto",
}


@dataclass(frozen=True)
class Options:
    """Options of a fit: those of :func:`fit_saem` that a fit stores, and a resumed run continues with."""

    random_effects: Sequence[str] | None
    objective: str
    n_explore: int | str
    n_smooth: int
    n_transitions: int
    n_replicates: int | str
    kernel: Mapping[str, float] | str
    chains: int
    draws: int
    fixed: Mapping[str, Any] | None
    n_starts: int | str
    step_size_exponent: float
    annealing: float
    minibatch: float
    tolerance: float
    likelihood: str | None
    standard_errors: str | None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Options:
        """Options of a new fit among ``arguments``, which are by name; those that are unset have their defaults."""
        given = {field.name: arguments[field.name] for field in fields(cls)}
        return cls(
            **given
            | {name: OF_A_NEW_FIT[name] for name, unset in UNSET.items() if given[name] == unset}
        )

    def merge(self, arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> Options:
        """Options of a run that resumes one with these: the same, but for what was given and may change.

        Parameters
        ----------
        arguments, defaults : mapping
            By name; an argument that is its default was not given.

        Raises
        ------
        ValueError
            When another option was given than the run has.
        """
        for name in vars(self).keys() - UNSET.keys():
            stored = plain(getattr(self, name))
            if plain(arguments[name]) not in (stored, plain(defaults[name])):
                raise ValueError(
                    f"{name} is {shown(arguments[name])}, but the resumed run has {shown(stored)}. Omit it, or start a new fit."
                )
        return replace(
            self,
            **{name: arguments[name] for name, unset in UNSET.items() if arguments[name] != unset},
        )

    def check(self, cores: int, callback: Callable | None) -> None:
        """Refuse what makes no sense, as far as the step method does not check it."""
        for name, value, least in (
            ("n_smooth", self.n_smooth, 0),
            ("chains", self.chains, 1),
            ("cores", cores, 1),
            ("draws", self.draws, 2),
        ):
            check_count(name, value, least)
        if not 0.0 <= self.tolerance < np.inf:
            raise ValueError(
                f"tolerance is {shown(self.tolerance)}; it must be a number of standard errors, or 0 to run all of n_smooth."
            )
        if self.n_explore == 0 and self.n_smooth == 0:
            raise ValueError("n_explore and n_smooth are both 0; at least one iteration is needed.")
        if callback is not None and cores > 1 and self.chains > 1:
            raise ValueError("callback runs in this process and needs cores=1.")

    def for_step(self) -> dict[str, Any]:
        """Arguments of the step method. Its exploration is planned again when a chain begins."""
        return {
            "random_effects": self.random_effects,
            "objective": self.objective,
            "n_explore": 200 if self.n_explore == "auto" else self.n_explore,
            "n_transitions": self.n_transitions,
            "n_replicates": self.n_replicates,
            "kernel": self.kernel,
            "fixed": self.fixed,
            "n_starts": self.n_starts,
            "step_size_exponent": self.step_size_exponent,
            "annealing": self.annealing,
            "minibatch": self.minibatch,
        }

    def plain(self) -> dict[str, Any]:
        """By name, as JSON gives them back."""
        return plain(vars(self))


def plain(value: Any) -> Any:
    """An option as JSON gives it back."""
    if isinstance(value, Mapping):
        return {str(name): plain(x) for name, x in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    if isinstance(value, float) and np.isnan(value):
        return "NaN"  # which equals itself, unlike the number
    return value


def check_step_options(
    objective: str,
    n_explore: int,
    n_transitions: int,
    n_replicates: int | str,
    kernel: Mapping[str, float] | str,
    n_starts: int | str,
    minibatch: float,
    compile_kwargs: Mapping[str, Any] | None,
) -> None:
    """Refuse options that make no sense, with the value, what was expected, and what to do."""
    if objective not in ("map", "ml"):
        raise ValueError(
            f"objective is {shown(objective)}; it must be 'map' (with priors) or 'ml' (without)."
        )
    check_count("n_explore", n_explore, 0)
    if n_starts != "auto":
        check_count("n_starts", n_starts, 0, " or 'auto'")
    check_count("n_transitions", n_transitions, 1)
    if n_replicates != "auto":
        check_count("n_replicates", n_replicates, 1, " or 'auto'")
    if not isinstance(kernel, str):
        unknown = sorted(set(kernel) - set(KERNELS))
        if unknown or not kernel:
            raise ValueError(
                f"kernel shares name {unknown or 'nothing'}; the choices are {sorted(KERNELS)}."
            )
        if any(not np.isfinite(s) or s < 0 for s in kernel.values()) or sum(kernel.values()) <= 0:
            raise ValueError(
                f"kernel shares are {dict(kernel)}; they must be non-negative and not all zero."
            )
    if (
        isinstance(minibatch, bool)
        or not isinstance(minibatch, int | float)
        or not 0.0 < minibatch <= 1.0
    ):
        raise ValueError(
            f"minibatch is {shown(minibatch)}; it is the share of the subjects that move in an iteration, in (0, 1]."
        )
    unknown = sorted(set(compile_kwargs or {}) - {"mode"})
    if unknown:
        raise ValueError(f"compile_kwargs has {unknown}; only 'mode' is used.")
    _check_mode((compile_kwargs or {}).get("mode"))


def _check_mode(mode: Any) -> None:
    try:
        get_mode(mode)
    except Exception as error:  # PyTensor's own, of several kinds
        raise ValueError(
            f"compile_kwargs has mode={mode!r}, which PyTensor does not have; 'NUMBA', the default, 'FAST_COMPILE' and 'FAST_RUN' are some "
            f"that it has ({error})."
        ) from error


def check_initvals(model: pm.Model, initvals: Mapping[str, Any]) -> None:
    """Refuse starting values of other names or shapes, and what is not a number; PyMC has two texts of its own."""
    free = {rv.name: rv for rv in model.free_RVs}
    unknown = sorted(set(initvals) - set(free))
    if unknown:
        raise ValueError(f"initvals names {unknown}; the free variables are {sorted(free)}.")
    shapes = _shapes_of(list(free.values()))
    for name, value in initvals.items():
        if isinstance(value, str):
            if value not in ("support_point", "prior"):
                raise ValueError(
                    f"initvals[{name!r}] is {shown(value)}; a text must be 'support_point' or 'prior'."
                )
            continue
        shape = shapes[name]
        if hasattr(value, "owner"):  # a tensor, which PyMC evaluates
            continue
        try:
            value = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            raise ValueError(
                f"initvals[{name!r}] is {shown(value)}; it must hold numbers of shape {shape}."
            ) from None
        if value.shape != shape:
            raise ValueError(
                f"initvals[{name!r}] has shape {value.shape}, but the variable has shape {shape}."
            )


def _shapes_of(variables: list) -> dict[str, tuple[int, ...]]:
    """Shapes by name; no data are put in place of observed variables, which shapes of free ones do not need, and which once failed in PyMC."""
    evaluate = pytensor.function(
        [], [v.shape for v in variables], mode="FAST_COMPILE", on_unused_input="ignore"
    )
    return {v.name: tuple(map(int, shape)) for v, shape in zip(variables, evaluate(), strict=True)}


def natural_values(mixed: MixedModel, fixed: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """The user's constants, checked against the model: name -> flat natural value."""
    known = {p.name: p for p in mixed.parameters}
    values = {}
    for name, value in (fixed or {}).items():
        if name not in known:
            raise ValueError(
                f"fixed names '{name}', which is not a population parameter. The parameters are {sorted(known)}."
            )
        value = np.asarray(value, dtype=float)
        expected = known[name].natural_shape
        if value.shape != expected:
            raise ValueError(
                f"fixed['{name}'] has shape {value.shape}; the parameter has shape {expected}."
            )
        if np.any(np.isinf(value)) or np.all(np.isnan(value)) and value.size:
            raise ValueError(
                f"fixed['{name}'] is {value}; it must be finite, or NaN for the entries that are to be estimated."
            )
        if np.any(np.isnan(value)):
            _refuse_partly_fixed(mixed, known[name])
        _refuse_outside(mixed, known[name], value)
        values[name] = value.ravel()
    return values


def _refuse_partly_fixed(mixed: MixedModel, p: Parameter) -> None:
    transform = mixed.model.rvs_to_transforms.get(mixed.model[p.name])
    if transform is not None and not isinstance(
        transform, LogTransform | LogOddsTransform | Interval
    ):
        raise ValueError(
            f"fixed['{p.name}'] has NaN entries, but the {type(transform).__name__} of '{p.name}' ties its entries together. Fix all of "
            "them or none."
        )


def _refuse_outside(mixed: MixedModel, p: Parameter, value: np.ndarray) -> None:
    points = PointMap(mixed)
    known = np.isfinite(value.ravel())
    inside = points.natural(p, points.theta_of(points.template)[p.columns])
    with np.errstate(all="ignore"):
        whole = np.where(known, value.ravel(), inside)
        u = points.unconstrained(p, whole)
        back = points.natural(p, u)  # another value where entries do not add up to what they must
    if not np.all(np.isfinite(u)) or not np.allclose(back, whole, rtol=1e-6, atol=1e-12):
        raise ValueError(
            f"fixed['{p.name}'] is {value}, which is outside the support of the prior of '{p.name}'."
        )
