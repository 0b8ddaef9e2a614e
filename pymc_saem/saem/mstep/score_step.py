"""The score step of a mixed model: which parameters it moves, and the log density that it climbs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pymc_saem.model.density.densities import Densities
from pymc_saem.saem.core.newton import Curvature, climb
from pymc_saem.saem.mstep.maximizer import Maximizer


@dataclass
class Climber:
    """Moves the parameters without a closed form, as far as they are not fixed.

    Parameters
    ----------
    densities : Densities
    maximizer : Maximizer
        Has the fixed parameters and the priors.
    """

    densities: Densities
    maximizer: Maximizer
    n_evaluations: int = field(default=0, init=False)  # of all subjects and replicates

    # Asked for each time, because refits hold other parameters.
    @property
    def rules(self) -> tuple:
        return tuple(
            r for r in self.maximizer.rules.scores if not self.maximizer.is_fixed(r.parameter)
        )

    @property
    def columns(self) -> np.ndarray:
        return self.maximizer.score_columns

    def __call__(
        self, theta: np.ndarray, phi: np.ndarray, curvature: Curvature | None, step_size: float
    ) -> tuple[np.ndarray, Curvature | None]:
        """theta (theta,) after one step, and the curvature for the next one."""
        rules, columns = self.rules, self.columns
        if not columns.size:
            return theta, curvature

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            full = theta.copy()
            full[columns] = x
            self.n_evaluations += 1
            with np.errstate(all="ignore"):
                value, gradient = self.densities.score(rules, phi, full, self.maximizer.weight)
            prior, slope = self.log_prior(full)
            return value + prior, (gradient + slope)[columns]

        theta = theta.copy()
        theta[columns], curvature = climb(objective, theta[columns], curvature, step_size)
        return theta, curvature

    def log_prior(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Log prior density of these parameters on the natural scale, and its gradient (theta,)."""
        value, gradient = 0.0, np.zeros_like(theta)
        for rule in self.rules:
            prior, columns = self.maximizer.priors.get(rule.parameter.name), rule.parameter.columns
            if prior is not None:
                density, gradient[columns] = prior.unconstrained(theta[columns])
                value += density
        return value, gradient
