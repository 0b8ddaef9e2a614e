"""Source of the reference: an overview of all public names, grouped by purpose, and a page for each group.

A public name that is in no group gets a group of its own at the end, so none is ever missing; a
test asks for its place. Needs no Sphinx.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pymc_saem


class Group(NamedTuple):
    """A group of names: title, first line, and names of the package or public subpackages, of which all names belong here."""

    title: str
    line: str
    names: tuple[str, ...]


GROUPS = {
    "fitting": Group(
        "Fitting",
        "Read a model, fit it, and resume a run.",
        ("summarize", "fit_saem", "Checkpoint", "SAEM"),
    ),
    "results": Group(
        "Results",
        "Tables of one fit or several, and files.",
        (
            "summary",
            "individuals",
            "random_effects",
            "rates",
            "correlation",
            "compare",
            "save",
            "load",
        ),
    ),
    "checking": Group(
        "Checking",
        "Verdicts on a run, residuals and visual predictive checks.",
        ("diagnostics", "residuals", "vpc"),
    ),
    "prediction": Group(
        "Prediction and simulation",
        "Predictions of old and new subjects, and simulated data sets.",
        ("predict", "simulate"),
    ),
    "refits": Group(
        "Many fits of one model",
        "Bootstrap, profiles, cross-validation, and chains ranked by likelihood.",
        ("bootstrap", "profile_likelihood", "cross_validate", "rank_chains", "check_restart"),
    ),
    "figures": Group(
        "Figures",
        "Each function returns its axes and accepts axes to draw into.",
        (
            "plot_data",
            "plot_fits",
            "plot_convergence",
            "plot_predictions",
            "plot_residuals",
            "plot_vpc",
            "plot_random_effects",
            "plot_rates",
            "plot_observation_distribution",
            "plot_comparison",
        ),
    ),
    "odes": Group("Differential equations", "For any PyMC model, with or without SAEM.", ("ode",)),
    "networks": Group(
        "Neural networks",
        "Small networks whose weights are random variables of a PyMC model.",
        ("nn",),
    ),
    "data": Group(
        "Data sets", "Small real data sets, as pandas DataFrames in long format.", ("datasets",)
    ),
}
OTHERS = Group("Other names", "Public names that belong to no group.", ())
RETURNED = Group("Returned objects and errors", "Users meet these without importing them.", ())
FOREWORD = """All public names, grouped by purpose. The pages are generated from the docstrings.

The examples run in the tests. They use ``data``, ``model`` and ``idata`` of :doc:`A first fit </first_fit>`, with ``np``, ``pd``, ``pm`` and
``ps`` for NumPy, pandas, PyMC and this package; ``build`` of :doc:`Predict and simulate </howto/predict>`; and ``network_model`` with its fit
``network_fit``, a model in which ``w_in`` are the weights of a network of the time ``t``, as in the :doc:`tutorial </tutorials>`.
"""
#: Met without being named in a docstring of its own module.
ALSO_MET = ("pymc_saem.saem.UnsupportedModelError",)


def public() -> dict[str, list[str]]:
    """Full paths by name in ``__all__``: that of the name itself, or of all public names of a subpackage."""
    found = {}
    for name in pymc_saem.__all__:
        if name in pymc_saem._SUBMODULES:
            module = import_module(f"pymc_saem.{name}")
            found[name] = [f"pymc_saem.{name}.{one}" for one in module.__all__]
        else:
            found[name] = [f"pymc_saem.{name}"]
    return found


def sections() -> dict[str, tuple[Group, list[str]]]:
    """Groups with the full paths of their names, by the name of their page."""
    known = public()
    found = {
        page: (group, [path for name in group.names if name in known for path in known[name]])
        for page, group in GROUPS.items()
    }
    grouped = {name for group in GROUPS.values() for name in group.names}
    found["others"] = (
        OTHERS,
        [path for name, paths in known.items() if name not in grouped for path in paths],
    )
    found["returned"] = (
        RETURNED,
        [*met(path for paths in known.values() for path in paths), *ALSO_MET],
    )
    return {page: section for page, section in found.items() if section[1]}


def met(paths) -> list[str]:
    """Classes that public functions return or raise, and that users meet without importing them."""
    paths = list(paths)
    found = {}
    for path in paths:
        module, name = path.rsplit(".", 1)
        thing = getattr(import_module(module), name)
        home = vars(inspect.getmodule(thing)) if inspect.getmodule(thing) else {}
        for name, value in home.items():
            if (
                not inspect.isclass(value)
                or not value.__module__.startswith("pymc_saem.")
                or path.endswith(f".{name}")
            ):
                continue
            if re.search(rf"^{name}$", inspect.getdoc(thing) or "", flags=re.MULTILINE):
                found[name] = f"{value.__module__}.{name}"
    public_names = {path.rsplit(".", 1)[1] for path in paths}
    return [found[name] for name in sorted(found) if name not in public_names]


def overview() -> str:
    """The front page in reStructuredText: all names in tables, and the pages of the groups for the sidebar."""
    parts = [_title("Reference", "="), f"{FOREWORD}\n"]
    for page, (group, paths) in sections().items():
        parts += [_title(f":doc:`{group.title} <{page}>`", "-"), f"{group.line}\n", _table(paths)]
    pages = "\n".join(f"   {page}" for page in sections())
    return "\n".join([*parts, f".. toctree::\n   :hidden:\n\n{pages}\n"])


def group_page(group: Group, paths: list[str]) -> str:
    """The page of a group; autosummary makes a page of each name from it."""
    return "\n".join([_title(group.title, "="), f"{group.line}\n", _table(paths, "   :toctree: .")])


def _title(text: str, underline: str) -> str:
    return f"{text}\n{underline * len(text)}\n"


def _table(paths, *options) -> str:
    return "\n".join(
        [
            ".. autosummary::",
            *options,
            "   :nosignatures:",
            "",
            *(f"   {path}" for path in paths),
            "",
        ]
    )


def write(folder: Path) -> None:
    """Write the pages, and remove pages of names that are no longer there."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        old.unlink()
    (folder / "index.rst").write_text(overview(), encoding="utf-8")
    for page, section in sections().items():
        (folder / f"{page}.rst").write_text(group_page(*section), encoding="utf-8")
