"""What one transition of the E-step costs, beside the ODE solves in it.

    python benchmarks/transition.py [--iterations 20] [--replicates auto] [--seed 21]

A transition proposes new random effects for every subject and replicate, solves their differential
equations, and accepts or rejects. The script runs E-steps of the main job twice from the same
random numbers: timed as they are, and interpreted, to keep the inputs of every solve. It then gives
the same solves in one batch to the compiled driver. The ratio says what proposals, densities,
decisions, statistics and the small size of a transition add. Solves and E-steps alternate, so that
another program's load hits both; medians are shown.
"""

import argparse
from time import perf_counter

import numba
import numpy as np

import pymc_saem as ps
from pymc_saem.demo import SETTINGS, theophylline_model
from pymc_saem.ode.ops.solution_op import OdeSolution

#: Iterations before the first measurement: kernels adapt, and every function is compiled.
WARM_UP = 5


class Recorder:
    """Keeps the inputs of the ODE solves of an interpreted E-step, which go through ``OdeSolution.compute``."""

    def __init__(self, densities):
        self.calls = []
        self.compute = OdeSolution.compute
        self.densities = densities

    def __enter__(self):
        def compute(op, t, x, c):
            self.calls.append((op, t, x.copy(), c))
            return self.compute(op, t, x, c)

        OdeSolution.compute = compute
        self.densities.compiled_likelihood = lambda: None
        return self

    def __exit__(self, *exc):
        OdeSolution.compute = self.compute
        del self.densities.compiled_likelihood

    def batch(self, n_threads: int):
        """One operation and its inputs that do all recorded solves at once."""
        op, t, _, c = self.calls[0]
        x = np.stack([call[2] for call in self.calls])
        return OdeSolution(**(op.__getstate__() | {"n_threads": n_threads})), t, x, c


def prepare(options):
    """The step method of the main job, some iterations into its run."""
    model = theophylline_model()
    step = ps.SAEM(
        model=model,
        n_explore=SETTINGS["n_explore"],
        n_transitions=SETTINGS["n_transitions"],
        n_replicates=options.replicates,
    )
    step.begin_chain(np.random.default_rng(options.seed), SETTINGS["n_explore"])
    point = model.initial_point()
    for _ in range(WARM_UP):
        point, _ = step.step(point)
    return step


def measure(step, n_threads: int, n_iterations: int):
    """Seconds of each E-step, seconds of its solves alone, and the number of evaluations of an E-step."""
    numba.set_num_threads(n_threads)
    theta, phi = step.state.theta, step.state.phi
    population = step.engine.maximizer.population(theta)
    e_steps, solves = [], []
    simulator = step.simulator
    for _ in range(n_iterations):
        random_state, adapted = simulator.rng.bit_generator.state, simulator.adapted
        with Recorder(step.engine.densities) as recorder:
            simulator(population, theta, phi)
        if not recorder.calls:
            raise SystemExit(
                "No solve went through OdeSolution.compute, so there is nothing to compare with."
            )
        simulator.rng.bit_generator.state, simulator.adapted = random_state, adapted
        mark = perf_counter()
        phi, _, _ = simulator(population, theta, phi)
        e_steps.append(perf_counter() - mark)
        op, t, x, c = recorder.batch(n_threads)
        op.compute(t, x[:1], c)  # once, so that nothing is prepared while the clock runs
        mark = perf_counter()
        op.compute(t, x, c)
        solves.append(perf_counter() - mark)
    return np.array(e_steps[1:]), np.array(solves[1:]), len(recorder.calls), x[0, ..., 0].size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--iterations", type=int, default=20, help="E-steps to measure (default: 20)"
    )
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument(
        "--replicates", type=lambda text: text if text == "auto" else int(text), default="auto"
    )
    options = parser.parse_args()
    step = prepare(options)
    print(
        f"{'threads':>8}{'transition us':>16}{'its solves us':>16}{'ratio':>8}{'us per solve':>15}"
    )
    for n_threads in sorted({1, numba.config.NUMBA_NUM_THREADS}):
        e_steps, solves, n_evaluations, n_solves = measure(step, n_threads, options.iterations + 1)
        transition, bare = (
            1e6 * np.median(seconds) / n_evaluations for seconds in (e_steps, solves)
        )
        ratio = np.median(e_steps / solves)
        print(f"{n_threads:8d}{transition:16.1f}{bare:16.1f}{ratio:8.2f}{bare / n_solves:15.2f}")
    print(f"{n_solves} solves in a transition; the aim is a ratio of at most 1.5.")


if __name__ == "__main__":
    main()
