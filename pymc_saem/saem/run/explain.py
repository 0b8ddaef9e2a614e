"""Errors of the algebra in words."""

from __future__ import annotations

import numpy as np


def explained(error: BaseException) -> str:
    """What an error means for a fit: the name of a library's exception does not help the user."""
    if isinstance(error, np.linalg.LinAlgError):
        return (
            f"a matrix has no inverse or no square root ({error}): a variance is 0, infinite or not a number, or the data do not "
            "distinguish some parameters; check the estimates, and the scales of data and starting values"
        )
    if isinstance(error, ZeroDivisionError | OverflowError):
        return f"a number became 0 or infinite ({error}); check the estimates, and the scales of data and starting values"
    return f"{type(error).__name__}: {error}"
