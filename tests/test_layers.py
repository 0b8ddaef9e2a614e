"""The rooms of the package, read from the source: who may import whom, how large files and folders are; what an import loads."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pymc_saem"
MAX_LINES = 460
MAX_FILES = 16
# subpackage: the siblings, or files of siblings, that it may import. What stands in FOR_EVERYBODY
# imports nothing of them.
FOR_EVERYBODY = {"arguments", "compat", "kept", "sources"}
MAY_IMPORT = {
    "ode": set(),
    "nn": set(),
    "datasets": set(),
    "model": set(),
    "results": set(),
    "saem": {"model", "results"},
    "evaluate": {"model", "results.fit"},
    "prediction": {"model", "saem", "results", "evaluate"},
    "diagnose": {"model", "results.fit", "evaluate", "prediction"},
    "plots": {"results.fit", "evaluate", "diagnose"},
    "refit": {"model", "saem", "results", "evaluate", "prediction"},
    **dict.fromkeys(FOR_EVERYBODY, set()),
}
# room of a subpackage: the rooms right below it. It may import these and all that are below them.
ROOMS = {
    "model.read": "model.reading",
    "model.reading": "model.dependence",
    "model.dependence": "model.density",
    "model.density": "model.normal model.mixed_model",
    "model.normal": "model.graph",
    "model.outcomes": "model.graph",
    "model.mixed_model": "",
    "model.graph": "",
    "saem.fit": "saem.report",
    "saem.report": "saem.uncertainty",
    "saem.uncertainty": "saem.likelihood saem.run",
    "saem.likelihood": "saem.engine saem.conditional",
    "saem.run": "saem.engine saem.conditional",
    "saem.conditional": "saem.estep",
    "saem.engine": "saem.start saem.estep",
    "saem.start": "saem.mstep",
    "saem.describe": "saem.mstep",
    "saem.mstep": "saem.core",
    "saem.estep": "saem.core",
    "saem.core": "",
    "ode.solve": "ode.ops",
    "ode.ops": "ode.solvers",
    "ode.solvers": "ode.events ode.rhs",
    "ode.events": "ode.inputs ode.rhs",
    "ode.rhs": "ode.runtime",
    "ode.inputs": "",
    "ode.runtime": "",
    "results.tables": "results.thresholds results.fit",
    "results.files": "",
    "results.fit": "results.build",
    "results.build": "results.labels",
    "results.labels": "",
    "results.thresholds": "",
}
# The mathematics of saem: NumPy, SciPy, the standard library, each other, and what keeps machine
# code.
PURE, NUMERIC = "saem.core", {"numpy", "scipy"}
# A fit is read by its groups in one file; others take from it what they need.
READER, GROUPS = "results.fit", {"get_group", "group_names"}
# They ask for names of groups before there is a fit: an argument of any type, and files that may
# hold something else.
ASK_FOR_NAMES = {"arguments", "results.files.storage"}
# Files that choose by version.
VERSION_FILE = "compat.py"


def imported_modules(path, root):
    """The absolute dotted names that a file imports, at any depth of its code; `from a import b` gives a.b."""
    package = (root.name, *path.relative_to(root).parent.parts)
    for node in code_that_runs(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*base, node.module) if node.module else base)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def code_that_runs(node):
    """All nodes of a tree but those under `if TYPE_CHECKING:`, which only annotations need."""
    yield node
    for child in ast.iter_child_nodes(node):
        is_for_types = (
            isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING"
        )
        yield from () if is_for_types else code_that_runs(child)


def dotted(path, root):
    """`saem/fit.py` -> "saem.fit"; a subpackage itself by its name."""
    return (
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix("__init__").rstrip(".")
    )


def inside(module, root):
    """`pymc_saem.saem.fit.x` -> "saem.fit.x"; None for a module outside the package."""
    head, _, rest = module.partition(".")
    return rest if head == root.name else None


def room_of(name):
    """The room in which a module or a name of it stands; None at the top of a subpackage."""
    parts = name.split(".")
    return next((room for n in (3, 2) if (room := ".".join(parts[:n])) in ROOMS), None)


@cache
def below(room):
    """The room and all rooms that it may import."""
    return {room}.union(*(below(other) for other in ROOMS[room].split()))


def wrong_subpackage(name, target, module):
    """A subpackage imports a sibling it may not."""
    home = name.split(".")[0]
    if home not in MAY_IMPORT or target is None:
        return None
    allowed = {home} | FOR_EVERYBODY | MAY_IMPORT[home]
    if any(f"{target}.".startswith(f"{one}.") for one in allowed):
        return None
    return f"{home} may import of this package only {sorted(allowed)}, not {module}"


def wrong_room(name, target, module):
    """A room imports one above it, or beside it; or a module stands in no room."""
    home = room_of(name)
    if name.split(".")[0] in SUBPACKAGES_WITH_ROOMS and home is None and "." in name:
        return f"stands in no room: {sorted(ROOMS)}"
    if home is None or target is None or target.split(".")[0] != home.split(".")[0]:
        return None
    if room_of(target) in below(home):
        return None
    return f"{home} may import only {sorted(below(home))} beside other subpackages, not {module}"


def wrong_mathematics(name, target, module):
    """The mathematics of saem imports more than numbers."""
    if room_of(name) != PURE:
        return None
    if target is None:
        is_fine = module.split(".")[0] in NUMERIC | sys.stdlib_module_names
    else:
        is_fine = room_of(target) == PURE or target.split(".")[0] == "kept"
    return None if is_fine else f"{PURE} is mathematics and may not import {module}"


def second_reader(name, target, module):
    """Another file than that of the class Fit takes a fit apart."""
    if (
        name == READER
        or target is None
        or not target.startswith("compat.")
        or target.split(".")[1] not in GROUPS
    ):
        return None
    if name in ASK_FOR_NAMES and target == "compat.group_names":
        return None
    return f"only {READER} reads the groups of a fit; use its class Fit, not {module}"


SUBPACKAGES_WITH_ROOMS = {room.split(".")[0] for room in ROOMS}


def version_choices(path):
    """Places that read a version: `x.__version__`, `Version(...)`, `sys.version_info`, packaging."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("__version__", "version_info"):
            yield f"line {node.lineno} reads {node.attr}"
        if isinstance(node, ast.Name) and node.id == "Version":
            yield f"line {node.lineno} uses Version"


