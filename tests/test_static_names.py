"""What editors and type checkers see of the package without running it: the public names, and no others."""

import subprocess
import sys
from pathlib import Path

import jedi
import pytest

import pymc_saem
from pymc_saem import datasets, nn, ode

MODULES = [pymc_saem, ode, nn, datasets]

PACKAGE = Path(pymc_saem.__file__).parent


def completions(code):
    """Names that an editor offers at the end of the code."""
    project = jedi.Project(PACKAGE.parent, load_unsafe_extensions=False)
    return {found.name for found in jedi.Script(code, project=project).complete()}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_an_editor_lists_the_public_names(module):
    name = module.__name__
    assert set(module.__all__) <= completions(f"import {name}\n{name}.")


def test_an_editor_knows_the_arguments():
    project = jedi.Project(PACKAGE.parent, load_unsafe_extensions=False)
    (signature,) = jedi.Script(
        "import pymc_saem as ps\nps.fit_saem(", project=project
    ).get_signatures()
    assert {"model", "random_effects", "n_explore", "chains", "resume"} <= {
        p.name for p in signature.params
    }


def test_static_names_are_the_names_that_load():
    for module in (pymc_saem, ode):
        submodules = set(getattr(module, "_SUBMODULES", ()))
        assert set(module.__all__) == {*module._HOMES, *submodules}
        assert all(getattr(module, name) is not None for name in module.__all__)


def test_a_type_checker_refuses_unknown_names(tmp_path):
    (tmp_path / "user.py").write_text(
        "import pymc_saem as ps\n"
        + "".join(f"ps.{name}\n" for name in pymc_saem.__all__)
        + "".join(f"ps.ode.{name}\n" for name in ode.__all__)
        + "ps.fit_samm\nps.ode.solve_ivq\nps.nn.MPL\n"
    )
    # silent: what is wrong inside the package is the business of `make lint`
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--ignore-missing-imports"]
    command += ["--config-file=", f"--cache-dir={tmp_path / 'cache'}", str(tmp_path / "user.py")]
    run = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    refused = [line for line in run.stdout.splitlines() if "error:" in line]
    assert [line.partition(' has no attribute "')[2].split('"')[0] for line in refused] == [
        "fit_samm",
        "solve_ivq",
        "MPL",
    ]


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
