"""A model with a known answer: how it is built, its exact marginal log-likelihood, and the maximum of that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.optimize import minimize


@dataclass(frozen=True)
class Answer:
    """The exact maximum, flat over all entries of all parameters.

    Attributes
    ----------
    estimate, standard_error : array, shape (entry,)
        Natural scale; standard errors from the Hessian of what is maximized.
    objective : float
        Marginal log-likelihood at the maximum, plus the log prior in a case that has one.
    """

    estimate: np.ndarray
    standard_error: np.ndarray
    objective: float


@dataclass(frozen=True)
class Case:
    """A PyMC model, and an evaluator of its marginal log-likelihood that shares no code with it.

    Attributes
    ----------
    name : str
    build : callable
        Returns the model, with starting values that a user might give. Priors are flat where there
        is no ``log_prior`` (otherwise ``options`` says ``objective="ml"``).
    marginal : callable
        ``marginal(values)``: the log-likelihood, random effects integrated out; NumPy and SciPy
        only.
    starts : tuple of dict
        Natural values by parameter name, from which the maximum is searched; the first gives names
        and shapes.
    kinds : dict
        Parameters that are not real numbers: "positive", "ordered", or "cholesky" (packed rows of a
        factor).
    log_prior : callable, optional
        ``log_prior(values)`` on the natural scale, for cases whose answer is the mode.
    joint : callable, optional
        ``joint(values, phi)``: log p(y_i, phi_i), shapes (..., subject, d) -> (..., subject), of
        cases whose marginal is a quadrature.
    options : dict
        Of ``fit_saem``.
    stored : Answer, optional
        The answer where finding it takes more than a few seconds; `find` computes it anew.
    """

    name: str
    build: Callable = field(repr=False)
    marginal: Callable = field(repr=False)
    starts: tuple
    kinds: Mapping = field(default_factory=dict)
    log_prior: Callable | None = field(default=None, repr=False)
    joint: Callable | None = field(default=None, repr=False)
    options: Mapping = field(default_factory=dict)
    stored: Answer | None = field(default=None, repr=False)

    @cached_property
    def answer(self) -> Answer:
        return self.find() if self.stored is None else self.stored

    def objective(self, values) -> float:
        """What the fit should maximize."""
        values = {name: np.asarray(value, float)[()] for name, value in values.items()}
        return self.marginal(values) + (self.log_prior(values) if self.log_prior else 0.0)

    @property
    def labels(self) -> list[str]:
        """Parameter and index of each entry of the answer."""
        found = []
        for name, value in self.starts[0].items():
            shape = np.shape(value)
            found += [f"{name}{list(i)}" for i in np.ndindex(shape)] if shape else [name]
        return found

    def flat(self, values) -> np.ndarray:
        """Natural values by name, as one vector (entry,)."""
        return np.concatenate(
            [np.ravel(np.asarray(values[name], float)) for name in self.starts[0]]
        )

    def by_name(self, flat) -> dict:
        """The inverse of :meth:`flat`."""
        values, at = {}, 0
        for name, like in self.starts[0].items():
            size = np.size(like)
            values[name] = np.reshape(flat[at : at + size], np.shape(like))[()]
            at += size
        return values

    def find(self, n_jitters: int = 2) -> Answer:
        """Maximize from every start and from a few jittered ones; refuse when they do not agree on the best."""
        rng = np.random.default_rng(1)
        begins = [self.to_free(start) for start in self.starts]
        begins += [begins[0] + 0.2 * rng.standard_normal(begins[0].size) for _ in range(n_jitters)]
        loss = self._loss
        ends = sorted((_descend(loss, x) for x in begins), key=loss)
        agree = sum(loss(x) < loss(ends[0]) + 1e-4 for x in ends)
        if agree < 2:
            raise RuntimeError(
                f"{self.name}: only one of {len(ends)} searches reached {-loss(ends[0]):.5f}."
            )
        return self.refine(self.from_free(ends[0]))

    def refine(self, flat) -> Answer:
        """The maximum near natural values (entry,), by Newton steps, with standard errors from the last Hessian."""
        loss = self._loss
        best = _polish(loss, self.to_free(self.by_name(flat)))
        covariance = np.linalg.inv(_hessian(loss, best))
        moves = 1e-5 * np.eye(best.size)
        slope = np.stack(
            [(self.from_free(best + h) - self.from_free(best - h)) / 2e-5 for h in moves], axis=1
        )
        error = np.sqrt(np.diag(slope @ covariance @ slope.T))
        return Answer(self.from_free(best), error, -loss(best))

    def _loss(self, free) -> float:
        value = self.objective(self.by_name(self.from_free(free)))
        return -value if np.isfinite(value) else 1e10

    def to_free(self, values) -> np.ndarray:
        """Natural values by name, as a vector (entry,) without bounds."""
        return np.concatenate(
            [
                _to_free(np.ravel(np.asarray(values[name], float)), self.kinds.get(name))
                for name in self.starts[0]
            ]
        )

    def from_free(self, free) -> np.ndarray:
        """Natural values (entry,) of a vector without bounds."""
        parts, at = [], 0
        for name, like in self.starts[0].items():
            parts.append(_from_free(free[at : at + np.size(like)], self.kinds.get(name)))
            at += np.size(like)
        return np.concatenate(parts)


def _diagonal(size):
    """Places of the diagonal in a packed lower triangle of ``size`` entries."""
    n = int(round((np.sqrt(8 * size + 1) - 1) / 2))
    return np.cumsum(np.arange(1, n + 1)) - 1


def _to_free(values, kind):
    values = values.copy()
    if kind == "positive":
        values = np.log(values)
    elif kind == "ordered":
        values[1:] = np.log(np.diff(values))
    elif kind == "cholesky":
        values[_diagonal(values.size)] = np.log(values[_diagonal(values.size)])
    return values


def _from_free(free, kind):
    free = np.array(free)
    if kind == "positive":
        free = np.exp(free)
    elif kind == "ordered":
        free = free[0] + np.concatenate([[0.0], np.cumsum(np.exp(free[1:]))])
    elif kind == "cholesky":
        free[_diagonal(free.size)] = np.exp(free[_diagonal(free.size)])
    return free


def _scale(x):
    return 1e-4 * np.maximum(1.0, np.abs(x))


def _gradient(loss, x):
    steps = np.diag(_scale(x))
    return np.array([(loss(x + h) - loss(x - h)) / (2 * h.sum()) for h in steps])


def _hessian(loss, x):
    """Central differences; steps of 0.003 of the value leave seven digits of a log-likelihood of 1000."""
    steps = np.diag(30 * _scale(x))
    found, middle = np.zeros((x.size, x.size)), loss(x)
    for i, h in enumerate(steps):
        found[i, i] = (loss(x + h) - 2 * middle + loss(x - h)) / h.sum() ** 2
        for j in range(i):
            k = steps[j]
            mixed = loss(x + h + k) - loss(x + h - k) - loss(x - h + k) + loss(x - h - k)
            found[i, j] = found[j, i] = mixed / (4 * h.sum() * k.sum())
    return found


def _descend(loss, x):
    return minimize(
        loss, x, jac=lambda at: _gradient(loss, at), method="BFGS", options={"gtol": 1e-4}
    ).x


def _polish(loss, x, n_steps: int = 5):
    """Newton steps from a point near the minimum; BFGS may have stopped at the noise of its line search."""
    for _ in range(n_steps):
        trial = x - np.linalg.solve(_hessian(loss, x), _gradient(loss, x))
        gain = loss(x) - loss(trial)
        x = trial if gain > 0 else x
        if gain < 1e-8:
            break
    return x
