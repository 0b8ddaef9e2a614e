"""Neural theophylline model: marginal log-likelihood that fits reach, by configuration and seed.

    python benchmarks/accuracy/neural.py                                        # default settings, both cases, seeds 1 to 10
    python benchmarks/accuracy/neural.py --cases weight --seeds 1 2 3 --configurations default "n_explore=400"
    python benchmarks/accuracy/neural.py --cases network weight --tolerance 1e-3
    python benchmarks/accuracy/neural.py --steps 2                              # a cheaper, less exact evaluation

Cases: ``identity`` (Omega = I), ``network`` (one standard deviation per network) and ``weight``
(one per weight), by maximum likelihood. A configuration is "default", or options of ``fit_saem`` as
keyword arguments. Every fit is judged by ``evaluate.py``, never by sigma or by the density of the
complete data. The exit code is 1 if fewer than 8 of 10 seeds of a default fit reach the bound of
their case.
"""

import argparse
import sys
from time import perf_counter, process_time

import numpy as np
from evaluate import MODELS, evaluate
from pymc.util import get_random_generator

from pymc_saem.model.density.point_map import initial_point
from pymc_saem.model.read import read_model  # noqa: E402
from pymc_saem.saem.core.schedule import StoppingRule
from pymc_saem.saem.run.options import OF_A_NEW_FIT
from pymc_saem.saem.run.step import SAEM
from pymc_saem.saem.start.pooled import default_exploration  # noqa: E402

CASES = {
    "identity": ("neural", -220.0),
    "network": ("neural_network", -165.0),
    "weight": ("neural_weight", -200.0),
}
DEFAULTS = {
    "n_explore": "auto",
    "n_smooth": OF_A_NEW_FIT["n_smooth"],
    "tolerance": OF_A_NEW_FIT["tolerance"],
}
HEADER = "case       seed   log p(y)  error   sigma   start s   CPU  iterate s   CPU  iterations  Msolves"


def fit(model, step: SAEM, seed: int, n_explore: int, n_smooth: int, tolerance: float) -> dict:
    """What ``fit_saem(random_seed=seed)`` iterates, without what comes after the estimate; seconds by wall and by CPU."""
    rng = get_random_generator(seed).spawn(1)[0]
    step.begin_chain(rng, n_explore)
    is_over, smoothed = StoppingRule(tolerance), []
    point, clock = initial_point(model), [(perf_counter(), process_time())]
    for k in range(n_explore + n_smooth):
        if k == n_explore:
            step.stop_tuning()
        point, _ = step.step(point)
        if k == 0:
            clock.append((perf_counter(), process_time()))
        if k >= n_explore:
            smoothed.append(step.state.theta)
            if is_over(
                smoothed,
                lambda: step.engine.maximizer.scales(step.state.theta, step.state.curvature),
            ):
                break
    clock.append((perf_counter(), process_time()))
    seconds = np.diff(np.array(clock), axis=0)  # (start, iterate) by (wall, CPU)
    n_solves = step.simulator.n_evaluations * step.state.phi[..., 0].size
    return {
        "theta": step.state.theta,
        "seconds": seconds.ravel(),
        "solves": n_solves / 1e6,
        "iterations": k + 1,
    }


def study(case: str, configuration: str, seeds, effort, tolerance: float) -> list[float]:
    """Fit and judge every seed; prints a table and returns the log-likelihoods."""
    name, bound = CASES[case]
    options = {} if configuration == "default" else eval(f"dict({configuration})")  # noqa: S307 - the caller's own text
    run = {name: options.pop(name, value) for name, value in DEFAULTS.items()}
    model = MODELS[name](rtol=tolerance, atol=tolerance)
    if run["n_explore"] == "auto":
        run["n_explore"] = default_exploration(read_model(model))
    step = SAEM(model=model, objective="ml", n_explore=run["n_explore"], **options)
    fit(model, step, 0, 1, 1, 0.0)  # compiles
    print(f"\n{configuration}\n{HEADER}", flush=True)
    found = []
    for seed in seeds:
        result = fit(model, step, seed, **run)
        judged = evaluate(step.engine, result["theta"], **effort)
        sigma = float(step.engine.points.natural_theta(result["theta"])["sigma"])
        found.append(judged.total)
        start, start_cpu, iterate, iterate_cpu = result["seconds"]
        print(
            f"{case:10} {seed:4d} {judged.total:10.2f} {judged.total_error:6.2f} {sigma:7.3f} {start:9.1f} {start_cpu:5.1f}"
            f" {iterate:10.1f} {iterate_cpu:5.1f} {result['iterations']:11d} {result['solves']:8.2f}",
            flush=True,
        )
    reached = sum(value >= bound for value in found)
    spread = f"best {max(found):.1f}, median {np.median(found):.1f}, worst {min(found):.1f}, sd {np.std(found):.1f}"
    print(f"{case}: {spread}; {reached} of {len(found)} reach {bound:.0f}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--configurations", nargs="+", default=["default"], metavar="OPTIONS")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(1, 11)))
    parser.add_argument(
        "--tolerance", type=float, default=1e-2, help="of the solves, relative and absolute"
    )
    parser.add_argument("--groups", type=int, default=8, help="of the evaluation")
    parser.add_argument("--steps", type=int, default=4, help="of the evaluation")
    arguments = parser.parse_args()
    all_met = True
    for case in arguments.cases:
        for configuration in arguments.configurations:
            effort = {"n_groups": arguments.groups, "n_steps": arguments.steps}
            found = study(case, configuration, arguments.seeds, effort, arguments.tolerance)
            if configuration == "default":
                all_met &= np.mean(np.array(found) >= CASES[case][1]) >= 0.8
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
