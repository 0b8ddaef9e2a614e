"""Compiled log densities of a mixed model: one graph serves the E-step, the start and the modes."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import get_mode
from pytensor.gradient import NullTypeGradError
from pytensor.graph.replace import clone_replace, vectorize_graph
from pytensor.graph.traversal import ancestors

from pymc_saem.compat import observed_variables
from pymc_saem.saem.interpreted import INTERPRETED, has_python_only_ops
from pymc_saem.saem.model import MixedModel
from pymc_saem.saem.point import parameter_graph, value_graph
from pymc_saem.saem.sum_rows import SumRows

#: Gradients for optimizers. An E-step accepts densities from coarse solves; a line search would take their noise for slope,
#: and near the optimum a gradient at 1e-2 is mostly wrong.
GRADIENT_TOLERANCE = 1e-6
#: Checks such as "sigma > 0" look at all subjects at once: one failed solve would condemn the rest.
#: Without them a bad value gives NaN in its own subject, which the kernels count and reject.
_NO_CHECKS = "local_remove_check_parameter"


def substitution(mixed: MixedModel, phi, theta) -> dict:
    """Value variables of the model as graphs of phi (subject, phi) and theta (theta,)."""
    values = {model_value(mixed, e.name): value_graph(e, phi) for e in mixed.random_effects}
    values |= {model_value(mixed, p.name): parameter_graph(p, theta) for p in mixed.parameters}
    return values


def model_value(mixed: MixedModel, name: str):
    return mixed.model.rvs_to_values[mixed.model[name]]


def symbols(mixed: MixedModel):
    """Fresh symbols phi (subject, phi) and theta (theta,)."""
    phi = pt.tensor("phi", dtype="float64", shape=(mixed.n_subjects, mixed.n_phi))
    theta = pt.tensor("theta", dtype="float64", shape=(mixed.n_theta,))
    return phi, theta


def in_symbols(mixed: MixedModel, graphs: list, phi, theta) -> list:
    """Rewrite graphs over random variables or value variables as graphs of phi and theta."""
    graphs = mixed.model.replace_rvs_by_values(graphs)
    replacements = [(k, v.astype(k.dtype)) for k, v in substitution(mixed, phi, theta).items()]
    return clone_replace(graphs, replace=replacements, rebuild_strict=False)


def row_logps(mixed: MixedModel) -> list:
    """Log density of each row of each observed variable, as graphs of the model's value variables."""
    return mixed.model.logp(vars=observed_variables(mixed.model), sum=False)


def row_density(mixed: MixedModel):
    """Interpreted ``density(phi, theta)`` that lists the row log densities of each observed variable."""
    phi, theta = symbols(mixed)
    rows = [r.ravel() for r in in_symbols(mixed, row_logps(mixed), phi, theta)]
    f = pytensor.function([phi, theta], rows, mode=INTERPRETED.including(_NO_CHECKS), on_unused_input="ignore")
    return lambda phi, theta: [np.asarray(r) for r in f(phi, theta)]


