"""Bias and root mean squared error of the estimates of a simulation study, as tables."""

from dataclasses import dataclass, field

import numpy as np
from simulated import Simulated


@dataclass(frozen=True)
class Fitted:
    """One data set: natural estimates by name, what they are compared with, or what went wrong.

    Attributes
    ----------
    estimate, exact, error : dict
        Estimates of SAEM and of exact maximum likelihood, and the standard errors of the latter;
        the last two are empty for "neural".
    gap : float
        Log-likelihood of the exact maximum less that of the estimate; for "neural", that of the
        truth less that of the estimate, and NaN where likelihoods were not judged.
    gap_error : float
        Monte-Carlo error of it.
    gain_from_truth : float
        Log-likelihood of a fit that starts at the truth, less that of the truth; of the first data
        sets of "neural" only.
    """

    estimate: dict = field(default_factory=dict)
    exact: dict = field(default_factory=dict)
    error: dict = field(default_factory=dict)
    gap: float = np.nan
    gap_error: float = 0.0
    gain_from_truth: float = np.nan
    at_bound: tuple = ()
    at_floor: tuple = ()
    converged: bool = False
    seconds: float = np.nan
    lost: str = ""


@dataclass(frozen=True)
class Row:
    """One parameter over all data sets; each pair is a value and its Monte-Carlo standard error over data sets."""

    name: str
    truth: float
    bias: tuple
    rmse: tuple
    exact_bias: tuple | None = None
    exact_rmse: tuple | None = None
    difference: tuple | None = (
        None  # mean of SAEM less exact, in units of the median standard error
    )
    # largest absolute difference of one data set, in units of its standard error
    largest: float = np.nan


def rows_of(study: Simulated, done: list[Fitted]) -> list[Row]:
    rows = []
    for name in study.judged:
        truth = study.truth[name]
        found = np.array([one.estimate[name] for one in done]) - truth
        row = [name, truth, _mean(found), _root_mean_square(found)]
        if done[0].exact:
            exact = np.array([one.exact[name] for one in done]) - truth
            errors = np.array([one.error[name] for one in done])
            difference = (found - exact) / np.nanmedian(errors)
            largest = np.nanmax(np.abs(found - exact) / errors)
            row += [_mean(exact), _root_mean_square(exact), _mean(difference), largest]
        rows.append(Row(*row))
    return rows


def _mean(x: np.ndarray) -> tuple:
    return x.mean(), x.std(ddof=1) / np.sqrt(x.size) if x.size > 1 else np.nan


def _root_mean_square(x: np.ndarray) -> tuple:
    value = np.sqrt(np.mean(x**2))
    return value, np.std(x**2, ddof=1) / (2 * value * np.sqrt(x.size)) if x.size > 1 else np.nan


HEAD = (
    "model", "N", "sets", "parameter", "truth", "bias", "RMSE", "bias, exact ML", "RMSE, exact ML", "SAEM - ML, in SE",
    "largest, in SE",
)  # fmt: skip


def table(study, n_subjects: int, done: list[Fitted]) -> list[tuple]:
    cells = []
    for row in rows_of(study, done):
        pairs = [row.bias, row.rmse, row.exact_bias, row.exact_rmse, row.difference]
        texts = ["" if pair is None else f"{pair[0]:.3f} +- {pair[1]:.3f}" for pair in pairs]
        largest = "" if np.isnan(row.largest) else f"{row.largest:.2f}"
        cells.append(
            (
                study.name,
                str(n_subjects),
                str(len(done)),
                row.name,
                f"{row.truth:g}",
                *texts,
                largest,
            )
        )
    return cells


def show(cells: list[tuple], is_markdown: bool) -> None:
    if is_markdown:
        print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
        for row in cells:
            print("| " + " | ".join(text.replace("+-", "±") for text in row) + " |")
        return
    widths = [max(len(row[k]) for row in (HEAD, *cells)) for k in range(len(HEAD))]
    for row in (HEAD, *cells):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)))


def summarize(study, n_subjects: int, outcomes: list[Fitted]) -> str:
    """One line for a model and size."""
    done = [one for one in outcomes if not one.lost]
    text = f"{study.name}, N = {n_subjects}: {len(outcomes)} data sets, {len(outcomes) - len(done)} lost"
    if not done:
        return text
    text += (
        f"; stopped by the rule {sum(one.converged for one in done)}; at the variance floor {sum(bool(one.at_floor) for one in done)}"
        f"; median {np.median([one.seconds for one in done]):.1f} s a fit"
    )
    judged = [one for one in done if not np.isnan(one.gap)]
    if not judged:
        return text
    gaps = np.array([one.gap for one in judged])
    what = "truth less estimate" if study.name == "neural" else "maximum less estimate"
    text += f"; log-likelihood of {gaps.size}, {what}: mean {gaps.mean():.3f}, from {gaps.min():.3f} to {gaps.max():.3f}"
    if study.name == "neural":
        text += f"; Monte-Carlo error of the difference about {np.median([one.gap_error for one in judged]):.2f}"
        return (
            text
            + f"; a start at the truth gains {np.nanmean([one.gain_from_truth for one in judged]):.2f}"
        )
    at_bound = sum(bool(one.at_bound) for one in done)
    return text + f"; exact maximum with a variance at its bound {at_bound}"
