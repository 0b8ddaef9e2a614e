"""``python -m pymc_saem.precompile``, which `make` runs at installation."""

from pymc_saem import precompile
from pymc_saem.ode import cvodes, lanes, linear, pieces


def test_compiles_every_solver(capsys):
    for compiled in (lanes._compiled, linear._compiled, pieces.task, cvodes.task):
        compiled.cache_clear()
    precompile.main()
    assert capsys.readouterr().out.startswith("Compiled the solvers and the E-step in ")
    assert lanes._compiled.cache_info().currsize == 1
    assert linear._compiled.cache_info().currsize == 1
    assert pieces.task.cache_info().currsize == 1
    assert cvodes.task.cache_info().currsize == 2  # solutions and gradients