def circles(root):
    """Modules that import each other in a circle, one line for each circle; what a package's `__init__` exports does not count."""
    files = {dotted(path, root): path for path in root.rglob("*.py") if path.name != "__init__.py"}
    graph = {
        name: {found for m in imported_modules(path, root) if (found := file_of(m, root, files))}
        for name, path in files.items()
    }
    done, way = set(), []

    def visit(name):
        if name in way:
            yield f"{name.replace('.', '/')}.py: a circle of imports, {' -> '.join([*way[way.index(name) :], name])}"
        elif name not in done:
            way.append(name)
            for other in sorted(graph[name]):
                yield from visit(other)
            way.pop()
            done.add(name)

    for name in sorted(files):
        yield from visit(name)


def file_of(module, root, files):
    """The file behind an imported name; None if there is none in the package."""
    name = inside(module, root)
    return (
        None
        if name is None
        else next((n for n in (name, name.rpartition(".")[0]) if n in files), None)
    )


def complaints(root):
    """Everything in the tree under ``root`` that breaks a rule, one line each."""
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        for module in imported_modules(path, root):
            for rule in (wrong_subpackage, wrong_room, wrong_mathematics, second_reader):
                message = rule(dotted(path, root), inside(module, root), module)
                if message:
                    found.append(f"{name}: {message}")
        n_lines = len(path.read_text(encoding="utf-8").splitlines())
        if n_lines > MAX_LINES:
            found.append(f"{name}: {n_lines} lines, more than {MAX_LINES}")
        if name.as_posix() != VERSION_FILE:
            found += [
                f"{name}: {message}; only {VERSION_FILE} may" for message in version_choices(path)
            ]
    for folder in sorted({path.parent for path in root.rglob("*.py")}):
        n_files = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        if n_files > MAX_FILES:
            found.append(
                f"{folder.relative_to(root).as_posix()}: {n_files} files, more than {MAX_FILES}"
            )
    return list(dict.fromkeys(found)) + list(circles(root))


def test_the_package_keeps_the_rules():
    assert PACKAGE.is_dir()
    assert complaints(PACKAGE) == []


