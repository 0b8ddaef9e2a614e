"""Marginal log-likelihood of given population parameters, by one evaluator for all programs and settings.

    python benchmarks/accuracy/evaluate.py neural demo/fit.nc                    # a fit of this package
    python benchmarks/accuracy/evaluate.py theophylline values.json              # {"log_ka": 0.4593, ...} from elsewhere
    python benchmarks/accuracy/evaluate.py neural demo/fit.nc --groups 16 --steps 8     # a smaller error

Prints the estimate of every subject and the total, each with its Monte-Carlo error. The values are
natural ones (standard deviations, not variances), and the models those of tests/support/models.py.
"""

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pymc_saem.saem.engine import Engine  # noqa: E402
from pymc_saem.saem.likelihood.annealed import MarginalLikelihood, marginal_loglik  # noqa: E402
from pymc_saem.saem.run.step import SAEM  # noqa: E402
from tests.support import models  # noqa: E402

MODELS = {
    "theophylline": models.theophylline,
    "theophylline_ode": lambda: models.theophylline(ode=True),
    "intercept": models.random_intercept,
    "neural": models.neural,
    "neural_network": lambda **options: models.neural(omega="network", **options),
    "neural_weight": lambda **options: models.neural(omega="weight", **options),
}
SEED = 5


def evaluate(engine: Engine, theta: np.ndarray, seed: int = SEED, **effort) -> MarginalLikelihood:
    """Marginal log-likelihood at theta; ``effort`` are options of ``marginal_loglik``."""
    population = engine.maximizer.population(theta)
    return marginal_loglik(
        engine.densities, population, theta, np.random.default_rng(seed), **effort
    )


def read_theta(engine: Engine, path: Path) -> np.ndarray:
    """theta from a JSON file of natural values by name, or from a fit stored as netCDF."""
    if path.suffix == ".json":
        values = json.loads(path.read_text())
    else:
        values = read_fit(engine, path)
    return engine.points.theta_at(values)


def read_fit(engine: Engine, path: Path) -> dict[str, np.ndarray]:
    """Natural values by name from the table of estimates of a fit, which has one row per entry of each parameter."""
    import xarray as xr

    estimate = xr.open_dataset(path, group="population")["estimate"].values
    if estimate.size != engine.mixed.n_theta:
        raise SystemExit(
            f"{path} has {estimate.size} estimates; this model has {engine.mixed.n_theta} parameters."
        )
    return {p.name: estimate[p.columns] for p in engine.mixed.parameters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("file", type=Path, help="fit (netCDF) or natural values by name (JSON)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--particles", type=int, default=100)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    engine = SAEM(model=MODELS[arguments.model]()).engine
    theta = read_theta(engine, arguments.file)
    wall, cpu = perf_counter(), process_time()
    found = evaluate(
        engine,
        theta,
        arguments.seed,
        n_groups=arguments.groups,
        n_particles=arguments.particles,
        n_steps=arguments.steps,
    )
    for label, value, error in zip(engine.mixed.subjects, found.loglik, found.error, strict=True):
        print(f"subject {label!s:8} {value:9.3f} +- {error:.3f}")
    print(f"total            {found.total:9.3f} +- {found.total_error:.3f}")
    seconds = f"{perf_counter() - wall:.0f} s, {process_time() - cpu:.0f} CPU-s"
    print(f"{found.n_solves / 1e6:.1f} million solves, {seconds} (compilation included)")


if __name__ == "__main__":
    main()
