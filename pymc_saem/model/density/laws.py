"""The distributions that a model gives its random effects, evaluated at trial parameters."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.distributions.continuous import TruncatedNormalRV
from pymc.distributions.distribution import support_point
from pymc.distributions.truncated import TruncatedRV
from pytensor.tensor.variable import TensorVariable

from pymc_saem.model.density.densities import effect_logp
from pymc_saem.model.density.symbols import in_symbols, symbols
from pymc_saem.model.graph.generic_points import generic_points, quietly
from pymc_saem.model.graph.gradient import gradients
from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.mixed_model import Block, MixedModel, Parameter, RandomEffect
from pymc_saem.model.normal.parametrization import law_of


class LawOfPhi:
    """Evaluates the means and covariances of the Gaussian columns of phi at trial values of theta."""

    def __init__(self, mixed: MixedModel, theta: np.ndarray) -> None:
        self.mixed, self.base, self.rng = mixed, theta, np.random.default_rng(0)
        self.blocks = [b for b in mixed.blocks if b.is_gaussian]
        phi, symbol = symbols(mixed)
        graphs = [g for b in self.blocks for g in law_of(mixed.model, b)]
        graphs = in_symbols(mixed, graphs, phi, symbol)
        # A Gaussian distribution has no other random effect in it, so that phi is not used.
        self._f = quietly(
            pytensor.function([symbol], graphs, mode=INTERPRETED, on_unused_input="ignore")
        )

    def __reduce__(self) -> tuple[type[LawOfPhi], tuple[MixedModel, np.ndarray]]:
        # compiled functions are rebuilt in the other process
        return type(self), (
            self.mixed,
            self.base,
        )

    @cached_property
    def points(self) -> list[np.ndarray]:
        """Trial values of theta, to find what the distribution depends on: at the start, some terms are multiplied by 0."""

        def is_fine(theta: np.ndarray) -> bool:
            return all(np.all(np.isfinite(value)) for value in self._f(theta))

        return generic_points(self.base, is_fine, np.random.default_rng(1))

    def moved(self, theta: np.ndarray, parameter: Parameter) -> np.ndarray:
        """theta with another value of one parameter."""
        moved = theta.copy()
        moved[parameter.columns] += self.rng.uniform(0.1, 0.5, size=moved[parameter.columns].shape)
        return moved

    def roles(self, block: Block, parameter: Parameter) -> list[str]:
        """Which of "mean" and "covariance" of a block change with a parameter, somewhere.

        By value, not by the graph: PyMC broadcasts a mean against its covariance, so that each mean
        of an MvNormal is computed from the covariance too, and does not depend on it.
        """
        which, changes = 2 * self.blocks.index(block), np.zeros(2, dtype=bool)
        for theta in self.points:
            before, after = (
                self._f(x)[which : which + 2] for x in (theta, self.moved(theta, parameter))
            )
            # An image is computed from differences, and so changes by rounding errors of its mean.
            size = max(np.abs(means).max(initial=0.0) for means in (before[0], after[0]))
            error = 0.0 if block.effects[0].image is None else 64 * np.finfo(float).eps * size
            changes |= [
                not np.allclose(a, b, rtol=0.0, atol=error, equal_nan=True)
                for a, b in zip(before, after, strict=True)
            ]
        return [
            role
            for role, is_changed in zip(("mean", "covariance"), changes, strict=True)
            if is_changed
        ]

    def mean(self, theta: np.ndarray) -> np.ndarray:
        """Means of phi, (subject, phi); zero where phi is not Gaussian."""
        mean = np.zeros((self.mixed.n_subjects, self.mixed.n_phi))
        n = self.mixed.n_subjects
        for block, value in zip(self.blocks, self._f(theta)[0::2], strict=True):
            start = 0
            for effect in block.effects:
                if effect.image is None:
                    units = np.broadcast_to(value, effect.shape)
                else:  # (unit, column) of all effects of the block
                    size = effect.size // effect.n_slots
                    units, start = (
                        value[:, start : start + size].reshape(-1, *effect.event_shape),
                        start + size,
                    )
                    units = np.moveaxis(units, 0, effect.axis)
                mean[:, effect.columns] = effect.to_columns(units, n)
        return mean

    def covariance(self, block: Block, theta: np.ndarray) -> np.ndarray:
        """Covariance (k, k) of the columns of a block."""
        value, size = self._covariances(block, theta)[0], block.columns.size
        if size == len(value):
            return value
        covariance = np.zeros((size, size))
        for slot in block.columns_of_slots:
            covariance[np.ix_(slot, slot)] = value
        return covariance

    def is_shared(self, block: Block) -> bool:
        """Whether the covariance is the same for all subjects or units, whatever the parameters.

        Not at the initial values: two groups may start with equal variances.
        """
        for theta in self.points:
            value = self._covariances(block, theta)
            if not np.allclose(
                value, value[0], rtol=1e-9, atol=1e-12 * np.abs(value).max(initial=0.0)
            ):
                return False
        return True

    def _covariances(self, block: Block, theta: np.ndarray) -> np.ndarray:
        """One or more covariances (..., k, k) of units."""
        value = np.asarray(self._f(theta)[2 * self.blocks.index(block) + 1], dtype=float)
        effect = block.effects[0]
        if effect.image is not None:
            if effect.image.is_diagonal:
                return np.eye(value.shape[1]) * value[:, None, :] ** 2
            return value @ np.swapaxes(value, -1, -2)
        if type(self.mixed.model[effect.name].owner.op).__name__ == "MvNormalRV":
            return _of_batches(value, effect)
        sd = effect.by_unit(np.broadcast_to(value, effect.shape))
        return np.eye(sd.shape[1]) * sd[:, None, :] ** 2


def _of_batches(value: np.ndarray, effect: RandomEffect) -> np.ndarray:
    """Covariances (unit, k, k) of a multivariate normal variable, from those of its last axis; its other axes are independent."""
    k = value.shape[-1]
    batch = np.broadcast_to(value, (*effect.shape[:-1], k, k))
    batch = np.moveaxis(batch, effect.axis, 0).reshape(effect.n_units, -1, k, k)
    n = batch.shape[1]
    covariance = np.zeros((effect.n_units, n, k, n, k))
    covariance[:, np.arange(n), :, np.arange(n)] = np.moveaxis(batch, 1, 0)
    return covariance.reshape(effect.n_units, n * k, n * k)


def _middle(rv: TensorVariable) -> TensorVariable:
    """Where a distribution has its mass: PyMC's support point; if truncated, that of the whole distribution, moved between the bounds.

    PyMC's own point is 1 inside a bound, whatever the scale, and with two bounds it may be half their
    distance, which may lie outside both: from -999, for mu = 0 and a lower bound of -1000, no run
    recovered.
    """
    op = rv.owner.op
    if isinstance(op, TruncatedNormalRV):
        mu, sigma, lower, upper = op.dist_params(rv.owner)
        whole = pm.Normal.dist(mu, sigma)
    elif isinstance(op, TruncatedRV):
        *inputs, lower, upper = rv.owner.inputs
        whole = op.base_rv_op.make_node(*inputs).default_output()
    else:
        return support_point(rv)
    point, half = support_point(whole), 0.5 * (upper - lower)

    def reach(bound: TensorVariable, direction: int, is_outside: TensorVariable) -> TensorVariable:
        found = pt.minimum(_reach(whole, bound + pt.zeros_like(point), direction), half)
        unknown = pt.switch(is_outside, pt.minimum(1.0, half), 0.0)
        return pt.switch(pt.isnan(found) | pt.isinf(found), unknown, found)

    lowest = lower + reach(lower, 1, point <= lower)
    return pt.minimum(pt.maximum(point, lowest), upper - reach(upper, -1, point >= upper))


def _reach(rv: TensorVariable, bound: TensorVariable, direction: int) -> TensorVariable:
    """How far from a bound, up (1) or down (-1), the log density falls by 1/2, by its first two derivatives at the bound."""
    (first,) = gradients(pm.logp(rv, bound).sum(), [bound])
    (second,) = gradients(first.sum(), [bound])
    fall = pt.maximum(-direction * first, 0.0)
    return 1.0 / (fall + pt.sqrt(fall**2 + pt.maximum(-second, 0.0)))


class TypicalValues:
    """Typical values and rough scales of the columns of phi that are not Gaussian."""

    def __init__(self, mixed: MixedModel) -> None:
        self.mixed = mixed
        self.effects = [e for e in mixed.random_effects if not e.is_gaussian]
        phi, theta = symbols(mixed)
        graphs = [self._typical(effect) for effect in self.effects]
        self._f = pytensor.function(
            [phi, theta],
            in_symbols(mixed, graphs, phi, theta),
            mode=INTERPRETED,
            on_unused_input="ignore",
        )

    def __reduce__(self) -> tuple[type[TypicalValues], tuple[MixedModel]]:
        return type(self), (self.mixed,)

    def _typical(self, effect: RandomEffect) -> TensorVariable:
        model = self.mixed.model
        rv = model[effect.name]
        point, transform = _middle(rv), model.rvs_to_transforms.get(rv)
        return point if transform is None else transform.forward(point, *rv.owner.inputs)

    def mean(self, theta: np.ndarray, gaussian_mean: np.ndarray) -> np.ndarray:
        """``gaussian_mean`` (subject, phi) with the typical values in the other columns.

        The distribution of one effect may depend on another, so they are filled in one after the
        other.
        """
        mean = gaussian_mean.copy()
        for k, effect in enumerate(self.effects):
            value = np.asarray(self._f(mean, theta)[k], dtype=float)
            mean[:, effect.columns] = effect.to_columns(
                np.broadcast_to(value, effect.shape), self.mixed.n_subjects
            )
        return mean

    def sd(self, theta: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """How far from the typical value the log density has fallen by 1/2, as for a standard deviation; (phi,)."""
        phi_symbol, theta_symbol = symbols(self.mixed)
        graphs = in_symbols(
            self.mixed,
            [effect_logp(self.mixed, e).sum() for e in self.effects],
            phi_symbol,
            theta_symbol,
        )
        density = pytensor.function(
            [phi_symbol, theta_symbol], graphs, mode=INTERPRETED, on_unused_input="ignore"
        )
        base, sd = density(mean, theta), np.ones(self.mixed.n_phi)
        for k, effect in enumerate(self.effects):
            for column in range(effect.columns.start, effect.columns.stop):
                for step in np.logspace(-4, 4, 33):
                    moved = mean.copy()
                    moved[0, column] += step
                    # also where there is no density any more
                    if not base[k] - density(moved, theta)[k] < 0.5:
                        break
                sd[column] = step
        return sd