@dataclass
class Densities:
    """Log likelihood of each subject, its gradient, and the statistics of the residual scales.

    Parameters
    ----------
    mixed : MixedModel
    residuals : list of (outcome index, graph builder)
        What each residual-scale rule needs summed over rows: a function of (phi, theta) that
        returns the squared standardized residuals of one outcome, (row,).
    mode : str or pytensor Mode
        How PyTensor compiles; Numba by default.
    """

    mixed: MixedModel
    residuals: list
    mode: object = "NUMBA"
    compile_seconds: float = field(default=0.0, init=False)
    _functions: dict = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self):
        return self.__dict__ | {"_functions": {}}  # compiled code does not travel between processes

    def likelihood(self, phi: np.ndarray, theta: np.ndarray):
        """Log likelihood and residual statistics of every subject and replicate.

        Parameters
        ----------
        phi : ndarray, shape (replicate, subject, phi)
        theta : ndarray, shape (theta,)

        Returns
        -------
        loglik : ndarray, shape (replicate, subject)
            NaN where a solve failed.
        residual : ndarray, shape (replicate, subject, residual)
            Sum over rows of squared residuals divided by (scale / sigma)^2.
        status : list of ndarray, each (replicate, subject)
            Status codes of each ODE in the model.
        """
        loglik, residual, *status = self.outputs(phi, theta)
        return loglik, residual, status

    def outputs(self, phi: np.ndarray, theta: np.ndarray):
        """The same as one sequence: log likelihood, residual statistics, status codes of each ODE."""
        return self._function("likelihood")(phi, theta)

    def derivative(self, phi: np.ndarray, theta: np.ndarray):
        """Log likelihood, residual statistics, gradient with respect to phi, status codes of each ODE, from one solve.

        The densities are those of ``likelihood`` up to rounding, at its tolerances, and the gradients theirs; ``gradient`` is
        for optimizers.
        """
        return self._function("derivative")(phi, theta)

    def compiled_likelihood(self, kind: str = "likelihood"):
        """``(f, others)``: Numba function ``f(phi, theta, *others)`` behind ``likelihood``; None in other modes of PyTensor.

        With ``kind="derivative"``, that behind ``derivative``.
        """
        function = self._function(kind)
        f = getattr(function.vm, "jit_fn", None)
        return None if f is None else (f, tuple(c.storage[0] for c in function.input_storage[2:]))

    def runner(self, walk, kind: str, phi: np.ndarray, n_evaluations: int):
        """``(walk, f, others, context)`` to run a compiled walk, or the same walk interpreted in other modes of PyTensor."""
        compiled = self.compiled_likelihood() if kind == "likelihood" else self.compiled_likelihood(kind)
        if compiled is None:
            return walk.py_func, self.outputs if kind == "likelihood" else self.derivative, (), nullcontext()
        return walk, *compiled, self.compiled_solves(phi, n_evaluations, kind)

    @contextmanager
    def compiled_solves(self, phi: np.ndarray, n_evaluations: int, kind: str = "likelihood"):
        """While ``compiled_likelihood`` is evaluated that often at such phi, without the global interpreter lock."""
        with ExitStack() as stack:
            for node in self._function(kind).maker.fgraph.apply_nodes:
                if hasattr(node.op, "compiled_calls"):
                    stack.enter_context(node.op.compiled_calls(phi.shape[0] * phi.shape[1], n_evaluations))
            yield

    def gradient(self, phi: np.ndarray, theta: np.ndarray):
        """Log likelihood (replicate, subject) with its gradients, from solves to ``GRADIENT_TOLERANCE``.

        Returns
        -------
        loglik : ndarray, shape (replicate, subject)
        d_phi : ndarray, shape (replicate, subject, phi)
            Derivative of each subject's log likelihood with respect to its own phi.
        d_theta : ndarray, shape (theta,)
            Derivative of the sum at fixed phi.
        """
        return self._function("gradient")(phi, theta)

    def warm_up(self, phi: np.ndarray, theta: np.ndarray) -> None:
        """Compile the E-step function now, so that its compilation is not counted as run time."""
        if "likelihood" not in self._functions:
            start = perf_counter()
            self.likelihood(phi, theta)
            self.compile_seconds += perf_counter() - start

    def _function(self, kind: str):
        if kind not in self._functions:
            self._functions[kind] = self._compile(kind)
        return self._functions[kind]

    def _compile(self, kind: str):
        mixed = self.mixed
        phi, theta = symbols(mixed)
        phi3 = pt.tensor("phi", dtype="float64", shape=(None, mixed.n_subjects, mixed.n_phi))
        loglik, residual, status = self._subject_graphs(phi, theta)
        if kind in ("likelihood", "derivative"):
            outputs = [loglik, residual, *status]
            if kind == "derivative":
                outputs = _solved_once(outputs)
            ranks = (2, 3, *(2 for _ in status))
            outputs = vectorize_graph(outputs, {phi: phi3})
            outputs = [self._with_replicates(out, phi3, ndim) for out, ndim in zip(outputs, ranks, strict=True)]
            if kind == "derivative":
                outputs.insert(2, _gradient_of(outputs[0], phi3))
        else:
            (loglik,) = vectorize_graph(_solved_tightly([loglik]), {phi: phi3})
            d_phi, d_theta = pt.grad(loglik.sum(), [phi3, theta], disconnected_inputs="ignore")
            outputs = [loglik, d_phi, d_theta]
        # A gradient runs some hundred times in a fit, which does not repay 30 s of compilation.
        is_compiled = kind != "gradient" and not has_python_only_ops(outputs)
        mode = get_mode(self.mode) if is_compiled else INTERPRETED
        mode = mode.including(_NO_CHECKS)
        f = pytensor.function([phi3, theta], outputs, mode=mode, on_unused_input="ignore")
        f.trust_input = True  # callers pass float64 arrays of the right rank; checking costs as much as a solve
        return f

    @staticmethod
    def _with_replicates(out, phi3, ndim: int):
        """Give the replicate axis to an output that phi does not reach."""
        if out.ndim == ndim:
            return out
        return pt.broadcast_to(out, (phi3.shape[0], *(out.shape[i] for i in range(out.ndim))))

    def _subject_graphs(self, phi, theta):
        mixed = self.mixed
        rows = [r.ravel() for r in in_symbols(mixed, row_logps(mixed), phi, theta)]
        loglik = sum(_per_subject(mixed, j, row) for j, row in enumerate(rows))
        columns = [_per_subject(mixed, j, build(phi, theta)) for j, build in self.residuals]
        residual = pt.stack(columns, axis=-1) if columns else pt.zeros((mixed.n_subjects, 0))
        status = [node.outputs[1] for node in ode_nodes([loglik])]
        return loglik, residual, status


