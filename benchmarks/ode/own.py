"""The engines of this package, called through PyTensor as users do; and their compiled task without anything around it."""

from functools import cache

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode

from pymc_saem import nn, ode
from pymc_saem.ode.ops.call import plan_of
from pymc_saem.ode.runtime import task_table as tt
from pymc_saem.ode.runtime.native import call_task

MAX_STEPS = 4000  # the default of solve_ivp
# Without a compiled graph around the solver: PyTensor's interpreter calls it at once.
MODE = Mode(linker="py", optimizer="fast_run")
_NET = nn.MLP(in_size=1, out_size=1, width_size=2, depth=1, activation="tanh")


def _demo_rates(factor):
    """The demo's right-hand side as the demo writes it; see problems.py for the factor."""

    def rates(t, y, p):
        net, softplus, w = _NET, pt.softplus, p.p
        into, over = softplus(net(w[:7], t / 24)), softplus(net(w[7:14], softplus(y.depot)))
        out, rest = softplus(net(w[14:21], softplus(y.center))), softplus(net(w[21:], t / 24))
        lost, dose = factor * out * y.center if factor else out, p.c[0]
        return {"depot": -dose * into - over, "center": dose * into + over - lost + dose * rest}

    return rates


def _rates(problem):
    if problem.name in ("neural", "stiffneural"):
        return _demo_rates(0.0 if problem.name == "neural" else 1e4)
    rates = problem.factory(pt.tanh, pt.softplus)
    return lambda t, y, p: dict(
        zip(
            problem.states,
            rates(t, [getattr(y, s) for s in problem.states], p.p, None),
            strict=True,
        )
    )


class Own:
    """One solver of this package for one problem and number of subjects."""

    def __init__(self, solver, problem, inputs, n_threads=1):
        if solver == "sunode":
            from pymc_saem.ode.solvers.sunode import require

            require()
        self.solver, self.problem, self.inputs, self.n_threads = solver, problem, inputs, n_threads
        n, times = inputs.t.shape
        self.subject = np.repeat(np.arange(n), times)
        self.shape = n, times, len(problem.states)

    @cache  # noqa: B019  (an engine lives as long as its run)
    def _functions(self, rtol):
        """PyTensor functions of p: solution, gradient; and the operation with its inputs."""
        x, problem = self.inputs, self.problem
        p = pt.tensor("p", dtype="float64", shape=x.p.shape)
        constants = {"c": x.c} if x.c.shape[1] else {}
        y0 = {name: x.y0[:, k] for k, name in enumerate(problem.states)}
        solution = ode.solve_ivp(
            _rates(problem), y0, {"p": p} | constants, x.t.ravel(), self.subject, rtol=rtol, atol=rtol * problem.atol,
            solver=self.solver, n_threads=self.n_threads, max_steps=MAX_STEPS,
        )  # fmt: skip
        values = [solution[name] for name in problem.states]
        g = x.g.reshape(-1, len(problem.states))
        total = sum((v * g[:, k]).sum() for k, v in enumerate(values))
        with pytensor.config.change_flags(on_unused_input="ignore"):
            made = [
                pytensor.function([p], out, mode=MODE, trust_input=True)
                for out in (values, pytensor.grad(total, p))
            ]
        node = next(
            n for n in made[0].maker.fgraph.toposort() if getattr(n.op, "is_ode_solution", False)
        )
        return *made, node.op

    def solver_call(self, rtol):
        """Callable without arguments that solves all subjects."""
        solve, p = self._functions(rtol)[0], self.inputs.p
        return lambda: solve(p)

    def solve(self, rtol):
        return np.stack(self.solver_call(rtol)(), axis=-1).reshape(self.shape)

    def gradient_call(self, rtol):
        gradient, p = self._functions(rtol)[1], self.inputs.p
        return lambda: gradient(p)

    def gradient(self, rtol):
        return self.gradient_call(rtol)()

    def constants(self):
        """Constant values of each subject as the operation wants them: entries of y0, then parameters."""
        return np.ascontiguousarray(np.hstack([self.inputs.y0, self.inputs.c]))

    def operation(self, rtol):
        """The operation and its inputs."""
        return self._functions(rtol)[2], self.inputs.t.ravel(), self.inputs.p, self.constants()

    def bare(self, rtol):
        """The task by its address and the table it reads; what must be kept alive stands behind them."""
        op, t, x, c = self.operation(rtol)
        op.compute(t, x, c)
        plan = plan_of(op, t, False)
        table, out, status = (
            plan.table.copy(),
            np.empty((len(t), self.shape[2])),
            np.empty(self.shape[0], np.int64),
        )
        table[tt.X], table[tt.C] = x.ctypes.data, c.ctypes.data
        table[tt.OUT], table[tt.STATUS] = out.ctypes.data, status.ctypes.data
        return plan.task.address, table, out, status, (plan, x, c, op)

    def bare_call(self, rtol):
        """Callable ``f(repeats)``: a Numba loop that calls the task, and nothing else."""
        task, table, *kept = self.bare(rtol)
        return lambda repeats, kept=kept: repeat_task(
            task, table.ctypes.data, self.shape[0], repeats
        )

    def compiled_call(self, rtol):
        """Callable ``f(repeats)``: a Numba loop over a PyTensor graph that Numba has compiled, as the E-step of SAEM runs it."""
        op, t, x, c = self.operation(rtol)
        p = pt.tensor("p", dtype="float64", shape=(1, *x.shape))
        graph = pytensor.function(
            [p], op(pt.constant(t), p, pt.constant(c))[0], mode="NUMBA"
        ).vm.jit_fn

        @numba.njit(nogil=True)
        def repeat(p, repeats):
            total = 0.0
            for _ in range(repeats):
                total += graph(p)[0][0, 0, 0]
            return total

        def call(repeats, p=x[None]):
            with op.compiled_calls(len(x), repeats):
                repeat(p, repeats)

        return call

    def steps(self, rtol):
        """Mean steps of a subject, rejected ones included: the smallest ``max_steps`` that do."""
        if self.solver == "auto":
            return None  # those of tsit5, and if it finds the subject stiff, those of cvodes too
        task, table, _, status, kept = self.bare(rtol)
        low, high = np.zeros(self.shape[0], np.int64), np.full(self.shape[0], MAX_STEPS)
        repeat_task(task, table.ctypes.data, self.shape[0], 1)
        if status.any():
            return None
        while (high - low > 1).any():
            middle = (low + high) // 2
            for m in np.unique(middle):
                table[tt.MAX_STEPS] = m
                repeat_task(task, table.ctypes.data, self.shape[0], 1)
                enough, mine = status == 0, middle == m
                high[mine & enough], low[mine & ~enough] = m, m
        return float(high.mean()) if kept else None


@numba.njit
def repeat_task(task, table, n_tasks, repeats):
    for _ in range(repeats):
        call_task(task, 0, n_tasks, table)
