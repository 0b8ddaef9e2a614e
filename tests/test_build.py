"""What is built and installed: lower bounds that are tested, the files of a wheel, its description on a package index."""

import email
import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: name: version, of every line such as numpy==2.0.0
OLDEST = dict(
    re.findall(
        r"^([\w-]+)==(\S+)$", (ROOT / "tests" / "oldest.txt").read_text("utf-8"), flags=re.MULTILINE
    )
)
README = "[a](docs/a.md) [b](https://b.org) ![c](c.png)\n\n*Caption.*\n\n```python\nx[0](y)\n```\n[`d`](d.md#e)\n"


@pytest.mark.parametrize(
    "requirement", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["zarr"]
)
def test_lower_bounds_are_the_oldest_versions_tested(requirement):
    name, bound = requirement.split(">=")
    assert bound == OLDEST[name]


def test_conda_has_the_same_lower_bounds():
    listed = re.findall(
        r"^  - ([\w-]+?)(?:-base)? >=([\d.]+)$",
        (ROOT / "environment.yml").read_text("utf-8"),
        flags=re.MULTILINE,
    )
    assert dict(listed) == dict(requirement.split(">=") for requirement in PROJECT["dependencies"])


@pytest.fixture(scope="module")
def description():
    """The function that makes the description of a package, from the file that the build loads by its path."""
    pytest.importorskip(
        "hatchling", reason="hatchling builds the package, and is not needed to run it"
    )
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.description


def test_links_lead_to_the_repository_where_it_is_known(description):
    assert description(README, "https://host/us/it/") == (
        "[a](https://host/us/it/blob/HEAD/docs/a.md) [b](https://b.org) ![c](https://host/us/it/raw/HEAD/c.png)\n\n"
        "*Caption.*\n\n```python\nx[0](y)\n```\n[`d`](https://host/us/it/blob/HEAD/d.md#e)\n"
    )


def test_without_its_address_links_are_text_and_pictures_are_left_out(description):
    assert description(README, None) == "a [b](https://b.org) ```python\nx[0](y)\n```\n`d`\n"


def test_a_wheel_has_every_file_and_a_description_without_relative_links(description, tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        (metadata,) = [
            archive.read(name).decode("utf-8")
            for name in archive.namelist()
            if name.endswith("/METADATA")
        ]
    files = [
        path
        for suffix in ("py", "csv", "typed")
        for path in (ROOT / "pymc_saem").rglob(f"*.{suffix}")
    ]
    assert sorted(names) == sorted(path.relative_to(ROOT).as_posix() for path in files)
    text = email.message_from_string(metadata).get_payload()
    assert text.startswith("# pymc_saem") and "ps.fit_saem(" in text
    assert not [
        target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("https://")
    ]
