"""The README: its Python blocks run in order and in one namespace, its table is that of the exact answer, its links lead somewhere."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import pymc_saem as ps
from tests.support.small import CHEAP, SMALL_FIT, smaller

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
LINKING = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
#: The exact maximum of the first model, by quadrature (benchmarks/README.md, "Accuracy"; omega as
#: standard deviations).
EXACT = {"log_ka": 0.4593, "log_CL": 1.0117, "log_V": 3.4539, "sigma": 0.6959}
EXACT |= {"omega_ka": 0.4050**0.5, "omega_CL": 0.0703**0.5, "omega_V": 0.0185**0.5}


def blocks(language="python"):
    """Source of each block, behind empty lines, so that a traceback shows the line of the README."""
    text = README.read_text(encoding="utf-8")
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        yield "\n" * text[: found.start(1)].count("\n") + found.group(1)


# Six iterations are too few for everything, and everything may say so.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_every_block_runs(monkeypatch, capsys):
    options = CHEAP | {"standard_errors": "linearization"}
    monkeypatch.setattr(ps, "fit_saem", smaller(ps.fit_saem, options, **SMALL_FIT))
    namespace = {}
    for block in blocks():
        exec(compile(block, str(README), "exec"), namespace)
    plt.close("all")
    printed = capsys.readouterr().out
    assert "omega_ka" in printed and "-2LL" in printed
    assert set(namespace["neural_fit"].posterior["w_c2"].dims) == {
        "chain",
        "draw",
        "subject",
        "weight",
    }


def test_the_first_example_is_short_and_complete():
    first = next(blocks())
    assert len([line for line in first.splitlines() if line]) <= 18
    for line in (
        "import pymc_saem as ps",
        "ps.ode.solve_ivp(",
        "idata = ps.fit_saem(model, random_seed=1)",
    ):
        assert line in first


def test_the_table_has_the_exact_answer():
    (table,) = blocks("text")
    shown = {
        name: float(value)
        for name, value in re.findall(r"^(?!AIC)(\w+) +([\d.]+) ", table, flags=re.MULTILINE)
    }
    assert shown == pytest.approx(EXACT, rel=0.02)
    assert float(re.search(r"-2LL ([\d.]+)", table).group(1)) == pytest.approx(360.701, abs=0.01)


def anchors(path):
    """The anchors of the headings of a page, as hosts of repositories make them."""
    for heading in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", LINKING)
def test_links_lead_somewhere(name):
    for target, anchor in re.findall(
        r"\]\(([^)#]+)#?([^)]*)\)", (ROOT / name).read_text(encoding="utf-8")
    ):
        assert target.startswith("https://") or (ROOT / target).exists(), (
            f"{name} links to {target}"
        )
        assert not anchor or anchor in anchors(ROOT / target), f"{name} links to {target}#{anchor}"
