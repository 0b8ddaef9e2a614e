"""What is built and installed: lower bounds that are tested."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: name: version, of every line such as numpy==2.0.0
OLDEST = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "tests" / "oldest.txt").read_text("utf-8"), flags=re.MULTILINE))


@pytest.mark.parametrize("requirement", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["zarr"])
def test_lower_bounds_are_the_oldest_versions_tested(requirement):
    name, bound = requirement.split(">=")
    assert bound == OLDEST[name]


def test_conda_has_the_same_lower_bounds():
    listed = re.findall(r"^  - ([\w-]+?)(?:-base)? >=([\d.]+)$", (ROOT / "environment.yml").read_text("utf-8"), flags=re.MULTILINE)
    assert dict(listed) == dict(requirement.split(">=") for requirement in PROJECT["dependencies"])
