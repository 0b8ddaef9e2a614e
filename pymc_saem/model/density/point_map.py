"""theta and phi to and from a PyMC point: transforms, dtypes, key order. No other file uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from numpy.typing import ArrayLike
from pymc.distributions.transforms import Interval
from pymc.logprob.transforms import LogOddsTransform, LogTransform
from pytensor.tensor.variable import TensorVariable
from scipy.special import expit, logit

from pymc_saem.model.density.symbols import model_value, substitution, symbols
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import MixedModel, Parameter, RandomEffect
from pymc_saem.model.normal.parametrization import location_and_scale

_FROM_PHI = {"identity": lambda x: x, "log": np.exp, "logit": expit}
_TO_PHI = {"identity": lambda x: x, "log": np.log, "logit": logit}


def compile_transform(
    model: pm.Model, rv: TensorVariable, direction: str, ndim: int
) -> Callable[[np.ndarray], np.ndarray]:
    """The transform of a variable, "forward" to its unconstrained value or "backward", as a function of arrays."""
    x = pt.tensor(shape=(None,) * ndim, dtype="float64")
    y = getattr(model.rvs_to_transforms[rv], direction)(x, *rv.owner.inputs)
    return pytensor.function([x], y, mode=INTERPRETED, on_unused_input="ignore")


def natural_shape(model: pm.Model, rv: TensorVariable, value: np.ndarray) -> tuple[int, ...]:
    """Shape of a variable with this unconstrained value; another where a transform drops entries that follow from others."""
    transform = model.rvs_to_transforms.get(rv)
    if transform is None or isinstance(transform, LogTransform | LogOddsTransform | Interval):
        return value.shape
    return compile_transform(model, rv, "backward", value.ndim)(value).shape


def initial_point(model: pm.Model) -> dict[str, np.ndarray]:
    """PyMC's initial point, without the C compiler, which would take half a second to save a millisecond."""
    with pytensor.config.change_flags(cxx=""):
        return model.initial_point(random_seed=0)


