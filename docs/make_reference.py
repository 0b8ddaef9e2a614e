"""Source of the reference: a page with every public name, from the lists that the package itself has.

Nothing is named here that the package can name: a new entry of ``__all__`` appears without a change. Needs no Sphinx.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pymc_saem

#: Title and first line of the section of each home in ``pymc_saem._HOMES``; an unknown home gets its own name as title.
TITLES = {
    "saem": ("Estimation", "The estimator, the step method behind it, and the model as it is understood."),
    "diagnose": ("Model checks", "Residuals and visual predictive checks as tables."),
    "evaluate": ("Random effects and learned rates", "What the figures of the same name show, as tables."),
    "output": ("Results", "Tables of a fit, several fits beside each other, and files."),
    "prediction": ("Prediction and simulation", "What follows from a fit: predictions, and new data sets."),
    "refit": ("Many fits of one model", "Bootstrap, profiles, cross-validation, chains ranked by likelihood."),
    "plots": ("Figures", "Every function returns axes and takes the axes to draw into."),
    "ode": ("pymc_saem.ode", "Differential equations for any PyMC model; nothing here knows SAEM."),
    "nn": ("pymc_saem.nn", "Small neural networks whose weights are random variables of a PyMC model."),
    "datasets": ("pymc_saem.datasets", "Small real data sets, as pandas DataFrames in long format."),
}
#: Met without being named in a docstring of its own module.
ALSO_MET = ("pymc_saem.saem.UnsupportedModelError",)


def sections() -> dict[str, list[str]]:
    """Public names with their module, by home: the functions of the package, then those of its public subpackages."""
    found: dict[str, list[str]] = {}
    for name, home in pymc_saem._HOMES.items():
        found.setdefault(home, []).append(f"pymc_saem.{name}")
    for home in pymc_saem._SUBMODULES:
        module = import_module(f"pymc_saem.{home}")
        found[home] = [f"pymc_saem.{home}.{name}" for name in module.__all__]
    order = [*TITLES, *(home for home in found if home not in TITLES)]
    return {home: found[home] for home in order if home in found}


def met() -> list[str]:
    """Classes that public functions return or raise, and that users meet without importing them."""
    found = {}
    for names in sections().values():
        for path in names:
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
    public = {path.rsplit(".", 1)[1] for names in sections().values() for path in names}
    return [found[name] for name in sorted(found) if name not in public]


def page() -> str:
    """The page in reStructuredText; autosummary makes a page of each name from it."""
    parts = [_title("Reference", "="), "Generated from the docstrings: every public name of the package.\n"]
    for home, names in sections().items():
        title, line = TITLES.get(home, (home, ""))
        parts += [_title(title, "-"), f"{line}\n", _table(names)]
    parts += [_title("Results and errors that are not made by hand", "-"), _table([*met(), *ALSO_MET])]
    return "\n".join(parts)


def _title(text: str, underline: str) -> str:
    return f"{text}\n{underline * len(text)}\n"


def _table(names) -> str:
    return "\n".join(
        [".. autosummary::", "   :toctree: .", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]
    )


def write(folder: Path) -> None:
    """Write the page, and remove pages of names that are no longer there."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        old.unlink()
    (folder / "index.rst").write_text(page(), encoding="utf-8")
