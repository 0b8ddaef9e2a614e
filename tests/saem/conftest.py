"""Lets the tests here import models.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
