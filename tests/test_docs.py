"""Every Python block of the documentation runs; the reference has every public name, and the gallery every figure.

Sphinx is not needed: `make docs` builds the pages, with warnings as errors. Pages run as a reader
would paste them, after `first_fit.md`, with few iterations.
"""

import re
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from tests.support.documentation import DOCS, first_fit, program
from tests.support.small import SMALL, SMALL_FIT, SMALL_SAMPLE, WITHOUT, smaller

ROOT = Path(__file__).parents[1]
#: Pages that compare likelihoods.
COMPARE = ("refits", "gallery")


run_pages = program("run_pages")
make_reference = program("make_reference")


def check_odes(known):
    assert float(known["posterior"].posterior["rate"].mean()) > 0
    assert known["cleared"].eval()[-1] == pytest.approx(10.0, rel=1e-5)
    assert known["curve"].eval() == pytest.approx(
        10.0 * np.exp(-0.3 * np.linspace(0.0, 8.0, 100)), rel=1e-5
    )


def check_storage(known):
    assert known["longer"]["saem_trace"].sizes["iteration"] == 6 + 50


def check_predict(known):
    assert known["from_fit"].sizes["simulation"] == 20


def check_step_method(known):
    assert known["iterates"].posterior["sigma"].shape == (1, 3)


#: By page, what its blocks must have defined.
CHECKS = {
    "odes": check_odes,
    "storage": check_storage,
    "predict": check_predict,
    "step_method": check_step_method,
}
PAGES = [
    page for page in run_pages.pages() if page != run_pages.FIRST and list(run_pages.blocks(page))
]


@pytest.fixture(scope="module")
def first():
    """What `first_fit.md` defines, with all that follows an estimate."""
    return first_fit()


# Six iterations are too few for everything, and everything may say so.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.slow
def test_every_block_runs(page, first, tmp_path, monkeypatch):
    monkeypatch.setattr(
        ps, "fit_saem", smaller(ps.fit_saem, {} if page.stem in COMPARE else WITHOUT, **SMALL_FIT)
    )
    for name, options in SMALL.items():
        monkeypatch.setattr(ps, name, smaller(getattr(ps, name), **options))
    monkeypatch.setattr(pm, "sample", smaller(pm.sample, **SMALL_SAMPLE))
    monkeypatch.chdir(tmp_path)  # some blocks write files
    known = run_pages.run(page, first)
    CHECKS.get(page.stem, bool)(known)
    plt.close("all")


def test_the_first_fit_defines_what_other_pages_use(first):
    assert isinstance(first["model"], pm.Model)
    assert set(ps.summary(first["idata"]).index) >= {"log_ka", "omega_V", "sigma"}


@pytest.mark.filterwarnings("ignore:The difference between")
@pytest.mark.parametrize("columns", [80, 100])
def test_printed_tables_fit_the_terminal(first, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    model, idata = first["model"], first["idata"]
    tables = [
        ps.summarize(model),
        ps.summary(idata),
        ps.diagnostics(idata),
        ps.compare({"a" * 40: idata, "b": idata}),
    ]
    for table in tables:
        assert max(map(len, str(table).splitlines())) <= columns
    assert "m_step" in str(tables[1]) and "increase n_smooth" in str(tables[2]).replace("\n", " ")


def test_the_reference_has_every_public_name():
    page = make_reference.overview()
    entries = set(re.findall(r"^   (pymc_saem\.[\w.]+)$", page, flags=re.MULTILINE))
    for name in ps.__all__:
        if name in ps._SUBMODULES:
            assert {f"pymc_saem.{name}.{one}" for one in getattr(ps, name).__all__} <= entries
        else:
            assert f"pymc_saem.{name}" in entries
    assert any(entry.endswith(".Bootstrap") for entry in entries)  # what a public function returns


def test_every_public_name_has_a_group_of_the_reference(monkeypatch, tmp_path):
    assert "others" not in make_reference.sections()
    monkeypatch.setattr(ps, "__all__", [*ps.__all__, "__version__"])
    make_reference.write(tmp_path / "reference")
    assert "   pymc_saem.__version__\n" in (tmp_path / "reference" / "others.rst").read_text(
        "utf-8"
    )
    names = {path.stem for path in (tmp_path / "reference").glob("*.rst")}
    assert names == {"index", "others", "returned", *make_reference.GROUPS}


def test_the_gallery_has_every_figure():
    assert run_pages.missing_plots(ps.__all__) == []
    assert run_pages.missing_plots([*ps.__all__, "plot_nothing"]) == ["plot_nothing"]


def test_a_block_knows_its_outputs(tmp_path):
    page = tmp_path / "page.md"
    text = "a\n```python\nx = 1\n```\n\n![b](_outputs/b.svg)\n\n```python\nprint(x)\n```\n```{literalinclude} ../_outputs/c.txt\n```\n"
    page.write_text(text, encoding="utf-8")
    one, two = run_pages.blocks(page)
    assert one.source == "\n\nx = 1\n" and two.source.endswith("\nprint(x)\n")
    assert [path.name for path in one.outputs] == ["b.svg"]
    assert two.outputs == ((tmp_path.parent / "_outputs/c.txt").resolve(),)


def test_figures_of_a_block_are_kept_in_their_order(tmp_path):
    page = tmp_path / "page.md"
    block = "```python\nimport matplotlib.pyplot as plt\nfor n in {sizes}:\n    _ = plt.figure(figsize=(n, n)).add_axes((0, 0, 1, 1))\n```\n"
    page.write_text(
        block.format(sizes=[3, 1, 2]) + "![a](_outputs/a.svg)\n![b](_outputs/b.svg)\n",
        encoding="utf-8",
    )
    run_pages.run(page, {}, keep_outputs=True)
    widths = [
        re.search(r'width="([\d.]+)pt"', (tmp_path / f"_outputs/{n}.svg").read_text("utf-8"))
        for n in "ab"
    ]
    first, second = (float(width.group(1)) for width in widths)
    assert 50 < second - first < 100  # an inch, of 72 points
    page.write_text(
        block.format(sizes=[1]) + "![a](_outputs/a.svg)\n![b](_outputs/b.svg)\n", encoding="utf-8"
    )
    with pytest.raises(
        RuntimeError, match="shows a.svg, b.svg, and the block before draws 1 figures"
    ):
        run_pages.run(page, {}, keep_outputs=True)
    plt.close("all")


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in run_pages.pages():
        for block in re.findall(
            r"^```\{toctree\}\n(.*?)^```$", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
        ):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {page.parent / f"{name}.md" for name in names}
    assert set(run_pages.pages()) <= listed


@pytest.mark.parametrize("page", run_pages.pages(), ids=lambda page: page.stem)
def test_printed_options_exist(page):
    """Names of the package in running text, such as {func}`pymc_saem.compare` or `ps.ode.Doses`."""
    for path in re.findall(r"\b(?:ps|pymc_saem)((?:\.\w+)+)", page.read_text("utf-8")):
        thing = ps
        for name in path.strip(".").split("."):
            if name in ("demo", "precompile"):
                break
            thing = getattr(thing, name)


def test_make_and_pip_know_the_documentation():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    assert any(name.startswith("sphinx") for name in extras["docs"])
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert '".[docs]"' in makefile and "sphinx -W" in makefile
