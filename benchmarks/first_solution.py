"""How long a user waits from ``import`` to the first solution of the neural ODE model of ``pymc_saem.demo``.

    python benchmarks/first_solution.py [--solver auto] [--gradient]

The model is built and its mean compiled as a PyTensor function of the weights, at rtol = atol =
1e-6, and evaluated once; with ``--gradient`` also the gradient of its sum. Each run is a process of
its own. ``bare`` has empty caches, as after ``pip install``; ``installed`` finds what ``python -m
pymc_saem.precompile`` compiled; ``again`` finds all that was compiled before.
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

PARTS = ("import", "model", "compile", "solution", "second")


def child(options) -> dict:
    """Seconds by part, in this process."""
    import numpy as np
    import pytensor

    from pymc_saem.demo import theophylline_model

    marks = [BEGAN, perf_counter()]
    model = theophylline_model(rtol=1e-6, atol=1e-6, solver=options.solver)
    marks.append(perf_counter())
    weights = [model[name] for name in ("w_a1", "w_a2", "w_c1", "w_c2")]
    law = model["conc"].owner
    center = law.op.dist_params(law)[0]
    outputs = [center, *(pytensor.grad(center.sum(), weights) if options.gradient else [])]
    function = pytensor.function(weights, outputs)
    marks.append(perf_counter())
    rng = np.random.default_rng(1)
    values = [rng.normal(scale=0.5, size=(12, 7)) for _ in weights]
    for _ in range(2):
        if not all(np.isfinite(out).all() for out in function(*values)):
            raise SystemExit("the solution is not finite")
        marks.append(perf_counter())
    return dict(zip(PARTS, np.diff(marks).tolist(), strict=True))


def fresh_process(cache: str) -> dict:
    """Result of one run in a new process, for which a folder takes the place of the user's caches."""
    from main_job import with_cache

    command = [sys.executable, os.path.abspath(__file__), "--child", *sys.argv[1:]]
    run = subprocess.run(command, env=with_cache(cache), stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f"The run failed with exit code {run.returncode}; its messages are above.")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--gradient", action="store_true", help="the gradient too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options)))
        return
    from main_job import precompile

    with tempfile.TemporaryDirectory() as cache:
        results = {"bare": fresh_process(cache)}
    with tempfile.TemporaryDirectory() as cache:
        precompile(cache)
        results |= {"installed": fresh_process(cache), "again": fresh_process(cache)}
    print(
        f"Python {platform.python_version()}, solver {options.solver}{', with gradient' if options.gradient else ''}"
    )
    print(f"{'seconds':12}" + "".join(f"{name:>12}" for name in results))
    for part in PARTS:
        print(f"{part:12}" + "".join(f"{result[part]:12.2f}" for result in results.values()))
    print(
        f"{'total':12}"
        + "".join(f"{sum(result.values()) - result['second']:12.2f}" for result in results.values())
    )


if __name__ == "__main__":
    main()
