"""fit_saem: the SAEM step method, and everything after the estimate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from time import perf_counter
from typing import Any

import numpy as np
import pymc as pm
from pymc.initial_point import make_initial_point_fn

from pymc_saem.arguments import check_count, check_types, random_generator
from pymc_saem.compat import InferenceData
from pymc_saem.model.density.point_map import initial_point
from pymc_saem.saem.report.assessment import check_assessment, check_methods
from pymc_saem.saem.report.finish import Finisher
from pymc_saem.saem.report.names import refuse_names
from pymc_saem.saem.run.chains import Job, run_chains
from pymc_saem.saem.run.checkpoint import Checkpoint, Writer, as_checkpoint
from pymc_saem.saem.run.options import Options, check_initvals
from pymc_saem.saem.run.progress import Progress
from pymc_saem.saem.run.resume import Resumable, check_same_model
from pymc_saem.saem.run.stages import CtrlC
from pymc_saem.saem.run.step import SAEM
from pymc_saem.saem.start.pooled import default_exploration


def fit_saem(
    model: pm.Model | None = None,
    *,
    random_effects: Sequence[str] | None = None,
    objective: str = "map",
    n_explore: int | str = "auto",
    n_smooth: int | None = None,
    n_transitions: int = 80,
    n_replicates: int | str = "auto",
    kernel: Mapping[str, float] | str = "auto",
    chains: int = 1,
    cores: int = 1,
    draws: int | None = None,
    fixed: Mapping[str, Any] | None = None,
    initvals: Mapping[str, Any] | None = None,
    n_starts: int | str = "auto",
    step_size_exponent: float = 0.75,
    annealing: float = 0.95,
    minibatch: float = 1.0,
    tolerance: float | None = None,
    likelihood: str | None = "default",
    standard_errors: str | None = "default",
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
    callback: Callable | None = None,
    resume: InferenceData | str | PathLike | None = None,
    extend: int = 0,
    checkpoint: str | PathLike | Checkpoint | None = None,
    compile_kwargs: dict | None = None,
) -> InferenceData:
    """Estimate a nonlinear mixed-effects model by SAEM.

    Parameters
    ----------
    model : pymc.Model, optional
        The model in context by default.
    random_effects : sequence of str, optional
        Names of the random effects, with an axis of the subjects. By default they are the free
        variables whose distribution depends on other free variables, and that nothing else depends
        on.
    objective : {"map", "ml"}, default "map"
        "map" maximizes p(y | theta) p(theta) with priors on the natural scale, as ``pm.find_MAP``
        does; flat priors give maximum likelihood. "ml" ignores the priors. (Monolix, saemix and
        nlmixr2 have "ml" only; Monolix has priors on request.)
    n_explore : int or "auto"
        Length of the exploratory phase (step size 1, annealing). A longer phase anneals the
        residual variances more slowly, which helps network models reach better optima. "auto": 600
        if the random effects are network weights or outnumber a typical subject's rows; otherwise
        200, because gradient fits have found the region. (Monolix ``nbexploratoryiterations`` 500
        at most, saemix ``nbiter.saemix[1]`` 300, nlmixr2 ``nBurn`` 200.)
    n_smooth : int, optional
        Length of the smoothing phase (decreasing step sizes, which average the noise away), 350 by
        default. Upper limit; the run may stop earlier, see ``tolerance``. (Monolix
        ``nbsmoothingiterations`` 200, saemix ``nbiter.saemix[2]`` 100, nlmixr2 ``nEm`` 300.)
    n_transitions : int, default 80
        Proposals per subject and replicate in one iteration; each costs one solve. With 3 random
        effects, 80 bring the Monte-Carlo error of the variances below 2 % at the default
        iterations; with 28, they are about one sweep and its blocks. (saemix ``nbiter.mcmc``,
        nlmixr2 ``nmc`` and ``nu`` count sweeps.)
    n_replicates : int or "auto"
        Copies of phi per subject; "auto" makes n_subjects * n_replicates at least 50.
        (Monolix and saemix ``nb.chains``.)
    kernel : mapping or "auto"
        Share of the transitions of "prior", "coordinate" and "block" proposals (saemix
        ``nbiter.mcmc``), and of those that use gradients: "mala" (Langevin) and "independence"
        (f-SAEM: around each subject's mode, for few random effects).
    chains : int, default 1
        Independent complete runs: the first from the initial values, the others from dispersed
        ones. The run with the best score is reported, with a warning if they disagree.
    cores : int, default 1
        Processes for the chains. The solves of one chain use threads in any case.
    draws : int, optional
        Minimum number of conditional draws per chain in the posterior group, 250 by default. If
        they are too few (R-hat above 1.05 or an effective sample size below 100 for an effect of
        some subject, or for the log-likelihoods of subjects with network weights), chains are
        extended, up to an eighth of the solves of the fit; a chain keeps at most 500 draws, or
        twice ``draws``. (Monolix: the conditional distribution task; saemix
        ``conddist.saemix(nsamp=)``.)
    fixed : mapping, optional
        Parameters fixed at a value on the natural scale: ``{"sigma": 0.5}``; NaN marks entries of
        an array that are estimated.
    initvals : mapping, optional
        Starting values by name, on the natural scale, as in ``pm.sample``.
    n_starts : int or "auto"
        Gradient fits with every subject at its mean; the best one starts the run. 0 starts at the
        initial values. "auto": 12, or none if the random effects are network weights or outnumber a
        typical subject's rows: there such a fit leads to worse optima (measured in
        ``saem/start/pooled.py``).
    step_size_exponent : float, default 0.75
        Exponent a of the step sizes gamma_k = k^-a of the smoothing phase, in (1/2, 1]. (saemix
        fixes 1; Monolix ``smoothingalpha`` 0.7.)
    annealing : float, default 0.95
        Smallest factor by which a variance of random effects may fall per iteration in the
        exploratory phase, in the first 70 % of which it never falls below its start; a residual
        variance may fall by a factor of 400 in the whole of it. 0: no annealing. (Monolix
        ``tauomega``, saemix ``alpha.sa`` 0.97.)
    minibatch : float, default 1
        Share of the subjects whose random effects move in an iteration; the others keep theirs,
        which enter the statistics unchanged (Kuhn, Matias & Rebafka 2020). For thousands of
        subjects: with 0.1, an iteration costs a tenth of the solves.
    tolerance : float, optional
        The smoothing phase ends when, three times in a row, no parameter has moved by more than
        this (0.05 by default) between the two halves of its last half, Monte-Carlo error included,
        in units of the standard error that it would have if the random effects were known. 0 runs
        all of ``n_smooth``. (Monolix stops by its own criteria; saemix and nlmixr2 run all
        iterations.)
    likelihood : {"auto", "quadrature", "importance", "annealed", "linearization", "laplace"} or None
        How the marginal log-likelihood is computed after the estimate, for -2LL, AIC and BIC.
        "quadrature": adaptive Gauss-Hermite, for up to 3 random effects; "importance": importance
        sampling from a t distribution with the conditional moments, or a mixture of them where one
        does not cover the conditional distribution, until the Monte-Carlo error of -2LL is below
        0.1; "annealed": annealed importance sampling, for many random effects of any distribution,
        such as network weights. "auto", the default, takes the first one that is reliable; None:
        none. (Monolix: importance sampling; saemix ``ll.is``, ``ll.gq``; nlmixr2 ``logLik`` by
        quadrature.) Two approximations cost next to nothing, and have no error estimate:
        "linearization" of the predictions around the conditional modes, for Normal and LogNormal
        outcomes with Gaussian random effects (Monolix "linearization"; saemix ``ll.lin``, around
        the means; nlmixr2 FOCEi, which is the same if the residual scale does not depend on the
        prediction); and "laplace", by the curvature at the modes, for any outcome (nlmixr2
        ``laplace``). -2LL of theophylline is off by 1.3 and 0.4, with a proportional error (30
        subjects) by 4.7 and 0.8: compare such values with others of the same method only.
    standard_errors : {"auto", "louis", "score", "linearization"} or None
        Fisher information of the estimates: "louis", the observed one by Louis' formula;
        "linearization", the expected one of the model with linearized predictions, for the same
        models as above; "score", from first derivatives, which needs many subjects per parameter.
        "auto", the default, uses the first of these that works, "score" only with 5 subjects per
        parameter; None: none. (Monolix: stochastic approximation of Louis' formula, or
        linearization; saemix ``fim`` and nlmixr2 ``linFim`` linearize.)
    random_seed : int, numpy.random.Generator, optional
        Same seed, same result, for any number of threads and cores.
    progressbar : bool, default True
        Shown in terminals and notebooks only. Elsewhere the logger "pymc_saem" reports the same at
        level INFO.
    callback : callable, optional
        ``callback(chain, iteration, estimates, stats)`` after each iteration, with the natural
        estimates by name; with ``cores=1`` only.
    resume : arviz.InferenceData, xarray.DataTree or path, optional
        A fit of the same model, interrupted or finished, or its file: continues the run with its
        original options; results are bit-identical to an uninterrupted run. ``n_smooth``,
        ``tolerance``, ``draws``, ``likelihood`` and ``standard_errors`` may be given again;
        otherwise they are those of the run. (saemix and nlmixr2 restart from the last estimates.)
    extend : int, default 0
        With ``resume``: number of additional iterations of every chain, regardless of the stopping
        rule.
    checkpoint : path or Checkpoint, optional
        A netCDF file to which the running fit is written every ten seconds (or at the interval of a
        :class:`Checkpoint`), and the whole result at the end. ``ps.load(path)`` reads it at any
        time; ``resume=path`` continues after a crash.
    compile_kwargs : dict, optional
        ``{"mode": ...}`` for PyTensor.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Groups ``posterior`` (phi drawn from p(phi | y, theta_hat), theta from N(theta_hat, I^-1) on
        the unconstrained scale, constant without standard errors), ``saem_trace``, ``population``,
        ``individual``, ``sample_stats``, ``observed_data``, ``constant_data``, ``saem_state`` (what
        ``resume`` needs).

    Raises
    ------
    UnsupportedModelError
        The model is not one that SAEM can estimate; the message names the part and the reason.
    ValueError
        An option is out of range, or ``resume`` belongs to a different model or has other options;
        the message names it, and what was expected.

    See Also
    --------
    pymc_saem.summarize : How the model is read; it runs no iterations.
    pymc_saem.summary : The estimates as a table.
    pymc_saem.diagnostics : What to check afterwards.
    pymc_saem.SAEM : The iteration as a PyMC step method.
    pymc_saem.save : Writes a fit to a file.

    Examples
    --------
    >>> with model:
    ...     idata = ps.fit_saem(random_seed=21)
    >>> list(ps.summary(idata).index)
    ['log_ka', 'omega_ka', 'log_V', 'omega_V', 'log_CL', 'omega_CL', 'sigma']
    """
    arguments = locals()
    check_types("fit_saem", arguments)
    began = perf_counter()
    model = pm.modelcontext(model)
    schedule = as_checkpoint(checkpoint)
    before = _resumed(resume, initvals, random_seed, extend)
    if before is None:
        options = Options.of(arguments)
    else:
        options = before.options.merge(arguments, fit_saem.__kwdefaults__ or {})
    options.check(cores, callback)
    if before is not None and extend:
        options = before.extended(options, extend)
    check_methods(options.likelihood, options.standard_errors)
    point = _starting_point(model, initvals)
    step = SAEM(model=model, compile_kwargs=compile_kwargs, **options.for_step())
    engine = step.engine
    refuse_names(engine.mixed, [name for name in step.stats_dtypes_shapes if name != "tune"])
    check_assessment(engine, options.likelihood, options.standard_errors)
    if isinstance(options.n_explore, str):  # "auto"
        options = replace(options, n_explore=default_exploration(engine.mixed))
    state = Resumable.new(options, random_generator(random_seed))
    if before is not None:
        check_same_model(engine, before.snapshots)
        state.random, state.snapshots, state.seconds = (
            before.random,
            before.snapshots,
            before.seconds,
        )
    job = Job(
        step,
        point,
        int(options.n_explore),
        options.n_smooth,
        options.draws,
        options.tolerance,
        state.begun(),
        extend,
    )
    finisher = Finisher(engine, job, state, options, began)
    writer = None if schedule is None else Writer(schedule, state.snapshots, finisher.build)
    rngs, after = state.generators()
    with CtrlC() as ctrl_c:
        with Progress(engine, job.n_explore, job.n_smooth, len(rngs), progressbar) as progress:

            def watch(
                chain: int, iteration: int, theta: np.ndarray, stats: Mapping[str, Any]
            ) -> None:
                progress.update(chain, iteration, theta, stats)
                if callback is not None:
                    callback(chain, iteration, engine.points.natural_theta(theta), stats)

            runs = run_chains(job, rngs, cores, watch, writer, ctrl_c, progress.announce)
            idata, messages = finisher.finish(runs, after, writer, ctrl_c, progress.announce)
        if ctrl_c.is_waiting:
            messages.append(
                "Ctrl-C was pressed while the result was assembled; the result is complete."
            )
        _warn(messages, idata)
        return idata


def _warn(messages: list[str], idata: InferenceData) -> None:
    """Show messages to the user; where warnings are errors, the fit is in the error."""
    errors = []
    for message in messages:
        try:
            warnings.warn(message, stacklevel=3)
        except Warning as error:
            errors.append(error)
    if errors:
        errors[0].__dict__["fit"] = idata
        errors[0].add_note(
            "The fit is complete: it is the attribute 'fit' of this warning, which was turned into an error."
        )
        raise errors[0]


def _resumed(
    resume: Any, initvals: Mapping | None, random_seed: Any, extend: int
) -> Resumable | None:
    """The run that this one resumes, if it does."""
    check_count("extend", extend, 0)
    if resume is None:
        if extend:
            raise ValueError(
                f"extend is {extend}, but there is no run to extend; give one with resume=."
            )
        return None
    before = Resumable.read(resume)
    if initvals is not None or random_seed is not None:
        raise ValueError(
            "A resumed run continues from its stored state and random numbers: do not give initvals or random_seed."
        )
    return before


def _starting_point(model: pm.Model, initvals: Mapping[str, Any] | None) -> dict:
    if not initvals:
        return initial_point(model)
    check_initvals(model, initvals)
    point = make_initial_point_fn(model=model, overrides=dict(initvals), return_transformed=True)(0)
    for name, value in point.items():
        if not np.all(np.isfinite(value)):
            raise ValueError(
                f"initvals give {name} = {value}, which is not finite on the unconstrained scale."
            )
    return point
