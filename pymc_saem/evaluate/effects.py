"""Random effects against the distribution that the model gives them: densities, and effects on a standard normal scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.random.basic import LogNormalRV, MvNormalRV, NormalRV
from pytensor.tensor.variable import TensorVariable
from scipy import special, stats

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.evaluate.fitted_outcome import DRAWS, MODE_SAMPLE, sample_values
from pymc_saem.evaluate.learned import _at_samples
from pymc_saem.evaluate.row_function import INTERPRETED
from pymc_saem.results.fit import Fit

#: Scale on which a distribution is normal: (values to that scale, derivative of it).
_SCALES = {
    "identity": (lambda x: x, lambda x: np.ones_like(x)),
    "log": (np.log, lambda x: 1.0 / x),
    "logit": (special.logit, lambda x: 1.0 / (x * (1.0 - x))),
}


@dataclass(frozen=True)
class Effect:
    """One random effect of all units: an entry of a variable.

    Attributes
    ----------
    label, variable, entry : str
        "w_a1[b1[0]]", "w_a1" and "b1[0]"; of a variable with one entry they are the same.
    units : ndarray, shape (unit,)
        Labels.
    dim : str
    mode : ndarray, shape (unit,)
    draws : ndarray, shape (draw, unit)
    z_mode, z_draws : ndarray
        The same on the scale on which the distribution of the effect is standard normal.
    shrinkage : float
        1 - mean(z_mode ** 2).
    law : NormalLaw or GeneralLaw
    correlation : ndarray, shape (entry,), or None
        With the entries of the same variable, in its distribution.
    """

    label: str
    variable: str
    entry: str
    units: np.ndarray = field(repr=False)
    dim: str
    mode: np.ndarray = field(repr=False)
    draws: np.ndarray = field(repr=False)
    z_mode: np.ndarray = field(repr=False)
    z_draws: np.ndarray = field(repr=False)
    law: NormalLaw | GeneralLaw = field(repr=False)
    place: int
    correlation: np.ndarray | None = field(repr=False)

    @property
    def shrinkage(self) -> float:
        return float(1.0 - np.mean(self.z_mode**2))

    def density(self, x: np.ndarray) -> np.ndarray:
        """Density of the population: the mean of the densities of all units, which may differ by covariates; (point,)."""
        return self.law.density(x, self.place)


class NormalLaw:
    """Effects that are normal on their own scale; ``mean`` and ``sd`` (sample, unit, entry)."""

    def __init__(
        self, mean: np.ndarray, sd: np.ndarray, scale: str, correlation: np.ndarray | None = None
    ) -> None:
        self.mean, self.sd, self.scale, self.correlation = mean, sd, scale, correlation

    def standardize(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (_SCALES[self.scale][0](values) - self.mean) / self.sd

    def density(self, x: np.ndarray, entry: int) -> np.ndarray:
        mean, sd = self.mean[MODE_SAMPLE, :, entry, None], self.sd[MODE_SAMPLE, :, entry, None]
        to, slope = _SCALES[self.scale]
        with np.errstate(divide="ignore", invalid="ignore"):
            values = stats.norm.pdf(to(x), mean, sd) * slope(x)
        return np.nan_to_num(values.mean(axis=0))


class GeneralLaw:
    """Effects of any distribution that PyMC has a density and a distribution function of; arguments (sample, unit, entry)."""

    correlation = None

    def __init__(self, rv: TensorVariable, arguments: Sequence[np.ndarray]) -> None:
        self.rv, self.arguments = rv, arguments

    def _evaluate(
        self, log_function: Callable, arguments: Sequence[np.ndarray], values: np.ndarray
    ) -> np.ndarray:
        inputs = [pt.tensor(dtype=a.dtype, shape=(None,) * a.ndim) for a in arguments]
        value = pt.tensor(dtype=self.rv.dtype, shape=(None,) * values.ndim)
        rng = pytensor.shared(np.random.default_rng(0))
        variable = self.rv.owner.op.make_node(rng, None, *inputs).outputs[1]
        f = pytensor.function([*inputs, value], log_function(variable, value), mode=INTERPRETED)
        return f(*arguments, values.astype(self.rv.dtype))

    def standardize(self, values: np.ndarray) -> np.ndarray:
        shape = values.shape
        arguments = [np.broadcast_to(a, shape).ravel() for a in self.arguments]
        below = np.exp(self._evaluate(pm.logcdf, arguments, values.ravel()))
        return special.ndtri(below).reshape(shape)

    def density(self, x: np.ndarray, entry: int) -> np.ndarray:
        shape = self.arguments[0].shape[1:]
        arguments = [np.broadcast_to(a[MODE_SAMPLE], shape)[:, entry] for a in self.arguments]
        points = np.tile(x, (shape[0], 1))
        arguments = [np.repeat(a, x.size) for a in arguments]
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.exp(self._evaluate(pm.logp, arguments, points.ravel()))
        return np.nan_to_num(values.reshape(points.shape).mean(axis=0))


def find_effects(
    model: pm.Model,
    idata: InferenceData,
    names: str | Sequence[str] | None = None,
    n_draws: int = 200,
) -> list[Effect]:
    """All random effects of a fit, entry by entry.

    Parameters
    ----------
    model : pymc.Model
    idata : arviz.InferenceData or xarray.DataTree
    names : str or sequence of str, optional
        Names of variables or labels of entries.
    n_draws : int

    Raises
    ------
    ValueError
        When a name does not exist.
    NotImplementedError
        When the distribution of an effect is multivariate and not normal.
    """
    samples = sample_values(model, idata, n_draws)
    fit = Fit(idata)
    variables = [rv for rv in model.free_RVs if rv.name in fit.effects]
    if names is not None:
        names = [names] if isinstance(names, str) else list(names)
        asked = {str(name).split("[")[0] for name in names}
        variables = [rv for rv in variables if rv.name in asked] or variables
    # the distributions at the estimate: parameters do not vary, effects of a higher level do
    fixed = {
        n: v if n in fit.effects else np.repeat(v[:1], len(v), axis=0) for n, v in samples.items()
    }
    found = [e for rv in variables for e in _entries(model, fit, rv, samples[rv.name], fixed)]
    if names is None:
        return found
    for name in names:
        if not any(name in (e.label, e.variable) for e in found):
            known = ", ".join(
                dict.fromkeys(rv.name for rv in model.free_RVs if rv.name in fit.effects)
            )
            raise ValueError(f"There is no random effect {name!r}; there are {known}.")
    return [e for e in found if e.label in names or e.variable in names]


def _entries(
    model: pm.Model,
    fit: Fit,
    rv: TensorVariable,
    values: np.ndarray,
    fixed: dict[str, np.ndarray],
) -> list[Effect]:
    name = str(rv.name)
    array, axis = fit.individual[f"{name}_mode"], fit.unit_axes[name]
    array = array.transpose(array.dims[axis], ...)
    values = np.moveaxis(values, 1 + axis, 1)
    labels = [[str(c) for c in array[d].values] for d in array.dims[1:]]
    entries = [
        ", ".join(labels[a][i] for a, i in enumerate(at)) for at in np.ndindex(*array.shape[1:])
    ]
    values = values.reshape(*values.shape[:2], -1)
    law = _law(model, rv, fixed, values.shape, axis)
    z = law.standardize(values)
    return [
        Effect(
            label=f"{name}[{entry}]" if entry else name,
            variable=name,
            entry=entry or name,
            units=array[array.dims[0]].values,
            dim=str(array.dims[0]),
            mode=values[MODE_SAMPLE, :, k],
            draws=values[DRAWS, :, k],
            z_mode=z[MODE_SAMPLE, :, k],
            z_draws=z[DRAWS, :, k],
            law=law,
            place=k,
            correlation=None if law.correlation is None else law.correlation[k],
        )
        for k, entry in enumerate(entries)
    ]


def _law(
    model: pm.Model,
    rv: TensorVariable,
    samples: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    axis: int,
) -> NormalLaw | GeneralLaw:
    op, node = rv.owner.op, rv.owner
    if not hasattr(op, "dist_params") or (op.ndim_supp and not isinstance(op, MvNormalRV)):
        raise NotImplementedError(
            f"The random effect '{rv.name}' has the distribution {op}; only univariate and normal distributions can be drawn."
        )
    arguments = _at_samples(model, list(op.dist_params(node)), samples)
    if isinstance(op, MvNormalRV):
        mean, cov = arguments
        sd = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
        one = cov[MODE_SAMPLE].reshape(-1, *cov.shape[-2:])[0]
        correlation = one / np.sqrt(np.outer(np.diag(one), np.diag(one)))
        return NormalLaw(
            _whole(mean, rv, shape, axis), _whole(sd, rv, shape, axis), "identity", correlation
        )
    arguments = [_whole(a, rv, shape, axis) for a in arguments]
    scale = (
        "log" if isinstance(op, LogNormalRV) else "identity" if isinstance(op, NormalRV) else None
    )
    if type(op).__name__.lower().startswith("logitnormal"):
        scale = "logit"
    if scale is None:
        return GeneralLaw(rv, arguments)
    mean, sd = arguments[:2]
    return NormalLaw(mean, sd, scale)


def _whole(values: np.ndarray, rv: TensorVariable, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """An argument (sample, ...) with all axes of the variable, the units first, the others flattened: (sample, unit, entry)."""
    core = rv.type.ndim
    values = values.reshape(len(values), *(1,) * (core - (values.ndim - 1)), *values.shape[1:])
    values = np.moveaxis(values, 1 + axis, 1)
    units, rest = shape[1], tuple(n for k, n in enumerate(rv.type.shape) if k != axis)
    rest = tuple(values.shape[2 + k] if n is None else n for k, n in enumerate(rest))
    # lengths that the graph alone knows, and that this argument does not have
    if int(np.prod(rest)) != shape[2]:
        rest = (shape[2],) if core == 2 else rest
    return np.broadcast_to(values, (len(values), units, *rest)).reshape(len(values), units, -1)


def random_effects(
    model: pm.Model,
    idata: InferenceData,
    effects: str | Sequence[str] | None = None,
    *,
    n_draws: int = 200,
    ci_prob: float = 0.9,
) -> pd.DataFrame:
    """Tabulate the random effects of a fit against the distribution that the model gives them.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    effects : str or sequence of str, optional
        Names of variables or of their entries; all random effects by default.
    n_draws : int, default 200
        Draws behind the intervals, at most.
    ci_prob : float, default 0.9
        Probability of the intervals, equal tails.

    Returns
    -------
    pandas.DataFrame
        A row for each effect and unit. Columns: ``effect``, ``unit`` (subject, or occasion),
        ``mode`` (conditional mode, natural scale), ``lower``, ``upper`` (of the effect given the
        data), ``standardized`` (the mode, on the scale on which the effect's distribution is
        standard normal: (phi - mean) / omega_sd for normal distributions, the normal quantile of
        its distribution function for others), ``standardized_lower``, ``standardized_upper``, and
        ``shrinkage`` of the effect, 1 - mean(standardized ** 2).

    Raises
    ------
    ValueError
        When an effect does not exist.
    NotImplementedError
        When the distribution of an effect is multivariate and not normal.

    See Also
    --------
    pymc_saem.plot_random_effects : The same as figures.
    pymc_saem.individuals : Conditional distributions of the effects.

    Examples
    --------
    >>> table = ps.random_effects(model, idata, "ka")
    >>> list(table.columns[:5])
    ['effect', 'unit', 'mode', 'lower', 'upper']
    >>> len(table)
    12
    """
    check_types("random_effects", locals())
    levels = [0.5 - ci_prob / 2, 0.5 + ci_prob / 2]
    tables = []
    for effect in find_effects(model, idata, effects, n_draws):
        n = effect.units.size
        nothing = np.full((2, n), np.nan)
        bounds = np.quantile(effect.draws, levels, axis=0) if len(effect.draws) else nothing
        z_bounds = np.quantile(effect.z_draws, levels, axis=0) if len(effect.z_draws) else nothing
        tables.append(
            pd.DataFrame(
                {
                    "effect": effect.label,
                    "unit": effect.units,
                    "mode": effect.mode,
                    "lower": bounds[0],
                    "upper": bounds[1],
                    "standardized": effect.z_mode,
                    "standardized_lower": z_bounds[0],
                    "standardized_upper": z_bounds[1],
                    "shrinkage": effect.shrinkage,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
