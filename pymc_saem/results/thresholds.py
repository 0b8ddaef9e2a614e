"""Numbers above or below which a fit should be looked at, and words of its notes; warnings and :func:`diagnostics` share them."""

#: Rough standard errors by which an estimate may have moved at the end, or chains may differ.
LARGE = 0.3
#: Distance from a bound, as a share of that at the start, below which a parameter is on it.
AT_BOUND = 1e-3
#: Shrinkage above which conditional modes say more of the population than of the subject (Savic &
#: Karlsson 2009).
SHRUNKEN = 0.5
#: Shrinkage of residuals above which they look better than the model is (Savic & Karlsson 2009: 0.2
#: to 0.3).
RESIDUALS_SHRUNKEN = 0.3
#: Share of the searches for a mode that should end in it.
LEAST_AGREEMENT = 0.5
#: Smallest acceptance at which a random walk still moves.
SMALLEST_ACCEPTANCE = 0.1
#: Share of the solves of a fit that may fail before it says so.
LARGEST_FAILED = 0.05
#: Rank-normalized split R-hat up to which chains of conditional draws agree. The 1.01 of Vehtari et
#: al. (2021) is for one posterior; the largest of a hundred subjects times effects would miss it by
#: chance.
LARGEST_RHAT = 1.05
#: Effective conditional draws of a subject's effect: the error of its mean is then a tenth of its
#: standard deviation.
LEAST_ESS = 100.0
#: Pareto k above which the mean of importance weights has no error that its draws could reveal
#: (Vehtari et al. 2024).
LARGEST_K = 0.7
#: Condition number of the correlations of the estimates, above which some can hardly be
#: distinguished.
LARGEST_CONDITION = 1000.0
#: Monte-Carlo standard error of -2 log-likelihood above which differences of AIC and BIC between
#: models may be noise.
LARGEST_LOGLIK_ERROR = 0.5
#: Change of a subject's log-likelihood with the tolerances of its solves, above which draws follow
#: the error of the solver.
LARGEST_SOLVER_ERROR = 1.0

#: How the sentences of a fit begin that say what its data do not determine; the table of verdicts
#: finds them by these words.
HARDLY_DETERMINED, NO_INFORMATION = (
    "the data hardly determine",
    "the data contain no information on",
)
NOT_DETERMINED = (HARDLY_DETERMINED, NO_INFORMATION)
