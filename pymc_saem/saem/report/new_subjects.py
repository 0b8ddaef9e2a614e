"""Random effects of subjects that are not in the fit: p(phi_i | y_i, theta) from their own rows, with theta fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pymc as pm

from pymc_saem.model.graph.interpreted import INTERPRETED
from pymc_saem.model.read import read_model
from pymc_saem.saem.conditional.draws import Draws
from pymc_saem.saem.conditional.mixing import assess_draws
from pymc_saem.saem.conditional.modes import best_modes
from pymc_saem.saem.core.gaussian import Population
from pymc_saem.saem.core.schedule import Schedule
from pymc_saem.saem.engine import Engine, default_replicates
from pymc_saem.saem.estep.mixture import Simulator

#: Calls of the simulator in which the kernels learn their scales and the chains leave their start,
#: which is p(phi | theta), with up to 6 random effects and with more. Mean log-likelihood of all
#: subjects of theophylline in the draws that follow: 28 network weights -113.8 after 20, -107.0
#: after 40, -103.5 after 80, -104.7 after 160, in the draws of the fit -103.3; 3 effects -139.8
#: after none, -139.3 after 20 and after 40.
N_WARM_UP, FEW, N_WARM_UP_MANY = 20, 6, 80
#: Proposals per subject and chain in one of them.
N_TRANSITIONS = 80
#: Chains of each subject, at least.
N_CHAINS = 8
#: The chains become twice as long at most this many times, until their draws suffice.
N_DOUBLINGS = 2


@dataclass(frozen=True)
class Individuals:
    """Random effects of some subjects, given their rows.

    Attributes
    ----------
    mode : dict of str to ndarray, each (subject or unit, ...)
        Natural values, under the user's names.
    draws : dict of str to ndarray, each (draw, subject or unit, ...)
    is_enough : ndarray of bool, shape (subject,)
        Whose draws agree and suffice; True for those that were not asked for.
    """

    mode: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    is_enough: np.ndarray


def describe_new_subjects(
    model: pm.Model,
    random_effects: tuple[str, ...],
    values: Mapping[str, np.ndarray],
    which: np.ndarray,
    n_draws: int,
    rng: np.random.Generator,
) -> Individuals:
    """Conditional modes and draws of the subjects ``which`` (subject,) of a model, for natural values of its parameters.

    The other subjects stay where they are and teach the kernels nothing.

    Raises
    ------
    UnsupportedModelError
        When SAEM cannot read the model.
    """
    mixed = read_model(model, random_effects)
    # Interpreted: the evaluations are few and large, so that machine code would not repay its
    # compilation.
    engine = Engine.build(
        mixed,
        Schedule(1),
        objective="ml",
        fixed={},
        n_transitions=N_TRANSITIONS,
        n_replicates=max(N_CHAINS, default_replicates(int(which.sum()))),
        kernel="auto",
        mode=INTERPRETED,
    )
    engine.weigh(which.astype(float))
    theta = engine.points.theta_at(values)
    population = engine.maximizer.population(theta)
    simulator = engine.simulator(population, rng)
    phi = population.draw(rng, engine.n_replicates)
    for _ in range(N_WARM_UP if mixed.n_phi <= FEW else N_WARM_UP_MANY):
        phi, _, _ = simulator(population, theta, phi)
    simulator.stop_tuning()
    drawn, is_enough = _draw(simulator, population, theta, phi, which, n_draws)
    starts = drawn.starts_of_modes()
    starts[:, ~which] = population.mean[~which]
    mode = best_modes(engine.densities, population, theta, starts, drawn.phi.std(axis=(0, 1))).mode
    flat = drawn.phi.reshape(-1, *drawn.phi.shape[2:])
    kept = flat[rng.permutation(len(flat))[:n_draws]]
    return Individuals(
        engine.points.natural_phi(mode, theta), engine.points.natural_phi(kept, theta), is_enough
    )


def _draw(
    simulator: Simulator,
    population: Population,
    theta: np.ndarray,
    phi: np.ndarray,
    which: np.ndarray,
    n_draws: int,
) -> tuple[Draws, np.ndarray]:
    drawn = Draws(simulator, population, theta, phi)
    drawn.extend(max(50, -(-n_draws // len(drawn.phi))))
    asked, is_enough = np.flatnonzero(which), np.ones(which.size, dtype=bool)
    for doubling in range(N_DOUBLINGS + 1):
        is_enough[asked] = assess_draws(simulator.mixed, drawn.phi, drawn.loglik, asked).is_enough
        if is_enough.all() or doubling == N_DOUBLINGS:
            break
        drawn.extend(drawn.n_draws)
    return drawn, is_enough
