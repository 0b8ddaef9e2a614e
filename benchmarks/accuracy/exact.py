"""Fits by default options beside the exact maximum, for several seeds.

    python benchmarks/accuracy/exact.py [--cases orange poisson] [--seeds 1 2 3 4 5] [--verbose]

The cases are those of tests/support/cases. A fit passes if its marginal log-likelihood (plus log
prior, where the case has one) is within 0.1 of the maximum, and every parameter within 0.3 of its
standard error. HIGHER is a fit that found another maximum with a better likelihood than the case's
answer (theophylline has one, see the case). A case that the package refuses, or whose fit ends in
an error, is reported and counts as missed. The exit code is 1 if anything did not pass.
"""

import argparse
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pymc_saem as ps  # noqa: E402
from pymc_saem.compat import get_group  # noqa: E402
from tests.support.cases import CASES, Case  # noqa: E402

MAX_GAP, MAX_ERROR = 0.1, 0.3
ROW = "{:22} {:>5} {:>9} {:>7}  {:16} {:>8} {:>8}  {}"
HEAD = ROW.format("case", "seed", "gap", "error", "of", "before", "iterate", "")


@dataclass(frozen=True)
class Outcome:
    """One fit: gap in log-likelihood, largest error in standard errors and of what, seconds, or what went wrong."""

    gap: float = np.inf
    error: float = np.inf
    of: str = ""
    before: float = np.nan  # seconds to compile and to find a start
    iterate: float = np.nan
    failure: str = ""
    notes: tuple = ()
    estimate: dict = None

    @property
    def is_passed(self) -> bool:
        return abs(self.gap) <= MAX_GAP and self.error <= MAX_ERROR

    @property
    def verdict(self) -> str:
        return "" if self.is_passed else "HIGHER" if self.gap < -MAX_GAP else "MISSED"


def estimates(table, case: Case) -> dict:
    """The natural values of a fit by the names of the model's variables."""
    values = {}
    for name, like in case.starts[0].items():
        entries = [label for label in table.index if label == name or label.startswith(f"{name}[")]
        values[name] = table["estimate"][entries].to_numpy().reshape(np.shape(like))[()]
    return values


def fit(case: Case, seed: int) -> Outcome:
    """Fit by the default options, and compare."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            idata = ps.fit_saem(case.build(), random_seed=seed, progressbar=False, **case.options)
    except Exception as failure:  # whatever it is belongs into the report: no run is lost
        return Outcome(failure=f"{type(failure).__name__}: {failure}")
    values = estimates(ps.summary(idata), case)
    errors = np.abs(case.flat(values) - case.answer.estimate) / case.answer.standard_error
    seconds = json.loads(get_group(idata, "saem_trace").attrs["seconds"])
    worst = int(np.argmax(errors))
    return Outcome(
        case.answer.objective - case.objective(values),
        errors[worst],
        case.labels[worst],
        seconds["compile"] + seconds["start"],
        seconds["iterate"],
        notes=tuple(str(warning.message) for warning in caught),
        estimate=values,
    )


def show(case: Case, seed: int, found: Outcome, is_verbose: bool) -> None:
    if found.failure:
        print(
            f"{case.name:22} {seed:5}  {found.failure[: 2000 if is_verbose else 150]}", flush=True
        )
        return
    numbers = (
        f"{found.gap:.4f}",
        f"{found.error:.3f}",
        found.of,
        f"{found.before:.1f}",
        f"{found.iterate:.1f}",
    )
    print(ROW.format(case.name, seed, *numbers, found.verdict), flush=True)
    if is_verbose:
        print(
            f"    estimate {case.flat(found.estimate).round(4)}\n    exact    {case.answer.estimate.round(4)}"
        )
        for note in found.notes:
            print(f"    {note}")


def show_worst(case: Case, outcomes) -> None:
    """One row for all seeds of a case: the largest gap and error of any, the medians of the seconds."""
    done = [found for found in outcomes if not found.failure]
    if not done:
        print(f"{case.name:22} no fit: {outcomes[0].failure[:100]}")
        return
    worst = max(done, key=lambda found: found.error)
    numbers = f"{max(found.gap for found in done):.4f}", f"{worst.error:.3f}", worst.of
    seconds = (
        f"{np.median([getattr(found, part) for found in done]):.1f}"
        for part in ("before", "iterate")
    )
    passed = f"{sum(found.is_passed for found in outcomes)} of {len(outcomes)}"
    print(ROW.format(case.name, "all", *numbers, *seconds, passed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", nargs="+", choices=sorted(CASES), default=list(CASES), metavar="CASE"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument(
        "--verbose", action="store_true", help="estimates, exact values and warnings of every fit"
    )
    arguments = parser.parse_args()
    print(HEAD)
    found = {}
    for name in arguments.cases:
        found[name] = []
        for seed in arguments.seeds:
            found[name].append(fit(CASES[name], seed))
            show(CASES[name], seed, found[name][-1], arguments.verbose)
    print(
        f"\nlargest gap and error over seeds, median seconds, passed ({MAX_GAP} and {MAX_ERROR} standard errors)\n{HEAD}"
    )
    for name, outcomes in found.items():
        show_worst(CASES[name], outcomes)
    return 0 if all(one.is_passed for outcomes in found.values() for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
