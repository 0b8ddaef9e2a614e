"""The import direction and the size of files, read from the source; and what `import pymc_saem` loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pymc_saem"
MAX_LINES = 400
# subpackage: the siblings it may import. What stands in FOR_EVERYBODY imports nothing of them.
FOR_EVERYBODY = {"arguments", "compat", "kept", "sources"}
MAY_IMPORT = {
    "ode": set(),
    "nn": set(),
    "evaluate": set(),
    "plots": {"evaluate", "diagnose"},
    "datasets": set(),
    "output": set(),
    "saem": {"output"},
    "prediction": {"evaluate", "saem", "output"},
    "diagnose": {"evaluate", "prediction"},
    "refit": {"prediction", "evaluate", "saem", "output"},
    **dict.fromkeys(FOR_EVERYBODY, set()),
}
# The mathematics of saem/: NumPy, SciPy, the standard library, and of the package only what stands here.
PURE = {"algorithm": {"schedule", "mstep", "score"}, "schedule": set(), "mstep": set(), "score": set()}
NUMERIC = {"numpy", "scipy"}
# The drivers of saem/, and who may import them (the subpackage's __init__ exports them).
DRIVERS = {
    "fit": {"__init__"},
    "finish": {"fit"},
    "report": {"finish"},
    "run": {"fit", "finish", "report"},
    "course": {"run", "finish", "report", "groups", "checkpoint", "resume"},
    "step": {"__init__", "fit", "run", "course"},
}
# Files that choose by version.
VERSION_FILE = "compat.py"


def imported_modules(path, root):
    """The absolute dotted names that a file imports, at any depth of its code; `from a import b` gives a.b."""
    package = (root.name, *path.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*base, node.module) if node.module else base)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def own_parts(module, root):
    """`pymc_saem.saem.fit.x` -> ("saem", "fit"); None for a module outside the package."""
    head, *rest = module.split(".")
    return tuple(rest[:2]) if head == root.name else None


def wrong_subpackage(path, module, root):
    """A subpackage imports a sibling it may not."""
    home = path.relative_to(root).parts[0].removesuffix(".py")
    parts = own_parts(module, root)
    if home not in MAY_IMPORT or parts is None:
        return None
    allowed = {home} | FOR_EVERYBODY | MAY_IMPORT[home]
    if parts and parts[0] in allowed:
        return None
    return f"{home} may import of this package only {sorted(allowed)}, not {module}"


def wrong_in_saem(path, module, root):
    """The mathematics of saem imports more than numbers, or somebody imports the drivers."""
    relative = path.relative_to(root)
    if relative.parts[0] != "saem" or len(relative.parts) != 2:
        return None
    name, parts = path.stem, own_parts(module, root)
    sibling = parts[1] if parts and parts[0] == "saem" and len(parts) == 2 else None
    if sibling in DRIVERS and sibling != name and name not in DRIVERS[sibling]:
        return f"{name} may not import the driver {sibling}"
    if name not in PURE:
        return None
    head = module.split(".")[0]
    is_fine = sibling in PURE[name] if parts is not None else head in NUMERIC | sys.stdlib_module_names
    return None if is_fine else f"{name} is mathematics and may not import {module}"


def version_choices(path):
    """Places that read a version: `x.__version__`, `Version(...)`, `sys.version_info`, packaging."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("__version__", "version_info"):
            yield f"line {node.lineno} reads {node.attr}"
        if isinstance(node, ast.Name) and node.id == "Version":
            yield f"line {node.lineno} uses Version"


def complaints(root):
    """Everything in the tree under ``root`` that breaks a rule, one line each."""
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        for module in imported_modules(path, root):
            for rule in (wrong_subpackage, wrong_in_saem):
                message = rule(path, module, root)
                if message:
                    found.append(f"{name}: {message}")
        n_lines = len(path.read_text(encoding="utf-8").splitlines())
        if n_lines > MAX_LINES:
            found.append(f"{name}: {n_lines} lines, more than {MAX_LINES}")
        if name.as_posix() != VERSION_FILE:
            found += [f"{name}: {message}; only {VERSION_FILE} may" for message in version_choices(path)]
    return found


def test_the_package_keeps_the_rules():
    assert PACKAGE.is_dir()
    assert complaints(PACKAGE) == []


