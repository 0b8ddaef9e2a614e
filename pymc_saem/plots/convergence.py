"""Iterates of a SAEM run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pymc_saem.arguments import check_types, shown
from pymc_saem.compat import InferenceData
from pymc_saem.plots.style import (
    INDIVIDUAL,
    MARK,
    OTHER,
    SERIES,
    AxesLike,
    add_legend,
    label_axes,
    panels,
    tidy,
)
from pymc_saem.results.fit import Fit

#: Variables of the run, behind parameters; their last value is not an estimate.
_OF_THE_RUN = ("step_size", "n_failed")
#: Up to here every entry of an array has a panel of its own.
MAX_SEPARATE = 6


def plot_convergence(
    idata: InferenceData,
    var_names: str | Sequence[str] | None = None,
    *,
    max_separate: int = MAX_SEPARATE,
    ncols: int | None = None,
    ax: AxesLike | None = None,
    figsize: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plot the iterates of every parameter, and where the exploratory phase ends.

    In a good run the second half is flat and quiet. Chains that end at different values have found
    different optima: compare their scores, and use more chains.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    var_names : str or sequence of str, optional
        Variables of the group ``saem_trace``. By default all population parameters, the
        complete-data log density, the acceptance rates, the step sizes, and the failed solves where
        there were any.
    max_separate : int, default 6
        An array with more entries, such as the weights of a network, has one panel with a line per
        entry.
    ncols : int, optional
        Panels side by side; by default as many as make a grid somewhat wider than high.
    ax : Axes or array of Axes, optional
        Where to draw, one per panel; a new figure by default.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Of shape (panel,).

    Raises
    ------
    KeyError
        When ``idata`` has no group ``saem_trace``.
    ValueError
        When a variable does not exist, or ``ax`` holds too few Axes.

    See Also
    --------
    pymc_saem.diagnostics : Checks of the run, with verdicts.
    pymc_saem.rank_chains : Chains by their marginal log-likelihood.

    Examples
    --------
    >>> axes = ps.plot_convergence(idata, var_names=["sigma", "complete_logp"])
    >>> axes.shape
    (2,)
    """
    check_types("plot_convergence", locals())
    fit = Fit(idata)
    trace = fit.trace
    n_explore = int(trace.attrs.get("n_explore", 0))
    best = fit.best_chain
    drawn = _panels_of(trace, _selection(fit, var_names), max_separate)
    axes, is_new = panels(
        len(drawn), ax, figsize, share=False, size=(2.7, 1.9), max_columns=4, ncols=ncols
    )
    iteration = trace["iteration"].values
    for panel, (title, lines) in zip(axes, drawn, strict=True):
        if title == "acceptance rate":
            _draw_rates(panel, iteration, lines, best)
        else:
            _draw_chains(panel, iteration, lines, best)
        panel.set_title(title, fontsize="medium", loc="left")
        if 0 < n_explore < iteration.size:
            # between the last exploratory iteration and the first smoothing one
            panel.axvline(iteration[n_explore] - 0.5, label="end of exploratory phase", **MARK)
        tidy(panel)
    label_axes(axes, is_new, "iteration", "")
    add_legend(axes, is_new)
    return axes


def _selection(fit: Fit, var_names: str | Sequence[str] | None) -> list[str]:
    """Names of the variables to show, in the order of the trace."""
    trace = fit.trace
    if isinstance(var_names, str):
        var_names = [var_names]
    if var_names is None:
        parameters = set(fit.parameters)
        known = list(map(str, trace.data_vars))
        keep = [name for name in known if name in parameters]
        keep += [n for n in known if n == "complete_logp" or n.startswith("accept_")]
        failed = "n_failed" in trace and bool(np.nansum(trace["n_failed"].values) > 0)
        return keep + ["step_size"] * ("step_size" in trace) + ["n_failed"] * failed
    unknown = [name for name in var_names if name not in trace.data_vars]
    if unknown:
        raise ValueError(
            f"saem_trace has no variable {shown(unknown[0])}; it has {', '.join(map(str, trace.data_vars))}."
        )
    return list(var_names)


def _panels_of(
    trace: xr.Dataset, names: list[str], max_separate: int
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Title of each panel, and its lines: label -> values, shape (chain, iteration)."""
    drawn, rates = [], {}
    for name in names:
        values = trace[name].transpose("chain", "iteration", ...)
        flat = values.values.reshape(*values.shape[:2], -1)
        if name.startswith("accept_"):
            rates[name.removeprefix("accept_")] = flat[..., 0]
        elif values.ndim == 2:
            drawn.append((name, {name: flat[..., 0]}))
        else:
            labels = _entries(values)
            lines = {label: flat[..., k] for k, label in enumerate(labels)}
            if len(labels) > max_separate:
                drawn.append((f"{name} ({len(labels)} entries)", lines))
            else:
                drawn += [(label, {label: line}) for label, line in lines.items()]
    if not rates:
        return drawn
    place = next((k for k, (title, _) in enumerate(drawn) if title in _OF_THE_RUN), len(drawn))
    return [*drawn[:place], ("acceptance rate", rates), *drawn[place:]]


def _entries(values: xr.DataArray) -> list[str]:
    """Labels such as ``beta[slope]`` of the entries of an array, in C order."""
    axes = [[str(c) for c in values[dim].values] for dim in values.dims[2:]]
    shape = values.shape[2:]
    return [
        f"{values.name}[{', '.join(axes[a][i] for a, i in enumerate(at))}]"
        for at in np.ndindex(*shape)
    ]


def _draw_chains(
    ax: Axes, iteration: np.ndarray, lines: Mapping[str, np.ndarray], best: int
) -> None:
    """One line per entry and chain; the reported chain stands out."""
    many = len(lines) > 1
    for line in lines.values():
        for chain, values in enumerate(line):
            style = INDIVIDUAL if chain == best else OTHER
            style = style | ({"linewidth": 0.9, "alpha": 0.7} if many else {"linewidth": 1.2})
            ax.plot(iteration, values, **style)
    handles = ax.get_lines()
    if len(next(iter(lines.values()))) > 1:  # one chain needs no name
        handles[best].set_label("reported chain")
        handles[0 if best else 1].set_label("other chains")
    # its last value is one draw, not an estimate
    if not many and not {"complete_logp", *_OF_THE_RUN} & set(lines):
        (line,) = lines.values()
        ax.set_title(
            f"{line[best, -1]:.4g}", loc="right", fontsize="small", color=INDIVIDUAL["color"]
        )


def _draw_rates(
    ax: Axes, iteration: np.ndarray, rates: Mapping[str, np.ndarray], best: int
) -> None:
    """Acceptance of each kernel in the reported chain; a kernel that was not used has no line."""
    for k, (kernel, values) in enumerate(rates.items()):
        if np.isfinite(values[best]).any():
            ax.plot(
                iteration,
                values[best],
                label=kernel,
                linewidth=0.8,
                alpha=0.75,
                **SERIES[k % len(SERIES)],
            )
    ax.set_ylim(0, 1)
    if ax.get_lines():
        ax.legend(
            fontsize="x-small",
            loc="upper center",
            ncols=len(rates),
            handlelength=1.6,
            columnspacing=0.8,
            edgecolor="none",
        )
