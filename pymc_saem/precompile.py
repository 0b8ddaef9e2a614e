"""``python -m pymc_saem.precompile``: compile now what is the same for every model, and keep it on disk.

Solvers and E-step are compiled when they are first needed, which makes the first session of a new
installation slow. This takes a small model through all of them.
"""

from time import perf_counter
from typing import Any

# before the imports: the seconds printed at the end are all that the user waits
_BEGAN = perf_counter()

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pymc as pm  # noqa: E402
import pytensor  # noqa: E402
import pytensor.tensor as pt  # noqa: E402
from pytensor.compile.mode import Mode  # noqa: E402
from pytensor.tensor.variable import TensorVariable  # noqa: E402

import pymc_saem as ps  # noqa: E402
from pymc_saem.kept import folder  # noqa: E402
from pymc_saem.model.graph.gradient import gradients  # noqa: E402
from pymc_saem.ode.rhs import products  # noqa: E402
from pymc_saem.ode.solvers import adjoint  # noqa: E402

N_SUBJECTS, TIMES = 4, (0.5, 1.0, 2.0)


def solution_of(rate: TensorVariable, **options: Any) -> TensorVariable:
    """Elimination after a dose at the start, one system per subject."""
    subject = np.repeat(np.arange(N_SUBJECTS), len(TIMES))
    return ps.ode.solve_ivp(
        lambda t, y, p: {"drug": -p.rate * y.drug},
        y0={"drug": 10.0},
        params={"rate": rate},
        t=np.tile(TIMES, N_SUBJECTS),
        subject=subject,
        n_threads=2,
        **options,
    ).drug


def compile_solvers() -> None:
    """Every solver that needs nothing but this installation, with its gradient, without and with doses."""
    doses = pd.DataFrame({"subject": range(N_SUBJECTS), "time": 0.25, "amt": 1.0, "cmt": "drug"})
    rate = pt.tensor("rate", dtype="float64", shape=(N_SUBJECTS,))
    for options in (
        {"solver": "tsit5"},
        {"solver": "tsit5", "events": doses},
        {"solver": "linear"},
        {"solver": "cvodes"},
    ):
        drug = solution_of(rate, **options)
        function = pytensor.function(
            [rate], [drug, *gradients(drug.sum(), [rate])], mode=Mode("py", "fast_compile")
        )
        function(np.full(N_SUBJECTS, 0.5))
    products.load()  # what wide systems share
    adjoint.task()


def compile_saem() -> None:
    """The pieces of the E-step, by a fit that ends before it has begun."""
    with pm.Model(coords={"subject": range(N_SUBJECTS)}) as model:
        log_rate, omega = pm.Normal("log_rate", -1.0, 1.0), pm.HalfNormal("omega", 1.0)
        rate = pm.LogNormal("rate", log_rate, omega, dims="subject")
        values = 10.0 * np.exp(-np.outer(np.linspace(0.3, 0.6, N_SUBJECTS), TIMES)).ravel()
        pm.Normal(
            "conc", solution_of(rate, solver="tsit5"), pm.HalfNormal("sigma", 1.0), observed=values
        )
    ps.fit_saem(
        model,
        n_explore=2,
        n_smooth=2,
        n_transitions=8,
        n_starts=1,
        draws=2,
        random_seed=1,
        progressbar=False,
    )


def main() -> None:
    """Compile, and say how long it took."""
    compile_solvers()
    compile_saem()
    where = folder()
    place = "not kept, as no folder could be used" if where is None else f"kept in {where}"
    print(f"Compiled the solvers and the E-step in {perf_counter() - _BEGAN:.0f} s; {place}.")


if __name__ == "__main__":
    main()
