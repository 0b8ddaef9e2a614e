"""Residuals of every observed row."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pymc as pm
from numpy.typing import ArrayLike
from scipy.special import ndtri

from pymc_saem.arguments import check_count, check_types, random_generator
from pymc_saem.compat import InferenceData
from pymc_saem.diagnose.decorrelated import complete, decorrelated_by_subject, ranks
from pymc_saem.diagnose.fitted_rows import INDIVIDUAL, POPULATION, FittedRows, Rows
from pymc_saem.diagnose.individual import individual_residuals


def residuals(
    model: pm.Model,
    idata: InferenceData,
    outcome: str | None = None,
    x: ArrayLike | None = None,
    *,
    n_simulations: int = 1000,
    random_seed: int | np.random.Generator | None = None,
) -> pd.DataFrame:
    r"""Compute residuals of every observed row of an outcome.

    If the model is true, ``npde`` and ``pwres`` are standard normal and uncorrelated within a
    subject (``pwres`` where the outcome is normal), and ``pit`` is uniform on (0, 1), although not
    independent within a subject. ``iwres`` is standard normal only where the data determine the
    random effects well: elsewhere conditional modes shrink, and so do these residuals.

    Parameters
    ----------
    model : pymc.Model
        The model that was fitted. It is not changed.
    idata : arviz.InferenceData or xarray.DataTree
        What ``fit_saem`` returned, or the same read from a file.
    outcome : str, optional
        Name of the observed variable, when there are several.
    x : array_like, shape (row,), optional
        Time of each row, or any other number, such as time after dose. An ODE solution provides its
        times; without either there is no column "x".
    n_simulations : int, default 1000
        Data sets that are simulated at the estimates, K below.
    random_seed : int or numpy.random.Generator, optional
        Same seed, same residuals. Randomness is in the simulations, and in the places of discrete
        and censored rows.

    Returns
    -------
    pandas.DataFrame
        A line per observed row, in the order of the data; the index is the place in the flattened
        outcome. Columns:

        - the subject dimension, such as "subject": label;
        - "row": number of the row among those of its subject, as in :func:`plot_observation_distribution`;
        - "x": time, where known;
        - "observed": y; of a censored row the bound;
        - "censored", for a ``Censored`` outcome: "no", "below" or "above";
        - "population", "individual": predictions with the random effects at their population value and at the
          conditional mode (of a LogNormal the median; of a Censored outcome before censoring; NaN
          where PyMC has no mean);
        - "iwres", "pwres", "npde", "pit".

        ``attrs`` has "outcome", "scale" ("log" for LogNormal outcomes) and "n_simulations".

    Raises
    ------
    ValueError
        When the outcome does not exist, ``x`` has the wrong length, the fit belongs to a different
        model, or ``n_simulations`` does not exceed the rows of a subject, so that their covariance
        is singular.

    Warns
    -----
    UserWarning
        When differential equations of simulated subjects have no solution, or simulations are few
        for the covariance of a subject (under five per row).

    See Also
    --------
    pymc_saem.plot_residuals : The same as figures.
    pymc_saem.vpc : Quantiles of the data beside those of simulations.
    pymc_saem.diagnostics : Checks of the fit.

    Notes
    -----
    Let y_i be the rows of subject i in the order of the data, :math:`\hat\phi_i` its conditional
    mode, and
    :math:`y_i^{(k)}`, k = 1..K, simulated with new random effects. All on the log scale for LogNormal outcomes.

    *iwres* (IWRES): :math:`(y_{ij} - f_{ij}(\hat\phi_i)) / g_{ij}(\hat\phi_i)`, with f the mean and
    g the standard deviation of a Normal outcome given the random effects. For other outcomes
    :math:`\Phi^{-1}(F(y_{ij} \mid \hat\phi_i))`, which is the same for normal ones; between F(y -
    1) and F(y) at random for discrete ones (randomized quantile residuals, Dunn & Smyth 1996,
    section 2), and below F(bound) for censored ones. F is that of 2000 simulations where PyMC has
    none.

    *pwres* (PWRES): :math:`L_i^{-1} (y_i - m_i)`, with :math:`m_i = \frac 1K \sum_k y_i^{(k)}` and
    :math:`L_i L_i' = V_i = \frac 1{K-1} \sum_k (y_i^{(k)} - m_i)(y_i^{(k)} - m_i)'` (Cholesky). (Comets, Brendel & Mentré 2008,
    section 2.2; Monolix takes the symmetric root of V_i instead.)

    *npde* (NPDE): :math:`\Phi^{-1}` of the rank of pwres among the same transform of the
    simulations,
    :math:`L_i^{-1} (y_i^{(k)} - m_i)`, row by row (Comets et al. 2008, section 2.2; Brendel et al. 2006). The rank is
    (r + u) / (K + 1) for r simulations below and u uniform on (0, 1), exactly uniform for the true
    model; the paper has r / K, moved from 0 and 1 by 1 / (2K).

    *pit* (prediction discrepancy, probability integral transform): the rank of y_ij among its
    simulations, (r + u (1 + e)) / (K + 1), with e of them equal to it, which discrete and censored
    ones may be. Marginal: the random effects of the subject are not used.

    *Censored rows.* For pwres and npde a row below its bound gets a value drawn from the
    simulations of this row below the bound, and so do simulated rows (Nguyen, Comets & Mentré 2012,
    section 2.3; method "cdf" of npde). *Discrete rows* get a uniform number on (0, 1) added for
    npde, observed and simulated ones alike, so that no two are equal. Each outcome is decorrelated
    on its own.

    References
    ----------
    Brendel, Comets, Laffont, Laveille & Mentré (2006). Metrics for external model evaluation with
    an application to the population pharmacokinetics of gliclazide. Pharmaceutical Research 23,
    2036-2049. Comets, Brendel & Mentré (2008). Computing normalised prediction distribution errors
    to evaluate nonlinear mixed-effect models. Computer Methods and Programs in Biomedicine 90,
    154-166. Nguyen, Comets & Mentré (2012). Extension of NPDE for evaluation of nonlinear mixed
    effect models in presence of data below the quantification limit. Journal of Pharmacokinetics
    and Pharmacodynamics 39, 499-518. Dunn & Smyth (1996). Randomized quantile residuals. Journal of
    Computational and Graphical Statistics 5, 236-244.

    Examples
    --------
    >>> table = ps.residuals(model, idata, x=data["time"], random_seed=1)
    >>> list(table.columns)
    ['subject', 'row', 'x', 'observed', 'population', 'individual', 'iwres', 'pwres', 'npde', 'pit']
    >>> largest = table.nlargest(5, "npde")
    """
    check_types("residuals", locals())
    check_count("n_simulations", n_simulations, 2)
    rng = random_generator(random_seed)
    fitted = FittedRows(model, idata, outcome, x)
    return residual_table(fitted, n_simulations, rng)


def residual_table(
    fitted: FittedRows, n_simulations: int, rng: np.random.Generator
) -> pd.DataFrame:
    """The table of :func:`residuals`, for rows that are compiled."""
    rows = fitted.rows
    _check_size(rows, n_simulations)
    simulated = fitted.simulate(n_simulations, rng)
    found = population_residuals(rows, simulated, rng)
    by_subject = pd.Series(rows.subject)
    table = pd.DataFrame(
        {
            rows.subject_dim: rows.subjects[rows.subject],
            "row": by_subject.groupby(by_subject).cumcount().to_numpy(),
        },
        index=pd.Index(rows.number, name="index"),
    )
    if rows.x is not None:
        table["x"] = rows.x
    table["observed"] = rows.observed
    if rows.is_censored:
        table["censored"] = np.select([rows.below, rows.above], ["below", "above"], "no")
    predicted = (
        rows.predicted if rows.predicted is not None else np.full((2, rows.number.size), np.nan)
    )
    table["population"], table["individual"] = predicted[POPULATION], predicted[INDIVIDUAL]
    table["iwres"] = individual_residuals(fitted, rng)
    for name, values in found.items():
        table[name] = values
    table.attrs = {
        "outcome": rows.outcome.name,
        "scale": "log" if rows.is_log else "natural",
        "n_simulations": int(n_simulations),
    }
    return table


def population_residuals(
    rows: Rows, simulated: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """ "pwres", "npde" and "pit" of all rows, each (row,), from simulations (K, row) before censoring."""
    y, lower, upper = rows.observed, rows.lower, rows.upper
    pit = ranks(y, np.clip(simulated, lower, upper), rng)
    if rows.is_log:
        with np.errstate(divide="ignore", invalid="ignore"):
            y, simulated, lower, upper = (np.log(v) for v in (y, simulated, lower, upper))
        lower = np.where(np.isnan(lower), -np.inf, lower)
    if rows.is_censored:
        y, simulated = complete(y, simulated, lower, upper, rng)
    pwres, others = decorrelated_by_subject(y, simulated, rows.subject)
    compared = pwres
    if rows.is_discrete:
        noise = rng.random((len(simulated) + 1, y.size))
        compared, others = decorrelated_by_subject(
            y + noise[0], simulated + noise[1:], rows.subject
        )
    return {"pwres": pwres, "npde": ndtri(ranks(compared, others, rng)), "pit": pit}


def _check_size(rows: Rows, n_simulations: int) -> None:
    counts = np.bincount(rows.subject, minlength=rows.subjects.size)
    most = int(counts.argmax())
    if n_simulations <= counts[most]:
        raise ValueError(
            f"n_simulations is {n_simulations}, but {rows.subject_dim} {rows.subjects[most]} has {counts[most]} rows, whose "
            "covariance needs more simulations than rows; take five times as many at least."
        )
    if n_simulations < 5 * counts[most]:
        warnings.warn(
            f"{n_simulations} simulations are few for the covariance of the {counts[most]} rows of {rows.subject_dim} "
            f"{rows.subjects[most]}; take n_simulations={5 * counts[most]} or more.",
            UserWarning,
            stacklevel=4,
        )
