"""Numbers of subjects and of threads, the ceiling of this machine, and what stands around the compiled task.

Threads are measured in processes of their own: with one thread a process is pinned to one core,
with two it has both.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from bare import Bare
from own import Own
from peers import Diffrax, NumbaLSODA
from problems import PROBLEMS

SIZES = 1, 12, 1000
RTOL = 1e-6
RUN = Path(__file__).with_name("run.py")
_SPIN_SECONDS = 1.0


def overhead(problem, timed, rounds):
    """Microseconds per subject-solve of five ways to the same solver, by tolerance; they alternate.

    ``function``: PyTensor's; ``operation``: ``Op.perform``'s part; ``graph``: a PyTensor graph that
    Numba has compiled, called from compiled code, as the E-step does; ``task``: a Numba loop that
    only calls the compiled task through its address; ``hand``: the hand-written loop of bare.py.
    """
    inputs = problem.inputs(12)
    own, hand, result = Own("tsit5", problem, inputs), Bare(problem, inputs), {}
    for rtol in (1e-2, 1e-6, 1e-9):
        op, *arguments = own.operation(rtol)
        bare, graph = own.bare_call(rtol), own.compiled_call(rtol)
        ways = {
            "function": (own.solver_call(rtol), 1),
            "operation": (lambda op=op, a=arguments: op.compute(*a), 1),
            "graph": (lambda graph=graph: graph(20), 20),
            "task": (lambda bare=bare: bare(20), 20),
            "hand": (hand.solver_call(rtol), 1),
            "gradient": (own.gradient_call(rtol), 1),
        }
        best = dict.fromkeys(ways, np.inf)
        for _ in range(rounds):
            for name, (call, repeats) in ways.items():
                call()
                best[name] = min(best[name], 1e6 * timed(call) / repeats / len(inputs.t))
        result[rtol] = best
    return result


def run(cores, log, quick=False):
    """Costs by engine, size and threads from two processes, and the ceiling."""
    result = {"costs": {}}
    for part in ("scaling1", "scaling2"):
        mark = perf_counter()
        command = _command(part, cores[:1] if part == "scaling1" else cores) + ["--quick"] * quick
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=_environment())
        result["costs"][part[-1]] = json.loads(done.stdout.splitlines()[-1])
        log(f"{part[-1]} thread(s): {perf_counter() - mark:.0f} s")
    result["ceiling"] = _ceiling(cores, 1 if quick else 4)
    return result


def part(name, quick):
    """What a child process does: print its costs as JSON, or solve when told to."""
    _spin() if name == "spin" else print(json.dumps(_costs(int(name[-1]), quick)))


def _costs(n_threads, quick):
    from run import timed

    problem, costs = PROBLEMS[0], {}
    for size in SIZES:
        inputs, calls = problem.inputs(size), {}
        makers = {
            s: (lambda s=s, x=inputs: Own(s, problem, x, n_threads))
            for s in ("tsit5", "cvodes", "auto", "sunode")
        }
        if n_threads > 1:
            makers["tsit5, 1 thread"] = lambda x=inputs: Own("tsit5", problem, x, 1)
        if not quick:
            makers |= _peers(problem, inputs, n_threads)
        for name, make in makers.items():
            try:
                engine = make()
            except ImportError:
                continue
            calls[name] = {"solve": engine.solver_call(RTOL)}
            # whose gradients take seconds
            if isinstance(engine, Own) and engine.solver != "sunode":
                calls[name]["gradient"] = engine.gradient_call(RTOL)
        of_size = {name: dict.fromkeys(kinds, np.inf) for name, kinds in calls.items()}
        for turn in range(4):
            for name, kinds in calls.items():
                for kind, call in kinds.items():
                    if turn == 0:
                        call()
                    of_size[name][kind] = min(
                        of_size[name][kind], 1e6 * timed(call, 0.05, perf_counter) / size
                    )
        costs[size] = of_size
    return costs


def _peers(problem, inputs, n_threads):
    devices = n_threads if len(inputs.t) > 1 else 1
    return {
        "numbalsoda lsoda": lambda: NumbaLSODA("lsoda", problem, inputs, parallel=n_threads > 1),
        "diffrax": lambda: Diffrax(problem, inputs, devices=devices),
    }


def _spin():
    problem = PROBLEMS[0]
    call = Own("tsit5", problem, problem.inputs(1000)).bare_call(RTOL)
    call(3)
    print("ready", flush=True)
    for _ in sys.stdin:
        mark, n = perf_counter(), 0
        while perf_counter() - mark < _SPIN_SECONDS:
            call(1)
            n += 1
        print((perf_counter() - mark) / n, flush=True)


def _ceiling(cores, rounds):
    """How much faster two independent processes, one on each core, do their work than one does both."""
    if len(cores) < 2:
        return float("nan")
    options = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
        "env": _environment(),
    }
    both = [subprocess.Popen(_command("spin", [core]), **options) for core in cores[:2]]
    for process in both:
        process.stdout.readline()

    def seconds(processes):
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        return np.mean([float(process.stdout.readline()) for process in processes])

    alone, together = zip(*[(seconds(both[:1]), seconds(both)) for _ in range(rounds)], strict=True)
    for process in both:
        process.stdin.close()
        process.wait()
    return float(2.0 * min(alone) / min(together))


def _command(part, cores):
    return [sys.executable, str(RUN), "--part", part, "--cores", ",".join(map(str, cores))]


def _environment():
    return {name: value for name, value in os.environ.items() if name != "NUMBA_NUM_THREADS"}
