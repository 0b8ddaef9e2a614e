"""Every Python block of README.md runs, in order and in one namespace, as a reader would paste them."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest
from small import CHEAP, smaller

import pymc_saem as ps

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
#: Sizes at which a block shows that it runs; the README's own take minutes.
SMALL_FIT = {"n_explore": 3, "n_smooth": 3, "n_transitions": 10, "n_starts": 1, "draws": 3, "progressbar": False}
SMALL_SAMPLE = {"tune": 3, "draws": 3, "chains": 1, "cores": 1, "progressbar": False}
SMALL_SAMPLE["compute_convergence_checks"] = False
SMALL_RUN = {"n_explore": 2, "n_smooth": 1}
SMALL_REFITS = {
    "bootstrap": {"n": 2, "n_jobs": 1, "progressbar": False},
    "profile_likelihood": {"n_points": 2, "progressbar": False},
    "cross_validate": {"folds": 2, "progressbar": False},
    "check_restart": {},
}


def blocks():
    """Source of each block, behind empty lines, so that a traceback shows the line of the README."""
    text = README.read_text(encoding="utf-8")
    for found in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        yield "\n" * text[: found.start(1)].count("\n") + found.group(1)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Few iterations and draws, whatever the README asks for; files in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ps, "fit_saem", smaller(ps.fit_saem, CHEAP | {"standard_errors": "linearization"}, **SMALL_FIT))
    monkeypatch.setattr(pm, "sample", smaller(pm.sample, **SMALL_SAMPLE))
    for name, more in SMALL_REFITS.items():
        monkeypatch.setattr(ps, name, smaller(getattr(ps, name), **SMALL_RUN, **more))
    yield
    plt.close("all")


# Six iterations are too few for the E-step, and three draws for NUTS; both may say so.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_every_block_runs(small, capsys):
    namespace = {}
    for block in blocks():
        exec(compile(block, str(README), "exec"), namespace)
    printed = capsys.readouterr().out
    assert namespace["new_data"].sizes["simulation"] == 100
    assert namespace["longer"]["saem_trace"].sizes["iteration"] == 106
    assert "Random effects" in printed and "omega_ka" in printed
    assert namespace["iterates"].posterior["sigma"].shape == (1, 3)
    assert float(namespace["posterior"].posterior["rate"].mean()) > 0
    assert namespace["cleared"].eval()[-1] == pytest.approx(10.0, rel=1e-5)
    assert namespace["curve"].eval() == pytest.approx(10.0 * np.exp(-0.3 * np.linspace(0.0, 8.0, 100)), rel=1e-5)


def test_the_quick_start_is_the_first_block():
    first = next(blocks())
    for line in ("import pymc_saem as ps", "idata = ps.fit_saem(random_seed=21)", "ps.plot_fits(model, idata"):
        assert line in first


def test_links_lead_somewhere():
    for name in ("README.md", "ARCHITECTURE.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{name} links to {target}"
