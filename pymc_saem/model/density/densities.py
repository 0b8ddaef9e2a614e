"""Compiled log densities of a mixed model: one graph serves the E-step, the start and the modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pymc.logprob.basic import transformed_conditional_logp
from pytensor.compile.mode import Mode, get_mode
from pytensor.gradient import NullTypeGradError
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_saem.compat import observed_variables
from pymc_saem.model.density.reused import compiled_for
from pymc_saem.model.density.symbols import in_symbols, symbols
from pymc_saem.model.density.terms import Scored, SummedTerm
from pymc_saem.model.graph.gradient import gradients
from pymc_saem.model.graph.interpreted import INTERPRETED, has_python_only_ops
from pymc_saem.model.graph.solves import ode_nodes, solved_once, solved_to
from pymc_saem.model.graph.sum_rows import sum_rows
from pymc_saem.model.mixed_model import MixedModel, RandomEffect

#: Gradients for optimizers. An E-step accepts densities from coarse solves; a line search would
#: take their noise for slope, and near the optimum a gradient at 1e-2 is mostly wrong.
GRADIENT_TOLERANCE = 1e-6
#: Checks such as "sigma > 0" cover all subjects at once: one failed solve would condemn the rest.
#: Without them a bad value gives NaN in its own subject, which the kernels count and reject.
NO_CHECKS = "local_remove_check_parameter"


def row_logps(mixed: MixedModel) -> list[TensorVariable]:
    """Log density of each row of each observed variable, as graphs of the model's value variables and of symbols of cuts."""
    model, observed = mixed.model, observed_variables(mixed.model)
    images = [image for b in mixed.blocks if (image := b.effects[0].image) is not None]
    cuts: dict[Variable, Variable] = {
        cut.variable: cut.symbol for image in images for cut in image.cuts
    }
    if not cuts or set(cuts) & set(
        ancestors([v for rv in model.free_RVs for v in rv.owner.inputs])
    ):
        return model.logp(vars=observed, sum=False)
    # The symbols go in first: PyMC's densities are rewritten copies, in which a cut may not be
    # found again.
    rows = graph_replace(observed, cuts, strict=False)
    values = {rv: value for rv, value in model.rvs_to_values.items() if rv not in observed}
    values |= {row: model.rvs_to_values[rv] for row, rv in zip(rows, observed, strict=True)}
    transforms = model.rvs_to_transforms
    return transformed_conditional_logp(
        rows, rvs_to_values=values, rvs_to_transforms=transforms, jacobian=False
    )


def effect_logp(mixed: MixedModel, effect: RandomEffect) -> TensorVariable:
    """Log density of a random effect up to terms without parameters, as a graph of the model's value variables, (unit, ...).

    Of the effects that share an affine image, the first has the logarithm of its volume.
    """
    (logp,) = mixed.model.logp(vars=[mixed.model[effect.name]], sum=False)
    logp = (
        pt.moveaxis(logp, effect.axis, 0).reshape((effect.n_units, -1))
        if logp.ndim != 1
        else logp[:, None]
    )
    if (image := effect.image) is None or image.latents[0].rv is not mixed.model[effect.name]:
        return logp
    (volume,) = mixed.model.replace_rvs_by_values([image.log_volume(image.law)])
    return logp.sum(axis=1) - volume.sum(axis=1)  # the density of mu + omega * eta


def row_density(mixed: MixedModel) -> Callable[[np.ndarray, np.ndarray], list[np.ndarray]]:
    """Interpreted ``density(phi, theta)`` that lists the row log densities of each observed variable."""
    phi, theta = symbols(mixed)
    rows = [r.ravel() for r in in_symbols(mixed, row_logps(mixed), phi, theta)]
    f = pytensor.function(
        [phi, theta], rows, mode=INTERPRETED.including(NO_CHECKS), on_unused_input="ignore"
    )
    return lambda phi, theta: [np.asarray(r) for r in f(phi, theta)]


