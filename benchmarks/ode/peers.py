"""Other packages behind the interface of ``own.Own``: ``solve``, ``solver_call``, ``gradient``, ``gradient_call``, ``steps``.

``gradient_call`` returns None where the package has no gradients. A constructor raises ImportError
where it is not installed.
"""

from functools import cache

import numba
import numpy as np
from problems import array_rates, numba_rates
from scipy.integrate import solve_ivp as scipy_solve_ivp


class _Peer:
    def __init__(self, problem, inputs):
        self.problem, self.inputs = problem, inputs
        self.shape = (*inputs.t.shape, len(problem.states))

    def gradient_call(self, rtol):
        return None


class SciPy(_Peer):
    """``scipy.integrate.solve_ivp`` with a compiled right-hand side, one subject after the other."""

    def __init__(self, method, problem, inputs):
        super().__init__(problem, inputs)
        self.method, self.f = method, array_rates(problem)

    def _one(self, i, rtol, **options):
        x, f = self.inputs, self.f
        p, c, t = x.p[i], x.c[i], x.t[i]
        options |= {"method": self.method, "rtol": rtol, "atol": rtol * self.problem.atol}
        return scipy_solve_ivp(lambda t, y: f(t, y, p, c), (t[0], t[-1]), x.y0[i], **options)

    def solver_call(self, rtol):
        return lambda: [self._one(i, rtol, t_eval=t).y for i, t in enumerate(self.inputs.t)]

    def solve(self, rtol):
        results = [self._one(i, rtol, t_eval=t) for i, t in enumerate(self.inputs.t)]
        failed = next((r.message for r in results if not r.success), None)
        return np.full(self.shape, np.nan) if failed else np.array([r.y.T for r in results])

    def steps(self, rtol):
        """Mean accepted steps; with RK45 rejected ones too."""
        results = [self._one(i, rtol) for i in range(len(self.inputs.t))]
        return float(
            np.mean([(r.nfev - 2) / 6 if self.method == "RK45" else r.t.size - 1 for r in results])
        )


@cache
def _numbalsoda(problem, method, parallel):
    """The right-hand side and the loop over subjects, compiled once for all numbers of them."""
    import numbalsoda

    rates, n, m, k = (
        numba_rates(problem),
        len(problem.states),
        problem.inputs(1).p.shape[1],
        problem.inputs(1).c.shape[1],
    )

    @numba.cfunc(numbalsoda.lsoda_sig, error_model="numpy", fastmath={"contract"})
    def rhs(t, y, dy, data):
        v = numba.carray(data, (m + k,))
        slopes = rates(t, numba.carray(y, (n,)), v[:m], v[m:])
        for i in range(n):
            dy[i] = slopes[i]

    driver = getattr(numbalsoda, method)

    @numba.njit(parallel=parallel)
    def solve_all(address, y0, data, t, rtol, atol, out):
        for i in numba.prange(len(y0)):
            values, success = driver(address, y0[i].copy(), t[i], data[i], rtol, atol, 100_000)
            for r in range(t.shape[1]):
                for s in range(y0.shape[1]):
                    out[i, r, s] = values[r, s] if success else np.nan

    return rhs, solve_all


class NumbaLSODA(_Peer):
    """``numbalsoda.lsoda`` or ``dop853`` on a ``cfunc``, in a compiled loop over subjects; it has no gradients."""

    def __init__(self, method, problem, inputs, parallel=False):
        super().__init__(problem, inputs)
        (self.rhs, self.solve_all), self.out = (
            _numbalsoda(problem, method, parallel),
            np.empty(self.shape),
        )
        self.data = np.ascontiguousarray(np.hstack([inputs.p, inputs.c]))

    def solver_call(self, rtol):
        x = self.inputs
        arguments = self.rhs.address, x.y0, self.data, x.t, rtol, rtol * self.problem.atol, self.out
        return lambda: self.solve_all(*arguments)

    def solve(self, rtol):
        self.solver_call(rtol)()
        return self.out.copy()

    def steps(self, rtol):
        return None  # not reported by numbalsoda


class Diffrax(_Peer):
    """diffrax: jitted vmap over subjects, ``Tsit5`` or, where stiff, ``Kvaerno5``, ``PIDController``, float64.

    Gradients: ``ForwardMode``, or its default ``RecursiveCheckpointAdjoint`` with ``adjoint=True``.
    The tolerance is an argument of the compiled function, so that a ladder compiles once.
    ``devices`` > 1 splits the subjects by ``jax.pmap``.
    """

    MAX_STEPS = 16**4

    def __init__(self, problem, inputs, devices=1, adjoint=False):
        super().__init__(problem, inputs)
        import diffrax
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        rates = problem.factory(jnp.tanh, jax.nn.softplus)
        term = diffrax.ODETerm(lambda t, y, args: jnp.stack(rates(t, y, *args)))
        of_gradients = diffrax.RecursiveCheckpointAdjoint() if adjoint else diffrax.ForwardMode()

        def one(p, y0, c, t, rtol, adjoint=diffrax.RecursiveCheckpointAdjoint()):  # noqa: B008
            method = diffrax.Kvaerno5() if problem.stiff else diffrax.Tsit5()
            controller = diffrax.PIDController(rtol=rtol, atol=rtol * problem.atol)
            solution = diffrax.diffeqsolve(
                term, method, t[0], t[-1], None, y0, (tuple(p), tuple(c)), saveat=diffrax.SaveAt(ts=t),
                stepsize_controller=controller, max_steps=self.MAX_STEPS, throw=False, adjoint=adjoint,
            )  # fmt: skip
            return solution.ys, solution.stats["num_steps"]

        def total(p, y0, c, t, g, rtol):
            return jnp.sum(g * one(p, y0, c, t, rtol, of_gradients)[0])

        derivative = jax.grad(total) if adjoint else jax.jacfwd(total)
        solve = jax.vmap(one, in_axes=(0, 0, 0, 0, None))
        pull = jax.vmap(derivative, in_axes=(0, 0, 0, 0, 0, None))
        if devices > 1:
            arrays = [
                a.reshape(devices, -1, *a.shape[1:])
                for a in (inputs.p, inputs.y0, inputs.c, inputs.t, inputs.g)
            ]
            self.jitted = (
                jax.pmap(solve, in_axes=(0, 0, 0, 0, None)),
                jax.pmap(pull, in_axes=(0, 0, 0, 0, 0, None)),
            )
        else:
            arrays = [jnp.asarray(a) for a in (inputs.p, inputs.y0, inputs.c, inputs.t, inputs.g)]
            self.jitted = jax.jit(solve), jax.jit(pull)
        self.arrays, self.wait = arrays, jax.block_until_ready

    def solver_call(self, rtol):
        solve, wait, arrays = self.jitted[0], self.wait, self.arrays[:4]
        return lambda: wait(solve(*arrays, rtol))

    def solve(self, rtol):
        return np.asarray(self.solver_call(rtol)()[0]).reshape(self.shape)

    def gradient_call(self, rtol):
        pull, wait, arrays = self.jitted[1], self.wait, self.arrays
        return lambda: wait(pull(*arrays, rtol))

    def gradient(self, rtol):
        return np.asarray(self.gradient_call(rtol)()).reshape(self.inputs.p.shape)

    def steps(self, rtol):
        return float(np.mean(self.solver_call(rtol)()[1]))
