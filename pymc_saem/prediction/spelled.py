"""Standard normal effects under other parameters: what was drawn is mu + omega * eta, and not eta."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from pymc_saem.evaluate.generator import Generator
from pymc_saem.evaluate.vectorized import Vectorized
from pymc_saem.model.density.point_map import initial_point
from pymc_saem.model.graph.rebuild import rebuild
from pymc_saem.model.normal.affine import AffineImage, find_images
from pymc_saem.model.normal.latents import Latent, latent_of


def keep_images(
    generator: Generator,
    draws: Mapping[str, np.ndarray],
    estimate: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Draws of random effects such that each ``mu + omega * eta`` stays what it was at the estimate.

    Parameters
    ----------
    draws : dict of str to ndarray, each (draw, subject, ...)
        Drawn given the estimate.
    estimate, values : dict of str to ndarray
        Natural parameters: the estimate, and those (draw, ...) that predictions are made with.
    """
    draws, n = dict(draws), len(next(iter(draws.values())))
    for image in _images(generator, draws):
        shape = (image.n_units, image.n_columns)
        mean, factor = image.law
        f = _of_parameters(
            generator,
            [mean + pt.zeros(shape), factor + pt.zeros(shape + shape[1:] * (factor.ndim - 2))],
        )
        (m_hat, b_hat), (m, b) = f(estimate, 1), f(values, n)
        standard = np.concatenate([x.standard(draws[_name(x)]) for x in image.latents], axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            if image.is_diagonal:
                moved = (m_hat + b_hat * standard - m) / b
            else:
                moved = _solve(b, m_hat + (b_hat @ standard[..., None])[..., 0] - m)
        # without variance there is nothing to keep
        moved = np.where(np.isfinite(moved), moved, standard)
        start = 0
        for latent in image.latents:
            draws[_name(latent)] = latent.value(moved[..., start : start + latent.size])
            start += latent.size
    return draws


def _name(latent: Latent) -> str:
    return str(latent.rv.name)  # a free variable of a model has one


def _images(generator: Generator, draws: Mapping[str, np.ndarray]) -> list[AffineImage]:
    model = generator.model
    of_axis: dict[int, list[Latent]] = {}
    found: list[AffineImage] = []
    for name in generator.effects:
        if (
            latent := latent_of(model, name, draws[name].shape[1:], generator.axes[name])
        ) is not None:
            of_axis.setdefault(latent.n_units, []).append(latent)
    for latents in of_axis.values():
        found += find_images(
            model, initial_point(model), latents, {model[name] for name in generator.effects}
        )
    return found


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solutions (draw, unit, column); NaN where a matrix has no inverse."""
    is_regular = np.abs(np.linalg.det(matrix)) > 0
    safe = np.where(is_regular[..., None, None], matrix, np.eye(matrix.shape[-1]))
    return np.where(is_regular[..., None], np.linalg.solve(safe, right[..., None])[..., 0], np.nan)


def _of_parameters(
    generator: Generator, graphs: Sequence[TensorVariable]
) -> Callable[[Mapping[str, np.ndarray], int], Sequence[np.ndarray]]:
    symbols = generator.symbols(generator.parameters)
    known = {generator.model[name]: symbol for name, symbol in symbols.items()}
    f = Vectorized(lambda _: rebuild(graphs, known), list(symbols.values()), [], is_drawn=False)
    return lambda values, n: f(
        n, None, list(generator.batch(values, generator.parameters, n).values())
    )
