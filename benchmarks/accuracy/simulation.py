"""Simulation study: bias and root mean squared error of default fits, beside exact maximum likelihood.

    python benchmarks/accuracy/simulation.py --models pk emax --sizes 12 50 --sets 20
    python benchmarks/accuracy/simulation.py --models neural --sizes 12 --sets 10 --markdown

Data sets are drawn from the models of ``simulated.py``, fitted with the default options from
starting values that a user might give, and, for all models but "neural", by exact maximum
likelihood (``maximum.py``). A neural fit is judged by its marginal log-likelihood (annealed
importance sampling) against that at the truth. A run that ends in an error or at values that are
not finite is lost. The exit code is 1 if any run is lost.

Each model is compiled once per size: its data are a ``pm.Data``, which the compiled functions read
at each call. ``--check`` first compares such a run with ``fit_saem`` of a newly built model, which
must give the same numbers.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pymc as pm
import simulated
from bias import Fitted, show, summarize, table
from maximum import Marginal
from pymc.util import get_random_generator

import pymc_saem as ps
from pymc_saem.refit.refitter import Refit, Refitter
from pymc_saem.saem.likelihood.annealed import marginal_loglik
from pymc_saem.saem.run.options import OF_A_NEW_FIT
from pymc_saem.saem.start.pooled import default_exploration

SIZES = (12, 50, 200)
#: First data sets of "neural" that are also fitted from the truth, which doubles their cost.
N_FROM_TRUTH = 10
#: Annealing of the marginal log-likelihood: sums over subjects need no more.
EFFORT = {"n_groups": 4, "n_particles": 50, "n_steps": 2}
N_EXPLORE, N_SMOOTH, TOLERANCE = "auto", OF_A_NEW_FIT["n_smooth"], OF_A_NEW_FIT["tolerance"]


class Refitted:
    """A study's model, compiled once and fitted to many data sets, which its ``pm.Data`` holds."""

    def __init__(
        self,
        study: simulated.Simulated,
        n_subjects: int,
        n_explore=N_EXPLORE,
        n_smooth=N_SMOOTH,
        **options,
    ):
        self.study, self.n_subjects = study, n_subjects
        self.model = study.build(n_subjects)
        self.fits = Refitter(
            self.model, n_smooth=n_smooth, tolerance=TOLERANCE, objective="ml", **options
        )
        self.fits.n_explore = (
            default_exploration(self.fits.mixed) if n_explore == "auto" else n_explore
        )

    def fit(self, y: np.ndarray, seed: int, at: dict | None = None) -> Refit:
        """What ``fit_saem(random_seed=seed)`` runs, with new data (subject, row); ``at`` given: from these natural values."""
        pm.set_data({simulated.DATA: y.ravel()}, model=self.model)
        return self.fits.fit(start=at, seed=get_random_generator(seed).spawn(1)[0])

    def loglik(self, values, seed: int):
        """Marginal log-likelihood of the present data at natural values, by annealed importance sampling."""
        engine, theta = self.fits.engine, self.fits.theta(values)
        population = engine.maximizer.population(theta)
        return marginal_loglik(
            engine.densities, population, theta, np.random.default_rng(seed), **EFFORT
        )


