"""Log prior densities of the parameters on the natural scale, as ``pm.find_MAP`` counts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

from pymc_saem.model.density.symbols import model_value
from pymc_saem.model.graph.gradient import gradients
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import MixedModel, Parameter


def _elementary_functions(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1, log x, (log x)^2, x, x^2, 1/x and 1/x^2 with their first and second derivatives, each (function, k)."""
    t, zero, one = np.log(x), np.zeros_like(x), np.ones_like(x)
    return (
        np.stack([one, t, t**2, x, x**2, 1 / x, x**-2.0]),
        np.stack([zero, 1 / x, 2 * t / x, one, 2 * x, -(x**-2.0), -2 * x**-3.0]),
        np.stack([zero, -(x**-2.0), 2 * (1 - t) / x**2, zero, 2 * one, 2 * x**-3.0, 6 * x**-4.0]),
    )


@dataclass
class Prior:
    """Prior of one parameter: no Jacobian term, so the mode is that of the natural scale."""

    mixed: MixedModel
    parameter: Parameter
    _functions: dict[str, Callable[..., Any]] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_functions": {}}

    @property
    def name(self) -> str:
        """How the prior prints, such as ``HalfNormal``."""
        return (
            type(self.mixed.model[self.parameter.name].owner.op)
            .__name__.removesuffix("RV")
            .lstrip("_")
        )

    def natural(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log density, first and second derivative of each entry; x (k,) > 0 on the natural scale."""
        if self._elementary is None:
            return self._function("natural")(x)
        return tuple(np.einsum("fk,fk->k", self._elementary, f) for f in _elementary_functions(x))

    def unconstrained(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density (a float) and its gradient with respect to u (k,), the flat unconstrained value."""
        value, gradient = self._function("unconstrained")(u)
        return float(value), gradient

    def is_flat(self) -> bool:
        """Whether the density is constant over the whole unconstrained scale."""
        probes = [np.full(self._size, u) for u in (-20.0, -3.0, 0.0, 2.5, 20.0)]
        values = [self.unconstrained(u)[0] for u in probes]
        return bool(np.all(np.isfinite(values)) and np.ptp(values) == 0.0)

    def quadratic(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Precision (k, k) and shift (k,) if the log density is quadratic in u; otherwise None."""
        rng = np.random.default_rng(0)  # probes a fixed function: any points do
        origin = self.unconstrained(np.zeros(self._size))[1]
        hessian = np.stack([self.unconstrained(e)[1] - origin for e in np.eye(self._size)])
        for scale in (0.5, 3.0):
            u = scale * rng.standard_normal(self._size)
            value, gradient = self.unconstrained(u)
            expected = origin + u @ hessian
            if not np.isfinite(value) or not np.allclose(gradient, expected, rtol=1e-8, atol=1e-10):
                return None
        return -0.5 * (hessian + hessian.T), origin

    @cached_property
    def _elementary(self) -> np.ndarray | None:
        """Coefficients (function, k) if the log density is a sum of elementary functions; otherwise None.

        LogNormal, Gamma, InverseGamma, HalfNormal and Exponential are. Sums take a hundredth of the
        time of an interpreted graph, and an M-step evaluates a prior several times.
        """
        near = np.linspace(-2.5, 2.5, 14)
        # the far ones detect a bounded support
        t = np.concatenate([near[::2], near[1::2], [-16.0, -8.0, 8.0, 16.0]])
        values = np.stack([self._function("natural")(np.full(self._size, x))[0] for x in np.exp(t)])
        if not np.all(np.isfinite(values)):
            return None
        functions = _elementary_functions(np.exp(t))[0].T
        coefficients = np.linalg.lstsq(functions[:7], values[:7], rcond=None)[0]
        # Rounding errors would matter where x is large or small.
        coefficients[np.abs(coefficients) < 1e-8 * np.abs(coefficients).max(axis=0)] = 0.0
        return (
            coefficients
            if np.allclose(functions @ coefficients, values, rtol=1e-9, atol=1e-9)
            else None
        )

    @property
    def _size(self) -> int:
        return self.parameter.columns.stop - self.parameter.columns.start

    def _function(self, scale: str) -> Callable[..., Any]:
        if scale not in self._functions:
            self._functions[scale] = self._compile(scale)
        return self._functions[scale]

    def _compile(self, scale: str) -> Callable[..., Any]:
        rv = self.mixed.model[self.parameter.name]
        flat = pt.tensor("u", dtype="float64", shape=(self._size,))
        if scale == "natural":
            x = flat.reshape(self.parameter.shape)
        else:
            transform = self.mixed.model.rvs_to_transforms.get(rv)
            u = flat.reshape(self.parameter.shape)
            x = u if transform is None else transform.backward(u, *rv.owner.inputs)
        density = pm.logp(rv, x.astype(model_value(self.mixed, self.parameter.name).dtype))
        (gradient,) = gradients(density.sum(), [flat])
        if scale == "natural":
            (second,) = gradients(gradient.sum(), [flat])
            outputs = [pt.broadcast_to(density, self.parameter.shape).ravel(), gradient, second]
        else:
            outputs = [density.sum(), gradient]
        mode = INTERPRETED.including("local_check_parameter_to_ninf_switch")
        return pytensor.function([flat], outputs, mode=mode, on_unused_input="ignore")
