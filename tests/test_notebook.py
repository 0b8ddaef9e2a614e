"""The committed notebooks are executed, small and free of traces of the machine; running them is ``make notebooks``.

They run here as well, with few iterations, draws and simulations.
"""

import json
import logging
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest

import pymc_saem as ps
from tests.support.small import CHEAP, SMALL, SMALL_FIT, smaller

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ODE_NOTEBOOK = "02_ode_models_in_pymc.ipynb"
SAEM_NOTEBOOKS = [path for path in NOTEBOOKS if path.name != ODE_NOTEBOOK]
#: Folders of users, temporary files and installed packages, on Linux, macOS and Windows.
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home|tmp|root|usr|var|opt|mnt|private|Users|Library)/|site-packages|\b[A-Za-z]:\\\\?(?:Users|Temp)"
)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def path(request):
    return request.param


def code_cells_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def code_cells(path):
    return code_cells_of(path)


def test_the_tutorials_are_there():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


def test_it_is_small(path):
    assert path.stat().st_size < 1_000_000  # a dozen figures


def test_every_code_cell_was_executed_in_order(code_cells):
    assert code_cells
    assert [cell["execution_count"] for cell in code_cells] == list(range(1, len(code_cells) + 1))


def test_no_cell_failed_or_warned(code_cells):
    outputs = [output for cell in code_cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output["text"] for output in outputs if output.get("name") == "stderr"]


def test_it_has_figures_and_tables(code_cells):
    kinds = [
        kind for cell in code_cells for output in cell["outputs"] for kind in output.get("data", {})
    ]
    assert {"image/png", "text/html"} <= set(kinds)


def test_nothing_tells_the_machine(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)  # base64 may spell anything
    found = MACHINE_PATH.search("\n".join(_texts(notebook)))
    assert found is None, found


def _texts(value):
    """Every string in a JSON document, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)


def test_the_kernel_is_plain(path):
    assert (
        json.loads(path.read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"] == "python3"
    )


def test_code_compiles(path, code_cells):
    for number, cell in enumerate(code_cells, start=1):
        compile("".join(cell["source"]), f"{path.name}, code cell {number}", "exec")


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("File /home/someone/notebook.py", True),
        ("/tmp/ipykernel_1/2.py:3: UserWarning", True),
        ("lib/python3.13/site-packages/pymc", True),
        ("mg/L/h, solve/home, 1/24", False),
        ("https://www.pymc.io/projects/docs", False),
    ],
)
def test_machine_paths_are_recognized(text, is_path):
    assert bool(MACHINE_PATH.search(text)) is is_path


@pytest.fixture
def reduced(monkeypatch, tmp_path):
    """Few of everything, whatever a notebook asks for; its settings of matplotlib and logging end with the test."""
    monkeypatch.chdir(tmp_path)  # some cells write files
    small = {"tune": 5, "draws": 10, "chains": 1, "cores": 1, "compute_convergence_checks": False}
    monkeypatch.setattr(pm, "sample", smaller(pm.sample, **small))
    monkeypatch.setattr(ps, "fit_saem", smaller(ps.fit_saem, CHEAP, **SMALL_FIT))
    for name, options in SMALL.items():
        monkeypatch.setattr(ps, name, smaller(getattr(ps, name), **options))
    logger = logging.getLogger("pymc")
    level = logger.level
    with plt.rc_context():
        yield
    logger.setLevel(level)
    plt.close("all")


def executed(path):
    """What the cells of a notebook define."""
    namespace = {"display": lambda *shown: [repr(one) for one in shown]}  # IPython's
    for number, cell in enumerate(code_cells_of(path), start=1):
        exec(
            compile("".join(cell["source"]), f"{path.name}, code cell {number}", "exec"), namespace
        )
    return namespace


# Ten draws are too few for NUTS and for ArviZ, and six iterations for SAEM; all may say so.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("path", SAEM_NOTEBOOKS, indirect=True, ids=lambda path: path.name)
def test_it_runs(path, reduced):
    executed(path)
    assert plt.get_fignums()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_ode_notebook_runs(reduced, capsys):
    namespace = executed(ROOT / "notebooks" / ODE_NOTEBOOK)
    exact = namespace["closed_form"](namespace["hours"], **namespace["true"])
    np.testing.assert_allclose(namespace["conc"], exact, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(
        namespace["d_lag"], namespace["difference"]("lag", 1e-5), rtol=1e-6, atol=1e-6
    )
    assert namespace["apart"] < 1e-8  # the area is dose over clearance, in every draw
    rows = namespace["rows"]
    assert len(rows) == 18
    stiff = [row for row in rows if row["problem"].startswith("van der Pol")]
    assert {row["status"] for row in stiff if row["solver"] == "tsit5"} == {"MAX_STEPS"}
    assert {row["status"] for row in rows if row not in stiff or row["solver"] != "tsit5"} == {
        "SUCCESS"
    }
    assert namespace["slope"] == pytest.approx(namespace["difference_of_both"], rel=0.01)
    assert np.isnan(namespace["values"]).tolist() == [False, False, True]
    assert "0 draws with a failed solve" in capsys.readouterr().out