def differences(
    study: simulated.Simulated, n_subjects: int, seed: int, **options
) -> dict[str, float]:
    """Largest relative differences between the second fit of a compiled model, and a fit of a new model to the same data."""
    again = Refitted(study, n_subjects, **options)
    again.fit(study.draw(n_subjects, 1, seed), seed)
    y = study.draw(n_subjects, 2, seed)
    found = again.fit(y, seed).estimates
    model = study.build(n_subjects)
    pm.set_data({simulated.DATA: y.ravel()}, model=model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few iterations
        idata = ps.fit_saem(
            model, objective="ml", random_seed=seed, progressbar=False, draws=2, **options
        )
    table, start, worst = ps.summary(idata)["estimate"].to_numpy(), 0, {}
    for p in again.fits.mixed.parameters:
        size = np.size(found[p.name])
        worst[p.name] = float(
            np.max(np.abs(np.ravel(found[p.name]) / table[start : start + size] - 1.0))
        )
        start += size
    return worst


def run(fits: Refitted, number: int, seed: int, n_likelihoods: float) -> Fitted:
    """One data set: drawn, fitted, judged; of "neural" the likelihood of the first ``n_likelihoods`` sets only."""
    study = fits.study
    y = study.draw(fits.n_subjects, number, seed)
    try:
        found = fits.fit(y, number)
    except Exception as failure:  # noqa: BLE001 - whatever it is counts as a lost run
        return Fitted(lost=f"{type(failure).__name__}: {failure}")
    common = {"at_floor": found.at_floor, "converged": found.converged, "seconds": found.seconds}
    judged = {name: float(found.estimates[name]) for name in study.judged}
    if study.name == "neural":
        if number >= n_likelihoods:
            return Fitted(judged, **common)
        at_truth, at_estimate = (
            fits.loglik(values, number) for values in (study.truth, found.estimates)
        )
        gain = np.nan
        if number < N_FROM_TRUTH:
            best = fits.fit(y, number, study.truth).estimates
            gain = fits.loglik(best, number).total - at_truth.total
        return Fitted(
            judged,
            gap=at_truth.total - at_estimate.total,
            gap_error=float(np.hypot(at_truth.total_error, at_estimate.total_error)),
            gain_from_truth=gain,
            **common,
        )
    marginal = Marginal(study, y)
    maximum = marginal.maximize()
    gap = maximum.loglik - marginal.loglik(judged)
    return Fitted(judged, maximum.estimate, maximum.error, gap, at_bound=maximum.at_bound, **common)


def read(path: Path | None) -> dict[tuple, Fitted]:
    """Results of earlier calls, by model, size, seed and number of the data set."""
    found = {}
    for line in path.read_text().splitlines() if path and path.exists() else ():
        record = json.loads(line)
        key = tuple(record.pop("key"))
        found[key] = Fitted(**record)
    return found


def write(path: Path | None, key: tuple, one: Fitted) -> None:
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps({"key": key, **vars(one)}, default=float) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", choices=simulated.MODELS, default=list(simulated.MODELS)
    )
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of subjects"
    )
    parser.add_argument("--sets", type=int, default=100, help="data sets per model and size")
    parser.add_argument("--seed", type=int, default=1, help="of the data")
    parser.add_argument(
        "--likelihoods",
        type=int,
        default=np.inf,
        help="data sets of neural whose likelihood is judged, when they are fitted; by default all",
    )
    parser.add_argument(
        "--n-starts", default="auto", help="of every fit, by default that of fit_saem"
    )
    parser.add_argument(
        "--store", type=Path, help="file of results (JSON lines), which a later call goes on with"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with fit_saem of a new model first"
    )
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    stored, cells, lines, n_lost = read(arguments.store), [], [], 0
    options = {} if arguments.n_starts == "auto" else {"n_starts": int(arguments.n_starts)}
    for name in arguments.models:
        study = simulated.MODELS[name]
        for n_subjects in arguments.sizes:
            if arguments.check:
                worst = max(differences(study, n_subjects, arguments.seed, **options).values())
                print(
                    f"{name}, N = {n_subjects}: largest relative difference from fit_saem {worst:.1e}",
                    flush=True,
                )
            fits, outcomes = None, []
            for number in range(arguments.sets):
                key = name, n_subjects, arguments.seed, number, *options.values()
                if key not in stored:
                    fits = fits or Refitted(study, n_subjects, **options)
                    stored[key] = run(fits, number, arguments.seed, arguments.likelihoods)
                    write(arguments.store, key, stored[key])
                outcomes.append(stored[key])
                if outcomes[-1].lost:
                    n_lost += 1
                    print(
                        f"{name}, N = {n_subjects}, set {number} lost: {outcomes[-1].lost[:300]}",
                        flush=True,
                    )
            lines.append(summarize(study, n_subjects, outcomes))
            print(lines[-1], flush=True)
            cells += table(study, n_subjects, [one for one in outcomes if not one.lost])
    print()
    show(cells, arguments.markdown)
    return 1 if n_lost else 0


if __name__ == "__main__":
    sys.exit(main())
