"""Conditional draws of the main job: how many are needed, what they cost, and what the tolerance of the solves does to them.

    python benchmarks/conditional.py [--tolerances 1e-2 1e-3 1e-4] [--seeds 21] [--iterations 600
    400] [--no-likelihood]

One line per fit of ``pymc_saem.demo``: subjects whose draws suffice, worst R-hat and effective
sample size of their log-likelihoods, error of the solves, solves of the fit and of the draws,
marginal log-likelihood, seconds of the processor.
"""

import argparse
import json
import warnings
from time import process_time

import pymc_saem as ps
from pymc_saem.compat import get_group
from pymc_saem.demo import SETTINGS, theophylline_model
from pymc_saem.results import thresholds

COLUMNS = (
    "rtol",
    "seed",
    "enough",
    "R-hat",
    "ESS",
    "error",
    "solves",
    "of draws",
    "-LL",
    "+-",
    "after s",
    "cpu s",
)


def line(tolerance: float, seed: int, settings: dict) -> list:
    """Fit once; the columns."""
    mark = process_time()
    model = theophylline_model(rtol=tolerance, atol=tolerance)
    idata = ps.fit_saem(
        model, random_seed=seed, progressbar=False, standard_errors=None, **settings
    )
    seconds = process_time() - mark
    found, trace = get_group(idata, "individual"), get_group(idata, "saem_trace").attrs
    rhat, ess = found["judged_rhat"].values, found["judged_ess"].values
    enough = ((rhat < thresholds.LARGEST_RHAT) & (ess >= thresholds.LEAST_ESS)).sum()
    fit = get_group(idata, "population").attrs
    numbers = [
        rhat.max(),
        ess.min(),
        found["solver_error"].values.max(),
        trace["n_solves"],
        trace["n_solves_of_draws"],
    ]
    numbers += [-fit.get("loglik", float("nan")), fit.get("loglik_error", float("nan"))]
    return [
        tolerance,
        seed,
        f"{enough}/{rhat.size}",
        *numbers,
        json.loads(trace["seconds"])["after"],
        seconds,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-2, 1e-3, 1e-4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[21])
    parser.add_argument(
        "--iterations", type=int, nargs=2, default=(600, 400), metavar=("EXPLORE", "SMOOTH")
    )
    parser.add_argument(
        "--no-likelihood", action="store_true", help="leave the marginal log-likelihood out"
    )
    options = parser.parse_args()
    n_explore, n_smooth = options.iterations
    settings = SETTINGS | {"n_explore": n_explore, "n_smooth": n_smooth}
    settings["likelihood"] = None if options.no_likelihood else "auto"
    warnings.simplefilter("ignore", UserWarning)  # they are what is measured
    print("".join(f"{name:>10}" for name in COLUMNS))
    for seed in options.seeds:
        for tolerance in options.tolerances:
            values = line(tolerance, seed, settings)
            print(
                "".join(f"{v:>10}" if isinstance(v, str) else f"{v:10.4g}" for v in values),
                flush=True,
            )


if __name__ == "__main__":
    main()
