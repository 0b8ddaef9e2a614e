"""Does anything end in a wrong number without a word, a lost fit, or an error from the inside? Hostile inputs by family.

    python benchmarks/robustness.py                            # all of it, about 25 minutes on two cores
    python benchmarks/robustness.py --only doses options       # families
    python benchmarks/robustness.py --only doses:17            # one input again, and what it ended in
    python benchmarks/robustness.py --first 1000               # other numbers of the generated inputs
    python benchmarks/robustness.py --quick 3                  # so many inputs of each family
    python benchmarks/robustness.py --write                    # the table into benchmarks/robustness.md

Each input has a number, from which it is made, and an answer that is not the package's own: closed
forms, exact likelihoods of linear Gaussian models, SciPy from event to event, the run that was not
interrupted, or that there is none. Inputs run in processes of their own, with a time limit; a
process that dies is a crash of its input, and the next one goes on behind it.
"""

import argparse
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from time import perf_counter

from robustness import FAMILIES

HERE = Path(__file__).parent
LIMIT = 240  # seconds for one input, the first compilation of the process included
BUNCH = 20  # inputs of one process
FINE = ("right", "refused", "warned")


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="FAMILY[:NUMBER]",
        default=[],
        help="families, or single inputs",
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first generated input")
    parser.add_argument("--quick", type=int, help="so many inputs of each family, spread over it")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument(
        "--write", nargs="?", const=str(HERE / "robustness.md"), help="file for the table"
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)  # what a process of its own is told
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def work(told: str, folder: str) -> None:
    """In a process of its own: make and judge inputs, and say so line by line."""
    from robustness.judge import judge

    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the inputs print is nobody's
    os.environ["ROBUSTNESS_FOLDER"] = folder
    family, numbers = told.split(":")
    module = import_module(f"robustness.{family}")
    for number in map(int, numbers.split(",")):
        began, text = perf_counter(), ""
        try:
            item = module.make(number)
            text = item.text
            verdict, said = judge(item)
        except Exception as error:  # of ours, here
            verdict, said = "broken", f"{type(error).__name__}: {error}"
        line = {
            "number": number,
            "text": text,
            "verdict": verdict,
            "said": said,
            "seconds": perf_counter() - began,
        }
        print(json.dumps(line), file=out, flush=True)


def run_bunch(family: str, numbers: list[int], folder: str) -> list[dict]:
    """Verdicts of some inputs; a process that dies or does not end takes one input with it."""
    limit = getattr(import_module(f"robustness.{family}"), "LIMIT", LIMIT)
    done, left = [], list(numbers)
    while left:
        command = [
            sys.executable,
            __file__,
            "--work",
            f"{family}:{','.join(map(str, left))}",
            "--folder",
            folder,
        ]
        errors = tempfile.TemporaryFile("w+")
        # or lines wait unseen
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, bufsize=0)
        while left:
            line = _next_line(process, limit)
            if line is None:
                break
            done.append(json.loads(line) | {"family": family})
            left.remove(done[-1]["number"])
            say(done[-1])
        process.kill()
        code = process.wait()
        if left:
            errors.seek(0)
            said = (
                f"no end after {limit} s"
                if code == -9
                else f"the process ended with {code}: {errors.read()[-300:]}"
            )
            line = {
                "number": left.pop(0),
                "text": "",
                "verdict": "crash",
                "said": said,
                "seconds": float(limit),
            }
            done.append(line | {"family": family})
            say(done[-1])
    return done


def say(line: dict) -> None:
    """One input, at once, where it is bad or was asked for."""
    if line["verdict"] not in FINE or any(":" in name for name in sys.argv):
        print(
            f"{line['family']}:{line['number']} ({line['seconds']:.1f} s) {line['verdict']}: {line['text']} - {line['said']}",
            flush=True,
        )


def _next_line(process, limit: float) -> str | None:
    """The next line that a process says; None if it has died, or said nothing for that long."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return (process.stdout.readline() or None) if selector.select(limit) else None


def plan(options) -> list[tuple[str, list[int]]]:
    """Families and numbers, in bunches."""
    wanted: dict[str, list[int] | None] = {}
    for name in options.only or FAMILIES:
        family, _, number = name.partition(":")
        wanted[family] = [*(wanted.get(family) or []), int(number)] if number else None
    bunches = []
    for family, numbers in wanted.items():
        module = import_module(f"robustness.{family}")
        if numbers is None:
            count = module.COUNT
            step = max(1, count // options.quick) if options.quick else 1
            numbers = [options.first + k for k in range(0, count, step)][: options.quick]
        size = getattr(module, "BUNCH", BUNCH)
        bunches += [(family, numbers[k : k + size]) for k in range(0, len(numbers), size)]
    return bunches


def table(lines: list[dict], seconds: float) -> str:
    """Counts by family, and every bad input with its number."""
    from robustness.judge import BAD, VERDICTS

    heads = ["family", "inputs", *VERDICTS]
    rows = [heads, ["---"] * len(heads)]
    for family in [*dict.fromkeys(line["family"] for line in lines), "all"]:
        own = [line["verdict"] for line in lines if family in (line["family"], "all")]
        counts = Counter(own)
        rows.append([family, str(len(own)), *(str(counts[v]) for v in VERDICTS)])
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    bad = [line for line in lines if line["verdict"] in (*BAD, "broken")]
    for line in bad:
        text += f"\n- `{line['family']}:{line['number']}` {line['verdict']}: {line['text']} - {line['said']}"
    return f"{text}\n{'' if bad else 'None is bad. '}{len(lines)} inputs in {seconds / 60:.0f} minutes.\n"


def main() -> None:
    options = arguments()
    if options.work:
        work(options.work, options.folder)
        return
    began, lines = perf_counter(), []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        for done in pool.map(lambda bunch: run_bunch(*bunch, folder), plan(options)):
            lines += done
    text = table(lines, perf_counter() - began)
    print(text)
    if options.write:
        Path(options.write).write_text(f"# Robustness\n\n{__doc__.splitlines()[0]}\n\n{text}")
    if any(line["verdict"] not in FINE for line in lines):
        sys.exit(1)


if __name__ == "__main__":
    main()
