"""Models with exact answers: each a PyMC model, and its marginal log-likelihood in NumPy and SciPy alone.

``CASES["theophylline"].build()`` is the model, ``.marginal(values)`` the exact log-likelihood at
natural values by name, ``.answer`` the maximum with standard errors. `benchmarks/accuracy/exact.py`
judges fits by them.
"""

from . import bolus, counts, linear, nested, oral, priors, student
from .case import Answer, Case

CASES = {
    case.name: case
    for family in (linear, oral, counts, bolus, student, nested, priors)
    for case in family.CASES
}

__all__ = ["CASES", "Answer", "Case"]
