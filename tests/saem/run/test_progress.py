"""What a run shows while it goes on: iterations, then what is computed after them; in terminals, notebooks and logs."""

import io
import logging
import warnings

import pytest
from rich.console import Console

import pymc_saem as ps
import pymc_saem.saem.run.bars as bars
from tests.support.models import random_intercept

SHORT = {
    "n_explore": 4,
    "n_smooth": 4,
    "draws": 10,
    "random_seed": 1,
    "compile_kwargs": {"mode": "FAST_COMPILE"},
}
AFTER = [
    "conditional distributions",
    "shrinkage of the residuals",
    "marginal log-likelihood",
    "standard errors",
]


def fit(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # eight iterations have not converged
        return ps.fit_saem(random_intercept(), **SHORT | options)


def test_the_log_says_what_runs_after_the_iterations(caplog):
    with caplog.at_level(logging.INFO, logger="pymc_saem"):
        fit(progressbar=False)
    said = [record.getMessage() for record in caplog.records if record.name == "pymc_saem"]
    assert said[-4:] == AFTER and any(text.startswith("smooth 8/8") for text in said[:-4])


@pytest.fixture
def screen(monkeypatch):
    """Text that goes to a terminal of 100 columns."""
    file = io.StringIO()
    monkeypatch.setattr(
        bars,
        "Console",
        lambda: Console(file=file, force_terminal=True, force_jupyter=False, width=100),
    )
    return file


def test_the_bar_says_what_runs_after_the_iterations(screen):
    fit()
    text = screen.getvalue()
    assert all(what in text for what in AFTER) and "8/8" in text
    last = text.rstrip().splitlines()[-1]
    assert "standard errors" not in last  # when all is done, only the iterations stay


def test_chains_say_it_too(screen):
    fit(chains=2)
    assert "chain 1 smooth" in screen.getvalue() and "standard errors" in screen.getvalue()


def test_a_notebook_without_ipywidgets_gets_plain_text(monkeypatch):
    shown = []

    class Output:
        def update(self, content, raw):
            shown.append(content["text/plain"])

    def display(content, raw, display_id):
        assert raw and display_id
        shown.append(content["text/plain"])
        return Output()

    ipython = pytest.importorskip("IPython.display")
    monkeypatch.setattr(ipython, "display", display)
    monkeypatch.setattr(bars, "find_spec", lambda name: None)
    monkeypatch.setattr(
        bars,
        "Console",
        lambda **options: Console(**options) if options else Console(force_jupyter=True),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="install")
        fit()
    assert any("standard errors" in text for text in shown)
    assert (
        "8/8" in shown[-1] and "\x1b" not in "".join(shown) and "standard errors" not in shown[-1]
    )