def test_test_files_are_short_too():
    for path in Path(__file__).parent.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, path


BAD_FILES = [
    ("ode/solve.py", "from pymc_saem.saem import fit_saem", "ode may import"),
    ("ode/solve.py", "import pymc_saem.nn.mlp", "ode may import"),
    ("ode/solve.py", "import pymc_saem as ps", "ode may import"),
    ("nn/mlp.py", "def f():\n    from ..ode import solve", "nn may import"),
    ("nn/mlp.py", "from .. import saem", "nn may import"),
    ("plots/fits.py", "from ..output import summary", "plots may import"),
    ("plots/fits.py", "from ..prediction import predict", "plots may import"),
    ("evaluate/curves.py", "from ..saem.model import MixedModel", "evaluate may import"),
    ("saem/run.py", "from ..prediction.predict import predict", "saem may import"),
    ("prediction/predict.py", "from ..plots import plot_fits", "prediction may import"),
    ("diagnose/vpc.py", "from ..plots import plot_vpc", "diagnose may import"),
    ("diagnose/vpc.py", "from ..saem import fit_saem", "diagnose may import"),
    ("prediction/predict.py", "from ..diagnose import vpc", "prediction may import"),
    ("datasets/load.py", "from ..nn.mlp import MLP", "datasets may import"),
    ("output/summary.py", "from ..saem.model import MixedModel", "output may import"),
    ("saem/model.py", "from ..ode import op", "saem may import"),
    ("compat.py", "from .saem import model", "compat may import"),
    ("kept.py", "from .ode import native", "kept may import"),
    ("saem/algorithm.py", "import pymc", "algorithm is mathematics"),
    ("saem/algorithm.py", "from .model import MixedModel", "algorithm is mathematics"),
    ("saem/mstep.py", "from .schedule import step_size", "mstep is mathematics"),
    ("saem/schedule.py", "from ..compat import x", "schedule is mathematics"),
    ("saem/score.py", "import pytensor.tensor as pt", "score is mathematics"),
    ("saem/model.py", "from .step import SAEM", "model may not import the driver step"),
    ("saem/model.py", "from . import fit", "model may not import the driver fit"),
    ("saem/step.py", "from pymc_saem.saem.fit import fit_saem", "step may not import the driver fit"),
    ("saem/model.py", "from .run import run_chains", "model may not import the driver run"),
    ("saem/run.py", "from .fit import fit_saem", "run may not import the driver fit"),
    ("saem/fit.py", "x = 1\n" * (MAX_LINES + 1), "401 lines"),
    ("saem/fit.py", "import pymc\nif pymc.__version__ > '6':\n    pass", "line 2 reads __version__"),
    ("ode/op.py", "from packaging.version import Version\nx = Version('1')", "line 2 uses Version"),
    ("ode/op.py", "import sys\nx = sys.version_info", "reads version_info"),
]
GOOD_FILES = [
    ("__init__.py", "__version__ = '0.1.0'"),
    ("demo.py", "import pymc_saem as ps\nfrom .plots import fits"),
    ("compat.py", "import pymc\nNEW = pymc.__version__ > '6'"),
    ("plots/fits.py", "from ..evaluate.curves import draw_curves"),
    ("plots/vpc.py", "from ..diagnose.vpc import predictive_check"),
    ("diagnose/rows.py", "from ..prediction.values import Fit\nfrom ..evaluate.generator import Generator"),
    ("prediction/predict.py", "from ..evaluate import outcomes\nfrom ..saem.rows import subjects_of_rows"),
    ("ode/solve.py", "import numba\nfrom ..compat import NEW\nfrom .op import Op\nfrom . import events"),
    ("saem/__init__.py", "from .fit import fit_saem\nfrom .step import SAEM"),
    ("saem/run.py", "from pymc_saem.saem.step import SAEM"),
    ("saem/fit.py", "from .run import run_chains\nfrom .step import SAEM\nfrom ..output.datatree import to_datatree"),
    ("saem/step.py", "import pymc\nfrom .algorithm import run\nfrom .model import MixedModel"),
    ("saem/algorithm.py", "import numpy as np\nfrom dataclasses import dataclass\nfrom .mstep import normal_mean"),
    ("saem/mstep.py", "from scipy import linalg"),
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
