"""Settings of Sphinx. The reference and the copies of the notebooks are made here; outputs of pages by run_pages.py."""

import inspect
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for make_reference

import make_reference  # noqa: E402

import pymc_saem  # noqa: E402

project = "pymc_saem"
author = "The pymc_saem developers"
copyright = "the pymc_saem developers, Apache-2.0"
version = release = pymc_saem.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",  # brings MathJax along: formulas need no other host, and no network
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
nitpicky = True  # a reference that leads nowhere is a warning, and a warning fails `make docs`

# Pages are Markdown; notebooks show the outputs that they were committed with.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say it in words
numpydoc_show_class_members = False  # the template of classes lists them
templates_path = ["_templates"]
# Names of other packages in docstrings are shown as code: their own pages are not looked up in a
# build without network.
nitpick_ignore_regex = [("py:.*", r"(?!pymc_saem).*")]

html_theme = "pydata_sphinx_theme"
html_title = "pymc_saem"
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_center": [],  # the sidebar has all pages
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_sidebars = {"**": ["sidebar-pages"]}
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_favicon = "_static/favicon.svg"
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _copy_notebooks(source: Path, target: Path) -> None:
    """Every notebook of the repository, so that a new one appears by itself."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in sorted(source.glob("*.ipynb")):
        shutil.copyfile(path, target / path.name)


def _own_signature(app, what, name, thing, options, signature, returned):
    """Arguments of ``__init__`` where a base class of PyMC has a ``__new__`` that takes anything."""
    if what == "class" and signature == "(*args, **kwargs)":
        _, *own = inspect.signature(thing.__init__).parameters.values()
        return str(inspect.Signature([one.replace(annotation=one.empty) for one in own])), returned


def setup(app):
    app.connect("autodoc-process-signature", _own_signature)


_copy_notebooks(HERE.parent / "notebooks", HERE / "notebooks")
make_reference.write(HERE / "reference")