@dataclass
class PointMap:
    """Moves between SAEM's arrays and PyMC's dictionaries.

    theta is the flat vector of all parameters on the unconstrained scale (PyMC's value variables);
    phi holds the random effects on the scale on which they are Gaussian, shape (..., subject, phi).
    """

    mixed: MixedModel
    _compiled: dict = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # compiled functions are rebuilt in the other process
        return {
            "mixed": self.mixed,
            "_compiled": {},
        }

    # -- points -------------------------------------------------------------------------------

    def theta_of(self, point: Mapping[str, np.ndarray]) -> np.ndarray:
        """Flat theta of a point with value-variable keys."""
        parts = [np.ravel(point[p.value_name]) for p in self.mixed.parameters]
        return np.concatenate(parts).astype(float) if parts else np.zeros(0)

    def theta_at(self, values: Mapping[str, ArrayLike]) -> np.ndarray:
        """Flat theta of the natural values of all parameters, by name, in any shape of the right size."""
        theta = np.zeros(self.mixed.n_theta)
        for p in self.mixed.parameters:
            theta[p.columns] = self.unconstrained(
                p, np.ravel(np.asarray(values[p.name], dtype=float))
            )
        return theta

    def phi_of(self, point: Mapping[str, np.ndarray]) -> np.ndarray:
        """phi of a point, shape (subject, phi)."""
        parts, indirect = [], self._indirect_phi(point)
        for effect in self.mixed.random_effects:
            if effect.name in indirect:
                value = indirect[effect.name]
            else:
                value = np.asarray(point[effect.value_name], dtype=float)
                value = value if effect.value_is_phi else _TO_PHI[effect.link](value)
            parts.append(effect.to_columns(value, self.mixed.n_subjects))
        return np.concatenate(parts, axis=-1)

    def _indirect_phi(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """phi of the random effects that are deviations or standard normal, in their shapes."""
        effects = [e for e in self.mixed.random_effects if e.form != "direct"]
        if not effects:
            return {}
        if "phi" not in self._compiled:
            model = self.mixed.model
            graphs = []
            for e in effects:
                value = model_value(self.mixed, e.name)
                if e.image is not None:
                    graphs += model.replace_rvs_by_values([e.image.of_latent(model[e.name])])
                else:
                    (mean,) = model.replace_rvs_by_values([location_and_scale(model[e.name])[0]])
                    graphs.append(value - mean)
            self._compiled["phi"] = pytensor.function(
                model.value_vars, graphs, mode=INTERPRETED, on_unused_input="ignore"
            )
        found = self._compiled["phi"](*(point[v.name] for v in self.mixed.model.value_vars))
        return {
            e.name: np.broadcast_to(x, e.shape).astype(float)
            for e, x in zip(effects, found, strict=True)
        }

    def _indirect_values(self, theta: np.ndarray, phi: np.ndarray) -> dict[str, np.ndarray]:
        """Value variables of the same random effects; phi (..., subject, phi)."""
        effects = [e for e in self.mixed.random_effects if e.form != "direct"]
        if not effects:
            return {}
        if "values" not in self._compiled:
            phi_symbol, theta_symbol = symbols(self.mixed)
            values = substitution(self.mixed, phi_symbol, theta_symbol)
            graphs = [values[model_value(self.mixed, e.name)] for e in effects]
            self._compiled["values"] = pytensor.function(
                [phi_symbol, theta_symbol], graphs, mode=INTERPRETED, on_unused_input="ignore"
            )
        rows = [
            self._compiled["values"](block, theta) for block in phi.reshape(-1, *phi.shape[-2:])
        ]
        lead = phi.shape[:-2]
        return {
            e.name: np.reshape([row[k] for row in rows], (*lead, *e.shape))
            for k, e in enumerate(effects)
        }

    def to_point(
        self, theta: np.ndarray, phi: np.ndarray, like: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Point with the keys, key order and dtypes of ``like``, since PyMC's trace depends on them."""
        new, indirect = {}, self._indirect_values(theta, phi)
        for p in self.mixed.parameters:
            new[p.value_name] = theta[p.columns].reshape(p.shape)
        for effect in self.mixed.random_effects:
            if effect.name in indirect:
                new[effect.value_name] = indirect[effect.name]
                continue
            value = effect.from_columns(phi[:, effect.columns])
            new[effect.value_name] = value if effect.value_is_phi else _FROM_PHI[effect.link](value)
        # np.array, not a NumPy scalar: PyMC's backends read .shape and .dtype of 0-d arrays
        cast = {name: np.array(value, dtype=like[name].dtype) for name, value in new.items()}
        return like | cast

    # -- natural scale ------------------------------------------------------------------------

    def natural_phi(self, phi: np.ndarray, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Random effects under the user's names, shapes (..., subject or unit, *event)."""
        blocks = {e.name: e.from_columns(phi[..., e.columns]) for e in self.mixed.random_effects}
        blocks |= self._indirect_values(theta, phi)
        return {e.name: self._natural_effect(e, blocks[e.name]) for e in self.mixed.random_effects}

    def _natural_effect(self, effect: RandomEffect, values: np.ndarray) -> np.ndarray:
        if effect.link != "value":
            return _FROM_PHI[effect.link](values)
        if self.mixed.model.rvs_to_transforms.get(self.mixed.model[effect.name]) is None:
            return values
        backward = self._transform(effect, "backward")
        flat = values.reshape(-1, *effect.shape)
        return np.stack([np.broadcast_to(backward(v), effect.shape) for v in flat]).reshape(
            values.shape
        )

    def natural(self, parameter: Parameter, u: np.ndarray) -> np.ndarray:
        """Natural value of one parameter, flat; ``u`` is its flat unconstrained value."""
        return self._moved(parameter, u, "backward")

    def unconstrained(self, parameter: Parameter, x: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`natural`."""
        return self._moved(parameter, x, "forward")

    def _moved(self, parameter: Parameter, values: np.ndarray, direction: str) -> np.ndarray:
        """One parameter, flat, to its unconstrained scale ("forward") or back."""
        kind = self._transform_kind(parameter)
        if kind == "identity":
            return np.asarray(values, dtype=float)
        is_forward = direction == "forward"
        if kind == "log":
            return np.log(values) if is_forward else np.exp(values)
        shapes = parameter.shape, parameter.natural_shape
        new, old = shapes if is_forward else shapes[::-1]
        found = self._transform(parameter, direction)(np.reshape(values, old))
        return np.ravel(np.broadcast_to(found, new))

    def natural_theta(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """All parameters under the user's names; theta is (theta,) or (iteration, theta)."""
        theta = np.asarray(theta)
        out = {}
        for p in self.mixed.parameters:
            flat = theta[..., p.columns]
            if flat.ndim == 1 or self._transform_kind(p) != "other":
                out[p.name] = np.reshape(self.natural(p, flat), theta.shape[:-1] + p.natural_shape)
            else:
                out[p.name] = np.stack(
                    [np.reshape(self.natural(p, row), p.natural_shape) for row in flat]
                )
        return out

    def _transform_kind(self, parameter: Parameter) -> str:
        transform = self.mixed.model.rvs_to_transforms.get(self.mixed.model[parameter.name])
        if transform is None:
            return "identity"
        return "log" if isinstance(transform, LogTransform) else "other"

    def transform_name(self, parameter: Parameter) -> str:
        """Class of the transform of a parameter; an empty string where there is none."""
        transform = self.mixed.model.rvs_to_transforms.get(self.mixed.model[parameter.name])
        return "" if transform is None else type(transform).__name__

    def _transform(
        self, variable: Parameter | RandomEffect, direction: str
    ) -> Callable[[np.ndarray], np.ndarray]:
        key = (variable.name, direction)
        if key not in self._compiled:
            rv = self.mixed.model[variable.name]
            shape = variable.shape
            if direction == "forward" and isinstance(variable, Parameter):
                shape = variable.natural_shape
            self._compiled[key] = compile_transform(self.mixed.model, rv, direction, len(shape))
        return self._compiled[key]

    @cached_property
    def template(self) -> dict[str, np.ndarray]:
        """PyMC's initial point: names, order and dtypes of a full point."""
        return initial_point(self.mixed.model)
