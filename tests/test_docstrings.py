"""Docstrings of all public names: complete by numpydoc's own rules, with examples that run."""

import doctest
import inspect
import re
from dataclasses import is_dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import pymc as pm
import pytest

import pymc_saem as ps
from pymc_saem.evaluate import generator
from pymc_saem.plots import style
from tests.support.documentation import example_names
from tests.support.small import CHEAP, SMALL, SMALL_FIT, SMALL_SAMPLE, smaller

PACKAGE = Path(ps.__file__).parent
MODULES = ("pymc_saem", "pymc_saem.ode", "pymc_saem.nn", "pymc_saem.plots", "pymc_saem.datasets")
#: Codes of numpydoc that are not asked for, and why.
LEFT_OUT = {"ES01": "a summary that says everything needs no second paragraph"}
LEFT_OUT_OF_METHODS = {
    "EX01": "the example of the class shows what its methods are for",
    "SA01": "the class has the cross-references",
}
LEFT_OUT_BY_NAME = {
    (
        "pymc_saem.fit_saem",
        "PR09",
    ): "a whole sentence in parentheses, on other programs, has its full stop inside",
    ("pymc_saem.ode.Solution", "PR01"): "made by solve_ivp, never by its users",
    ("pymc_saem.ode.SolverStatus", "PR01"): "what enum takes to make an enumeration",
}
#: Examples that fit again.
SLOW = {
    f"pymc_saem.{name}"
    for name in (
        "Checkpoint",
        "SAEM",
        "bootstrap",
        "check_restart",
        "cross_validate",
        "plot_comparison",
        "profile_likelihood",
        "rank_chains",
    )
}


def public_things():
    """Full path and object of every public name, each once, and of the public methods and properties of classes."""
    found = {}
    for module in map(import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.ismodule(thing) or thing in found.values():
                continue
            found[f"{module.__name__}.{name}"] = thing
            if inspect.isclass(thing):
                found |= {
                    f"{module.__name__}.{name}.{n}": one
                    for n, one in vars(thing).items()
                    if is_method(n, one)
                }
    return found


def is_method(name, thing):
    kinds = property | cached_property | staticmethod | classmethod
    return not name.startswith("_") and (inspect.isfunction(thing) or isinstance(thing, kinds))


THINGS = public_things()
WITH_EXAMPLES = [path for path, thing in THINGS.items() if ">>> " in (inspect.getdoc(thing) or "")]
RUNNABLE = [
    pytest.param(p, id=p, marks=[pytest.mark.slow("together")] * (p in SLOW)) for p in WITH_EXAMPLES
]


def is_part_of_class(path):
    return path.rsplit(".", 1)[0] in THINGS


def raised(thing):
    """Names of the exceptions that the code of a function, or of the making of an object, raises itself."""
    making = "__post_init__" if is_dataclass(thing) else "__init__"
    code = vars(thing).get(making) if inspect.isclass(thing) else thing
    source = inspect.getsource(code) if inspect.isfunction(code) else ""
    return set(re.findall(r"^\s+raise (\w+)\(", source, flags=re.MULTILINE))


@pytest.mark.parametrize("path", THINGS)
def test_docstring_is_complete(path):
    validate = pytest.importorskip(
        "numpydoc.validate", reason="numpydoc comes with the extra 'dev'"
    ).validate
    left_out = LEFT_OUT | (LEFT_OUT_OF_METHODS if is_part_of_class(path) else {})
    errors = [(code, text) for code, text in validate(path)["errors"] if code not in left_out]
    assert [(code, text) for code, text in errors if (path, code) not in LEFT_OUT_BY_NAME] == []


@pytest.mark.parametrize("path", THINGS)
def test_docstring_names_the_errors(path):
    section = inspect.getdoc(THINGS[path]).partition("\nRaises\n------\n")[2].partition("\n\n")[0]
    named = re.findall(r"^\w.*$", section, flags=re.MULTILINE)
    assert raised(THINGS[path]) <= set(", ".join(named).split(", "))


def run_examples(text, name, names):
    """Fails where an example prints something else than its docstring says."""
    test = doctest.DocTestParser().get_doctest(text, dict(names), name, None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    printed = []
    failed = runner.run(test, out=printed.append).failed
    plt.close("all")
    assert not failed, "".join(printed)


@pytest.fixture(scope="module")
def names():
    return example_names()


# Six iterations are too few for everything, and everything may say so.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", RUNNABLE)
def test_examples_run(path, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some examples write files
    monkeypatch.setattr(ps, "fit_saem", smaller(ps.fit_saem, CHEAP, **SMALL_FIT))
    for name, options in SMALL.items():
        monkeypatch.setattr(ps, name, smaller(getattr(ps, name), **options))
    monkeypatch.setattr(pm, "sample", smaller(pm.sample, **SMALL_SAMPLE))
    run_examples(inspect.getdoc(THINGS[path]), path, names)


@pytest.mark.parametrize("module", [generator, style], ids=lambda module: module.__name__)
def test_other_examples_run(module, names):
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests
    for test in tests:
        run_examples(test.docstring, test.name, names | vars(module))


def test_there_are_no_other_examples():
    texts = {path: path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    assert not [path for path, text in texts.items() if "+SKIP" in text]
    modules = {inspect.getmodule(THINGS[path]).__file__ for path in WITH_EXAMPLES} | {
        generator.__file__,
        style.__file__,
    }
    assert {str(path) for path, text in texts.items() if ">>> " in text} == modules


def test_every_public_name_has_an_example():
    assert [
        path for path in THINGS if path not in WITH_EXAMPLES and not is_part_of_class(path)
    ] == []


def test_what_is_left_out_exists():
    assert {path for path, _ in LEFT_OUT_BY_NAME} | SLOW <= set(THINGS)
