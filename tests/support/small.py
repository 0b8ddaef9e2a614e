"""Sizes at which code of pages and notebooks shows that it runs; at their own, it takes minutes."""

SMALL_FIT = {
    "n_explore": 3,
    "n_smooth": 3,
    "n_transitions": 10,
    "n_starts": 0,
    "draws": 4,
    "progressbar": False,
}
SMALL_RUN = {"n_explore": 2, "n_smooth": 2}
#: Options of ``pm.sample``.
SMALL_SAMPLE = {
    "tune": 3,
    "draws": 3,
    "chains": 1,
    "cores": 1,
    "progressbar": False,
    "compute_convergence_checks": False,
}
#: Options by function of the package; of ``fit_saem`` see above.
SMALL = {
    "bootstrap": {"n": 2, **SMALL_RUN},
    "cross_validate": SMALL_RUN,
    "check_restart": SMALL_RUN,
    "profile_likelihood": {"n_points": 2, **SMALL_RUN},
    "predict": {"n_draws": 4},
    "residuals": {"n_simulations": 100},
    "vpc": {"n_simulations": 20},
    "plot_residuals": {"n_simulations": 100},
    "plot_vpc": {"n_simulations": 20},
}
#: Cheap where nobody asks for more, but there: machine code and sampled likelihoods take seconds
#: for every model.
CHEAP = {
    "likelihood": "laplace",
    "standard_errors": "score",
    "compile_kwargs": {"mode": "FAST_COMPILE"},
}
#: Left out where nobody asks for it: compiling it takes seconds for every model.
WITHOUT = {"likelihood": None, "standard_errors": None, "compile_kwargs": {"mode": "FAST_COMPILE"}}


def smaller(function, left_out=(), **small):
    """The function with few of everything; ``left_out`` are options that count where the caller says nothing."""

    def call(*args, **options):
        if options.get("resume") is not None:  # what a resumed run was, it stays
            return function(*args, **dict(left_out) | options | {"progressbar": False})
        return function(*args, **dict(left_out) | options | small)

    return call
