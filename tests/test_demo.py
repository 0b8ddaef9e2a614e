"""The demo runs from the command line, prints its tables and leaves its files."""

import os
import subprocess
import sys
from pathlib import Path

import arviz as az
import numpy as np
import pytest

from pymc_saem import demo
from pymc_saem.compat import get_group, group_names

pytestmark = pytest.mark.slow("together")
ROOT = Path(__file__).parents[1]
FIGURES = (
    "convergence.png",
    "fits.png",
    "fits_1_2.png",
    "rates.png",
    "effects.png",
    "observation.png",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Text and folder of one quick run, in a process of its own, as ``make demo`` starts it."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "pymc_saem.demo", "--quick", "--out", "results", "--seed", "3"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout, folder


def test_the_three_tables_are_printed(finished):
    text, _ = finished
    data, understood, estimates = (
        text.index(word) for word in ("highest_conc", "Random effects", "estimate ")
    )
    assert data < understood < estimates
    assert "319.99" in text and "z_c2 (7 weights)" in text


def test_the_wall_time_is_split(finished):
    text, _ = finished
    lines = text[text.index("Wall time") :].splitlines()[2:10]
    parts = {line.split()[0]: float(line.split()[1]) for line in lines}
    assert list(parts) == [
        "import",
        "build",
        "compile",
        "start",
        "iterate",
        "after",
        "figures",
        "total",
    ]
    assert min(parts.values()) > 0
    assert parts.pop("total") == pytest.approx(sum(parts.values()), abs=0.05)


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_is_written_and_named(finished, name):
    text, folder = finished
    assert str(Path("results") / name) in text
    assert (folder / "results" / name).read_bytes().startswith(b"\x89PNG")


def test_the_fit_is_read_back(finished):
    text, folder = finished
    assert str(Path("results") / "fit.nc") in text
    idata = az.from_netcdf(folder / "results" / "fit.nc")
    assert {"posterior", "saem_trace", "population", "individual"} <= set(group_names(idata))
    estimates = get_group(idata, "population")["estimate"].values
    assert estimates.shape == (29,) and np.isfinite(estimates).all()


def test_the_settings_are_those_of_the_tutorial():
    assert demo.SETTINGS == {"n_explore": 600, "n_smooth": 400, "n_transitions": 80}
    assert demo.SEED == 21
