"""Where the time of the main job goes: import, build, compile, start, iterate, after, figures.

    python benchmarks/main_job.py [--seed 21] [--replicates auto] [--bare] [--warm 1] [--iterations
    600 400]

The job is the neural ODE fit of ``pymc_saem.demo``. Each run is a process of its own. ``bare`` has
empty caches, as after ``pip install``; ``installed`` finds the solvers that ``python -m
pymc_saem.precompile`` compiled, as after ``make demo``'s installation; ``again`` finds all the
machine code that Numba and PyTensor keep on disk.
"""

from time import perf_counter

BEGAN = perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402

PARTS = ("import", "build", "compile", "start", "iterate", "after", "figures")


def child(options) -> dict:
    """Do the job in this process; seconds by part, and what tells the runs apart."""
    import matplotlib

    matplotlib.use("Agg")
    import pymc as pm

    import pymc_saem as ps
    from pymc_saem.compat import get_group
    from pymc_saem.demo import SETTINGS, split_seconds, theophylline_model

    for name in ps.__all__:
        getattr(ps, name)
    seconds = {"import": perf_counter() - BEGAN}

    mark = perf_counter()
    model = theophylline_model()
    ps.summarize(model)
    seconds["build"] = perf_counter() - mark

    n_explore, n_smooth = options.iterations
    settings = SETTINGS | {
        "n_explore": n_explore,
        "n_smooth": n_smooth,
        "n_replicates": options.replicates,
    }
    mark = perf_counter()
    idata = ps.fit_saem(model, random_seed=options.seed, progressbar=False, **settings)
    split = split_seconds(idata, perf_counter() - mark)
    seconds["build"] += split.pop("read")
    seconds |= split

    mark = perf_counter()
    ps.plot_convergence(idata)
    ps.plot_fits(model, idata, subjects=[1, 2])
    ps.plot_observation_distribution(model, idata, subject=1, row=0)
    seconds["figures"] = perf_counter() - mark
    attrs = get_group(idata, "saem_trace").attrs
    return {
        "seconds": seconds,
        "sigma": float(ps.summary(idata).loc["sigma", "estimate"]),
        "n_solves": int(attrs["n_solves"]),
        "n_replicates": int(attrs["n_replicates"]),
        "pymc": pm.__version__,
    }


def with_cache(cache: str) -> dict:
    """Environment in which a folder takes the place of the user's caches."""
    flags = [os.environ.get("PYTENSOR_FLAGS", ""), f"base_compiledir={cache}"]
    return os.environ | {"PYTENSOR_FLAGS": ",".join(filter(None, flags))}


def precompile(cache: str) -> None:
    """What the installation compiles, because it is the same for every model; prints its seconds."""
    subprocess.run(
        [sys.executable, "-m", "pymc_saem.precompile"], env=with_cache(cache), check=True
    )


def fresh_process(cache: str) -> dict:
    """Result of one run in a new process."""
    environment = with_cache(cache)
    command = [sys.executable, os.path.abspath(__file__), "--child", *sys.argv[1:]]
    mark = perf_counter()
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    wall = perf_counter() - mark
    if run.returncode:
        sys.exit(f"The run failed with exit code {run.returncode}; its messages are above.")
    result = json.loads(run.stdout.splitlines()[-1])
    result["seconds"]["interpreter"] = wall - sum(result["seconds"].values())
    result["seconds"]["total"] = wall
    return result


def print_table(results: dict[str, dict]) -> None:
    """One row per part, one column per run."""
    print(f"{'seconds':12}" + "".join(f"{name:>12}" for name in results))
    for part in (*PARTS, "interpreter", "total"):
        print(f"{part:12}" + "".join(f"{r['seconds'][part]:12.2f}" for r in results.values()))
    for key, form in (("sigma", "12.4f"), ("n_solves", "12d"), ("n_replicates", "12d")):
        print(f"{key:12}" + "".join(f"{r[key]:{form}}" for r in results.values()))


def replicates(text: str) -> int | str:
    return text if text == "auto" else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument(
        "--replicates", type=replicates, default="auto", help="copies of phi per subject"
    )
    parser.add_argument(
        "--bare", action="store_true", help="also a run for which nothing was precompiled"
    )
    parser.add_argument(
        "--warm", type=int, default=1, help="runs after that, which find the caches filled"
    )
    parser.add_argument(
        "--iterations", type=int, nargs=2, default=(600, 400), metavar=("EXPLORE", "SMOOTH")
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options)))
        return
    n_explore, n_smooth = options.iterations
    print(
        f"{n_explore} + {n_smooth} iterations, seed {options.seed}; Python {platform.python_version()}, ",
        end="",
    )
    print(
        f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores",
        flush=True,
    )
    results = {}
    if options.bare:
        with tempfile.TemporaryDirectory() as cache:
            results["bare"] = fresh_process(cache)
    with tempfile.TemporaryDirectory() as cache:
        precompile(cache)
        results["installed"] = fresh_process(cache)
        for k in range(options.warm):
            results[f"again {k + 1}"] = fresh_process(cache)
    print(f"PyMC {results['installed']['pymc']}")
    print_table(results)


if __name__ == "__main__":
    main()
