"""What to check after a fit, as a table with verdicts and advice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pymc_saem.arguments import check_types
from pymc_saem.compat import InferenceData
from pymc_saem.results import thresholds
from pymc_saem.results.fit import Fit, stored
from pymc_saem.results.tables.printed import PrintedTable, fitted, shortened, width

_COLUMNS = ("check", "where", "value", "threshold", "verdict", "advice")

#: Printed places are cut there, and where lines would be too long, but never to fewer than the
#: smaller number of characters.
_LONGEST_PLACE, _SHORTEST_PLACE = 30, 12


class DiagnosticsTable(PrintedTable):
    """Checks; what to do is printed below them."""

    def _printed(self) -> pd.DataFrame:
        table = pd.DataFrame(self).drop(columns="advice")
        for name in ("value", "threshold"):
            table[name] = [f"{x:.4g}" if x == x else "" for x in table[name]]
        others = len(table.drop(columns="where").to_string(index=False).partition("\n")[0])
        room = min(max(width() - others - 1, _SHORTEST_PLACE), _LONGEST_PLACE)
        table["where"] = [shortened(where, room) for where in table["where"]]
        return table

    def _as_text(self) -> str:
        return fitted(self._printed(), index=False)

    def _as_html(self) -> str:
        return self._printed().to_html(index=False)

    def _lines(self) -> list[str]:
        rows = self[self["verdict"] == "check"]
        return [
            f"{check}: {advice}"
            for check, advice in zip(rows["check"], rows["advice"], strict=True)
        ]


def diagnostics(idata: InferenceData) -> pd.DataFrame:
    """Check a fit; each check has a line with a verdict and advice.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What :func:`pymc_saem.fit_saem` returned, or the same read from a file.

    Returns
    -------
    pandas.DataFrame
        Columns: ``check``; ``where`` (the parameter, subject, effect or kernel with the worst
        value); ``value``; ``threshold``; ``verdict``, "ok" or "check"; ``advice``, empty where the
        verdict is "ok", and printed below the table. Lines, as far as they apply to the fit:

        - *iterations* made (threshold: as many as were planned) and whether the stopping rule ended the run; *drift* of an estimate in the
          last half of the smoothing phase, and *disagreement of chains*, both in approximate
          standard errors;
        - *acceptance* of the proposals of each kernel; *failed solves*, as a share of the solves of the worst subject; *error of
          solves*, the change of that subject's log-likelihood with tight tolerances;
        - *variances at their floor*, and *parameters on a bound* (a scale at 0, a correlation at 1), how many; *shrinkage* of effects, and *shrinkage of residuals* of each outcome;
        - *modes not found*, for how many subjects; *agreement on the mode*, the smallest share of the searches for a subject's mode
          that ended in it;
        - *R-hat* and *effective sample size* of the conditional draws of what subjects are judged by: their effects, or
          their log-likelihood where effects are weights of networks;
        - *error of -2LL*, its Monte-Carlo standard error, as in the other tables; *Pareto k* of importance sampling; *condition number* of the correlations of the
          estimates, and whether there are *standard errors*; *failed*: what could not be computed
          after the estimate, and why.

    Raises
    ------
    KeyError
        When ``idata`` is not a fit.

    See Also
    --------
    pymc_saem.plot_convergence : The iterates of the run.
    pymc_saem.residuals : How the fit agrees with its data, row by row.
    pymc_saem.check_restart : Whether a run from the fit finds a better optimum.

    Examples
    --------
    >>> table = ps.diagnostics(idata)
    >>> list(table.columns)
    ['check', 'where', 'value', 'threshold', 'verdict', 'advice']
    >>> to_check = table.query("verdict == 'check'")
    """
    check_types("diagnostics", locals())
    fit = Fit(idata)
    trace, population, dim = fit.trace, fit.population, fit.subject_dim
    group = fit.individual if "individual" in fit else None
    lines = [*_of_iterations(trace), *_of_kernels(trace), *_of_variances(trace, population)]
    if group is not None:
        lines += [*_of_solves(trace, group, dim), *_of_modes(group, dim), *_of_draws(group, dim)]
    lines += [
        *_of_likelihood(population, group, dim),
        *_of_errors(population),
        *_of_notes(fit.notes),
    ]
    return DiagnosticsTable(lines, columns=_COLUMNS)


def _line(
    check: str, where: Any, value: float, threshold: float, is_fine: bool, advice: str
) -> tuple:
    return (
        check,
        str(where),
        float(value),
        float(threshold),
        "ok" if is_fine else "check",
        "" if is_fine else advice,
    )


def _highest(check: str, values: dict, threshold: float, advice: str) -> Iterator[tuple]:
    """The largest of some values by name, which should not be above the threshold; no line where none is known."""
    known = {name: value for name, value in values.items() if not np.isnan(value)}
    if known:
        where = max(known, key=known.__getitem__)
        yield _line(check, where, known[where], threshold, known[where] <= threshold, advice)


def _by_subject(group: xr.Dataset, name: str, dim: str) -> dict:
    return dict(zip(group[dim].values, group[name].values, strict=True)) if name in group else {}


def _of_iterations(trace: xr.Dataset) -> Iterator[tuple]:
    attrs, seen = trace.attrs, stored(trace.attrs, "checks", {})
    planned = int(attrs.get("n_explore", 0)) + int(attrs.get("n_smooth", 0))
    made, drift = int(attrs.get("n_iterations", trace.sizes["iteration"])), seen.get("drift", {})
    converged, interrupted = stored(attrs, "converged", False), stored(attrs, "interrupted", False)
    how = (
        "interrupted"
        if interrupted
        else "ended by the stopping rule"
        if converged
        else "all that were planned"
    )
    settled = converged or bool(drift) and max(drift.values()) <= thresholds.LARGE
    yield _line(
        "iterations", how, made, planned, settled and not interrupted,
        "The stopping rule did not end the run: inspect plot_convergence, and increase n_smooth.",
    )  # fmt: skip
    yield from _highest(
        "drift", drift, thresholds.LARGE,
        "The estimate is still moving: increase n_smooth, or n_explore if plot_convergence shows a trend from the start.",
    )  # fmt: skip
    yield from _highest(
        "disagreement of chains", seen.get("disagreement", {}), thresholds.LARGE,
        "The likelihood may have several maxima: compare more chains, or start near the intended maximum with initvals.",
    )  # fmt: skip


def _of_kernels(trace: xr.Dataset) -> Iterator[tuple]:
    for kernel, rate in stored(trace.attrs, "checks", {}).get("acceptance", {}).items():
        if kernel == "prior":  # low acceptance only means that the data are informative
            yield _line("acceptance", kernel, rate, np.nan, True, "")
        else:
            yield _line(
                "acceptance", kernel, rate, thresholds.SMALLEST_ACCEPTANCE, rate >= thresholds.SMALLEST_ACCEPTANCE,
                "The kernel hardly moves: increase n_explore so that its scale adapts, or remove it from kernel.",
            )  # fmt: skip


def _of_variances(trace: xr.Dataset, population: xr.Dataset) -> Iterator[tuple]:
    at_floor = (
        population["parameter"].values[population["note"].values == "at its floor"].astype(str)
    )
    yield _line(
        "variances at their floor", ", ".join(at_floor), at_floor.size, 0, not at_floor.size,
        "The data do not support variability in this effect: fix the variance with fixed={...}, or remove the random effect.",
    )  # fmt: skip
    bounds = stored(trace.attrs, "checks", {}).get("boundary", {})
    yield _line(
        "parameters on a bound", ", ".join(bounds), len(bounds), 0, not bounds,
        "A scale at 0 or a correlation at 1: fix it with fixed={...}, or compare log-likelihoods from different initvals.",
    )  # fmt: skip
    yield from _highest(
        "shrinkage", stored(trace.attrs, "checks", {}).get("shrinkage", {}), thresholds.SHRUNKEN,
        "Conditional modes of this effect are near the population mean for every subject: use conditional draws instead.",
    )  # fmt: skip
    for outcome, value in stored(population.attrs, "residual_shrinkage", {}).items():
        yield from _highest(
            "shrinkage of residuals", {outcome: value}, thresholds.RESIDUALS_SHRUNKEN,
            "The random effects fit single rows: residuals at the modes flatter the model; use simulated ones.",
        )  # fmt: skip


def _of_solves(trace: xr.Dataset, group: xr.Dataset, dim: str) -> Iterator[tuple]:
    failures = stored(trace.attrs, "solver_failures", {})
    per_subject = (
        int(trace.attrs["n_solves"]) / group[dim].size if "n_solves" in trace.attrs else np.nan
    )
    count = np.sum(list(failures.values()), axis=0) if failures else np.zeros(group[dim].size)
    most = max(failures, key=lambda text: sum(failures[text])) if failures else ""
    shares = dict(zip(group[dim].values, count / per_subject, strict=True))
    yield from _highest("failed solves", shares, thresholds.LARGEST_FAILED, f"Most often: {most}")
    yield from _highest(
        "error of solves", _by_subject(group, "solver_error", dim), thresholds.LARGEST_SOLVER_ERROR,
        "Draws and estimates follow the solver error: lower rtol and atol of solve_ivp.",
    )  # fmt: skip


def _of_modes(group: xr.Dataset, dim: str) -> Iterator[tuple]:
    lost = [
        str(subject)
        for subject, logp in _by_subject(group, "mode_logp", dim).items()
        if not np.isfinite(logp)
    ]
    yield _line(
        "modes not found", ", ".join(lost), len(lost), 0, not lost,
        "log p(y, phi) was not finite at any point tried: check the rows of these subjects, or exclude them.",
    )  # fmt: skip
    agreement = _by_subject(group, "mode_agreement", dim)
    if agreement:
        where = min(agreement, key=agreement.__getitem__)
        yield _line(
            "agreement on the mode", where, agreement[where], thresholds.LEAST_AGREEMENT,
            agreement[where] >= thresholds.LEAST_AGREEMENT,
            "Searches for the conditional mode of this subject end in different places: use its conditional draws, not its mode.",
        )  # fmt: skip


def _of_draws(group: xr.Dataset, dim: str) -> Iterator[tuple]:
    advice = "The conditional means and standard deviations are not reliable: increase draws."
    for name, variable, threshold, worst, sign in (
        ("R-hat", "judged_rhat", thresholds.LARGEST_RHAT, np.inf, 1.0),
        ("effective sample size", "judged_ess", thresholds.LEAST_ESS, -np.inf, -1.0),
    ):
        values = _by_subject(group, variable, dim)
        if values:  # NaN is worse than any number: a chain did not move, or there are too few draws
            where = max(
                values,
                key=lambda subject: (
                    sign * (worst if np.isnan(values[subject]) else values[subject])
                ),
            )
            fine = values[where] < threshold if sign > 0 else values[where] >= threshold
            yield _line(name, where, values[where], threshold, bool(fine), advice)


def _of_likelihood(population: xr.Dataset, group: xr.Dataset | None, dim: str) -> Iterator[tuple]:
    if "loglik_error" in population.attrs:
        yield from _highest(
            "error of -2LL", {population.attrs["loglik_method"]: 2.0 * float(population.attrs["loglik_error"])},
            thresholds.LARGEST_LOGLIK_ERROR,
            "AIC and BIC contain noise of this size: compare only models that differ by more, or use another likelihood=.",
        )  # fmt: skip
    if group is not None:
        yield from _highest(
            "Pareto k", _by_subject(group, "pareto_k", dim), thresholds.LARGEST_K,
            'Importance sampling is not reliable for this subject: use likelihood="annealed".',
        )  # fmt: skip


def _of_notes(notes: list[str]) -> Iterator[tuple]:
    for note in notes:
        yield _line("failed", note.split(":")[0], np.nan, np.nan, False, note)


def _of_errors(population: xr.Dataset) -> Iterator[tuple]:
    attrs = population.attrs
    if "standard_errors" not in attrs:
        return
    found, note = attrs["standard_errors"] != "none", attrs.get("standard_errors_note", "")
    flat = [
        h for h in stored(attrs, "identifiability", []) if h.startswith(thresholds.NOT_DETERMINED)
    ]
    yield _line(
        "standard errors", attrs["standard_errors"], found, 1, found and not flat,
        f"{'Some have none' if found else 'There are none'}: {'; '.join(flat) or note}. Fix or remove what the data do not determine.",
    )  # fmt: skip
    yield from _highest(
        "condition number", {"": float(attrs.get("condition_number", np.nan))}, thresholds.LARGEST_CONDITION,
        "Some estimates can hardly be distinguished: see their correlations (ps.correlation).",
    )  # fmt: skip