def test_every_folder_says_what_is_in_it():
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), (
            folder
        )


def test_every_room_exists():
    for room in {*ROOMS, *MAY_IMPORT}:
        place = PACKAGE.joinpath(*room.split("."))
        assert place.is_dir() or place.with_suffix(".py").is_file(), room


def test_test_files_are_short_too():
    for path in Path(__file__).parent.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, path


BAD_FILES = [
    ("ode/solve.py", "from pymc_saem.saem import fit_saem", "ode may import"),
    ("ode/solve.py", "import pymc_saem.nn.mlp", "ode may import"),
    ("ode/solve.py", "import pymc_saem as ps", "ode may import"),
    ("nn/mlp.py", "def f():\n    from ..ode import solve", "nn may import"),
    ("nn/mlp.py", "from .. import saem", "nn may import"),
    ("plots/fits.py", "from ..results import summary", "plots may import"),
    ("plots/fits.py", "from ..prediction import predict", "plots may import"),
    ("evaluate/curves.py", "from ..saem.fit import fit_saem", "evaluate may import"),
    ("saem/run/chain.py", "from ...prediction.predict import predict", "saem may import"),
    ("prediction/predict.py", "from ..plots import plot_fits", "prediction may import"),
    ("diagnose/vpc.py", "from ..plots import plot_vpc", "diagnose may import"),
    ("diagnose/vpc.py", "from ..saem import fit_saem", "diagnose may import"),
    ("prediction/predict.py", "from ..diagnose import vpc", "prediction may import"),
    ("datasets/load.py", "from ..nn.mlp import MLP", "datasets may import"),
    (
        "results/tables/summary.py",
        "from ...model.mixed_model import MixedModel",
        "results may import",
    ),
    ("model/read.py", "from ..saem.engine import Engine", "model may import"),
    ("saem/run/step.py", "from ...ode.ops import solution_op", "saem may import"),
    ("compat.py", "from .model import read", "compat may import"),
    ("kept.py", "from .ode.runtime import native", "kept may import"),
    ("saem/core/algorithm.py", "import pymc", "saem.core is mathematics"),
    (
        "saem/core/algorithm.py",
        "from ...model.mixed_model import MixedModel",
        "saem.core is mathematics",
    ),
    ("saem/core/schedule.py", "from ...compat import x", "saem.core is mathematics"),
    ("saem/core/newton.py", "import pytensor.tensor as pt", "saem.core is mathematics"),
    ("saem/estep/mixture.py", "from ..mstep.rules import Rules", "saem.estep may import only"),
    ("saem/mstep/rules.py", "from .. import fit", "saem.mstep may import only"),
    ("saem/run/step.py", "from pymc_saem.saem.fit import fit_saem", "saem.run may import only"),
    (
        "saem/run/step.py",
        "def f():\n    from ..report.finish import Finisher",
        "saem.run may import only",
    ),
    ("saem/engine.py", "from .run.step import SAEM", "saem.engine may import only"),
    (
        "saem/likelihood/joint.py",
        "from pymc_saem.saem import SAEM",
        "saem.likelihood may import only",
    ),
    ("ode/rhs/lower.py", "from ..solvers import tsit5", "ode.rhs may import only"),
    ("ode/solvers/auto.py", "from ..ops.call import call", "ode.solvers may import only"),
    ("model/graph/merged.py", "from ..density import laws", "model.graph may import only"),
    ("model/reading/levels.py", "from ..read import read_model", "model.reading may import only"),
    (
        "plots/rates.py",
        "from ..compat import get_group",
        "only results.fit reads the groups of a fit",
    ),
    (
        "results/tables/summary.py",
        "from ...compat import group_names",
        "only results.fit reads the groups",
    ),
    (
        "results/files/storage.py",
        "from ...compat import get_group",
        "only results.fit reads the groups",
    ),
    ("saem/more.py", "import numpy", "stands in no room"),
    ("saem/fit.py", "x = 1\n" * (MAX_LINES + 1), f"{MAX_LINES + 1} lines"),
    (
        "saem/fit.py",
        "import pymc\nif pymc.__version__ > '6':\n    pass",
        "line 2 reads __version__",
    ),
    (
        "ode/ops/call.py",
        "from packaging.version import Version\nx = Version('1')",
        "line 2 uses Version",
    ),
    ("ode/ops/call.py", "import sys\nx = sys.version_info", "reads version_info"),
    (
        "plots/fits.py",
        "def f():\n    from pymc_saem.plots import fits",
        "a circle of imports, plots.fits -> plots.fits",
    ),
]
GOOD_FILES = [
    ("__init__.py", "__version__ = '0.1.0'"),
    ("demo.py", "import pymc_saem as ps\nfrom .plots import fits"),
    ("compat.py", "import pymc\nNEW = pymc.__version__ > '6'"),
    ("plots/fits.py", "from ..evaluate.curves import draw_curves"),
    ("plots/vpc.py", "from ..diagnose.vpc import predictive_check\nfrom ..results.fit import Fit"),
    ("results/fit.py", "from ..compat import get_group, group_names"),
    ("arguments.py", "from .compat import group_names"),
    (
        "diagnose/fitted_rows.py",
        "from ..results.fit import Fit\nfrom ..evaluate.generator import Generator",
    ),
    (
        "prediction/predict.py",
        "from ..evaluate import curves\nfrom ..model.dependence.row_subjects import subjects_of_rows",
    ),
    ("evaluate/generator.py", "from ..model.outcomes import read_outcomes"),
    (
        "ode/solve.py",
        "import numba\nfrom ..compat import NEW\nfrom .solvers.registry import SOLVERS\nfrom .events import doses",
    ),
    ("ode/__init__.py", "from .solve import solve_ivp"),
    ("saem/__init__.py", "from .fit import fit_saem\nfrom .run.step import SAEM"),
    (
        "saem/run/chain.py",
        "from pymc_saem.saem.run.step import SAEM\nfrom pymc_saem.saem.core.algorithm import State",
    ),
    (
        "saem/fit.py",
        "from .run.chains import run_chains\nfrom .report.finish import Finisher\nfrom ..results.build import build",
    ),
    (
        "saem/run/step.py",
        "import pymc\nfrom ..core.algorithm import iterate\nfrom ...model.mixed_model import MixedModel",
    ),
    (
        "saem/core/algorithm.py",
        "import numpy as np\nfrom dataclasses import dataclass\nfrom .closed_form import gls_mean",
    ),
    ("saem/core/gaussian.py", "from scipy import linalg\nfrom pymc_saem.kept import keep_function"),
    ("model/read.py", "from .reading.levels import find\nfrom .graph import merged"),
    (
        "model/mixed_model.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .normal.affine import Image",
    ),
]


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("name", "text", "message"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_the_checker_finds_a_broken_rule(tmp_path, name, text, message):
    root = tmp_path / "pymc_saem"
    write(root, name, text)
    (found,) = complaints(root)
    assert found.startswith(name)
    assert message in found


def test_the_checker_finds_a_full_folder_and_a_circle(tmp_path):
    root = tmp_path / "pymc_saem"
    for number in range(MAX_FILES + 1):
        write(
            root,
            f"plots/f{number}.py",
            f"from pymc_saem.plots.f{(number + 1) % 3} import x" if number < 3 else "",
        )
    assert complaints(root) == [
        "plots: 17 files, more than 16",
        "plots/f0.py: a circle of imports, plots.f0 -> plots.f1 -> plots.f2 -> plots.f0",
    ]


def test_the_checker_accepts_what_is_allowed(tmp_path):
    root = tmp_path / "pymc_saem"
    for name, text in GOOD_FILES:
        write(root, name, text)
    assert complaints(root) == []


def test_import_is_light():
    code = (
        "import sys, pymc_saem\n"
        "dir(pymc_saem)\n"
        "heavy = {'numba', 'sksundae', 'pymc', 'pytensor', 'matplotlib', 'arviz'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_every_public_name_is_there():
    import pymc_saem

    for name in pymc_saem.__all__:
        assert callable(getattr(pymc_saem, name)) or name in ("datasets", "nn", "ode")
    assert set(pymc_saem.__all__) <= set(dir(pymc_saem))
    with pytest.raises(AttributeError, match="no attribute 'fit_sam'"):
        pymc_saem.fit_sam  # noqa: B018
