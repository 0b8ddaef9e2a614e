"""``python -m pymc_saem.precompile``, which `make` runs at installation."""

import pytest

from pymc_saem import precompile
from pymc_saem.ode.events import pieces
from pymc_saem.ode.rhs import products
from pymc_saem.ode.solvers import adjoint, cvodes, lanes, matrix_exponential


@pytest.mark.slow
def test_compiles_every_solver(capsys):
    shared = (
        lanes._compiled,
        matrix_exponential._compiled,
        pieces.task,
        adjoint.task,
        products.load,
    )
    for compiled in (*shared, cvodes.task):
        compiled.cache_clear()
    precompile.main()
    assert capsys.readouterr().out.startswith("Compiled the solvers and the E-step in ")
    assert [compiled.cache_info().currsize for compiled in shared] == [1] * len(shared)
    assert cvodes.task.cache_info().currsize == 2  # solutions and gradients