@dataclass
class Densities:
    """Log likelihood of each subject, its gradient, and the statistics of the residual scales.

    The densities of random effects that are not Gaussian are part of the likelihood.

    Parameters
    ----------
    mixed : MixedModel
    residuals : sequence of SummedTerm
        What each scale needs summed over rows or units: a function of (phi, theta) that returns
        their squared standardized residuals, with the subject of each as ``row_subject``.
    mode : str or pytensor Mode
        How PyTensor compiles; Numba by default.
    tolerance : float
        Largest tolerance of differential equations in ``likelihood``; by default the model's own.
    """

    mixed: MixedModel
    residuals: Sequence[SummedTerm]
    mode: object = "NUMBA"
    tolerance: float = np.inf
    compile_seconds: float = field(default=0.0, init=False)
    _functions: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    # a copy in another process, or in a job for one
    _is_copy: bool = field(default=False, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # compiled code does not travel between processes
        return self.__dict__ | {
            "_functions": {},
            "_is_copy": True,
        }

    def solved_tightly(self) -> Densities:
        """These densities with solves at ``GRADIENT_TOLERANCE``; itself if tighter solves change nothing."""
        if "tight" not in self._functions:
            loglik, _, _ = self._subject_graphs(*symbols(self.mixed))
            worst = max(
                [max(node.op.rtol, node.op.atol) for node in ode_nodes([loglik])], default=0.0
            )
            is_tight = min(worst, self.tolerance) <= GRADIENT_TOLERANCE
            # Interpreted: it serves large batches only, whose solves take as long in any mode of
            # PyTensor.
            tight = Densities(self.mixed, self.residuals, INTERPRETED, GRADIENT_TOLERANCE)
            self._functions["tight"] = self if is_tight else tight
        return self._functions["tight"]

    def likelihood(
        self, phi: np.ndarray, theta: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
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

    def outputs(self, phi: np.ndarray, theta: np.ndarray) -> Sequence[np.ndarray]:
        """Outputs as one sequence: log likelihood, residual statistics, status codes of each ODE."""
        return self._function("likelihood")(phi, theta)

    def outputs_quietly(self, phi: np.ndarray, theta: np.ndarray) -> Sequence[np.ndarray]:
        """``outputs`` without reports of failed solves: for points that were not chosen to have a solution."""
        with self._silenced("likelihood"):
            return self.outputs(phi, theta)

    def derivative(self, phi: np.ndarray, theta: np.ndarray) -> Sequence[np.ndarray]:
        """Log likelihood, residual statistics, gradient with respect to phi, status codes of each ODE, from one solve.

        The densities are those of ``likelihood`` up to rounding, at its tolerances, and the
        gradients theirs; ``gradient`` is for optimizers.
        """
        with self._silenced("derivative"):
            return self._function("derivative")(phi, theta)

    def compiled_likelihood(
        self, kind: str = "likelihood"
    ) -> tuple[Callable[..., Any], tuple] | None:
        """``(f, others)``: Numba function ``f(phi, theta, *others)`` behind ``likelihood``; None in other modes of PyTensor.

        With ``kind="derivative"``, that behind ``derivative``.
        """
        function = self._function(kind)
        f = getattr(function.vm, "jit_fn", None)
        return None if f is None else (f, tuple(c.storage[0] for c in function.input_storage[2:]))

    def runner(
        self, walk: Any, kind: str, phi: np.ndarray, n_evaluations: int
    ) -> tuple[Callable[..., Any], Callable[..., Any], tuple, AbstractContextManager]:
        """``(walk, f, others, context)`` to run a compiled walk, or the same walk interpreted in other modes of PyTensor."""
        compiled = (
            self.compiled_likelihood() if kind == "likelihood" else self.compiled_likelihood(kind)
        )
        if compiled is None:
            return (
                walk.py_func,
                self.outputs if kind == "likelihood" else self.derivative,
                (),
                nullcontext(),
            )
        return walk, *compiled, self.compiled_solves(phi, n_evaluations, kind)

    @contextmanager
    def compiled_solves(
        self, phi: np.ndarray, n_evaluations: int, kind: str = "likelihood"
    ) -> Iterator[None]:
        """While ``compiled_likelihood`` is evaluated that often at such phi, without the global interpreter lock."""
        with ExitStack() as stack:
            for node in self._function(kind).maker.fgraph.apply_nodes:
                if hasattr(node.op, "compiled_calls"):
                    stack.enter_context(
                        node.op.compiled_calls(phi.shape[0] * phi.shape[1], n_evaluations)
                    )
            yield

    def gradient(
        self, phi: np.ndarray, theta: np.ndarray, weight: np.ndarray | None = None
    ) -> Sequence[np.ndarray]:
        """Log likelihood (replicate, subject) with its gradients, from solves to ``GRADIENT_TOLERANCE``.

        Parameters
        ----------
        phi : ndarray, shape (replicate, subject, phi)
        theta : ndarray, shape (theta,)
        weight : ndarray, shape (subject,), optional
            Weights of the subjects in the gradients; 1 by default.

        Returns
        -------
        loglik : ndarray, shape (replicate, subject)
        d_phi : ndarray, shape (replicate, subject, phi)
            Derivative of each subject's log likelihood with respect to its own phi, times its
            weight.
        d_theta : ndarray, shape (theta,)
            Derivative of the weighted sum at fixed phi.
        """
        kind, inputs = ("gradient", ()) if weight is None else ("weighted gradient", (weight,))
        with self._silenced(kind):
            return self._function(kind)(phi, theta, *inputs)

    def score(
        self,
        rules: Sequence[Scored],
        phi: np.ndarray,
        theta: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> tuple[float, np.ndarray]:
        """Log density of all that some parameters enter, and its gradient with respect to theta; means over replicates.

        Parameters
        ----------
        rules : sequence of Scored
        phi : ndarray, shape (replicate, subject, phi)
        theta : ndarray, shape (theta,)
        weight : ndarray, shape (subject,), optional
            Weights of the subjects; 1 by default.

        Returns
        -------
        float
            log p of the outcomes and random effects that the parameters enter.
        ndarray, shape (theta,)
        """
        kind, inputs = ("score", ()) if weight is None else ("weighted score", (weight,))
        # refits hold some of them
        kind += " of " + ", ".join(rule.parameter.name for rule in rules)
        if kind not in self._functions:
            self._functions[kind] = self._compile_score(rules, weight is not None)
        with self._silenced(kind):
            value, gradient = self._functions[kind](phi, theta, *inputs)
        return float(value) / phi.shape[0], np.asarray(gradient) / phi.shape[0]

    def _compile_score(self, rules: Sequence[Scored], is_weighted: bool) -> Callable[..., Any]:
        mixed = self.mixed
        phi, theta = symbols(mixed)
        outcomes = sorted({j for rule in rules for j in rule.outcomes})
        effects = {e.name: e for rule in rules for e in rule.effects}
        rows = row_logps(mixed)
        graphs = in_symbols(
            mixed,
            [rows[j] for j in outcomes] + [effect_logp(mixed, e) for e in effects.values()],
            phi,
            theta,
        )
        phi3 = pt.tensor("phi", dtype="float64", shape=(None, mixed.n_subjects, mixed.n_phi))
        inputs = [phi3, theta]
        if is_weighted:
            inputs.append(_weight_symbol(mixed))
            subjects = [mixed.outcomes[j].row_subject for j in outcomes]
            subjects += [e.row_subject(mixed.n_subjects) for e in effects.values()]
            graphs = [
                _weighted_rows(g, inputs[-1][s]) for g, s in zip(graphs, subjects, strict=True)
            ]
        total = pt.as_tensor_variable(sum(g.sum() for g in graphs))
        if any(rule.needs_gradient_of_prediction for rule in rules):
            (total,) = solved_to([total], GRADIENT_TOLERANCE)
        # The sum over replicates; a total that phi does not reach counts once for each of them.
        total = (vectorize_graph(total, {phi: phi3}) + pt.zeros(phi3.shape[0])).sum()
        mode = INTERPRETED.including(NO_CHECKS)
        f = pytensor.function(
            inputs, [total, *gradients(total, [theta])], mode=mode, on_unused_input="ignore"
        )
        f.trust_input = True
        return f

    def warm_up(self, phi: np.ndarray, theta: np.ndarray) -> None:
        """Compile the E-step function now, so that its compilation is not counted as run time."""
        if "likelihood" not in self._functions:
            start = perf_counter()
            self.likelihood(phi, theta)
            self.compile_seconds += perf_counter() - start

    @contextmanager
    def _silenced(self, kind: str) -> Iterator[None]:
        """No warnings of failed solves, while searches try points without a solution and turn back."""
        with ExitStack() as stack:
            for node in self._function(kind).maker.fgraph.apply_nodes:
                if hasattr(node.op, "silenced"):
                    stack.enter_context(node.op.silenced())
            yield

    def _function(self, kind: str) -> Any:
        if kind not in self._functions:
            self._functions[kind] = self._compile(kind)
        return self._functions[kind]

    def _compile(self, kind: str) -> Any:
        mixed = self.mixed
        phi, theta = symbols(mixed)
        phi3 = pt.tensor("phi", dtype="float64", shape=(None, mixed.n_subjects, mixed.n_phi))
        loglik, residual, status = self._subject_graphs(phi, theta)
        inputs = [phi3, theta]
        if kind in ("likelihood", "derivative"):
            outputs = solved_to([loglik, residual, *status], self.tolerance)
            if kind == "derivative":
                outputs = solved_once(outputs)
            ranks = (2, 3, *(2 for _ in status))
            many = vectorize_graph(outputs, {phi: phi3})
            outputs = [
                self._with_replicates(out, phi3, ndim)
                for out, ndim in zip(many, ranks, strict=True)
            ]
            if kind == "derivative":
                outputs[2:2] = _gradients_of(outputs[0], [phi3])
        else:
            (loglik,) = solved_to([loglik], GRADIENT_TOLERANCE)
            total = loglik = pt.as_tensor_variable(vectorize_graph(loglik, {phi: phi3}))
            if kind == "weighted gradient":
                inputs.append(_weight_symbol(mixed))
                total = _weighted(loglik, inputs[-1])
            outputs = [loglik, *_gradients_of(total, [phi3, theta], _SEARCHES)]
        # A gradient runs some hundred times in a fit, which does not repay 30 s of compilation.
        if "gradient" in kind or has_python_only_ops(outputs):
            return self._compile_in(INTERPRETED, inputs, outputs)
        origin = "a copy" if self._is_copy else mixed.model
        return compiled_for(
            self, origin, partial(self._compile_in, get_mode(self.mode)), inputs, outputs, self.mode
        )

    @staticmethod
    def _compile_in(mode: Mode, inputs: Sequence[Variable], outputs: Sequence[Variable]) -> Any:
        # Fast mathematics reorders sums, one way in functions that are compiled now and inlined,
        # and another in those that PyTensor has on disk: the first fit of a model would differ from
        # all later ones of the same seed.
        with pytensor.config.change_flags(numba__fastmath=False):
            f = pytensor.function(
                list(inputs),
                list(outputs),
                mode=mode.including(NO_CHECKS),
                on_unused_input="ignore",
            )
        f.trust_input = (
            True  # callers pass float64 arrays of the right rank; checking costs as much as a solve
        )
        return f

    @staticmethod
    def _with_replicates(graph: Variable, phi3: TensorVariable, ndim: int) -> TensorVariable:
        """Give the replicate axis to an output that phi does not reach."""
        out = pt.as_tensor_variable(graph)
        if out.ndim == ndim:
            return out
        return pt.broadcast_to(out, (phi3.shape[0], *(out.shape[i] for i in range(out.ndim))))

    def _subject_graphs(
        self, phi: TensorVariable, theta: TensorVariable
    ) -> tuple[TensorVariable, TensorVariable, list[TensorVariable]]:
        mixed = self.mixed
        rows = [r.ravel() for r in in_symbols(mixed, row_logps(mixed), phi, theta)]
        n, outcomes = mixed.n_subjects, mixed.outcomes
        terms = [sum_rows(row, o.row_subject, n) for row, o in zip(rows, outcomes, strict=True)]
        loglik = pt.as_tensor_variable(sum(terms))
        loglik = loglik + sum(_effect_densities(mixed, phi, theta))
        columns = [sum_rows(term(phi, theta), term.row_subject, n) for term in self.residuals]
        residual = pt.stack(columns, axis=-1) if columns else pt.zeros((n, 0))
        status = [pt.as_tensor_variable(node.outputs[1]) for node in ode_nodes([loglik])]
        return loglik, residual, status


def _weight_symbol(mixed: MixedModel) -> TensorVariable:
    return pt.tensor("weight", dtype="float64", shape=(mixed.n_subjects,))


def _weighted(x: TensorVariable, weight: TensorVariable) -> TensorVariable:
    """``weight * x``; 0 where the weight is 0, whatever x is."""
    return pt.switch(weight > 0, weight * x, 0.0)


def _weighted_rows(x: TensorVariable, weight: TensorVariable) -> TensorVariable:
    """Log densities of rows or units, in any shape, weighted along their first axis or, if they are flat, one by one."""
    flat = x.reshape((weight.shape[0], -1))
    return _weighted(flat, weight[:, None])


_KERNELS = (
    "Kernels of the E-step that propose along gradients need",
    "Leave them out of the kernel shares.",
)
_SEARCHES = (
    "Starts by gradient fits and the search for conditional modes need",
    "fit_saem(n_starts=0) gives estimates without them; write it with operations that have gradients for more.",
)


def _gradients_of(
    loglik: TensorVariable, wrt: Sequence[TensorVariable], words: tuple[str, str] = _KERNELS
) -> list[TensorVariable]:
    """Derivatives in some variables; ``words`` name who needs them, and what to do where there are none."""
    try:
        return gradients(loglik.sum(), wrt)
    except (NotImplementedError, AttributeError, NullTypeGradError) as error:
        raise ValueError(
            f"{words[0]} the gradient of the log likelihood, and an operation of this model has none ({error}). {words[1]}"
        ) from error


def _effect_densities(
    mixed: MixedModel, phi: TensorVariable, theta: TensorVariable
) -> list[TensorVariable]:
    """Log densities per subject of the random effects without a Gaussian distribution, for which a mean and a covariance do not suffice."""
    effects = [effect for effect in mixed.random_effects if not effect.is_gaussian]
    logps = in_symbols(mixed, [effect_logp(mixed, effect) for effect in effects], phi, theta)
    densities = []
    for effect, logp in zip(effects, logps, strict=True):
        per_unit = logp.reshape((effect.n_units, -1)).sum(axis=1)
        densities.append(sum_rows(per_unit, effect.row_subject(mixed.n_subjects), mixed.n_subjects))
    return densities