def ode_nodes(graphs) -> list:
    """Nodes that solve differential equations, found by their protocol: this layer does not import ``ode``."""
    nodes = {v.owner for v in ancestors(graphs) if v.owner is not None}
    return [node for node in nodes if getattr(node.op, "is_ode_solution", False)]


def _solved_tightly(graphs: list) -> list:
    """The graphs with differential equations solved to ``GRADIENT_TOLERANCE`` at least."""
    tight = {}
    for node in ode_nodes(graphs):
        rtol, atol = (min(tolerance, GRADIENT_TOLERANCE) for tolerance in (node.op.rtol, node.op.atol))
        tight |= zip(node.outputs, node.op.with_tolerances(rtol, atol)(*node.inputs), strict=True)
    return clone_replace(graphs, tight) if tight else graphs


def _gradient_of(loglik, phi):
    try:
        return pt.grad(loglik.sum(), phi, disconnected_inputs="ignore")
    except (NotImplementedError, AttributeError, NullTypeGradError) as error:
        raise ValueError(
            "The kernels 'mala' and 'independence' need the gradient of the log likelihood, and an operation of this model has "
            f"none ({error}). Leave them out of the kernel shares."
        ) from error


def _solved_once(graphs: list) -> list:
    """The graphs with operations whose gradient needs no second solve, where there are such."""
    nodes = [node for node in ode_nodes(graphs) if hasattr(node.op, "with_derivatives")]
    once = {node: node.op.with_derivatives()(*node.inputs) for node in nodes}
    pairs = {old: new for node in nodes for old, new in zip(node.outputs, once[node], strict=False)}
    return clone_replace(graphs, pairs) if pairs else graphs


def _per_subject(mixed: MixedModel, outcome: int, rows):
    subject = mixed.outcomes[outcome].row_subject
    return SumRows(mixed.n_subjects)(rows, subject)
