"""What solvers of differential equations cost at equal accuracy: this package, and others where they are installed.

    python benchmarks/ode/run.py [--quick] [--markdown] [--plot FILE] [--csv FILE] [--rounds 3]

Every engine runs a ladder of tolerances, 1e-2 to 1e-10, on 12 subjects with one thread, pinned to
one core. Costs are the minima of some rounds, in microseconds per subject, without compilation,
which is given apart; errors are those against SciPy at 1e-12. Cost at a given error is interpolated
between the tolerances. Then: 1, 12 and 1,000 subjects with 1 and 2 threads, and the aims.
``--quick`` has the neural problem only, few tolerances and one round.
"""

import argparse
import csv
import os
import sys
from pathlib import Path
from time import perf_counter, process_time

sys.path.insert(0, str(Path(__file__).parent))
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
_ARGUMENTS = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
PART, _MINE = _ARGUMENTS.get("--part"), _ARGUMENTS.get("--cores")
if CORES:
    # Before any library counts the cores: what it starts stays on them. Without --cores: on the
    # first.
    os.sched_setaffinity(0, [int(core) for core in _MINE.split(",")] if _MINE else CORES[:1])
os.environ.setdefault("NUMBA_NUM_THREADS", "2" if PART == "scaling2" else "1")
if PART == "scaling2":
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    )

import numpy as np  # noqa: E402
import report  # noqa: E402
import scaling  # noqa: E402
from bare import Bare  # noqa: E402
from own import Own  # noqa: E402
from peers import Diffrax, NumbaLSODA, SciPy  # noqa: E402
from problems import PROBLEMS, exact, gradient_error, solution_error  # noqa: E402

LADDER = tuple(10.0**-k for k in range(2, 11))
QUICK_LADDER = 1e-2, 1e-4, 1e-6, 1e-9
SECONDS = 0.03  # per measurement and round, at least one call
SLOW = 0.2  # seconds of one call after which an engine's ladder ends
COMPARED = 1e-6  # the tolerance whose error and steps the table shows


def engines(problem, inputs):
    """Constructors of all engines that suit a problem, by name."""
    solvers = (
        ("cvodes", "auto", "sunode") if problem.stiff else ("tsit5", "cvodes", "auto", "sunode")
    )
    made = {solver: (lambda s=solver: Own(s, problem, inputs)) for solver in solvers}
    made["diffrax"] = lambda: Diffrax(problem, inputs)
    made["numbalsoda lsoda"] = lambda: NumbaLSODA("lsoda", problem, inputs)
    if not problem.stiff:
        made["numbalsoda dop853"] = lambda: NumbaLSODA("dop853", problem, inputs)
        made["hand-written Numba"] = lambda: Bare(problem, inputs)
    for method in ("LSODA", "Radau") if problem.stiff else ("RK45", "LSODA"):
        made[f"SciPy {method}"] = lambda m=method: SciPy(m, problem, inputs)
    return made


def timed(call, seconds=SECONDS, clock=process_time):
    """Shortest seconds of a call; of this process alone unless the clock is another one, so that other programs count little."""
    shortest, end = np.inf, clock() + seconds
    while True:
        mark = clock()
        call()
        now = clock()
        shortest = min(shortest, now - mark)
        if now > end:
            return shortest


def ladder(name, engine, truth, tolerances):
    """Points of an engine with its errors, its first calls done; the seconds those took."""
    points, mark = [], perf_counter()
    engine.solver_call(tolerances[0])()
    compiling = perf_counter() - mark
    mark, gradient = perf_counter(), engine.gradient_call(tolerances[0])
    if gradient is not None:
        gradient()
    compiling_gradient = perf_counter() - mark if gradient is not None else np.nan
    for rtol in tolerances:
        point = {
            "engine": name,
            "rtol": rtol,
            "compile": compiling,
            "compile_gradient": compiling_gradient,
        }
        point["error"] = solution_error(engine.solve(rtol), truth[0])
        point["solve"], point["gradient"], point["steps"] = np.inf, np.nan, None
        point["calls"] = {"solve": engine.solver_call(rtol)}
        if gradient is not None:
            point["gradient_error"] = gradient_error(engine.gradient(rtol), truth[1])
            point["calls"]["gradient"], point["gradient"] = engine.gradient_call(rtol), np.inf
        if rtol == COMPARED:
            point["steps"] = engine.steps(rtol)
        points.append(point)
        if max(timed(call, 0.0) for call in point["calls"].values()) > SLOW:
            break
    return points


def measure(problem, options, log):
    """Points of all engines on a problem, each with microseconds per subject; rounds go through all engines in turn."""
    inputs = problem.inputs(12)
    mark = perf_counter()
    truth = exact(problem, inputs)
    log(f"{problem.title}: references in {perf_counter() - mark:.1f} s")
    points = []
    for name, make in engines(problem, inputs).items():
        mark = perf_counter()
        try:
            engine = make()
        except ImportError as error:
            log(f"  {name}: left out, {str(error).splitlines()[0]}")
            continue
        tolerances = (
            QUICK_LADDER if options.quick else LADDER[:: 2 if isinstance(engine, SciPy) else 1]
        )
        made = ladder(name, engine, truth, tolerances)
        points += made
        log(
            f"  {name}: prepared in {perf_counter() - mark:.1f} s, first solve {made[0]['compile']:.1f} s"
        )
    for _ in range(1 if options.quick else options.rounds):
        for point in points:
            for what, call in point["calls"].items():
                point[what] = min(point[what], 1e6 * timed(call) / len(inputs.t))
    for point in points:
        del point["calls"]
        point["problem"] = problem
    return points


def write_csv(points, path):
    """All measured points."""
    names = (
        "engine",
        "rtol",
        "error",
        "gradient_error",
        "solve",
        "gradient",
        "steps",
        "compile",
        "compile_gradient",
    )
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("problem", *names))
        writer.writerows(
            [[point["problem"].title, *(point.get(name) for name in names)] for point in points]
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="the neural problem, four tolerances, one round"
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the tables for the README only; the rest to stderr",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw cost against error")
    parser.add_argument("--csv", metavar="FILE", help="write all points")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often everything is measured (default: 3)"
    )
    parser.add_argument("--part", choices=("scaling1", "scaling2", "spin"), help=argparse.SUPPRESS)
    parser.add_argument("--cores", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        scaling.part(options.part, options.quick)
        return
    began = perf_counter()

    def log(text):
        print(text, file=sys.stderr if options.markdown else sys.stdout, flush=True)

    problems = PROBLEMS[:1] if options.quick else PROBLEMS
    points = [point for problem in problems for point in measure(problem, options, log)]
    overhead = scaling.overhead(PROBLEMS[0], timed, 3 if options.quick else 10)
    scaled = scaling.run(CORES, log, quick=options.quick)
    print(report.settings(options))
    print(report.costs(points, COMPARED))
    print(report.sizes(scaled))
    print(report.aims(points, overhead, scaled))
    if options.csv:
        write_csv(points, options.csv)
    if options.plot:
        import plot

        plot.draw(points, options.plot)
    log(f"{perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
