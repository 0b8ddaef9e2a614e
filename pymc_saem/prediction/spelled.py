"""Standard normal effects under other parameters: what was drawn is mu + omega * eta, and not eta."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytensor.tensor as pt

from pymc_saem.evaluate.generator import Generator
from pymc_saem.evaluate.rebuild import rebuild
from pymc_saem.evaluate.vectorized import Vectorized
from pymc_saem.saem.spelling import affine_in, combination_of


def keep_combined(generator: Generator, draws: Mapping[str, np.ndarray], estimate, values) -> dict[str, np.ndarray]:
    """Draws of random effects such that each ``mu + omega * eta`` stays what it was at the estimate.

    Parameters
    ----------
    draws : dict of str to ndarray, each (draw, subject, ...)
        Drawn given the estimate.
    estimate, values : dict of str to ndarray
        Natural parameters: the estimate, and those (draw, ...) that predictions are made with.
    """
    draws, n = dict(draws), len(next(iter(draws.values())))
    for name in generator.effects:
        eta = draws[name]
        combined = combination_of(generator.model, name, eta.shape[1:])
        if combined is None:
            continue
        graphs = [g + pt.zeros(eta.shape[1:]) for g in affine_in(generator.model[name], combined, eta.shape[1:])]
        f = _of_parameters(generator, graphs)
        (m_hat, s_hat), (m, s) = f(estimate, 1), f(values, n)
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = (m_hat + s_hat * eta - m) / s
        draws[name] = np.where(np.isfinite(moved), moved, eta)  # without variance there is nothing to keep
    return draws


def _of_parameters(generator: Generator, graphs):
    symbols = generator.symbols(generator.parameters)
    known = {generator.model[name]: symbol for name, symbol in symbols.items()}
    f = Vectorized(lambda _: rebuild(graphs, known), list(symbols.values()), [], is_drawn=False)
    return lambda values, n: f(n, None, list(generator.batch(values, generator.parameters, n).values()))
