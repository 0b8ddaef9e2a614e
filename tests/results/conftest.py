"""Lets the tests here import the models of the tests of SAEM."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "saem"))
